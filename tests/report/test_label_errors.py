import sys

import numpy as np
import pytest

from ohem_d2.errors import InputError
from ohem_d2.report.hard_examples import Detections, Findings
from ohem_d2.report.label_errors import LABEL_ERRORS, by_cleanlab, by_loss

CAT, DOG = 0, 1
PLACE, FAR, FARTHER = (0.0, 0, 20, 20), (60.0, 60, 80, 80), (30.0, 30, 50, 50)


def findings(labels=(), detections=(), crowds=()):
    """Labels of (box, class, probabilities), detections of (box, class, score) by falling score."""
    label_boxes, label_classes, probs = zip(*labels) if labels else ([], [], [])
    boxes, classes, scores = zip(*detections) if detections else ([], [], [])
    probs = np.array(probs, dtype=float).reshape(-1, 3)
    return Findings(
        hard_examples=[],
        label_boxes=np.array(label_boxes, dtype=float).reshape(-1, 4),
        label_classes=np.array(label_classes, dtype=int),
        label_positions=np.arange(len(label_classes)) + 1,  # behind a region to ignore
        label_probs=np.array([p[k] for p, k in zip(probs, label_classes)]),
        seen_classes=probs.argmax(axis=1),
        seen_probs=probs.max(axis=1),
        num_classes=2,
        boxes=np.array(boxes, dtype=np.float32).reshape(-1, 4).astype(float),
        classes=np.array(classes, dtype=int),
        scores=np.array(scores, dtype=float),
        regions=np.array(crowds, dtype=float).reshape(-1, 4),
        region_positions=np.zeros(len(crowds), dtype=int),
        detections=Detections(np.zeros((0, 4)), np.zeros(0, dtype=int), np.zeros(0)),
    )


def found(*images):
    return [
        (i, x.error_type, x.true_class, x.predicted_class, round(x.score, 4), round(x.loss, 4))
        for i, x in by_loss(images)
    ]


RIGHT = (PLACE, CAT, (0.9, 0.05, 0.05))


def test_what_the_model_sees_as_it_is_labelled_is_not_suspected():
    assert found(findings(), findings([RIGHT]), findings([RIGHT], [(PLACE, CAT, 0.9)])) == []
    # Nor is the worse of two detections of an object, as long as it lies on it.
    assert found(findings([RIGHT], [(PLACE, CAT, 0.9), ((1, 1, 21, 21), DOG, 0.3)])) == []


def test_each_error_by_hand_and_the_worst_first():
    images = [
        findings([RIGHT, (FAR, CAT, (0.2, 0.7, 0.1))], [(PLACE, CAT, 0.9), (FAR, DOG, 0.7)]),
        findings([(FAR, DOG, (0.02, 0.08, 0.9))]),
        findings([RIGHT], [(PLACE, CAT, 0.9), (FAR, DOG, 0.5)]),
        # Half of the one box is in the other: an IoU of 1/3.
        findings([(PLACE, CAT, (0.1, 0.1, 0.8))], [((10, 0, 30, 20), CAT, 0.75)]),
    ]
    assert found(*images) == [
        (1, "spurious label", DOG, None, 0.9, round(-np.log(0.08), 4)),
        (0, "wrong class", CAT, DOG, 0.7, round(-np.log(0.2), 4)),
        (3, "badly placed label", CAT, CAT, 0.75, round(-np.log(0.25), 4)),
        (2, "missing label", None, DOG, 0.5, round(-np.log(0.5), 4)),
    ]
    (_, placed), (_, missing) = by_loss(images)[2:]
    assert placed.box == placed.predicted_box == (10, 0, 30, 20)
    assert placed.true_box == PLACE
    assert placed.iou == pytest.approx(1 / 3)
    assert (missing.box, missing.true_box, missing.iou) == (FAR, None, 0)
    assert [x.label for _, x in by_loss(images)] == [1, 2, 1, None]
    assert set(LABEL_ERRORS) == {x.error_type for _, x in by_loss(images)}


def test_an_object_beside_its_label_is_neither_missing_nor_spurious():
    beside = (10, 0, 30, 20)
    label = (PLACE, CAT, (0.1, 0.1, 0.8))
    # Only by an object of its own class; not where one is seen at its place; and by one.
    assert [x[1] for x in found(findings([label], [(beside, DOG, 0.8)]))] == ["spurious label"]
    at_place = [(PLACE, CAT, 0.9), (beside, CAT, 0.8)]
    assert found(findings([RIGHT], at_place)) == []
    assert found(findings([RIGHT], [(beside, CAT, 0.8), (PLACE, CAT, 0.3)])) == []
    two = [(beside, CAT, 0.8), ((0, 10, 20, 30), CAT, 0.6)]
    assert [x[1] for x in found(findings([label], two))] == ["badly placed label"]
    # What lies on another label explains nothing.
    other = (beside, CAT, (0.9, 0.1, 0.0))
    assert [x[1] for x in found(findings([label, other], [(beside, CAT, 0.8)]))] == [
        "spurious label"
    ]


def test_each_label_has_the_nearest_object():
    left, right = (0.0, 0, 20, 20), (40.0, 0, 60, 20)
    unsure = (0.3, 0.1, 0.6)
    detections = [((48, 0, 68, 20), CAT, 0.9), ((8, 0, 28, 20), CAT, 0.8)]
    ranked = by_loss([findings([(left, CAT, unsure), (right, CAT, unsure)], detections)])
    assert [(x.error_type, x.true_box, x.box[0]) for _, x in ranked] == [
        ("badly placed label", right, 48),
        ("badly placed label", left, 8),
    ]


def test_what_is_missing_is_one_thing_and_in_no_crowd():
    as_two = [(FAR, DOG, 0.5), ((61, 60, 81, 80), CAT, 0.45), (FARTHER, CAT, 0.4)]
    missing = [(x.box, x.predicted_class) for _, x in by_loss([findings([RIGHT], as_two)])]
    assert missing == [(FAR, DOG), (FARTHER, CAT)]
    # All of the first box is in both crowds; of the other half is in one, and less in the next.
    for crowd, number in (((40, 20, 90, 90), 0), ((41, 20, 90, 90), 1)):
        f = findings([], [(FAR, DOG, 0.5), (FARTHER, CAT, 0.4)], [(0, 0, 5, 5), crowd])
        assert len(by_loss([f])) == number


def test_certainty_costs_no_infinity():
    certain = findings([(PLACE, CAT, (0.0, 0.0, 1.0))], [(FAR, DOG, 1.0)])
    assert all(np.isfinite(x.loss) for _, x in by_loss([certain]))


def test_cleanlab_by_hand():
    pytest.importorskip("cleanlab")
    images = [
        findings([(PLACE, CAT, (0.1, 0.8, 0.1))], [(PLACE, DOG, 0.97)]),
        findings([RIGHT], [(PLACE, CAT, 0.99), (FAR, DOG, 0.98)]),
        findings([RIGHT], [((10, 0, 30, 20), CAT, 0.9)]),
        findings([RIGHT], []),
        findings(),
        findings([], [(FAR, DOG, 0.99), (FARTHER, CAT, 0.96)]),
    ]
    ranked = by_cleanlab(images)
    of_images = {}
    for i, x in ranked:
        of_images.setdefault(i, []).append((x.error_type, x.box))
    assert ("wrong class", PLACE) in of_images[0]
    assert ("missing label", FAR) in of_images[1]
    assert of_images[2][0] == ("badly placed label", (10, 0, 30, 20))  # where it is seen
    assert 3 not in of_images
    assert all((x.label is None) == (x.error_type == "missing label") for _, x in ranked)
    # In cleanlab's order of classes, not in that of the detections.
    assert sorted(of_images[5]) == [("missing label", FARTHER), ("missing label", FAR)]
    classes = {x.box: x.predicted_class for i, x in ranked if i == 5}
    assert classes == {FAR: DOG, FARTHER: CAT}
    assert by_cleanlab([]) == []
    # A label that is found but for a pixel, and what is in a crowd, are none.
    right = findings([RIGHT], [((1, 0, 21, 20), CAT, 0.97)])
    assert by_cleanlab([right, findings([], [(FAR, DOG, 0.99)], [FAR])]) == []
    # A detection that is not sure enough tells nothing of missing labels.
    unsure = [findings([], [(FAR, DOG, 0.7)])]
    assert by_cleanlab(unsure) == []
    assert len(by_cleanlab(unsure, high_probability=0.5)) == 1


def test_cleanlab_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "cleanlab.object_detection", None)
    with pytest.raises(InputError, match=r"cleanlab is not installed.*pip install cleanlab"):
        by_cleanlab([])
