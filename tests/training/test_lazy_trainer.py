"""Python configs, as their users run them, on trainings of seconds."""

import json
import math

import cv2
import pytest
import torch
from command_line import ROOT, run_train_net
from detectron2 import model_zoo
from detectron2.config import LazyCall, LazyConfig, instantiate
from detectron2.modeling.roi_heads import StandardROIHeads
from omegaconf import OmegaConf
from small_data import write_coco, write_voc
from small_models import NARROW_OPTS, ZOO

from ohem_d2 import OHEMROIHeads, with_ohem
from ohem_d2.errors import InputError
from ohem_d2.modeling.head_checks import check_classes_of_heads
from ohem_d2.training import lazy_trainer
from ohem_d2.training.lazy_config import keys_of_python_configs, load_lazy_config
from ohem_d2.training.lazy_data import data_sets_of_images, register_lazy_datasets
from ohem_d2.training.lazy_targets import make

AUGMENTATIONS = "dataloader.train.mapper.augmentations"
EXAMPLE = str(ROOT / "configs" / "mask_rcnn_R_50_FPN_1x_ohem.py")
OBJECTS = [("dog", (5, 5, 30, 40), ""), ("cat", (40, 10, 70, 50), "")]
TINY = {
    "train.output_dir": "out",
    "train.max_iter": 3,
    "train.log_period": 1,
    "train.checkpointer.period": 2,
    "dataloader.train.total_batch_size": 2,
    "dataloader.train.num_workers": 0,
    "dataloader.test.num_workers": 0,
    "model.proposal_generator.post_nms_topk": "[20,10]",
    "model.roi_heads.batch_size_per_image": 8,
}
# Images are small, and a network without weights is tamed by batch normalization.
TINY_R50 = {
    **TINY,
    **NARROW_OPTS,
    "train.init_checkpoint": "''",
    "model.backbone.bottom_up.freeze_at": 0,
    "model.backbone.bottom_up.stem.norm": "BN",
    "model.backbone.bottom_up.stages.norm": "BN",
    "dataloader.train.mapper.augmentations.0.short_edge_length": "[64]",
    "dataloader.test.mapper.augmentations.0.short_edge_length": 64,
}


HEAD = "detectron2.modeling.roi_heads.StandardROIHeads"


def pairs(**settings):
    return [f"{key}={value}" for key, value in settings.items()]


def logged(folder):
    lines = (folder / "out" / "metrics.json").read_text().splitlines()
    return {key: value for line in lines for key, value in json.loads(line).items()}


@pytest.fixture
def voc(tmp_path):
    write_voc(tmp_path / "voc", {f"image {i}": OBJECTS for i in range(4)})
    spec = "voc://voc?split=trainval"
    return {
        "dataloader.train.dataset.names": spec,
        "dataloader.test.dataset.names": spec,
        "model.roi_heads.mask_in_features": "null",  # there are boxes only
    }


@pytest.fixture
def coco(tmp_path):
    """With masks."""
    images = {"a.jpg": [("dog", [5, 5, 25, 35])], "b.jpg": [("cat", [40, 10, 30, 40])]}
    file = write_coco(tmp_path, images, {1: "dog", 2: "cat"})
    content = json.loads(file.read_text())
    for a in content["annotations"]:
        x, y, w, h = a["bbox"]
        a["segmentation"] = [[x, y, x + w, y, x + w, y + h]]
    file.write_text(json.dumps(content))
    spec = "coco://annotations.json?images=images"
    return {"dataloader.train.dataset.names": spec, "dataloader.test.dataset.names": spec}


def test_the_example_differs_from_detectron2_by_the_head_alone():
    mine = LazyConfig.load(EXAMPLE)
    theirs = model_zoo.get_config("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.py")
    assert mine.model.roi_heads._target_ is OHEMROIHeads
    mine.model.roi_heads._target_ = StandardROIHeads
    del mine.model.roi_heads.ohem, mine.model.roi_heads.box_voting
    assert mine == theirs


def test_train_resume_and_evaluate(tmp_path, voc):
    opts = {**TINY_R50, **voc}
    run = run_train_net(tmp_path, *pairs(**opts), config=EXAMPLE)
    assert run.returncode == 0, run.stderr
    assert "2 classes: cat, dog" in run.stdout
    assert "PASCAL VOC 2012 metric" in run.stdout
    metrics = logged(tmp_path)
    for name in ("roi_head/num_fg_samples", "ohem/cost_of_selected", "total_loss", "bbox/AP50"):
        assert math.isfinite(metrics[name])
    pictures = sorted((tmp_path / "out" / "pictures").iterdir())
    assert [p.name for p in pictures] == ["detections_voc_voc_split_trainval.jpg", "mined.jpg"]
    assert all(cv2.imread(str(p)) is not None for p in pictures)

    run = run_train_net(
        tmp_path, "--resume", *pairs(**{**opts, "train.max_iter": 5}), config=EXAMPLE
    )
    assert run.returncode == 0, run.stderr
    assert "Starting training from iteration 3" in run.stdout

    opts["train.init_checkpoint"] = "out/model_final.pth"
    run = run_train_net(tmp_path, "--eval-only", *pairs(**opts), config=EXAMPLE)
    assert run.returncode == 0, run.stderr
    assert "PASCAL VOC 2012 metric" in run.stdout


def test_regions_to_ignore(tmp_path, voc):
    objects = [OBJECTS[0], ("cat", (40, 10, 70, 50), "<difficult>1</difficult>")]
    write_voc(tmp_path / "voc", {f"image {i}": objects for i in range(4)})
    opts = pairs(**TINY_R50, **voc)
    opts.append("+train.ignore_regions.difficult=True")
    run = run_train_net(tmp_path, *opts, config=EXAMPLE)
    assert run.returncode == 0, run.stderr
    assert "4 regions to ignore are marked in the training set (4 by 'difficult')" in run.stdout
    assert "model.proposal_generator is IgnoreRPN in place of RPN" in run.stdout
    assert math.isfinite(logged(tmp_path)["total_loss"])


def test_valid_ranges(tmp_path, voc):
    opts = pairs(**TINY_R50, **voc)
    opts.append("+train.valid_ranges=[[64,0,34]]")
    run = run_train_net(tmp_path, *opts, config=EXAMPLE)
    assert run.returncode == 0, run.stderr
    assert "train.valid_ranges: of 8 objects of the training set, these count: " in run.stdout
    assert "model.proposal_generator is IgnoreRPN in place of RPN" in run.stdout
    assert math.isfinite(logged(tmp_path)["total_loss"])
    run = run_train_net(tmp_path, *opts[:-1], "+train.valid_ranges=[[48,0,34]]", config=EXAMPLE)
    expected = "train.valid_ranges has ranges for [48], expected one for each shortest edge in the"
    assert expected in run.stderr


VITDET = """
from functools import partial

from detectron2 import model_zoo
from detectron2.modeling.backbone.vit import get_vit_lr_decay_rate
from ohem_d2 import with_ohem

_plain = model_zoo.get_config("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.py")
dataloader, lr_multiplier, train = _plain.dataloader, _plain.lr_multiplier, _plain.train
model = model_zoo.get_config("common/models/mask_rcnn_vitdet.py").model
model.backbone.net.update(
    img_size=64, embed_dim=24, depth=2, num_heads=2, window_block_indexes=[0]
)
model.backbone.square_pad = 64
model.roi_heads = with_ohem(model.roi_heads)
train.init_checkpoint = ""
train.amp.enabled = True
train.ddp.fp16_compression = True
optimizer = model_zoo.get_config("common/optim.py").AdamW
optimizer.params.lr_factor_func = partial(get_vit_lr_decay_rate, num_layers=2, lr_decay_rate=0.7)
optimizer.params.overrides = {"pos_embed": {"weight_decay": 0.0}}
"""


def test_a_warm_up(tmp_path, voc):
    key = "model.roi_heads.ohem.start_iter"
    opts = {**TINY_R50, **voc, key: 3}
    run = run_train_net(tmp_path, *pairs(**opts), config=EXAMPLE)
    assert run.returncode == 1
    assert f"{key} is 3, expected less than 3, the number of iterations of the" in run.stderr
    run = run_train_net(tmp_path, *pairs(**{**opts, key: 1}), config=EXAMPLE)
    assert run.returncode == 0, run.stderr
    lines = (tmp_path / "out" / "metrics.json").read_text().splitlines()
    mines = ["ohem/cost_of_selected" in json.loads(line) for line in lines]
    assert mines[:3] == [False, True, True]


def test_a_mining_rpn(tmp_path, voc):
    rpn = "model.proposal_generator"
    opts = [*pairs(**TINY_R50, **voc), f"{rpn}._target_=ohem_d2.OHEMRPN"]
    run = run_train_net(tmp_path, *opts, f"+{rpn}.ohem.start_iter=3", config=EXAMPLE)
    assert run.returncode == 1
    assert f"{rpn}.ohem.start_iter is 3, expected less than 3, the number of iter" in run.stderr
    run = run_train_net(tmp_path, *opts, f"+{rpn}.ohem.start_iter=1", config=EXAMPLE)
    assert run.returncode == 0, run.stderr
    lines = (tmp_path / "out" / "metrics.json").read_text().splitlines()
    mines = ["ohem_rpn/cost_of_selected" in json.loads(line) for line in lines]
    assert mines[:3] == [False, True, True]


@pytest.mark.parametrize(
    ("file", "target"),
    [("retinanet_R_50_FPN_1x", "OHEMRetinaNet"), ("fcos_R_50_FPN_1x", "OHEMFCOS")],
)
def test_one_stage_models_that_mine(tmp_path, voc, file, target):
    of_two_stages = (*NARROW_OPTS, *(x for x in TINY if x.startswith("model.")))
    tiny = {k: v for k, v in TINY_R50.items() if k not in of_two_stages}
    data = {k: v for k, v in voc.items() if k.startswith("dataloader.")}
    opts = [*pairs(**tiny, **data), f"model._target_=ohem_d2.{target}"]
    config = str(ZOO / "COCO-Detection" / f"{file}.py")
    wrong = {
        "+model.ohem.start_iter=3": "model.ohem.start_iter is 3, expected less than 3, the number",
        "+model.ohem={hard_fraction:2.0}": "model.ohem.hard_fraction is 2.0, expected a number in",
        "+model.ohm={}": f"{target} has no argument ohm: expected one of",
    }
    for opt, message in wrong.items():
        run = run_train_net(tmp_path, *opts, opt, config=config)
        assert run.returncode == 1
        assert message in run.stderr
    run = run_train_net(tmp_path, *opts, "+model.ohem.start_iter=1", config=config)
    assert run.returncode == 0, run.stderr
    lines = (tmp_path / "out" / "metrics.json").read_text().splitlines()
    mines = ["ohem_dense/cost_of_selected" in json.loads(line) for line in lines]
    assert mines[:3] == [False, True, True]


def test_a_vitdet(tmp_path, coco):
    pytest.importorskip("timm")
    (tmp_path / "vitdet.py").write_text(VITDET)
    opts = {
        **TINY,
        **coco,
        "dataloader.train.mapper.augmentations.0.short_edge_length": "[48]",
        "dataloader.test.mapper.augmentations.0.short_edge_length": 48,
    }
    run = run_train_net(tmp_path, *pairs(**opts), config="vitdet.py")
    assert run.returncode == 0, run.stderr
    (log,) = (x.read_text() for x in tmp_path.rglob("log.txt"))
    assert "WARNING: train.amp.enabled is turned off" in log or torch.cuda.is_available()
    assert math.isfinite(logged(tmp_path)["loss_mask"])


def test_new_baselines_by_their_name(tmp_path, coco):
    """A config of Detectron2's own, whose head is changed on the command line."""
    pytest.importorskip("shapely")
    opts = {
        **TINY,
        **coco,
        "model.roi_heads._target_": "ohem_d2.OHEMROIHeads",
        "train.max_iter": 1,
        "dataloader.train.mapper.augmentations.0.target_height": 64,
        "dataloader.train.mapper.augmentations.0.target_width": 64,
        "dataloader.train.mapper.augmentations.1.crop_size": "[64,64]",
        "dataloader.test.mapper.augmentations.0.short_edge_length": 64,
    }
    config = "new_baselines/mask_rcnn_R_50_FPN_100ep_LSJ.py"
    run = run_train_net(tmp_path, *pairs(**opts), config=config)
    assert run.returncode == 0, run.stderr
    assert math.isfinite(logged(tmp_path)["ohem/cost_of_selected"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a = 1\nmodel = (", "^[^ ]*bad.py is no valid config: line 2: SyntaxError: '\\(' was nev"),
        ("from .other import model", "^[^ ]*other.py is no valid config: line 1: .*bad.py imports"),
        (
            "import module_of_syntax",
            "^[^ ]*module_of_syntax.py is no valid config: line 1: .*bad.py imp",
        ),
        (
            "\n\n<!DOCTYPE html>\n<html>",
            "bad.py is no valid config: it is a web page, as of a downl",
        ),
        ("a = 1\nb = a / 0", "line 2: ZeroDivisionError: division by zero"),
        ("from nothing import model", "line 1: ModuleNotFoundError: No module named 'nothing'"),
        ("from .nothing import model", "line 1: ImportError: .*nothing.py does not exist"),
        ("model = dict(a=1)", r"there is no dataloader in .*, expected .*coco.py'\).dataloader$"),
        ("import sys\nsys.exit(0)", "line 2: SystemExit: 0"),
        ("raise SystemExit", "line 1: SystemExit: .*, expected a config that does not end the"),
        ("model = dict(a=1)\ndel model", "there is no model in .*, expected one such as model_zoo"),
        ("raise GeneratorExit('x')", "line 1: GeneratorExit: x"),
        ("model = {'a'}", "model in .* is neither a dict nor a LazyCall"),
        (
            "model = dataloader = dict(test=dict(a=1))\ntrain = {'device', 'cpu'}",
            "train in .* is neither a dict nor a LazyCall",
        ),
        ("model = None", "model in .* is neither a dict nor a LazyCall, expected one such as"),
        ("from math import pi as model", "model in .* is neither a dict nor a LazyCall"),
        ("model = dict(a='${nothing.here}')", r"model\.a in .* refers to nothing\.here, but"),
        ("model = dict(a=['${x.y}'])", r"model\.a\.0 in .* refers to x\.y, but there"),
        ("model = dict(a='${oc.env:NOT_SET}')", r"model\.a in .* cannot be read: .*'NOT_SET'"),
        ("model = dict(a='${')", r"bad\.py"),
    ],
)
def test_wrong_files_are_named(tmp_path, monkeypatch, content, message):
    (tmp_path / "bad.py").write_text(content)
    (tmp_path / "other.py").write_text("model = (")
    (tmp_path / "module_of_syntax.py").write_text("model = (")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=message):
        load_lazy_config(str(tmp_path / "bad.py"))


@pytest.mark.parametrize("key", ["model.roi_heads", "optimizer", "dataloader.train"])
def test_a_comma_at_the_end_of_a_line(tmp_path, key):
    lines = (
        "from detectron2.config import LazyConfig",
        f"cfg = LazyConfig.load({EXAMPLE!r})",
        f"cfg.{key} = cfg.{key},",
        "globals().update(cfg)",
    )
    (tmp_path / "a.py").write_text("\n".join(lines))
    with pytest.raises(
        InputError, match=rf"^{key} in .*a.py is a list, expected one .* a comma at"
    ):
        load_lazy_config(str(tmp_path / "a.py"))


def test_an_optimizer_without_parameters(tmp_path):
    (tmp_path / "x.py").write_text(
        "import torch\nfrom detectron2 import model_zoo\n"
        "from detectron2.config import LazyCall as L\n"
        "plain = model_zoo.get_config('COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.py')\n"
        "dataloader, lr_multiplier, model, train = (plain[k] for k in (\n"
        "    'dataloader', 'lr_multiplier', 'model', 'train'))\n"
        "optimizer = L(torch.optim.SGD)(lr=0.02)\n"
    )
    message = r"no optimizer.params in .*x.py, expected .* params=L\(get_default_optimizer_params"
    with pytest.raises(InputError, match=message):
        load_lazy_config(str(tmp_path / "x.py"), ["train.device=cpu"])


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["SOLVER.MAX_ITER", "5"], "in the settings 'SOLVER.MAX_ITER': expected key=value"),
        (["train.output_dir=null"], "train.output_dir is null, expected a value: .*py needs one"),
        (["train.maxiter=5"], r"is no train\.maxiter in .*, the nearest is train\.max_iter. To"),
        (["max_iter=5"], r"there is no max_iter in .*py, the nearest is train\.max_iter"),
        (["SOLVER.MAX_ITER=5"], r"SOLVER.MAX_ITER in .*py, the nearest is train\.max_iter"),
        (["optimizer.lr=0,02"], "'optimizer.lr=0,02': optimizer.lr is several values, expected on"),
        (["optimizer.lr=range(1,3)"], "optimizer.lr is several values"),
        (["optimizer.lr=interval(0,1)"], "optimizer.lr is several values"),
        (["train.max_iter=[5"], "in the settings"),
        (["+train.max_iter.x=5"], "in the settings .*train.max_iter is not a config"),
        *(
            ([opt], "in the settings '.*': expected key=value, as for Python configs")
            for opt in ("=5", "+=5", "~=5", ".=5", "train.=5", "train..max_iter=5", "~model")
        ),
        *(
            ([f"{sign}{AUGMENTATIONS}.9.prob=1"], "augmentations has 2 entries, expected 0 to 1 in")
            for sign in ("", "+")
        ),
        ([f"{AUGMENTATIONS}[0].x=1"], "expected .*augmentations.0.x, without brackets"),
        (
            ["optimizer._target_=nothing.Here"],
            "^optimizer._target_ is 'nothing.Here', which cannot be imported: No module named",
        ),
        (
            ["dataloader.evaluator._target_=torch.nothing"],
            "^dataloader.evaluator._target_ is 'torch.nothing', which cannot be imported",
        ),
        (
            [f"{AUGMENTATIONS}.1._target_=math.pi"],
            "augmentations.1._target_ is 'math.pi', which is a float, expected a class or function",
        ),
        (["train.log_period=5", "train.max_iter=${no}"], r"train.max_iter in .* refers to no, but"),
        (["train.log_period=5", "train.max_iter=[5"], r"in the settings 'train.max_iter=\[5': "),
    ],
)
def test_wrong_settings_are_named(opts, message):
    with pytest.raises(InputError, match=message):
        load_lazy_config(EXAMPLE, opts)


def test_an_evaluation_needs_nothing_to_train_with():
    load_lazy_config(EXAMPLE, ["optimizer._target_=nothing.Here"], training=False)


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        ("MODEL.ROI_HEADS.OHEM.SAMPLER is 'x'", "model.roi_heads.ohem.sampler is 'x'"),
        ("MODEL.RPN.OHEM.SAMPLER is 'x'", "model.proposal_generator.ohem.sampler is 'x'"),
        ("MODEL.RETINANET.OHEM.SAMPLER is 'x'", "model.ohem.sampler is 'x'"),
        ("x TEST.BOX_VOTING.ROUNDS and x", "x model.roi_heads.box_voting.rounds and x"),
        ("INPUT.IGNORE_REGIONS.ENABLED is 5", "train.ignore_regions.enabled is 5"),
        ("INPUT.VALID_RANGES is 5", "train.valid_ranges is 5"),
        ("MODEL.WEIGHTS: 'x.pth' is empty", "train.init_checkpoint: 'x.pth' is empty"),
        ("OUTPUT_DIR: 'x.pth' is damaged", "train.output_dir: 'x.pth' is damaged"),
        ("in the settings 'MODEL.WEIGHTS=x'", "in the settings 'MODEL.WEIGHTS=x'"),
    ],
)
def test_settings_are_named_as_python_configs_do(raised, told):
    with pytest.raises(InputError) as e, keys_of_python_configs():
        raise InputError(raised)
    assert str(e.value) == told


def test_an_option_of_with_ohem_is_named_as_a_python_config_does(tmp_path):
    config = f"from ohem_d2 import with_ohem\nwith_ohem({{'_target_': {HEAD!r}}}, hard_fraction=5)"
    (tmp_path / "bad.py").write_text(config)
    with pytest.raises(InputError, match="model.roi_heads.ohem.hard_fraction is 5, expected"):
        load_lazy_config(str(tmp_path / "bad.py"))


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ("model", "a model"),
        ("optimizer", "an optimizer"),
        ("lr_multiplier", "a ParamScheduler of fvcore's, or a scheduler of torch's"),
    ],
)
def test_a_part_of_another_kind(part, expected):
    cfg = OmegaConf.create({part: {"_target_": "builtins.dict"}})
    words = f"^{part}._target_ is 'builtins.dict', which makes a dict, expected {expected}$"
    with pytest.raises(InputError, match=words):
        make(cfg, part)


@pytest.mark.parametrize(
    ("mapper", "number"),
    [
        ({"_target_": "detectron2.data.dataset_mapper.DatasetMapper"}, 2),
        ({"_target_": "detectron2.data.DatasetMapper"}, 2),
        ({"_target_": "mine.DatasetMapper"}, 1),
        ("function", 1),
    ],
)
def test_images_that_a_mapper_of_the_users_reads_are_left_alone(mapper, number):
    data = {"dataset": {"names": ["coco://x", "registered"]}, "mapper": mapper}
    cfg = OmegaConf.create({"dataloader": {"train": data}})
    assert len(data_sets_of_images(cfg, "train")) == number


def test_settings_of_a_file_without_their_node(tmp_path):
    (tmp_path / "bad.py").write_text("")
    with pytest.raises(InputError, match="there is no train in .*, expected one such as"):
        load_lazy_config(str(tmp_path / "bad.py"), ["train.output_dir=out"])


def test_a_key_can_be_added():
    assert load_lazy_config(EXAMPLE, ["+train.seed=5"]).train.seed == 5


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ("COCO-InstanceSegmentation/mask_rcnn_R_50_C4_1x.py", "OHEMRes5ROIHeads"),
        ("common/models/cascade_rcnn.py", "OHEMCascadeROIHeads"),
    ],
)
def test_the_wrong_head(config, expected):
    roi_heads = model_zoo.get_config(config).model.roi_heads
    roi_heads._target_ = OHEMROIHeads
    with pytest.raises(InputError, match=f"is OHEMROIHeads, but has .*: expected {expected}$"):
        instantiate(roi_heads)


@pytest.mark.parametrize("name", ["mask_rcnn_fpn", "cascade_rcnn"])
def test_all_parts_of_the_heads_get_the_number_of_classes(tmp_path, coco, name):
    heads = model_zoo.get_config(f"common/models/{name}.py").model.roi_heads
    parts = heads.get("box_predictors") or [heads.box_predictor]
    parts = [*parts, *([heads.mask_head] if "mask_head" in heads else [])]
    for part in parts:
        part.num_classes = 80  # in place of "${..num_classes}"
    spec = f"coco://{tmp_path}/annotations.json?images={tmp_path}/images"
    cfg = load_lazy_config(EXAMPLE, pairs(**dict.fromkeys(coco, spec)))
    cfg.model.roi_heads = with_ohem(heads)
    register_lazy_datasets(cfg)
    model = instantiate(cfg.model.roi_heads)
    assert model.num_classes == 2
    assert {x.num_classes for x in model._predictors()} == {2}
    assert "mask_head" not in heads or model.mask_head.predictor.out_channels == 2


def test_heads_within_others(tmp_path, coco):
    spec = f"coco://{tmp_path}/annotations.json?images={tmp_path}/images"
    cfg = load_lazy_config(EXAMPLE, pairs(**dict.fromkeys(coco, spec)))
    heads = cfg.model.roi_heads
    cfg.model.roi_heads = LazyCall(torch.nn.ModuleDict)(modules={"heads": heads})
    register_lazy_datasets(cfg)
    assert cfg.model.roi_heads.modules.heads.num_classes == 2
    cfg.model.roi_heads = LazyCall(torch.nn.Identity)()
    with pytest.raises(
        InputError, match="^there is no num_classes in model.roi_heads, expected on"
    ):
        register_lazy_datasets(cfg)


@pytest.mark.parametrize("part", ["box_predictor", "mask_head"])
def test_parts_of_other_numbers_of_classes(part):
    config = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.py"
    heads = model_zoo.get_config(config).model.roi_heads
    heads[part].num_classes = 5
    with pytest.raises(InputError, match=rf"roi_heads\.{part} is 5, expected 80, as of roi_heads"):
        check_classes_of_heads(instantiate(heads))
    with pytest.raises(InputError, match=f"{part} is 5, expected 80"):
        instantiate(with_ohem(heads))


def test_one_mask_for_all_classes():
    config = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.py"
    heads = model_zoo.get_config(config).model.roi_heads
    heads.mask_head.num_classes = 1
    check_classes_of_heads(instantiate(heads))


def test_masks_that_the_data_do_not_have(tmp_path, voc):
    voc = {k: v.replace("voc://voc", f"voc://{tmp_path}/voc") for k, v in voc.items()}
    del voc["model.roi_heads.mask_in_features"]
    cfg = load_lazy_config(EXAMPLE, pairs(**voc))
    with pytest.raises(
        InputError,
        match=r"roi_heads\.mask_in_features is set, but no object .* expected "
        r"model\.roi_heads\.mask_in_features=null",
    ):
        register_lazy_datasets(cfg)


def test_one_test_set_by_address(tmp_path, voc):
    spec = f"voc://{tmp_path}/voc?split=trainval"
    cfg = load_lazy_config(EXAMPLE, [f"dataloader.test.dataset.names=['{spec}','{spec}']"])
    with pytest.raises(InputError, match="expected a single data set"):
        register_lazy_datasets(cfg)


@pytest.mark.parametrize(
    ("results", "words"),
    [
        ([1], r"gives \[1\], expected a dict of metrics by task"),
        ({"bbox": {"AP": [1.0]}}, r"gives \[1.0\] as bbox/AP, expected a number"),
        ({"bbox": "good"}, "gives 'good' as bbox, expected a number"),
    ],
)
def test_results_of_evaluators_of_ones_own(results, words):
    with pytest.raises(InputError, match=f"^dataloader.evaluator {words}"):
        lazy_trainer._check_results(results)


def test_a_scheduler_of_torchs():
    cfg = OmegaConf.create(flags={"allow_objects": True})
    cfg.lr_multiplier = LazyCall(torch.optim.lr_scheduler.StepLR)(step_size=10)
    message = r"^lr_multiplier._target_ is 'StepLR', .*, expected a ParamScheduler of fvcore's"
    with pytest.raises(InputError, match=message):
        make(cfg, "lr_multiplier")


def test_an_evaluator_without_results(caplog):
    lazy_trainer._check_results({"bbox": {"AP": 1.0, "AP50": torch.tensor(2.0)}, "loss": 3})
    assert not caplog.messages
    lazy_trainer._check_results({})
    assert "dataloader.evaluator gives no results, expected a dict of metrics" in caplog.text
