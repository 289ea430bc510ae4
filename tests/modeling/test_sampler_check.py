"""What a sampler of the user's own may not do, or hardly means to do."""

import logging
import sys

import pytest
import torch
from small_heads import FAMILIES, make_batch, make_heads, rotated, train_step
from torch import nn

from ohem_d2 import OHEMOptions, Selection
from ohem_d2.errors import InputError
from ohem_d2.modeling.build_sampler import build_sampler
from ohem_d2.modeling.metrics import PERIOD

BATCH = make_batch(2, [(3, 40), (1, 20)])
HERE = __name__


def some():
    return Selection(torch.arange(4))


def fills_labels(candidates, num_samples):
    candidates.labels.fill_(0)
    return some()


def scales_losses(candidates, num_samples):
    candidates.loss_cls.mul_(0)
    candidates.loss_box_reg.add_(1)
    return some()


def goes_by_numpy(candidates, num_samples):
    candidates.loss_cls.numpy()[:] = 0
    return some()


def sets_another(candidates, num_samples):
    candidates.boxes = candidates.boxes[:3]
    return some()


def changes_scores(candidates, num_samples):
    candidates.pred_scores.zero_()
    return some()


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(
    ("sampler", "changed"),
    [
        (fills_labels, "labels"),
        (scales_losses, "loss_cls, loss_box_reg"),
        (goes_by_numpy, "loss_cls"),
        (sets_another, "boxes"),
        (changes_scores, "pred_scores"),
    ],
    ids=lambda x: getattr(x, "__name__", ""),
)
def test_candidates_are_not_to_be_changed(name, sampler, changed):
    heads = make_heads(name=name)
    heads.sampler = sampler
    batch = make_batch(2, [(3, 40), (1, 20)])
    error = f"the sampler {sampler.__name__} changed {changed} of the candidates, which"
    with pytest.raises(InputError, match=error):
        train_step(heads, *(rotated(batch, 0) if name == "OHEMRROIHeads" else batch))


def reads_all(candidates, num_samples):
    losses = candidates.loss_cls.clone().mul_(2) + candidates.pred_ious + candidates.pred_scores
    return Selection(losses.argsort(descending=True)[:num_samples])


def test_a_sampler_may_change_copies_and_read_what_is_computed(caplog):
    heads = make_heads()
    heads.sampler = reads_all
    train_step(heads, *BATCH)
    assert caplog.text == ""


def test_candidates_are_copied_in_few_steps(monkeypatch):
    heads, copies = make_heads(), []
    clone = torch.Tensor.clone
    monkeypatch.setattr(torch.Tensor, "clone", lambda x: copies.append(1) or clone(x))
    numbers = []
    for _ in range(3):
        copies.clear()
        train_step(heads, *BATCH)
        numbers.append(len(copies))
    assert numbers[0] > numbers[1] == numbers[2]


def ends(candidates, num_samples):
    sys.exit(0)


@pytest.mark.parametrize("steps", [0, 1])
def test_a_sampler_that_ends_the_program(steps):
    heads = make_heads()
    for _ in range(steps):
        train_step(heads, *BATCH)
    heads.sampler = ends
    with pytest.raises(InputError, match=r"sampler ends ended the program \(SystemExit: 0\), exp"):
        train_step(heads, *BATCH)


def nothing(candidates, num_samples):
    return Selection(torch.arange(0))


def weight_0(candidates, num_samples):
    return Selection(torch.arange(4), torch.zeros(4))


def weight_0_for_most(candidates, num_samples):
    return Selection(torch.arange(4), torch.tensor([0.0, 0.0, 0.0, 1.0]))


def one_again_and_again(candidates, num_samples):
    return Selection(torch.zeros(4, dtype=torch.int64))


@pytest.mark.parametrize(
    ("sampler", "words"),
    [
        (one_again_and_again, "one_again_and_again chose some RoIs of a step more than once"),
        (nothing, "OHEM.SAMPLER: the sampler nothing chose none of the RoIs of a step"),
        (weight_0, "the sampler weight_0 gave all RoIs of a step the weight 0"),
        (weight_0_for_most, None),
    ],
)
def test_a_step_that_trains_on_nothing_is_told_once(caplog, sampler, words):
    heads = make_heads()
    heads.sampler = sampler
    for seed in range(PERIOD + 1):
        train_step(heads, *make_batch(seed, [(3, 40 + seed)]))
    told = [x for x in caplog.messages if "the sampler" in x]
    assert len(told) == (words is not None)
    if words:
        assert words in told[0]


def test_without_candidates_nothing_can_be_chosen(caplog):
    heads = make_heads()
    heads.sampler = nothing
    train_step(heads, *make_batch(0, [(0, 0)]))
    assert caplog.text == ""


class Learned(nn.Module):
    def __init__(self, frozen=False):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(2), requires_grad=not frozen)

    def forward(self, candidates, num_samples):
        return some()


@pytest.mark.parametrize("frozen", [True, False])
def test_parameters_that_nothing_trains(caplog, frozen):
    with caplog.at_level(logging.WARNING):
        build_sampler(OHEMOptions(sampler=f"{HERE}.Learned(frozen={frozen})"), 0.25)
    is_told = "Learned(frozen=False)', which has parameters (scale) that are not" in caplog.text
    assert is_told != frozen


class Raises:
    def __init__(self, error="KeyError('bins')"):
        raise {"KeyError": KeyError("bins"), "SystemExit": SystemExit(0)}[error]

    def __call__(self, candidates, num_samples):
        return some()


@pytest.mark.parametrize("error", ["KeyError", "SystemExit"])
def test_whatever_ends_its_constructor(error):
    sampler = f"{HERE}.Raises(error='{error}')"
    with pytest.raises(InputError, match=f"OHEM.SAMPLER is .*, which cannot be built: {error}: "):
        build_sampler(OHEMOptions(sampler=sampler), 0.25)


@pytest.mark.parametrize("line", ["import sys; sys.exit(0)", "1 / 0", "raise KeyError(1)"])
def test_whatever_ends_its_module(tmp_path, monkeypatch, line):
    monkeypatch.syspath_prepend(tmp_path)
    name = f"module_of_samplers_{abs(hash(line))}"
    (tmp_path / f"{name}.py").write_text(f"{line}\n")
    error = (
        r"OHEM.SAMPLER is .*, which cannot be imported \((SystemExit|ZeroDiv|KeyError).* in "
        rf".*{name}.py, line 1: "
    )
    with pytest.raises(InputError, match=error):
        build_sampler(OHEMOptions(sampler=f"{name}.Mine"), 0.25)
