"""Data sets by address in Detectron2's catalogs: what `addresses` reads is registered here."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import count, product
from typing import NamedTuple

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from ..errors import InputError
from .addresses import ADDRESSES, Loaded, evaluator_type, load_address, part_of
from .builtin import register_builtin
from .checks import UNREADABLE, read_to_end
from .class_names import differ_in_case, normalise
from .copies import copies_in_training, shared_images
from .findings import Findings
from .image_reading import ImageFile, plain_path
from .look_alikes import drawn_as, look_alikes
from .needs import by_address, check_learned, records_of
from .parts import overlap
from .registered import check_records, look_at_images, opened_by_detectron2

logger = logging.getLogger(__name__)


_OF_COCO = 80  # the classes that Detectron2's configs have unless they say otherwise


class Registered(NamedTuple):
    """What data sets that were given by address say of the model."""

    classes: list[str]
    num_keypoints: int | None


class ClassesOfWeights(NamedTuple):
    """The classes that weights were trained for, in the order of the model's labels."""

    file: str
    names: list[str]
    is_start: bool  # whether a training starts from them, which may be one of other classes


def register_datasets(cfg: CfgNode, of_weights: ClassesOfWeights | None = None) -> None:
    """
    Register the data sets that the config names: those by address, and those that come with the
    project. Set ``NUM_CLASSES``, and ``NUM_KEYPOINTS`` if there are any, from those by address.

    The training sets decide the classes and their order; where none is given, the test sets. Where
    the weights name their classes, these do.

    Args:
        cfg: a config that is not frozen. Its ``DATASETS`` are left as they are.
        of_weights: what is known of the weights.

    Raises:
        InputError: an address or a file behind it is wrong, or a test set has other classes than
            the training set, or than the weights.
    """
    if cfg.is_frozen() and any("://" in x for x in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)):
        raise InputError(
            "register_datasets was given a config that is frozen, expected a call before "
            "cfg.freeze(): it sets the number of classes"
        )
    unreadable = cfg.DATASETS.get("UNREADABLE_IMAGES", "error")
    registered = register_by_name(cfg.DATASETS.TRAIN, cfg.DATASETS.TEST, unreadable, of_weights)
    if registered is None:
        return
    check_learned(cfg, by_address(cfg.DATASETS.TRAIN), by_address(cfg.DATASETS.TEST))
    for name in ("ROI_HEADS", "RETINANET"):
        head, number = cfg.MODEL[name], len(registered.classes)
        warn_of_other_number(f"MODEL.{name}.NUM_CLASSES", head.NUM_CLASSES, number)
        head.NUM_CLASSES = number
    if registered.num_keypoints is not None:
        cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS = registered.num_keypoints


def warn_of_other_number(key: str, found: int, number: int) -> None:
    """Warn if a number of classes was set, to another one than that of the data, which is taken."""
    if found not in (_OF_COCO, number):
        logger.warning(f"{key} is {found}, and the data have {number} classes: {number} is taken")


def register_by_name(
    train: Sequence[str],
    test: Sequence[str],
    unreadable: str = "error",
    of_weights: ClassesOfWeights | None = None,
) -> Registered | None:
    """
    Register data sets by their names; see `register_datasets`.

    Args:
        train: names of the data sets to train on.
        test: names of those to evaluate with.
        unreadable: ``DATASETS.UNREADABLE_IMAGES``: "error", or "skip" to leave out images that
            cannot be read, or "keep" to leave them to the caller.
        of_weights: what is known of the weights.

    Returns:
        what follows for the model, or None if none of the names is an address.
    """
    if unreadable not in UNREADABLE:
        raise InputError(
            f"DATASETS.UNREADABLE_IMAGES is {unreadable!r}, expected 'error' or 'skip' (in a "
            "Python config: dataloader.unreadable_images)"
        )
    names = (*train, *test)
    register_builtin(names)
    loaded = {name: _named(name, unreadable) for name in dict.fromkeys(names) if "://" in name}
    for split in (train, test):
        for name, times in Counter(split).items():
            if times > 1:
                logger.warning(f"the data set {name!r} is named {times} times, and counts as often")
    if not loaded:
        return None
    _check_parts(train, test)
    for name in names:
        if name not in loaded and name not in DatasetCatalog:
            raise unknown_dataset(name)
    for name, data in loaded.items():
        _log(name, data.findings)
    _check_names(loaded)
    classes = _decide_classes(train or test, loaded)
    # The labels of registered data sets are what they are.
    if of_weights is not None and all(name in loaded for name in (train or test)):
        classes = _as_in_weights(of_weights, classes, loaded)
    for name in dict.fromkeys(names):
        if name in loaded:
            _register(name, loaded[name], classes)
        elif _registered_classes(name) not in (None, classes):
            raise InputError(
                f"the data set {name!r} has other classes than {', '.join(loaded)}, which has "
                f"{', '.join(classes)}: give both the training and the test set"
            )
    logger.info(f"{len(classes)} classes: {', '.join(classes)}")
    keypoints = [data.metadata.get("keypoint_names") for data in loaded.values()]
    counts = [len(names) for names in keypoints if names is not None]
    return Registered(classes, counts[0] if counts else None)


def read_all_images(train: Sequence[str], test: Sequence[str], unreadable: str = "error") -> None:
    """
    Read every image of data sets to its end, before a training. What was read once is not read
    again while the file stays the same. Images that a test set shares with a training set are
    named, and those that two sets of one list share.

    Of data sets that are registered with Detectron2, these are the images that its `DatasetMapper`
    will open, as far as they are files of this machine. Their sizes are compared as it does, and
    those that it reads otherwise than they are shown are named.

    Args:
        train: names of the data sets to train on.
        test: names of those to evaluate with.
        unreadable: see `register_by_name`. Images that are left out are taken from the catalog.

    Raises:
        InputError: some cannot be read, and are not to be left out, or have another size.
    """
    known: dict[str, dict[str, ImageFile]] = {}
    used: dict[str, list[dict]] = {}
    for name in dict.fromkeys((*train, *test)):
        records, findings = records_of(name), Findings()
        is_address = "://" in name
        if not is_address:
            check_records(name, records, _registered_classes(name) or [], name in test)
        read = records if is_address else opened_by_detectron2(records, training=name not in test)
        if not read:
            continue
        look = read_to_end if is_address else look_at_images
        left, known[name] = look(name, read, findings, unreadable)
        used[name] = left
        _log(name, findings)
        if len(left) < len(read):
            bad = {path for path, file in known[name].items() if file.problem}
            others = [r for r in records if r.get("file_name") not in bad]
            _store(name, left if is_address else others)
    of_train, of_test = ({n: known[n] for n in x if n in known} for x in (train, test))
    for line in (
        *shared_images("training", of_train, used),
        *shared_images("test", of_test, used),
        *copies_in_training(of_train, of_test),
    ):
        logger.warning(line)


def unknown_dataset(name: str) -> InputError:
    """Return what to raise for a data set that is neither registered nor an address."""
    return InputError(
        f"the data set {name!r} is not known, expected one that is registered with Detectron2, or "
        f"{ADDRESSES}"
    )


def _decide_classes(names: Sequence[str], loaded: dict[str, Loaded]) -> list[str]:
    for name in names:
        if name not in loaded and (classes := _registered_classes(name)) is not None:
            return classes
    return list(dict.fromkeys(c for name in names if name in loaded for c in loaded[name].classes))


def _as_in_weights(
    of_weights: ClassesOfWeights, classes: list[str], loaded: dict[str, Loaded]
) -> list[str]:
    """The classes in the order of the weights, whose places in the model mean their names."""
    file, names, is_start = of_weights
    known = list(map(normalise, names))
    if known == classes or len(set(known)) < len(known):
        return classes
    is_other_order = sorted(known) == sorted(classes)
    if is_other_order:
        logger.info(f"The classes are taken by their names, in the order of {file!r}")
    if is_other_order or is_start:
        return known if is_other_order else classes
    for name, data in loaded.items():
        for record in data.records:
            for found in (a["category_id"] for a in record["annotations"]):
                if found not in known:
                    near = next((x for x in known if x.casefold() == found.casefold()), None)
                    raise InputError(
                        f"the data set {name!r} has an object of the class {found!r} in "
                        f"{plain_path(record['file_name'])}, but {file!r} was trained for "
                        f"{', '.join(known)}: expected one of these"
                        f"{f', such as {near!r}' if near else ''}"
                    )
    if not (absent := [x for x in known if x not in classes]):
        return known
    logger.warning(
        f"{file!r} was trained for {len(known)} classes, and the data has none of "
        f"{', '.join(absent)}: the others are taken by their names, and what is found of these has "
        "no ground truth"
    )
    return known


def _registered_classes(name: str) -> list[str] | None:
    if name not in DatasetCatalog:
        return None
    return MetadataCatalog.get(name).get("thing_classes")


def _log(name: str, findings: Findings) -> None:
    for line in findings.summary():
        logger.warning(f"{name}: {line}")


def _named(name: str, unreadable: str) -> Loaded:
    """Load a data set, and name it in what is wrong with its files."""
    try:
        return load_address(name, unreadable)
    except InputError as e:
        if repr(name) in str(e):
            raise
        raise InputError(f"the data set {name!r}: {e}") from e


def _store(name: str, records: list[dict]) -> None:
    """Put records into the catalog, in the place of those that are there."""
    if name in DatasetCatalog:
        DatasetCatalog.remove(name)
    DatasetCatalog.register(name, lambda: [_copied(record) for record in records])


def _copied(record: dict) -> dict:
    """What may be changed without a trace in the catalog, but for outlines and keypoints."""
    if "annotations" not in record:
        return dict(record)
    return {**record, "annotations": [dict(x) for x in record["annotations"]]}


def _check_names(loaded: dict[str, Loaded]) -> None:
    """Say which classes of several data sets differ in upper and lower case only, or look alike."""
    counts: Counter[str] = Counter()
    for data in loaded.values():
        counts.update(dict.fromkeys(data.classes, 0))
        counts.update(a["category_id"] for r in data.records for a in r["annotations"])
    said = {x.words for data in loaded.values() for x in data.findings}
    for kind, found in (
        ("differ in upper and lower case only", differ_in_case(counts)),
        ("look the same", look_alikes(counts)),
    ):
        for words in found:
            if words not in said:
                having = [x for x, y in loaded.items() if any(repr(c) in words for c in y.classes)]
                logger.warning(f"class names that {kind}: {words} (in {', '.join(having)})")


def _check_parts(train: Sequence[str], test: Sequence[str]) -> None:
    """No image may be in the training part and in the test part of a data set."""
    for a, b in product(train, test):
        if "://" in a and "://" in b and a != b:
            (whole_a, part_a), (whole_b, part_b) = part_of(a), part_of(b)
            if whole_a == whole_b and part_a and part_b and overlap(part_a, part_b):
                raise InputError(
                    f"the data sets {a!r} and {b!r} have images in common, expected parts of it "
                    "that have none, such as part=train:0.8 and part=test:0.2"
                )


def _register(name: str, data: Loaded, classes: list[str]) -> None:
    folded = {drawn_as(c).casefold(): c for c in classes}
    for record in data.records:
        for annotation in record["annotations"]:
            found = annotation["category_id"]
            if found not in classes:
                near = folded.get(drawn_as(found).casefold())
                hint = f" (it has {near!r})" if near else ""
                if near and drawn_as(near) == drawn_as(found):
                    hint = f" (it has {near!r}, which looks the same)"
                raise InputError(
                    f"the data set {name!r} has an object of the class {found!r} in "
                    f"{record['file_name']}, which the training set does not know{hint}: "
                    f"expected one of {', '.join(classes)}, or the training set to be given as well"
                )
            annotation["category_id"] = classes.index(found)
    if name in DatasetCatalog:
        MetadataCatalog.remove(name)
    _store(name, data.records)
    metadata = data.metadata
    if ids := metadata.get("category_ids"):
        labels = {i: label for label, i in enumerate(_ids_of(classes, ids))}
        if all(type(i) is int for i in labels):
            # Evaluators then write detections with the ids of the user's file.
            metadata = {**metadata, "thing_dataset_id_to_contiguous_id": labels}
    MetadataCatalog.get(name).set(
        thing_classes=classes, evaluator_type=evaluator_type(name), **metadata
    )


def _ids_of(classes: Sequence[str], ids: Mapping[str, int | str]) -> list[int | str]:
    """The ids of classes in a file, and others for those that it has not."""
    unused = (i for i in count(1) if i not in ids.values())
    return [ids[x] if x in ids else next(unused) for x in classes]
