"""
The files of a YOLO data set in another folder: labels, links to images, and the files that describe
it. What leads out of the data set, such as an absolute path, is made to lead into its copy.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import yaml

from ..data.image_files import image_folders
from ..data.text_files import read_lines
from ..data.yolo import Description, locate
from ..data.yolo_names import NAMES
from .labels import Output
from .output import LOG

_YAML, _DARKNET = (".yaml", ".yml"), (".data",)


class Layout:
    """Where the files of a data set are to lie, relative to a folder."""

    def __init__(
        self, described: Description, images: str | None, labels: Mapping[Path, Path]
    ) -> None:
        """
        Args:
            described: the data set.
            images: the folder of images that the user names, if any.
            labels: the files of labels of all images, which may be missing.
        """
        self._source = described.source
        self._splits = described.splits
        self._given = None if images is None else image_folders(self._source.parent, images)[0]
        self._labels = labels
        self._entries = {
            split: [locate(entry, [self._source.parent]) for entry in entries]
            for split, entries in described.splits.items()
        }
        lists = [y for x in self._entries.values() for y in x if y is not None]
        # The labels then lie where lists have the images.
        self._is_beside = self._given is not None and not all(x.is_dir() for x in lists)
        files = [*labels, *labels.values()]
        if self._is_beside:
            files = [x for x in labels.values() if x.is_file()]
        places = [os.path.dirname(os.path.abspath(x)) for x in files]
        places += [os.path.abspath(x if x.is_dir() else x.parent) for x in lists if not self._given]
        base = os.path.commonpath(places)
        here = os.path.abspath(self._source.parent)
        # The file that describes the data set lies where it lay, if that is above all the others.
        self._base = here if os.path.commonpath([base, here]) == here else base
        is_moved = self._base != here and self._source.suffix.lower() in (*_YAML, *_DARKNET)
        # Relative to the folder that is written, as are the paths in it.
        self.source = Path(self._source.name) if is_moved else self.inside(self._source)

    def inside(self, file: Path) -> Path:
        """Return where a file is to lie."""
        path = os.path.relpath(os.path.abspath(file), self._base)
        return Path(file.name) if path.startswith("..") else Path(path)

    def _link(self, image: Path) -> Path:
        """Where the link to an image is to lie."""
        if self._is_beside:
            return self.inside(self._labels[image]).with_suffix(image.suffix)
        return self.inside(image)

    def _target(self, image: Path) -> Path:
        """What the link to an image is to lead to: past a link of an earlier run, which may go."""
        path = os.path.abspath(image)
        is_of_ours = os.path.islink(path) and any((x / LOG).is_file() for x in Path(path).parents)
        if not is_of_ours:
            return Path(path)
        return Path(os.path.abspath(os.path.join(os.path.dirname(path), os.readlink(path))))

    def inputs(self) -> list[Path]:
        """Return the folders and files that are read."""
        entries = [y for x in self._entries.values() for y in x if y is not None]
        given = [self._given] if self._given else []
        return [self._source, *given, *entries, *{x.parent for x in self._labels.values()}]

    def output(self) -> Output:
        """Return all files without any correction."""
        links = {self._link(image): self._target(image) for image in self._labels}
        copied = {self.inside(x): x for x in self._labels.values() if x.is_file()}
        written: dict[Path, bytes] = {}
        for entry in {y for x in self._entries.values() for y in x}:
            if entry is not None and not entry.is_dir():
                if (new := self._of_list(entry)) is None:
                    copied[self.inside(entry)] = entry
                else:
                    written[self.inside(entry)] = new
        if (new := self._of_source()) is None:
            copied[self.source] = self._source
        else:
            written[self.source] = new
        if (names := self._names_of_darknet()) is not None:
            copied[self.inside(names)] = names
        for name in NAMES:  # beside the labels or the file that describes the data set
            for folder in {self._source.parent, *(x.parent for x in self._labels.values())}:
                if (folder / name).is_file():
                    copied.setdefault(self.inside(folder / name), folder / name)
        return Output(written, {x: y for x, y in copied.items() if x not in written}, links)

    def _leads_inside(self, path: str, *folders: Path) -> bool:
        """Whether a path leads to what is below a folder, and does so from its copy, too."""
        given = PurePosixPath(path.replace("\\", "/"))
        if given.is_absolute() or ".." in given.parts or self._given:
            return False
        return any(os.path.exists(x / given) for x in folders)

    def _of_list(self, file: Path) -> bytes | None:
        """A list of images whose lines lead to the links; None: it does as it is."""
        lines = [x.strip() for x in read_lines(file)]
        places = file.parent, self._source.parent
        if self._is_at_home(file) and all(self._leads_inside(x, *places) for x in lines if x):
            return None
        by_name: dict[str, list[Path]] = {}
        for image in self._labels:
            by_name.setdefault(image.name, []).append(self._link(image))
        here = self.inside(file).parent
        new = []
        for line in filter(None, lines):
            found = by_name.get(PurePosixPath(line.replace("\\", "/")).name, [])
            parts = PurePosixPath(line.replace("\\", "/")).parts
            found = sorted(found, key=lambda x: -_common_end(x.parts, parts))
            new.append(Path(os.path.relpath(found[0], here)).as_posix() if found else line)
        return "".join(f"{x}\n" for x in new).encode()

    def _is_at_home(self, file: Path) -> bool:
        return not os.path.relpath(os.path.abspath(file), self._base).startswith("..")

    def _of_source(self) -> bytes | None:
        """The file that describes the data set; None: it does as it is."""
        entries = [
            entry
            for split, of in self._splits.items()
            for entry, found in zip(of, self._entries[split])
            if found is not None
        ]
        home = self._source.parent
        is_at_home = self.source == self.inside(self._source)
        if is_at_home and all(self._leads_inside(x, home) for x in entries):
            return None
        content = self._source.read_bytes()
        if self._source.suffix.lower() in _YAML:
            return self._of_yaml(content.decode("utf-8-sig")).encode()
        if self._source.suffix.lower() in _DARKNET:
            return self._of_darknet(content.decode("utf-8-sig")).encode()
        return None

    def _new_entries(self, split: str) -> list[str]:
        new = []
        for entry, found in zip(self._splits[split], self._entries[split]):
            if found is not None and found.is_dir() and self._given:
                found = self._given
            new.append(entry if found is None else self.inside(found).as_posix())
        return new

    def _of_yaml(self, text: str) -> str:
        root = yaml.compose(text, yaml.SafeLoader)
        changes = []
        assert root is not None
        for key, value in root.value:
            is_lines = isinstance(value, yaml.SequenceNode) and not value.flow_style
            # Which is said to end where the next key begins
            last = value.value[-1] if is_lines else value
            start, end = value.start_mark.index, last.end_mark.index
            if key.value == "path":
                put = '""'  # its own folder
            elif key.value in self._splits:
                entries = self._new_entries(key.value)
                put = json.dumps(entries if len(entries) > 1 else entries[0], ensure_ascii=False)
            else:
                continue
            changes.append((start, end, put))
        for start, end, put in sorted(changes, reverse=True):
            lead = text[:start]
            if "\n" in text[len(lead.rstrip(" ")) - 1 : start]:
                lead = lead.rstrip() + " "  # a list that begins in the line below its key
            text = lead + put + text[end:]
        return text

    def _of_darknet(self, text: str) -> str:
        lines = text.splitlines(keepends=True)
        for i, line in enumerate(lines):
            key = line.partition("=")[0].strip()
            end = line[len(line.rstrip()) :]
            if key in self._splits:
                lines[i] = f"{key} = {self._new_entries(key)[0]}{end}"
            elif key == "names" and (names := self._names_of_darknet()) is not None:
                lines[i] = f"names = {self.inside(names).as_posix()}{end}"
        return "".join(lines)

    def _names_of_darknet(self) -> Path | None:
        """The list of the classes that an obj.data names."""
        if self._source.suffix.lower() not in _DARKNET:
            return None
        pairs = [x.partition("=") for x in read_lines(self._source)]
        names = [value.strip() for key, _, value in pairs if key.strip() == "names"]
        return locate(names[0], [self._source.parent])


def _common_end(a: tuple[str, ...], b: tuple[str, ...]) -> int:
    """How many parts two paths have in common at their ends."""
    pairs = list(zip(a[::-1], b[::-1]))
    return next((i for i, (x, y) in enumerate(pairs) if x != y), len(pairs))
