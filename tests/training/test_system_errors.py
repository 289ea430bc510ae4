"""What the system refuses a run on its way."""

import errno
import multiprocessing
import os
import signal

import pytest
import torch
from detectron2.data.detection_utils import read_image
from torch.utils.data import DataLoader, Dataset

from ohem_d2.training.data_loader import shield_workers
from ohem_d2.training.system_errors import of_system


class Images(Dataset):
    """The second image is no image, but what `make` returns; or it raises."""

    def __init__(self, make):
        self._make = make

    def __len__(self):
        return 3

    def __getitem__(self, index):
        return self._make() if index == 1 else torch.zeros(1000)


class NotSent:
    """As a batch that does not fit into shared memory: an error of the thread that sends it."""

    def __reduce__(self):
        raise RuntimeError(
            "unable to allocate shared memory(shm) for file </torch_1_2_3>: No space left on "
            "device (28)"
        )


def killed_by(signum):
    return lambda: os.kill(os.getpid(), signum)


def first_error(make):
    """That of a loader with a worker, whose reader would otherwise wait for ever."""
    loader = DataLoader(Images(make), batch_size=1, num_workers=1, collate_fn=list, timeout=60)
    with pytest.raises((RuntimeError, TypeError, OSError)) as raised:
        list(shield_workers(loader))
    return raised.value


def test_full_shared_memory():
    line = of_system(first_error(NotSent))
    assert line == (
        "workers cannot hand their images over (unable to allocate shared memory(shm) for file "
        "</torch_1_2_3>: No space left on device (28)): expected more shared memory (/dev/shm, of "
        "which docker run --shm-size gives more), or fewer workers (DATALOADER.NUM_WORKERS, or "
        "num_workers in a Python config)"
    )


def test_what_no_worker_can_send_reaches_the_reader():
    """Of a mapper of the user's own: its traceback is theirs to read."""
    error = first_error(lambda: (x for x in "abc"))
    assert "cannot pickle 'generator' object" in str(error)
    assert of_system(error) is None


@pytest.mark.parametrize(
    ("signum", "words"),
    [
        (signal.SIGKILL, "SIGKILL, as systems do when memory runs out: expected more of it"),
        (signal.SIGBUS, "SIGBUS, as systems do when shared memory (/dev/shm) runs out: expected"),
    ],
)
def test_a_worker_that_is_killed(signum, words):
    line = of_system(first_error(killed_by(signum)))
    assert line.startswith("a worker that reads images (process ")
    assert f") was killed by {words}" in line
    assert "DATALOADER.NUM_WORKERS" in line


def test_memory():
    with pytest.raises(RuntimeError) as raised:
        torch.empty(10**17)
    line = of_system(raised.value)
    assert line.startswith(f"memory does not suffice ({__name__}, line ")
    assert "DefaultCPUAllocator: can't allocate memory" in line
    assert line.endswith("): expected more of it, or smaller images, or fewer at a time")
    of_fork = OSError(errno.ENOMEM, "Cannot allocate memory")
    assert of_system(of_fork).startswith("memory does not suffice ([Errno 12] Cannot")
    assert "CUDA out of memory" in of_system(torch.cuda.OutOfMemoryError("CUDA out of memory."))


def test_a_process_that_is_gone():
    error = RuntimeError("[gloo/transport/tcp/pair.cc:5] Read error: Connection reset by peer")
    assert of_system(error).startswith("the connection to another process is lost ([gloo/tran")


def test_open_files():
    assert "(ulimit -n)" in of_system(OSError(errno.EMFILE, "Too many open files"))


def test_images_that_are_gone():
    """As Detectron2 reads them, in a worker and in this process."""
    line = "the system refuses a file: FileNotFoundError: [Errno 2] No such file or directory: "
    assert of_system(first_error(lambda: read_image("gone.jpg"))) == f"{line}'gone.jpg'"
    with pytest.raises(FileNotFoundError) as raised:
        read_image("gone.jpg")
    assert of_system(raised.value) == f"{line}'gone.jpg'"
    with pytest.raises(FileNotFoundError) as raised, open("gone.txt"):  # by code of the user's own
        pass
    assert of_system(raised.value) is None
    assert of_system(first_error(lambda: open("gone.txt"))) is None  # noqa: SIM115


def test_no_room_for_locks(monkeypatch):
    def refuse(*_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("multiprocessing.synchronize._multiprocessing.SemLock", refuse)
    with pytest.raises(OSError, match="Read-only") as raised:
        multiprocessing.get_context("spawn").Lock()
    assert of_system(raised.value) == (
        "shared memory (/dev/shm, of which fewer workers need less: DATALOADER.NUM_WORKERS, or "
        "num_workers in a Python config) cannot be written (Read-only file system)"
    )


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS])
def test_disks(number):
    error = RuntimeError("of torch, which closes the file")
    error.__cause__ = OSError(number, os.strerror(number), "out/x.json")
    assert of_system(error) == f"out/x.json cannot be written ({os.strerror(number)})"


def test_a_disk_that_is_gone():
    line = of_system(OSError(errno.EIO, "Input/output error", "out/x.json"))
    assert line == "out/x.json cannot be read or written (Input/output error)"


@pytest.mark.parametrize(
    "error",
    [KeyError("x"), FileNotFoundError(errno.ENOENT, "No such file", "x"), RuntimeError("x")],
)
def test_other_errors_keep_their_traceback(error):
    assert of_system(error) is None
