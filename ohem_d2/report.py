"""A page to look through hard examples with, that opens from disk."""

import json
from pathlib import Path

import cv2
import numpy as np
from detectron2.data.detection_utils import read_image

from .hard_examples import HardExample
from .kinds import KINDS
from .pictures import KIND_COLORS

_TEMPLATE = Path(__file__).with_name("report.html")
_CROP_SIZE = 260  # pixels of the longer side of a crop, whatever it shows
_CONTEXT = 0.6  # of the longer side of what is shown, on each side
_TRUTH_COLOR = (255, 255, 255)


class Report:
    """A folder with index.html, hard_examples.json and a crop of each example."""

    def __init__(self, folder: Path) -> None:
        """
        Args:
            folder: where to. It is made if need be, and the files of an earlier report go.
        """
        self._folder = folder
        (folder / "crops").mkdir(parents=True, exist_ok=True)
        for old in (folder / "crops").glob("*.jpg"):
            old.unlink()
        self._number = 0

    def add_crops(self, file_name: str, examples: list[HardExample]) -> list[str]:
        """
        Write a crop of each example of an image.

        Args:
            file_name: the image.
            examples: what was found in it.

        Returns:
            the crops' files, relative to the folder.
        """
        image = read_image(file_name, format="RGB") if examples else None
        crops = []
        for x in examples:
            self._number += 1
            crops.append(f"crops/{self._number:06d}.jpg")
            crop = draw_crop(image, x)[:, :, ::-1]
            cv2.imwrite(str(self._folder / crops[-1]), crop, [cv2.IMWRITE_JPEG_QUALITY, 85])
        return crops

    def write(self, coco: dict) -> None:
        """
        Write the page and the JSON file.

        Args:
            coco: what `as_coco` returns, each annotation with its ``crop`` besides.
        """
        (self._folder / "hard_examples.json").write_text(json.dumps(coco))
        colors = {
            kind: f"rgb({', '.join(str(round(255 * c)) for c in color)})"
            for kind, color in zip(KINDS, KIND_COLORS)
        }
        data = json.dumps({**coco, "kinds": KINDS[:-1], "colors": colors})
        # Nothing in a name can end the script element that holds it.
        data = data.replace("<", "\\u003c")
        page = _TEMPLATE.read_text(encoding="utf-8").replace(">DATA<", f">{data}<")
        (self._folder / "index.html").write_text(page, encoding="utf-8")


def draw_crop(image: np.ndarray, example: HardExample) -> np.ndarray:
    """
    Draw an example and what is around it: the RoI in the colour of its kind, the object in white.

    Args:
        image: (H, W, 3) RGB of uint8.
        example: what was found in it.

    Returns:
        RGB of uint8.
    """
    boxes = np.array([b for b in (example.true_box, example.box) if b is not None])
    near, far = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    margin = _CONTEXT * (far - near).max()
    x0, y0 = np.floor(np.maximum(near - margin, 0)).astype(int)
    x1, y1 = np.ceil(np.minimum(far + margin, image.shape[1::-1])).astype(int)
    scale = _CROP_SIZE / max(x1 - x0, y1 - y0)
    size = [max(1, round(scale * s)) for s in (x1 - x0, y1 - y0)]
    crop = cv2.resize(image[y0:y1, x0:x1], size, interpolation=cv2.INTER_AREA)
    color = [round(255 * c) for c in KIND_COLORS[KINDS.index(example.kind)]]
    for box, box_color in zip(boxes, ([_TRUTH_COLOR] if len(boxes) == 2 else []) + [color]):
        corners = np.round((box.reshape(2, 2) - [x0, y0]) * scale).astype(int)
        cv2.rectangle(crop, *corners.tolist(), box_color, 2)
    return crop
