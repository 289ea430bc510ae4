"""TIDE's error types, next to a slow reference and to the program of its authors."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ohem_d2.report.tide import ERRORS, RIGHT, Truth, costs, match

K = 3
# On a grid, with few scores: IoUs at the thresholds and equal scores are frequent.
CORNER, SIDE = st.integers(0, 4), st.integers(0, 4)
BOX = st.tuples(CORNER, CORNER, SIDE, SIDE).map(lambda b: [float(4 * v) for v in b])
CLASS = st.integers(0, K - 1)
LABEL = st.tuples(BOX, CLASS, st.integers(0, 5).map(lambda x: x == 0))  # whether it is a region
DETECTION = st.tuples(BOX, CLASS, st.integers(1, 4).map(lambda s: s / 4))
IMAGE = st.tuples(st.lists(LABEL, max_size=5), st.lists(DETECTION, max_size=8))
IMAGES = st.lists(IMAGE, max_size=4)
SEEDS = st.integers(0, 2**32 - 1)


def truth_of(labels):
    """Of (box, class, whether it is a region to ignore)."""

    def parts(is_region):
        chosen = [x for x in labels if x[2] == is_region]
        boxes = np.array([x[0] for x in chosen], dtype=float).reshape(-1, 4)
        return boxes, np.array([x[1] for x in chosen], dtype=int)

    return Truth(*parts(False), *parts(True))


def matched(labels, detections):
    """Detections of (box, class, score)."""
    boxes = np.array([x[0] for x in detections], dtype=float).reshape(-1, 4)
    classes = np.array([x[1] for x in detections], dtype=int)
    scores = np.array([x[2] for x in detections], dtype=float)
    return match(boxes, classes, scores, truth_of(labels))


def costs_of(images):
    return costs([matched(*x) for x in images], K)


def names(m):
    return ["right" if t == RIGHT else ERRORS[t] for t in m.types]


# A slow reference: one detection at a time, in Python's own numbers.


def iou(a, b, crowd=False):
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    return shared / (a[2] * a[3] if crowd else a[2] * a[3] + b[2] * b[3] - shared)


class Detection:
    def __init__(self, box, label_class, score):
        self.box, self.cls, self.score = box, label_class, score
        self.label = self.error = self.repaired_class = None
        self.is_ignored = False


class Label:
    def __init__(self, box, label_class):
        self.box, self.cls, self.is_found, self.could_be_found = box, label_class, False, False


def best(detection, labels, threshold, above=math.inf):
    """The first of the labels with the highest IoU, if that is in a range."""
    if not labels:
        return None
    label = max(labels, key=lambda x: iou(detection.box, x.box))
    return label if threshold <= iou(detection.box, label.box) <= above else None


def look_at_image(truth, found):
    labels = [Label(*x[:2]) for x in truth if not x[2]]
    regions = [Label(*x[:2]) for x in truth if x[2]]
    found = sorted((Detection(*x) for x in found), key=lambda d: -d.score)
    for d in found:
        d.label = best(d, [x for x in labels if x.cls == d.cls and not x.is_found], 0.5)
        if d.label:
            d.label.is_found = True
    for d in found:
        if d.label:
            continue
        d.is_ignored = any(r.cls == d.cls and iou(d.box, r.box, crowd=True) > 0.5 for r in regions)
        same, others = ([x for x in labels if (x.cls == d.cls) == s] for s in (True, False))
        if near := best(d, same, 0.1, above=0.5):
            d.error = "Loc"
        elif near := best(d, others, 0.5):
            d.error = "Cls"
        elif best(d, [x for x in same if x.is_found], 0.5):
            d.error = "Dupe"
        else:
            is_bg = all(iou(d.box, x.box) <= 0.1 for x in labels)
            d.error = "Bkg" if is_bg else "Both"
        if near and not near.is_found and not near.could_be_found:
            near.could_be_found = True
            d.repaired_class = near.cls
    return found, labels


def precision_and_recall(points, number):
    """AP of (score, whether it is right), by its definition."""
    if not number:
        return 0.0
    curve, right = [], 0
    for i, (_, is_right) in enumerate(sorted(points, key=lambda p: -p[0]), 1):
        right += is_right
        curve.append((right / number, right / i))
    heights = [max((p for r, p in curve if r >= x / 100), default=0.0) for x in range(101)]
    return 100 * sum(heights) / 101


def reference(images):
    looked = [look_at_image(*x) for x in images]
    found = [d for detections, _ in looked for d in detections]
    labels = [x for _, of_image in looked for x in of_image]

    def aps(repaired=None):
        points, numbers = {k: [] for k in range(K)}, dict.fromkeys(range(K), 0)
        wrong = [d for d in found if not d.label]
        for d in wrong:
            if d.error == repaired:
                if d.repaired_class is not None:
                    points[d.repaired_class].append((d.score, True))
            elif not d.is_ignored:
                points[d.cls].append((d.score, False))
        # Without repairs, equal scores are in the order of the detections.
        if repaired is None:
            points = {k: [] for k in range(K)}
            for d in found:
                if not d.is_ignored:
                    points[d.cls].append((d.score, d.label is not None))
        else:
            for d in found:
                if d.label:
                    points[d.cls].append((d.score, True))
        for x in labels:
            if repaired != "Miss" or x.is_found or x.could_be_found:
                numbers[x.cls] += 1
        of_classes = [precision_and_recall(points[k], numbers[k]) for k in range(K)]
        there = [k for k in range(K) if points[k] or numbers[k]]
        return of_classes, sum(of_classes[k] for k in there) / max(1, len(there)), there

    by_class, ap, there = aps()
    repaired = {error: aps(error) for error in ERRORS}
    return {
        "ap": ap,
        "ap_by_class": by_class,
        "costs": [max(0, repaired[e][1] - ap) for e in ERRORS],
        "costs_by_class": [
            [max(0, repaired[e][0][k] - by_class[k]) if k in there else 0 for e in ERRORS]
            for k in range(K)
        ],
        "numbers": [
            [sum(d.cls == k and d.error == e for d in found) for e in ERRORS[:-1]]
            + [sum(x.cls == k and not x.is_found and not x.could_be_found for x in labels)]
            for k in range(K)
        ],
    }


def check(images, expected):
    result = costs_of(images)
    for name, value in expected.items():
        np.testing.assert_allclose(getattr(result, name), value, atol=1e-9, err_msg=name)


@given(IMAGES)
def test_equal_to_a_slow_reference(images):
    check(images, reference(images))


@given(SEEDS, st.booleans())
def test_equal_to_it_where_much_is_found(seed, distinct):
    images = random_images(np.random.default_rng(seed), distinct=distinct)
    check(images, reference(images))


def test_random_images_have_errors_of_every_type_that_cost():
    random = np.random.default_rng(0)
    seen = sum(costs_of(random_images(random)).costs for _ in range(50))
    assert (seen > 0).all()


def random_images(random, images=3, most=6, distinct=False):
    """Of the detections, two thirds are copies of labels. `distinct`: each has its own score."""

    def box():
        whole = np.concatenate([random.integers(0, 5, 2), random.integers(1, 5, 2)])
        return (whole * 4.0 + random.random(4) * distinct).tolist()

    def score():
        return float(random.random() if distinct else random.integers(1, 5) / 4)

    def image():
        labels = [(box(), int(random.integers(K)), random.random() < 0.2) for _ in range(most)]
        near = [labels[i] for i in random.integers(0, max(1, most - 1), 2 * most)]
        found = [(b, int(random.integers(K)) if random.random() < 0.2 else k) for b, k, _ in near]
        found += [(box(), int(random.integers(K))) for _ in range(most)]
        return labels, [(*x, score()) for x in found]

    return [image() for _ in range(images)]


def by_tidecv(images):
    """The same by the program of TIDE's authors."""
    tidecv = pytest.importorskip("tidecv")
    from tidecv.errors import main_errors

    truth, found = tidecv.Data("truth"), tidecv.Data("found")
    for i, (labels, detections) in enumerate(images):
        truth.add_image(i, str(i))
        for box, label_class, is_region in labels:
            add = truth.add_ignore_region if is_region else truth.add_ground_truth
            add(i, label_class, box)
        for box, label_class, score in detections:
            found.add_detection(i, label_class, score, box)
    for k in range(K):
        truth.add_class(k, str(k))
    run = tidecv.TIDE(mode=tidecv.TIDE.BOX).evaluate(truth, found)
    errors = {
        e.short_name: e
        for e in vars(main_errors).values()
        if getattr(e, "short_name", None) in ERRORS
    }
    of_classes = [run.ap_data.objs[k].get_ap() for k in range(K)]
    costs = run.fix_main_errors()
    by_class = np.zeros((K, len(ERRORS)))
    for i, e in enumerate(ERRORS):
        repaired = run.fix_errors(lambda x, e=e: isinstance(x, errors[e]))
        by_class[:, i] = [max(0, repaired.objs[k].get_ap() - of_classes[k]) for k in range(K)]
    numbers = run.count_errors()
    return {
        "ap": run.ap,
        "ap_by_class": of_classes,
        "costs": [costs[errors[e]] for e in ERRORS],
        "costs_by_class": by_class,
    }, [numbers[errors[e]] for e in ERRORS]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("distinct", [False, True])
def test_equal_to_tidecv(seed, distinct):
    random = np.random.default_rng(seed)
    images = random_images(random, images=1 + seed % 5, most=1 + seed % 7, distinct=distinct)
    expected, numbers = by_tidecv(images)
    check(images, expected)
    assert costs_of(images).numbers.sum(axis=0).tolist() == numbers


A, B, FAR = [0.0, 0, 10, 10], [5.0, 0, 10, 10], [50.0, 50, 10, 10]


@pytest.mark.parametrize(
    ("detections", "expected"),
    [
        ([(A, 0, 0.9)], ["right"]),
        ([(A, 0, 0.9), (A, 0, 0.8)], ["right", "Dupe"]),
        ([(A, 1, 0.9)], ["Cls"]),
        ([(B, 0, 0.9)], ["Loc"]),
        ([(B, 1, 0.9)], ["Both"]),
        ([(FAR, 0, 0.9)], ["Bkg"]),
        ([(FAR, 0, 0.3), (A, 0, 0.5)], ["right", "Bkg"]),  # by falling score
    ],
)
def test_error_types_by_hand(detections, expected):
    m = matched([(A, 0, False)], detections)
    assert names(m) == expected
    assert m.is_missed.tolist() == [not {"right", "Cls", "Loc"} & set(expected)]


def test_what_lies_in_a_region_costs_nothing():
    m = matched([(A, 0, True), (FAR, 1, False)], [(B, 0, 0.9), (A, 0, 0.8), (A, 1, 0.7)])
    assert m.is_ignored.tolist() == [False, True, False]  # of the class of the region, inside it
    costs_of_it = costs([m], K)
    assert costs_of_it.ap_by_class.tolist() == [0, 0, 0]
    assert costs_of_it.numbers[:, ERRORS.index("Bkg")].tolist() == [2, 1, 0]


def test_the_labels_of_other_classes_that_a_detection_covers():
    near = [1.0, 0, 10, 10]
    m = matched([(near, 1, False), (A, 2, False), (A, 0, False), (FAR, 1, False)], [(A, 0, 0.9)])
    assert m.others == [[1, 0]]
    assert (m.labels.tolist(), m.ious.tolist()) == ([2], [1.0])


def test_more_detections_than_count():
    m = matched([(A, 0, False)], [(FAR, 0, 0.5)] * 100 + [(A, 0, 0.4)])
    assert len(m.order) == 100
    assert m.is_missed.tolist() == [True]


def test_costs_by_hand():
    """One of two objects is found, one is badly placed with a higher score."""
    images = [([(A, 0, False), (FAR, 0, False)], [([52.0, 55, 10, 10], 0, 0.9), (A, 0, 0.8)])]
    result = costs_of(images)
    assert result.ap == pytest.approx(51 / 101 * 50)
    assert result.costs[ERRORS.index("Loc")] == pytest.approx(100 - result.ap)
    assert result.labels.tolist() == [2, 0, 0]
    assert costs([], K).ap == 0
