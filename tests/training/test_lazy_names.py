"""Names in a Python config that nothing reads."""

import pytest
from detectron2.config import LazyConfig
from omegaconf import OmegaConf
from small_models import ZOO

from ohem_d2.errors import InputError
from ohem_d2.training.interpolations import check_interpolations
from ohem_d2.training.lazy_names import check_added_names, warn_of_unread_names

FILE = str(ZOO / "COCO-InstanceSegmentation" / "mask_rcnn_R_50_FPN_1x.py")


def load(*opts):
    return LazyConfig.apply_overrides(LazyConfig.load(FILE), list(opts))


@pytest.mark.parametrize(
    ("opt", "words"),
    [
        ("+train.maxiter=4", "nothing reads train.maxiter of x.py, expected one of .*train.max_i"),
        ("+train.amp.enable=true", "nothing reads train.amp.enable of x.py, expected one of"),
        ("+train.ddp.find_unused=true", "train.ddp.find_unused of x.py, .*find_unused_parameters"),
        ("+dataloader.val.num_workers=1", "nothing reads dataloader.val of x.py, expected one of"),
        ("+solver.max_iter=4", "nothing reads solver of x.py, expected one of dataloader, "),
    ],
)
def test_what_is_added(opt, words):
    with pytest.raises(InputError, match=rf"^in the settings '{opt}': ".replace("+", r"\+")) as e:
        check_added_names(load(opt), "x.py", [opt])
    assert e.match(words)


@pytest.mark.parametrize(
    "opts",
    [
        ["+train.seed=1", "+train.cudnn_benchmark=true", "+train.ignore_regions.difficult=true"],
        ["+train.ddp.bucket_cap_mb=1", "+SEED=1", "+model.roi_heads.ohem={}"],
        ["+train.epochs=2", "train.eval_period=${.epochs}"],
        ["+mine.steps=2", "train.max_iter=${mine.steps}"],
        ["+train.mine=2", "+model.opts=${train}"],
        ["train.max_iter=4"],
    ],
)
def test_what_may_be_added(opts, caplog):
    cfg = load(*opts)
    check_added_names(cfg, "x.py", opts)
    warn_of_unread_names(cfg, "x.py")
    assert not caplog.messages


def test_what_a_file_has(caplog):
    cfg = load()
    OmegaConf.update(cfg, "train.maxiter", 4, force_add=True)
    OmegaConf.update(cfg, "train.mine", 4, force_add=True)
    cfg.lr_multipler = {"length": 1}
    cfg.lr_multiplier_2x = {"length": 2}  # of which others are made
    cfg.constants = {"mean": 1}
    warn_of_unread_names(cfg, "x.py")
    assert len(caplog.messages) == 3
    told = " ".join(caplog.messages)
    assert (
        "train.maxiter is set in x.py, but nothing reads it: expected train.max_iter, unless"
        in told
    )
    assert "train.mine is set in x.py, but nothing reads it: expected one of train.amp" in told
    assert "lr_multipler is set in x.py, but nothing reads it: expected lr_multiplier, unl" in told


def test_references_below_keys_that_are_no_plain_names(caplog):
    cfg = load("+optimizer.params.overrides={}")
    overrides = {"backbone.norm": {"weight_decay": "${optimizer.weight_decay}"}, 1: "${train.mine}"}
    cfg.optimizer.params.overrides = overrides
    OmegaConf.update(cfg, "train.mine", 4, force_add=True)
    check_interpolations(cfg, "x.py")
    warn_of_unread_names(cfg, "x.py")
    assert not caplog.messages


FILES = [x for x in sorted(ZOO.rglob("*.py")) if "common" not in x.parts]


@pytest.mark.parametrize("file", FILES, ids=lambda x: x.stem)
def test_configs_of_the_model_zoo(caplog, file):
    warn_of_unread_names(LazyConfig.load(str(file)), "x.py")
    assert not caplog.messages
