import numpy as np
import pytest
import torch
from detectron2.data import Metadata
from detectron2.structures import Boxes, Instances

from ohem_d2.mining.error_types import ERROR_TYPES
from ohem_d2.visualization import ERROR_COLORS, draw_mined


@pytest.fixture
def drawn():
    image = np.zeros((100, 120, 3), np.uint8)
    mined = Instances((100, 120))
    mined.proposal_boxes = Boxes(torch.tensor([[5.0, 5, 25, 25], [35, 5, 55, 25], [65, 5, 85, 25]]))
    mined.gt_classes = torch.tensor([0, 2, 1])
    mined.ohem_pred_classes = torch.tensor([2, 1, 1])
    mined.ohem_loss_cls = torch.tensor([1.0, 2.0, 0.5])
    mined.ohem_loss_box_reg = torch.tensor([1.0, 0.0, 0.7])
    targets = Instances((100, 120), gt_boxes=Boxes([[5.0, 5, 25, 25]]))
    targets.gt_classes = torch.tensor([0])
    metadata = Metadata(thing_classes=["dog", "cat"])
    return draw_mined(image, mined, targets, metadata, num_classes=2)


def test_truth_and_rois_side_by_side(drawn):
    _, width, channels = drawn.shape
    assert channels == 3
    assert drawn.dtype == np.uint8
    truth, rois = drawn[:, : width // 2], drawn[:, width // 2 :]
    assert truth[40:].any()
    assert rois[40:].any()


@pytest.mark.parametrize(
    ("column", "kind"), [(0, "missed object"), (1, "look-alike"), (2, "badly placed box")]
)
def test_coloured_by_kind(drawn, column, kind):
    height, width, _ = drawn.shape
    scale = width / 2 / 120
    caption = height - round(100 * scale)
    left = round(width / 2 + (5 + 30 * column) * scale)
    edge = drawn[caption + round(15 * scale), left - 3 : left + 4].astype(float)
    brightest = edge[edge.sum(axis=1).argmax()]
    color = np.array(ERROR_COLORS[ERROR_TYPES.index(kind)]) * 255
    cosine = brightest @ color / np.linalg.norm(brightest) / np.linalg.norm(color)
    assert cosine > 0.98
