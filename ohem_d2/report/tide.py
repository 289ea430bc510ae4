"""
What kinds of errors the detections of a model are, and what each kind costs in AP: TIDE (Bolya et
al., "TIDE: A General Toolbox for Identifying Object Detection Errors", ECCV 2020).

The figures are those of the authors' program ``tidecv``, also where it is peculiar: see
docs/model_errors.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pycocotools import mask

# In this order; numbers of error types are positions in it. A detection is of one of the first
# five, a label of the last.
ERRORS = ("Cls", "Loc", "Both", "Dupe", "Bkg", "Miss")
_CLS, _LOC, _BOTH, _DUPE, _BKG, _MISS = range(len(ERRORS))
RIGHT = -1  # in place of an error type

FOREGROUND, BACKGROUND = 0.5, 0.1  # IoUs
_MOST_DETECTIONS = 100  # of an image, as COCO's metric has it
_RECALLS = np.array([x / 100 for x in range(101)])


@dataclass(frozen=True)
class Truth:
    """The L labels of an image, and the G regions to ignore. Boxes are XYWH in pixels."""

    # (L, 4) float64 and (L,) int64.
    boxes: np.ndarray
    classes: np.ndarray
    # (G, 4) float64 and (G,) int64.
    regions: np.ndarray
    region_classes: np.ndarray


@dataclass(frozen=True)
class Matches:
    """How the D detections of an image that count belong to its L labels."""

    # (D,): the detections, by falling score: their positions among those given, their classes and
    # scores.
    order: np.ndarray
    classes: np.ndarray
    scores: np.ndarray
    # (D,) int64: the error type of each, or `RIGHT`.
    types: np.ndarray
    # (D,) bool: whether it lies in a region to ignore, and is no error to AP.
    is_ignored: np.ndarray
    # (D,) int64: the label that it finds, or that it would find without its error; -1: none. And
    # the IoU with that, or the highest with any label.
    labels: np.ndarray
    ious: np.ndarray
    # (D,) bool: whether it finds its label once its error is repaired. Otherwise it goes.
    is_repaired: np.ndarray
    # For each detection, the labels of other classes that it covers, by falling IoU.
    others: list[list[int]]
    # (L,): the classes of the labels; whether a detection finds it; and whether it is missed: no
    # repaired detection would find it either.
    label_classes: np.ndarray
    is_found: np.ndarray
    is_missed: np.ndarray


def match(boxes: np.ndarray, classes: np.ndarray, scores: np.ndarray, truth: Truth) -> Matches:
    """
    Match the detections of an image with its labels, at an IoU of 0.5.

    Args:
        boxes: (N, 4) float64, XYWH in pixels.
        classes: (N,) int64.
        scores: (N,) float64.
        truth: its labels.

    Returns:
        the matches of the 100 detections with the highest scores.
    """
    order = np.argsort(-scores, kind="stable")[:_MOST_DETECTIONS]
    boxes, classes, scores = boxes[order], classes[order], scores[order]
    number, of_labels = len(order), len(truth.classes)
    all_ious = iou(boxes, truth.boxes)
    is_same = classes[:, None] == truth.classes
    same_ious, other_ious = all_ious * is_same, all_ious * ~is_same
    labels = np.full(number, -1)
    found_by = np.full(of_labels, -1)
    free = same_ious.copy()
    for i in range(number if of_labels else 0):
        label = int(free[i].argmax())
        if free[i, label] >= FOREGROUND:
            labels[i], found_by[label] = label, i
            free[:, label] = 0
    is_right, is_found = labels >= 0, found_by >= 0
    in_region = iou(boxes, truth.regions, crowds=True) > FOREGROUND
    is_ignored = (in_region & (classes[:, None] == truth.region_classes)).any(axis=1) & ~is_right
    types = np.full(number, RIGHT)
    repaired_by = np.full(of_labels, -1)
    for i in np.flatnonzero(~is_right).tolist():
        types[i], label = _error_type(all_ious[i], same_ious[i], other_ious[i], is_found)
        labels[i] = label
        # Of several detections of a label that nothing finds, the first would.
        if types[i] in (_CLS, _LOC) and not is_found[label] and repaired_by[label] < 0:
            repaired_by[label] = i
    is_repaired = np.zeros(number, dtype=bool)
    is_repaired[repaired_by[repaired_by >= 0]] = True
    ious, has_label = all_ious.max(axis=1, initial=0), np.flatnonzero(labels >= 0)
    ious[has_label] = all_ious[has_label, labels[has_label]]
    return Matches(
        order=order,
        classes=classes,
        scores=scores,
        types=types,
        is_ignored=is_ignored,
        labels=labels,
        ious=ious,
        is_repaired=is_repaired,
        others=[_by_falling_iou(x) for x in other_ious],
        label_classes=truth.classes,
        is_found=is_found,
        is_missed=~is_found & (repaired_by < 0),
    )


def iou(boxes: np.ndarray, others: np.ndarray, crowds: bool = False) -> np.ndarray:
    """
    Returns:
        (N, M) float64, the IoUs of (N, 4) and (M, 4) boxes, XYWH; of crowds, the share of a box
        that lies in one.
    """
    if not len(boxes) or not len(others):
        return np.zeros((len(boxes), len(others)))
    return mask.iou(boxes, others, [int(crowds)] * len(others))


def _by_falling_iou(ious: np.ndarray) -> list[int]:
    order = np.argsort(-ious, kind="stable")
    return order[ious[order] >= FOREGROUND].tolist()


def _error_type(
    ious: np.ndarray, same: np.ndarray, other: np.ndarray, is_found: np.ndarray
) -> tuple[int, int]:
    """
    That of a detection that finds no label, and the label that it would find without.

    Args:
        ious: (L,) those with all labels.
        same: (L,) those with the labels of its class, otherwise 0.
        other: (L,) those with the labels of other classes, otherwise 0.
        is_found: (L,) whether the label is found by another.
    """
    if not len(ious):
        return _BKG, -1
    nearest = int(same.argmax())
    if BACKGROUND <= same[nearest] <= FOREGROUND:
        return _LOC, nearest
    if other.max() >= FOREGROUND:
        return _CLS, int(other.argmax())
    of_found = same * is_found
    if of_found.max() >= FOREGROUND:
        return _DUPE, int(of_found.argmax())
    return (_BKG if ious.max() <= BACKGROUND else _BOTH), -1


@dataclass(frozen=True)
class Costs:
    """What errors cost: of all classes together, and of each of the K classes."""

    # AP at an IoU of 0.5, in percent: the mean over classes that have a label or a detection, and
    # (K,).
    ap: float
    ap_by_class: np.ndarray
    # (6,) and (K, 6): by how much AP rises if all errors of a type, and no others, are repaired.
    costs: np.ndarray
    costs_by_class: np.ndarray
    # (K, 6) int64: how many errors there are, of the class of the detection, or of a missed label.
    numbers: np.ndarray
    # (K,) int64.
    labels: np.ndarray


def costs(matches: Sequence[Matches], num_classes: int) -> Costs:
    """
    Repair the errors of each type alone, and see how AP rises.

    Args:
        matches: those of the images.
        num_classes: K.
    """
    types = _joined([m.types for m in matches])
    classes = _joined([m.classes for m in matches])
    scores = _joined([m.scores for m in matches], float)
    is_ignored = _joined([m.is_ignored for m in matches], bool)
    is_repaired = _joined([m.is_repaired for m in matches], bool)
    repaired_classes = _joined([_classes_of_labels(m) for m in matches])
    of_labels = _joined([m.label_classes for m in matches])
    missed = of_labels[_joined([m.is_missed for m in matches], bool)]
    labels = np.bincount(of_labels, minlength=num_classes)
    is_right = types == RIGHT

    counts = ~is_ignored
    by_class, is_known = _aps(classes[counts], scores[counts], is_right[counts], labels)
    ap = _mean(by_class[is_known])
    total, each = np.zeros(len(ERRORS)), np.zeros((num_classes, len(ERRORS)))
    for error in range(len(ERRORS)):
        is_of_type = types == error
        keeps = np.where(is_of_type, is_repaired, ~is_ignored)
        right = is_right | is_of_type
        left = labels - np.bincount(missed, minlength=num_classes) if error == _MISS else labels
        repaired = np.where(is_of_type, repaired_classes, classes)
        # Of equal scores, those that were wrong come first.
        order = np.concatenate([np.flatnonzero(keeps & ~is_right), np.flatnonzero(is_right)])
        new, is_there = _aps(repaired[order], scores[order], right[order], left)
        total[error] = max(_mean(new[is_there]) - ap, 0)
        each[:, error] = np.where(is_known, (new - by_class).clip(min=0), 0)
    numbers = np.zeros((num_classes, len(ERRORS)), dtype=int)
    np.add.at(numbers, (classes[~is_right], types[~is_right]), 1)
    np.add.at(numbers[:, _MISS], missed, 1)
    return Costs(ap, by_class, total, each, numbers, labels)


def _joined(parts: Sequence[np.ndarray], dtype: type = int) -> np.ndarray:
    return np.concatenate([np.zeros(0, dtype), *parts])


def _classes_of_labels(m: Matches) -> np.ndarray:
    """(D,) the class of the label of each detection, or its own where there is none."""
    classes = m.classes.copy()
    classes[m.labels >= 0] = m.label_classes[m.labels[m.labels >= 0]]
    return classes


def _mean(aps: np.ndarray) -> float:
    return float(aps.mean()) if len(aps) else 0.0


def _aps(
    classes: np.ndarray, scores: np.ndarray, is_right: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """
    Args:
        classes: (D,) of detections that count, and so are the next two.
        scores: of equal ones, the first comes first.
        is_right: whether it finds a label.
        labels: (K,) how many of each class there are.

    Returns:
        (K,) the AP of each class, in percent, and (K,) whether it has any label or detection.
    """
    numbers = np.bincount(classes, minlength=len(labels))
    by_class = np.split(is_right[np.lexsort((-scores, classes))], numbers.cumsum()[:-1])
    aps = [_ap(x, n) for x, n in zip(by_class, labels.tolist())]
    return np.array(aps), (labels > 0) | (numbers > 0)


def _ap(is_right: np.ndarray, labels: int) -> float:
    """By falling score; the mean precision at 101 recalls, as COCO has it."""
    if not labels or not len(is_right):
        return 0.0
    found = is_right.cumsum()
    precision = found / np.arange(1, len(found) + 1)
    highest = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.searchsorted(found / labels, _RECALLS, side="left")
    return float(np.append(highest, 0.0)[at].mean() * 100)
