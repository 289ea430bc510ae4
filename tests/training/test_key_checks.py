"""Values that cannot work, of Detectron2's own keys."""

import shutil
from pathlib import Path

import pytest
from detectron2.config import get_cfg
from detectron2.engine import DefaultTrainer
from detectron2.modeling import BACKBONE_REGISTRY
from omegaconf import OmegaConf

from ohem_d2.config import BoxVotingOptions, OHEMOptions
from ohem_d2.errors import InputError
from ohem_d2.training.checks import check_num_classes, check_output_dir, named_settings
from ohem_d2.training.config_file import _ZOO, CONFIGS, load_config
from ohem_d2.training.key_checks import _leaves, check_keys, check_lazy_keys
from ohem_d2.training.key_rules import RULES, TRAINING_RULES

QUICK_START = str(CONFIGS / "quick_start.yaml")
# What any value goes with, or what another check is for.
FREE = {"VERSION", "OUTPUT_DIR", "GLOBAL.HACK", "MODEL.ROI_BOX_HEAD.NAME"}


def test_each_key_of_detectron2_has_a_rule():
    known = {key for key, value in _leaves(get_cfg()) if not isinstance(value, bool)}
    rules = {*RULES, *TRAINING_RULES}
    assert known - rules == FREE
    assert rules <= {key for key, _ in _leaves(get_cfg())}


@pytest.mark.parametrize(
    "file",
    [
        *(x for x in sorted(CONFIGS.rglob("*.yaml")) if x.parent.name != "parts"),
        *(x for x in sorted(_ZOO.rglob("*.yaml")) if "dconv" not in x.name),
    ],
    ids=lambda x: f"{x.parent.name}/{x.stem}",
)
def test_ours_and_those_of_the_zoo_keep_the_rules(file):
    check_keys(load_config(str(file)))


def test_detectron2s_defaults_keep_the_rules():
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    check_keys(cfg)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", None),
        ("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 2**40),
        ("SOLVER.MAX_ITER", 0),
        ("SOLVER.MAX_ITER", -1),
        ("SOLVER.BASE_LR", 0.0),
        ("SOLVER.BASE_LR", float("nan")),
        ("SOLVER.CHECKPOINT_PERIOD", 0),
        ("SOLVER.LR_SCHEDULER_NAME", "X"),
        ("SOLVER.STEPS", (2, 1)),
        ("SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "size"),
        ("DATALOADER.NUM_WORKERS", -1),
        ("DATASETS.TRAIN", (1, 2)),
        ("DATASETS.TRAIN", ("",)),
        ("INPUT.MIN_SIZE_TRAIN", ()),
        ("INPUT.FORMAT", "XYZ"),
        ("MODEL.DEVICE", "tpu"),
        ("MODEL.DEVICE", "meta"),
        ("MODEL.PIXEL_STD", [0.0, 1.0, 1.0]),
        ("MODEL.PIXEL_MEAN", [1.0]),
        ("MODEL.BACKBONE.NAME", "resnet"),
        ("MODEL.RESNETS.DEPTH", 77),
        ("MODEL.RESNETS.RES2_OUT_CHANNELS", 100),
        ("MODEL.ANCHOR_GENERATOR.SIZES", [[8], [16]]),
        ("MODEL.RPN.IOU_THRESHOLDS", [0.7, 0.3]),
        ("MODEL.ROI_HEADS.IOU_LABELS", [0, 1, 1]),
        ("MODEL.ROI_BOX_HEAD.NAME", ""),
        ("MODEL.PROPOSAL_GENERATOR.NAME", "Selective"),
        ("TEST.EXPECTED_RESULTS", ["bbox", "AP", 5]),
        ("SEED", 2**33),
    ],
)
def test_a_value_that_cannot_work(key, value):
    cfg = load_config(QUICK_START)
    node, name = cfg, key.split(".")
    for x in name[:-1]:
        node = node[x]
    node[name[-1]] = value
    with pytest.raises(InputError, match=rf"^{key} is .*, expected ") as e:
        check_keys(cfg)
    assert "\n" not in str(e.value)


def test_keys_of_training_do_not_matter_to_an_evaluation():
    cfg = load_config(QUICK_START, ["SOLVER.MAX_ITER", "0"])
    check_keys(cfg, training=False)


def test_heads_whose_boxes_do_not_vote():
    opts = ["TEST.BOX_VOTING.ROUNDS", "2", "MODEL.ROI_HEADS.NAME"]
    with pytest.raises(
        InputError, match=r"ROUNDS is 2, expected 0: .* 'StandardROIHeads', whose boxes do not"
    ):
        check_keys(load_config(QUICK_START, [*opts, "StandardROIHeads"]))
    for head in ("BoxVotingROIHeads", "OHEMROIHeads"):
        check_keys(load_config(QUICK_START, [*opts, head]))


@pytest.mark.parametrize(
    ("key", "value", "found"),
    [
        ("MODEL.KEYPOINT_ON", "True", "that of keypoints"),
        ("MODEL.META_ARCHITECTURE", "PanopticFPN", "a PanopticFPN"),
    ],
)
def test_models_that_know_no_test_time_augmentation(key, value, found):
    opts = ["TEST.AUG.ENABLED", "True", key, value]
    with pytest.raises(
        InputError, match=f"TEST.AUG.ENABLED is True, expected False: the model is {found}"
    ):
        check_keys(load_config(QUICK_START, opts))


def test_no_such_head():
    with pytest.raises(InputError, match=r"NAME is 'OHEMHeads', expected one of .*OHEMROIHeads"):
        check_keys(load_config(QUICK_START, ["MODEL.ROI_HEADS.NAME", "OHEMHeads"]))


def test_a_model_without_roi_heads():
    retinanet = "COCO-Detection/retinanet_R_50_FPN_1x.yaml"
    with pytest.raises(
        InputError, match="is 'OHEMROIHeads', expected another: .* is 'RetinaNet', which has no"
    ):
        check_keys(load_config(retinanet, ["MODEL.ROI_HEADS.NAME", "OHEMROIHeads"]))


def test_keys_that_nothing_looks_at():
    cfg = load_config(QUICK_START, ["MODEL.ROI_MASK_HEAD.NAME", "NoMasks"])
    check_keys(cfg)
    cfg.MODEL.MASK_ON = True
    with pytest.raises(InputError, match="MODEL.ROI_MASK_HEAD.NAME is 'NoMasks', expected one of"):
        check_keys(cfg)


def test_a_key_without_a_value(tmp_path):
    (tmp_path / "bad.yaml").write_text("MODEL:\n  MASK_ON:\nVERSION: 2\n")
    with pytest.raises(InputError, match="MODEL.MASK_ON is None, expected a value, such as False"):
        load_config(str(tmp_path / "bad.yaml"))


def test_names_that_are_registered_later_are_known():
    @BACKBONE_REGISTRY.register()
    def build_a_backbone_of_my_own(cfg, input_shape):
        pass

    check_keys(load_config(QUICK_START, ["MODEL.BACKBONE.NAME", "build_a_backbone_of_my_own"]))


@pytest.mark.parametrize("text", ["MODEL:\n", "MODEL:\n  RPN:\n", "MODEL: {ROI_HEADS: {OHEM: }}\n"])
def test_a_node_without_keys(tmp_path, text):
    (tmp_path / "bad.yaml").write_text(f"{text}VERSION: 2\n")
    with pytest.raises(InputError, match=r"MODEL[.\w]* is 'None', of NoneType, expected"):
        load_config(str(tmp_path / "bad.yaml"))


@pytest.mark.parametrize(
    "setting",
    [
        "train.max_iter=0",
        "train.max_iter=many",
        "train.checkpointer.period=0",
        "train.device=tpu",
        "dataloader.train.total_batch_size=-1",
        "dataloader.train.num_workers=-1",
        "optimizer.lr=0",
        "model.pixel_std=[0, 1, 1]",
        "model.roi_heads.batch_size_per_image=null",
    ],
)
def test_python_configs(setting):
    key = setting.partition("=")[0]
    with pytest.raises(InputError, match=rf"^{key} is .*, expected "):
        check_lazy_keys(OmegaConf.from_dotlist(["model.x=1", setting]))


def test_means_and_deviations_of_different_length_in_a_python_config():
    cfg = OmegaConf.create({"model": {"pixel_mean": [1.0, 2.0, 3.0], "pixel_std": [1.0]}})
    error = r"^model.pixel_std has 1 numbers, expected 3, as many as model.pixel_mean has"
    with pytest.raises(InputError, match=error):
        check_lazy_keys(cfg)


def test_weights_of_losses_that_overflow():
    with pytest.raises(InputError, match="LOSS_WEIGHT_CLS is 1e[+]308, expected a number from 0"):
        OHEMOptions(loss_weight_cls=1e308)
    with pytest.raises(InputError, match="ROUNDS is 1000000, expected an integer from 0 to 100"):
        BoxVotingOptions(rounds=1000000)


def test_classes_of_a_data_set():
    check_num_classes("KEY", 80, ["coco_2017_train"])
    with pytest.raises(InputError, match="KEY is 3, expected 80, as the data set 'coco_2017_train"):
        check_num_classes("KEY", 3, ["coco_2017_train"])


@pytest.mark.parametrize(
    "path", ["", " ", None, 5, "file", "file/out", "a" * 300, "/proc/x", "s3://b/c", "s3:/b", "~/x"]
)
def test_folders_that_cannot_be_written(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="^KEY is "):
        check_output_dir("KEY", path)
    assert [x.name for x in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_can_be_written(tmp_path):
    check_output_dir("KEY", tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_what_cannot_be_built_names_its_keys():
    cfg = load_config(QUICK_START, ["MODEL.RPN.IN_FEATURES", "['p2', 'p9']"])
    with (
        pytest.raises(InputError, match=r"^MODEL.RPN.IN_FEATURES in x.yaml, or .* KeyError: 'p9'"),
        named_settings("x.yaml", cfg),
    ):
        DefaultTrainer.build_model(cfg)


def test_what_the_standard_library_refuses_on_the_way_is_no_code_of_the_users():
    with (
        pytest.raises(InputError, match=r"x.yaml, .* FileNotFoundError: .* \(shutil, line"),
        named_settings("x.yaml", get_cfg()),
    ):
        shutil.copyfile("no such file", "x")


def test_errors_of_the_users_own_code_keep_their_traceback():
    def head_of_mine():
        raise KeyError("mine")

    with pytest.raises(KeyError), named_settings("x.yaml", get_cfg()):
        head_of_mine()


def test_the_error_is_one_line():
    assert str(InputError("a:\n  b\n\n c\n")) == "a: b c"
    assert Path(QUICK_START).is_file()
