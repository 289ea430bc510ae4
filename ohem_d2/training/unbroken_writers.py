"""Metrics that cannot be written any more, as on a full disk: a training goes on without."""

import logging
from collections.abc import Iterable
from contextlib import suppress

from detectron2.utils.events import EventWriter, JSONWriter, TensorboardXWriter, get_event_storage

from ..errors import cannot_be_written

logger = logging.getLogger(__name__)

_NAMES = {JSONWriter: "metrics.json", TensorboardXWriter: "what TensorBoard shows"}


class UnbrokenWriter(EventWriter):
    """A writer of metrics that gives up, and says so once, where the system refuses a write."""

    def __init__(self, writer: EventWriter, folder: str) -> None:
        """
        Args:
            writer: what to write with.
            folder: where to, as the warning has it.
        """
        self._writer, self._folder = writer, folder
        self._has_given_up = False

    def write(self) -> None:
        """See Detectron2's `EventWriter.write`."""
        if not self._has_given_up:
            try:
                return self._writer.write()
            except OSError as e:
                self._give_up(e)
        if isinstance(self._writer, TensorboardXWriter):
            # Which nobody else takes out of memory.
            get_event_storage().clear_images()
            get_event_storage().clear_histograms()

    def close(self) -> None:
        """See Detectron2's `EventWriter.close`."""
        if not self._has_given_up:
            try:
                self._writer.close()
            except OSError as e:
                self._give_up(e)

    def _give_up(self, error: OSError) -> None:
        self._has_given_up = True
        with suppress(OSError):  # which would come again, at the end of the process
            self._writer.close()
        name = _NAMES.get(type(self._writer), type(self._writer).__name__)
        where = f"{name} in {self._folder}"
        logger.warning(f"{cannot_be_written(where, error)}: going on without it")


def unbroken(writers: Iterable[EventWriter], folder: str) -> list[EventWriter]:
    """
    Let no writer of metrics end a training where it cannot write.

    Args:
        writers: such as Detectron2's `default_writers` are.
        folder: where they write to.
    """
    return [UnbrokenWriter(writer, folder) for writer in writers]
