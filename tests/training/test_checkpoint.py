"""Checkpoints that are whole, and the newest of them."""

import itertools
import logging
import os

import pytest
import torch
from detectron2.engine import hooks
from full_disk import small_files
from killing import kill_while
from torch import nn

from ohem_d2.errors import InputError
from ohem_d2.training.checkpoint import WholeCheckpointer, has_checkpoints
from ohem_d2.training.checks import check_weights, warn_of_unused_weights


@pytest.fixture
def folder(tmp_path):
    """With three checkpoints, of iterations 1, 3 and 5."""
    save(tmp_path, 1, 3, 5)
    return tmp_path


def save(folder, *iterations):
    checkpointer = WholeCheckpointer(nn.Linear(2, 2), str(folder))
    for i in iterations:
        checkpointer.save(f"model_{i:07d}", iteration=i)
        file = folder / f"model_{i:07d}.pth"
        os.utime(file, (i, i))  # however fast this is
    return checkpointer


def resume(folder):
    return WholeCheckpointer(nn.Linear(2, 2), str(folder)).resume_or_load("", resume=True)


LAST, BEFORE = "model_0000005.pth", "model_0000003.pth"


def cut(file, part=0.5):
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * part)])


def flip(file):
    """One bit of a weight."""
    content = bytearray(file.read_bytes())
    with torch.serialization._open_zipfile_reader(str(file)) as reader:
        offset = reader.get_record_offset("data/0")
    content[offset] ^= 1
    file.write_bytes(content)


DAMAGES = {
    "truncated": (lambda f: cut(f / LAST), f"{LAST}, the last checkpoint, is not whole"),
    "cut at its end": (lambda f: cut(f / LAST, 0.99), f"{LAST}, the last checkpoint, is not whole"),
    "empty": (lambda f: (f / LAST).write_bytes(b""), f"{LAST}, the last checkpoint, is not whole"),
    "zeros": (
        lambda f: (f / LAST).write_bytes(bytes(5000)),
        f"{LAST}, the last checkpoint, is not whole",
    ),
    "a bit flipped": (lambda f: flip(f / LAST), f"{LAST}, the last checkpoint, is not whole"),
    "gone": (
        lambda f: (f / LAST).unlink(),
        f"{LAST}, the last checkpoint as last_checkpoint has it, is not there",
    ),
    "two damaged": (
        lambda f: (cut(f / LAST), (f / BEFORE).write_bytes(b"")),
        f"{LAST}, the last checkpoint, is not whole",
    ),
    "no tag": (lambda f: (f / "last_checkpoint").unlink(), "last_checkpoint is missing"),
    "an empty tag": (
        lambda f: (f / "last_checkpoint").write_text(""),
        "last_checkpoint names no checkpoint",
    ),
    "a tag of bytes": (
        lambda f: (f / "last_checkpoint").write_bytes(bytes(range(128, 256)) * 3),
        "last_checkpoint names no checkpoint",
    ),
    "a long tag": (
        lambda f: (f / "last_checkpoint").write_text("a" * 300),
        "last_checkpoint names no checkpoint",
    ),
    "a tag of another folder": (
        lambda f: (f / "last_checkpoint").write_text("../other/model_0000005.pth\n"),
        "names no checkpoint beside it ('../other/model_0000005.pth')",
    ),
    "something else": (
        lambda f: torch.save(torch.zeros(2), f / LAST),
        f"{LAST}, the last checkpoint, is none: it holds a Tensor",
    ),
    "a tag of nonsense": (
        lambda f: (f / "last_checkpoint").write_bytes(b"\xff../x\n"),
        "last_checkpoint names no checkpoint",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_newest_whole_checkpoint_is_taken(folder, damage, caplog):
    # Weights are no checkpoint of a training, however new they are.
    torch.save({"model": {}}, folder / "R-50.pth")
    do, words = DAMAGES[damage]
    do(folder)
    with caplog.at_level(logging.WARNING):
        found = resume(folder)["iteration"]
    assert found == {"two damaged": 1}.get(damage, 5 if "tag" in damage else 3)
    (message,) = [x.getMessage() for x in caplog.records if x.name.startswith("ohem_d2")]
    assert words in message
    assert f"going on from {folder / f'model_{found:07d}.pth'}, the newest" in message


def test_nothing_is_said_of_a_whole_one(folder, caplog):
    with caplog.at_level(logging.WARNING):
        assert resume(folder)["iteration"] == 5
    assert "ohem_d2" not in {x.name.partition(".")[0] for x in caplog.records}


def test_none_is_whole(folder):
    for i in (1, 3, 5):
        cut(folder / f"model_{i:07d}.pth")
    with pytest.raises(InputError, match=f"{LAST}, the last .* expected a whole one; to train"):
        resume(folder)
    assert has_checkpoints(str(folder))
    (folder / "last_checkpoint").unlink()
    with pytest.raises(InputError, match="last_checkpoint is missing, and there is no other"):
        resume(folder)


def test_there_is_none(tmp_path):
    checkpointer = WholeCheckpointer(nn.Linear(2, 2), str(tmp_path / "new"))
    assert checkpointer.resume_or_load("", resume=True) == {}
    assert not checkpointer.has_checkpoint()
    assert checkpointer.get_checkpoint_file() == ""


def test_weights_may_be_gone_if_there_is_a_checkpoint(folder):
    (folder / "last_checkpoint").unlink()
    check_weights("MODEL.WEIGHTS", "gone.pth", str(folder), resume=True, training=True)
    with pytest.raises(InputError, match="cannot be loaded"):
        check_weights("MODEL.WEIGHTS", "gone.pth", str(folder), resume=False, training=True)


def test_weights_of_the_command_line_that_are_not_evaluated(folder, caplog):
    last = (folder / "last_checkpoint").read_text()
    warn_of_unused_weights("MODEL.WEIGHTS", str(folder / last), str(folder))
    warn_of_unused_weights("MODEL.WEIGHTS", "other.pth", str(folder / "none"))
    assert not caplog.messages
    warn_of_unused_weights("MODEL.WEIGHTS", "other.pth", str(folder))
    assert "MODEL.WEIGHTS is 'other.pth', but --resume evaluates the last checkpoint" in caplog.text


def test_old_checkpoints_are_removed(tmp_path):
    checkpointer = WholeCheckpointer(nn.Linear(2, 2), str(tmp_path))
    periodic = hooks.PeriodicCheckpointer(checkpointer, 1, max_to_keep=2)
    for i in range(4):
        periodic.step(i)
    names = sorted(x.name for x in tmp_path.iterdir())
    assert names == ["last_checkpoint", "model_0000002.pth", "model_0000003.pth"]


class Unsaveable(nn.Linear):
    def state_dict(self, *args, **kwargs):
        return {"weight": self.weight, "bias": lambda: None}


def test_an_error_leaves_what_was_there(folder):
    before = {x.name: x.read_bytes() for x in folder.iterdir()}
    with pytest.raises(Exception, match="ickle"):
        WholeCheckpointer(Unsaveable(2, 2), str(folder)).save("model_0000005", iteration=5)
    assert {x.name: x.read_bytes() for x in folder.iterdir()} == before


def write_for_ever(folder):
    checkpointer = WholeCheckpointer(nn.Linear(1500, 1500), str(folder))
    for i in itertools.count():
        checkpointer.save("model_final", iteration=i)


def test_a_kill_leaves_no_half_files(tmp_path):
    for i in range(6):
        kill_while(write_for_ever, tmp_path / "last_checkpoint", 0.1 + 0.037 * i)
        checkpointer = WholeCheckpointer(nn.Linear(1500, 1500), str(tmp_path))
        assert checkpointer.resume_or_load("", resume=True)["iteration"] >= 0
        names = {x.name for x in tmp_path.iterdir()}
        assert names - {"model_final.pth.tmp", "last_checkpoint.tmp"} == {
            "last_checkpoint",
            "model_final.pth",
        }


def test_a_full_disk(tmp_path):
    checkpointer = WholeCheckpointer(nn.Linear(2, 2), str(tmp_path))
    checkpointer.save("old")
    before = (tmp_path / "old.pth").read_bytes()
    checkpointer = WholeCheckpointer(nn.Linear(500, 500), str(tmp_path))
    message = r"new\.pth cannot be written \(File too large\). Earlier checkpoints are kept"
    with small_files(len(before) + 1000), pytest.raises(InputError, match=message):
        checkpointer.save("new")
    assert [x.name for x in tmp_path.glob("*.pth*")] == ["old.pth"]
    assert (tmp_path / "old.pth").read_bytes() == before
    assert (tmp_path / "last_checkpoint").read_text() == "old.pth"


def test_a_full_disk_from_the_start(tmp_path):
    checkpointer = WholeCheckpointer(nn.Linear(500, 500), str(tmp_path))
    message = r"new\.pth cannot be written \(File too large\). There are no earlier checkpoints$"
    with small_files(1000), pytest.raises(InputError, match=message):
        checkpointer.save("new")
