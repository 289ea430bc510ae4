"""VGG16 (Simonyan and Zisserman, ICLR 2015) as Fast R-CNN uses it: a backbone and a box head."""

import os
from contextlib import suppress
from pathlib import Path

import fvcore.nn.weight_init as weight_init
import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, ROI_BOX_HEAD_REGISTRY, Backbone
from detectron2.utils.file_io import PathManager
from iopath.common.file_io import PathHandler
from torch import Tensor, nn
from torchvision.models import get_weight
from torchvision.models.vgg import cfgs, make_layers

from ..errors import InputError
from .weight_files import identity, kept


class VGG16(Backbone):
    """
    conv1 to conv5 of torchvision's VGG16, without the last pooling: one feature map, "conv5", with
    512 channels and a stride of 16.

    The layers have torchvision's names.
    """

    size_divisibility = 16

    def __init__(self, freeze_at: int = 2) -> None:
        """
        Args:
            freeze_at: conv1 up to this block are not trained. Fast R-CNN freezes two.

        Raises:
            InputError: there is no such block.
        """
        super().__init__()
        if not 0 <= freeze_at <= 5:
            raise InputError(
                f"MODEL.BACKBONE.FREEZE_AT is {freeze_at}, expected one of the five blocks of "
                "VGG16, or 0 for none"
            )
        self.features = make_layers(cfgs["D"])[:-1]
        block = 1
        for layer in self.features:
            if isinstance(layer, nn.Conv2d):
                weight_init.c2_msra_fill(layer)
                layer.requires_grad_(block > freeze_at)
            elif isinstance(layer, nn.MaxPool2d):
                block += 1

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """
        Args:
            image: (N, 3, H, W).

        Returns:
            "conv5", (N, 512, H / 16, W / 16), rounded down.
        """
        return {"conv5": self.features(image)}

    def output_shape(self) -> dict[str, ShapeSpec]:
        """See Detectron2's `Backbone.output_shape`."""
        return {"conv5": ShapeSpec(channels=512, stride=16)}


# Under names that say whose these are: a registry refuses a second "build_vgg16_backbone".
@BACKBONE_REGISTRY.register()
def build_ohem_vgg16_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> VGG16:
    """
    Build `VGG16`, with ``MODEL.BACKBONE.FREEZE_AT``.

    torchvision's weights need ``INPUT.FORMAT`` "RGB", and their own ``PIXEL_MEAN`` and
    ``PIXEL_STD``, see configs/paper/parts/vgg16.yaml.
    """
    return VGG16(freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT)


@ROI_BOX_HEAD_REGISTRY.register()
class OHEMVGG16BoxHead(nn.Module):
    """
    fc6 and fc7 of torchvision's VGG16, each with ReLU and dropout, under torchvision's names.

    While a mining head reads RoIs, dropout drops nothing. In the authors' code it does.
    """

    @configurable
    def __init__(self, *, input_shape: ShapeSpec, fc_dim: int, dropout: float = 0.5) -> None:
        """
        Args:
            input_shape: of the pooled features; torchvision's weights are for (512, 7, 7).
            fc_dim: units of each layer; 4096 for torchvision's weights.
            dropout: the probability that a unit is dropped.
        """
        super().__init__()
        channels = input_shape.channels * input_shape.height * input_shape.width
        self.classifier = nn.Sequential(
            nn.Linear(channels, fc_dim),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(fc_dim, fc_dim),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
        )
        for layer in (self.classifier[0], self.classifier[3]):
            weight_init.c2_xavier_fill(layer)
        self.output_shape = ShapeSpec(channels=fc_dim)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict:
        """See Detectron2's `configurable`."""
        return {"input_shape": input_shape, "fc_dim": cfg.MODEL.ROI_BOX_HEAD.FC_DIM}

    def forward(self, x: Tensor) -> Tensor:
        """
        Args:
            x: (R, C, H, W) pooled features.

        Returns:
            (R, fc_dim).
        """
        return self.classifier(x.flatten(start_dim=1))


class TorchvisionWeights(PathHandler):
    """
    Finds ``torchvision://<weights>``, to be used as ``MODEL.WEIGHTS``.

    The weights are those of a name that torchvision knows, such as VGG16_Weights.IMAGENET1K_V1,
    which are downloaded when needed, or of a file that is here. They are kept in a form that tells
    Detectron2 to give each layer the weights whose name is the end of its own.
    """

    def _get_supported_prefixes(self) -> list[str]:
        # Python's urlparse turns torchvision:///a/file into the second.
        return ["torchvision://", "torchvision:/"]

    def _get_local_path(self, path: str, force: bool = False, **kwargs: object) -> str:
        source = self._find(path.removeprefix("torchvision:").removeprefix("//"))
        return kept(
            Path(source).stem,
            identity(source),
            lambda: torch.load(source, map_location="cpu", weights_only=True),
        )

    def _find(self, weights: str) -> str:
        if os.path.isfile(weights):
            return weights
        try:
            url = get_weight(weights).url
        except (ValueError, KeyError, AttributeError) as e:
            raise InputError(
                f"{weights!r} is neither a file nor a name of torchvision's weights, which look "
                "like VGG16_Weights.IMAGENET1K_V1"
            ) from e
        return PathManager.get_local_path(url)


with suppress(KeyError):  # somebody has a handler of their own for these addresses
    PathManager.register_handler(TorchvisionWeights())
