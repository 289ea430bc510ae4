"""Images that several data sets share, by their bytes."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

from .checks import first_few
from .image_reading import ImageFile, plain_path

# Of each data set, the files that were read to their ends, by path.
Files = Mapping[str, dict[str, ImageFile]]


def copies_in_training(train: Files, test: Files) -> list[str]:
    """
    Find images of test sets that are also in a training set, by their bytes.

    Args:
        train: those of the training sets.
        test: those of the test sets. Those that are training sets too are not looked at: that
            is meant so.

    Returns:
        a line for each pair of sets that share images.
    """
    lines = []
    for other, known in train.items():
        by_digest = {file.digest: path for path, file in known.items() if file.digest}
        for name in (x for x in test if x not in train):
            shared = [
                f"{path} and {by_digest[file.digest]}"
                for path, file in test[name].items()
                if file.digest in by_digest
            ]
            if shared:
                lines.append(
                    f"{len(shared)} images of the test set {name!r} are also in the training set "
                    f"{other!r} ({first_few(shared)}): its results are better than those on new "
                    "images"
                )
    return lines


def shared_images(kind: str, files: Files, records: Mapping[str, Sequence[dict]]) -> list[str]:
    """
    Find images that are in several data sets of one list, where each set is taken to name all
    objects of its images.

    Args:
        kind: of the list: "training" or "test". Test sets are evaluated one by one, so that only
            other objects are a matter of theirs.
        files: those of the data sets of this list.
        records: their records.

    Returns:
        a line for each pair of sets that share images.
    """
    lines = []
    for first, second in combinations(files, 2):
        pairs = list(_same_bytes(files[first], files[second]))
        classes = [_classes(records[name]) for name in (first, second)]
        other = [(a, b) for a, b in pairs if classes[0].get(a) != classes[1].get(b)]
        sets = f"both of the {kind} sets {first!r} and {second!r}"
        named = first_few([a if a == b else f"{a} and {b}" for a, b in other or pairs])
        if other:
            becomes = "is background in it" if kind == "training" else "counts as none in it"
            lines.append(
                f"{len(other)} images are in {sets}, with other objects in each ({named}): an "
                f"object that one of them does not name {becomes}; expected one set with the "
                "objects of both"
            )
        elif pairs and kind == "training":
            lines.append(f"{len(pairs)} images are in {sets} ({named}): each counts twice")
    return lines


def _same_bytes(a: dict[str, ImageFile], b: dict[str, ImageFile]) -> Iterator[tuple[str, str]]:
    by_digest = {file.digest: path for path, file in a.items() if file.digest}
    for path, file in b.items():
        if file.digest in by_digest:
            yield by_digest[file.digest], path


def _classes(records: Sequence[dict]) -> dict[str, Counter]:
    """How many objects of each class an image has, by its path."""
    return {
        plain_path(record["file_name"]): Counter(
            a["category_id"] for a in record.get("annotations", ()) if not a.get("iscrowd")
        )
        for record in records
    }
