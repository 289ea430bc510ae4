"""Decisions on small data sets, and what is read of these."""

import json
from pathlib import Path

from detectron2.structures import BoxMode
from small_data import write_voc

from ohem_d2.data.addresses import load_address
from ohem_d2.data.image_reading import plain_path
from ohem_d2.data.overview import is_region
from ohem_d2.relabel.output import LOG

# Boxes of labels, and what a report proposes.
DOG, CAT, OWL, NEW = [0, 0, 20, 30], [30, 0, 20, 30], [55, 0, 20, 30], [5, 40, 10, 10]
MOVED = [57.5, 0, 20, 30.25]


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


def write_report(tmp_path):
    """Suspects 1 to 4, of each kind one, as a report has them."""
    objects = [(c, (x + 1, y + 1, x + w, y + h), "") for c, (x, y, w, h) in
               (("dog", DOG), ("cat", CAT), ("owl", OWL))]  # fmt: skip
    folder = write_voc(tmp_path / "data", {"a": objects, "b": objects})
    image = {"id": 1, "file_name": str(folder / "JPEGImages/a.jpg"), "width": 80, "height": 60,
             "original_id": "a"}  # fmt: skip
    other = image | {"id": 2, "file_name": str(folder / "JPEGImages/b.jpg"), "original_id": "b"}

    def entry(number, name, category, true, predicted, predicted_box, image_id=1, score=0.9):
        return {"id": number, "image_id": image_id, "error_type": name, "category_id": category,
                "score": score,
                "is_labelled": name != "missing label", "true_bbox": true,
                "predicted_category_id": predicted, "predicted_bbox": predicted_box}  # fmt: skip

    content = {
        "info": {"description": f"suspected label errors of voc://{folder}"},
        "images": [image, other],
        "categories": [{"id": i, "name": n} for i, n in enumerate(("dog", "cat", "owl"), 1)],
        "annotations": [
            entry(1, "missing label", 2, DOG, 2, NEW),
            entry(2, "spurious label", 1, DOG, None, None),
            entry(3, "wrong class", 2, CAT, 1, CAT),
            entry(4, "badly placed label", 3, OWL, 3, MOVED),
            entry(5, "wrong class", 2, CAT, 1, CAT, image_id=2),
        ],
    }
    (tmp_path / "report").mkdir()
    (tmp_path / "report/label_errors.json").write_text(json.dumps(content))
    return tmp_path / "report"
