"""Files written whole or not at all, and locks."""

import errno
import os

import pytest
from full_disk import small_files
from locks import held

from ohem_d2 import files
from ohem_d2.files import locked, whole_file, write_whole


def test_a_lock_names_its_holder_and_ends_with_it(tmp_path):
    file = tmp_path / "lock"
    with held(file) as holder:
        who = rf"^process {holder.pid} on \S+, since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d$"
        with pytest.raises(BlockingIOError, match=who), locked(file, wait=False):
            pass
        holder.kill()
        holder.wait()
        for _ in range(2):  # it can be taken again and again
            with locked(file, wait=False):
                assert f"process {os.getpid()} " in file.read_text()
                with pytest.raises(BlockingIOError), locked(file, wait=False):
                    pass


@pytest.mark.parametrize("how", ["no module", "no support"])
def test_where_there_are_no_locks(tmp_path, monkeypatch, how, caplog):
    if how == "no module":
        monkeypatch.setattr(files, "fcntl", None)
    else:

        def flock(*_):
            raise OSError(errno.ENOLCK, "No locks available")

        monkeypatch.setattr(files.fcntl, "flock", flock)
    with locked(tmp_path / "lock"), locked(tmp_path / "lock", wait=False):
        pass
    assert ("No locks available" in caplog.text) == (how == "no support")


def test_what_was_there_stays_if_the_disk_is_full(tmp_path):
    file = tmp_path / "list.json"
    write_whole(file, "ünï")
    assert file.read_text(encoding="utf-8") == "ünï"
    with small_files(1000), pytest.raises(OSError, match="File too large"):
        write_whole(file, b"x" * 5000)
    assert file.read_text(encoding="utf-8") == "ünï"
    assert list(tmp_path.iterdir()) == [file]


def write_half(file):
    with whole_file(file, "w") as f:
        f.write("after")
        raise ZeroDivisionError


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    file = tmp_path / "x"
    file.write_text("before")
    with pytest.raises(ZeroDivisionError):
        write_half(file)
    assert file.read_text() == "before"
    assert list(tmp_path.iterdir()) == [file]
    with whole_file(file, "wb") as f:
        f.write(b"after")
        assert file.read_text() == "before"
    assert file.read_text() == "after"
    assert list(tmp_path.iterdir()) == [file]
