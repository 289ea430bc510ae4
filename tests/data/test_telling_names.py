import pytest
from small_data import write_voc

from ohem_d2.data.addresses import load_address
from ohem_d2.data.telling_names import named_background, named_to_ignore


@pytest.mark.parametrize(
    "name",
    ["DontCare", "Don't care", "ignored regions", "ignore", "Ignore-Area", "_ignored_", "void",
     "unlabeled", "Unlabelled"],
)  # fmt: skip
def test_names_of_regions(name):
    assert named_to_ignore({name: 3, "cat": 1}) == [f"{name!r} (3)"]
    assert not named_background({name: 3, "cat": 1})


@pytest.mark.parametrize("name", ["background", "__background__", "_Background_", "BG"])
def test_names_of_the_background(name):
    assert named_background({name: 0, "cat": 1}) == [f"{name!r} (0)"]
    assert not named_to_ignore({name: 0, "cat": 1})


@pytest.mark.parametrize("name", ["cat", "avoid", "ignorance", "care", "bgr", "ground", "region"])
def test_other_names(name):
    assert not named_background({name: 1}) + named_to_ignore({name: 1})


def test_in_a_data_set(tmp_path):
    names = ("cat", "DontCare", "background")
    boxes = [(name, (1 + 20 * i, 1, 19 + 20 * i, 30), "") for i, name in enumerate(names)]
    lines = load_address(f"voc://{write_voc(tmp_path, {'a': boxes})}").findings.summary()
    assert [x.partition(": 1 (")[0] for x in lines] == [
        "class that is named as what is to be ignored, taken as a class",
        "class that is named as the background, taken as a class",
    ]
