"""The whole thing, as its users run it, on a training of seconds."""

import json
import math
import pickle

import cv2
import numpy as np
import pytest
import torch
import yaml
from command_line import ROOT, run_command, run_script, run_train_net
from detectron2.config import CfgNode, get_cfg
from detectron2.structures import BoxMode
from small_data import write_coco, write_voc
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

TINY = {
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 20,
    "MODEL.RPN.POST_NMS_TOPK_TEST": 10,
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 8,
    "SOLVER.IMS_PER_BATCH": 2,
    "SOLVER.MAX_ITER": 4,
    "SOLVER.WARMUP_ITERS": 1,
    "SOLVER.CHECKPOINT_PERIOD": 2,
}
OBJECTS = [("dog", (5, 5, 30, 40), ""), ("cat", (40, 10, 70, 50), "")]


def train_net(folder, *args, config=None, run=run_command, **settings):
    """Train with the settings of a training of seconds."""
    opts = [x for pair in {**TINY, **settings}.items() for x in pair]
    return run_train_net(folder, *args, "OUTPUT_DIR", "out", *opts, config=config, run=run)


@pytest.fixture
def voc(tmp_path):
    write_voc(tmp_path / "voc", {f"image {i}": OBJECTS for i in range(4)})
    return {
        "DATASETS.TRAIN": "voc://voc?split=trainval",
        "DATASETS.TEST": "voc://voc?split=trainval",
    }


def metrics(folder):
    lines = (folder / "out" / "metrics.json").read_text().splitlines()
    return {key: value for line in lines for key, value in json.loads(line).items()}


def detections(folder):
    return json.loads((folder / "out" / "inference" / "coco_instances_results.json").read_text())


def test_what_is_warned_of_before_a_training(tmp_path):
    run = train_net(tmp_path, "SEED", "1", **{
        "SEED": 2, "SOLVER.AMP.ENABLED": True, "DATASETS.TRAIN": "my_data",
    })  # fmt: skip
    assert "the data set 'my_data' is not known" in run.stderr
    log = (tmp_path / "out" / "log.txt").read_text()
    assert "WARNING: SEED is given 2 times, as '1' and as '2', expected once" in log
    assert "WARNING: SOLVER.AMP.ENABLED is turned off" in log or torch.cuda.is_available()


def test_train_resume_and_evaluate(tmp_path, voc):
    images = {"a.jpg": [("dog", [5, 5, 25, 35])], "b.jpg": [("cat", [40, 10, 30, 40])]}
    write_coco(tmp_path, images, {1: "dog", 2: "cat"})
    coco = "coco://annotations.json?images=images"
    both = {**voc, "DATASETS.TEST": repr((voc["DATASETS.TEST"], coco))}
    both["MODEL.ROI_HEADS.SCORE_THRESH_TEST"] = 0.0  # detections there are, if bad ones
    # With an evaluation among the last steps, whose mined RoIs are drawn.
    run = train_net(tmp_path, **both, **{"TEST.EVAL_PERIOD": 3, "VIS_PERIOD": 2}, run=run_script)
    assert run.returncode == 0, run.stderr
    assert "2 classes: cat, dog" in run.stdout
    assert "PASCAL VOC 2012 metric" in run.stdout
    logged = metrics(tmp_path)
    for name in ("roi_head/num_fg_samples", "ohem/cost_of_selected", "ohem/cost_of_all",
                 "ohem/share_of_fg_selected", f"{coco}/bbox/AP50"):  # fmt: skip
        assert math.isfinite(logged[name])
    out = tmp_path / "out"
    pictures = {p.name: cv2.imread(str(p)) for p in (out / "pictures").iterdir()}
    assert sorted(pictures) == [
        "detections_coco_annotations.json_images_images.jpg",
        "detections_voc_voc_split_trainval.jpg",
        "mined.jpg",
    ]
    assert all(picture is not None for picture in pictures.values())
    board = EventAccumulator(str(out)).Reload()
    assert [x.step for x in board.Images("ohem/mined")] == [0, 2]
    assert "ohem_class/dog/cost" in board.Tags()["scalars"]
    assert board.Scalars("ohem/loss_ratio")

    run = train_net(tmp_path, "--resume", **both, **{"SOLVER.MAX_ITER": 6})
    assert run.returncode == 0, run.stderr
    assert "Starting training from iteration 4" in run.stdout
    trained = detections(tmp_path)
    assert trained

    # The saved config alone is enough to evaluate, and an address survives in it.
    weights = {"MODEL.WEIGHTS": "out/model_final.pth"}
    run = train_net(tmp_path, "--eval-only", config="out/config.yaml", **weights)
    assert run.returncode == 0, run.stderr
    assert detections(tmp_path) == trained

    # A plain Detectron2 model takes the weights, and without this project's keys the config.
    cfg = yaml.safe_load((out / "config.yaml").read_text())
    for node in ("ROI_HEADS", "RPN", "RETINANET"):
        del cfg["MODEL"][node]["OHEM"]
    del cfg["TEST"]["BOX_VOTING"]
    del cfg["INPUT"]["IGNORE_REGIONS"], cfg["INPUT"]["VALID_RANGES"], cfg["MODEL"]["TIMM"]
    del cfg["DATASETS"]["UNREADABLE_IMAGES"]
    cfg["MODEL"]["ROI_HEADS"]["NAME"] = "StandardROIHeads"
    get_cfg().merge_from_other_cfg(CfgNode(cfg))
    weights["MODEL.ROI_HEADS.NAME"] = "StandardROIHeads"
    run = train_net(tmp_path, "--eval-only", config="out/config.yaml", **weights)
    assert run.returncode == 0, run.stderr
    assert detections(tmp_path) == trained

    # Boxes can vote after a training that knew nothing of it.
    voting = {"MODEL.ROI_HEADS.NAME": "BoxVotingROIHeads", "TEST.BOX_VOTING.ROUNDS": 2}
    run = train_net(tmp_path, "--eval-only", config="out/config.yaml", **{**weights, **voting})
    assert run.returncode == 0, run.stderr
    assert detections(tmp_path) != trained
    assert "to no effect" not in run.stdout
    voting = {"TEST.BOX_VOTING.NMS_THRESH": 0.4}
    run = train_net(tmp_path, "--eval-only", config="out/config.yaml", **{**weights, **voting})
    assert run.returncode == 0, run.stderr
    assert "TEST.BOX_VOTING.NMS_THRESH is 0.4, to no effect" in run.stdout


def test_coco_address_with_a_zoo_config(tmp_path):
    images = {"a.jpg": [("dog", [5, 5, 25, 35])], "b.jpg": [("cat", [40, 10, 30, 40])]}
    write_coco(tmp_path, images, {1: "dog", 2: "cat"})
    spec = "coco://annotations.json?images=images"
    run = train_net(
        tmp_path,
        config="COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml",
        **{
            "MODEL.ROI_HEADS.NAME": "OHEMROIHeads",
            "MODEL.WEIGHTS": "",
            "MODEL.FPN.OUT_CHANNELS": 16,
            "MODEL.ROI_BOX_HEAD.FC_DIM": 16,
            "INPUT.MIN_SIZE_TRAIN": "(64,)",
            "INPUT.MIN_SIZE_TEST": 64,
            "DATALOADER.NUM_WORKERS": 0,
            "SOLVER.MAX_ITER": 2,
            "DATASETS.TRAIN": spec,
            "DATASETS.TEST": spec,
        },
    )
    assert run.returncode == 0, run.stderr
    assert "Task: bbox" in run.stdout
    assert (tmp_path / "out" / "model_final.pth").exists()


def test_fast_rcnn_on_precomputed_proposals(tmp_path, voc):
    boxes = np.array([[4, 4, 31, 41], [41, 9, 70, 51], [0, 0, 79, 59], [10, 30, 50, 55]], float)
    names = [f"image {i}" for i in range(4)]
    content = {
        "ids": names,
        "boxes": [boxes] * 4,
        "objectness_logits": [np.ones(4)] * 4,
        "bbox_mode": BoxMode.XYXY_ABS,
    }
    (tmp_path / "proposals.pkl").write_bytes(pickle.dumps(content))
    settings = {
        **voc,
        "MODEL.LOAD_PROPOSALS": True,
        "MODEL.PROPOSAL_GENERATOR.NAME": "PrecomputedProposals",
        "DATASETS.PROPOSAL_FILES_TRAIN": "proposals.pkl",
        "DATASETS.PROPOSAL_FILES_TEST": "proposals.pkl",
    }
    run = train_net(tmp_path, **settings)
    assert run.returncode == 0, run.stderr
    assert math.isfinite(metrics(tmp_path)["ohem/cost_of_selected"])
    assert "loss_rpn_cls" not in metrics(tmp_path)
    assert "PASCAL VOC 2012 metric" in run.stdout

    (tmp_path / "others.pkl").write_bytes(pickle.dumps({**content, "ids": ["a", "b", "c", "d"]}))
    run = train_net(tmp_path, **{**settings, "DATASETS.PROPOSAL_FILES_TRAIN": "others.pkl"})
    assert "error: DATASETS.PROPOSAL_FILES_TRAIN: 'others.pkl' lacks 4 of 4 images" in run.stderr
    run = train_net(tmp_path, **{**settings, "DATASETS.PROPOSAL_FILES_TEST": "no.pkl"})
    assert "error: DATASETS.PROPOSAL_FILES_TEST: 'no.pkl' cannot be loaded" in run.stderr
    run = train_net(tmp_path, **{**settings, "DATASETS.PROPOSAL_FILES_TEST": "()"})
    assert "error: DATASETS.PROPOSAL_FILES_TEST has 0 files, expected 1" in run.stderr


def test_test_time_augmentation(tmp_path, voc):
    augmented = {"TEST.AUG.ENABLED": True, "TEST.AUG.MIN_SIZES": "(48, 64)", **voc}
    run = train_net(tmp_path, **augmented, **{"TEST.EVAL_PERIOD": 2})
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("Evaluating with test-time augmentation") == 1  # at the end
    assert {"bbox/AP50", "bbox_TTA/AP50"} <= metrics(tmp_path).keys()
    assert list((tmp_path / "out" / "TTA" / "pictures").iterdir())
    weights = {"MODEL.WEIGHTS": "out/model_final.pth"}
    run = train_net(tmp_path, "--eval-only", **augmented, **weights)
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("Evaluating with test-time augmentation") == 1


def test_a_file_that_is_no_checkpoint(tmp_path, voc):
    (tmp_path / "empty.pth").write_text("")
    run = train_net(tmp_path, "--eval-only", **voc, **{"MODEL.WEIGHTS": "empty.pth"})
    error = "error: MODEL.WEIGHTS: 'empty.pth' is empty, expected a checkpoint"
    assert run.stderr.splitlines()[-1] == error


def test_broken_weights_are_not_trained(tmp_path, voc):
    assert train_net(tmp_path, **voc, **{"SOLVER.MAX_ITER": 1}).returncode == 0
    checkpoint = torch.load(tmp_path / "out" / "model_final.pth")["model"]
    checkpoint["roi_heads.box_predictor.cls_score.bias"][0] = math.nan
    torch.save({"model": checkpoint}, tmp_path / "broken.pth")
    run = train_net(tmp_path, **voc, **{"MODEL.WEIGHTS": "broken.pth", "MODEL.DEVICE": "cpu"})
    assert run.returncode != 0
    assert "error: MODEL.WEIGHTS: 'broken.pth' has 1 weights that are NaN or infinite" in run.stderr


def test_a_one_stage_model_that_mines(tmp_path, voc):
    settings = {
        "MODEL.META_ARCHITECTURE": "OHEMRetinaNet",
        "MODEL.ROI_HEADS.NAME": "StandardROIHeads",
        "MODEL.RETINANET.IN_FEATURES": "['p2', 'p3', 'p4']",
        "MODEL.ANCHOR_GENERATOR.SIZES": "[[8], [16], [32]]",
        "SOLVER.MAX_ITER": 2,
        "SOLVER.BASE_LR": 0.001,
    }
    run = train_net(tmp_path, **voc, **settings)
    assert run.returncode == 0, run.stderr
    assert metrics(tmp_path)["ohem_dense/cost_ratio"] > 0
    saved = yaml.safe_load((tmp_path / "out" / "config.yaml").read_text())
    assert saved["MODEL"]["RETINANET"]["NUM_CLASSES"] == 2  # as the data have
    run = train_net(tmp_path, "--resume", **voc, **{**settings, "SOLVER.MAX_ITER": 4})
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize(
    ("args", "config", "settings", "message"),
    [
        ([], "configs/none.yaml", {}, "there is no config file 'configs/none.yaml'"),
        ([], None, {"MODEL.WEIGHTS": "no.pth"}, "MODEL.WEIGHTS, 'no.pth', cannot be loaded"),
        ([], None, {"DATASETS.TRAIN": "()"}, "DATASETS.TRAIN is empty, expected at least one"),
        (
            ["--eval-only"],
            None,
            {"DATASETS.TEST": "()"},
            "DATASETS.TEST is empty, expected at least one",
        ),
        (["--eval-only"], None, {}, "MODEL.WEIGHTS is empty, expected a trained checkpoint"),
        ([], None, {"DATASETS.TRAIN": "my_data"}, "the data set 'my_data' is not known"),
        (
            [],
            None,
            {"DATASETS.TRAIN": "voc://no?split=x"},
            "no does not exist, expected the PASCAL VOC layout",
        ),
        (
            [],
            str(ROOT / "configs" / "faster_rcnn_ohem.yaml"),
            {},
            "the data set 'coco_2017_train' is not here: ",
        ),
        (
            [],
            str(ROOT / "configs" / "PascalVOC" / "faster_rcnn_R_50_FPN_ohem.yaml"),
            {},
            "set DETECTRON2_DATASETS to the folder that holds it",
        ),
        (
            [],
            None,
            {"MODEL.ROI_HEADS.OHEM.SCOPE": "all"},
            "MODEL.ROI_HEADS.OHEM.SCOPE is 'all', expected 'image' or 'batch'",
        ),
        (
            [],
            None,
            {"MODEL.ROI_HEADS.OHEM.START_ITER": 100000},
            "MODEL.ROI_HEADS.OHEM.START_ITER is 100000, expected less than ",
        ),
        (
            [],
            None,
            {"MODEL.RPN.OHEM.START_ITER": 100000},
            "MODEL.RPN.OHEM.START_ITER is 100000, expected less than ",
        ),
        (
            [],
            None,
            {"MODEL.RETINANET.OHEM.START_ITER": 100000},
            "MODEL.RETINANET.OHEM.START_ITER is 100000, expected less than ",
        ),
        (
            [],
            None,
            {"MODEL.PROPOSAL_GENERATOR.NAME": "OHEMRPN", "MODEL.RPN.OHEM.HARD_FRACTION": 2.0},
            "MODEL.RPN.OHEM.HARD_FRACTION is 2.0, expected a number in (0, 1]",
        ),
    ],
)
def test_mistakes_are_answered_by_one_line(tmp_path, args, config, settings, message):
    run = train_net(tmp_path, *args, config=config, **settings)
    assert run.returncode == 1
    assert run.stderr.splitlines()[-1].startswith("error: ")
    assert message in run.stderr.splitlines()[-1]
    assert "Traceback" not in run.stderr


def test_precise_statistics_of_no_norm(tmp_path, voc):
    run = train_net(tmp_path, **voc, **{"TEST.PRECISE_BN.ENABLED": True, "SOLVER.MAX_ITER": 1})
    assert run.returncode == 0, run.stderr
    assert "TEST.PRECISE_BN.ENABLED is True, but no batch normalization of the model" in run.stdout
