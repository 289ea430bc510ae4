import csv
import re
import time

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode
from small_data import write_image, write_voc

from ohem_d2 import cli
from ohem_d2.data.findings import Findings
from ohem_d2.errors import InputError
from ohem_d2.report.data_page import choose
from ohem_d2.report.own_page import check_own_page

GOOD = (1, 1, 20, 30)


@pytest.fixture
def address(tmp_path):
    images = {str(i): [("dog", GOOD, "")] for i in range(9)}
    images["odd"] = [("cat", GOOD, ""), ("<b>dog</b>", GOOD, ""), ("dog", (5, 5, 5, 5), "")]
    return f"voc://{write_voc(tmp_path / 'data', images)}"


def test_figures_and_what_is_odd(address, capsys):
    cli.main(["data", address])
    said = capsys.readouterr().out
    assert said.startswith(f"{address}\n10 images, 11 objects in 3 classes\n")
    assert "sizes of images: 80 x 60: 10\n" in said
    assert re.search(r"\ndog +9 +9\n", said)
    assert "\n- box of zero area, left out: 1 (" in said
    assert "data/JPEGImages/odd.jpg: 'dog' at [" in said


def test_nothing_odd(tmp_path, capsys):
    cli.main(["data", f"voc://{write_voc(tmp_path, {'a': [('dog', GOOD, '')]})}"])
    assert capsys.readouterr().out.endswith("\nNothing odd was found.\n")


def test_regions_are_no_objects(tmp_path, capsys):
    ignored, difficult = "<ignore>1</ignore>", "<difficult>1</difficult>"
    images = {
        "a": [("dog", GOOD, ""), ("dog", (5, 5, 50, 50), ignored), ("cat", GOOD, difficult)],
        "b": [("dog", GOOD, ignored)],
    }
    address = f"voc://{write_voc(tmp_path / 'data', images)}"
    cli.main(["data", address, "--output", str(tmp_path / "look")])
    said = capsys.readouterr().out
    assert said.startswith(
        f"{address}\n2 images, 2 objects in 2 classes\n"
        "regions to ignore, which are no objects: 2\ndifficult objects: 1\n"
        "images without objects: 1\n"
    )
    assert re.search(r"\ndog +1 +1\n", said)
    assert "boxes by COCO's limits: 2 small, 0 medium, 0 large" in said
    page = (tmp_path / "look/index.html").read_text()
    assert "a.jpg, 80 x 60: 1 dog, 1 cat, 1 to ignore<" in page
    assert "b.jpg, 80 x 60: no objects, 1 to ignore<" in page
    images = {name: [("dog", GOOD, ignored)] for name in images}
    cli.main(["data", f"voc://{write_voc(tmp_path / 'regions', images)}"])
    said = capsys.readouterr().out
    assert "2 images, 0 objects in 1 classes\n" in said
    assert "- no object, but only regions to ignore: 1 (voc://" in said


def test_page(address, tmp_path, capsys):
    cli.main(["data", address, "--output", str(tmp_path / "look"), "--max-pictures", "4"])
    assert "index.html and findings.csv beside it" in capsys.readouterr().out
    page = (tmp_path / "look/index.html").read_text()
    assert page.count("<figure") == page.count('src="data:image/jpeg;base64,') == 4
    assert "Pictures (4 of 10)" in page
    assert "&lt;b&gt;dog&lt;/b&gt;" in page
    assert "<b>dog" not in page
    assert "%%" not in page
    assert "http" not in page  # all of it is in the file
    first = page[page.index("<figure") : page.index("</figure>")]
    assert "odd.jpg" in first
    assert "box of zero area, left out: &#x27;dog&#x27;" in first
    with open(tmp_path / "look/findings.csv") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["what", "file", "where"]
    assert rows[1][0] == "box of zero area, left out"
    assert sorted(x.name for x in (tmp_path / "look").iterdir()) == ["findings.csv", "index.html"]


def test_a_number_of_pictures_without_a_page(address, monkeypatch):
    told = []
    monkeypatch.setattr(cli.logger, "warning", told.append)
    cli.main(["data", address])
    assert told == []
    cli.main(["data", address, "--max-pictures", "4"])
    assert told == ["--max-pictures is 4, to no effect without --output"]


def test_an_image_that_cannot_be_drawn(address, tmp_path, capsys):
    (tmp_path / "data/JPEGImages/3.jpg").write_bytes(b"no image")
    cli.main(["data", address, "--output", str(tmp_path / "look")])
    assert "- image that cannot be read, left out: 1 (" in capsys.readouterr().out
    assert (tmp_path / "look/index.html").read_text().count("<figure") == 9


def test_a_registered_data_set(tmp_path, capsys):
    annotation = {"category_id": 1, "bbox": [0, 0, 9, 9], "bbox_mode": BoxMode.XYWH_ABS}
    write_image(tmp_path / "a.jpg")
    record = {"file_name": f"{tmp_path}/a.jpg", "image_id": 1, "width": 80, "height": 60}
    name = "registered for a look"
    DatasetCatalog.register(name, lambda: [{**record, "annotations": [annotation]}])
    MetadataCatalog.get(name).set(thing_classes=["dog", "cat"])
    try:
        cli.main(["data", name])
    finally:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    assert "1 images, 1 objects in 2 classes" in capsys.readouterr().out
    assert annotation["category_id"] == 1


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["nothing"], "error: the data set 'nothing' is not known"),
        (["voc://none"], "error: none does not exist"),
        (["{address}", "--max-pictures", "-1"], "error: --max-pictures is -1, expected 0 or more"),
        (
            ["{address}", "--output", "{file}/x"],
            "error: --output is .*, which is below .*, which is a file",
        ),
    ],
)
def test_errors(address, tmp_path, args, message):
    file = tmp_path / "a file"
    file.touch()
    with pytest.raises(SystemExit, match=message):
        cli.main(["data", *(x.format(address=address, file=file) for x in args)])


def test_which_images_are_shown():
    classes = ["dog"] * 50 + ["cat"] * 2 + [None] * 10
    records = [
        {"file_name": f"{i}.jpg", "image_id": i, "annotations": [{"category_id": x}] if x else []}
        for i, x in enumerate(classes)
    ]
    found = Findings()
    found.add("odd", "7.jpg")
    found.add("odd", "annotations/9.xml")
    chosen = choose(records, found, 11)
    assert chosen[:2] == [7, 9]
    assert len(chosen) == len(set(chosen)) == 11
    assert {50, 51} < set(chosen)  # both cats
    assert sum(i >= 52 for i in chosen) == 1
    assert len(choose(records, found, 1000)) == 62
    assert choose(records, found, 0) == []


def test_a_page_of_another_origin_stays(address, tmp_path, capsys):
    for name in ("report", "mine"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "index.html").write_text("mine")
    (tmp_path / "report/label_errors.json").write_text("{}")
    for name in ("report", "mine"):
        with pytest.raises(SystemExit, match="where index.html is not of 'ohem-d2 data', which"):
            cli.main(["data", address, "--output", str(tmp_path / name)])
        assert (tmp_path / name / "index.html").read_text() == "mine"
    for _ in range(2):  # its own page may be written anew
        cli.main(["data", address, "--output", str(tmp_path / "look")])
    with pytest.raises(InputError, match="is not of 'ohem-d2 report', which has label_errors.json"):
        check_own_page(tmp_path / "look", "label_errors.json", "report")


def test_many_findings_are_looked_up_once():
    number = 20_000
    records = [{"file_name": f"{i}.jpg", "image_id": i, "annotations": []} for i in range(number)]
    found = Findings()
    for i in range(0, number, 2):
        found.add("odd", f"{i}.jpg")
        found.add("odd", f"a.json: image {i + 1!r}")
    start = time.process_time()
    assert choose(records, found, 4) == [0, 5000, 10000, 15000]
    assert time.process_time() - start < 20  # two seconds; by each pair, an hour
