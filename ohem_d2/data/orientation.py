"""
Images that their EXIF data turn or mirror.

Detectron2 reads them as they are shown. Some tools annotate the pixels as they are stored: such
annotations are turned with the image.
"""

from typing import Any

import numpy as np
import pycocotools.mask as mask_util
from detectron2.structures import BoxMode

# EXIF's orientations that exchange width and height.
SIDEWAYS = (5, 6, 7, 8)


def turn_array(array: np.ndarray, orientation: int) -> np.ndarray:
    """Turn the pixels of an image, (H, W) or (H, W, C), from as stored to as shown."""
    if orientation in (5, 7):
        array = array.swapaxes(0, 1)
    if orientation in (6, 8):
        array = np.rot90(array, -1 if orientation == 6 else 1)
    flips = {2: (1,), 3: (0, 1), 4: (0,), 7: (0, 1)}
    return np.flip(array, flips[orientation]) if orientation in flips else array


def turn_points(points: np.ndarray, orientation: int, width: int, height: int) -> np.ndarray:
    """
    Turn points from as stored to as shown.

    Args:
        points: (N, 2), x and y.
        orientation: EXIF's, from 1 to 8.
        width: of the image as stored.
        height: of the image as stored.
    """
    x, y = points[:, 0], points[:, 1]
    columns = {
        1: (x, y),
        2: (width - x, y),
        3: (width - x, height - y),
        4: (x, height - y),
        5: (y, x),
        6: (height - y, x),
        7: (height - y, width - x),
        8: (y, width - x),
    }
    return np.stack(columns[orientation], axis=1)


def turn_annotation(annotation: dict[str, Any], orientation: int, width: int, height: int) -> None:
    """Turn all of an object in Detectron2's form; see `turn_points`."""
    how = orientation, width, height
    box = BoxMode.convert(annotation["bbox"], annotation["bbox_mode"], BoxMode.XYXY_ABS)
    corners = turn_points(np.array(box, dtype=float).reshape(2, 2), *how)
    box = [*corners.min(axis=0).tolist(), *corners.max(axis=0).tolist()]
    annotation["bbox"] = BoxMode.convert(box, BoxMode.XYXY_ABS, annotation["bbox_mode"])
    outline = annotation.get("segmentation")
    if isinstance(outline, list):
        annotation["segmentation"] = [
            turn_points(np.array(x, dtype=float).reshape(-1, 2), *how).reshape(-1).tolist()
            for x in outline
        ]
    elif isinstance(outline, dict) and list(outline["size"]) == [height, width]:
        mask = turn_array(mask_util.decode(outline), orientation)
        annotation["segmentation"] = mask_util.encode(np.asfortranarray(mask))
    if "keypoints" in annotation:
        points = np.array(annotation["keypoints"], dtype=float).reshape(-1, 3)
        is_seen = points[:, 2] > 0
        points[is_seen, :2] = turn_points(points[is_seen, :2], *how)
        annotation["keypoints"] = points.reshape(-1).tolist()
