"""The data sets of a Python config, and what its model and its evaluation need of them."""

import inspect
from collections.abc import Sequence

from detectron2.data import DatasetMapper
from detectron2.data.detection_utils import create_keypoint_hflip_indices
from detectron2.evaluation import COCOEvaluator
from detectron2.modeling import PanopticFPN, RetinaNet, SemanticSegmentor
from detectron2.modeling.meta_arch import FCOS
from omegaconf import DictConfig, ListConfig, OmegaConf

from ..data import (
    ClassesOfWeights,
    by_address,
    check_annotated,
    check_annotated_keypoints,
    check_mask_format,
    check_objects,
    check_semantic_labels,
    register_by_name,
    warn_of_classes_without_objects,
    warn_of_limit,
    warn_of_other_number,
    warn_of_tested_on_training,
    warn_without_pairs,
)
from ..errors import InputError
from .checks import check_keypoint_sigmas
from .lazy_targets import parts_of, target_of

_MOST_DETECTIONS = 100  # of an image, of Detectron2's box predictors by default


def key_of_names(split: str) -> str:
    """The key of the data sets to train on ("train") or to evaluate on ("test")."""
    return f"dataloader.{split}.dataset.names"


def data_sets_of(cfg: DictConfig, split: str) -> tuple[str, ...]:
    """The data sets of ``dataloader.train`` or ``dataloader.test``, if they are given by name."""
    names = OmegaConf.select(cfg, key_of_names(split)) or ()
    return (names,) if isinstance(names, str) else tuple(names)


def data_sets_of_images(cfg: DictConfig, split: str) -> list[str]:
    """Those of them whose images Detectron2's own mapper reads, or this project has registered."""
    is_plain = target_of(OmegaConf.select(cfg, f"dataloader.{split}.mapper")) is DatasetMapper
    return [name for name in data_sets_of(cfg, split) if is_plain or "://" in name]


def register_lazy_datasets(cfg: DictConfig, of_weights: ClassesOfWeights | None = None) -> None:
    """
    Register the data sets that a Python config names in ``dataset.names`` of ``dataloader.train``
    and ``dataloader.test``: those by address, and those that come with the project. Set
    ``num_classes`` and ``num_keypoints`` of ``model.roi_heads`` from those by address, or
    ``num_classes`` of a one-stage ``model``.

    Raises:
        InputError: see `ohem_d2.data.register_by_name`.
    """
    train, test = data_sets_of(cfg, "train"), data_sets_of(cfg, "test")
    registered = register_by_name(train, test, unreadable_images(cfg), of_weights)
    if registered is None:
        return
    key = key_of_heads(cfg)
    if key is None:
        raise InputError("there is no model.roi_heads, expected them, or a RetinaNet or FCOS")
    if len(test) > 1:
        raise InputError(
            f"dataloader.test.dataset.names is {list(test)}, expected a single data set where one "
            "is given by address: a Python config has one evaluator"
        )
    heads = OmegaConf.select(cfg, key)
    number = len(registered.classes)
    before = heads.get("num_classes", _num_classes_within(heads))  # of what wraps other heads
    if before is None:
        raise InputError(
            f"there is no num_classes in {key}, expected one, such as {number}, as many "
            "classes as the data have"
        )
    warn_of_other_number(f"{key}.num_classes", before, number)
    _replace_num_classes(heads, before, number)
    if registered.num_keypoints is not None and "keypoint_head" in heads:
        heads.keypoint_head.num_keypoints = registered.num_keypoints
    _check_learned(cfg, by_address(train), by_address(test))
    if _head_key(cfg, "keypoint") and by_address(train) and "mapper" in cfg.dataloader.train:
        # The config has those of the data set that it was written for.
        indices = create_keypoint_hflip_indices(train)
        OmegaConf.update(
            cfg, "dataloader.train.mapper.keypoint_hflip_indices", indices, force_add=True
        )


def key_of_heads(cfg: DictConfig) -> str | None:
    """What has the number of classes: the heads or, of one stage, the model; None: not known."""
    if "roi_heads" in cfg.model:
        return "model.roi_heads"
    target = target_of(cfg.model)
    is_of_one_stage = inspect.isclass(target) and issubclass(target, (RetinaNet, FCOS))
    return "model" if is_of_one_stage else None


def _num_classes_within(node: DictConfig) -> int | None:
    """The first number of classes of a part of heads, if any says one."""
    for _, part in parts_of(node, ""):
        if isinstance(number := part.get("num_classes"), int):
            return number
    return None


def _replace_num_classes(node: DictConfig | ListConfig, old: int, new: int) -> None:
    """In the heads and all their parts, but for those of another number, such as 1 for masks."""
    keys = list(node) if isinstance(node, DictConfig) else range(len(node))
    for key in keys:
        if OmegaConf.is_missing(node, key) or OmegaConf.is_interpolation(node, key):
            continue
        if OmegaConf.is_config(node[key]):
            _replace_num_classes(node[key], old, new)
        elif key == "num_classes" and node[key] == old:
            node[key] = new


def _check_learned(cfg: DictConfig, train: Sequence[str], test: Sequence[str]) -> None:
    """Masks and keypoints that the model learns; ``test``: whose keypoints have to be the same."""
    if key := _head_key(cfg, "mask"):
        check_annotated(train, "segmentation", f"{key} is set", f"{key}=null")
        mask_format = "dataloader.train.mapper.instance_mask_format"
        if OmegaConf.select(cfg, mask_format, default="polygon") == "polygon":
            is_set = OmegaConf.select(cfg, mask_format) is not None
            check_mask_format(train, mask_format, f"{'' if is_set else '+'}{mask_format}=bitmask")
    if key := _head_key(cfg, "keypoint"):
        check_annotated_keypoints(train, test, f"{key} is set", f"{key}=null")
    key = "dataloader.train.mapper.recompute_boxes"
    if OmegaConf.select(cfg, key):
        check_annotated(train, "segmentation", f"{key} is true", f"{key}=false")


def _head_key(cfg: DictConfig, name: str) -> str | None:
    """What turns the head of masks or keypoints off, if there is one and it is on."""
    heads = OmegaConf.select(cfg, "model.roi_heads")
    heads = heads if OmegaConf.is_config(heads) else {}
    # C4 heads have none of the first.
    key = next((k for k in (f"{name}_in_features", f"{name}_head") if k in heads), None)
    return f"model.roi_heads.{key}" if key is not None and heads[key] is not None else None


def check_lazy_needs(cfg: DictConfig, train: Sequence[str]) -> None:
    """
    Check what the training and the evaluation need of the data sets, and warn of limits that nobody
    sees.

    Args:
        cfg: the config, with its data sets registered.
        train: those to train on; empty for an evaluation.

    Raises:
        InputError: something is missing.
    """
    test = data_sets_of(cfg, "test")
    # What another mapper may add is not known. Of those by address it was found out before.
    learned = [x for x in train if x in data_sets_of_images(cfg, "train") and "://" not in x]
    _check_learned(cfg, learned, ())
    for name, option in (("mask", "use_instance_mask"), ("keypoint", "use_keypoint")):
        mapper = "dataloader.train.mapper"
        is_used = not data_sets_of_images(cfg, "train") or OmegaConf.select(
            cfg, f"{mapper}.{option}"
        )
        if train and not is_used and (key := _head_key(cfg, name)):
            raise InputError(f"{mapper}.{option} is not true, expected true, since {key} is set")
    if (target := target_of(cfg.model)) in (PanopticFPN, SemanticSegmentor):
        names = [x for x in train if x in data_sets_of_images(cfg, "train")]
        check_semantic_labels(names, f"model is a {target.__name__}")
    by_coco = is_by_coco(cfg) and cfg.dataloader.evaluator.get("tasks") is None
    for name, field in (("mask", "segmentation"), ("keypoint", "keypoints")):
        if key := _head_key(cfg, name):
            tested = test if by_coco else by_address(test)
            check_annotated(tested, field, f"{key} is set", f"{key}=null", testing=True)
    number = OmegaConf.select(cfg, "model.roi_heads.keypoint_head.num_keypoints")
    if number is not None and _head_key(cfg, "keypoint"):
        key = "dataloader.evaluator.kpt_oks_sigmas"
        # Of those by address the evaluator is built from these.
        check_keypoint_sigmas(key, keypoint_sigmas(cfg), number, by_address(test))
        augmentations = OmegaConf.select(cfg, "dataloader.train.mapper.augmentations") or ()
        if any("RandomFlip" in str(x.get("_target_")) for x in augmentations):
            warn_without_pairs(train, "no RandomFlip in dataloader.train.mapper.augmentations")
    for key in ("model.roi_heads.box_predictor", "model.roi_heads.box_predictors[0]"):
        if (predictor := OmegaConf.select(cfg, key)) is not None:
            limit = predictor.get("test_topk_per_image", _MOST_DETECTIONS)
            warn_of_limit(test, f"{key}.test_topk_per_image", limit)
    key = "model.proposal_generator.post_nms_topk"
    if OmegaConf.is_list(limits := OmegaConf.select(cfg, key)) and len(limits) == 2:
        warn_of_limit(test, f"{key}[1]", limits[1])
    check_objects(train, test)
    warn_of_tested_on_training(key_of_names("test"), test, key_of_names("train"), train)
    warn_of_classes_without_objects(train)


def unreadable_images(cfg: DictConfig) -> str:
    """What becomes of images that cannot be read, see `ohem_d2.add_ohem_config`."""
    return OmegaConf.select(cfg, "dataloader.unreadable_images", default="error")


def keypoint_sigmas(cfg: DictConfig) -> tuple[float, ...]:
    """COCO's standard deviations of the keypoints, if the config has any."""
    return tuple(OmegaConf.select(cfg, "dataloader.evaluator.kpt_oks_sigmas") or ())


def is_by_coco(cfg: DictConfig) -> bool:
    """Whether Detectron2's COCO evaluator evaluates."""
    return target_of(OmegaConf.select(cfg, "dataloader.evaluator")) is COCOEvaluator
