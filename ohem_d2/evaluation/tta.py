"""Test-time augmentation that knows precomputed proposals and box voting."""

import torch
from detectron2.config import CfgNode
from detectron2.data.transforms import ResizeTransform
from detectron2.modeling import DatasetMapperTTA, GeneralizedRCNNWithTTA
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn

from ..config import box_voting_options
from ..modeling.box_voting import vote


class TTA(GeneralizedRCNNWithTTA):
    """
    Detectron2's `GeneralizedRCNNWithTTA`, for models with precomputed proposals as well.

    With box voting, each augmented image is detected with it, and those of all images vote once
    more.
    """

    def __init__(self, cfg: CfgNode, model: nn.Module) -> None:
        """
        Args:
            cfg: the config of the model.
            model: a GeneralizedRCNN.
        """
        self._options = box_voting_options(cfg)
        mapper = _ProposalMapperTTA(cfg) if cfg.MODEL.LOAD_PROPOSALS else None
        cfg = cfg.clone()
        cfg.defrost()
        cfg.MODEL.LOAD_PROPOSALS = False  # which Detectron2 refuses, since its mapper leaves them
        if self._options.rounds:
            cfg.MODEL.ROI_HEADS.NMS_THRESH_TEST = self._options.nms_thresh
        super().__init__(cfg, model, mapper)

    def _merge_detections(
        self, all_boxes: Tensor, all_scores: list, all_classes: list, shape_hw: tuple[int, int]
    ) -> Instances:
        merged = super()._merge_detections(all_boxes, all_scores, all_classes, shape_hw)
        if self._options.rounds and len(merged):
            found = Instances(
                shape_hw,
                pred_boxes=Boxes(all_boxes),
                scores=torch.stack(all_scores),
                pred_classes=torch.stack(all_classes),
            )
            merged.pred_boxes = vote(merged, found, self._options.vote_thresh)
        return merged


class _ProposalMapperTTA(DatasetMapperTTA):
    """Gives each augmented image the proposals that belong to it."""

    def __call__(self, dataset_dict: dict) -> list[dict]:
        proposals = dataset_dict["proposals"]
        to_original = ResizeTransform(
            *proposals.image_size, dataset_dict["height"], dataset_dict["width"]
        )
        boxes = to_original.apply_box(proposals.proposal_boxes.tensor.numpy())
        augmented = super().__call__(dataset_dict)
        for x in augmented:
            moved = proposals.proposal_boxes.tensor.new_tensor(x["transforms"].apply_box(boxes))
            x["proposals"] = Instances(
                tuple(x["image"].shape[1:]),
                proposal_boxes=Boxes(moved),
                objectness_logits=proposals.objectness_logits,
            )
        return augmented
