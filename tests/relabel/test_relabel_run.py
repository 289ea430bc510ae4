"""The command: random decisions in each format, what is left out, and the folder that it writes."""

import json
import shutil
import tempfile
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from hypothesis import given, settings
from hypothesis import strategies as st
from small_data import HEIGHT, WIDTH, write_coco, write_image, write_voc
from small_decisions import decision, read_log, read_objects, statuses, write_decisions

from ohem_d2 import cli
from ohem_d2.errors import InputError
from ohem_d2.relabel.run import relabel
from ohem_d2.report.label_errors import LABEL_ERRORS

CLASSES = ("cat", "dog", "owl")
ACTIONS = ("none", "remove", "class", "move", "both", "ignore", "reject")
CELL = 20  # pixels: each object has one of its own, so that no two decisions meet


def write_set(folder, form, images):
    """`images`: of each, its objects as (class, [x, y, width, height])."""
    # One that keeps all classes, whatever goes.
    images = {**images, "z": [(c, [CELL * i, 0, 9, 9]) for i, c in enumerate(CLASSES)]}
    if form == "coco":
        names = {f"{k}.jpg": v for k, v in images.items()}
        file = write_coco(folder, names, {5: "cat", 1: "dog", 3: "owl"})
        return f"coco://{file}?images={folder / 'images'}", folder / "images"
    if form == "voc":
        of_voc = {
            k: [(c, (x + 1, y + 1, x + w, y + h), "<part/>") for c, (x, y, w, h) in v]
            for k, v in images.items()
        }
        return f"voc://{write_voc(folder, of_voc)}", folder / "JPEGImages"
    for i, (name, objects) in enumerate(images.items()):
        write_image(folder / f"images/{name}.jpg", seed=i)
        lines = []
        for c, (x, y, w, h) in objects:
            of_x, of_y = ((x + w / 2) / WIDTH, w / WIDTH), ((y + h / 2) / HEIGHT, h / HEIGHT)
            lines.append(f"{CLASSES.index(c)} {of_x[0]} {of_y[0]} {of_x[1]} {of_y[1]}\n")
        (folder / "labels").mkdir(exist_ok=True)
        (folder / f"labels/{name}.txt").write_text("".join(lines))
    file = folder / ("labels/classes.txt" if form == "yolo, beside its labels" else "classes.txt")
    file.write_text("\n".join(CLASSES))
    return f"yolo://{file}", folder / "images"


objects_of_an_image = st.dictionaries(
    st.integers(0, 11),  # the cell
    st.tuples(
        st.sampled_from(CLASSES), st.tuples(st.integers(0, 5), st.integers(0, 5)),
        st.tuples(st.integers(3, 10), st.integers(3, 10)), st.sampled_from((*ACTIONS, "new")),
        st.sampled_from(CLASSES), st.integers(1, 4),
    ),
    max_size=6,
)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(
    form=st.sampled_from(["coco", "voc", "yolo"]),
    cells=st.lists(objects_of_an_image, min_size=1, max_size=3),
)
def test_random_decisions_against_a_list_of_records(form, cells):
    with tempfile.TemporaryDirectory() as name:
        folder, images, expected, entries = Path(name), {}, {}, []
        for number, of_image in enumerate(cells):
            image = "abc"[number]
            images[image], expected[f"{image}.jpg"] = [], []
            for cell, (category, offset, size, action, other, shift) in of_image.items():
                x, y = CELL * (cell % 4) + offset[0], CELL * (cell // 4) + offset[1]
                box, moved = [x, y, *size], [x + shift, y, *size]
                old, now = (category, box), [(category, box, False)]
                if action != "new":
                    images[image].append(old)
                new = None
                if action == "remove":
                    now = []
                elif action == "class":
                    new = (other, box)
                elif action == "move":
                    new = (category, moved)
                elif action == "both":
                    new = (other, moved)
                elif action == "ignore":
                    now = [(category, box, form != "yolo")]
                elif action == "new":
                    old, new = None, (category, box)
                if new:
                    now = [(*new, False)]
                expected[f"{image}.jpg"] += now
                if action != "none":
                    what = action if action in ("ignore", "reject") else "accept"
                    entries.append((image, what, old, new))
        address, where = write_set(folder, form, images)
        entries = [decision(where / f"{i}.jpg", *rest) for i, *rest in entries]
        before = {x: x.read_bytes() for x in folder.rglob("*") if x.is_file()}
        file = write_decisions(folder / "decisions.json", address, *entries)
        corrected = relabel(file, folder / "out")
        assert all(x.read_bytes() == content for x, content in before.items())
        found = read_objects(corrected)
        for image, objects in expected.items():
            assert sorted(found[image]) == sorted(objects)
        for image in images:  # of those without decisions, each byte
            if not any(Path(x["image"]).stem == image for x in entries):
                for x in before:
                    if x.suffix in (".xml", ".txt") and x.stem == image:
                        copy = folder / "out" / x.relative_to(folder)
                        assert copy.read_bytes() == before[x]
        relabel(file, folder / "again", corrected)
        log = read_log(folder / "again")
        assert not log["changed"]
        assert len(log["already_there"]) == len(read_log(folder / "out")["changed"]) + len(
            read_log(folder / "out")["already_there"]
        )
        for x in log["files"]:
            if not (folder / "again" / x).is_symlink():
                assert (folder / "again" / x).read_bytes() == (folder / "out" / x).read_bytes()


BOX, OTHER = [0, 0, 20, 30], [40, 20, 10, 10]


@pytest.fixture
def data(tmp_path):
    address, images = write_set(tmp_path / "data", "voc", {"a": [("dog", BOX), ("cat", OTHER)]})
    return address, images / "a.jpg", tmp_path


def run(data, *entries, **kwargs):
    address, _, folder = data
    file = write_decisions(folder / "decisions.json", address, *entries)
    return relabel(file, folder / "out", **kwargs)


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"label": ("dog", [0, 0, 20, 29])}, "its label is gone or has changed since"),
        ({"label": ("owl", BOX)}, "its label is gone or has changed since"),
        ({"label": ("dog", [1, 40, 9, 9]), "proposal": ("cat", BOX)}, "its label is gone or has"),
        ({"label": ("dog", BOX), "image": "x.jpg"}, "its image is not in the data set"),
    ],
)
def test_what_has_changed_is_left_out(data, entry, reason, capsys):
    run(data, decision(**{"image": data[1]} | entry), decision(data[1], "reject", ("cat", OTHER)))
    [left_out] = read_log(data[2] / "out")["left_out"]
    assert left_out["reason"].startswith(reason)
    assert f"- left out, since {reason}" in capsys.readouterr().out
    assert statuses(data[2] / "out") == {"left_out": 1, "rejected": 1}


def test_a_class_that_the_data_set_does_not_have(tmp_path, capsys):
    address, images = write_set(tmp_path / "data", "coco", {"a": [("dog", BOX)]})
    data = address, images / "a.jpg", tmp_path
    run(data, decision(data[1], proposal=("bird", OTHER)), decision(data[1], label=("dog", BOX)))
    assert statuses(tmp_path / "out") == {"changed": 1, "left_out": 1}
    assert "- left out, since the data set has no class 'bird': 1 (" in capsys.readouterr().out


# The image is 80 x 60 pixels: the label reaches out on the left and at the bottom.
@pytest.mark.parametrize(
    ("moved", "expected"),
    [([-9, 30, 35, 40], [0, 30, 26, 30]), ([-9.01, 35, 30, 35], [0, 35, 20.99, 25])],
)
def test_a_label_beyond_the_edge_of_which_another_edge_is_moved(tmp_path, moved, expected):
    box = [-9, 30, 30, 40]
    address, images = write_set(tmp_path / "data", "coco", {"a": [("dog", box)]})
    data = address, images / "a.jpg", tmp_path
    address = run(data, decision(data[1], label=("dog", box), proposal=("dog", moved)))
    assert read_objects(address)["a.jpg"] == [("dog", expected, False)]
    with pytest.raises(InputError, match="expected one inside of the image"):  # further than it
        run(data, decision(data[1], label=("dog", box), proposal=("dog", [-11, 30, 30, 40])))


@pytest.mark.parametrize("shift", [1, 3])
def test_a_new_label_of_what_was_labelled_since(data, shift, capsys):
    near = [shift, 0, 20, 30]  # an IoU of 0.90, and of 0.74
    new = decision(data[1], proposal=("dog", near))
    run(data, new, new)
    assert statuses(data[2] / "out") == {"left_out": 2}
    said = "- left out, since a label of its class overlaps it, and may be of the same object: 2 ("
    assert said in capsys.readouterr().out
    # One that goes, or becomes another class or a region, is none.
    for action, proposal in (("accept", None), ("accept", ("cat", BOX)), ("ignore", None)):
        run(data, new, decision(data[1], action, ("dog", BOX), proposal))
        assert statuses(data[2] / "out") == {"changed": 2}


@pytest.mark.parametrize("box", [BOX, [5, 0, 20, 30]])
def test_new_labels_beside_others(data, box):
    category = "cat" if box == BOX else "dog"  # of another class, or an IoU of 0.6
    run(data, decision(data[1], proposal=(category, box)))
    assert statuses(data[2] / "out") == {"changed": 1}


@pytest.mark.parametrize("form", ["coco", "voc", "yolo", "yolo, beside its labels"])
@pytest.mark.parametrize("then", [None, ("dog", [50, 30, 10, 10]), ("cat", OTHER)])
def test_what_an_earlier_run_added_is_changed(tmp_path, form, then):
    address, images = write_set(tmp_path / "data", form, {"a": [("owl", BOX)]})
    first = decision(images / "a.jpg", proposal=("dog", OTHER))
    second = decision(images / "a.jpg", label=("dog", OTHER), proposal=then)
    expected = sorted([("owl", BOX, False), *([(*then, False)] if then else [])])
    address = run((address, images / "a.jpg", tmp_path), first)
    later = {"already_there": 1, "left_out": 1}  # the first one is not added anew
    for number, found in enumerate(({"changed": 1, "already_there": 1}, later, later)):
        file = write_decisions(tmp_path / "d.json", address, first, second)
        address = relabel(file, tmp_path / f"out{number}")
        assert statuses(tmp_path / f"out{number}") == found
        assert sorted(read_objects(address)["a.jpg"]) == expected


@pytest.mark.parametrize("form", ["coco", "voc", "yolo"])
def test_images_that_are_links_to_one_file(tmp_path, form):
    """Each has labels of its own, as where images are repeated on purpose."""
    objects = {x: [("dog", BOX)] for x in ("a", "b")}
    address, images = write_set(tmp_path / "data", form, objects)
    (images / "a.jpg").rename(tmp_path / "one.jpg")
    (images / "b.jpg").unlink()
    for name in ("a.jpg", "b.jpg"):
        (images / name).symlink_to(tmp_path / "one.jpg")
    address = run((address, images, tmp_path), decision(images / "a.jpg", proposal=("cat", OTHER)))
    assert [len(read_objects(address)[x]) for x in ("a.jpg", "b.jpg")] == [2, 1]
    entry = decision(tmp_path / "one.jpg", proposal=("owl", [1, 45, 9, 9]))
    other = decision(images / "z.jpg", action="reject", label=("cat", [0, 0, 9, 9]))
    file = write_decisions(tmp_path / "link.json", address, entry, other)
    relabel(file, tmp_path / "of_link", address)
    assert statuses(tmp_path / "of_link") == {"rejected": 1, "left_out": 1}
    (reason,) = [x["reason"] for x in read_log(tmp_path / "of_link")["left_out"]]
    assert reason == "several images are links to the file of its image"


def test_what_an_earlier_run_changed_is_changed_but_not_back(data):
    first = decision(data[1], label=("dog", BOX), proposal=("cat", BOX))
    address = run(data, first)
    for then, found in (("owl", {"changed": 1, "already_there": 1}), ("dog", {"left_out": 2})):
        second = decision(data[1], label=("cat", BOX), proposal=(then, BOX))
        file = write_decisions(data[2] / "d.json", address, first, second)
        relabel(file, data[2] / then)
        assert statuses(data[2] / then) == found


@pytest.mark.parametrize(
    "second",
    [
        {"label": ("dog", BOX)},
        {"label": ("dog", BOX), "proposal": ("owl", BOX)},
        {"action": "ignore", "label": ("dog", BOX)},
        {"action": "reject", "label": ("dog", BOX)},
        {"action": "reject", "label": ("dog", BOX), "proposal": ("cat", BOX)},
        # What the first one makes is what this one changes.
        {"label": ("cat", BOX)},
    ],
)
def test_decisions_that_contradict_each_other(data, second):
    first = decision(data[1], label=("dog", BOX), proposal=("cat", BOX))
    untouched = decision(data[1], label=("cat", OTHER))
    for entries in ([first, decision(data[1], **second)], [decision(data[1], **second), first]):
        run(data, *entries, untouched)
        assert statuses(data[2] / "out") == {"changed": 1, "left_out": 2}


def test_the_same_decided_twice_and_labels_that_stand_twice(tmp_path):
    address, images = write_set(tmp_path / "data", "voc", {"a": [("dog", BOX), ("dog", BOX)]})
    data = address, images / "a.jpg", tmp_path
    entry = decision(data[1], label=("dog", BOX), proposal=("cat", BOX))
    corrected = run(data, entry, entry)
    assert read_objects(corrected)["a.jpg"] == [("cat", BOX, False)] * 2
    assert statuses(tmp_path / "out") == {"changed": 1, "already_there": 1}


@pytest.mark.parametrize("action", ["accept", "ignore"])
def test_a_proposal_that_is_rejected_too(data, action):
    rejected = decision(data[1], "reject", proposal=("dog", OTHER))
    run(data, decision(data[1], action, proposal=("dog", OTHER)), rejected)
    assert statuses(data[2] / "out") == {"left_out": 2}
    # Something else at its place, and the same twice, are none.
    run(data, decision(data[1], action, proposal=("owl", OTHER)), rejected, rejected)
    assert statuses(data[2] / "out") == {"changed": 1, "rejected": 2}


def test_a_label_that_goes_beside_one_much_like_it(tmp_path):
    near = [1, 0, 20, 30]
    address, images = write_set(tmp_path / "data", "voc", {"a": [("dog", BOX), ("dog", near)]})
    corrected = run(
        (address, images / "a.jpg", tmp_path), decision(images / "a.jpg", label=("dog", BOX))
    )
    assert read_objects(corrected)["a.jpg"] == [("dog", near, False)]


def test_nothing_is_left(tmp_path):
    folder = write_voc(tmp_path / "data", {"a": [("dog", (1, 1, 20, 30), "")]})
    entry = decision(folder / "JPEGImages/a.jpg", label=("dog", BOX))
    file = write_decisions(tmp_path / "d.json", f"voc://{folder}", entry)
    with pytest.raises(InputError) as e:
        relabel(file, tmp_path / "out")
    assert str(e.value) == (
        f"{file}: decisions[0]: then no label is left in 'voc://{folder}', expected one that stays"
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("entry", "emptied"),
    [
        ({"label": ("dog", BOX)}, "'dog'"),
        ({"label": ("dog", BOX), "proposal": ("cat", BOX)}, "'dog'"),
        ({"action": "ignore", "label": ("dog", BOX)}, "'dog'"),
        ({"label": ("dog", BOX), "proposal": ("dog", OTHER)}, None),
        ({"label": ("cat", OTHER)}, None),
    ],
)
def test_a_class_of_which_nothing_is_left(tmp_path, entry, emptied, capsys):
    objects = [
        ("dog", (1, 1, 20, 30), ""),
        ("cat", (41, 21, 50, 30), ""),
        ("cat", (1, 1, 9, 9), ""),
    ]
    folder = write_voc(tmp_path / "data", {"a": objects})
    entry = decision(folder / "JPEGImages/a.jpg", **entry)
    relabel(write_decisions(tmp_path / "d.json", f"voc://{folder}", entry), tmp_path / "out")
    said = capsys.readouterr().out
    if emptied:
        assert f"- class without any object now: 1 ({emptied})\n" in said
    else:
        assert "without any object" not in said


def test_the_log(data):
    run(data, decision(data[1], label=("dog", BOX), proposal=("cat", BOX), more=1))
    [change] = read_log(data[2] / "out")["changed"]
    assert change["image"] == str(data[1])
    assert change["file"] == "Annotations/a.xml"
    assert change["before"] == {"category": "dog", "bbox": BOX}
    assert change["after"] == {"category": "cat", "bbox": BOX}
    assert change["decision"]["more"] == 1


def test_a_data_set_that_was_moved(data):
    _address, image, folder = data
    shutil.move(folder / "data", folder / "elsewhere")
    entry = decision(image, label=("dog", BOX), image_id="a")
    run((f"voc://{folder / 'elsewhere'}", image, folder), entry)
    assert statuses(folder / "out") == {"changed": 1}


def test_another_data_set_with_the_same_names(data):
    _address, image, folder = data
    shutil.copytree(folder / "data", folder / "elsewhere")
    other = f"voc://{folder / 'elsewhere'}"
    entry = decision(image, label=("dog", BOX), image_id="a")
    with pytest.raises(InputError) as e:
        run((other, image, folder), entry)
    assert str(e.value) == (
        f"{folder / 'decisions.json'}, which is of '{other}', has 1 decisions, 1 of them on images "
        f"that are not in '{other}', such as {image}; there is {folder}/elsewhere/JPEGImages/a.jpg:"
        " expected --dataset with the address of these images"
    )
    assert not (folder / "out").exists()
    run(data, entry, dataset=other)  # who names it knows
    assert statuses(folder / "out") == {"changed": 1}


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"proposal": ("dog", [70, 0, 20, 20])}, "[70, 0, 20, 20], expected one inside of"),
        ({"label": ("dog", BOX), "proposal": ("dog", [-9, 0, 20, 20])}, "expected one inside of"),
        ({"proposal": ("dog", [0, 0, 0, 20])}, "[0, 0, 0, 20], expected one with an area"),
        ({"proposal": ("dog", [0, 0, float("nan"), 20])}, "expected [x, y, width, height]"),
        ({"proposal": ("dog", [0, 0, "9", 20])}, "expected [x, y, width, height]"),
        ({"proposal": ("dog", [1e300, 0, 1e300, 20])}, "..., expected one inside of the image"),
        ({"proposal": (" ", BOX)}, "expected its name"),
        ({"action": "later"}, "'later' as 'decision', expected 'accept', 'reject' or 'ignore'"),
        ({}, "is to accept neither a label nor a proposal"),
        ({"label": ("dog", BOX), "suspect": "x"}, "'x' as 'suspect', expected 'missing label', "),
        ({"label": ("dog", BOX), "image": ""}, "has the image '', expected the path of a file"),
        ({"label": ("dog", BOX), "image_id": 1.5}, "has the image_id 1.5, expected a number or a"),
    ],
)  # fmt: skip
def test_wrong_decisions(data, entry, words):
    with pytest.raises(InputError) as e:
        run(data, decision(**{"image": data[1]} | entry))
    assert words in str(e.value)
    assert f"{data[2] / 'decisions.json'}: decisions[0] has" in str(e.value) or "is to" in words
    assert not (data[2] / "out").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"proposal": ...}, "decisions[0] has no 'proposal': expected this key, which may be null"),
        ({"label": ...}, "decisions[0] has no 'label': expected this key, which may be null"),
        ({"label": ..., "lable": None}, "has no 'label', but 'lable': expected this key"),
        ({"label": ..., "Label": None}, "has the key 'Label', expected 'label'"),
        ({"labels": None}, "decisions[0] has the key 'labels', expected 'label'"),
        ({"suspect": ...}, "has no 'suspect': expected this key"),
        ({"suspect": "missing label"}, "has a label, 'dog', for the suspect 'missing label', "),
        ({"label": None}, "has no label (null) for the suspect 'badly placed label', expect"),
        ({"label": None, "suspect": "spurious label"}, "has no label (null) for the suspect"),
    ],
)  # fmt: skip
def test_decisions_that_may_mean_something_else(data, change, words):
    entry = decision(data[1], label=("dog", BOX), proposal=("cat", BOX))
    entry = entry | {"suspect": "badly placed label"} | change
    with pytest.raises(InputError) as e:
        run(data, {k: v for k, v in entry.items() if v is not ...})
    assert words in str(e.value)
    assert not (data[2] / "out").exists()


@pytest.mark.parametrize("proposal", [None, ("owl", OTHER)])
@pytest.mark.parametrize("suspect", ["spurious label", "wrong class", "badly placed label"])
def test_what_a_user_may_choose_in_the_page(data, suspect, proposal):
    run(data, decision(data[1], label=("dog", BOX), proposal=proposal, suspect=suspect, note=1))
    assert statuses(data[2] / "out") == {"changed": 1}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "is no JSON"), ("[]", "has no list of 'decisions'"),
        ('{"decisions": {}}', "has no list of 'decisions', expected"),
        ('{"images": [], "annotations": []}', "'decisions': it is a list of examples or labels"),
        ('{"decisions": []}', "names no data set, expected --dataset"),
        ('{"info": {"dataset": 1}, "decisions": []}', "'dataset' is 1, expected a name or an"),
        ('{"info": {"dataset": "nothing_so"}, "decisions": []}', "is not known: expected"),
        ('{"info": {"dataset": "cvat://a.xml"}, "decisions": []}', "expected one of coco://, voc://"),
        ('{"info": {"dataset": "ohem_shapes_test"}, "decisions": []}', "has no files of"),
        ('{"decisions": [3]}', "decisions[0] is 3, expected an object"),
    ],
)  # fmt: skip
def test_files_that_are_none_of_decisions(tmp_path, content, words):
    (tmp_path / "d.json").write_text(content)
    with pytest.raises(SystemExit) as e:
        cli.main(["relabel", str(tmp_path / "d.json"), "--output", str(tmp_path / "out")])
    assert words in str(e.value)
    assert "\n" not in str(e.value)


def test_a_data_set_that_is_registered(tmp_path, monkeypatch):
    file = write_coco(tmp_path, {"a.jpg": [("dog", BOX)]}, {1: "dog", 2: "cat"})
    register_coco_instances("relabelled", {}, str(file), str(tmp_path / "images"))
    try:
        entry = decision(tmp_path / "images/a.jpg", label=("dog", BOX), proposal=("cat", BOX))
        corrected = relabel(
            write_decisions(tmp_path / "d.json", "relabelled", entry), tmp_path / "out"
        )
    finally:
        DatasetCatalog.remove("relabelled")
        MetadataCatalog.remove("relabelled")
    assert corrected == f"coco://{tmp_path / 'out' / file.name}?images={tmp_path / 'images'}"
    assert read_objects(corrected)["a.jpg"] == [("cat", BOX, False)]


def test_folders_that_are_refused(data):
    address, image, folder = data
    entry = decision(image, label=("dog", BOX))
    file = write_decisions(folder / "decisions.json", address, entry)
    inputs = {x: x.read_bytes() for x in (folder / "data").rglob("*") if x.is_file()}
    for place in ("data", "data/Annotations", "data/Annotations/new", "data/JPEGImages/x", "."):
        with pytest.raises(InputError, match="expected a folder of its own"):
            relabel(file, folder / place)
    (folder / "link").symlink_to(folder / "data")
    with pytest.raises(InputError, match="expected a folder of its own"):
        relabel(file, folder / "link")
    (folder / "full").mkdir()
    (folder / "full/mine.txt").write_text("")
    with pytest.raises(InputError, match=f"--output is '{file}', which is a file, expected a fold"):
        relabel(file, file)
    with pytest.raises(InputError, match="mine.txt is not of an earlier 'ohem-d2 relabel'"):
        relabel(file, folder / "full")
    assert all(x.read_bytes() == content for x, content in inputs.items())


def test_what_an_earlier_run_wrote_is_replaced(data):
    out = data[2] / "out"
    run(data, decision(data[1], label=("dog", BOX)))
    (out / "Annotations/a.xml.tmp").write_text("")  # of a run that was killed
    write_coco(data[2] / "other", {"a.jpg": [("dog", BOX)]}, {1: "dog"})
    other = f"coco://{data[2]}/other/annotations.json?images={data[2]}/other/images"
    relabel(write_decisions(data[2] / "d.json", other), out)
    assert sorted(x.name for x in out.iterdir() if x.is_file()) == [
        "annotations.json", "relabel_log.json"
    ]  # fmt: skip
    (out / "annotations.json").write_text("{}")
    with pytest.raises(InputError, match="annotations.json was changed since an earlier"):
        run(data, decision(data[1], label=("dog", BOX)))
    assert (out / "annotations.json").read_text() == "{}"


def test_a_run_that_fails_half_way_can_be_repeated(data, monkeypatch):
    entry = decision(data[1], label=("dog", BOX))
    written = []

    def fail(file, content):
        if written:
            raise OSError(28, "No space left on device")
        written.append(file)
        whole(file, content)

    from ohem_d2.relabel import output

    whole = output._write
    monkeypatch.setattr(output, "_write", fail)
    with pytest.raises(InputError, match="No space left on device"):
        run(data, entry)
    monkeypatch.undo()
    assert ("dog", BOX, False) not in read_objects(run(data, entry))["a.jpg"]


def test_the_address_that_is_printed(data, capsys):
    address, image, folder = data
    file = write_decisions(folder / "d.json", f"{address}?part=train:0.9", decision(
        image, "reject", label=("dog", BOX)
    ))  # fmt: skip
    cli.main(["relabel", str(file), "--output", str(folder / "out")])
    *_, last = capsys.readouterr().out.splitlines()
    assert last == (
        f"ohem-d2 data 'voc://{folder}/out?images={folder}/data/JPEGImages&part=train:0.9'"
    )
    cli.main(["data", last.split("'")[1]])


def test_the_suspects_are_those_of_the_report():
    from ohem_d2.relabel.decisions import SUSPECTS

    assert SUSPECTS == LABEL_ERRORS


def test_json_is_as_it_was(tmp_path):
    address, images = write_set(tmp_path / "data", "coco", {"a": [("dog", BOX)]})
    file = tmp_path / "data/annotations.json"
    text = json.dumps(json.loads(file.read_text()), indent=2).replace("\n", "\r\n") + "\n\n"
    file.write_bytes(b"\xef\xbb\xbf" + text.encode())
    entry = decision(images / "a.jpg", label=("dog", BOX), proposal=("dog", [1, 0, 20, 30]))
    relabel(write_decisions(tmp_path / "d.json", address, entry), tmp_path / "out")
    new = text.replace('"bbox": [\r\n        0,', '"bbox": [\r\n        1,', 1)
    assert (tmp_path / "out/annotations.json").read_bytes() == b"\xef\xbb\xbf" + new.encode()
