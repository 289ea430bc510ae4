"""A disk that is full, as far as files are written whole or not at all."""

import errno
from pathlib import Path


def fill_disk(monkeypatch, for_name=lambda name: True):
    """Of files whose name says so, half is written, and then no more."""
    write = Path.write_bytes

    def half(self, content):
        if not for_name(self.name):
            return write(self, content)
        write(self, content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_bytes", half)
