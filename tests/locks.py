"""Another process that holds a lock."""

import os
import signal
import subprocess
import sys
from contextlib import contextmanager

from command_line import ROOT

# Until it is killed. As a data loader's, the worker outlives it for a while.
HOLDER = """
import runpy, sys, os, time
from pathlib import Path
locked = runpy.run_path(sys.argv[1])["locked"]
with locked(Path(sys.argv[2])):
    if os.fork() == 0:
        print("held", flush=True)
    time.sleep(60)
"""


@contextmanager
def held(file):
    """The process that holds a lock on a file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-c", HOLDER, ROOT / "ohem_d2/files.py", file]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
