"""Which settings an error of Detectron2's or torch's is blamed on."""

import re
import shutil

import pytest
import torch
from detectron2.config import LazyConfig, get_cfg, instantiate
from detectron2.data.datasets import load_coco_json
from detectron2.engine import DefaultTrainer
from detectron2.modeling.roi_heads import (
    ROI_BOX_HEAD_REGISTRY,
    ROI_HEADS_REGISTRY,
    FastRCNNConvFCHead,
)
from detectron2.utils.memory import retry_if_cuda_oom

from ohem_d2 import OHEMROIHeads
from ohem_d2.errors import InputError
from ohem_d2.training.config_file import CONFIGS, load_config
from ohem_d2.training.lazy_config import load_lazy_config
from ohem_d2.training.lazy_targets import make
from ohem_d2.training.named_settings import is_known, named_settings

QUICK_START = str(CONFIGS / "quick_start.yaml")
PYTHON = str(CONFIGS / "mask_rcnn_R_50_FPN_1x_ohem.py")
BOX_HEAD = "MODEL.ROI_BOX_HEAD"


@ROI_HEADS_REGISTRY.register()
class OwnHeads(OHEMROIHeads):
    pass


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["MODEL.RPN.IN_FEATURES", "['p2', 'p9']"],
         r"^MODEL.RPN.IN_FEATURES is .'p2', 'p9'. in .*: KeyError: 'p9', .* of 'p2', .*'p6'"),
        (["MODEL.RPN.IN_FEATURES", "['p2', 'p7']"],  # also that of RetinaNet, which this is not
         r"^MODEL.RPN.IN_FEATURES is \['p2', 'p7'\] in x.yaml, or .* cannot be built: KeyError"),
        (["MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS", "[[0.5, 1.0], [1.0], [1.0], [1.0], [1.0]]"],
         "^MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS is .*: AssertionError: Each level must have"),
        (["MODEL.ROI_HEADS.IN_FEATURES", "['p2', 'p4']"],  # which `check_keys` refuses before
         r"^MODEL.ROI_HEADS.IN_FEATURES is \['p2', 'p4'\] in .*do not form a pyramid"),
        ([f"{BOX_HEAD}.NUM_CONV", "1", f"{BOX_HEAD}.CONV_DIM", "50", f"{BOX_HEAD}.NORM", "GN"],
         "BOX_HEAD.CONV_DIM is 50 and .*BOX_HEAD.NORM is 'GN' in .*num_channels.*must be div"),
        ([f"{BOX_HEAD}.USE_FED_LOSS", "True"],
         f"^{BOX_HEAD}.USE_FED_LOSS is True in .* expected self.use_sigmoid_ce"),
        ([f"{BOX_HEAD}.NUM_FC", "0"],
         f"^{BOX_HEAD}.NUM_FC is 0 in .*AssertionError, expected len.conv_dims. [+] len.fc_dims"),
        (["MODEL.FPN.OUT_CHANNELS", "100"], "^MODEL.FPN.OUT_CHANNELS is 100 in .*num_channels"),
        (["MODEL.FPN.IN_FEATURES", "['res3', 'res2', 'res4', 'res5']"],
         "^MODEL.FPN.IN_FEATURES is .*Strides 4 8 are not log2 contiguous, expected stride == 2"),
    ],
)  # fmt: skip
def test_what_cannot_be_built_names_its_keys(opts, message):
    cfg = load_config(QUICK_START, opts)
    with (
        pytest.raises(InputError, match=message) as e,
        named_settings("x.yaml", cfg, ["MODEL.WEIGHTS", "", *opts]),
    ):
        DefaultTrainer.build_model(cfg)
    assert "RETINANET" not in str(e.value)


@ROI_BOX_HEAD_REGISTRY.register()
class HeadWithoutShape(torch.nn.Module):
    def __init__(self, cfg, input_shape):
        super().__init__()


def test_a_part_without_what_detectron2_reads_of_it():
    cfg = load_config(QUICK_START, [f"{BOX_HEAD}.NAME", "HeadWithoutShape"])
    message = rf"^{BOX_HEAD}.NAME is 'HeadWithoutShape' .* an object that has output_shape .*roi"
    with pytest.raises(InputError, match=message), named_settings("x.yaml", cfg):
        DefaultTrainer.build_model(cfg)


def test_without_a_command_line_what_is_not_a_default_is_named():
    cfg = load_config(QUICK_START, ["MODEL.FPN.OUT_CHANNELS", "100"])
    with (
        pytest.raises(InputError, match="^MODEL.FPN.IN_FEATURES is .*FPN.OUT_CHANNELS is 100"),
        named_settings("x.yaml", cfg),
    ):
        DefaultTrainer.build_model(cfg)


@pytest.mark.parametrize(
    ("opt", "message"),
    [
        ("+model.roi_heads.foo=5", "^model.roi_heads.foo is 5 in x.py, .*argument 'foo'"),
        ("+model.backbone.foo=5", "^model.backbone.foo is 5 in x.py, .*argument 'foo'"),
        ("model.backbone.out_channels=-1", "^model.backbone.out_channels is -1 in x.py"),
        ("model.backbone.bottom_up.stem.norm=XN", "^model.backbone.bottom_up.stem.norm is 'XN' in"),
    ],
)
def test_those_of_python_configs(opt, message):
    cfg = LazyConfig.apply_overrides(LazyConfig.load(PYTHON), [opt])
    with pytest.raises(InputError, match=message), named_settings("x.py", cfg, [opt]):
        instantiate(cfg.model)


def test_what_the_standard_library_refuses_on_the_way_is_no_code_of_the_users():
    with (
        pytest.raises(InputError, match=r"x.yaml, .* FileNotFoundError: .* \(shutil, line"),
        named_settings("x.yaml", get_cfg()),
    ):
        shutil.copyfile("no such file", "x")


def test_an_apostrophe_is_no_quote():
    cfg = load_lazy_config(PYTHON, opt := ["lr_multiplier.scheduler.values=[a,b,c]"])
    cfg.train.init_checkpoint = ""
    words = r"^lr_multiplier.scheduler.values is \['a', 'b', 'c'\] in .* TypeError: can't multiply"
    with pytest.raises(InputError, match=words), named_settings("x.py", cfg, opt):
        instantiate(cfg.lr_multiplier)


def test_errors_of_the_users_own_code_keep_their_traceback():
    def head_of_mine():
        raise KeyError("mine")

    with pytest.raises(KeyError), named_settings("x.yaml", get_cfg()):
        head_of_mine()


def test_a_data_set_that_cannot_be_read_is_not_the_settings_fault(tmp_path):
    file = tmp_path / "captions.json"
    file.write_text('{"images": [], "annotations": []}')
    with (
        pytest.raises(InputError, match=r"^the annotations .*captions.json cannot be read: "),
        named_settings(QUICK_START, get_cfg()),
    ):
        load_coco_json(str(file), str(tmp_path), "captions_of_a_test")


def test_what_a_python_config_is_made_of_is_not_named():
    cfg = load_lazy_config(PYTHON)
    cfg.model.roi_heads.foo = 5
    cfg.copied = {"model": cfg.model}
    message = "^model.roi_heads.foo is 5 in x.py, or"
    with pytest.raises(InputError, match=message), named_settings("x.py", cfg):
        instantiate(cfg.model)


def test_parts_of_the_users_own_are_named_where_nothing_else_is():
    cfg = load_lazy_config(PYTHON)
    cfg.model.roi_heads._target_ = OwnHeads
    message = "^model.roi_heads is test_named_settings.OwnHeads in x.py, or .* cannot be trained: "
    with pytest.raises(InputError, match=message), named_settings("x.py", cfg, verb="trained"):
        retry_if_cuda_oom(torch.zeros(1).view)(2)
    cfg = load_config("quick_start.yaml", ["MODEL.ROI_HEADS.NAME", "OwnHeads"])
    message = "^MODEL.ROI_HEADS.NAME is test_named_settings.OwnHeads in x.yaml, or .* cannot be "
    with pytest.raises(InputError, match=message), named_settings("x.yaml", cfg, verb="trained"):
        retry_if_cuda_oom(torch.zeros(1).view)(2)


@pytest.mark.parametrize("is_its_own", [True, False])
def test_code_in_a_config_file_is_the_users_own(tmp_path, is_its_own):
    (tmp_path / "x.py").write_text(
        "class Mine:\n    def __init__(self):\n        1 / 0\nmine = dict()\n"
    )
    (tmp_path / "y.py").write_text("from .x import Mine\nmodel = dict(_target_=Mine)\n")
    cfg = LazyConfig.load(str(tmp_path / "y.py"))
    assert not is_known(cfg.model._target_.__module__)
    with pytest.raises(ZeroDivisionError), named_settings("y.py", cfg):
        instantiate(cfg.model)


def test_a_class_that_was_not_called_is_named():
    cfg = load_lazy_config(PYTHON)
    cfg.model.roi_heads.box_head = FastRCNNConvFCHead
    message = r"^model.roi_heads.box_head is <class '.*FastRCNNConvFCHead'> in .*cannot be trained"
    with (
        pytest.raises(InputError, match=message),
        named_settings("x.py", cfg, verb="trained"),
    ):
        instantiate(cfg.model).roi_heads.box_head(None)


@pytest.mark.parametrize(
    ("opt", "message"),
    [
        ("model.roi_heads.proposal_matcher.thresholds=[0]",
         r"^model.roi_heads.proposal_matcher.thresholds is \[0\] in .* expected thresholds"),
        ("model.roi_heads.box_pooler.output_size=[1,2,3]",
         r"^model.roi_heads.box_pooler.output_size is \[1, 2, 3\] in .*, expected len.output_size"),
        ("optimizer.momentum=-1", "^optimizer.momentum is -1 in .* cannot be built: ValueError"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("is_of_command_line", [True, False])
def test_a_part_that_cannot_be_made_is_named_by_its_place(opt, message, is_of_command_line):
    cfg = LazyConfig.apply_overrides(LazyConfig.load(PYTHON), [opt])
    cfg.optimizer.params = [torch.nn.Parameter(torch.zeros(1))]
    if not is_of_command_line:  # then all of the part is named
        key = re.escape(opt.partition("=")[0])
        message = f"(^| and ){key} is .* cannot be built"
    with (
        pytest.raises(InputError, match=message),
        named_settings("x.py", cfg, [opt] * is_of_command_line),
    ):
        make(cfg, opt.partition(".")[0])
