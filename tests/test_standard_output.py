"""Standard output and logs on a disk that is full."""

import errno
import io
import logging
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import ROOT
from small_data import write_voc

from ohem_d2.standard_output import unbroken_output

FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full")


@pytest.fixture(autouse=True)
def _no_handlers_of_other_tests(monkeypatch):
    """A command that a test called has left some, of streams that are closed."""
    monkeypatch.setattr(logging.getLogger("ohem_d2"), "handlers", [])


class Broken(io.StringIO):
    """Fails from some write on."""

    def __init__(self, error, after=1):
        super().__init__()
        self.left, self._error = after, error

    def write(self, text):
        if not self.left:
            raise self._error
        self.left -= 1
        return super().write(text)


def no_space():
    return OSError(errno.ENOSPC, "No space left on device")


def test_what_cannot_be_written_is_told_once(monkeypatch, capsys):
    stream = Broken(no_space(), after=2)
    monkeypatch.setattr(sys, "stdout", stream)
    with unbroken_output():
        for i in range(5):
            print(i)
    assert sys.stdout is stream
    assert stream.getvalue() == "0\n"
    assert capsys.readouterr().err == (
        "warning: standard output cannot be written (No space left on device): going on without "
        "it\n"
    )


def test_standard_error_is_told_of_in_the_log(monkeypatch, caplog):
    monkeypatch.setattr(sys, "stderr", Broken(no_space(), after=0))
    with unbroken_output():
        print("x", file=sys.stderr)
    assert "standard error cannot be written (No space left on device)" in caplog.text


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (no_space(), "error: standard output cannot be written (No space left on device)"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 141),
    ],
)
def test_a_result_that_cannot_be_written(monkeypatch, error, code):
    monkeypatch.setattr(sys, "stdout", Broken(error, after=0))
    with pytest.raises(SystemExit) as ended, unbroken_output(is_result=True):
        print("x")
    assert ended.value.code == code


def test_other_errors_come_through(capsys):
    @unbroken_output(is_result=True)
    def fail():
        print("x")
        raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert capsys.readouterr().out == "x\n"


@needs_full
def test_a_log_on_a_full_disk(capsys):
    handler = logging.FileHandler(FULL)
    log = logging.getLogger("on a full disk")
    log.addHandler(handler)
    try:
        with unbroken_output():
            for _ in range(3):
                log.warning("x")
    finally:
        log.removeHandler(handler)
        handler.stream = None
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        f"warning: {FULL} cannot be written (No space left on device): it lacks what is logged "
        "from here on"
    )


@needs_full
@pytest.mark.parametrize("output", [None, "look"])
def test_a_command_whose_output_goes_to_a_full_disk(tmp_path, output):
    write_voc(tmp_path / "voc", {"a": [("dog", (5, 5, 30, 40), "")]})
    command = [sys.executable, "-W", "ignore", "-m", "ohem_d2", "data", "voc://voc?split=trainval"]
    command += ["--output", output] if output else []
    with FULL.open("w") as full:
        ended = subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, stdout=full,
                               stderr=subprocess.PIPE, text=True, timeout=300)  # fmt: skip
    assert "Traceback" not in ended.stderr
    assert "warning: standard output cannot be written (No space left" in ended.stderr
    assert ended.returncode == (0 if output else 1)
    last = ended.stderr.splitlines()[-1]
    assert last.startswith("error: standard output cannot be written") == (output is None)
