"""Which earlier reports can be compared with, and what is said of others."""

import json

import numpy as np
import pytest
from detectron2.data import MetadataCatalog
from small_findings import findings
from test_model_errors import FAR, PLACE, record

from ohem_d2.errors import InputError
from ohem_d2.report.earlier import (
    check_comparable,
    detections_now,
    follow_images,
    read_earlier,
)
from ohem_d2.report.model_errors import as_model_errors
from ohem_d2.report.page import write_list

NAMES = ["cat", "dog"]
LABELS = [(PLACE, 0, False), (FAR, 1, False)]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """That of a report on two images."""
    monkeypatch.chdir(tmp_path)
    MetadataCatalog.get("earlier").set(thing_classes=NAMES)
    records = [record(i, *LABELS) for i in range(2)]
    found = [findings(r, [(PLACE, 1, 0.9), (FAR, 0, 0.3)]) for r in records]
    write_list(tmp_path / "old", "model_errors", as_model_errors(records, found, "earlier"))
    MetadataCatalog.remove("earlier")
    return tmp_path / "old"


def refuse(*arguments):
    with pytest.raises(InputError) as failed:
        check_comparable(*arguments)
    assert "\n" not in str(failed.value)
    return str(failed.value)


def cannot_read(_):
    raise OSError


def test_what_is_read(folder):
    earlier = read_earlier(folder)
    found = detections_now(earlier, record(1), ["dog", "cat"])
    np.testing.assert_array_equal(found.boxes, [PLACE, FAR])
    assert (found.classes.tolist(), found.scores.tolist()) == ([0, 1], [0.9, 0.3])
    check_comparable(earlier, [record(0), record(1)], ["dog", "cat"], read=lambda _: None)
    check_comparable(earlier, [record(1)], NAMES, read=lambda _: None)  # of more images


def test_images_are_known_through_links(folder, tmp_path):
    (tmp_path / "1.jpg").write_bytes(b"an image")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked/x.jpg").symlink_to(tmp_path / "1.jpg")
    linked = {**record(1), "file_name": "linked/x.jpg"}
    check_comparable(read_earlier(folder), [linked], NAMES, read=lambda _: None)
    assert len(detections_now(read_earlier(folder), linked, NAMES).scores) == 2


def elsewhere(*records):
    return [{**x, "file_name": f"copy/photos/{x['file_name']}"} for x in records]


def test_images_that_are_somewhere_else_now(folder, tmp_path, caplog):
    now = elsewhere(*(record(i, *LABELS) for i in range(2)))
    earlier = follow_images(read_earlier(folder), now, NAMES)
    check_comparable(earlier, now, NAMES, read=lambda _: None)
    np.testing.assert_array_equal(detections_now(earlier, now[1], NAMES).boxes, [PLACE, FAR])
    [told] = caplog.messages
    assert f"whose images were in '{tmp_path}': those in '{tmp_path}/copy/photos' are" in told
    assert told.endswith("the same names, and 4 of 4 labels")
    # Only some of them, of which half of the labels are new.
    now = elsewhere(record(1, LABELS[0], ([5, 5, 9, 9], 1, False)))
    earlier = follow_images(read_earlier(folder), now, NAMES)
    check_comparable(earlier, now, NAMES, read=lambda _: None)


@pytest.mark.parametrize(
    "labels", [[(PLACE, 1, False), (FAR, 0, False)], [], [LABELS[0], *[(FAR, 0, False)] * 2]]
)
def test_other_images_of_the_same_names(folder, labels):
    now, earlier = elsewhere(record(0, *labels)), read_earlier(folder)
    assert follow_images(earlier, now, NAMES) is earlier
    assert "which has none of the 1 images" in refuse(earlier, now, NAMES, cannot_read)


def test_images_that_are_where_they_were_are_not_followed(folder):
    now, earlier = [record(0, *LABELS), *elsewhere(record(1, *LABELS))], read_earlier(folder)
    assert follow_images(earlier, now, NAMES) is earlier
    assert follow_images(earlier, [], NAMES) is earlier
    assert follow_images(earlier, [{**now[0], "file_name": "x.png"}], NAMES) is earlier


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (None, "where model_errors.json does not exist"),
        ("{", "is no JSON"),
        ("{", "--compare: "),
        ("[]", "whose model_errors.json is not as this version writes it"),
        ('{"categories": []}', "is not as this version writes it (KeyError('images'))"),
    ],
)
def test_what_is_no_report(tmp_path, content, error):
    if content is not None:
        (tmp_path / "model_errors.json").write_text(content)
    with pytest.raises(InputError) as failed:
        read_earlier(tmp_path)
    assert error in str(failed.value)
    assert "\n" not in str(failed.value)


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("annotations", "score", None),
        ("annotations", "score", float("nan")),
        ("annotations", "score", True),
        ("annotations", "bbox", [0, 0, 1]),
        ("annotations", "bbox", [0, 0, 1, "1"]),
        ("annotations", "category_id", 9),
        ("annotations", "image_id", 9),
        ("labels", "bbox", None),
        ("images", "file_name", 3),
        ("categories", "name", None),
    ],
)
def test_a_file_that_is_spoilt(folder, part, key, value):
    file = folder / "model_errors.json"
    content = json.loads(file.read_text())
    content[part][0][key] = value
    file.write_text(json.dumps(content))
    with pytest.raises(InputError, match="is not as this version writes it"):
        read_earlier(folder)


def test_two_images_that_are_one_file(folder):
    file = folder / "model_errors.json"
    content = json.loads(file.read_text())
    content["images"][1]["file_name"] = content["images"][0]["file_name"]
    file.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"where two images are the file .*0\.jpg, expected each"):
        read_earlier(folder)


def test_other_classes(folder):
    said = refuse(read_earlier(folder), [record(0)], ["cat", "bird"], cannot_read)
    assert "whose classes are others: it lacks 'bird' and the data set lacks 'dog'" in said


def test_other_images(folder):
    earlier = read_earlier(folder)
    said = refuse(earlier, [record(7), record(8)], NAMES, cannot_read)
    assert "which has none of the 2 images, such as 7.jpg" in said
    some = [record(0), record(7), record(8)]
    said = refuse(earlier, some, NAMES, lambda _: None)
    assert "which lacks 2 of 3 images, such as 7.jpg" in said
    check_comparable(earlier, some, NAMES, cannot_read)  # those that it could not read either


def test_an_image_of_another_size(folder):
    other = {**record(1), "width": 7}
    said = refuse(read_earlier(folder), [record(0), other], NAMES, cannot_read)
    assert "where 1.jpg has 100 x 80 pixels, expected 7 x 80" in said
    unknown = {k: v for k, v in record(1).items() if k not in ("width", "height")}
    check_comparable(read_earlier(folder), [unknown], NAMES, cannot_read)
