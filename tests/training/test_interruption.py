"""What becomes of a training that a signal stops."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from command_line import ROOT
from detectron2.data import DatasetCatalog, build_detection_train_loader
from detectron2.engine import HookBase
from detectron2.engine.hooks import EvalHook
from small_data import write_voc
from small_training import (
    STEPS,
    WORKERS,
    assert_same,
    config,
    register_images,
    train,
    weights,
)

from ohem_d2.training.data_loader import ResumableLoader
from ohem_d2.training.interruption import (
    SIGNALS,
    Interrupted,
    ResumeHook,
    interruptible,
    passing_on_signals,
)

BY_SIGNAL = pytest.mark.parametrize("signum", SIGNALS, ids=lambda x: x.name)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return register_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def expected(dataset, tmp_path_factory):
    """The weights of a training that was not interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    train(config(folder, dataset, "TEST.EVAL_PERIOD", 3))
    return weights(folder)


@pytest.fixture(autouse=True)
def _handlers(signals_as_from_a_terminal):
    before = [signal.getsignal(x) for x in SIGNALS]
    yield
    assert [signal.getsignal(x) for x in SIGNALS] == before


@BY_SIGNAL
def test_a_signal_where_no_training_answers_it(signum):
    """As in the evaluation after the last step."""
    before = signal.getsignal(signum)

    def evaluate():
        with interruptible():
            os.kill(os.getpid(), signum)
            time.sleep(10)

    with pytest.raises(Interrupted, match=signum.name) as raised:
        evaluate()
    assert raised.value.signum == signum
    assert signal.getsignal(signum) == before


def test_a_terminal_that_closes_under_nohup():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with interruptible(), passing_on_signals() as came:
        os.kill(os.getpid(), signal.SIGHUP)
        time.sleep(0.1)
    assert came == []
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


class Signal(HookBase):
    """Sends a signal to this process before a step, as if from a terminal or a cluster."""

    def __init__(self, step, signum, number=1):
        self._step, self._signum, self._number = step, signum, number

    def before_step(self):
        if self.trainer.iter == self._step:
            for _ in range(self._number):
                os.kill(os.getpid(), self._signum)


def stop(cfg, hook):
    with pytest.raises(KeyboardInterrupt) as info:
        train(cfg, hooks=[hook])
    return info.value


@BY_SIGNAL
def test_the_step_is_finished_and_saved(tmp_path, dataset, expected, signum):
    cfg = config(tmp_path, dataset, "TEST.EVAL_PERIOD", 3)
    e = stop(cfg, Signal(2, signum))
    assert isinstance(e, Interrupted)
    assert e.signum == signum
    file = tmp_path / "model_0000002.pth"
    assert str(e) == f"{signum.name} after 3 of {STEPS} iterations, which are in {file}"
    assert (tmp_path / "last_checkpoint").read_text() == file.name
    # What was logged is written too.
    assert '"iteration": 2' in (tmp_path / "metrics.json").read_text()
    assert train(cfg, resume=True).start_iter == 3
    assert_same(weights(tmp_path), expected)


def test_a_step_that_is_saved_anyway(tmp_path, dataset):
    """Nothing is written twice."""
    stop(config(tmp_path, dataset), Signal(3, signal.SIGTERM))
    names = {x.name for x in tmp_path.glob("*.pth")}
    assert names == {"model_0000001.pth", "model_0000003.pth"}


def test_workers(tmp_path):
    """They are signalled as well; in a process of its own, without the children of other tests."""
    process = multiprocessing.get_context("spawn").Process(target=_signal_all, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == 0


def _signal_all(tmp_path):
    dataset = register_images(tmp_path / "images")
    train(config(tmp_path / "whole", dataset, *WORKERS))
    cfg = config(tmp_path / "stopped", dataset, *WORKERS)

    class SignalToAll(HookBase):
        def before_step(self):
            if self.trainer.iter == 2:
                children = _children(os.getpid())
                assert len(children) >= 2
                for _ in range(2):  # by another process, since this one is their master
                    subprocess.run(["kill", *map(str, (*children, os.getpid()))], check=True)

    assert isinstance(stop(cfg, SignalToAll()), Interrupted)
    train(cfg, resume=True)
    assert_same(weights(tmp_path / "stopped"), weights(tmp_path / "whole"))


@pytest.mark.skipif(not hasattr(signal, "sigwaitinfo"), reason="workers are shielded on Linux")
@pytest.mark.parametrize("is_resumed", [False, True])
def test_workers_that_start(dataset, is_resumed):
    """No signal reaches a worker before it is shielded, and this process gets them again."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    loader = build_detection_train_loader(
        DatasetCatalog.get(dataset),
        mapper=_BlockedSignals(),
        total_batch_size=2,
        aspect_ratio_grouping=False,
        num_workers=2,
    )
    resumable = ResumableLoader(loader)
    if is_resumed:
        next(iter(resumable))
        resumable.load_state_dict(resumable.state_dict())
    loader.worker_init_fn = None  # which shields them, once they run
    batches = iter(resumable)
    blocked = [blocked for _ in range(2) for blocked in next(batches)]
    assert len(blocked) == 4
    assert all(set(SIGNALS) <= x for x in blocked)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before


class _BlockedSignals:
    def __call__(self, record):
        return signal.pthread_sigmask(signal.SIG_BLOCK, [])


def _children(pid):
    command = ["ps", "-o", "pid=,comm=", "--ppid", str(pid)]
    lines = subprocess.run(command, capture_output=True, text=True).stdout.splitlines()
    return [int(pid) for pid, name in map(str.split, lines) if name != "ps"]


def test_an_evaluation_is_left_at_once(tmp_path, dataset, expected):
    cfg = config(tmp_path, dataset, "TEST.EVAL_PERIOD", 3)
    evaluated = []

    def evaluate():
        evaluated.append("began")
        torch.rand(3)
        os.kill(os.getpid(), signal.SIGTERM)
        evaluated.append("went on")

    stop(cfg, EvalHook(3, evaluate, eval_after_train=False))
    assert evaluated == ["began"]
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000002.pth"
    train(cfg, resume=True)
    assert_same(weights(tmp_path), expected)


def test_the_last_step(tmp_path, dataset, expected):
    """The training is complete, but the model is not evaluated any more."""
    evaluated = []
    hooks = [Signal(STEPS - 1, signal.SIGTERM), EvalHook(0, lambda: evaluated.append(1))]
    with pytest.raises(Interrupted, match=f"{STEPS} of {STEPS} iterations.*model_final.pth"):
        train(config(tmp_path, dataset), hooks=hooks)
    assert evaluated == []
    assert_same(weights(tmp_path), expected)


def test_a_training_that_is_at_its_end(tmp_path, dataset, caplog):
    train(config(tmp_path, dataset))
    caplog.clear()
    before = weights(tmp_path)
    train(config(tmp_path, dataset), resume=True)
    assert (
        f"model_final.pth is of iteration {STEPS - 1}, and the training ends before {STEPS}: "
        "nothing is left to train"
    ) in caplog.text
    assert "the training goes on" not in caplog.text
    assert_same(weights(tmp_path), before)


def test_the_second_ctrl_c_ends_it_at_once(tmp_path, dataset):
    e = stop(config(tmp_path, dataset), Signal(2, signal.SIGINT, number=2))
    assert not isinstance(e, Interrupted)
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000001.pth"


def test_clusters_may_insist(tmp_path, dataset):
    assert isinstance(stop(config(tmp_path, dataset), Signal(2, signal.SIGTERM, 3)), Interrupted)


@pytest.mark.usefixtures("signals_as_from_a_terminal")
def test_a_hook_that_is_left_out(tmp_path, dataset):
    """As in trainers that write nothing: signals do what they did."""
    cfg = config(tmp_path, dataset)
    trainer = type(train(cfg, kill_at=0))(cfg)
    trainer._hooks = [h for h in trainer._hooks if not isinstance(h, ResumeHook)]
    trainer.register_hooks([Signal(1, signal.SIGINT)])
    with pytest.raises(KeyboardInterrupt):
        trainer.train()


# ------------------------------------------------------------------------------ as from a shell


@pytest.mark.slow
@pytest.mark.parametrize(
    ("signum", "processes", "workers"),
    [(signal.SIGTERM, 1, 2), (signal.SIGINT, 1, 0), (signal.SIGTERM, 2, 0), (signal.SIGINT, 2, 0)],
)
@pytest.mark.parametrize("to_all", [False, True])
def test_the_command(tmp_path, signum, processes, workers, to_all):
    objects = [("dog", (5, 5, 30, 40), ""), ("cat", (40, 10, 70, 50), "")]
    write_voc(tmp_path / "voc", {f"image {i}": objects for i in range(5)})
    voc = "voc://voc?split=trainval"
    opts = [
        *("OUTPUT_DIR", "out", "DATASETS.TRAIN", voc, "DATASETS.TEST", voc),
        *("SOLVER.MAX_ITER", "3000", "DATALOADER.NUM_WORKERS", str(workers)),
        *("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", "8", "INPUT.MIN_SIZE_TRAIN", "64"),
    ]
    command = ["--num-gpus", str(processes), "--dist-url", "auto", *opts]
    with (tmp_path / "errors").open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "train_net.py"), *command],
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
            stdout=errors,
            stderr=errors,
            start_new_session=True,
        )
    log, written = tmp_path / "out" / "log.txt", tmp_path / "errors"
    try:
        start = time.time()
        while not (log.exists() and "eta: " in log.read_text()):  # 20 iterations are done
            assert time.time() < start + 300
            assert process.poll() is None, written.read_text()
            time.sleep(0.2)
        (os.killpg if to_all else os.kill)(process.pid, signum)
        assert process.wait(timeout=120) == -signum, written.read_text()
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    lines = [x for x in log.read_text().splitlines() if "To go on: " in x]
    assert len(lines) == 1
    assert f"{signum.name} after " in lines[0] or processes > 1
    assert "--resume --num-gpus" in lines[0]
    assert "voc://voc?split=trainval" in lines[0]
    (file,) = (tmp_path / "out").glob("model_*.pth")
    assert f"out/{file.name}. To go on" in lines[0]
    assert "Traceback" not in written.read_text()
