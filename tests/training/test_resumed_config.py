"""The config of a training that is resumed, beside the one that it has had so far."""

import logging
import re

import pytest
from detectron2 import model_zoo
from detectron2.config import LazyConfig
from omegaconf import OmegaConf
from torch import nn

from ohem_d2.errors import InputError
from ohem_d2.training.checkpoint import WholeCheckpointer
from ohem_d2.training.config_file import CONFIGS, load_config
from ohem_d2.training.resumed_config import (
    FILE,
    check_config_of_weights,
    config_text,
    warn_of_other_config,
)

CHECKPOINT = "model_0000001.pth"
QUICK_START = str(CONFIGS / "quick_start.yaml")
LAZY = "COCO-Detection/retinanet_R_50_FPN_1x.py"


def resume(cfg, folder, training=True):
    check_config_of_weights(cfg, "", str(folder), resume=True, training=training)


def evaluate(cfg, weights, output_dir="elsewhere"):
    check_config_of_weights(cfg, str(weights), str(output_dir), resume=False, training=False)


@pytest.fixture
def folder(tmp_path):
    """That of a training by the quick start's config."""
    cfg = load_config(QUICK_START)
    (tmp_path / FILE).write_text(cfg.dump())
    (tmp_path / CHECKPOINT).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("INPUT.FORMAT", "RGB"),
        ("MODEL.PIXEL_MEAN", "[1.0, 2.0, 3.0]"),
        ("MODEL.PIXEL_STD", "[1.0, 2.0, 3.0]"),
        ("MODEL.ANCHOR_GENERATOR.SIZES", "[[32], [64], [96], [128], [192]]"),
        ("MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS", "[[1.0, 2.0, 3.0]]"),
        ("MODEL.ANCHOR_GENERATOR.OFFSET", "0.5"),
        ("MODEL.FPN.FUSE_TYPE", "avg"),
        ("MODEL.RESNETS.STRIDE_IN_1X1", "False"),
        ("MODEL.RPN.BBOX_REG_WEIGHTS", "(1.0, 1.0, 2.0, 2.0)"),
        ("MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS", "(1.0, 1.0, 2.0, 2.0)"),
        ("MODEL.ROI_BOX_HEAD.POOLER_TYPE", "ROIPool"),
        ("MODEL.ROI_HEADS.IN_FEATURES", "['p2']"),
        ("MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE", "True"),
    ],
)
@pytest.mark.parametrize("training", [True, False])
def test_what_the_weights_mean_stays(folder, caplog, key, value, training):
    cfg = load_config(QUICK_START, [key, value])
    with pytest.raises(InputError, match=rf"^{key} is .*, expected .*, as in {folder}/{FILE}: "):
        resume(cfg, folder, training)
    assert not caplog.records
    evaluate(cfg, folder / CHECKPOINT)
    (record,) = caplog.records
    assert record.getMessage().startswith(f"{key} is ")
    with pytest.raises(InputError, match=rf"^{key} is .* another folder in OUTPUT_DIR$"):
        evaluate(cfg, folder / CHECKPOINT, folder)  # whose config would be overwritten


@pytest.mark.parametrize(
    ("opts", "words"),
    [
        (["SOLVER.MAX_ITER", "70"], r"SOLVER.MAX_ITER is 70, and was \d+ \("),
        (
            ["SOLVER.BASE_LR", "0.5"],
            r"optimizer of the checkpoint, .*SOLVER.BASE_LR is 0.5, and was",
        ),
        (["SOLVER.MOMENTUM", "0.5"], "optimizer of the checkpoint, .*SOLVER.MOMENTUM is 0.5, and"),
        (["TEST.EVAL_PERIOD", "7"], "TEST.EVAL_PERIOD is 7, and was"),
        (["DATASETS.TRAIN", "mine"], r"DATASETS.TRAIN is \['mine'\], and was \["),
        (["SEED", "8", "VIS_PERIOD", "9"], "SEED is 8, and was 1; VIS_PERIOD is 9, and was"),
        (["MODEL.ROI_HEADS.OHEM.HARD_FRACTION", "1.0"], "HARD_FRACTION is 1.0, and was 0.5"),
        (["MODEL.ROI_HEADS.NAME", "StandardROIHeads"], "NAME is 'StandardROIHeads', and was 'OHEM"),
    ],
)
def test_what_may_change_is_told(folder, caplog, opts, words):
    cfg = load_config(QUICK_START, opts)
    resume(cfg, folder, training=False)
    evaluate(cfg, folder / CHECKPOINT)
    assert not caplog.records
    resume(cfg, folder)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert re.search(words, record.getMessage())


@pytest.mark.parametrize("key", ["BIAS_LR_FACTOR", "WEIGHT_DECAY_NORM", "WEIGHT_DECAY_BIAS"])
def test_groups_of_parameters_stay(folder, key):
    cfg = load_config(QUICK_START, [f"SOLVER.{key}", "0.3"])
    with pytest.raises(InputError, match=f"^SOLVER.{key} is 0.3, expected .*, as in "):
        resume(cfg, folder)
    resume(cfg, folder, training=False)


@pytest.mark.parametrize(
    "opts",
    [
        [],
        ["OUTPUT_DIR", "elsewhere"],
        ["MODEL.RETINANET.IN_FEATURES", "['p3']"],  # which nothing looks at
    ],
)
def test_what_does_not_matter(folder, caplog, opts):
    resume(load_config(QUICK_START, opts), folder)
    assert not caplog.records


def test_a_training_that_starts_anew(folder, caplog):
    cfg = load_config(QUICK_START, ["INPUT.FORMAT", "RGB"])
    weights = str(folder / CHECKPOINT)
    for output_dir in (str(folder), "elsewhere"):
        check_config_of_weights(cfg, weights, output_dir, resume=False, training=True)
    check_config_of_weights(cfg, weights, "elsewhere", resume=True, training=True)
    assert not caplog.records


def test_nothing_to_compare_with(folder, caplog):
    cfg = load_config(QUICK_START, ["INPUT.FORMAT", "RGB"])
    evaluate(cfg, "detectron2://somewhere/model.pkl")
    (folder / FILE).write_text("VERSION: 2\n")  # as of another version
    resume(cfg, folder)
    (folder / FILE).unlink()
    resume(cfg, folder)
    (folder / CHECKPOINT).unlink()
    (folder / FILE).write_text(load_config(QUICK_START).dump())
    resume(cfg, folder)
    assert not caplog.records


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a: [", "while parsing a flow node: .*\\(line 1, column 5\\)"),
        (b"- a\n", "it has no keys"),
        (b"", "it is empty"),
        (b"\x00", "its characters are not those of YAML"),
        (b"a: \xff", "it is no text in UTF-8"),
        (b"<html>404</html>", "it is a web page, as of a download that failed"),
        (b"a: " + b"[" * 10000, "its lists or keys are nested too deeply"),
    ],
)
def test_a_config_that_cannot_be_read(folder, caplog, content, words):
    (folder / FILE).write_bytes(content)
    resume(load_config(QUICK_START), folder)
    assert re.search(f"{folder / FILE} cannot be read \\({words}\\), expected the", caplog.text)


def test_a_config_runs_no_code(folder):
    ran = folder / "ran"
    (folder / FILE).write_text(f'SEED: !!python/object/apply:os.mkdir ["{ran}"]\n')
    resume(load_config(QUICK_START), folder)
    assert not ran.exists()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The folder of a training by a Python config."""
    folder = tmp_path_factory.mktemp("lazy")
    LazyConfig.save(model_zoo.get_config(LAZY), str(folder / FILE))
    (folder / CHECKPOINT).touch()
    return folder


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("dataloader.train.mapper.image_format", "RGB"),
        ("model.input_format", "RGB"),
        ("model.pixel_mean", [1.0, 2.0, 3.0]),
        ("model.anchor_generator.offset", 0.5),
        ("model.anchor_generator.aspect_ratios", [1.0]),
        ("model.box2box_transform.weights", [2.0, 1.0, 1.0, 1.0]),
        ("model.head_in_features", ["p3"]),
        ("model.backbone.bottom_up.stages.stride_in_1x1", False),
    ],
)
def test_what_the_weights_of_a_python_config_mean_stays(saved, key, value):
    cfg = model_zoo.get_config(LAZY)
    assert OmegaConf.select(cfg, key) is not None
    OmegaConf.update(cfg, key, value)
    words = rf"^{key} is .*, expected .*, as in .*: .* name them in train.init_checkpoint$"
    with pytest.raises(InputError, match=words):
        resume(cfg, saved)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("train.max_iter", 7, "train.max_iter is 7, and was 90000"),
        ("optimizer.lr", 0.5, "optimizer of the checkpoint, .*: optimizer.lr is 0.5, and was 0.01"),
        ("model.focal_loss_alpha", 0.5, "model.focal_loss_alpha is 0.5, and was 0.25"),
        ("train.mine", 1, "train.mine is 1, and was missing"),
        ("model.backbone.mine", "${train.max_iter}", "model.backbone.mine is .*, and was missing"),
    ],
)
def test_what_may_change_of_a_python_config(saved, caplog, key, value, words):
    cfg = model_zoo.get_config(LAZY)
    OmegaConf.update(cfg, key, value, force_add=True)
    resume(cfg, saved)
    (record,) = caplog.records
    assert re.search(words, record.getMessage())


def test_what_does_not_matter_of_a_python_config(saved, folder, caplog):
    cfg = model_zoo.get_config(LAZY)
    cfg.train.output_dir = "elsewhere"
    resume(cfg, saved)
    resume(cfg, folder)  # of a YAML config
    resume(load_config(QUICK_START), saved)
    assert not caplog.records


def test_weights_that_a_resumed_training_does_not_read(folder, caplog):
    resume(load_config(QUICK_START, ["MODEL.WEIGHTS", "other.pth"]), folder)
    assert caplog.messages == [
        f"MODEL.WEIGHTS is 'other.pth', and was '': neither is read, since --resume goes on with "
        f"the last checkpoint in {folder}"
    ]


@pytest.fixture
def weights(tmp_path):
    """A checkpoint that holds its config, with nothing beside it that tells."""
    return save(tmp_path, load_config(QUICK_START))


def warnings(caplog):
    """Without what is logged of a checkpoint that is saved."""
    return [x.getMessage() for x in caplog.records if x.levelno >= logging.WARNING]


def save(folder, cfg):
    checkpointer = WholeCheckpointer(nn.Linear(2, 2), str(folder))
    checkpointer.config = config_text(cfg)
    checkpointer.save("model_0000001", iteration=1)
    return folder / CHECKPOINT


@pytest.mark.parametrize("key", ["MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE", "MODEL.RPN.BOUNDARY_THRESH"])
def test_weights_tell_their_config_themselves(weights, caplog, key):
    cfg = load_config(QUICK_START, [key, "True" if "USE" in key else "3"])
    evaluate(cfg, weights)
    warn_of_other_config(cfg, str(weights))
    words = f"{key} is True, expected False, as in {weights}: the weights were trained with that"
    assert warnings(caplog) == ([words] * 2 if "USE" in key else [])


def test_what_weights_tell_comes_before_what_lies_beside_them(weights, caplog):
    cfg = load_config(QUICK_START, ["INPUT.FORMAT", "RGB"])
    (weights.parent / FILE).write_text(cfg.dump())  # such as one that was edited since
    with pytest.raises(InputError, match=rf"^INPUT.FORMAT is 'RGB', .*, as in {weights}: "):
        resume(cfg, weights.parent)
    (weights.parent / FILE).write_text("a: [")
    resume(load_config(QUICK_START), weights.parent)
    assert not warnings(caplog)
    save(weights.parent, cfg)  # which goes on with it
    resume(cfg, weights.parent)
    assert not warnings(caplog)


def test_a_python_config_in_the_weights(tmp_path, caplog):
    weights = save(tmp_path, cfg := LazyConfig.load(str(model_zoo.get_config_file(LAZY))))
    warn_of_other_config(cfg, str(weights))
    assert not warnings(caplog)
    cfg.model.input_format = "RGB"
    warn_of_other_config(cfg, str(weights))
    (message,) = warnings(caplog)
    assert message.startswith("model.input_format is 'RGB', expected 'BGR', as in ")


def test_a_config_that_no_yaml_can_hold(tmp_path, caplog):
    cfg = OmegaConf.create({"x": (i for i in "")}, flags={"allow_objects": True})
    assert config_text(cfg) is None
    weights = save(tmp_path, cfg)
    warn_of_other_config(load_config(QUICK_START), str(weights))
    assert not warnings(caplog)


@pytest.mark.parametrize("address", ["", "detectron2://x.pkl", "no_such.pth"])
def test_weights_that_are_not_here(caplog, address):
    warn_of_other_config(load_config(QUICK_START), address)
    assert not warnings(caplog)
