"""The commands, run as from a shell."""

import logging
import multiprocessing
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import torch
from detectron2.utils.logger import _cached_log_stream, setup_logger

from ohem_d2 import cli

ROOT = Path(__file__).parent.parent
# What `python` runs of a clone, for each command.
SCRIPTS = {
    "train": "train_net.py",
    "report": "tools/hard_examples.py",
    "proposals": "tools/selective_search.py",
}

# A fork would wait in vain for threads of this process.
cv2.setNumThreads(1)


def run_script(folder, command, *args):
    """Run the script of a command in a folder, in an interpreter of its own, as its users do."""
    return subprocess.run(
        [sys.executable, "-W", "ignore", str(ROOT / SCRIPTS[command]), *map(str, args)],
        cwd=folder,
        env={**os.environ, **environment(folder)},
        capture_output=True,
        text=True,
        timeout=600,
    )


def run_command(folder, command, *args):
    """
    The same in a fork of this process. It saves the seconds that an interpreter takes to import
    everything, and, unlike a call in this process, leaves nothing behind: neither data sets nor
    loggers, signal handlers or entries of sys.path.
    """
    if torch.cuda.is_available():  # in no fork, once it was used
        return run_script(folder, command, *args)
    with tempfile.TemporaryDirectory() as name:
        said = [Path(name) / stream for stream in ("stdout", "stderr")]
        given = folder, command, list(map(str, args)), said
        process = multiprocessing.get_context("fork").Process(target=run_here, args=given)
        process.start()
        process.join(600)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired(command, 600)
        out, err = (x.read_text(encoding="utf-8") for x in said)
        return subprocess.CompletedProcess(args, process.exitcode, out, err)


def run_here(folder, command, args, said):
    """Run a command in this process, which is for nothing else, and write what it says to files."""
    os.chdir(folder)
    os.environ.update(environment(folder))
    torch.set_num_threads(1)
    sys.stdout, sys.stderr = (file.open("w", encoding="utf-8") for file in said)
    for number, stream in enumerate((sys.stdout, sys.stderr), 1):  # of C code and children as well
        os.dup2(stream.fileno(), number)
    setup_logger.cache_clear()
    _cached_log_stream.cache_clear()  # of a file by its name, which is that of another folder
    for name in (None, "detectron2", "fvcore", "ohem_d2"):  # which may log to pytest
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
    cli.COMMANDS[command](args)


def environment(folder):
    """Of one thread, since more slow down what takes seconds; without Detectron2's data sets."""
    return {"OMP_NUM_THREADS": "1", "DETECTRON2_DATASETS": str(folder / "datasets")}


def run_train_net(folder, *args, config=None, run=run_command):
    """Train; `run`: run_script for what should be in an interpreter of its own."""
    config = [] if config is None else ["--config-file", config]
    return run(folder, "train", *config, *args)
