"""What a model finds hard, written down as a user would."""

import json
import subprocess
import sys

import cv2
import pytest
from command_line import ROOT
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling import build_model
from pycocotools.coco import COCO
from small_data import write_voc
from small_models import SHRINK_OPTS

from ohem_d2.config_file import load_config
from ohem_d2.data import register_datasets

NAME = "COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml"
DATA = "voc://voc?split=trainval"


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """The command's arguments for a model of plain Detectron2."""
    monkeypatch.chdir(tmp_path)
    objects = [("dog", (5, 5, 30, 40), ""), ("cat", (40, 10, 70, 50), "")]
    write_voc(tmp_path / "voc", {f"image {i}": objects for i in range(4)})
    cfg = load_config(NAME, [*SHRINK_OPTS, "DATASETS.TEST", DATA, "INPUT.MIN_SIZE_TEST", "64"])
    register_datasets(cfg)
    DetectionCheckpointer(build_model(cfg), str(tmp_path)).save("model")
    cfg.MODEL.WEIGHTS = "model.pth"
    (tmp_path / "config.yaml").write_text(cfg.dump())
    return tmp_path


def call(folder, *arguments):
    command = [sys.executable, "-W", "ignore", str(ROOT / "tools/hard_examples.py")]
    given = ["--config-file", "config.yaml", *arguments, "--dataset", DATA, "--output", "report"]
    return subprocess.run(
        [*command, *map(str, given)], cwd=folder, capture_output=True, text=True, timeout=300
    )


def test_writes_what_pycocotools_reads(trained, capsys):
    (trained / "voc/JPEGImages/image 1.jpg").write_bytes(b"no image")
    run = call(trained, "MODEL.WEIGHTS", "model.pth", "--max-images", 3)
    assert run.returncode == 0, run.stderr
    assert "image 1.jpg is left out" in run.stdout
    coco = COCO(str(trained / "report/hard_examples.json"))
    names = [x["file_name"].split("/")[-1] for x in coco.imgs.values()]
    assert names == ["image 0.jpg", "image 2.jpg"]
    annotations = json.loads((trained / "report/hard_examples.json").read_text())["annotations"]
    assert annotations
    assert {"loss", "kind"} <= set(annotations[0])
    assert f"Wrote {len(annotations)} hard examples of 2 images" in run.stdout
    crops = [trained / "report" / x["crop"] for x in annotations]
    assert all(cv2.imread(str(x)) is not None for x in crops)
    assert sorted(crops) == sorted((trained / "report/crops").iterdir())


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--max-images", 0], "--max-images is 0, expected 1 or more"),
        (["MODEL.WEIGHTS", "missing.pth"], "'missing.pth', cannot be loaded"),
    ],
)
def test_mistakes_are_answered_by_one_line(trained, arguments, error):
    run = call(trained, *arguments)
    assert run.returncode == 1
    assert error in run.stderr
    assert "Traceback" not in run.stderr
    assert not (trained / "report").exists()
