"""What a trained model finds hard in a data set: mined by the code that training mines with."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetMapper, MetadataCatalog
from detectron2.data.detection_utils import build_augmentation
from detectron2.structures import Boxes, BoxMode, Instances, pairwise_iou
from detectron2.utils.events import EventStorage
from torch import Tensor, nn
from torchvision.ops import nms

from .errors import InputError
from .kinds import KINDS, kinds_of_rois
from .mixin import OHEMMixin
from .roi_heads import OHEMRROIHeads

# Of look-alikes that overlap by a higher IoU, only the hardest is an example.
_SAME_THING = 0.3
# The costliest RoIs of all are those that hardly count as an object, or hardly do not: what they
# cost says nothing of the object. Examples are of RoIs that lie on one, or on none.
_ON_AN_OBJECT, _ON_NONE = 0.7, 0.3


@dataclass(frozen=True)
class HardExample:
    """
    The hardest RoI of an object that the model gets wrong, or of what it takes for an object.

    Boxes are XYXY in pixels of the image file.
    """

    # One of `KINDS`, but for "right class".
    kind: str
    # What the RoI costs: classification and box together, as in training.
    loss: float
    # The RoI itself.
    box: tuple[float, float, float, float]
    # Numbers of classes; None: background.
    true_class: int | None
    predicted_class: int | None
    # How probable the model finds the predicted class, or background.
    score: float
    # The object that the RoI overlaps most, by which IoU; None and 0: it overlaps none.
    true_box: tuple[float, float, float, float] | None
    iou: float


def build_mapper(cfg: CfgNode) -> DatasetMapper:
    """
    Build what prepares an image and its ground truth for `find_hard_examples`: at test size.

    Args:
        cfg: the config of the model.
    """
    augmentations = build_augmentation(cfg, is_train=False)
    boxes_alone = {"use_instance_mask": False, "use_keypoint": False}
    return DatasetMapper(cfg, is_train=True, augmentations=augmentations, **boxes_alone)


def check_model(model: nn.Module) -> None:
    """
    Make sure that `find_hard_examples` knows how a model works.

    Raises:
        InputError: it has no mining heads, or rotated boxes.
    """
    heads = getattr(model, "roi_heads", None)
    if not isinstance(heads, OHEMMixin):
        raise InputError(
            f"MODEL.ROI_HEADS.NAME is that of {type(heads).__name__}, expected a head that mines, "
            "such as OHEMROIHeads, which takes the weights of StandardROIHeads"
        )
    if isinstance(heads, OHEMRROIHeads):
        raise InputError("MODEL.ROI_HEADS.NAME is OHEMRROIHeads, expected heads of upright boxes")


@torch.no_grad()
def find_hard_examples(model: nn.Module, x: dict) -> list[HardExample]:
    """
    Mine one image, as a training step would, and tell what the model gets wrong.

    Args:
        model: a two-stage model with a mining head, see `check_model`.
        x: what the mapper of `build_mapper` returns.

    Returns:
        one example of each object and of each place that is taken for one, hardest first: of RoIs
        that overlap an object by an IoU of 0.7 or more, or all of them by less than 0.3. What the
        model is only not sure of, with the right class, is none.
    """
    heads = model.roi_heads
    targets = [x["instances"].to(model.device)]
    with _as_in_training(model), EventStorage():
        images = model.preprocess_image([x])
        features = model.backbone(images.tensor)
        if model.proposal_generator is None:
            proposals = [x["proposals"].to(model.device)]
        else:
            proposals, _ = model.proposal_generator(images, features, targets)
        mined = heads._select(*heads.label_and_rank_proposals(features, proposals, targets))
        kinds = kinds_of_rois(mined[0], heads.num_classes)
        ious = pairwise_iou(mined[0].proposal_boxes, targets[0].gt_boxes)
        chosen = _one_of_each(mined[0], kinds, ious, heads.num_classes)
        mined, kinds = [mined[0][chosen]], kinds[chosen]
        predictor, predictions = heads.read_boxes(features, mined)
        scores = predictor.predict_probs(predictions, mined)[0][:, : heads.num_classes]
    height, width = x["instances"].image_size
    to_file = torch.tensor([x["width"] / width, x["height"] / height] * 2)
    return list(_examples(mined[0].to("cpu"), kinds, scores, x["instances"].gt_boxes, to_file))


@contextmanager
def _as_in_training(model: nn.Module) -> Iterator[None]:
    """The model as at test time, but for the number of its proposals."""
    was_training = model.training
    model.eval()
    if model.proposal_generator is not None:
        model.proposal_generator.train()
    try:
        yield
    finally:
        model.train(was_training)


def _one_of_each(mined: Instances, kinds: Tensor, ious: Tensor, num_classes: int) -> Tensor:
    """Indices of the hardest RoI of each object, and of each place without one."""
    is_object = mined.gt_classes < num_classes
    best = ious.max(dim=1).values if ious.shape[1] else ious.new_zeros(len(mined))
    is_clear = torch.where(is_object, best >= _ON_AN_OBJECT, best < _ON_NONE)
    is_mistake = is_clear & (kinds != KINDS.index("right class"))
    # RoIs come by falling loss, so that the first is the hardest.
    order = torch.arange(len(mined), 0, -1, device=kinds.device).float()
    places = (is_mistake & ~is_object).nonzero()[:, 0]
    hardest = nms(mined.proposal_boxes.tensor[places], order[places], _SAME_THING)
    of_places = places[hardest].tolist()
    of_objects = {}
    for i in (is_mistake & is_object).nonzero()[:, 0].tolist():
        of_objects.setdefault(int(mined.gt_index[i]), i)
    chosen = sorted([*of_places, *of_objects.values()])
    return torch.tensor(chosen, dtype=torch.int64, device=kinds.device)


def _examples(
    mined: Instances, kinds: Tensor, scores: Tensor, objects: Boxes, to_file: Tensor
) -> Iterator[HardExample]:
    """
    Args:
        mined: R RoIs.
        kinds: (R,) what they are.
        scores: (R, K) how probable each class is.
        objects: the boxes of all objects of the image.
        to_file: (4,) from pixels of the image as the model sees it to those of its file.
    """
    num_classes = scores.shape[1]
    ious = pairwise_iou(mined.proposal_boxes, objects)
    losses = mined.ohem_loss_cls + mined.ohem_loss_box_reg

    def in_file(boxes: Tensor) -> tuple[float, ...]:
        return tuple((boxes * to_file).tolist())

    for i, kind in enumerate(kinds.tolist()):
        label, predicted = int(mined.gt_classes[i]), int(mined.ohem_pred_classes[i])
        is_bg = predicted == num_classes
        best = int(ious[i].argmax()) if len(objects) and ious[i].max() > 0 else None
        yield HardExample(
            kind=KINDS[kind],
            loss=float(losses[i]),
            box=in_file(mined.proposal_boxes.tensor[i]),
            true_class=label if label < num_classes else None,
            predicted_class=None if is_bg else predicted,
            score=float(1 - scores[i].max() if is_bg else scores[i, predicted]),
            true_box=None if best is None else in_file(objects.tensor[best]),
            iou=0.0 if best is None else float(ious[i, best]),
        )


def as_coco(
    found: Sequence[tuple[dict, list[HardExample]]],
    crops: Sequence[Sequence[str]],
    dataset_name: str,
) -> dict:
    """
    Turn hard examples into COCO's format, each an annotation with fields of its own.

    Args:
        found: for each image, its record in Detectron2's catalog and its examples.
        crops: for each image, a file for each of its examples that shows it.
        dataset_name: the registered data set.

    Returns:
        what a JSON file of COCO's has. An annotation has the box of the RoI, the class of the
        object or, for a look-alike, that for which it is taken; and ``kind``, ``loss``, ``score``,
        ``iou``, ``predicted_category_id`` (null: background), ``is_object``, ``true_bbox`` and
        ``crop``.
        They are sorted by falling loss.
    """
    metadata = MetadataCatalog.get(dataset_name)
    names = metadata.thing_classes
    ids = metadata.get("thing_dataset_id_to_contiguous_id")
    ids = {v: k for k, v in ids.items()} if ids else {i: i + 1 for i in range(len(names))}
    annotations = []
    for number, ((_, of_image), its_crops) in enumerate(zip(found, crops), 1):
        for x, crop in zip(of_image, its_crops):
            category = x.predicted_class if x.true_class is None else x.true_class
            box, true_box = (_xywh(b) for b in (x.box, x.true_box))
            annotations.append(
                {
                    "image_id": number,
                    "category_id": ids[category],
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": 0,
                    "kind": x.kind,
                    "loss": x.loss,
                    "score": x.score,
                    "iou": x.iou,
                    "is_object": x.true_class is not None,
                    "predicted_category_id": ids.get(x.predicted_class),
                    "true_bbox": true_box,
                    "crop": crop,
                }
            )
    annotations.sort(key=lambda x: -x["loss"])
    keys = ("file_name", "height", "width")
    return {
        "info": {"description": f"hard examples of {dataset_name}"},
        "images": [
            {"id": number, **{k: r[k] for k in keys}, "original_id": r["image_id"]}
            for number, (r, _) in enumerate(found, 1)
        ],
        "categories": [{"id": ids[i], "name": name} for i, name in enumerate(names)],
        "annotations": [{"id": i, **x} for i, x in enumerate(annotations, 1)],
    }


def _xywh(box: tuple[float, float, float, float] | None) -> list[float] | None:
    return None if box is None else BoxMode.convert(list(box), BoxMode.XYXY_ABS, BoxMode.XYWH_ABS)
