import pytest

from ohem_d2.data.class_names import (
    differ_in_case,
    differ_in_separators,
    merged,
    normalise,
    of_one_name,
)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("car", "car"),
        ("car ", "car"),
        ("\n\t\tcar\n\t", "car"),
        ("traffic  light\r", "traffic light"),
        ("\ufeffcar\u200b", "car"),
        ("ne\u0301", "n\u00e9"),
        ("\u3000\u8f66\u00a0", "\u8f66"),
        (" \t", ""),
    ],
)
def test_one_way_to_write_a_name(name, expected):
    assert normalise(name) == expected


def test_names_that_differ_in_case():
    assert differ_in_case({"car": 4, "Car": 1, "bus": 2}) == ["'car' (4) and 'Car' (1)"]
    assert differ_in_case({"car": 4, "bus": 2}) == []


def test_names_that_are_one():
    assert merged(["car", "bus", "car ", "car"]) == ["'car' and 'car '"]


def test_names_that_differ_in_separators():
    names = ["traffic light", "Traffic_light", "traffic-light", "car", "Car", "ear"]
    (words,) = differ_in_separators(names)
    assert words == "'traffic light' and 'Traffic_light' and 'traffic-light'"
    assert differ_in_separators(["car", "Car"]) == []


def test_a_name_with_several_ids():
    assert of_one_name({1: "car", 2: "bus", 7: "car "}) == ["'car': 1 and 7"]
