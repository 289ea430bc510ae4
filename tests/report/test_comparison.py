"""Two models on the same images, next to a slow reference and to what is worked out by hand."""

from pathlib import Path

import numpy as np
import pytest
from detectron2.data import MetadataCatalog
from hypothesis import given, settings
from hypothesis import strategies as st
from small_findings import findings
from test_model_errors import record
from test_tide import IMAGES, iou, look_at_image

from ohem_d2.report.comparison import as_comparison, best_score, compare, comparison_for_page
from ohem_d2.report.earlier import EarlierReport, read_earlier
from ohem_d2.report.model_errors import as_model_errors
from ohem_d2.report.page import write_list
from ohem_d2.report.tide import ERRORS

CAT, DOG, BIRD = 0, 1, 2
NAMES = ["cat", "dog", "bird"]
A, B, C, FAR = [10.0, 10, 20, 20], [60.0, 40, 20, 20], [35.0, 5, 10, 10], [5.0, 55, 20, 20]


@pytest.fixture(scope="module", autouse=True)
def dataset():
    name = "two models"
    MetadataCatalog.get(name).set(thing_classes=NAMES)
    yield name
    MetadataCatalog.remove(name)


def judged(images, name="two models"):
    """`as_model_errors` of images, each (labels, detections)."""
    records = [record(i, *labels) for i, (labels, _) in enumerate(images)]
    found = [findings(r, d) for r, (_, d) in zip(records, images)]
    return as_model_errors(records, found, name)


LABELS = [(A, CAT, False), (B, DOG, False), (C, CAT, False), (FAR, BIRD, True)]
BEFORE = [(A, CAT, 0.9), (B, CAT, 0.8), ([80.0, 5, 10, 10], DOG, 0.7), (FAR, BIRD, 0.6)]
NOW = [(A, CAT, 0.95), (B, DOG, 0.5), ([81.0, 5, 10, 10], DOG, 0.3), ([0.0, 0, 5, 5], CAT, 0.2)]


def test_by_hand():
    result = compare(judged([(LABELS, BEFORE)]), judged([(LABELS, NOW)]))
    first, second, third = result["annotations"]  # what lies in the region to ignore is not judged
    assert (first["earlier"]["score"], first["now"]["score"]) == (0.9, 0.95)
    assert (second["earlier"], second["now"]) == (None, {"score": 0.5, "bbox": B, "iou": 1.0})
    assert (third["earlier"], third["now"]) == (None, None)
    assert [
        (x["model"], x["category_id"], x["score"], x["error_type"], x["score_of_other"])
        for x in result["false_positives"]
    ] == [
        ("earlier", 1, 0.8, "Cls", None),
        ("earlier", 2, 0.7, "Bkg", 0.3),
        ("now", 2, 0.3, "Bkg", 0.7),
        ("now", 1, 0.2, "Bkg", None),
    ]
    info = result["info"]
    # Twice what is right over detections and labels: of the earlier model 2 / 4 with the first,
    # then less; now 2 / 4, 4 / 5 with two.
    assert (info["earlier"]["best_score"], info["now"]["best_score"]) == (0.9, 0.5)
    assert info["objects"] == {"both": 1, "only_earlier": 0, "only_now": 1, "neither": 1}
    none = {"earlier": 0, "only_earlier": 0, "now": 0, "only_now": 0}
    assert info["false_positives"] == none
    # One of two cats is found first, so that precision is 1 up to a recall of 0.5; a class that is
    # found nowhere counts as 0 if it has a label or a detection.
    cats = 100 * 51 / 101
    assert info["earlier"]["ap50"] == pytest.approx(cats / 2)
    assert info["now"]["ap50"] == pytest.approx((cats + 100) / 2)
    assert info["difference"]["ap50"] == pytest.approx(50)
    assert info["earlier"]["costs"]["Cls"] == pytest.approx(50)
    assert info["difference"]["costs"]["Cls"] == pytest.approx(-50)
    dog = result["categories"][1]
    assert (dog["earlier"]["ap50"], dog["now"]["ap50"], dog["difference"]["ap50"]) == (0, 100, 100)
    of_page = comparison_for_page(result, most=3)
    assert of_page["labels"][1] == [1, 2, B, None, [0.5, B]]
    assert of_page["false_positives"][0] == [0, 1, 1, 0.8, B, "Cls", 1, None]
    assert (len(of_page["false_positives"]), of_page["left_out"]) == (3, 1)


def reference(labels, before, now):
    """Of one image: whether each label is found, and which false positives the other has."""
    looked = [look_at_image(labels, x) for x in (before, now)]
    found = [[x.is_found for x in of_image] for _, of_image in looked]
    wrong = [[d for d in detections if d.error and not d.is_ignored] for detections, _ in looked]
    shared = []
    for mine, others in (wrong, reversed(wrong)):
        for d in mine:
            alike = [x.score for x in others if x.cls == d.cls and iou(x.box, d.box) >= 0.5]
            shared.append((d.score, d.error, max(alike, default=None)))
    return list(zip(*found)), shared


@settings(deadline=None, max_examples=150)
@given(IMAGES, st.data())
def test_next_to_a_slow_reference(images, data):
    others = [data.draw(st.sampled_from([d for _, d in images])) for _ in images]
    before = [(labels, other) for (labels, _), other in zip(images, others)]
    result = compare(judged(before), judged(images))
    for number, ((labels, now), (_, other)) in enumerate(zip(images, before), 1):
        found, shared = reference(labels, other, now)
        of_image = [x for x in result["annotations"] if x["image_id"] == number]
        assert [(x["earlier"] is not None, x["now"] is not None) for x in of_image] == found
        wrong = [x for x in result["false_positives"] if x["image_id"] == number]
        assert [(x["score"], x["error_type"], x["score_of_other"]) for x in wrong] == shared
    for part in (result["info"], *result["categories"]):
        for error in ERRORS:
            costs = [part[x]["costs"][error] for x in ("earlier", "now", "difference")]
            assert costs[1] - costs[0] == pytest.approx(costs[2])


def slow_best(right, wrong, labels):
    """By each score that there is, from the highest."""
    best, score = 0.0, 0.5
    for least in sorted({*right, *wrong}, reverse=True):
        hits, falls = (sum(s >= least for s in x) for x in (right, wrong))
        f1 = 2 * hits / (hits + falls + labels)
        if f1 > best:
            best, score = f1, least
    return score


@given(st.sets(st.integers(0, 100), max_size=12), st.sets(st.integers(101, 200), max_size=12))
def test_the_best_score_next_to_a_slow_reference(right, wrong):
    """With scores of their own, mixed."""
    mix = [s * 37 % 211 / 211 for s in (*right, *wrong)]
    of_right, of_wrong = mix[: len(right)], mix[len(right) :]
    expected = int(100 * slow_best(of_right, of_wrong, 15)) / 100
    assert best_score(of_right, of_wrong, 15) == expected


def earlier_of(folder, images, name="two models"):
    write_list(folder, "model_errors", judged(images, name))
    return read_earlier(folder)


def test_a_report_and_itself_are_alike_to_the_last_digit(tmp_path, dataset):
    random = np.random.default_rng(0)

    def boxes(number):
        return (random.random((number, 4)) * 50).tolist()

    def near(box):
        return (np.array(box) + random.normal(0, 2, 4)).clip(1).tolist()  # each has a size

    images = []
    for _ in range(10):
        labels = [(b, i % 3, i == 5) for i, b in enumerate(boxes(6))]
        found = [(near(b), random.integers(3), random.random()) for b, _, _ in labels * 2]
        images.append((labels, found))
    earlier = earlier_of(tmp_path, images)
    records = [record(i, *labels) for i, (labels, _) in enumerate(images)]
    found = [findings(r, d) for r, (_, d) in zip(records, images)]
    now = as_model_errors(records, found, dataset)
    result = as_comparison(earlier, records, found, dataset, now)
    info = result["info"]
    assert info["earlier"] == info["now"]
    assert 0 < info["now"]["ap50"] == info["ap50_then"] < 100
    assert (info["labels_new"], info["labels_gone"]) == (0, 0)
    assert set(info["difference"]["costs"].values()) == {info["difference"]["ap50"]} == {0}
    assert all(x["earlier"] == x["now"] for x in result["annotations"])
    assert all(x["score_of_other"] >= x["score"] for x in result["false_positives"])


def test_labels_that_changed_judge_both(tmp_path, dataset):
    """A label is added and a class corrected; and the classes come in another order."""
    then = [(A, 2, False), (B, 1, False)]
    MetadataCatalog.get("then").set(thing_classes=[*reversed(NAMES)])
    earlier = earlier_of(tmp_path, [(then, [(A, 2, 0.9), (B, 0, 0.8), (C, 2, 0.7)])], "then")
    MetadataCatalog.remove("then")
    assert isinstance(earlier, EarlierReport)
    # What was a dog by the labels of then is a bird.
    now = record(0, (A, CAT, False), (B, BIRD, False), (C, CAT, False))
    found = [findings(now, [(A, CAT, 0.9)])]
    of_now = as_model_errors([now], found, dataset)
    result = as_comparison(earlier, [now], found, dataset, of_now)
    info = result["info"]
    assert info["earlier"]["ap50"] == 100
    assert info["ap50_then"] == pytest.approx(100 / 3)  # cats alone were right
    assert (info["labels_new"], info["labels_gone"]) == (2, 1)
    assert info["folder"] == str(Path(tmp_path).absolute())
    assert info["objects"] == {"both": 1, "only_earlier": 2, "only_now": 0, "neither": 0}


def test_images_that_the_earlier_report_has_in_addition_do_not_count(tmp_path, dataset):
    earlier = earlier_of(tmp_path, [(LABELS, BEFORE), (LABELS, NOW)])
    now = record(0, *LABELS)
    found = [findings(now, NOW)]
    result = as_comparison(earlier, [now], found, dataset, as_model_errors([now], found, dataset))
    alone = compare(judged([(LABELS, BEFORE)]), judged([(LABELS, NOW)]))
    assert result["annotations"] == alone["annotations"]
    assert (result["info"]["labels_new"], result["info"]["labels_gone"]) == (0, 0)
    assert (result["info"]["images_then"], result["info"]["ap50_then"]) == (2, None)
