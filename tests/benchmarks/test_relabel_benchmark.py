import json
import sys

import accuracy
import oracle
import pytest
import relabel
import relabel_page

from ohem_d2.relabel.decisions import Box, Object
from ohem_d2.relabel.suspects import Suspect

HERE, THERE, AWAY = Box(0, 0, 10, 10), Box(4, 0, 14, 10), Box(50, 50, 60, 60)
TRUTH = {7: {i: Object("ring", box, i) for i, box in ((1, HERE), (2, AWAY))}, 8: {}}
IMAGES = {7: "/seven.jpg", 8: "/eight.jpg"}
DATA = relabel.DATA[0]
TINY = ["SOLVER.MAX_ITER", "3", "SOLVER.IMS_PER_BATCH", "1"]


def suspect(name, label=None, proposal=None):
    return Suspect(1, IMAGES[7], 7, (99, 99), name, label, proposal, score=0.9)


def decide(labels, x):
    (entry,) = oracle.on_suspects([x, x], {7: labels, 8: {}}, TRUTH, number=1)
    assert (entry["image"], entry["image_id"]) == (IMAGES[7], 7)
    return entry["suspect"], entry["decision"], entry["label"], entry["proposal"]


RIGHT = {"category": "ring", "bbox": [0, 0, 10, 10]}


def test_a_removed_label_is_added_where_it_is_suspected():
    labels = {2: TRUTH[7][2]}
    near = suspect("missing label", proposal=Object("bar", Box(1, 0, 11, 10)))
    assert decide(labels, near) == ("missing label", "accept", None, RIGHT)
    far = suspect("missing label", proposal=Object("ring", Box(8, 0, 18, 10)))
    assert decide(labels, far) == ("missing label", "reject", None, None)
    labelled = suspect("missing label", proposal=Object("ring", AWAY))  # another one at its place
    assert decide(labels, labelled)[1] == "reject"


@pytest.mark.parametrize(
    "wrong", [Object("bar", HERE, 1), Object("ring", THERE, 1)], ids=["swapped", "moved"]
)
def test_a_wrong_label_becomes_right_whatever_is_suspected(wrong):
    labels = {**TRUTH[7], 1: wrong}
    for name in ("wrong class", "badly placed label", "spurious label"):
        _, action, label, proposal = decide(labels, suspect(name, label=wrong))
        assert (action, label["id"], proposal) == ("accept", 1, RIGHT)
        right = suspect(name, label=labels[2])
        assert decide(labels, right)[1::2] == ("reject", None)


def test_random_images_use_each_decision_on_one_object():
    truth = {i: {3 * i + k: Object("ring", HERE, 3 * i + k) for k in range(3)} for i in range(9)}
    labels = {i: {k: x for k, x in of.items() if k % 4} for i, of in truth.items()}
    images = {i: f"/{i}.jpg" for i in truth}
    seen = [oracle.on_random_images(images, labels, truth, n, seed=0) for n in (1, 10, 27, 99)]
    assert [len(x) for x in seen] == [1, 10, 27, 27]  # there are no more than 27 objects
    assert seen[1] == seen[2][:10]
    assert seen[2] != oracle.on_random_images(images, labels, truth, 27, seed=1)
    # Image by image, whether an object has a label or not.
    assert len({x["image_id"] for x in seen[1]}) == 4
    assert sum(x["decision"] == "accept" for x in seen[2]) == sum(k % 4 == 0 for k in range(27))
    assert {x["label"]["id"] for x in seen[2] if x["label"]} == {k for k in range(27) if k % 4}


@pytest.fixture
def call(tmp_path, monkeypatch):
    sizes = {"train": 9, "test": 3}
    drawing = {**accuracy.DRAWN[DATA], "sizes": sizes}
    monkeypatch.setitem(accuracy.DRAWN, DATA, drawing)
    monkeypatch.setitem(accuracy.DRAWN, "plain", {**accuracy.DRAWN["plain"], "sizes": sizes})
    monkeypatch.setattr(accuracy, "DRAWN_FOLDER", tmp_path / "drawn")
    monkeypatch.setattr(accuracy, "PRETRAINING", TINY)

    def call(*arguments, opts=()):
        command = ["relabel.py", "--seeds", "0", "--output", str(tmp_path / "out"), *arguments]
        monkeypatch.setattr(sys, "argv", [*command, "--opts", *TINY, *opts])
        relabel.main()
        return json.loads((tmp_path / "out" / "results.json").read_text())["runs"]

    return call


@pytest.mark.parametrize("kind", relabel_page.PLAN["kinds"])
def test_with_decisions_on_all_objects_all_labels_are_right(call, kind):
    call("--kinds", kind, "--shares", "0.5", "--decisions", "99")
    folder = relabel.folder_of((DATA, kind, 0.5, 0))
    _, truth = oracle.read_objects(accuracy.DRAWN_FOLDER / DATA / "train.json")
    _, spoilt = oracle.read_objects(folder / "none" / "train.json")
    _, corrected = oracle.read_objects(folder / "99_random_images" / "train.json")

    def plain(objects):
        return {i: sorted((x.category, x.box) for x in of.values()) for i, of in objects.items()}

    assert plain(spoilt) != plain(truth)
    assert plain(corrected) == plain(truth)


def test_no_run_is_repeated_and_settings_are_compared(call, monkeypatch, capsys):
    arguments = ["--kinds", "removed", "--shares", "0.5", "--decisions"]
    runs = call(*arguments, "2")
    assert [x["variant"] for x in runs] == ["none", "none", "2 suspects", "2 random images"]
    assert runs[3]["decisions"] == 2
    trained = []
    train = relabel.train
    monkeypatch.setattr(relabel, "train", lambda *x: trained.append(x) or train(*x))
    assert call(*arguments, "2") == runs
    assert trained == []
    assert len(call(*arguments, "2", "3")) == 6
    assert len(trained) == 2  # the suspects are those of the first call
    assert "1 of the 246 runs" in capsys.readouterr().out  # the others are not planned
    with pytest.raises(SystemExit, match=r"SOLVER\.BASE_LR 0\.02, expected 0\.01"):
        call(*arguments, "2", opts=["SOLVER.BASE_LR", "0.01"])
