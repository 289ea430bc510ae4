"""Files that Detectron2 writes, whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from detectron2.utils.file_io import PathManager
from iopath.common.file_io import NativePathHandler

from ..files import whole_file


@contextmanager
def whole_files() -> Iterator[None]:
    """
    Meanwhile, what goes through Detectron2's `PathManager` into a file of this machine is written
    whole or not at all: the config in its folder, and the files of an evaluation. A process that is
    killed leaves what was there before, where Detectron2 leaves half a file. What is appended to,
    such as ``metrics.json``, is written as ever.
    """
    before = PathManager._native_path_handler
    PathManager.register_handler(_WholeFiles())
    try:
        yield
    finally:
        PathManager.register_handler(before)


class _WholeFiles(NativePathHandler):
    def _open(self, path: str, mode: str = "r", buffering: int = -1, **kwargs: Any) -> Any:
        file = Path(self._get_path_with_cwd(path))
        # Not what is no file, such as /dev/stdout, nor what a link leads to.
        if mode not in ("w", "wb") or kwargs or (os.path.lexists(file) and not _is_file(file)):
            return super()._open(path, mode, buffering, **kwargs)
        return _WholeFile(file, mode)


def _is_file(file: Path) -> bool:
    return file.is_file() and not file.is_symlink()


class _WholeFile:
    """
    A file that takes its place when it is closed, by whatever closes one: ``with``, ``close()``, or
    nothing that holds it any more. An error in ``with`` leaves what was there before.
    """

    def __init__(self, file: Path, mode: str) -> None:
        self._stack = ExitStack()
        # An evaluation may write beside a training into the same folder.
        unfinished = file.with_name(f"{file.name}.{os.getpid()}.tmp")
        self._file = self._stack.enter_context(whole_file(file, mode, unfinished))

    def __enter__(self) -> Any:
        return self._file

    def __exit__(self, *error: Any) -> bool | None:
        return self._stack.__exit__(*error)

    def close(self) -> None:
        self._stack.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __del__(self) -> None:
        self._stack.close()
