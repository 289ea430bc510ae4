import torch
from detectron2.structures import Instances

from ohem_d2.mining.error_types import ERROR_TYPES, error_types


def test_each_kind():
    background = 3
    rows = [
        # label, taken for, classification loss, box loss
        (1, background, 2.0, 9.0, "missed object"),
        (background, 2, 2.0, 0.0, "look-alike"),
        (1, 2, 2.0, 9.0, "confused class"),
        (1, 1, 0.5, 0.6, "badly placed box"),
        (1, 1, 0.5, 0.4, "right class"),
        (background, background, 0.5, 0.0, "right class"),
    ]
    labels, predicted, cls, box, names = zip(*rows)
    mined = Instances(
        (10, 10),
        gt_classes=torch.tensor(labels),
        ohem_pred_classes=torch.tensor(predicted),
        ohem_loss_cls=torch.tensor(cls),
        ohem_loss_box_reg=torch.tensor(box),
    )
    kinds = error_types(mined, num_classes=3)
    assert [ERROR_TYPES[k] for k in kinds] == list(names)
    assert set(names) == set(ERROR_TYPES)
