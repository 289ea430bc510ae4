"""
The built-in data set: shapes to find, and look-alikes that are background.

It is drawn on first use, from a seed, into ``datasets/ohem_shapes_v2`` (below the folder that
``$DETECTRON2_DATASETS`` names, if it does), in the PASCAL VOC layout and as COCO JSON files.
"""

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from xml.etree import ElementTree as ET

import cv2
import numpy as np
from tqdm import tqdm

from ..errors import InputError
from .coco import load_coco
from .root import data_root
from .voc import load_voc

logger = logging.getLogger(__name__)

CLASSES = ["circle", "square", "triangle"]
LOOK_ALIKES = ["ring", "pentagon", "star", "bar"]
SIZES = {"train": 1200, "test": 200}
IMAGE_SIZE = 128
SEED = 0
# To be raised whenever the images or the annotations change, so that nobody goes on with old ones.
VERSION = 2
# A circle is annotated as a polygon with so many corners.
_CORNERS_OF_CIRCLE = 36


def draw_image(
    rng: np.random.Generator, max_objects: int = 5, max_look_alikes: int = 3
) -> tuple[np.ndarray, list[tuple[str, tuple[int, int, int, int], np.ndarray]]]:
    """
    Draw one image.

    Args:
        rng: the source of all that is random.
        max_objects: there are between 1 and this many shapes of `CLASSES`.
        max_look_alikes: there are between 0 and this many shapes of `LOOK_ALIKES`.

    Returns:
        a BGR image (`IMAGE_SIZE`, `IMAGE_SIZE`, 3) of uint8; and of each object
        its class and what `draw_shape` returns.
    """
    image = _background(rng)
    objects = []
    taken: list[tuple[np.ndarray, float]] = []  # centre and radius
    kinds = [str(rng.choice(CLASSES)) for _ in range(rng.integers(1, max_objects + 1))]
    kinds += [str(rng.choice(LOOK_ALIKES)) for _ in range(rng.integers(0, max_look_alikes + 1))]
    for kind in kinds:
        for _ in range(20):  # tries for a place that is free
            radius = rng.uniform(11, 26)
            center = rng.uniform(radius + 1, IMAGE_SIZE - radius - 1, size=2)
            if all(np.linalg.norm(center - c) > radius + r for c, r in taken):
                break
        else:
            continue
        taken.append((center, radius))
        box, outline = draw_shape(image, rng, kind, center, radius)
        if kind in CLASSES:
            objects.append((kind, box, outline))
    noise = rng.normal(0, 6, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8), objects


def _background(rng: np.random.Generator) -> np.ndarray:
    blotches = rng.uniform(60, 200, (5, 5, 3)).astype(np.float32)
    return cv2.resize(blotches, (IMAGE_SIZE, IMAGE_SIZE), interpolation=cv2.INTER_CUBIC)


def draw_shape(
    image: np.ndarray, rng: np.random.Generator, kind: str, center: np.ndarray, radius: float
) -> tuple[tuple[int, int, int, int], np.ndarray]:
    """
    Draw one shape into an image, in a colour that stands out from what is there.

    Args:
        image: (H, W, 3), which is changed.
        rng: the source of all that is random.
        kind: one of `CLASSES` or `LOOK_ALIKES`.
        center: (2,), x and y.
        radius: of the circle around it.

    Returns:
        its XYXY box; and its outline, (N, 2), x and y.
    """
    mask = np.zeros(image.shape[:2], np.uint8)
    x, y = center.astype(int)
    if kind in ("circle", "ring"):
        cv2.circle(mask, (x, y), int(radius), 255, -1, cv2.LINE_AA)
        angles = 2 * np.pi * np.arange(_CORNERS_OF_CIRCLE) / _CORNERS_OF_CIRCLE
        outline = (x, y) + int(radius) * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        if kind == "ring":
            cv2.circle(mask, (x, y), int(radius * 0.55), 0, -1, cv2.LINE_AA)
    else:
        outline = (center + radius * _outline(kind, tilt=rng.uniform(-0.4, 0.4))).round()
        cv2.fillPoly(mask, [outline.astype(np.int32)], 255, cv2.LINE_AA)

    behind = image[y, x].copy()
    color = behind
    while np.abs(color - behind).max() < 90:
        color = rng.uniform(0, 255, 3)
    opacity = mask[..., None] / 255
    image[:] = opacity * color + (1 - opacity) * image
    x, y, width, height = cv2.boundingRect((mask > 127).astype(np.uint8))
    # OpenCV's points are the middles of pixels, and it fills those that the outline runs through:
    # in a regular polygon, half a pixel more on each side.
    rays = outline - outline.mean(axis=0)
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    outline = outline + 0.5 + rays * 0.5 / np.cos(np.pi / len(outline))
    return (x, y, x + width, y + height), outline


def _outline(kind: str, tilt: float) -> np.ndarray:
    """Corners of a shape in the unit circle, upright except for a tilt in radians."""
    if kind == "bar":
        angles, radii = np.array([0.3, np.pi - 0.3, np.pi + 0.3, -0.3]), np.ones(4)
    else:
        corners = {"triangle": 3, "square": 4, "pentagon": 5, "star": 10}[kind]
        up = np.pi / 4 if kind == "square" else np.pi / 2
        angles = 2 * np.pi * np.arange(corners) / corners - up
        radii = np.where(np.arange(corners) % 2, 0.45 if kind == "star" else 1.0, 1.0)
    return (np.stack([np.cos(angles + tilt), np.sin(angles + tilt)]) * radii).T


def write_shapes(folder: Path, sizes: dict[str, int] = SIZES, seed: int = SEED, **drawing) -> None:
    """
    Draw a data set of shapes.

    Args:
        folder: where to. It appears whole or not at all.
        sizes: number of images of each split.
        seed: the same seed draws the same images.
        drawing: arguments of `draw_image`.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    logger.info(f"Drawing the built-in data set into {folder} ...")
    unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}_", dir=folder.parent))
    try:
        for part in ("JPEGImages", "Annotations", "ImageSets/Main"):
            (unfinished / part).mkdir(parents=True)
        for number, (split, size) in enumerate(sizes.items()):
            rng = np.random.default_rng([seed, number])
            _write_split(unfinished, split, size, rng, drawing)
        unfinished.chmod(0o755)
        unfinished.rename(folder)
    except OSError:
        if not folder.exists():  # else another process was faster
            raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _write_split(
    folder: Path, split: str, size: int, rng: np.random.Generator, drawing: dict
) -> None:
    names = [f"{split}_{i:05d}" for i in range(size)]
    coco = {
        "images": [],
        "annotations": [],
        "categories": [{"id": i, "name": name} for i, name in enumerate(CLASSES, 1)],
    }
    for image_id, name in enumerate(tqdm(names, desc=split, leave=False)):
        image, objects = draw_image(rng, **drawing)
        cv2.imwrite(
            str(folder / "JPEGImages" / f"{name}.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 95]
        )
        height, width = image.shape[:2]
        xml = ET.Element("annotation")
        ET.SubElement(xml, "filename").text = f"{name}.jpg"
        _add_numbers(ET.SubElement(xml, "size"), width=width, height=height, depth=3)
        coco["images"].append(
            {"id": image_id, "file_name": f"{name}.jpg", "width": width, "height": height}
        )
        for kind, (x0, y0, x1, y1), outline in objects:
            obj = ET.SubElement(xml, "object")
            ET.SubElement(obj, "name").text = kind
            _add_numbers(obj, difficult=0)
            # VOC counts pixels from 1 and includes the last one.
            _add_numbers(ET.SubElement(obj, "bndbox"), xmin=x0 + 1, ymin=y0 + 1, xmax=x1, ymax=y1)
            coco["annotations"].append(
                {
                    "id": len(coco["annotations"]) + 1,
                    "image_id": image_id,
                    "category_id": CLASSES.index(kind) + 1,
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": (x1 - x0) * (y1 - y0),
                    "segmentation": [outline.round(2).reshape(-1).tolist()],
                    "iscrowd": 0,
                }
            )
        ET.ElementTree(xml).write(folder / "Annotations" / f"{name}.xml")
    (folder / "ImageSets/Main" / f"{split}.txt").write_text("\n".join(names) + "\n")
    (folder / f"{split}.json").write_text(json.dumps(coco))


def _add_numbers(parent: ET.Element, **numbers: int) -> None:
    for name, value in numbers.items():
        ET.SubElement(parent, name).text = str(value)


def shapes_folder() -> Path:
    """Where the built-in data set is, or will be."""
    return data_root() / f"ohem_shapes_v{VERSION}"


def _load(split: str, layout: str) -> list[dict]:
    folder = shapes_folder()
    try:
        if not folder.is_dir():
            if os.path.lexists(folder):
                raise FileExistsError(None, "there is a file of this name")
            write_shapes(folder)
    except (OSError, ValueError) as e:
        raise InputError(
            f"the built-in data set cannot be drawn into {folder} "
            f"({getattr(e, 'strerror', None) or e}): expected DETECTRON2_DATASETS to be a folder "
            "on this machine that can be written"
        ) from e
    if layout == "coco":
        records, *_ = load_coco(folder / f"{split}.json", folder / "JPEGImages")
    else:
        records, *_ = load_voc(folder, split)
    for record in records:
        for annotation in record["annotations"]:
            annotation["category_id"] = CLASSES.index(annotation["category_id"])
    return records


def datasets() -> dict[str, tuple[Callable[[], list[dict]], dict]]:
    """Return what loads each split in each layout, and its metadata."""
    coco = {"thing_classes": CLASSES, "evaluator_type": "coco"}
    voc = {"thing_classes": CLASSES, "evaluator_type": "pascal_voc"}
    return {
        "ohem_shapes_train": (partial(_load, "train", "coco"), coco),
        "ohem_shapes_test": (partial(_load, "test", "coco"), coco),
        "ohem_shapes_test_voc": (partial(_load, "test", "voc"), voc),
    }
