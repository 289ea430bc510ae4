"""Small data sets on disk, in the layouts that people have."""

import json
from xml.sax.saxutils import escape

import cv2
import numpy as np

OBJECT = (
    "<object><name>{name}</name>{extra}<bndbox><xmin>{0}</xmin><ymin>{1}</ymin>"
    "<xmax>{2}</xmax><ymax>{3}</ymax></bndbox></object>"
)
HEIGHT, WIDTH = 60, 80


def write_image(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    cv2.imwrite(str(path), noise)


def write_voc(folder, images, split="trainval", suffix=".jpg"):
    """`images`: for each image's name, its objects as (class, (xmin, ymin, xmax, ymax), extra)."""
    (folder / "ImageSets" / "Main").mkdir(parents=True, exist_ok=True)
    (folder / "Annotations").mkdir(exist_ok=True)
    for i, (name, objects) in enumerate(images.items()):
        write_image(folder / "JPEGImages" / f"{name}{suffix}", seed=i)
        body = "".join(
            OBJECT.format(*box, name=escape(c), extra=extra) for c, box, extra in objects
        )
        (folder / "Annotations" / f"{name}.xml").write_text(
            f"<annotation><size><width>{WIDTH}</width><height>{HEIGHT}</height></size>"
            f"{body}</annotation>"
        )
    (folder / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(images) + "\n")
    return folder


def coco_content(images, categories):
    """`images`: for each file's name, its objects as (class, [x, y, width, height])."""
    content = {
        "images": [
            {"id": i, "file_name": name, "width": WIDTH, "height": HEIGHT}
            for i, name in enumerate(images, 1)
        ],
        "categories": [{"id": i, "name": name} for i, name in categories.items()],
        "annotations": [],
    }
    ids = {name: i for i, name in categories.items()}
    for i, objects in enumerate(images.values(), 1):
        for name, box in objects:
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": i,
                    "category_id": ids[name],
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": 0,
                }
            )
    return content


def write_coco(folder, images, categories, name="annotations.json"):
    for i, file in enumerate(images):
        write_image(folder / "images" / file, seed=i)
    (folder / name).write_text(json.dumps(coco_content(images, categories)))
    return folder / name
