"""What becomes of suspected missing labels that the model is sure of."""

import json
import re

import pytest
from small_decisions import (
    CAT,
    DOG,
    NEW,
    OWL,
    read_log,
    read_objects,
    write_decisions,
    write_report,
)

from ohem_d2 import cli
from ohem_d2.errors import InputError
from ohem_d2.relabel.decisions import as_xywh
from ohem_d2.relabel.output import LOG, UNDONE, decided
from ohem_d2.relabel.run import relabel
from ohem_d2.relabel.suspects import read_suspects


@pytest.fixture
def report(tmp_path):
    return write_report(tmp_path)


def set_scores(report, scores):
    """Of the suspects in the report, in their order; a second missing label is the last one."""
    file = report / "label_errors.json"
    content = json.loads(file.read_text())
    first = content["annotations"][0]
    content["annotations"].append(first | {"id": 6, "image_id": 2, "predicted_category_id": 3})
    for x, score in zip(content["annotations"], scores, strict=True):
        x["score"] = score
    file.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("lowest", "scores", "expected"),
    [
        (0.8, [0.8, 1, 1, 1, 1, 0.79], ["a"]),
        (0.8, [0.5, 1, 1, 1, 1, 0.95], ["b"]),
        (0.5, [0.5, 1, 1, 1, 1, 0.95], ["a", "b"]),
        (1.0, [1.0, 1, 1, 1, 1, 0.9999], ["a"]),
    ],
)
@pytest.mark.parametrize("action", ["accept", "ignore"])
def test_missing_labels_by_score(report, capsys, action, lowest, scores, expected):
    set_scores(report, scores)
    output = report.parent / "corrected"
    cli.main(["relabel", str(report), f"--{action}", str(lowest), "--output", str(output)])
    said, number = capsys.readouterr().out, len(expected)
    assert said.startswith(f"{number} decisions: {number} changed, 0 already there")
    left = "- spurious label, left undecided: 1\n- wrong class, left undecided: 2\n"
    assert left in said.replace("- missing label, left undecided: 1\n", "")
    assert ("- missing label, left undecided: 1\n" in said) == (number == 1)
    address = f"voc://{output}?images={report.parent}/data/JPEGImages"
    found = read_objects(address)
    before = [("dog", DOG, False), ("cat", CAT, False), ("owl", OWL, False)]
    for name, category in (("a", "cat"), ("b", "owl")):
        new = [(category, NEW, action == "ignore")] if name in expected else []
        assert found[f"{name}.jpg"] == [*before, *new]
    log = read_log(output)
    assert log["info"]["decisions"] == f"{report} --{action} {lowest}"
    assert [x["decision"]["image_id"] for x in log["changed"]] == expected
    assert {x["decision"]["suspect"] for x in log["changed"]} == {"missing label"}
    again = relabel(report, report.parent / "again", address, by_score=(action, lowest))
    assert f"{number} already there" in capsys.readouterr().out
    assert read_objects(again) == found


@pytest.mark.parametrize(
    ("action", "lowest", "words"),
    [
        ("accept", 0.95, "has no suspected missing label with a score of 0.95 or more (the highest "
         "is 0.9), expected one: --accept with a lower score"),
        ("ignore", 0.0, "--ignore is 0.0, expected a score above 0 and up to 1"),
        ("accept", 80.0, "--accept is 80.0, expected a score above 0 and up to 1"),
        ("accept", float("nan"), "--accept is nan, expected a score above 0 and up to 1"),
    ],
)  # fmt: skip
def test_wrong_scores(report, action, lowest, words):
    with pytest.raises(InputError, match=re.escape(words)):
        relabel(report, report.parent / "corrected", by_score=(action, lowest))
    assert not (report.parent / "corrected").exists()


def test_decisions_and_a_report_are_told_apart(report):
    decisions = write_decisions(report.parent / "decisions.json", "voc://data")
    with pytest.raises(InputError, match=r"is a folder, expected .* --accept or --ignore"):
        relabel(report, report.parent / "corrected")
    with pytest.raises(InputError, match=r"decisions.json is no folder, expected that of a report"):
        relabel(decisions, report.parent / "corrected", by_score=("accept", 0.7))


def decide(report, number, action, **proposal):
    """A person's decision on a suspect of the report."""
    x = read_suspects(report)[2][number]
    label = x.label and {"index": None, "id": x.label.id, **described(x.label)}
    proposed = {**described(x.proposal), **proposal}
    entry = {"image": x.image, "image_id": x.image_id, "suspect": x.name, "decision": action,
             "label": label, "proposal": proposed}  # fmt: skip
    file = report.parent / "decisions.json"
    dataset = f"voc://{report.parent}/data"
    file.write_text(json.dumps({"info": {"dataset": dataset}, "decisions": [entry]}))
    return file


def described(x):
    return {"category": x.category, "bbox": as_xywh(x.box)}


@pytest.mark.parametrize(
    ("action", "proposal"), [("reject", {}), ("accept", {"category": "owl"}), ("ignore", {})]
)
def test_what_a_person_decided_before_stays(report, capsys, action, proposal):
    set_scores(report, [0.9] * 6)
    first = relabel(decide(report, 0, action, **proposal), report.parent / "first")
    before = read_objects(first)
    second = relabel(report, report.parent / "second", first, by_score=("accept", 0.7))
    assert read_objects(second)["a.jpg"] == before["a.jpg"]
    assert len(read_objects(second)["b.jpg"]) == 4
    assert "- missing label, decided otherwise in an earlier run: 1\n" in capsys.readouterr().out
    # The log of the second run has what the first one decided.
    third = relabel(report, report.parent / "third", second, by_score=("accept", 0.5))
    assert read_objects(third) == read_objects(second)
    assert len(read_log(report.parent / "third")["earlier"]) == 2


def test_a_label_that_was_removed_since_does_not_come_back(report):
    set_scores(report, [0.9] * 6)
    first = relabel(report, report.parent / "first", by_score=("accept", 0.8))
    label = {"index": 0, "id": None, "category": "cat", "bbox": NEW}
    image = read_suspects(report)[2][0].image
    removal = {"image": image, "image_id": "a", "suspect": "spurious label", "decision": "accept",
               "label": label, "proposal": None}  # fmt: skip
    file = write_decisions(report.parent / "removal.json", first, removal)
    second = relabel(file, report.parent / "second")
    assert len(read_objects(second)["a.jpg"]) == 3
    third = relabel(report, report.parent / "third", second, by_score=("accept", 0.7))
    assert read_objects(third) == read_objects(second)


def test_classes_that_are_written_in_another_form(report):
    set_scores(report, [0.9] * 6)
    file = report / "label_errors.json"
    content = json.loads(file.read_text())
    for x in content["categories"]:
        x["name"] = f"{x['name']} "
    file.write_text(json.dumps(content))
    corrected = relabel(report, report.parent / "corrected", by_score=("accept", 0.7))
    assert [len(x) for x in read_objects(corrected).values()] == [4, 4]


def test_a_label_that_a_person_removed_does_not_come_back(report, capsys):
    """Another report suspects that it is missing."""
    image, *_ = [x.image for x in read_suspects(report)[2]]
    label = {"index": 0, "id": None, "category": "dog", "bbox": DOG}
    removal = {"image": image, "image_id": "a", "suspect": "spurious label", "decision": "accept",
               "label": label, "proposal": None}  # fmt: skip
    dataset = f"voc://{report.parent}/data"
    file = write_decisions(report.parent / "removal.json", dataset, removal)
    first = relabel(file, report.parent / "first")
    assert len(read_objects(first)["a.jpg"]) == 2
    suspected = report / "label_errors.json"
    content = json.loads(suspected.read_text())
    content["annotations"] = content["annotations"][:1]
    content["annotations"][0] |= {"predicted_category_id": 1, "predicted_bbox": DOG}
    suspected.write_text(json.dumps(content))
    second = relabel(report, report.parent / "second", first, by_score=("accept", 0.7))
    assert read_objects(second) == read_objects(first)
    assert "decided otherwise in an earlier run: 1" in capsys.readouterr().out


def test_what_was_left_out_is_not_decided():
    left_out = [{"decision": {"image": "a"}, "reason": x} for x in ("no place", UNDONE)]
    run = {"changed": [{"decision": {"image": "b"}}], "left_out": left_out}
    assert decided([run]) == [{"image": "b"}, {"image": "a"}]
    assert len(decided([run, run, {}])) == 4


@pytest.mark.parametrize("earlier", [None, [{"changed": None}], [3], {"changed": []}])
def test_a_log_that_was_edited(report, earlier):
    set_scores(report, [0.9] * 6)
    first = relabel(report, report.parent / "first", by_score=("accept", 0.8))
    file = report.parent / "first" / LOG
    file.write_text(json.dumps({**json.loads(file.read_text()), "earlier": earlier}))
    again = relabel(report, report.parent / "second", first, by_score=("accept", 0.8))
    assert read_objects(again) == read_objects(first)
    assert len(read_log(report.parent / "second")["already_there"]) == 2
