"""What a checkpoint has to hold so that a training goes on from it."""

import copy
import math
import random

import pytest
import torch
from detectron2.engine import SimpleTrainer, hooks
from detectron2.solver import LRMultiplier
from fvcore.common.param_scheduler import ConstantParamScheduler
from torch import nn
from torch.optim import SGD, Adadelta, Adafactor, Adam, AdamW, NAdam, RMSprop

from ohem_d2.errors import InputError
from ohem_d2.training.checkpoint import WholeCheckpointer
from ohem_d2.training.data_loader import ResumableLoader
from ohem_d2.training.interruption import ResumeHook
from ohem_d2.training.resume_checks import check_training_state

STEPS, MOST = 2, 5


class Model(nn.Module):
    """With a part that no loss depends on."""

    def __init__(self):
        super().__init__()
        self.used = nn.Linear(3, 2)
        self.unused = nn.Linear(2, 2)

    def forward(self, x):
        return {"loss": self.used(x).square().mean()}


class Plain(hooks.PeriodicCheckpointer):
    """Detectron2's, in place of the project's hook."""


def momentum(params):
    return SGD(params, lr=0.1, momentum=0.9, weight_decay=1e-4)


def build(folder, optimizer=momentum, hook=ResumeHook):
    """A trainer of a small model, with two groups of parameters, and its checkpointer."""
    torch.manual_seed(0)
    model = Model()
    built = optimizer([{"params": [p]} for p in model.used.parameters()]
                      + [{"params": list(model.unused.parameters())}])  # fmt: skip
    loader = ResumableLoader([torch.ones(1, 3) for _ in range(MOST)])
    trainer = SimpleTrainer(model, loader, built)
    trainer.max_iter = MOST
    checkpointer = WholeCheckpointer(model, str(folder), trainer=trainer)
    scheduler = LRMultiplier(built, ConstantParamScheduler(1.0), MOST + 1)
    trainer.register_hooks([hooks.LRScheduler(scheduler=scheduler), hook(checkpointer, 1)])
    return trainer, checkpointer


def train(folder, **kwargs):
    trainer, _ = build(folder, **kwargs)
    trainer.train(0, STEPS)
    return folder / "model_0000001.pth"


def resume(folder, **kwargs):
    trainer, checkpointer = build(folder, **kwargs)
    checkpointer.resume_or_load("", resume=True)
    trainer.train(trainer.iter + 1, MOST)
    return trainer.start_iter


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """What a checkpoint holds."""
    return torch.load(train(tmp_path_factory.mktemp("trained")), weights_only=False)


def optimizer(checkpoint):
    return checkpoint["trainer"]["optimizer"]


def group(checkpoint):
    return optimizer(checkpoint)["param_groups"][0]


def scheduler(checkpoint):
    return checkpoint["trainer"]["hooks"]["LRScheduler"]


def process(checkpoint):
    return checkpoint["trainer"]["hooks"]["ResumeHook"]["processes"][0]


def iterations(value):
    return lambda c: c["trainer"].update(iteration=value)


def buffers(value):
    return lambda c: optimizer(c)["state"][0].update(momentum_buffer=value)


NUMBER = "expected a number of 0 or more"
COUNT = "expected an integer of 0 or more"
WRONG = {
    "weights alone": (lambda c: c.pop("trainer"), "has no 'trainer', expected a checkpoint of a"),
    "a list": (lambda c: c.update(trainer=[1]), "trainer is a list, expected a mapping"),
    "a text": (iterations("1"), f"trainer.iteration is '1', {COUNT}"),
    "negative": (iterations(-5), f"trainer.iteration is -5, {COUNT}"),
    "NaN": (iterations(math.nan), f"trainer.iteration is nan, {COUNT}"),
    "a fraction": (iterations(1.5), f"trainer.iteration is 1.5, {COUNT}"),
    "a bool": (iterations(True), f"trainer.iteration is True, {COUNT}"),
    "a tensor": (iterations(torch.tensor(1)), f"trainer.iteration is a Tensor, {COUNT}"),
    "none": (lambda c: c["trainer"].pop("iteration"), "there is no trainer.iteration, expected"),
    "beyond": (iterations(10**9), "expected less than train.max_iter, which is 5"),
    "beside it": (lambda c: c.update(iteration="x"), f"iteration is 'x', {COUNT}"),
    "no optimizer": (lambda c: c["trainer"].pop("optimizer"), "there is no trainer.optimizer"),
    "of a YAML config": (
        lambda c: c["trainer"].update(_trainer={"optimizer": c["trainer"].pop("optimizer")}),
        "is of a training by a YAML config, expected one by a Python config, as this is",
    ),
    "an optimizer of nothing": (
        lambda c: c["trainer"].update(optimizer={}),
        "there is no trainer.optimizer.param_groups",
    ),
    "fewer groups": (
        lambda c: optimizer(c)["param_groups"].pop(),
        "param_groups is of length 2, expected 3 of them",
    ),
    "fewer parameters": (
        lambda c: optimizer(c)["param_groups"][2]["params"].pop(),
        r"param_groups\[2\].params is of length 1, expected 2",
    ),
    "another model": (
        lambda c: (c["model"].popitem(), optimizer(c)["param_groups"].pop()),
        ": .* Expected the checkpoint of a model with the same config",
    ),
    "lr NaN": (lambda c: group(c).update(lr=math.nan), f"lr is nan, {NUMBER}"),
    "lr negative": (lambda c: group(c).update(lr=-0.1), f"lr is -0.1, {NUMBER}"),
    "lr a text": (lambda c: group(c).update(lr="0.1"), f"lr is '0.1', {NUMBER}"),
    "no lr": (lambda c: group(c).pop("lr"), "there is no .*lr"),
    "momentum infinite": (lambda c: group(c).update(momentum=math.inf), f"inf, {NUMBER}"),
    "nesterov a text": (lambda c: group(c).update(nesterov="no"), "expected True or False"),
    "no buffers": (
        lambda c: optimizer(c).update(state={}),
        "optimizer.state has no parameter, expected momentum_buffer of each, as SGD has",
    ),
    "a state of a list": (lambda c: optimizer(c).update(state=[1]), "state is a list"),
    "of no parameter": (
        lambda c: optimizer(c)["state"].update({99: {}}),
        r"state\[99\] is of no parameter",
    ),
    "Adam's": (
        lambda c: optimizer(c)["state"].update({0: {"exp_avg": torch.zeros(2, 3)}}),
        r"state\[0\] has no momentum_buffer, expected one, as SGD has",
    ),
    "of another shape": (
        buffers(torch.zeros(3)),
        r"momentum_buffer is of shape \(3,\), expected the shape \(2, 3\)",
    ),
    "a buffer NaN": (buffers(torch.full((2, 3), math.nan)), "numbers that are NaN or infinite"),
    "a buffer of integers": (
        buffers(torch.zeros(2, 3, dtype=torch.int64)),
        "of torch.int64, expected floating-point numbers",
    ),
    "a buffer of text": (buffers("x"), "momentum_buffer is 'x', expected a tensor"),
    "no scheduler": (
        lambda c: c["trainer"]["hooks"].pop("LRScheduler"),
        "there is no trainer.hooks.LRScheduler",
    ),
    "no hooks": (lambda c: c["trainer"].pop("hooks"), "there is no trainer.hooks"),
    "a scheduler of a list": (
        lambda c: c["trainer"]["hooks"].update(LRScheduler=[1]),
        "LRScheduler is a list, expected a mapping",
    ),
    "last_epoch NaN": (lambda c: scheduler(c).update(last_epoch=math.nan), f"is nan, {COUNT}"),
    "last_epoch of another step": (
        lambda c: scheduler(c).update(last_epoch=7),
        "last_epoch is 7, expected 2, one more than the iteration",
    ),
    "one of base_lrs": (
        lambda c: scheduler(c).update(base_lrs=[0.1]),
        "base_lrs is of length 1, expected 3 of them",
    ),
    "base_lrs NaN": (
        lambda c: scheduler(c).update(base_lrs=[0.1, math.nan, 0.1]),
        rf"base_lrs\[1\] is nan, {NUMBER}",
    ),
    "processes of text": (
        lambda c: c["trainer"]["hooks"].update(ResumeHook={"processes": "x"}),
        "ResumeHook.processes is 'x', expected a list",
    ),
    "no process": (
        lambda c: c["trainer"]["hooks"].update(ResumeHook={"processes": []}),
        "processes is empty, expected one entry for each process",
    ),
    "normalizers of a list": (
        lambda c: process(c).update(normalizers=[1]),
        r"processes\[0\].normalizers is a list, expected a mapping",
    ),
    "a normalizer of text": (
        lambda c: process(c).update(normalizers={"": "x"}),
        f"is 'x', {NUMBER}",
    ),
    "what heads found out as a list": (
        lambda c: process(c).update(found_out=[1]),
        r"found_out is a list, expected a mapping of heads to calls_hooks, rois_see_each_other",
    ),
    "what heads found out, in part": (
        lambda c: process(c).update(found_out={"": {"calls_hooks": True}}),
        r"processes\[0\].found_out is .*, expected a mapping of heads to calls_hooks, rois_see",
    ),
    "random states of bytes": (
        lambda c: process(c)["random"].update(torch=b"x"),
        r"processes\[0\].random is something else, expected the random states",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_an_entry_that_is_wrong_is_named(tmp_path, trained, name):
    spoil, words = WRONG[name]
    checkpoint = copy.deepcopy(trained)
    spoil(checkpoint)
    (tmp_path / "last_checkpoint").write_text("model_0000001.pth")
    torch.save(checkpoint, tmp_path / "model_0000001.pth")
    before = random.getstate()
    with pytest.raises(InputError, match=rf"model_0000001.pth'.*{words}") as e:
        resume(tmp_path)
    assert "\n" not in str(e.value)
    assert random.getstate() == before


OPTIMIZERS = {
    "momentum": momentum,
    "SGD without momentum": lambda p: SGD(p, lr=0.1),
    "Adam": lambda p: Adam(p, lr=0.1, amsgrad=True),
    "AdamW": lambda p: AdamW(p, lr=0.1),
    "NAdam": lambda p: NAdam(p, lr=0.1),
    "RMSprop": lambda p: RMSprop(p, lr=0.1, momentum=0.9, centered=True),
    "Adadelta": Adadelta,
    "Adafactor": Adafactor,
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_optimizer_goes_on_from_its_own_state(tmp_path, name):
    train(tmp_path, optimizer=OPTIMIZERS[name])
    assert resume(tmp_path, optimizer=OPTIMIZERS[name]) == STEPS


@pytest.mark.parametrize(("one", "other"), [("momentum", "AdamW"), ("Adam", "RMSprop")])
def test_none_goes_on_from_that_of_another(tmp_path, one, other):
    train(tmp_path, optimizer=OPTIMIZERS[one])
    with pytest.raises(InputError, match="there is no .*, expected that of a training|has no "):
        resume(tmp_path, optimizer=OPTIMIZERS[other])


def test_a_part_that_is_not_trained_is_told(tmp_path, caplog):
    train(tmp_path)
    resume(tmp_path)
    assert "optimizer.state lacks 2 of 4 parameters" in caplog.text


def test_a_checkpoint_of_detectron2_is_taken(tmp_path, caplog):
    train(tmp_path, hook=Plain)
    assert resume(tmp_path) == STEPS
    assert "neither random states nor a place" in caplog.text


def test_the_check_changes_nothing(tmp_path, trained):
    trainer, _ = build(tmp_path)
    before = copy.deepcopy([trainer.optimizer.state_dict(), trainer.model.state_dict()])
    check_training_state("x.pth", trained, trainer)
    assert str([trainer.optimizer.state_dict(), trainer.model.state_dict()]) == str(before)
