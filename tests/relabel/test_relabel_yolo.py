import pytest
from small_data import write_image
from small_decisions import decision, read_objects, statuses, write_decisions

from ohem_d2.relabel.run import relabel

YAML = "path: .\ntrain: images/train\nval: images/val\nnames: [dog, cat]\n"
DOG, CAT = [30, 15, 20, 30], [0, 0, 8, 6]  # of an image of 80 x 60
LABELS = "0  0.5 0.500000 0.25 0.5\r\n\r\n1 0.05 0.05 0.1 0.1"


class Set:
    def __init__(self, folder, labels=LABELS, yaml=YAML):
        self.folder = folder
        for i, name in enumerate(("train/a", "train/b", "val/a")):
            write_image(folder / f"images/{name}.jpg", seed=i)
            file = folder / f"labels/{name}.txt"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(labels.encode() if name == "train/a" else b"0 0.5 0.5 1 1\n")
        (folder / "labels/train/b.txt").unlink()
        (folder / "data.yaml").write_text(yaml)
        self.image = folder / "images/train/a.jpg"
        self.address = f"yolo://{folder}/data.yaml?split=train"

    def relabel(self, *entries, address=None):
        file = write_decisions(self.folder / "decisions.json", address or self.address, *entries)
        return relabel(file, self.folder / "out")

    def changed(self, name="a"):
        return (self.folder / f"out/labels/train/{name}.txt").read_bytes().decode()


def test_only_what_was_decided_changes(tmp_path):
    data = Set(tmp_path)
    address = data.relabel(decision(data.image, label=("dog", DOG), proposal=("cat", DOG)))
    assert data.changed() == LABELS.replace("0  0.5", "1  0.5", 1)
    assert address == f"yolo://{tmp_path}/out/data.yaml?split=train"
    for name in ("data.yaml", "labels/val/a.txt"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / name).read_bytes()
    assert (tmp_path / "out/images/val/a.jpg").readlink() == tmp_path / "images/val/a.jpg"
    data.relabel(decision(data.image, label=("dog", DOG)))
    assert data.changed() == LABELS.partition("\r\n")[2]


def test_links_lead_past_those_of_an_earlier_run(tmp_path):
    data = Set(tmp_path / "data")
    first = data.relabel(decision(data.image, label=("dog", DOG), proposal=("cat", DOG)))
    file = write_decisions(tmp_path / "d.json", first, decision(data.image, label=("cat", CAT)))
    relabel(file, tmp_path / "second")
    for name in ("train/a", "train/b", "val/a"):
        link = tmp_path / f"second/images/{name}.jpg"
        assert link.readlink() == data.folder / f"images/{name}.jpg"


@pytest.mark.parametrize("other", ["val/a", "train/a"])
def test_a_new_label_is_a_polygon_where_others_of_the_data_set_are(tmp_path, other):
    data = Set(tmp_path)
    with (tmp_path / f"labels/{other}.txt").open("a") as file:
        file.write("\n1 0.1 0.1 0.2 0.1 0.2 0.3\n")
    address = data.relabel(decision(tmp_path / "images/train/b.jpg", proposal=("cat", DOG)))
    assert data.changed("b") == "1 0.375 0.25 0.625 0.25 0.625 0.75 0.375 0.75\n"
    assert read_objects(address)["b.jpg"] == [("cat", DOG, False)]


def test_new_labels(tmp_path):
    data = Set(tmp_path)
    address = data.relabel(
        decision(data.image, proposal=("dog", [1, 2, 3.3, 4.7])),
        decision(tmp_path / "images/train/b.jpg", proposal=("cat", DOG)),
        decision(data.image, label=("cat", CAT), proposal=("cat", [0, 0, 8.125, 6])),
    )
    found = read_objects(address)
    assert found["a.jpg"][1:] == [
        ("cat", [0, 0, 8.125, 6], False), ("dog", [1, 2, 3.3, 4.7], False)
    ]  # fmt: skip
    assert found["b.jpg"] == [("cat", DOG, False)]
    assert data.changed().startswith(LABELS[: LABELS.index("1 0.05")])
    assert data.changed("b") == "1 0.5 0.5 0.25 0.5\n"


def test_no_place_for_regions(tmp_path, capsys):
    data = Set(tmp_path)
    data.relabel(decision(data.image, "ignore", label=("dog", DOG)))
    assert statuses(tmp_path / "out") == {"left_out": 1}
    assert data.changed() == LABELS
    said = capsys.readouterr().out
    assert "\n- left out, since the format has no place for regions to ignore: 1 (" in said


def test_polygons_and_keypoints(tmp_path, capsys):
    data = Set(tmp_path, "0 0.1 0.1 0.5 0.1 0.5 0.5\n")
    box = [8, 6, 32, 24]
    address = data.relabel(
        decision(data.image, label=("dog", box), proposal=("cat", [8, 6, 40, 30])),
        decision(data.image, proposal=("dog", CAT)),
    )
    assert data.changed() == ("1 0.1 0.1 0.6 0.1 0.6 0.6 0.1 0.6\n0 0 0 0.1 0 0.1 0.1 0 0.1\n")
    assert [x[1] for x in read_objects(address)["a.jpg"]] == [[8, 6, 40, 30], CAT]
    assert "- outline replaced by the corners of its box: 1\n" in capsys.readouterr().out

    folder = tmp_path / "keypoints"
    data = Set(folder, "0 0.5 0.5 0.25 0.5 0.4 0.4 2\n", f"{YAML}kpt_shape: [1, 3]\n")
    (folder / "labels/val/a.txt").unlink()
    data.relabel(
        decision(data.image, label=("dog", DOG), proposal=("dog", [30, 15, 40, 30])),
        decision(data.image, proposal=("cat", CAT)),
    )
    assert data.changed() == "0 0.625 0.5 0.5 0.5 0.4 0.4 2\n1 0.05 0.05 0.1 0.1 0 0 0\n"


@pytest.mark.parametrize(
    ("yaml", "new"),
    [
        ("path: {0}  # here\ntrain:\n- images/train\nval: images/val\n",
         'path: ""  # here\ntrain: "images/train"\nval: "images/val"\n'),
        ("train:\n  - {0}/images/train\n  - {0}/images/val\n# more\n",
         'train: ["images/train", "images/val"]\n# more\n'),
        ("train: ../train.txt\nval: images/val\n", 'train: "train.txt"\nval: "images/val"\n'),
    ],
)  # fmt: skip
def test_paths_that_lead_out_of_the_copy(tmp_path, yaml, new):
    names = "names: [dog, cat]\n"
    data = Set(tmp_path, yaml=yaml.format(tmp_path) + names)
    (tmp_path / "train.txt").write_text(f"{data.image}\n{tmp_path}/images/train/b.jpg\n")
    address = data.relabel(decision(data.image, label=("dog", DOG), proposal=("cat", DOG)))
    assert (tmp_path / "out/data.yaml").read_text() == new + names
    if "txt" in yaml:
        lines = (tmp_path / "out/train.txt").read_text()
        assert lines == "images/train/a.jpg\nimages/train/b.jpg\n"
    elif "val: " in yaml:
        assert read_objects(address)["a.jpg"][0] == ("cat", DOG, False)


def test_darknet(tmp_path):
    data = Set(tmp_path)
    folder = tmp_path / "data"
    for x in [*(tmp_path / "images/train").iterdir(), *(tmp_path / "labels/train").iterdir()]:
        (folder / "obj").mkdir(parents=True, exist_ok=True)
        x.rename(folder / "obj" / x.name)
    (folder / "obj.data").write_text("classes = 2\ntrain = data/train.txt\nnames = data/my.names\n")
    (folder / "my.names").write_text("dog\ncat\n")
    (folder / "train.txt").write_text("data/obj/a.jpg\ndata/obj/b.jpg\n")
    address = data.relabel(
        decision(folder / "obj/a.jpg", label=("dog", DOG), proposal=("cat", DOG)),
        address=f"yolo://{folder}/obj.data",
    )
    assert read_objects(address)["a.jpg"][0] == ("cat", DOG, False)
    written = (tmp_path / "out/obj/a.txt").read_bytes().decode()
    assert written == LABELS.replace("0  ", "1  ", 1)
    assert (tmp_path / "out/my.names").is_file()


def test_images_in_another_folder_than_lists_say(tmp_path):
    data = Set(tmp_path / "data")
    data.image.parent.rename(tmp_path / "photos")
    (tmp_path / "data/labels/train/a.txt").rename(tmp_path / "data/a.txt")
    (tmp_path / "data/train.txt").write_text("data/a.jpg\ndata/b.jpg\n")
    (tmp_path / "data/obj.data").write_text("train = data/train.txt\nnames = data/obj.names\n")
    (tmp_path / "data/obj.names").write_text("dog\ncat\n")
    file = write_decisions(
        tmp_path / "d.json", f"yolo://{tmp_path}/data/obj.data?images={tmp_path}/photos",
        decision(tmp_path / "photos/a.jpg", label=("dog", DOG), proposal=("cat", DOG)),
    )  # fmt: skip
    address = relabel(file, tmp_path / "out")
    assert address == f"yolo://{tmp_path}/out/obj.data?split=train"
    assert read_objects(address)["a.jpg"][0] == ("cat", DOG, False)
    assert (tmp_path / "out/a.txt").read_bytes().decode() == LABELS.replace("0  ", "1  ", 1)
    assert (tmp_path / "out/a.jpg").readlink() == tmp_path / "photos/a.jpg"
