"""configs/paper, and what docs/paper.md says of it."""

import re

import cv2
import pytest
from command_line import ROOT, run_command
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import default_argument_parser
from small_data import write_voc

from ohem_d2.data import register_datasets
from ohem_d2.training.config_file import load_config
from ohem_d2.training.trainer import run

CONFIGS = sorted((ROOT / "configs" / "paper").glob("*.yaml"))
DOCS = (ROOT / "docs" / "paper.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def voc(tmp_path_factory):
    """A few images, and proposals that were really searched for."""
    if not hasattr(cv2, "ximgproc"):
        pytest.skip("selective search is in opencv-contrib-python")
    folder = tmp_path_factory.mktemp("voc")
    objects = [("dog", (5, 5, 30, 40), ""), ("cat", (40, 10, 70, 50), "")]
    write_voc(folder / "voc", {f"image {i}": objects for i in range(4)})
    spec = f"voc://{folder}/voc?split=trainval"
    output = folder / "proposals.pkl"
    run_command(folder, "proposals", spec, "--jobs", 1, "--output", output).check_returncode()
    return spec, str(output)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_two_steps_and_an_evaluation(path, voc, tmp_path):
    spec, proposals = voc
    cfg = load_config(str(path))
    settings = {
        "OUTPUT_DIR": tmp_path,
        "MODEL.DEVICE": "cpu",
        "MODEL.WEIGHTS": "",
        "MODEL.ROI_BOX_HEAD.FC_DIM": 16,
        "INPUT.MIN_SIZE_TRAIN": tuple(s // 10 for s in cfg.INPUT.MIN_SIZE_TRAIN),
        "INPUT.MIN_SIZE_TEST": cfg.INPUT.MIN_SIZE_TEST // 10,
        "TEST.AUG.MIN_SIZES": tuple(s // 10 for s in cfg.TEST.AUG.MIN_SIZES[:2]),
        "DATASETS.TRAIN": (spec,),
        "DATASETS.TEST": (spec,),
        "DATASETS.PROPOSAL_FILES_TRAIN": (proposals,),
        "DATASETS.PROPOSAL_FILES_TEST": (proposals,),
        "DATALOADER.NUM_WORKERS": 0,
        "SOLVER.MAX_ITER": 2,
        "SOLVER.STEPS": (),
    }
    opts = [str(x) for pair in settings.items() for x in pair]
    run(default_argument_parser().parse_args(["--config-file", str(path), *opts]))
    assert (tmp_path / "model_final.pth").exists()
    metrics = (tmp_path / "metrics.json").read_text()
    assert '"bbox/AP50"' in metrics
    assert ('"bbox_TTA/AP50"' in metrics) == path.stem.endswith("_mb")
    assert ('"ohem/cost_of_selected"' in metrics) == ("ohem" in path.stem)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_data_sets_are_there_with_proposals_and_classes(path):
    cfg = load_config(str(path))
    register_datasets(cfg)
    for split in ("TRAIN", "TEST"):
        names = cfg.DATASETS[split]
        assert len(names) == len(cfg.DATASETS[f"PROPOSAL_FILES_{split}"]) > 0
        for name in names:
            assert name in DatasetCatalog
            classes = MetadataCatalog.get(name).thing_classes
            assert len(classes) == cfg.MODEL.ROI_HEADS.NUM_CLASSES


# By the beginning of the name: training sets, test set, steps, iterations.
SCHEDULES = {
    "voc07": (("voc_2007_trainval",), "voc_2007_test", (30000,), 40000),
    "voc0712": (("voc_2007_trainval", "voc_2012_trainval"), "voc_2007_test", (30000, 60000), 80000),
    "voc12": (("voc_2012_trainval",), "voc_2012_test", (30000, 60000), 80000),
    "voc07t12": (
        ("voc_2007_trainval", "voc_2007_test", "voc_2012_trainval"),
        "voc_2012_test",
        (30000, 60000),
        80000,
    ),
    "voc07t12coco": (
        ("voc_2007_trainval", "voc_2007_test", "voc_2012_trainval",
         "coco_2014_train_voc_classes", "coco_2014_val_voc_classes"),
        "voc_2012_test", (200000,), 280000,
    ),
    "coco": (("coco_2014_train",), "coco_2014_minival", (200000,), 280000),
    "ablation": (("voc_2007_trainval",), "voc_2007_test", (30000,), 40000),
}  # fmt: skip
BACKGROUND_FROM_0 = ("ablation_bg_lo_0", "ablation_all_rois")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_settings_follow_the_name(path):
    cfg, name = load_config(str(path)), path.stem
    train, test, steps, iterations = SCHEDULES[name.partition("_")[0]]
    assert (train, (test,)) == (cfg.DATASETS.TRAIN, cfg.DATASETS.TEST)
    assert (steps, iterations) == (cfg.SOLVER.STEPS, cfg.SOLVER.MAX_ITER)
    assert cfg.SOLVER.GAMMA == 0.1
    assert cfg.SOLVER.MOMENTUM == 0.9
    assert cfg.SOLVER.WEIGHT_DECAY == 0.0005
    assert (cfg.SOLVER.BIAS_LR_FACTOR, cfg.SOLVER.WEIGHT_DECAY_BIAS) == (2, 0)
    assert pytest.approx(0.003 if "all_rois" in name else 0.001) == cfg.SOLVER.BASE_LR
    images = 1 if "_n1" in name else 2
    assert images == cfg.SOLVER.IMS_PER_BATCH
    heads, is_ohem, is_mb = cfg.MODEL.ROI_HEADS, "ohem" in name, name.endswith("_mb")
    if "all_rois" in name:
        assert (heads.BATCH_SIZE_PER_IMAGE, heads.POSITIVE_FRACTION) == (10000, 1)
    else:
        assert (images * heads.BATCH_SIZE_PER_IMAGE, heads.POSITIVE_FRACTION) == (128, 0.25)
    sampling = "BoxVotingROIHeads" if is_mb else "StandardROIHeads"
    assert ("OHEMROIHeads" if is_ohem else sampling) == heads.NAME
    from_0 = is_ohem or name in BACKGROUND_FROM_0
    assert ([0.5] if from_0 else [0.1, 0.5]) == heads.IOU_THRESHOLDS
    assert ([0, 1] if from_0 else [-1, 0, 1]) == heads.IOU_LABELS
    if is_ohem:
        assert heads.OHEM.HARD_FRACTION == 1
    assert (0.1 if name == "ablation_ohem_bg_lo_01" else 0) == heads.OHEM.BG_IOU_LO
    assert heads.NMS_THRESH_TEST == 0.3
    scales = (480, 576, 688, 864, 900) if is_mb else (600,)
    assert scales == cfg.INPUT.MIN_SIZE_TRAIN
    assert cfg.INPUT.MAX_SIZE_TRAIN == cfg.INPUT.MAX_SIZE_TEST == 1000
    assert is_mb == cfg.TEST.AUG.ENABLED == (cfg.TEST.BOX_VOTING.ROUNDS == 2)
    if is_mb:
        assert (scales, 1000) == (cfg.TEST.AUG.MIN_SIZES, cfg.TEST.AUG.MAX_SIZE)


def test_the_docs_have_a_row_for_each_config():
    rows = re.findall(r"^\| `(\w+)\.yaml` \|", DOCS, re.MULTILINE)
    assert sorted(rows) == [path.stem for path in CONFIGS]
