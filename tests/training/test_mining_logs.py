"""Figures of the mining are brought together after a step; nothing waits for others within one."""

from datetime import timedelta

import pytest
import torch
from detectron2.engine import launch
from detectron2.engine.train_loop import TrainerBase
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from small_heads import make_batch, make_heads
from torch import nn
from torch.distributed.algorithms.join import Join

try:
    from torch.distributed.fsdp import fully_shard
except ImportError:  # before torch 2.6, which shares weights out on GPUs only
    fully_shard = None
from torch.nn.parallel import DistributedDataParallel

from ohem_d2.errors import InputError
from ohem_d2.modeling.metrics import PERIOD
from ohem_d2.training.mining_logs import MiningLogs

BATCH = [(3, 40), (2, 30)]


class Steps(TrainerBase):
    """As a trainer, for hooks."""

    def __init__(self, model, max_iter):
        super().__init__()
        self.model, self.start_iter, self.max_iter = model, 0, max_iter

    def run(self, hook, step):
        """The storage after so many steps."""
        hook.trainer = self
        hook.before_train()
        with EventStorage() as self.storage:
            for iteration in range(self.max_iter):
                self.iter = self.storage.iter = iteration
                step(iteration)
                hook.after_step()
        hook.after_train()
        return self.storage


def test_a_single_process_logs_as_without_the_hook():
    logged = []
    for hook in (MiningLogs(), None):
        heads = make_heads().train()

        def step(iteration, heads=heads):
            heads(None, *make_batch(iteration, BATCH))

        if hook is not None:
            storage = Steps(heads, PERIOD + 2).run(hook, step)
        else:
            with EventStorage() as storage:
                for iteration in range(PERIOD + 2):
                    storage.iter = iteration
                    step(iteration)
        logged.append({name: h.values() for name, h in storage.histories().items()})
        assert not heads.metrics[0].collects
    with_hook, without = logged
    assert with_hook.keys() == without.keys()
    for name, values in without.items():
        assert [i for _, i in with_hook[name]] == [i for _, i in values], name
        assert [v for v, _ in with_hook[name]] == pytest.approx([v for v, _ in values]), name


def test_heads_that_are_called_twice_in_a_step_log_once():
    heads, whole = make_heads().train(), make_heads().train()
    batches = [make_batch(seed, BATCH) for seed in (0, 1)]
    storage = Steps(heads, 1).run(MiningLogs(), lambda _: [heads(None, *b) for b in batches])
    features = {k: torch.cat([b[0][k] for b in batches]) for k in batches[0][0]}
    together = features, batches[0][1] + batches[1][1], batches[0][2] + batches[1][2]
    with EventStorage() as expected:
        whole(None, *together)
    for name, history in expected.histories().items():
        if "ohem" in name or "roi_head" in name:
            (value,) = [v for v, _ in storage.history(name).values()]
            assert value == pytest.approx(history.latest()), name


def test_two_heads_of_a_model_log_below_their_names():
    model = nn.ModuleDict({"near": make_heads(), "far": make_heads(seed=1)}).train()
    batch = make_batch(0, BATCH)
    storage = Steps(model, 1).run(MiningLogs(), lambda _: [m(None, *batch) for m in model.values()])
    names = {"near/ohem/cost_of_selected", "far/ohem/cost_of_selected"}
    assert names <= storage.histories().keys()
    assert "ohem/cost_of_selected" not in storage.histories()


@pytest.mark.parametrize("period", [0, -1, "20", None])
def test_a_period_that_is_none(period):
    with pytest.raises(InputError, match="^the period of MiningLogs is .*, expected an integer of"):
        MiningLogs(period=period)


def test_another_hook_that_fails_before_the_training():
    MiningLogs().after_train()  # which Detectron2 calls whatever has failed


def test_steps_in_which_the_heads_rest():
    heads = make_heads().train()

    def step(iteration):
        if iteration != 1:
            heads(None, *make_batch(iteration, BATCH))

    storage = Steps(heads, 3).run(MiningLogs(), step)
    assert [i for _, i in storage.history("ohem/cost_of_selected").values()] == [0, 2]


def train(heads, batch):
    with EventStorage():
        sum(heads(None, *batch)[1].values()).backward()


def uneven(folder):
    """One of two processes, of which the second has less to do."""
    torch.set_num_threads(1)
    rank = comm.get_rank()
    done = []

    heads = make_heads().train()
    model = DistributedDataParallel(heads, broadcast_buffers=False)
    with Join([model]):
        for seed in range(3 - rank):
            train(model, make_batch(seed, BATCH))
    done.append("uneven inputs")

    if rank == 0:  # trains alone
        train(make_heads().train(), make_batch(0, BATCH))
    done.append("a process that trains alone")

    # Reads of heads whose weights are shared out wait for each other: as many on all.
    for size in (40, 0):
        heads = make_heads("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 4).train()
        heads._fewest_at_a_time = 0
        for module in (heads.box_head, heads.box_predictor) if fully_shard is not None else ():
            fully_shard(module)
        train(heads, make_batch(0, [(2, 60 if rank == 0 else size)]))
    done.append("weights that are shared out")

    def step(iteration):
        if rank == 0 or iteration < 2:
            heads(None, *make_batch(iteration, BATCH))

    heads = make_heads().train()
    storage = Steps(heads, 5).run(MiningLogs(period=2), step)
    values = storage.history("ohem/cost_of_selected").values()
    torch.save((done, values), f"{folder}/{rank}.pth")


@pytest.mark.slow
def test_no_process_waits_for_another_within_a_step(tmp_path):
    launch(uneven, 2, dist_url="auto", args=(tmp_path,), timeout=timedelta(minutes=2))
    (done, values), (others_done, others) = (
        torch.load(tmp_path / f"{rank}.pth") for rank in range(2)
    )
    assert done == others_done
    assert len(done) == 3
    assert [i for _, i in values] == [1, 3, 4]  # every second step, and the last
    assert values == others
