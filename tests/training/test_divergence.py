"""Trainings that diverge."""

import logging

import pytest
from detectron2.engine import TrainerBase

from ohem_d2.errors import InputError
from ohem_d2.training.divergence import watch_for_divergence


class Losses(TrainerBase):
    """Logs the given loss in each step; raises as Detectron2 does where it is an error."""

    def __init__(self, losses):
        super().__init__()
        self.losses = losses

    def run_step(self):
        loss = self.losses[self.iter]
        if isinstance(loss, Exception):
            raise loss
        self.storage.put_scalars(total_loss=loss)

    def run(self, rate=0.5):
        watch_for_divergence(self, "SOLVER.BASE_LR", rate)
        self.train(0, len(self.losses))


def test_a_loss_that_explodes_is_told_once(caplog):
    with caplog.at_level(logging.WARNING):
        Losses([10.0, 900.0, 2e5, 1e9]).run()
    assert caplog.messages == [
        "total_loss is 2e+05 in step 2: the training diverges, expected a lower SOLVER.BASE_LR, "
        "which is 0.5, or a longer warm-up"
    ]


def test_a_loss_that_falls(caplog):
    with caplog.at_level(logging.WARNING):
        Losses([5000.0, 20.0, 2.0]).run()
    assert not caplog.messages


@pytest.mark.parametrize(("rate", "found"), [(0.5, ", which is 0.5"), (None, "")])
def test_numbers_that_are_none(rate, found):
    error = FloatingPointError("Loss became infinite or NaN at iteration=1!\nloss_dict = {}.")
    message = rf"^the training diverged in step 1: Loss .*{{}}, expected a lower \S+BASE_LR{found},"
    with pytest.raises(InputError, match=message):
        Losses([1.0, error]).run(rate)


def test_the_first_step_is_left_to_others():
    with pytest.raises(FloatingPointError):
        Losses([FloatingPointError("NaN")]).run()
