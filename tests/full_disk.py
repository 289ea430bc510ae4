"""A disk that is full, as far as files are written whole or not at all."""

import resource
import signal
from pathlib import Path


def fill_disk(monkeypatch, for_name=lambda name: True):
    """Files whose name says so are made, but there is no space for what is to be in them."""
    real = Path.open

    def on_full_disk(self, mode="r", **kwargs):
        if "w" not in mode or not for_name(self.name):
            return real(self, mode, **kwargs)
        self.touch()
        return real(Path("/dev/full"), mode, **kwargs)

    monkeypatch.setattr(Path, "open", on_full_disk)


class small_files:
    """The system lets nobody write a file of more bytes, as if the disk were full."""

    def __init__(self, most):
        self.most = most

    def __enter__(self):
        self.handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        self.limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.most, self.limits[1]))

    def __exit__(self, *_):
        resource.setrlimit(resource.RLIMIT_FSIZE, self.limits)
        signal.signal(signal.SIGXFSZ, self.handler)
