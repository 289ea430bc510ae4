import subprocess
import sys

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_model
from detectron2.utils.file_io import PathManager
from torchvision.models import VGG16_Weights, vgg16

from ohem_d2.errors import InputError
from ohem_d2.modeling.vgg import VGG16, OHEMVGG16BoxHead
from ohem_d2.training.config_file import load_config

CONFIG = "configs/paper/voc07_ohem.yaml"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_equals_torchvisions_layer_by_layer(tmp_path, cache):
    torch.manual_seed(0)
    theirs = vgg16(weights=None, init_weights=False).eval()
    for layer in theirs.modules():  # so that the last layers do not fade to nothing
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(layer.weight)
    torch.save(theirs.state_dict(), tmp_path / "vgg16.pth")

    cfg = load_config(CONFIG, ["MODEL.DEVICE", "cpu"])
    model = build_model(cfg).eval()
    unused = DetectionCheckpointer(model).load(f"torchvision://{tmp_path}/vgg16.pth")
    assert unused == {"matching_heuristics": True}  # nothing of the weights is left over

    x = y = torch.randn(2, 3, 50, 64)
    for mine, other in zip(model.backbone.features, theirs.features[:-1], strict=True):
        x, y = mine(x), other(y)
        assert x.equal(y)
        assert x.abs().max() > 0.1
    assert model.backbone(torch.zeros(1, 3, 50, 64))["conv5"].shape == (1, 512, 3, 4)
    pooled = torch.randn(3, 512, 7, 7)
    assert model.roi_heads.box_head(pooled).equal(theirs.classifier[:6](pooled.flatten(1)))

    pixels = torch.rand(3, 32, 32)  # as torchvision takes them: RGB in [0, 1]
    preprocess = VGG16_Weights.IMAGENET1K_V1.transforms()
    mean, std = (torch.tensor(v)[:, None, None] for v in (preprocess.mean, preprocess.std))
    (image,) = model.preprocess_image([{"image": pixels * 255}]).tensor
    torch.testing.assert_close(image, (pixels - mean) / std)
    assert cfg.INPUT.FORMAT == "RGB"


@pytest.mark.parametrize(("freeze_at", "frozen"), [(0, 0), (2, 4), (5, 13)])
def test_the_first_blocks_are_frozen(freeze_at, frozen):
    convolutions = [x for x in VGG16(freeze_at).features if isinstance(x, torch.nn.Conv2d)]
    learns = [p.requires_grad for x in convolutions for p in x.parameters()]
    assert learns == [False] * 2 * frozen + [True] * 2 * (13 - frozen)
    with pytest.raises(InputError, match=r"FREEZE_AT is 6, expected one of the five blocks"):
        VGG16(freeze_at=6)


def test_dropout_is_at_work_in_training():
    head = OHEMVGG16BoxHead(input_shape=ShapeSpec(channels=4, height=7, width=7), fc_dim=64)
    x = torch.randn(5, 4, 7, 7)
    assert head.output_shape.channels == 64
    assert head(x).shape == (5, 64)
    assert not head(x).equal(head(x))
    head.eval()
    assert head(x).equal(head(x))


def test_users_may_have_a_vgg16_of_their_own():
    theirs = (
        "from detectron2.modeling import BACKBONE_REGISTRY, ROI_BOX_HEAD_REGISTRY\n"
        "def build_vgg16_backbone(cfg, input_shape): ...\n"
        "class VGG16BoxHead: ...\n"
        "BACKBONE_REGISTRY.register(build_vgg16_backbone)\n"
        "ROI_BOX_HEAD_REGISTRY.register(VGG16BoxHead)\n"
        "import ohem_d2\n"
    )
    run = subprocess.run([sys.executable, "-c", theirs], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_weights_by_their_name(tmp_path, cache, monkeypatch):
    torch.save({"features.0.weight": torch.ones(2)}, tmp_path / "weights.pth")
    asked = []

    def download(url, *args):
        asked.append(url)
        return str(tmp_path / "weights.pth")

    get_local_path = PathManager.get_local_path
    monkeypatch.setattr(PathManager, "get_local_path", download)
    found = get_local_path("torchvision://VGG16_Weights.IMAGENET1K_V1")
    assert asked == [VGG16_Weights.IMAGENET1K_V1.url]
    assert found.startswith(str(cache))
    loaded = torch.load(found)
    assert loaded["matching_heuristics"]
    assert loaded["model"]["features.0.weight"].equal(torch.ones(2))

    torch.save({"features.0.weight": torch.zeros(2)}, tmp_path / "weights.pth")
    later = get_local_path(f"torchvision://{tmp_path}/weights.pth")
    assert torch.load(later)["model"]["features.0.weight"].equal(torch.zeros(2))
    with pytest.raises(InputError, match="'VGG_17' is neither a file nor a name"):
        get_local_path("torchvision://VGG_17")
