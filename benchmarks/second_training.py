"""
A second training, on labels that the suspects of a first one have changed, without a person.

The first model is trained on the images that it looks at, as in `ohem-d2 report`. Or there are two
of them, each trained on one half of the images, with half of the steps, which looks at the other
half. The objects without a label that they are sure of become labels, or regions to ignore.
"""

import io
import json
import os
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import NamedTuple

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode
from study_trainer import has_suspects, train

from ohem_d2.data import register_datasets
from ohem_d2.data.boxes import iou
from ohem_d2.files import locked, write_whole
from ohem_d2.relabel.by_score import decide_by_score
from ohem_d2.relabel.decisions import Box
from ohem_d2.relabel.run import relabel

# From this score of the first model on. Chosen by how many of the suspects of one training on drawn
# look-alikes were right.
LOWEST_SCORE = 0.7
# A suspect is at an object, if their boxes overlap by this IoU.
_AT_IT = 0.5


class Way(NamedTuple):
    """
    How a variant comes to its labels.

    Args:
        first: the variant of the first models, of mining heads: they can look at images.
        action: what becomes of suspects, "accept" or "ignore".
        by_halves: whether there are two first models.
    """

    first: str
    action: str = "accept"
    by_halves: bool = False


# By the name of the variant, which says what the second model is trained by.
WAYS = {
    "sampling_then_sampling": Way("sampling_ignoring"),
    "half_then_half": Way("half_random"),
    "sampling_then_half": Way("sampling_ignoring"),
    "sampling_then_half_ignoring": Way("sampling_ignoring", "ignore"),
    "halves_then_half": Way("sampling_ignoring", by_halves=True),
}


def second_labels(cfg: CfgNode, way: Way, folder: Path) -> tuple[str, dict[str, int]]:
    """
    Train first models, and change the labels by what they find.

    Args:
        cfg: the config of the first models.
        way: how to.
        folder: where labels and suspects go. First models that are there are not trained again.

    Returns:
        the address of the labels, registered; and how many suspects were taken, how many of these
        are at an object that was removed on purpose, and how many objects were.
    """
    (name,) = cfg.DATASETS.TRAIN
    records, classes = DatasetCatalog.get(name), MetadataCatalog.get(name).thing_classes
    address = _write(folder / "train.json", records, classes)
    with locked(folder / ".lock"):
        parts = _parts(cfg, way, folder, records, classes)
        decisions = [
            # Without the id, since images have other ones in a half.
            {**x.as_written, "image_id": None}
            for part in parts
            for x in decide_by_score(part, way.action, LOWEST_SCORE)[1]
        ]
        file = folder / f"{way.action}_{'by_halves' if way.by_halves else 'same_images'}.json"
        write_whole(file, json.dumps({"info": {"dataset": address}, "decisions": decisions}))
        with redirect_stdout(io.StringIO()):
            corrected = relabel(file, file.with_suffix(""))
    gone = {os.path.abspath(x["file_name"]): x.get("removed", ()) for x in records}
    right = sum(_is_at_one(x["proposal"], gone[x["image"]], classes) for x in decisions)
    found = {"taken": len(decisions), "right": right, "removed": sum(map(len, gone.values()))}
    _of(cfg, corrected)
    return corrected, found


def _parts(
    cfg: CfgNode, way: Way, folder: Path, records: Sequence[dict], classes: Sequence[str]
) -> list[Path]:
    """The folders of suspects that together are of all images."""
    if not way.by_halves:
        first = _of(cfg, _address(folder / "train.json", records))
        if not has_suspects(first, folder / "first"):
            train(first, points=1, suspects=folder / "first")
        return [folder / "first"]
    names = ["half_0", "half_1"]
    halves = [
        _of(cfg, _write(folder / f"{name}.json", records[k::2], classes))
        for k, name in enumerate(names)
    ]
    for name, half, other in zip(names, halves, reversed(halves)):
        half.SOLVER.MAX_ITER //= 2
        if not has_suspects(half, folder / name):
            train(half, points=1, suspects=folder / name, looked_at=other.DATASETS.TRAIN[0])
    return [folder / name for name in names]


def _of(cfg: CfgNode, address: str) -> CfgNode:
    """The same config on other training data, registered."""
    cfg = cfg.clone()
    cfg.DATASETS.TRAIN = (address,)
    register_datasets(cfg)
    return cfg


def _images_of(records: Sequence[dict]) -> str:
    return os.path.commonpath([os.path.dirname(os.path.abspath(x["file_name"])) for x in records])


def _address(file: Path, records: Sequence[dict]) -> str:
    return f"coco://{file}?images={_images_of(records)}"


def _write(file: Path, records: Sequence[dict], classes: Sequence[str]) -> str:
    """Write records of Detectron2's catalog in COCO's format, and return their address."""
    root = _images_of(records)
    images: list[dict] = []
    annotations: list[dict] = []
    for i, record in enumerate(records, 1):
        name = os.path.relpath(os.path.abspath(record["file_name"]), root)
        size = {x: record[x] for x in ("width", "height")}
        images.append({"id": i, "file_name": name, **size})
        for x in record["annotations"]:
            box = _box(x, BoxMode.XYWH_ABS)
            about = {"id": len(annotations) + 1, "image_id": i, "category_id": x["category_id"]}
            area, crowd = box[2] * box[3], x.get("iscrowd", 0)
            annotations.append({**about, "bbox": box, "area": area, "iscrowd": crowd})
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": i, "name": x} for i, x in enumerate(classes)],
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, json.dumps(content))
    return _address(file, records)


def _box(label: dict, mode: BoxMode) -> list[float]:
    box = BoxMode.convert(list(map(float, label["bbox"])), label["bbox_mode"], mode)
    return [round(float(v), 3) for v in box]


def _is_at_one(proposal: dict, removed: Sequence[dict], classes: Sequence[str]) -> bool:
    """Whether what is proposed is an object that was removed, in its class."""
    x, y, width, height = proposal["bbox"]
    there = Box(x, y, x + width, y + height)
    return any(
        classes[label["category_id"]] == proposal["category"]
        and iou(Box(*_box(label, BoxMode.XYXY_ABS)), there) >= _AT_IT
        for label in removed
    )
