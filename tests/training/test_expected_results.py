"""Results that are not as the config expects."""

import logging
import math
import sys

import pytest
from detectron2.evaluation import verify_results
from small_training import config, register_images

from ohem_d2.errors import InputError
from ohem_d2.training.config_file import CONFIGS, load_config
from ohem_d2.training.expected_results import named_expectations
from ohem_d2.training.trainer import Trainer

RESULTS = {"bbox": {"AP": 30.0, "AP50": math.nan}, "segm_TTA": {"AP": 20.0}}


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        ([["bbox", "AP", 31, 2.0]], None),
        (
            [["bbox", "AP", 38.5, 0.2]],
            "AP of bbox is 30.0000, expected 38.5 with a tolerance of 0.2",
        ),
        ([["bbox", "AP50", 38.5, 0.2]], "AP50 of bbox is nan, expected 38.5"),
        ([["bbox", "APx", 38.5, 0.2]], "APx of bbox is missing, expected"),
        (
            [["bbox", "AP", 30, 1], ["segm_TTA", "AP", 9, 1]],
            "AP of segm_TTA is 20.0000",
        ),
    ],
)
def test_results_that_are_missed(expected, message):
    cfg = load_config(str(CONFIGS / "quick_start.yaml"), ["TEST.EXPECTED_RESULTS", repr(expected)])
    if message is None:
        with named_expectations(cfg, lambda: RESULTS):
            assert verify_results(cfg, RESULTS)
        return
    message = f"^TEST.EXPECTED_RESULTS is not met: {message}"
    with pytest.raises(InputError, match=message), named_expectations(cfg, lambda: RESULTS):
        verify_results(cfg, RESULTS)
    assert not logging.getLogger("detectron2.evaluation.testing").disabled


def test_another_exit_is_left_alone():
    cfg = load_config(str(CONFIGS / "quick_start.yaml"), [])
    with pytest.raises(SystemExit), named_expectations(cfg, lambda: RESULTS):
        sys.exit(3)


def test_results_with_augmentation_count_after_a_training(tmp_path, monkeypatch):
    trainer = Trainer(config(tmp_path, register_images(tmp_path)))
    trainer._last_eval_results = {"bbox": {"AP": 1.0}}
    monkeypatch.setattr(trainer, "test_with_tta", lambda *_: {"bbox_TTA": {"AP": 2.0}})
    assert trainer._test_with_tta() == {"bbox_TTA": {"AP": 2.0}}
    assert list(trainer._last_eval_results) == ["bbox", "bbox_TTA"]
