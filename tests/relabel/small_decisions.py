"""Decisions on small data sets, and what is read of these."""

import json
from pathlib import Path

from detectron2.structures import BoxMode

from ohem_d2.data.addresses import load_address
from ohem_d2.data.image_reading import plain_path
from ohem_d2.data.overview import is_region
from ohem_d2.relabel.output import LOG


def decision(image, action="accept", label=None, proposal=None, image_id=None, **more):
    """An entry of the file. Label and proposal: (class, [x, y, width, height])."""
    return {
        "image": str(image),
        "image_id": image_id,
        "suspect": "wrong class" if label else "missing label",
        "decision": action,
        "label": label and {"index": 0, "id": None, "category": label[0], "bbox": label[1]},
        "proposal": proposal and {"category": proposal[0], "bbox": proposal[1]},
        **more,
    }


def write_decisions(file, dataset, *entries):
    file.write_text(json.dumps({"info": {"dataset": dataset}, "decisions": entries}))
    return file


def read_objects(address):
    """By the image's name: class, box [x, y, width, height] and whether it is to be ignored."""
    found = {}
    for record in load_address(address).records:
        objects = []
        for x in record["annotations"]:
            box = BoxMode.convert(list(map(float, x["bbox"])), x["bbox_mode"], BoxMode.XYWH_ABS)
            objects.append((x["category_id"], [round(v, 3) for v in box], is_region(x)))
        found[Path(plain_path(record["file_name"])).name] = objects
    return found


def read_log(folder):
    return json.loads((folder / LOG).read_text())


def statuses(folder):
    """How many decisions came to what."""
    log = read_log(folder)
    return {x: len(log[x]) for x in ("changed", "already_there", "rejected", "left_out") if log[x]}
