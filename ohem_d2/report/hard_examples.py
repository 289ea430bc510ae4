"""What a trained model finds hard in a data set: mined by the code that training mines with."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from itertools import accumulate

import numpy as np
import torch
from detectron2.config import CfgNode, instantiate
from detectron2.data.detection_utils import build_augmentation
from detectron2.modeling import GeneralizedRCNN
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.modeling.roi_heads.fast_rcnn import fast_rcnn_inference
from detectron2.structures import Boxes, BoxMode, ImageList, Instances, pairwise_iou
from detectron2.utils.events import EventStorage
from omegaconf import DictConfig
from torch import Tensor, nn
from torchvision.ops import nms

from ..config import config_key
from ..errors import InputError
from ..mining.error_types import ERROR_TYPES
from ..mining.samplers import OHEMSampler
from ..modeling.metrics import error_types_of
from ..modeling.mixin import OHEMMixin
from ..modeling.roi_heads import OHEMRROIHeads
from ..training.ignore_regions import IgnoreMapper, is_region, lazy_options

# Of look-alikes that overlap by a higher IoU, only the hardest is an example.
_SAME_THING = 0.3
# The costliest RoIs of all are those that hardly count as an object, or hardly do not: what they
# cost says nothing of the object. Examples are of RoIs that lie on one, or on none.
_ON_AN_OBJECT, _ON_NONE = 0.7, 0.3
# A detection counts from this score on.
SEEN = 0.3

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class HardExample:
    """
    The hardest RoI of an object that the model gets wrong, or of what it takes for an object; or
    what may be an error in the labels.

    Boxes are XYXY in pixels of the image file.
    """

    # One of `ERROR_TYPES` other than "right class", or of `LABEL_ERRORS`.
    error_type: str
    # Of a RoI what it costs, classification and box together, as in training; of what may be an
    # error in the labels see `by_loss`.
    loss: float
    # The RoI itself, the label, or what is found where no label is.
    box: Box
    # Numbers of classes; None: background.
    true_class: int | None
    predicted_class: int | None
    # How probable the model finds the predicted class, or background.
    score: float
    # The object that the box overlaps most, by which IoU; None and 0: it overlaps none.
    true_box: Box | None
    iou: float
    # Where the model sees an object of the predicted class. None: nowhere.
    predicted_box: Box | None
    # The position of the label among the annotations of the image. None: it belongs to none.
    label: int | None = None


@dataclass(frozen=True)
class Detections:
    """The D boxes that inference finds in an image, as an evaluator gets them."""

    # (D, 4) float64 XYWH in pixels of the image file, (D,) int64 and (D,) float64.
    boxes: np.ndarray
    classes: np.ndarray
    scores: np.ndarray


@dataclass(frozen=True)
class Findings:
    """
    What a model makes of an image and of its L labels.

    Boxes are XYXY in pixels of the image file.
    """

    # Hardest first.
    hard_examples: list[HardExample]
    # (L, 4) float64 and (L,) int64.
    label_boxes: np.ndarray
    label_classes: np.ndarray
    # (L,) int64: their positions among the annotations of the image, in which regions count too.
    label_positions: np.ndarray
    # In the box of a label, (L,): how probable the model finds its class; and the class that it
    # finds most probable, or `num_classes` for background, and how probable it finds that.
    label_probs: np.ndarray
    seen_classes: np.ndarray
    seen_probs: np.ndarray
    num_classes: int
    # (D, 4) float64, (D,) int64 and (D,) float64: detections among the proposals of training, by
    # falling score.
    boxes: np.ndarray
    classes: np.ndarray
    scores: np.ndarray
    # (G, 4): the regions to ignore, such as crowds, whose objects have no label each; and (G,)
    # int64: their positions among the annotations of the image.
    regions: np.ndarray
    region_positions: np.ndarray
    detections: Detections


def build_mapper(cfg: CfgNode | DictConfig) -> Callable[[dict], dict]:
    """
    Build what prepares an image and its ground truth for `look_at`: at test size, whole.

    Args:
        cfg: the config of the model, YAML or Python.

    Returns:
        a function from a record of Detectron2's catalog to what `IgnoreMapper` returns, and
        ``regions``, (G, 4), those to ignore in pixels of the file; ``label_positions``, (L,), and
        ``region_positions``, (G,), of the instances and of the regions among the annotations of
        the record; and, of precomputed proposals, ``test_proposals``, as many as at test time.
    """
    in_training = at_test_time = None  # the most proposals of an image
    if isinstance(cfg, DictConfig):
        at_test = cfg.dataloader.test.mapper
        mapper = IgnoreMapper(
            is_train=True,
            augmentations=instantiate(at_test.augmentations),
            image_format=at_test.image_format,
            ignore_difficult=lazy_options(cfg).difficult,
        )
    else:
        cfg = cfg.clone()
        cfg.defrost()
        cfg.MODEL.MASK_ON = cfg.MODEL.KEYPOINT_ON = cfg.INPUT.CROP.ENABLED = False
        augmentations = build_augmentation(cfg, is_train=False)
        how = {"is_train": True, "augmentations": augmentations, "valid_ranges": ()}
        mapper = IgnoreMapper(cfg, **how)
        if mapper.proposal_topk is not None:
            in_training = mapper.proposal_topk
            at_test_time = cfg.DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TEST
            mapper.proposal_topk = max(in_training, at_test_time)

    def prepare(record: dict) -> dict:
        are_regions = [is_region(a, mapper.ignore_difficult) for a in record["annotations"]]
        region_positions = np.flatnonzero(are_regions)
        regions = [
            BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS)
            for a in (record["annotations"][i] for i in region_positions)
        ]
        # What is left of the annotations comes back with its position for a class.
        annotations = [{**a, "category_id": i} for i, a in enumerate(record["annotations"])]
        x = mapper({**record, "annotations": annotations})
        positions = x["instances"].gt_classes
        classes = [record["annotations"][i]["category_id"] for i in positions.tolist()]
        x["instances"].gt_classes = torch.tensor(classes, dtype=torch.int64)
        if "proposals" in x:  # the most likely objects first
            x["test_proposals"] = x["proposals"][:at_test_time]
            x["proposals"] = x["proposals"][:in_training]
        return {
            **x,
            "regions": np.array(regions, dtype=float).reshape(-1, 4),
            "region_positions": region_positions,
            "label_positions": positions.numpy(),
        }

    return prepare


def check_model(model: nn.Module) -> None:
    """
    Make sure that `look_at` knows how a model works.

    Raises:
        InputError: it has no mining heads, or rotated boxes.
    """
    heads = getattr(model, "roi_heads", None)
    if not isinstance(heads, OHEMMixin):
        raise InputError(
            f"the RoI heads are {type(heads).__name__}, expected heads that mine, such as "
            "OHEMROIHeads, which takes the weights of StandardROIHeads"
        )
    if isinstance(heads, OHEMRROIHeads):
        raise InputError("MODEL.ROI_HEADS.NAME is OHEMRROIHeads, expected heads of upright boxes")
    if not heads.mines_among_proposals():
        raise InputError(
            f"{config_key('cascade_stages')} is {heads.ohem.cascade_stages}, expected 0 among "
            "them: hard examples are those of the first stage"
        )


@torch.no_grad()
def look_at(model: GeneralizedRCNN, x: dict) -> Findings:
    """
    Mine one image, as a training step would with all of its budget for hard examples, and tell what
    the model gets wrong.

    Args:
        model: a two-stage model with a mining head, see `check_model`.
        x: what the mapper of `build_mapper` returns.

    Returns:
        one hard example of each object and of each place that is taken for one: of RoIs that
        overlap an object by an IoU of 0.7 or more, or all of them by less than 0.3. What the model
        is only not sure of, with the right class, is none; nor is what lies in a region to ignore.
        And what it finds in the boxes of the labels, and without them, for `label_errors`; and
        what inference detects.

    Raises:
        FloatingPointError: the model computes what is not a number.
    """
    heads = model.roi_heads
    targets = [x["instances"].to(model.device)]
    with _with_training_proposals(model), EventStorage():
        images = model.preprocess_image([x])
        features = model.backbone(images.tensor)
        if model.proposal_generator is None:
            proposals = [x["proposals"].to(model.device)]
        else:
            proposals, _ = model.proposal_generator(images, features, targets)
        mined = mine(heads, features, proposals, targets)[0]
        _check_finite(mined.ohem_loss_cls, mined.ohem_loss_box_reg)
        types = error_types_of(mined, heads.num_classes)
        ious = pairwise_iou(mined.proposal_boxes, targets[0].gt_boxes)
        chosen = _one_of_each(mined, types, ious, heads.num_classes)
        mined, types = mined[chosen], types[chosen]
        predictor, predictions = heads.read_boxes(features, [mined])
        by_sigmoid = getattr(predictor, "use_sigmoid_ce", False)
        probs = predictor.predict_probs(predictions, [mined])[0]
        boxes = predictor.predict_boxes(predictions, [mined])[0]
        _check_finite(boxes)
        labels = Instances(targets[0].image_size, proposal_boxes=targets[0].gt_boxes)
        probs_of_labels = heads.detect_boxes(features, [labels])[1][0]
        found = fast_rcnn_inference(
            *heads.detect_boxes(features, proposals),
            [targets[0].image_size],
            SEEN,
            predictor.test_nms_thresh,
            predictor.test_topk_per_image,
        )[0][0]
        found = found[found.pred_boxes.nonempty()]
        detections = _detect(model, images, features, x)
    height, width = x["instances"].image_size
    to_file = np.array([x["width"] / width, x["height"] / height] * 2)
    objects, label_classes = targets[0].gt_boxes, targets[0].gt_classes.cpu().numpy()
    positions = x["label_positions"]
    probs_of_labels = with_background(probs_of_labels, by_sigmoid)
    return Findings(
        hard_examples=list(
            _examples(
                mined, types, with_background(probs, by_sigmoid), boxes, objects, positions, to_file
            )
        ),
        label_boxes=objects.tensor.cpu().numpy() * to_file,
        label_classes=label_classes,
        label_positions=positions,
        label_probs=probs_of_labels[np.arange(len(label_classes)), label_classes],
        seen_classes=probs_of_labels.argmax(axis=1),
        seen_probs=probs_of_labels.max(axis=1),
        num_classes=heads.num_classes,
        boxes=found.pred_boxes.tensor.cpu().numpy() * to_file,
        classes=found.pred_classes.cpu().numpy(),
        scores=found.scores.double().cpu().numpy(),
        regions=x["regions"],
        region_positions=x["region_positions"],
        detections=detections,
    )


def _detect(
    model: GeneralizedRCNN, images: ImageList, features: dict[str, Tensor], x: dict
) -> Detections:
    """As `GeneralizedRCNN.inference`, from features that are there already."""
    if model.proposal_generator is None:
        proposals = [x["test_proposals"].to(model.device)]
    else:
        model.proposal_generator.eval()
        proposals, _ = model.proposal_generator(images, features, None)
    (found,), _ = model.roi_heads(images, features, proposals, None)
    names = ("pred_boxes", "pred_classes", "scores")  # masks and keypoints are not looked at
    found = Instances(found.image_size, **{name: found.get(name) for name in names})
    found = detector_postprocess(found, x["height"], x["width"])
    boxes = found.pred_boxes.tensor.double().cpu().numpy()
    boxes[:, 2:] -= boxes[:, :2]
    return Detections(
        boxes=boxes,
        classes=found.pred_classes.cpu().numpy(),
        scores=found.scores.double().cpu().numpy(),
    )


def _check_finite(*of_rois: Tensor) -> None:
    if not all(torch.isfinite(x).all() for x in of_rois):
        # In the words of Detectron2's RPN.
        raise FloatingPointError("Predicted boxes or scores contain Inf/NaN.")


def with_background(probs: Tensor, by_sigmoid: bool) -> np.ndarray:
    """
    Of (R, K + 1) probabilities, the last one that of background, which a head that tells each class
    for itself does not have: that of not being the most probable one.
    """
    values = probs.cpu().numpy()
    if by_sigmoid:
        values[:, -1] = 1 - values[:, :-1].max(axis=1)
    return values


@torch.no_grad()
def mine(
    heads: OHEMMixin,
    features: dict[str, Tensor],
    proposals: list[Instances],
    targets: list[Instances],
) -> list[Instances]:
    """
    Choose hard examples by the paper's rule, whatever the sampler of the heads, with all of the
    budget. Nothing is logged and no observer called.

    Args:
        heads: mining heads.
        features: as in their ``forward``, and so are the others.

    Returns:
        the hard examples of each image, by falling loss, with the fields that `OHEMMixin` adds.
    """
    with _among_all(heads):
        labelled, candidates = heads.label_and_read_proposals(features, proposals, targets)
    settings = {f.name: getattr(heads.ohem, f.name) for f in fields(OHEMSampler)}
    hard = OHEMSampler(**settings)(candidates, heads.batch_size_per_image).indices
    image_ids = candidates.image_ids[hard]
    starts = accumulate(map(len, labelled), initial=0)
    return [x[hard[image_ids == i] - start] for i, (x, start) in enumerate(zip(labelled, starts))]


@contextmanager
def _among_all(heads: OHEMMixin) -> Iterator[None]:
    """Whatever RoIs training leaves out."""
    options, sampler = heads.ohem, heads.sampler
    if options.max_candidates or options.bg_iou_lo:
        heads.ohem = replace(options, max_candidates=0, bg_iou_lo=0.0)
    try:
        yield
    finally:
        if heads.ohem is not options:
            heads.ohem, heads.sampler = options, sampler


@contextmanager
def _with_training_proposals(model: GeneralizedRCNN) -> Iterator[None]:
    """The model as at test time, except for the number of its proposals."""
    was_training = {module: module.training for module in model.modules()}
    model.eval()
    if model.proposal_generator is not None:
        model.proposal_generator.train()
    try:
        yield
    finally:
        for module, mode in was_training.items():
            module.training = mode


def _one_of_each(mined: Instances, types: Tensor, ious: Tensor, num_classes: int) -> Tensor:
    """Indices of the hardest RoI of each object, and of each place without one."""
    is_object = mined.gt_classes < num_classes
    best = ious.max(dim=1).values if ious.shape[1] else ious.new_zeros(len(mined))
    is_clear = torch.where(is_object, best >= _ON_AN_OBJECT, best < _ON_NONE)
    is_mistake = is_clear & (types != ERROR_TYPES.index("right class"))
    # RoIs come by falling loss, so that the first is the hardest.
    order = torch.arange(len(mined), 0, -1, device=types.device).float()
    places = (is_mistake & ~is_object).nonzero()[:, 0]
    hardest = nms(mined.proposal_boxes.tensor[places], order[places], _SAME_THING)
    of_places = places[hardest].tolist()
    of_objects: dict[int, int] = {}
    for i in (is_mistake & is_object).nonzero()[:, 0].tolist():
        of_objects.setdefault(int(mined.gt_index[i]), i)
    chosen = sorted([*of_places, *of_objects.values()])
    return torch.tensor(chosen, dtype=torch.int64, device=types.device)


def _examples(
    mined: Instances,
    types: Tensor,
    scores: np.ndarray,
    boxes: Tensor,
    objects: Boxes,
    positions: np.ndarray,
    to_file: np.ndarray,
) -> Iterator[HardExample]:
    """
    Args:
        mined: R RoIs.
        types: (R,) their error types, positions in `ERROR_TYPES`.
        scores: (R, K + 1) how probable each class is, and background.
        boxes: (R, K * 4), or (R, 4) if class-agnostic: where each class is.
        objects: the boxes of all objects of the image.
        positions: theirs among the annotations of the image.
        to_file: (4,) from pixels of the image as the model sees it to those of its file.
    """
    num_classes = scores.shape[1] - 1
    num_boxes = boxes.shape[1] // 4
    ious = pairwise_iou(mined.proposal_boxes, objects)
    losses = mined.ohem_loss_cls + mined.ohem_loss_box_reg
    clipped = Boxes(boxes.reshape(-1, 4))
    clipped.clip(mined.image_size)
    boxes = clipped.tensor.reshape(len(mined), num_boxes, 4)

    def in_file(boxes: Tensor) -> Box:
        return tuple((boxes.cpu().numpy() * to_file).tolist())

    for i, error_type in enumerate(types.tolist()):
        label, predicted = int(mined.gt_classes[i]), int(mined.ohem_pred_classes[i])
        is_bg = predicted == num_classes
        best = int(ious[i].argmax()) if len(objects) and ious[i].max() > 0 else None
        of_class = min(predicted, num_boxes - 1)  # the only one, if class-agnostic
        yield HardExample(
            error_type=ERROR_TYPES[error_type],
            loss=float(losses[i]),
            box=in_file(mined.proposal_boxes.tensor[i]),
            true_class=label if label < num_classes else None,
            predicted_class=None if is_bg else predicted,
            score=float(scores[i, predicted]),
            true_box=None if best is None else in_file(objects.tensor[best]),
            iou=0.0 if best is None else float(ious[i, best]),
            predicted_box=None if is_bg else in_file(boxes[i, of_class]),
            label=int(positions[mined.gt_index[i]]) if label < num_classes else None,
        )
