"""The figures of a data set: images, objects, classes, and the sizes of images and boxes."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .boxes import corners

_SHOWN_SIZES = 5
_AREAS = {"small": 32**2, "medium": 96**2, "large": math.inf}  # COCO's, in pixels
_QUANTILES = {"smallest": 0.0, "10 %": 0.1, "median": 0.5, "90 %": 0.9, "largest": 1.0}


@dataclass(frozen=True)
class Overview:
    """
    The figures of a data set.

    Args:
        images: how many there are.
        empty: how many of them have no objects.
        objects: how many there are of each class.
        images_with: how many images have an object of each class.
        per_image: the objects of an image: least, median, most.
        image_sizes: how many images there are of each size, the most frequent ones first.
        sides: quantiles of the square root of a box's area, in pixels.
        areas: how many boxes are small, medium and large by COCO's limits.
        regions: how many annotations are regions to ignore, which are no objects.
        difficult: how many objects are difficult, as PASCAL VOC marks them.
    """

    images: int
    empty: int
    objects: dict[str, int]
    images_with: dict[str, int]
    per_image: tuple[int, float, int]
    image_sizes: dict[tuple[int, int], int]
    sides: dict[str, float]
    areas: dict[str, int]
    regions: int
    difficult: int

    def lines(self) -> list[str]:
        """Return them in words, a line for each."""
        total = sum(self.objects.values())
        sizes = [f"{w} x {h}: {n}" for (w, h), n in list(self.image_sizes.items())[:_SHOWN_SIZES]]
        if len(self.image_sizes) > _SHOWN_SIZES:
            sizes.append(f"and {len(self.image_sizes) - _SHOWN_SIZES} more sizes")
        least, median, most = self.per_image
        return [
            f"{self.images} images, {total} objects in {len(self.objects)} classes",
            *([f"regions to ignore, which are no objects: {self.regions}"] * (self.regions > 0)),
            *([f"difficult objects: {self.difficult}"] * (self.difficult > 0)),
            f"images without objects: {self.empty}",
            f"sizes of images: {', '.join(sizes)}",
            f"objects in an image: {least} to {most}, median {median:g}",
            "sides of boxes (square root of the area), in pixels: "
            + ", ".join(f"{name} {value:.0f}" for name, value in self.sides.items()),
            "boxes by COCO's limits: " + ", ".join(f"{n} {name}" for name, n in self.areas.items()),
        ]

    def table(self) -> list[str]:
        """Return a line for each class: its name, its objects, and the images that have any."""
        width = max([5, *map(len, self.objects)])
        return [
            f"{'class':<{width}}  objects  images",
            *(f"{x:<{width}}  {n:7}  {self.images_with[x]:6}" for x, n in self.objects.items()),
        ]


def overview(records: Sequence[dict], classes: Sequence[str]) -> Overview:
    """
    Count what is in a data set.

    Args:
        records: Detectron2's data set dicts, with the class's name in place of ``category_id``.
        classes: the names of the classes, which may have no object.
    """
    objects, images_with = Counter(dict.fromkeys(classes, 0)), Counter(dict.fromkeys(classes, 0))
    areas = []
    of_images = [[a for a in r["annotations"] if not is_region(a)] for r in records]
    for annotations in of_images:
        names = [a["category_id"] for a in annotations]
        objects.update(names)
        images_with.update(set(names))
        for a in annotations:
            x0, y0, x1, y1 = corners(a)
            areas.append((x1 - x0) * (y1 - y0))
    counts = list(map(len, of_images)) or [0]
    sizes = Counter((r["width"], r["height"]) for r in records if "width" in r)
    limits = [0.0, *_AREAS.values()]
    sides = np.sqrt(areas or [0.0])
    return Overview(
        images=len(records),
        empty=sum(not annotations for annotations in of_images),
        objects=dict(objects),
        images_with=dict(images_with),
        per_image=(min(counts), float(np.median(counts)), max(counts)),
        image_sizes=dict(sizes.most_common()),
        sides={name: float(np.quantile(sides, q)) for name, q in _QUANTILES.items()},
        areas={
            name: sum(low <= area < high for area in areas)
            for name, low, high in zip(_AREAS, limits, limits[1:])
        },
        regions=sum(len(record["annotations"]) for record in records) - sum(counts),
        difficult=sum(bool(a.get("difficult")) for x in of_images for a in x),
    )


def is_region(annotation: dict) -> bool:
    """Whether an annotation is no object, but a region to ignore."""
    return bool(annotation.get("iscrowd") or annotation.get("ignore"))
