import json

import pytest
from PIL import Image as Pixels
from small_data import HEIGHT, WIDTH, write_coco
from small_decisions import decision, read_objects, statuses, write_decisions

from ohem_d2.data.addresses import load_address
from ohem_d2.relabel.coco import CocoAnnotations
from ohem_d2.relabel.decisions import Box
from ohem_d2.relabel.labels import Edit, images_of
from ohem_d2.relabel.run import relabel

DOG, CAT, FAR = [1, 2, 20, 30], [30.5, 2, 20, 30], [60, 40, 10, 10]
IMAGES = {"a.jpg": [("dog", DOG), ("cat", CAT)], "b.jpg": [("dog", FAR)]}
CATEGORIES = {7: "dog", 3: "cat"}


class Set:
    def __init__(self, folder):
        self.folder = folder
        self.file = write_coco(folder, IMAGES, CATEGORIES)
        self.address = f"coco://{self.file}?images={folder / 'images'}"
        self.image = folder / "images/a.jpg"

    def relabel(self, *entries, dataset=None):
        file = write_decisions(self.folder / "decisions.json", self.address, *entries)
        return relabel(file, self.folder / "out", dataset)

    def text(self):
        return (self.folder / "out/annotations.json").read_text()


@pytest.fixture
def data(tmp_path):
    return Set(tmp_path)


def test_only_what_was_decided_changes(data):
    before = data.file.read_text()
    data.relabel(decision(data.image, label=("dog", DOG), proposal=("cat", DOG)))
    assert data.text() == before.replace('"category_id": 7', '"category_id": 3', 1)
    assert data.file.read_text() == before
    data.relabel(decision(data.image, label=("cat", CAT)))
    start = before.index(', {"id": 2, "image_id": 1')
    end = before.index(', {"id": 3, "image_id"')
    assert data.text() == before[:start] + before[end:]


def test_nothing_decided(data):
    data.relabel(decision(data.image, "reject", label=("dog", DOG)))
    assert data.text() == data.file.read_text()
    assert statuses(data.folder / "out") == {"rejected": 1}


@pytest.mark.parametrize(("kept", "lead"), [([0], "first"), ([1], "second"), ([], "none")])
def test_indented_lists_stay_valid(data, kept, lead):
    data.file.write_text(json.dumps(json.loads(data.file.read_text()), indent=4))
    labels = [("dog", DOG), ("cat", CAT)]
    gone = [decision(data.image, label=x) for i, x in enumerate(labels) if i not in kept]
    new = decision(data.image, proposal=("cat", [0, 0, 5, 5]))
    address = data.relabel(*gone, new)
    assert read_objects(address)["a.jpg"] == [
        *((*labels[i], False) for i in kept),
        ("cat", [0, 0, 5, 5], False),
    ]
    entry = json.loads(data.text())["annotations"][-1]
    assert entry == {"id": 4, "image_id": 1, "category_id": 3, "bbox": [0, 0, 5, 5], "area": 25,
                     "segmentation": [], "iscrowd": 0}  # fmt: skip


def test_what_a_moved_box_takes_along(data, capsys):
    content = json.loads(data.file.read_text())
    first = content["annotations"][0]
    first |= {"segmentation": [[1, 2, 21, 2, 21, 32]], "area": 300.0, "score": 1e-07}
    first |= {"keypoints": [5, 5, 2], "num_keypoints": 1}
    data.file.write_text(json.dumps(content))
    data.relabel(decision(data.image, label=("dog", DOG), proposal=("dog", [2.25, 2, 20, 10])))
    new = json.loads(data.text())["annotations"][0]
    outline = [[2.25, 2, 22.25, 2, 22.25, 12, 2.25, 12]]
    assert new == first | {"bbox": [2.25, 2, 20, 10], "area": 200, "segmentation": outline}
    assert "\n- outline ('segmentation') replaced by the corners of its box: 1\n" in (
        capsys.readouterr().out
    )
    data.relabel(decision(data.image, label=("dog", DOG), proposal=("cat", DOG)))
    assert json.loads(data.text())["annotations"][0] == first | {"category_id": 3}


@pytest.mark.parametrize(
    ("of_another", "of_new"),
    [
        ({"segmentation": [[1, 2, 21, 2, 21, 32]]},
         {"segmentation": [[3, 4, 8, 4, 8, 10.5, 3, 10.5]]}),
        ({"keypoints": [5, 5, 2, 6, 6, 1], "num_keypoints": 2},
         {"segmentation": [], "keypoints": [0] * 6, "num_keypoints": 0}),
        ({"segmentation": [], "keypoints": []}, {"segmentation": []}),
    ],
)  # fmt: skip
def test_new_labels_beside_outlines_and_keypoints(data, of_another, of_new):
    content = json.loads(data.file.read_text())
    content["annotations"][2] |= of_another  # of another image
    data.file.write_text(json.dumps(content))
    data.relabel(decision(data.image, proposal=("cat", [3, 4, 5, 6.5])))
    assert json.loads(data.text())["annotations"][-1] == {
        "id": 4, "image_id": 1, "category_id": 3, "bbox": [3, 4, 5, 6.5], "area": 32.5,
        "iscrowd": 0, **of_new,
    }  # fmt: skip


def test_a_class_with_other_keypoints_gets_none(data):
    content = json.loads(data.file.read_text())
    content["annotations"][2] |= {"keypoints": [5, 5, 2], "num_keypoints": 1}
    content["categories"][0]["keypoints"] = ["nose"]  # of the dog
    data.file.write_text(json.dumps(content))
    new = [decision(data.image, proposal=(x, [3, 4, 5, 6])) for x in ("dog", "cat")]
    new[1]["proposal"]["bbox"] = [60, 4, 5, 6]
    data.relabel(*new)
    dog, cat = json.loads(data.text())["annotations"][-2:]
    assert dog["keypoints"] == [0, 0, 0]
    assert "keypoints" not in cat


def test_ids_of_new_labels_are_sought_once(data):
    class Counted(list):
        number = 0

        def __iter__(self):
            type(self).number += 1
            return super().__iter__()

    content = load_address(data.address, unreadable="skip")
    annotations = CocoAnnotations(data.file, {"images": str(data.image.parent)})
    annotations._entries = Counted(annotations._entries)
    (image,) = (x for x in images_of(content) if x.file == str(data.image))
    new = [Edit(None, False, "cat", Box(i, 0, i + 5, 5)) for i in range(5)]
    annotations.edit(image, new)
    assert Counted.number == 0
    (text,) = annotations.output().written.values()
    assert [x["id"] for x in json.loads(text)["annotations"]] == [*range(1, 9)]


def test_regions_to_ignore(data):
    content = json.loads(data.file.read_text())
    del content["annotations"][0]["iscrowd"]
    data.file.write_text(json.dumps(content))
    entries = [
        decision(data.image, "ignore", label=("dog", DOG), proposal=("cat", DOG)),
        decision(data.image, "ignore", label=("cat", CAT)),
        decision(data.image, "ignore", proposal=("cat", FAR)),
    ]
    address = data.relabel(*entries)
    assert read_objects(address)["a.jpg"] == [
        ("dog", DOG, True), ("cat", CAT, True), ("cat", FAR, True)
    ]  # fmt: skip
    assert all(x["iscrowd"] == 1 for x in json.loads(data.text())["annotations"][:2])
    again = write_decisions(data.folder / "d.json", data.address, *entries)
    relabel(again, data.folder / "again", address)
    assert statuses(data.folder / "again") == {"already_there": 3}


def test_labels_are_found_by_their_ids(data):
    content = json.loads(data.file.read_text())
    content["annotations"][1] |= {"bbox": DOG, "category_id": 7}  # labelled twice
    data.file.write_text(json.dumps(content))
    label = {"index": 1, "id": 2, "category": "dog", "bbox": DOG}
    data.relabel(decision(data.image, label=("dog", DOG)) | {"label": label})
    assert [x["id"] for x in json.loads(data.text())["annotations"]] == [1, 3]
    data.relabel(decision(data.image, label=("dog", DOG)) | {"label": label | {"bbox": CAT}})
    assert statuses(data.folder / "out") == {"left_out": 1}


@pytest.mark.parametrize("id_", [71, "71", "1", 1.0, " 1"])
@pytest.mark.parametrize(
    ("action", "proposal", "expected"),
    [
        ("accept", None, []),
        ("accept", ("dog", FAR), [("dog", FAR, False)]),
        ("ignore", ("dog", DOG), [("dog", DOG, True)]),
    ],
)
def test_labels_whose_ids_are_others_now(data, id_, action, proposal, expected):
    label = {"index": 0, "id": id_, "category": "dog", "bbox": DOG}
    entry = decision(data.image, action, ("dog", DOG), proposal) | {"label": label}
    address = data.relabel(entry)
    assert read_objects(address)["a.jpg"] == [*expected, ("cat", CAT, False)]
    relabel(write_decisions(data.folder / "d.json", address, entry), data.folder / "again")
    assert statuses(data.folder / "again") == {"already_there": 1}


def test_of_labels_that_stand_twice_one_goes_once(data):
    content = json.loads(data.file.read_text())
    content["annotations"][1] |= {"bbox": DOG, "category_id": 7}
    data.file.write_text(json.dumps(content))
    label = {"index": 0, "id": 1, "category": "dog", "bbox": DOG}
    entry = decision(data.image, label=("dog", DOG)) | {"label": label}
    address = data.relabel(entry)
    again = relabel(write_decisions(data.folder / "d.json", address, entry), data.folder / "again")
    assert read_objects(address)["a.jpg"] == read_objects(again)["a.jpg"] == [("dog", DOG, False)]
    assert statuses(data.folder / "again") == {"already_there": 1}


def test_ids_that_are_texts(data):
    content = json.loads(data.file.read_text())
    for x in content["images"]:
        x["id"] = str(x["id"])
    for i, x in enumerate(content["annotations"]):
        x |= {"id": f"x{i}", "image_id": str(x["image_id"])}
    for x in content["categories"]:
        x["id"] = str(x["id"])
    data.file.write_text(json.dumps(content))
    data.relabel(
        decision(data.image, label=("dog", DOG), proposal=("cat", DOG)),
        decision(data.image, proposal=("dog", FAR)),
    )
    first, *_, last = json.loads(data.text())["annotations"]
    assert first["category_id"] == "3"
    assert (last["id"], last["image_id"], last["category_id"]) == ("1", "1", "7")


@pytest.mark.parametrize("orientation", range(2, 9))
def test_images_that_exif_turns_after_they_were_annotated(data, orientation):
    exif = Pixels.Exif()
    exif[0x0112] = orientation
    Pixels.new("RGB", (WIDTH, HEIGHT)).save(data.image, exif=exif)
    shown = read_objects(data.address)["a.jpg"]
    # Mirrored ones keep their sizes, so that nothing tells.
    assert (shown[0][1] != DOG) == (orientation >= 5)
    moved = [shown[0][1][0] + 1, *shown[0][1][1:]]
    address = data.relabel(
        decision(data.image, label=shown[0][:2], proposal=("cat", moved)),
        decision(data.image, proposal=("dog", [3, 4, 5, 6])),
    )
    assert read_objects(address)["a.jpg"] == [
        ("cat", moved, False), shown[1], ("dog", [3, 4, 5, 6], False)
    ]  # fmt: skip
