"""Drawn data sets with crowds: clumps of shapes that have one label together."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np

from ohem_d2.data.shapes import CLASSES, IMAGE_SIZE, SEED, SIZES, draw_shape, write_shapes

# A clump has this many rows and columns, or as many columns and rows, of shapes with such a radius.
_ROWS, _COLUMNS = 2, 3
_RADIUS = (10, 12)
_SPACING = 25
_TRIES = 50  # for a place that is free


def write_crowds(folder: Path, sizes: dict[str, int] = SIZES, seed: int = SEED, **drawing) -> None:
    """
    Draw a data set of shapes, with a clump of others in each image that has room for one.

    The shapes of a clump are of one class, and look like those that are labelled. It has a single
    annotation, with ``"iscrowd": 1``, in the training set and in the test set.

    Args:
        folder: where to. There are COCO JSON files alone. It appears whole or not at all.
        sizes: number of images of each split.
        seed: the same seed draws the same images.
        drawing: arguments of `draw_image`.
    """
    unfinished = folder.with_name(f".{folder.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    write_shapes(unfinished, sizes, seed, **drawing)
    for part in ("Annotations", "ImageSets"):  # which would not know of the crowds
        shutil.rmtree(unfinished / part)
    for number, split in enumerate(sizes):
        _add_crowds(unfinished, split, np.random.default_rng([seed, number, 1]))
    unfinished.rename(folder)


def _add_crowds(folder: Path, split: str, rng: np.random.Generator) -> None:
    content = json.loads((folder / f"{split}.json").read_text())
    for x in content["images"]:
        file = str(folder / "JPEGImages" / x["file_name"])
        taken = [a["bbox"] for a in content["annotations"] if a["image_id"] == x["id"]]
        centers = _place(taken, rng)
        if centers is None:
            continue
        before = np.array(cv2.imread(file), dtype=float)
        image = before.copy()
        kind = str(rng.choice(CLASSES))
        boxes = [draw_shape(image, rng, kind, c, rng.uniform(*_RADIUS))[0] for c in centers]
        is_drawn = (image != before).any(axis=2)
        image[is_drawn] += rng.normal(0, 6, image[is_drawn].shape)  # as the rest of the image
        image = np.clip(image, 0, 255).astype(np.uint8)
        cv2.imwrite(file, image, [cv2.IMWRITE_JPEG_QUALITY, 95])
        x0, y0, x1, y1 = (f(values) for f, values in zip((min, min, max, max), zip(*boxes)))
        content["annotations"].append(
            {
                "id": len(content["annotations"]) + 1,
                "image_id": x["id"],
                "category_id": CLASSES.index(kind) + 1,
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "area": (x1 - x0) * (y1 - y0),
                "iscrowd": 1,
            }
        )
    (folder / f"{split}.json").write_text(json.dumps(content))


def _place(taken: list[list[int]], rng: np.random.Generator) -> list[np.ndarray] | None:
    """The centers of a clump that touches no labelled shape; None if there is no room."""
    for _ in range(_TRIES):
        rows, columns = (_ROWS, _COLUMNS) if rng.random() < 0.5 else (_COLUMNS, _ROWS)
        size = np.array([columns, rows]) * _SPACING
        corner = rng.uniform(1, IMAGE_SIZE - size - 1)
        near = corner + size
        if all(
            x + w < corner[0] or y + h < corner[1] or x > near[0] or y > near[1]
            for x, y, w, h in taken
        ):
            grid = [(i, j) for i in range(columns) for j in range(rows)]
            return [corner + _SPACING * (np.array(at) + 0.5) for at in grid]
    return None
