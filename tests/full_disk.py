"""A disk that is full, as far as files are written whole or not at all."""

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
