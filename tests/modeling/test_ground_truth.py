"""What the RoIs are labelled with, and images that have nothing to label them with."""

import pytest
import torch
from detectron2.structures import Boxes, pairwise_iou
from mined_rois import BACKGROUND, assert_mined, mine_slowly, set_options
from small_heads import make_batch, make_heads, train_step


def test_background_below_the_lower_bound_is_not_drawn():
    lo = "MODEL.ROI_HEADS.OHEM.BG_IOU_LO", 0.1
    heads = make_heads(*lo, "MODEL.ROI_HEADS.OHEM.HARD_FRACTION", 0.5)
    heads.batch_size_per_image = 100
    batch = make_batch(0, [(3, 40)])
    chosen, _, _ = train_step(heads, *batch)
    iou = pairwise_iou(chosen[0].proposal_boxes, batch[2][0].gt_boxes).max(dim=1).values
    assert len(iou) > 0
    assert iou.min() >= 0.1


@pytest.mark.parametrize("append_gt", [True, False])
def test_masks_and_keypoints_follow_the_selected_rois(append_gt):
    heads = make_heads("MODEL.ROI_HEADS.PROPOSAL_APPEND_GT", append_gt, masks=True, keypoints=True)
    batch = make_batch(5, [(3, 40), (2, 40)], masks=True, keypoints=True)
    mined, losses, _ = train_step(heads, *batch)
    assert_mined(mined, mine_slowly(heads, *batch), batch[2])
    assert set(losses) == {"loss_cls", "loss_box_reg", "loss_mask", "loss_keypoint"}
    assert all(x.has("gt_masks") and x.has("gt_keypoints") for x in mined)
    assert not any(x.has("gt_index") for x in mined)


def test_ground_truth_is_indexed_for_the_selected_rois_only(monkeypatch):
    indexed = []
    batch = make_batch(5, [(3, 300)], masks=True)
    masks = type(batch[2][0].gt_masks)
    getitem = masks.__getitem__

    def spy(self, item):
        result = getitem(self, item)
        indexed.append(len(result))
        return result

    monkeypatch.setattr(masks, "__getitem__", spy)
    mined, _, _ = train_step(make_heads(masks=True), *batch)
    assert len(mined[0]) == 8
    assert max(indexed) <= 8


@pytest.mark.parametrize("append_gt", [True, False])
@pytest.mark.parametrize(
    "sizes", [[(0, 20)], [(0, 20), (2, 20)], [(2, 0)], [(0, 0)], [(0, 0), (0, 0)]]
)
def test_images_without_objects_or_proposals(append_gt, sizes):
    heads = make_heads("MODEL.ROI_HEADS.PROPOSAL_APPEND_GT", append_gt, masks=True, keypoints=True)
    batch = make_batch(1, sizes, masks=True, keypoints=True)
    mined, losses, _ = train_step(heads, *batch)
    assert_mined(mined, mine_slowly(heads, *batch), batch[2])
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    set_options(heads, hard_fraction=0.5)
    chosen, losses, _ = train_step(heads, *batch)
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    heads.batch_size_per_image = 4
    for x, rois, targets in zip(chosen, mine_slowly(heads, *batch), batch[2]):
        assert_mined([x[: len(rois)]], [rois], [targets])


def test_only_ignored_rois():
    """With the labels (0, -1, 1) a RoI between the thresholds is neither trained on nor ranked."""
    heads = make_heads(
        "MODEL.ROI_HEADS.IOU_THRESHOLDS",
        [0.01, 0.99],
        "MODEL.ROI_HEADS.IOU_LABELS",
        [0, -1, 1],
        "MODEL.ROI_HEADS.PROPOSAL_APPEND_GT",
        False,
    )
    features, proposals, targets = make_batch(1, [(1, 3)])
    box = targets[0].gt_boxes.tensor
    proposals[0].proposal_boxes = Boxes((box + torch.tensor([0, 0, -1.0, 0])).repeat(3, 1))
    mined, losses, _ = train_step(heads, features, proposals, targets)
    assert len(mined[0]) == 0
    sum(losses.values()).backward()
    set_options(heads, hard_fraction=0.5)
    chosen, _, _ = train_step(heads, features, proposals, targets)
    assert len(chosen[0]) == 0


def test_background_below_the_lower_bound_is_left_out():
    heads = make_heads("MODEL.ROI_HEADS.OHEM.BG_IOU_LO", 0.1)
    features, proposals, targets = make_batch(1, [(1, 3), (0, 5)])
    x0, y0, x1, y1 = targets[0].gt_boxes.tensor[0].tolist()
    far, near = [x1 + 1, y1 + 1, x1 + 9, y1 + 9], [x0, y0, x1, y0 + 0.3 * (y1 - y0)]
    proposals[0].proposal_boxes = Boxes(torch.tensor([far, near, [x0, y0, x1, y1]]))
    mined, _, _ = train_step(heads, features, proposals, targets)
    assert sorted(mined[0].gt_classes.tolist())[-1] == BACKGROUND
    background = mined[0][mined[0].gt_classes == BACKGROUND]
    torch.testing.assert_close(background.proposal_boxes.tensor, torch.tensor([near]))
    assert len(mined[1]) == 5  # an image without objects is all background, as in Detectron2
