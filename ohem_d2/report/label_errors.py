"""Labels that may be wrong: where a trained model and the ground truth tell different things."""

from collections.abc import Iterator, Sequence
from itertools import chain, zip_longest

import numpy as np
import torch
from torchvision.ops import box_iou, nms

from ..errors import InputError
from .hard_examples import Findings, HardExample

# In this order.
LABEL_ERRORS = ("missing label", "spurious label", "wrong class", "badly placed label")

# A detection of the class of a label is that label, from this IoU on.
_SAME = 0.6
# Below it, both are still of one object, as long as they overlap by this IoU.
_NEAR = 0.1
# What is found where no label is overlaps each by less than this IoU.
_ELSEWHERE = 0.3
# What lies in a region to ignore by this share of its area may be one of its objects.
_IN_A_REGION = 0.5
_LEAST_PROBABLE = 1e-6
# Where cleanlab's score (1 at most) is this or more, a label and what is found differ by a few
# pixels only.
_AGREED = 0.8


def by_loss(findings: Sequence[Findings]) -> list[tuple[int, HardExample]]:
    """
    Rank what may be errors in the labels by what the labels cost the trained model.

    - badly placed label: an object of the same class is seen beside it, and none at its place
    - wrong class: the model sees an object of another class in it
    - spurious label: the model sees background in it
    - missing label: an object is seen where there is no label

    The cost is minus the logarithm of how probable the model finds what is labelled: the class of
    the label, in its box; or, for a badly placed and a missing label, that what is seen is not
    there, one minus its score.

    Args:
        findings: what `look_at` returned of each image.

    Returns:
        pairs of the index of an image and what is suspected there, the worst first.
    """
    suspects = [(i, x) for i, f in enumerate(findings) for x in _suspects(f)]
    return sorted(suspects, key=lambda x: -x[1].loss)


def _suspects(f: Findings) -> Iterator[HardExample]:
    ious = _iou(f.boxes, f.label_boxes)
    beside = _beside(f, ious)
    for label, detection in beside.items():
        yield _of_detection(f, "badly placed label", detection, label, ious)
    for label in np.flatnonzero(f.seen_classes != f.label_classes).tolist():
        if label not in beside:
            is_background = f.seen_classes[label] == f.num_classes
            error_type = "spurious label" if is_background else "wrong class"
            yield _of_label(f, error_type, label)
    missing = (ious.max(axis=1, initial=0) < _ELSEWHERE) & ~_in_a_region(f)
    missing[list(beside.values())] = False
    missing = missing.nonzero()[0]
    # An object that is seen as one of two classes is one.
    distinct = nms(torch.from_numpy(f.boxes[missing]), torch.from_numpy(f.scores[missing]), _SAME)
    for detection in missing[distinct.numpy()].tolist():
        yield _of_detection(f, "missing label", detection, None, ious)


def _in_a_region(f: Findings) -> np.ndarray:
    """(D,) whether detections lie in one to ignore."""
    near = np.maximum(f.boxes[:, None, :2], f.regions[:, :2])
    far = np.minimum(f.boxes[:, None, 2:], f.regions[:, 2:])
    shared = (far - near).clip(min=0).prod(axis=2)
    area = (f.boxes[:, 2:] - f.boxes[:, :2]).prod(axis=1)
    return shared.max(axis=1, initial=0) >= _IN_A_REGION * area


def _beside(f: Findings, ious: np.ndarray) -> dict[int, int]:
    """For each label whose object is seen beside it, the detection. IoUs: (D, L)."""
    same_class = f.classes[:, None] == f.label_classes
    is_at_place = ((ious >= _SAME) & same_class).any(axis=0)
    beside: dict[int, int] = {}
    for detection in np.flatnonzero(~(ious >= _SAME).any(axis=1)).tolist():
        could_be = same_class[detection] & (ious[detection] >= _NEAR) & ~is_at_place
        could_be[list(beside)] = False
        if could_be.any():
            beside[int(np.where(could_be, ious[detection], 0).argmax())] = detection
    return beside


def by_cleanlab(
    findings: Sequence[Findings], high_probability: float | None = None
) -> list[tuple[int, HardExample]]:
    """
    Rank what may be errors in the labels by cleanlab's scores: overlooked, swapped and badly
    located boxes (Tkachenko et al., "ObjectLab", 2023). It has none for spurious labels.

    Args:
        findings: what `look_at` returned of each image.
        high_probability: from which score on a detection tells of overlooked and swapped boxes.
            None: cleanlab's own.

    Returns:
        as `by_loss`, the worst of each error type in turn. By each score the worst is 0, and what
        has 0.8 or more is left out.

    Raises:
        InputError: cleanlab is not installed.
    """
    try:
        from cleanlab.object_detection import rank
    except ImportError as e:
        raise InputError("cleanlab is not installed, expected it: pip install cleanlab") from e
    data = {
        "labels": [{"bboxes": f.label_boxes, "labels": f.label_classes} for f in findings],
        "predictions": [_by_class(f) for f in findings],
    }
    sure = {"high_probability_threshold": high_probability}
    overlooked = rank.compute_overlooked_box_scores(**data, **sure)
    swapped = rank.compute_swap_box_scores(**data, **sure)
    badly_located = rank.compute_badloc_box_scores(**data)
    ranked: dict[str, list[tuple[float, int, HardExample]]] = {x: [] for x in LABEL_ERRORS}
    for i, f in enumerate(findings):
        ious = _iou(f.boxes, f.label_boxes)
        # cleanlab has the detections of one class after those of another.
        order = np.argsort(f.classes, kind="stable")
        in_a_region = _in_a_region(f)
        for score, detection in zip(overlooked[i], order.tolist()):
            if score < _AGREED and not in_a_region[detection]:  # which no NaN is
                example = _of_detection(f, "missing label", detection, None, ious)
                ranked["missing label"].append((score, i, example))
        same_class = f.classes[:, None] == f.label_classes
        for error_type, scores, could_be in (
            ("wrong class", swapped[i], ~same_class),
            ("badly placed label", badly_located[i], same_class),
        ):
            near = np.where(could_be, ious, 0)
            for label in np.flatnonzero(scores < _AGREED).tolist():
                if near[:, label].any():
                    seen = int(near[:, label].argmax())
                    example = _of_detection(f, error_type, seen, label, ious)
                else:
                    example = _of_label(f, error_type, label)
                ranked[error_type].append((scores[label], i, example))
    # Scores of different error types do not compare: the worst of each come first, then the second.
    in_order = [sorted(of_type, key=lambda x: x[0]) for of_type in ranked.values()]
    in_turn = chain.from_iterable(zip_longest(*in_order))
    return [(i, example) for _, i, example in filter(None, in_turn)]


def _by_class(f: Findings) -> list[np.ndarray]:
    """As cleanlab has them: of each class the boxes and, in a fifth column, their scores."""
    detections = np.column_stack([f.boxes, f.scores])
    return [detections[f.classes == k] for k in range(f.num_classes)]


def _of_label(f: Findings, error_type: str, label: int) -> HardExample:
    seen = int(f.seen_classes[label])
    is_background = seen == f.num_classes
    box = tuple(f.label_boxes[label].tolist())
    return HardExample(
        error_type=error_type,
        loss=_cost(f.label_probs[label]),
        box=box,
        true_class=int(f.label_classes[label]),
        predicted_class=None if is_background else seen,
        score=float(f.seen_probs[label]),
        true_box=box,
        iou=1.0,
        predicted_box=None if is_background else box,
        label=int(f.label_positions[label]),
    )


def _of_detection(
    f: Findings, error_type: str, detection: int, label: int | None, ious: np.ndarray
) -> HardExample:
    """Of a detection that belongs to a label, or to none. IoUs: (D, L)."""
    box = tuple(f.boxes[detection].tolist())
    of_box = ious[detection]
    near = label
    if near is None and of_box.any():
        near = int(of_box.argmax())
    return HardExample(
        error_type=error_type,
        loss=_cost(1 - f.scores[detection]),
        box=box,
        true_class=None if label is None else int(f.label_classes[label]),
        predicted_class=int(f.classes[detection]),
        score=float(f.scores[detection]),
        true_box=None if near is None else tuple(f.label_boxes[near].tolist()),
        iou=0.0 if near is None else float(of_box[near]),
        predicted_box=box,
        label=None if label is None else int(f.label_positions[label]),
    )


def _cost(probability: float) -> float:
    return float(-np.log(max(probability, _LEAST_PROBABLE)))


def _iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    return box_iou(torch.from_numpy(boxes), torch.from_numpy(others)).numpy()
