"""
What a model needs of data sets, checked before a training: outlines, keypoints, semantic labels,
and limits that are wide enough.
"""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from torch.utils.data import Dataset

from ..errors import InputError, shown
from .checks import first_few
from .fields import runs_fault
from .image_reading import plain_path

logger = logging.getLogger(__name__)


# Architectures that learn neither masks nor keypoints, whatever their keys say: Detectron2's, and
# this project's.
_OF_BOXES = ("RetinaNet", "FCOS", "ProposalNetwork", "SemanticSegmentor", "OHEMRetinaNet")


def check_learned(cfg: CfgNode, train: Sequence[str], test: Sequence[str]) -> None:
    """
    Make sure that data sets have the masks and keypoints that the model of a YAML config learns.

    Args:
        cfg: the config.
        train: data sets to train on.
        test: those to evaluate with, which may be looked into for names of keypoints.

    Raises:
        InputError: they have not.
    """
    if cfg.MODEL.META_ARCHITECTURE in _OF_BOXES:
        return
    if cfg.MODEL.MASK_ON:
        check_annotated(train, "segmentation", "MODEL.MASK_ON is True", "MODEL.MASK_ON False")
        if cfg.INPUT.MASK_FORMAT == "polygon":
            check_mask_format(train, "INPUT.MASK_FORMAT", "'bitmask'")
    if cfg.MODEL.KEYPOINT_ON:
        words = "MODEL.KEYPOINT_ON is True", "MODEL.KEYPOINT_ON False"
        check_annotated_keypoints(train, test, *words)


def by_address(names: Sequence[str]) -> list[str]:
    """Those of data sets that were given by address, each once."""
    return [name for name in dict.fromkeys(names) if "://" in name]


def _by_coco(names: Sequence[str]) -> list[str]:
    """Those that are evaluated by COCO's metrics, which also look at outlines and keypoints."""
    evaluator = {n: MetadataCatalog.get(n).get("evaluator_type") for n in names}
    return [name for name, kind in evaluator.items() if kind == "coco"]


def records_of(name: str) -> list[dict]:
    """
    The images of a data set; none of one of torch's, which may have no end.

    Raises:
        InputError: what is registered returns something else than records.
    """
    records = DatasetCatalog.get(name)
    if isinstance(records, Dataset):
        return []
    if isinstance(records, str) or not isinstance(records, Sequence):
        raise InputError(
            f"the function that is registered for the data set {name!r} returns {_kind(records)}, "
            "expected a list of dicts, one for each image"
        )
    for record in records:
        if not isinstance(record, Mapping):
            raise InputError(
                f"the data set {name!r} has {shown(record)} for an image, expected a dict"
            )
    return list(records)


def _kind(value: object) -> str:
    return "None" if value is None else f"a {type(value).__name__}"


def _objects(name: str, crowds: bool) -> Iterator[tuple[dict, dict]]:
    """The image and the annotation of each object; without crowds, which no model learns."""
    for record in records_of(name):
        for annotation in record.get("annotations", ()):
            if crowds or not annotation.get("iscrowd"):
                yield record, annotation


def check_annotated(
    names: Sequence[str], field: str, found: str, expected: str, testing: bool = False
) -> None:
    """
    Make sure that each object of data sets has what a model learns.

    Of keypoints in a data set that is registered by name, some objects may have none: Detectron2
    leaves out images with too few.

    Args:
        names: data sets.
        field: of an annotation in Detectron2's form, such as "segmentation".
        found: the setting that asks for it, as the beginning of a sentence.
        expected: the setting that does not.
        testing: whether they are evaluated by it, not learned from. Then crowds count, too, and
            only sets that COCO's metrics evaluate are looked at.

    Raises:
        InputError: objects lack it, or it is unusable.
    """
    for name in _by_coco(names) if testing else dict.fromkeys(names):
        objects = list(_objects(name, crowds=testing))
        faults = [
            f"{plain_path(str(record.get('file_name')))}: {fault}"
            for record, annotation in objects
            if (fault := _fault(field, record, annotation))
        ]
        if not faults:
            continue
        has_any = any(field in a or field in a.get("unusable", {}) for _, a in objects)
        if has_any and field == "keypoints" and "://" not in name:
            continue
        if not has_any:
            what = f"no object of the data set {name!r} has {field!r}"
        else:
            what = (
                f"{len(faults)} of {len(objects)} objects of the data set {name!r} have no usable "
                f"{field!r} ({first_few(faults)})"
            )
        raise InputError(f"{found}, but {what}: expected {expected}, or other annotations")


def _fault(field: str, record: dict, annotation: dict) -> str:
    value = annotation.get(field)
    if value is None:
        return annotation.get("unusable", {}).get(field) or f"an object without {field!r}"
    if field == "segmentation" and isinstance(value, dict):
        if not {"size", "counts"} <= value.keys():
            return "an RLE without its size or its counts"
        if "height" in record and "width" in record:
            return runs_fault(value, record["height"], record["width"])
    return ""


def check_objects(
    train: Sequence[str], test: Sequence[str], min_keypoints: int = 0, key: str = ""
) -> None:
    """
    Make sure that something is left to train on and to evaluate with: Detectron2 leaves out images
    whose objects are all crowds, or have too few keypoints, and metrics have no result where all
    are to be ignored, or, in PASCAL VOC's, difficult.

    Args:
        train: data sets to train on. If one of them is no address, none is looked at.
        test: those to evaluate with; those that are no addresses are not looked at.
        min_keypoints: how many have to be visible in an image to train on.
        key: where the config says so.

    Raises:
        InputError: nothing is left.
    """
    names = by_address(train)
    objects = [x for name in names for x in _objects(name, crowds=False)]
    if names and len(names) == len(set(train)):
        if not objects:
            raise InputError(
                f"{_quoted(names)} has no object but crowds and regions to ignore: expected "
                "objects to train on"
            )
        counts: Counter[str] = Counter()
        for record, annotation in objects:
            points = annotation.get("keypoints", ())[2::3]
            counts[record["file_name"]] += sum(v > 0 for v in points)
        if max(counts.values()) < min_keypoints:
            raise InputError(
                f"{_quoted(names)} has no image with {min_keypoints} visible keypoints or more, "
                f"the number that {key} asks for: expected some, with a visibility of 1 or 2"
            )
    for name in by_address(test):
        # Of PASCAL VOC's metric, those that are difficult do not count either.
        by_voc = MetadataCatalog.get(name).get("evaluator_type") == "pascal_voc"
        if all(by_voc and a.get("difficult") for _, a in _objects(name, crowds=False)):
            reason = "difficult or to be ignored" if by_voc else "crowds or regions to ignore"
            raise InputError(
                f"the data set {name!r} has no object to evaluate with: all are {reason}"
            )


def _quoted(names: Sequence[str]) -> str:
    return f"the training set {' with '.join(map(repr, names))}"


def check_mask_format(names: Sequence[str], key: str, expected: str) -> None:
    """
    Make sure that outlines are polygons.

    Args:
        names: data sets to train on.
        key: where the config says that they are.
        expected: what it should say else.

    Raises:
        InputError: some are run-length encodings.
    """
    for name in dict.fromkeys(names):
        runs = [
            plain_path(str(record.get("file_name")))
            for record, annotation in _objects(name, crowds=False)
            if isinstance(annotation.get("segmentation"), dict)
        ]
        if runs:
            raise InputError(
                f"{key} is 'polygon', but {len(runs)} objects of the data set {name!r} have "
                f"run-length encodings, RLE ({first_few(list(dict.fromkeys(runs)))}): expected "
                f"{expected}"
            )


def check_annotated_keypoints(
    train: Sequence[str], test: Sequence[str], found: str, expected: str
) -> None:
    """
    Make sure that each object has the same keypoints, whose names are known.

    Args:
        train: data sets to train on.
        test: those to evaluate with.
        found: the setting that asks for keypoints, as the beginning of a sentence.
        expected: the setting that does not.

    Raises:
        InputError: it has not.
    """
    check_annotated(train, "keypoints", found, expected)
    first: tuple[str, list[str]] | None = None
    for name in dict.fromkeys([*train, *_by_coco(test)]):
        names = MetadataCatalog.get(name).get("keypoint_names")
        if not names:
            if name not in train:
                continue  # which the check of the test sets will name
            where = f"no category of the data set {name!r} has 'keypoints', the list of their names"
            if "://" not in name:
                where = f"the metadata of the data set {name!r} have no keypoint_names"
            raise InputError(f"{found}, but {where}: expected one, or {expected}")
        if MetadataCatalog.get(name).get("keypoint_flip_map") is None and name in train:
            raise InputError(
                f"{found}, but the metadata of the data set {name!r} have no keypoint_flip_map, "
                f"the pairs of left and right: expected some, or [] if there are none"
            )
        first = first or (name, names)
        if names != first[1]:
            raise InputError(
                f"the data set {name!r} has the keypoints {', '.join(names)}, expected those of "
                f"{first[0]!r} in the same order: {', '.join(first[1])}"
            )


def check_semantic_labels(names: Sequence[str], found: str) -> None:
    """
    Make sure that each image has semantic labels.

    Args:
        names: data sets to train on.
        found: the setting that asks for them, as the beginning of a sentence.

    Raises:
        InputError: some have none.
    """
    for name in dict.fromkeys(names):
        records = records_of(name)
        lacking = sum("sem_seg_file_name" not in record for record in records)
        if lacking:
            raise InputError(
                f"{found}, which learns semantic labels, too (sem_seg): {lacking} of "
                f"{len(records)} images of the data set {name!r} have none, expected another "
                "model, or a data set that is registered with its sem_seg_file_name"
            )


def check_image_counts(names: Sequence[str], key: str, number: int) -> None:
    """
    Make sure that data sets say how many images each class is in, by which the federated loss
    chooses classes.

    Args:
        names: data sets to train on.
        key: the setting that asks for it.
        number: how many classes the model has.

    Raises:
        InputError: they do not, or of other classes.
    """
    for name in dict.fromkeys(names):
        counts = MetadataCatalog.get(name).get("class_image_count")
        if counts is None or len(counts) != number:
            has = "no" if counts is None else f"{len(counts)} entries of"
            raise InputError(
                f"{key} is True, but the metadata of the data set {name!r} have {has} "
                f"class_image_count: expected False, or that of {number} classes, as those of LVIS "
                "have it"
            )


def warn_without_pairs(names: Sequence[str], key: str) -> None:
    """
    Say so if images are flipped, but no keypoints are known to change places.

    Args:
        names: data sets to train on.
        key: what to set so that images are not flipped.
    """
    for name in dict.fromkeys(names):
        metadata = MetadataCatalog.get(name)
        points = metadata.get("keypoint_names")
        if points and not metadata.get("keypoint_flip_map"):
            logger.warning(
                f"Images of the data set {name!r} are flipped, but no names of keypoints are a "
                f"pair of left and right: {', '.join(points)}. If some are left and right of each "
                f"other, name them so ('left_eye', 'right_eye'), or set {key}"
            )


def warn_of_tested_on_training(
    test_key: str, test: Sequence[str], train_key: str, train: Sequence[str]
) -> None:
    """
    Say so if a data set to evaluate with is one to train on.

    Args:
        test_key, train_key: where the config names them.
        test, train: the data sets.
    """
    if both := [x for x in dict.fromkeys(test) if x in train]:
        logger.warning(
            f"{test_key} has {', '.join(map(repr, both))}, which {train_key} has, too: its results "
            "are of images that the model learns from, and better than those on new images"
        )


def warn_of_classes_without_objects(train: Sequence[str]) -> None:
    """
    Name the classes that cannot be learned.

    Args:
        train: data sets to train on. If one of them is no address, none is looked at.
    """
    names = by_address(train)
    if not names or len(names) < len(set(train)):
        return
    classes = MetadataCatalog.get(names[0]).thing_classes
    found = {x["category_id"] for name in names for _, x in _objects(name, crowds=False)}
    if absent := [x for i, x in enumerate(classes) if i not in found]:
        logger.warning(
            f"{len(absent)} of {len(classes)} classes have no object in {_quoted(names)}, so that "
            f"the model cannot learn them: {first_few(absent)}"
        )


def warn_of_limit(names: Sequence[str], key: str, limit: int) -> None:
    """
    Say so if images have more objects than a model may detect.

    Args:
        names: data sets to evaluate with; those that are no addresses are not looked at.
        key: where the config limits detections.
        limit: how many it admits.
    """
    for name in by_address(names):
        counts = [len(r["annotations"]) for r in DatasetCatalog.get(name)]
        more = [n for n in counts if n > limit]
        if more:
            logger.warning(
                f"{len(more)} images of the data set {name!r} have more than {limit} objects, up "
                f"to {max(more)}, but {key} is {limit}: the model can find no more in an image"
            )
