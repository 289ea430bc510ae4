"""Test-time augmentation that knows precomputed proposals, box voting and valid ranges."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data.transforms import ResizeTransform
from detectron2.modeling import DatasetMapperTTA, GeneralizedRCNNWithTTA
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn

from ..config import BoxVotingOptions, box_voting_options
from ..modeling.box_voting import suppress, suppress_and_vote, vote
from ..modeling.valid_ranges import are_valid, ranges_of_scales, sizes_at, valid_ranges


class TTA(GeneralizedRCNNWithTTA):
    """
    Detectron2's `GeneralizedRCNNWithTTA`, for models with precomputed proposals as well.

    With box voting, each augmented image is detected with it, and those of all images vote once
    more. With valid ranges, detections that do not count at their scale are dropped before those of
    an image suppress each other.
    """

    def __init__(self, cfg: CfgNode, model: nn.Module) -> None:
        """
        Args:
            cfg: the config of the model.
            model: a GeneralizedRCNN.

        Raises:
            InputError: there are valid ranges, but none for a scale.
        """
        key = "TEST.AUG.MIN_SIZES"
        self._ranges = ranges_of_scales(valid_ranges(cfg), cfg.TEST.AUG.MIN_SIZES, key)
        self._options = box_voting_options(cfg)
        mapper = _ProposalMapperTTA(cfg) if cfg.MODEL.LOAD_PROPOSALS else None
        cfg = cfg.clone()
        cfg.defrost()
        cfg.MODEL.LOAD_PROPOSALS = False  # which Detectron2 refuses, since its mapper leaves them
        if self._options.rounds:
            cfg.MODEL.ROI_HEADS.NMS_THRESH_TEST = self._options.nms_thresh
        super().__init__(cfg, model, mapper)

    def _get_augmented_inputs(self, input: dict) -> tuple[list[dict], list]:
        inputs, transforms = super()._get_augmented_inputs(input)
        if self._ranges:
            for x, its_own in zip(inputs, transforms):
                x["valid_sizes"] = sizes_at(self._ranges, self.cfg.TEST.AUG.MAX_SIZE, its_own)
        return inputs, transforms

    def _batch_inference(
        self, batched_inputs: list[dict], detected_instances: list[Instances] | None = None
    ) -> list[Instances]:
        if detected_instances is not None or not self._ranges:
            return super()._batch_inference(batched_inputs, detected_instances)
        # Suppressed, and voted on, is only what counts: the others would suppress some of it.
        heads = self.model.roi_heads
        is_cascade = isinstance(heads.box_predictor, nn.ModuleList)
        last = heads.box_predictor[-1] if is_cascade else heads.box_predictor
        nms_thresh, topk = last.test_nms_thresh, last.test_topk_per_image
        voting = getattr(heads, "box_voting", BoxVotingOptions())
        every = replace(voting, nms_thresh=1.0, vote_thresh=1.0)
        with (
            _changed(last, test_nms_thresh=1.0, test_topk_per_image=-1),
            _changed(heads, box_voting=every),
        ):
            found = super()._batch_inference(batched_inputs)
        count = [
            x[are_valid(x.pred_boxes, *given["valid_sizes"])]
            for x, given in zip(found, batched_inputs)
        ]
        if voting.rounds:
            return [suppress_and_vote(x, voting, topk) for x in count]
        return [suppress(x, nms_thresh, topk) for x in count]

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


@contextmanager
def _changed(module: nn.Module, **attributes: Any) -> Iterator[None]:
    """With other values of those of the attributes that it has."""
    before = {x: getattr(module, x) for x in attributes if hasattr(module, x)}
    try:
        for name in before:
            setattr(module, name, attributes[name])
        yield
    finally:
        for name, value in before.items():
            setattr(module, name, value)


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
