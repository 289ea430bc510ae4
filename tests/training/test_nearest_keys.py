import pytest

from ohem_d2.training.config_file import CONFIGS, load_config
from ohem_d2.training.key_checks import all_keys
from ohem_d2.training.nearest_keys import hint, nearest_key


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("MODEL.OHEM.HARD_FRACTION", "MODEL.ROI_HEADS.OHEM.HARD_FRACTION"),
        ("MODEL.OHEM", "MODEL.ROI_HEADS.OHEM"),
        ("HARD_FRACTION", "MODEL.ROI_HEADS.OHEM.HARD_FRACTION"),
        ("ROI_HEADS.NAME", "MODEL.ROI_HEADS.NAME"),
        ("IMS_PER_BATCH", "SOLVER.IMS_PER_BATCH"),
        ("SOLVER.BASELR", "SOLVER.BASE_LR"),
        ("solver.base_lr", "SOLVER.BASE_LR"),
        ("MODEL.DEVIC", "MODEL.DEVICE"),
        ("MODEL.OHEM.FRACTION", "MODEL.ROI_HEADS.OHEM.HARD_FRACTION"),
        ("MODEL.BASE_LR", "SOLVER.BASE_LR"),
        ("EPOCHS", None),
        ("DATALOADER.RANDOM_SUBSET_RATIO", None),
        ("MODEL.RPN.POST_NMS_TOP_N", "MODEL.RPN.POST_NMS_TOPK_TRAIN"),
        ("WANDB.PROJECT", None),
    ],
)
def test_the_key_that_was_meant(key, expected):
    known = list(all_keys(load_config(str(CONFIGS / "quick_start.yaml"))))
    assert nearest_key(key, known) == expected
    assert hint(key, known) == (f", the nearest is {expected}" if expected else "")
