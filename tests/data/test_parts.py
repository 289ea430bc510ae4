import pytest
from small_data import write_image

from ohem_d2.data.findings import Findings
from ohem_d2.data.parts import overlap, parse_part, take_part
from ohem_d2.errors import InputError


def records_of(folder, names):
    for i, name in enumerate(names):
        if not (folder / name).exists():
            write_image(folder / name, seed=i)
    return [{"file_name": str(folder / name)} for name in names]


def names_of(records):
    return [r["file_name"].rsplit("/", 1)[1] for r in records]


NAMES = [f"{i}.png" for i in range(40)]


def take(records, text, findings=None):
    return take_part(records, parse_part(text), findings)


@pytest.mark.parametrize("rest", ["test:0.3", "val:0.3", "train:0.7-1", "test:.7-1.0"])
def test_two_parts_are_the_whole(tmp_path, rest):
    records = records_of(tmp_path, NAMES)
    train, others = take(records, "train:0.7"), take(records, rest)
    assert sorted(names_of(train + others)) == sorted(NAMES)
    assert 20 < len(train) < 36
    assert names_of(train) == [n for n in NAMES if n in names_of(train)]  # in their order


def test_three_parts(tmp_path):
    records = records_of(tmp_path, NAMES)
    parts = [take(records, x) for x in ("train:0.5", "val:0.5-0.8", "test:0.2")]
    assert sorted(n for part in parts for n in names_of(part)) == sorted(NAMES)


def test_an_image_keeps_its_part(tmp_path):
    """Wherever the folder lies, in whatever order the images come, and when others come."""
    train = names_of(take(records_of(tmp_path / "a", NAMES), "train:0.7"))
    other = records_of(tmp_path / "b", [*NAMES[::-1], "new.png", "newer.png"])
    assert set(train) == set(names_of(take(other, "train:0.7"))) - {"new.png", "newer.png"}


def test_the_same_bytes_are_on_one_side(tmp_path):
    records = records_of(tmp_path, NAMES)
    copies = [f"copy of {name}" for name in NAMES]
    for name, copy in zip(NAMES, copies):
        (tmp_path / copy).write_bytes((tmp_path / name).read_bytes())
    records += records_of(tmp_path, copies)
    found = Findings()
    train = names_of(take(records, "train:0.5", found))
    assert {n for n in train if n in NAMES} == {n[8:] for n in train if n in copies}
    assert 0 < len(train) < 80
    assert [x.name for x in found] == ["images with the same bytes, kept in the same part"] * 40


def test_images_of_one_name_in_several_folders(tmp_path):
    records = [r for i in range(30) for r in records_of(tmp_path / str(i), ["image.png"])]
    for i, record in enumerate(records):  # no two with the same bytes
        with open(record["file_name"], "ab") as file:
            file.write(bytes([i]))
    assert 5 < len(take(records, "train:0.5")) < 25


@pytest.mark.parametrize(
    "text", ["train", "train:", "0.8", "train:1.2", "train:0", "dev:0.5", "val:0.8-0.7", "test:-1"]
)
def test_parts_that_are_none(text):
    with pytest.raises(InputError, match=rf"part={text} is not understood, expected a name and a"):
        parse_part(text)


def test_overlap():
    assert not overlap(parse_part("train:0.7"), parse_part("test:0.3"))
    assert overlap(parse_part("train:0.8"), parse_part("test:0.3"))
