"""Data sets as YOLO's users have them: a text file of normalised boxes for each image."""

# Own code: supervision's reader rounds boxes to float32, knows neither lists of images nor
# darknet's files, and its errors name neither file nor line.

import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ..errors import InputError
from .class_names import normalise, of_one_name
from .file_names import as_on_disk, composed, in_other_capitals, note_capitals
from .findings import Findings
from .image_files import (
    Described,
    ImageFolder,
    base_name,
    image_folders,
    image_size,
    images_below,
    is_image,
)
from .text_files import read_lines, read_yaml
from .yolo_columns import Columns
from .yolo_labels import read_labels
from .yolo_names import NAMES, compare_lists, read_names

_YAML, _DARKNET = (".yaml", ".yml"), (".data",)
_SPLITS = ("train", "val", "valid", "test")  # "valid" is another word for "val"


def load_yolo(
    source: Path,
    split: str | None = None,
    images: str | None = None,
    findings: Findings | None = None,
) -> tuple[list[dict], list[str], dict]:
    """
    Read a data set in Ultralytics' layout (``data.yaml``), in darknet's (``obj.data``), or a folder
    with ``classes.txt`` or ``obj.names``. The labels of an image are in a file of its stem with the
    suffix ``.txt``: where the last ``/images/`` of its path is replaced by ``/labels/``, or beside
    the image. An image without such a file has no objects.

    Args:
        source: such a file, or its folder.
        split: "train", "val" or "test". By default, the only one there is.
        images: the folder of the images, where it is another one than the files say.
        findings: where to put what is odd.

    Returns:
        Detectron2's data set dicts, with the class's name in place of ``category_id``; the class
        names, in the order of their numbers; and further metadata: ``category_ids``, the number of
        each name.

    Raises:
        InputError: a file is missing or malformed. Of labels, the line is named.
    """
    findings = Findings() if findings is None else findings
    source, names, splits, keypoints = described_by = describe(source, findings)
    root = source.parent
    where, entries = choose_split(source, splits, split)
    files = list_images(described_by, where, images, findings)
    if not files:
        raise InputError(f"{source}: there are no images in {where!r}, {', '.join(entries)}")

    records: list[dict] = []
    without = []
    described = Described()
    labels_read: dict[Path, Path] = {}
    columns = Columns()
    of_images = find_labels(files, findings)
    for image, listed in files:
        described.add(image, listed)
        labels = of_images.get(image)
        annotations = []
        width, height = image_size(image)
        if labels is None:
            without.append(image)
        else:
            if labels_read.setdefault(labels, image) != image:
                raise InputError(
                    f"{labels} may be for {labels_read[labels]} and {image}, expected one image "
                    "of this stem"
                )
            annotations = read_labels(labels, names, width, height, keypoints, columns, findings)
        records.append(
            {
                "file_name": str(image),
                "image_id": _image_id(image, root),
                "annotations": annotations,
            }
        )
    if len(without) == len(files):
        tried = label_files(files[0][0], Path(files[0][1]))
        raise InputError(
            f"{source}: no image of {where!r} has a file of labels, expected that of "
            f"{files[0][0]} to be {' or '.join(map(str, tried))}"
        )
    for image in without:
        findings.add("image without a file of labels, taken to be without objects", image)
    columns.check(findings)
    _find_unused(set(labels_read), findings)
    beside = {y for x in labels_read for y in (x.parent, *_folder_of_labels(x))}
    compare_lists(names, source, [root, *sorted(beside)], findings)
    used = {a["category_id"] for record in records for a in record["annotations"]}
    if 0 in names and len(names) > 2 and {*names.values()} - used == {names[0]}:
        findings.add(
            "first class without an object, where all others have some, as if numbers began at 1",
            source,
            f"0, {names[0]!r}",
        )
    known = [name for _, name in sorted(names.items())]
    return records, list(dict.fromkeys(known)), {"category_ids": {n: i for i, n in names.items()}}


class Description(NamedTuple):
    """What the file says that describes a data set."""

    source: Path
    names: dict[int, str]  # of the classes, by number
    splits: dict[str, list[str]]  # folders or lists of images, as they are written
    keypoints: int | None  # columns of labels; None if nobody says


def describe(source: Path, findings: Findings) -> Description:
    """
    Read the file that describes a data set; see `load_yolo`.

    Raises:
        InputError: it is missing or malformed.
    """
    source = _find_source(source)
    if source.suffix.lower() in _YAML:
        return Description(source, *_read_yaml(source, findings))
    if source.suffix.lower() in _DARKNET:
        return Description(source, *_read_darknet(source, findings), None)
    return Description(source, read_names(source, findings), _splits_of_folder(source), None)


def list_images(
    described: Description, split: str, images: str | None, findings: Findings
) -> list[tuple[Path, str]]:
    """
    Return the images of a split, and the paths by which their labels are found.

    Args:
        described: the data set.
        split: one of its splits.
        images: the folder of the images, where it is another one than the files say.
        findings: where to put what is odd.

    Raises:
        InputError: some are missing.
    """
    source, _, splits, _ = described
    folders = [ImageFolder(x) for x in image_folders(source.parent, images)]
    others = {entry: name for name, of in splits.items() if name != split for entry in of}
    given = folders if images else []
    return _list_images(source, split, splits[split], others, given, folders, findings)


def _find_source(source: Path) -> Path:
    """The file that describes the data set."""
    if source.is_file():
        if source.suffix.lower() not in (*_YAML, *_DARKNET, ".names", ".txt"):
            raise InputError(f"{source} is none of YOLO's files, expected a data.yaml or obj.data")
        return source
    if not source.is_dir():
        raise InputError(f"{source} does not exist, expected a data.yaml, an obj.data or a folder")
    files = sorted(x for x in source.iterdir() if x.is_file())
    for found in (
        [x for x in files if x.stem in ("data", "dataset") and x.suffix.lower() in _YAML],
        [x for x in files if x.suffix.lower() in _YAML],
        [x for x in files if x.suffix.lower() in _DARKNET],
        [x for x in files if x.name in NAMES or x.suffix.lower() == ".names"],
        sorted(x for name in NAMES for x in source.glob(f"labels/{name}")),
    ):
        if len(found) > 1:
            raise InputError(
                f"{source} has {', '.join(x.name for x in found)}: expected the address of one"
            )
        if found:
            return found[0]
    raise InputError(
        f"{source} has no data.yaml, obj.data, obj.names or classes.txt, one of which was expected"
    )


def _read_yaml(
    file: Path, findings: Findings
) -> tuple[dict[int, str], dict[str, list[str]], int | None]:
    # As texts, since to YAML the names yes, no, on and 007 are none.
    content, as_texts = read_yaml(file)
    if not isinstance(content, dict):
        raise InputError(f"{file} has {content!r}, expected the keys train, val and names")
    names = content.get("names")
    if isinstance(names, dict):
        # Ultralytics takes texts that are numbers, too.
        pairs = [(int(k) if str(k).isdecimal() else k, name) for k, name in names.items()]
        if len(dict(pairs)) < len(pairs):
            raise InputError(f"{file}: names has a number twice, expected each once")
    elif isinstance(names, list):
        pairs = list(enumerate(names))
    else:
        raise InputError(f"{file}: names is {names!r}, expected a list of the class names")
    for number, name in pairs:
        if not isinstance(number, int) or isinstance(number, bool) or number < 0:
            raise InputError(f"{file}: names has the key {number!r}, expected numbers from 0")
        if name is None or isinstance(name, (dict, list)) or not normalise(str(name)):
            raise InputError(f"{file}: the name of class {number} is {name!r}, expected a text")
    if not pairs:
        raise InputError(f"{file}: names is empty, expected a name for each class")
    written = as_texts.get("names")
    written = [*(written.values() if isinstance(written, dict) else written or ())]
    if len(written) == len(pairs):
        pairs = [(number, name) for (number, _), name in zip(pairs, written)]
    numbers = {i: str(name) for i, name in pairs}
    for words in of_one_name(numbers):
        findings.add("numbers of classes that have the same name, taken as one", file, words)
    if content.get("nc", len(pairs)) != len(pairs):
        findings.add("number of classes that is not that of the names", file,
                     f"nc is {content['nc']!r}, and there are {len(pairs)} names")  # fmt: skip
    path = content.get("path")
    if path is not None and not isinstance(path, str):
        raise InputError(f"{file}: path is {path!r}, expected a folder")
    splits = {}
    for split in _SPLITS:
        entries = content.get(split)
        if entries is None or entries == "" or entries == []:
            continue
        entries = entries if isinstance(entries, list) else [entries]
        if not all(isinstance(x, str) for x in entries):
            raise InputError(f"{file}: {split} is {entries!r}, expected folders or lists of images")
        splits[split] = [str(PurePosixPath(path or "", x)) for x in entries]
    keypoints = _keypoint_columns(content["kpt_shape"], file) if "kpt_shape" in content else None
    return {i: normalise(n) for i, n in numbers.items()}, splits, keypoints


def _keypoint_columns(shape: object, file: Path) -> int:
    """How many columns keypoints have: by kpt_shape, which is [number of them, 2 or 3]."""
    if not shape:
        return 0
    if (
        not isinstance(shape, list)
        or len(shape) != 2
        or not all(type(x) is int and x >= 0 for x in shape)
    ):
        raise InputError(f"{file}: kpt_shape is {shape!r}, expected [number of keypoints, 2 or 3]")
    return shape[0] * shape[1]


def _read_darknet(file: Path, findings: Findings) -> tuple[dict[int, str], dict[str, list[str]]]:
    content: dict[str, str] = {}
    for number, line in enumerate(read_lines(file), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            key, equals, value = line.partition("=")
            if not equals:
                raise InputError(f"{file}, line {number}: {line!r}, expected 'key = value'")
            key, value = key.strip(), value.strip()
            if content.setdefault(key, value) != value:
                raise InputError(
                    f"{file}, line {number}: the key {key!r} stands twice, with other content: "
                    "expected it once"
                )
    if "names" not in content:
        raise InputError(f"{file} has no 'names = <file>', expected the names of the classes")
    names = locate(content["names"], [file.parent], findings)
    if names is None:
        raise InputError(f"{file}: its names, {content['names']}, do not exist")
    known = read_names(names, findings)
    if content.get("classes", str(len(known))) != str(len(known)):
        words = f"classes is {content['classes']!r}, and there are {len(known)} names"
        findings.add("number of classes that is not that of the names", file, words)
    return known, {x: [content[x]] for x in _SPLITS if content.get(x)}


def _splits_of_folder(names: Path) -> dict[str, list[str]]:
    """The folders of a data set that has a file of names only."""
    folder = names.parent.parent if names.parent.name == "labels" else names.parent
    splits = {
        split: [str(x)]
        for split in _SPLITS
        for x in (folder / split, folder / "images" / split)
        if x.is_dir()
    }
    return splits or {"train": [str(folder / "images" if (folder / "images").is_dir() else folder)]}


def choose_split(
    source: Path, splits: dict[str, list[str]], split: str | None
) -> tuple[str, list[str]]:
    """
    Return the split that a user means, and its entries.

    Raises:
        InputError: there is none, or none is named among several.
    """
    there = ", ".join(splits) or "none"
    if split is None:
        if len(splits) != 1:
            raise InputError(f"{source} has the splits {there}: expected one, as '?split=train'")
        return next(iter(splits.items()))
    for name in (split, {"val": "valid", "valid": "val"}.get(split, split)):
        if name in splits:
            return name, splits[name]
    raise InputError(f"{source} has no split {split!r}, expected one of {there}")


def locate(path: str, bases: Iterable[Path], findings: Findings | None = None) -> Path | None:
    """
    Return the file or folder that a path means, which may have been written for another folder to
    work in or for another machine: below one of the bases, its last parts are enough. Of a folder,
    whose name may be that of another, two parts.
    """
    given = PurePosixPath(path.replace("\\", "/"))
    bases = list(bases)
    parts = [x for x in given.parts if x not in ("..", "/")]
    places = [(base / given, True) for base in (*bases, Path())]
    for start in range(len(parts)):
        is_enough = start == 0 or len(parts) - start > 1
        places += [(base.joinpath(*parts[start:]), is_enough) for base in bases]
    for look in (as_on_disk, in_other_capitals):
        for place, is_enough in places:
            there = look(str(place))
            if there is None or not (is_enough or os.path.isfile(there)):
                continue
            if look is in_other_capitals and findings is not None:
                note_capitals(there, given, findings)
            return Path(there)
    return None


def _list_images(
    source: Path,
    split: str,
    entries: Sequence[str],
    others: dict[str, str],
    given: Sequence[ImageFolder],
    folders: Sequence[ImageFolder],
    findings: Findings,
) -> list[tuple[Path, str]]:
    """
    The images of a split, and the paths by which their labels are found. ``others``: the split of
    each entry of the other splits.
    """
    files: dict[str, tuple[Path, str]] = {}
    bases = [source.parent]
    for entry in entries:
        found = locate(entry, bases, findings)
        if found is None:
            raise InputError(
                f"{source}: {split} is {entry}, which does not exist, expected a folder or a list "
                f"of images below {source.parent}"
            )
        # Ultralytics takes the path as it is written, too, if it exists; Roboflow means the other.
        parts = PurePosixPath(entry).parts
        second = source.parent.joinpath(*(x for x in parts if x not in ("..", "/")))
        if ".." in parts and second.exists() and not second.samefile(found):
            words = f"{split} is {found}, and there is {second}"
            findings.add("path that may mean another one, which exists, too", source, words)
        for other, name in others.items():
            if other != entry and locate(other, bases) == found:
                raise InputError(
                    f"{source}: neither {split} ({entry}) nor {name} ({other}) exists as it is "
                    f"written, and {found} may be either, expected paths that exist"
                )
        if found.is_dir():
            for image in images_below(given[0].folder if given else found):
                files[str(image)] = (image, str(image))
            continue
        if is_image(found):
            raise InputError(f"{source}: {split} is the image {entry}, expected a folder or a list")
        for number, line in enumerate(read_lines(found), 1):
            if not (name := line.strip()):
                continue
            where = f"{found}, line {number}"
            bases_of = [found.parent, *bases]
            image, listed = _image_of_list(name, bases_of, given, folders, where, findings)
            if str(image) in files:
                findings.add("image listed more than once, taken once", where, name)
            files.setdefault(str(image), (image, listed))
    return list(files.values())


def _image_of_list(
    name: str,
    bases: Sequence[Path],
    given: Sequence[ImageFolder],
    folders: Sequence[ImageFolder],
    where: str,
    findings: Findings,
) -> tuple[Path, str]:
    if not is_image(Path(name)):
        raise InputError(f"{where} has {name!r}, expected the path of an image")
    image = None if given else locate(name, bases, findings)
    if image is not None:
        inside = [os.path.join(os.path.abspath(x), "") for x in (*bases, Path())]
        if not os.path.abspath(image).startswith(tuple(inside)):
            raise InputError(
                f"{where} names the image {name}, which is outside {bases[-1]}: expected one "
                "inside of it, or the folder of the images in the address, '?images=<folder>'"
            )
        return image, str(image)
    for folder in folders:
        near = Path(PurePosixPath(name).parent.name)
        found = folder.by_name(base_name(name), near)
        if not found and (found := folder.in_other_capitals(base_name(name), near)):
            note_capitals(found[0], base_name(name), findings)
        if len(found) == 1:
            # Its labels lie where the list has it.
            labels = locate(str(PurePosixPath(name.replace("\\", "/")).with_suffix(".txt")), bases)
            listed = found[0] if labels is None else labels.with_suffix(found[0].suffix)
            return found[0], str(listed)
    places = ", ".join(str(x.folder) for x in folders)
    raise InputError(f"{where} names the image {name}, which does not exist, nor one in {places}")


def label_files(image: Path, listed: Path) -> list[Path]:
    """Return where the labels of an image may be, in this order."""
    candidates = []
    for path in (listed, image):
        parts = path.parts
        at = [i for i, part in enumerate(parts[:-1]) if part.lower() == "images"]
        if at:
            candidates.append(Path(*parts[: at[-1]], "labels", *parts[at[-1] + 1 :]))
        candidates.append(path)
    return list(dict.fromkeys(x.with_suffix(".txt") for x in candidates))


def find_labels(files: Sequence[tuple[Path, str]], findings: Findings) -> dict[Path, Path]:
    """Return the files of labels of those images that have one; see `list_images`."""
    found: dict[Path, Path] = {}
    for look in (as_on_disk, in_other_capitals):
        taken = {*found.values()}
        for image, listed in ((x, y) for x, y in files if x not in found):
            for path in label_files(image, Path(listed)):
                labels = look(str(path))
                if labels is None or not os.path.isfile(labels) or Path(labels) in taken:
                    continue
                found[image] = Path(labels)
                if look is in_other_capitals:
                    note_capitals(labels, path, findings)
                break
    return found


def _image_id(image: Path, root: Path) -> str:
    try:
        return image.relative_to(root).as_posix()
    except ValueError:
        return str(image)


def _folder_of_labels(file: Path) -> list[Path]:
    """The folder ``labels`` in which a file lies, if any."""
    return [x for x in file.parents if x.name.lower() == "labels"][:1]


def _is_label(file: Path) -> bool:
    """Whether a text begins as labels do, and is no list or note beside images."""
    with file.open(encoding="utf-8", errors="replace") as f:
        words = f.readline().split()
    try:
        return len(words) >= 5 and all(math.isfinite(float(x)) for x in words)
    except ValueError:
        return False


def _find_unused(labels_read: set[Path], findings: Findings) -> None:
    """Labels whose image is not there, in folders of labels, and where they lie beside images."""
    for folder in sorted({x.parent for x in labels_read}):
        small = [x.lower() for x in folder.parts]
        of_labels_alone, beside = "labels" in small, folder
        if of_labels_alone:
            parts = folder.parts
            at = len(parts) - 1 - small[::-1].index("labels")
            beside = Path(*parts[:at], "images", *parts[at + 1 :])
            beside = Path(in_other_capitals(str(beside)) or beside)
        images = (
            {composed(x.stem) for x in beside.iterdir() if is_image(x)}
            if beside.is_dir()
            else set()
        )
        for file in sorted(folder.glob("*.txt")):
            if file in labels_read or file.name in NAMES or composed(file.stem) in images:
                continue
            if of_labels_alone or _is_label(file):
                findings.add("file of labels without an image, left out", file)
