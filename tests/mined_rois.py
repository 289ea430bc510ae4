"""Which RoIs to train on, worked out one RoI at a time, and helpers to compare heads with it."""

import copy

import reference
import torch
from detectron2.modeling.roi_heads import CascadeROIHeads, Res5ROIHeads
from detectron2.structures import Instances
from detectron2.utils.events import EventStorage
from small_heads import FAMILIES, NUM_CLASSES, SIZE, make_batch, make_heads, rotated

from ohem_d2 import GroundTruth, OHEMOptions
from ohem_d2.modeling.build_sampler import build_sampler
from ohem_d2.report import hard_examples

BACKGROUND = NUM_CLASSES


def read_one(heads, maps, boxes):
    """The first box predictor, and what it says of a single RoI."""
    if isinstance(heads, Res5ROIHeads):
        pooled = heads.pooler(maps, [boxes])
        return heads.box_predictor, heads.box_predictor(heads.res5(pooled).mean(dim=[2, 3]))
    pooled = heads.box_pooler(maps, [boxes])
    if isinstance(heads, CascadeROIHeads):
        return heads.box_predictor[0], heads.box_predictor[0](heads.box_head[0](pooled))
    return heads.box_predictor, heads.box_predictor(heads.box_head(pooled))


def mine_slowly(heads, features, proposals, targets, bg_iou_lo=0.0, cls=1.0, box=1.0, **how):
    """
    From raw proposals to the RoIs to train on, as the README words it, one RoI at a time.

    Returns a list for each image, of (box, label, number of its object or None).
    """
    rois = []
    for i, (p, t) in enumerate(zip(proposals, targets)):
        objects = t.gt_boxes.tensor.tolist()
        regions = t.ignore_regions.tensor.tolist() if isinstance(t, GroundTruth) else []
        valid = t.valid if isinstance(t, GroundTruth) else None
        invalid = valid.invalid_objects.tensor.tolist() if valid else []
        boxes = p.proposal_boxes.tensor.tolist() + (objects if heads.proposal_append_gt else [])
        for b in boxes:
            if valid and not reference.counts(b, valid.smallest, valid.largest):
                continue
            ious = [reference.iou(b, o) for o in objects]
            best = max(ious, default=0.0)
            if best >= 0.5:
                match = ious.index(best)
                rois.append((i, b, t.gt_classes[match].item(), match))
            elif any(reference.lies_in(b, region) for region in regions) or any(
                reference.iou(b, o) > 0.3 for o in invalid
            ):
                continue
            elif best >= bg_iou_lo or not objects:
                rois.append((i, b, BACKGROUND, None))

    costs = []
    for i, b, label, match in rois:
        structure = type(proposals[i].proposal_boxes)
        x = Instances((SIZE, SIZE), proposal_boxes=structure(torch.tensor([b])))
        x.gt_classes = torch.tensor([label])
        x.gt_boxes = x.proposal_boxes if match is None else targets[i].gt_boxes[match]
        maps = [features[f][i : i + 1] for f in heads.in_features]
        with torch.no_grad(), EventStorage():
            predictor, predictions = read_one(heads, maps, x.proposal_boxes)
            losses = predictor.losses(predictions, [x])
        costs.append((cls * losses["loss_cls"] + box * losses["loss_box_reg"]).item())

    selected = reference.select(
        costs,
        [b for _, b, _, _ in rois],
        [label for _, _, label, _ in rois],
        [i for i, _, _, _ in rois],
        num_samples=heads.batch_size_per_image,
        num_classes=NUM_CLASSES,
        num_images=len(proposals),
        **how,
    )
    return [[rois[k][1:] for k in selected if rois[k][0] == i] for i in range(len(proposals))]


def assert_mined(mined, expected, targets):
    assert len(mined) == len(expected)
    for x, rois, t in zip(mined, expected, targets):
        assert x.gt_classes.tolist() == [label for _, label, _ in rois]
        torch.testing.assert_close(
            x.proposal_boxes.tensor,
            torch.tensor([b for b, _, _ in rois]).reshape(x.proposal_boxes.tensor.shape),
        )
        for k, (_, _, match) in enumerate(rois):
            if match is not None:
                assert x.gt_boxes.tensor[k].equal(t.gt_boxes.tensor[match])
                for name in ("gt_masks", "gt_keypoints"):
                    if t.has(name):
                        mine, theirs = x.get(name)[[k]], t.get(name)[[match]]
                        if name == "gt_masks":
                            assert (mine.polygons[0][0] == theirs.polygons[0][0]).all()
                        else:
                            assert mine.tensor.equal(theirs.tensor)


def watch(heads):
    """A list of what is trained on in each step, which gets longer with each."""
    seen, choose = [], heads.label_and_sample_proposals

    def spy(*args):
        seen.append(choose(*args))
        return seen[-1]

    heads.label_and_sample_proposals = spy
    return seen


def make_family(name, seed, sizes, **kwargs):
    """The mining head, the head that it extends with the same weights, and a batch for both."""
    heads = make_heads(name=name, seed=seed, **kwargs)
    plain = make_heads(name=FAMILIES[name][0], **kwargs)
    plain.load_state_dict(heads.state_dict(), strict=True)
    fields = {k: v for k, v in kwargs.items() if k in ("masks", "keypoints")}
    batch = make_batch(seed, sizes, **fields)
    return heads, plain, rotated(batch, seed) if name == "OHEMRROIHeads" else batch


def extras(name):
    """The heads beside the box head that there are."""
    return {
        "OHEMRROIHeads": {},
        "OHEMRes5ROIHeads": {"masks": True},
    }.get(name, {"masks": True, "keypoints": True})


def copy_with_budget(heads, budget):
    other = copy.copy(heads)
    other.batch_size_per_image = budget
    return other


def set_options(heads, **options):
    """As if the heads had been built with these options of the mining."""
    heads.ohem = OHEMOptions(**options)
    heads.sampler = build_sampler(heads.ohem, heads.positive_fraction)


def spy_on_sampler(heads):
    """A list of what the sampler was given and what it chose, which gets longer with each call."""
    seen, sampler = [], heads.sampler

    def spy(candidates, num_samples):
        seen.append((candidates, sampler(candidates, num_samples)))
        return seen[-1][1]

    heads.sampler = spy
    return seen


def mine(heads, features, proposals, targets):
    """The hard examples of each image, with all of the budget."""
    with EventStorage():
        return hard_examples.mine(heads, features, proposals, targets)
