"""What a user decides in the page of a report, in the labels, in each format."""

from pathlib import Path

import pytest
from browser import opened
from deciding import Page
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog
from detectron2.structures import BoxMode
from small_data import write_coco, write_image, write_voc
from small_decisions import read_objects

from ohem_d2 import add_ohem_config
from ohem_d2.data import register_datasets
from ohem_d2.relabel.output import LOG
from ohem_d2.relabel.run import relabel
from ohem_d2.report.coco_form import as_coco
from ohem_d2.report.hard_examples import HardExample
from ohem_d2.report.model_errors import as_model_errors
from ohem_d2.report.page import write_page

DOG, CAT, OWL = [0, 0, 20, 30], [30, 0, 20, 30], [55, 0, 20, 30]
NEW, MOVED = [5, 40, 10, 10], [56, 4, 20, 28]
LABELS = [("dog", DOG), ("cat", CAT), ("owl", OWL)]
CLASSES = ["cat", "dog", "owl"]
IMAGES = ("a", "b", "c")


def in_coco(folder):
    images = {f"{x}.jpg": LABELS for x in IMAGES}
    file = write_coco(folder, images, dict(enumerate(CLASSES, 1)))
    return f"coco://{file}?images={folder}/images"


def in_voc(folder):
    objects = [(c, (x + 1, y + 1, x + w, y + h), "") for c, (x, y, w, h) in LABELS]
    write_voc(folder, dict.fromkeys(IMAGES, objects))
    return f"voc://{folder}?split=trainval"


def in_yolo(folder):
    lines = [
        f"{CLASSES.index(c)} {(x + w / 2) / 80} {(y + h / 2) / 60} {w / 80} {h / 60}\n"
        for c, (x, y, w, h) in LABELS
    ]
    for name in IMAGES:
        write_image(folder / f"images/train/{name}.jpg")
        file = folder / f"labels/train/{name}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(lines))
    (folder / "data.yaml").write_text(f"train: images/train\nval: images/train\nnames: {CLASSES}\n")
    return f"yolo://{folder}/data.yaml?split=train"


def suspect(name, label=None, predicted=None, box=None):
    """``label``: its position among those of its image."""
    true_class = box_of_label = None
    if label is not None:
        category, box_of_label = LABELS[label]
        true_class = CLASSES.index(category)
    seen_class = None if predicted is None else CLASSES.index(predicted)
    true, seen = (
        None if x is None else tuple(BoxMode.convert(x, BoxMode.XYWH_ABS, BoxMode.XYXY_ABS))
        for x in (box_of_label, box)
    )
    at = seen or true
    return HardExample(name, 3.0, at, true_class, seen_class, 0.75, true, 0.5, seen, label)


SUSPECTS = [
    (0, suspect("missing label", None, "owl", NEW)),
    (0, suspect("spurious label", 0)),
    (0, suspect("wrong class", 1, "dog", CAT)),
    (1, suspect("badly placed label", 2, "owl", MOVED)),
    (1, suspect("spurious label", 0)),
    (1, suspect("wrong class", 1, "dog", CAT)),
]


def files_of(folder):
    """All that annotates, byte for byte."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_file() and path.suffix != ".jpg" and path.name != LOG:
            found[path.relative_to(folder).as_posix()] = path.read_bytes()
    return found


@pytest.mark.parametrize("write", [in_coco, in_voc, in_yolo])
def test_decisions_of_the_page_are_in_the_labels(write, tmp_path):
    data, downloads = tmp_path / "data", tmp_path / "downloads"
    for folder in (data, downloads, tmp_path / "report"):
        folder.mkdir()
    address = write(data)
    cfg = get_cfg()
    add_ohem_config(cfg)
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (address,), ()
    register_datasets(cfg)
    records = DatasetCatalog.get(address)
    hard = as_coco(records, [], address, "hard_examples")
    errors = as_coco(records, SUSPECTS, address, "label_errors")
    write_page(tmp_path / "report", address, hard, errors, as_model_errors(records, [], address))
    before = files_of(data)
    with opened(tmp_path / "report/index.html", tmp_path / "profile") as chrome:
        page = Page(chrome, downloads)
        page.keys("aarar")  # and nothing on the last one
        page.saved()
    for _ in range(2):  # applied twice it changes nothing
        corrected = relabel(downloads / "decisions.json", tmp_path / "corrected")
        found = read_objects(corrected)
        objects = [(c, box, False) for c, box in LABELS]
        assert sorted(found["a.jpg"]) == sorted([*objects[1:], ("owl", NEW, False)])
        assert found["b.jpg"] == [*objects[:2], ("owl", MOVED, False)]
        assert found["c.jpg"] == objects
    assert files_of(data) == before
    after = files_of(tmp_path / "corrected")
    changed = {Path(k).stem for k, x in after.items() if x != before[k]}
    assert changed == ({"annotations"} if write is in_coco else {"a", "b"})
