"""Processes that are killed at some moment of their work."""

import multiprocessing
import time


def kill_while(work, first, seconds):
    """
    Let a process work, and kill it (SIGKILL) some time after its first file is there.

    Args:
        work: what it does with the folder of that file, until it is killed.
        first: the file.
        seconds: how long to wait.
    """
    process = multiprocessing.get_context("fork").Process(target=work, args=(first.parent,))
    process.start()
    while not first.exists():
        time.sleep(0.01)
    time.sleep(seconds)
    process.kill()
    process.join()
