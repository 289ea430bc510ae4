"""The folder of the corrected annotations, in which a log says what is of an earlier run."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..data.text_files import read_json
from ..errors import InputError
from ..files import write_whole
from .labels import Output

LOG = "relabel_log.json"
UNDONE = "it was carried out before, and what it added has changed since"
_CARRIED_OUT = ("changed", "already_there")  # lists of the log
_LISTS = (*_CARRIED_OUT, "rejected", "left_out")


def check_apart(folder: Path, inputs: Sequence[Path]) -> None:
    """
    Make sure that what is written is apart from what is read.

    Args:
        folder: where to write.
        inputs: the folders that are read, with all in them, and single files.

    Raises:
        InputError: one lies in the other.
    """
    output = Path(os.path.realpath(folder))
    for given in inputs:
        path = Path(os.path.realpath(given))
        is_inside = path == output or output in path.parents
        if is_inside or (path.is_dir() and path in output.parents):
            how = "holds" if is_inside else "lies in"
            raise InputError(
                f"--output is {str(folder)!r}, which {how} what the data set is read from, "
                f"{given}: expected a folder of its own"
            )


def former_files(folder: Path) -> dict[str, list[str]]:
    """
    Return what an earlier run wrote to a folder: the digests of each file.

    Raises:
        InputError: there is anything else in it, or a file was changed since.
    """
    log = folder / LOG
    content = read_json(log) if log.is_file() else {"files": {}}
    former = content.get("files") if isinstance(content, dict) else None
    if not isinstance(former, dict) or not all(isinstance(x, list) for x in former.values()):
        raise InputError(f"{log} is no log of 'ohem-d2 relabel', expected a new folder")
    for file in _files_in(folder):
        name = file.relative_to(folder).as_posix()
        of = name.removesuffix(".tmp")  # of a run that was killed
        if name == LOG or (of != name and (of in former or of == LOG)):
            continue
        if name not in former:
            raise InputError(
                f"--output is {str(folder)!r}, where {name} is not of an earlier 'ohem-d2 "
                "relabel': expected a new folder"
            )
        if _digest_of(file) not in former[name]:
            raise InputError(
                f"--output is {str(folder)!r}, where {name} was changed since an earlier 'ohem-d2 "
                "relabel' wrote it: expected a new folder"
            )
    return former


def earlier_runs(source: Path) -> list[dict]:
    """
    Return what was decided in annotations before, run by run: of the log beside them the lists of
    decisions, and those that it has of the runs before. None if there is no log of ours.

    Args:
        source: the file or the folder that the annotations are read from.
    """
    for path in dict.fromkeys((Path(os.path.abspath(source)), Path(os.path.realpath(source)))):
        for folder in (path, *path.parents) if path.is_dir() else path.parents:
            if not (folder / LOG).is_file():
                continue
            try:
                content = read_json(folder / LOG)
            except InputError:
                return []
            files = content.get("files") if isinstance(content, dict) else None
            if not isinstance(files, dict):
                return []
            name = path.relative_to(folder).as_posix()
            if path == folder or any(x == name or x.startswith(f"{name}/") for x in files):
                before = content.get("earlier")
                runs = before if isinstance(before, list) else []
                return [_run(x) for x in (*runs, content) if isinstance(x, dict)]
    return []


def _run(content: Mapping[str, Any]) -> dict[str, Any]:
    """What a log has of a run, but for its files."""
    lists = {x: content[x] for x in _LISTS if isinstance(content.get(x), list)}
    return {"info": content.get("info"), **lists}


def carried_out(runs: Sequence[Mapping]) -> set[str]:
    """Return the entries of decisions that `earlier_runs` carried out, as `key_of` has them."""
    entries = [y for run in runs for x in _CARRIED_OUT for y in run.get(x, ())]
    entries += [x for run in runs for x in run.get("left_out", ()) if _is_undone(x)]
    return {key_of(x.get("decision")) for x in entries if isinstance(x, dict)}


def decided(runs: Sequence[Mapping]) -> list[Any]:
    """Return the entries of all decisions of `earlier_runs`, but for those that were left out."""
    entries = [y for run in runs for x in (*_CARRIED_OUT, "rejected") for y in run.get(x, ())]
    entries += [x for run in runs for x in run.get("left_out", ()) if _is_undone(x)]
    return [x.get("decision") for x in entries if isinstance(x, dict)]


def _is_undone(entry: Any) -> bool:
    return isinstance(entry, dict) and entry.get("reason") == UNDONE


def key_of(entry: Any) -> str:
    """Return the same text for the same entry of a file of decisions, if its image is the same."""
    if isinstance(entry, dict) and isinstance(entry.get("image"), str):
        # Corrected labels may lie beside a link to it, by which it may have another id.
        entry = entry | {"image": os.path.realpath(entry["image"]), "image_id": None}
    return json.dumps(entry, sort_keys=True)


def _files_in(folder: Path) -> Iterator[Path]:
    for root, folders, files in os.walk(folder):
        links = [x for x in folders if os.path.islink(os.path.join(root, x))]
        yield from (Path(root, x) for x in (*files, *links))


def write_output(
    folder: Path, output: Output, log: Mapping[str, Any], former: Mapping[str, list[str]]
) -> None:
    """
    Write the corrected annotations, each file whole or not at all, and the log.

    Args:
        folder: where to. It is made if need be.
        output: what to write.
        log: what the log says besides the files.
        former: what `former_files` returned; of it, what is not written anew goes.

    Raises:
        InputError: it cannot be written.
    """
    new = {x.as_posix(): _digest(y) for x, y in output.written.items()}
    new |= {x.as_posix(): _digest_of(y) for x, y in output.copied.items()}
    new |= {x.as_posix(): _digest_of_link(str(y)) for x, y in output.links.items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Until all is written, the log has the files of both runs: another one can then go on.
        both = {x: [*former.get(x, ()), new[x]] if x in new else former[x] for x in {*former, *new}}
        _write_log(folder, log, both)
        for name in former:
            if name not in new:
                (folder / name).unlink(missing_ok=True)
        for path, content in output.written.items():
            _write(folder / path, content)
        for path, source in output.copied.items():
            _write(folder / path, source.read_bytes())
        for path, image in output.links.items():
            _link(folder / path, image)
        for root, _, _ in os.walk(folder, topdown=False):
            with suppress(OSError):  # there is something in it
                os.rmdir(root)
        _write_log(folder, log, {x: [y] for x, y in new.items()})
    except OSError as e:
        raise InputError(
            f"--output {folder} cannot be written ({e.strerror}): to go on, give the command again"
        ) from e


def _write_log(folder: Path, log: Mapping[str, Any], files: Mapping[str, list[str]]) -> None:
    ordered = {x: files[x] for x in sorted(files)}
    text = json.dumps({**log, "files": ordered}, indent=1, allow_nan=False)
    write_whole(folder / LOG, f"{text}\n")


def _write(file: Path, content: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, content)


def _link(file: Path, image: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.unlink(missing_ok=True)
    file.symlink_to(image)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _digest_of(file: Path) -> str:
    return _digest_of_link(os.readlink(file)) if file.is_symlink() else _digest(file.read_bytes())


def _digest_of_link(target: str) -> str:
    return f"link to {target}"
