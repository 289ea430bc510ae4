"""Names of classes that look the same."""

# ruff: noqa: RUF001 (the linter's rule against letters like these)
import pytest
from detectron2.config import get_cfg
from small_data import write_voc

from ohem_d2 import register_datasets
from ohem_d2.data.addresses import load_address
from ohem_d2.data.look_alikes import look_alikes, of_two_scripts
from ohem_d2.errors import InputError

BOX = (1, 1, 20, 30)
CAT = "\u0441at"  # with a Cyrillic letter


@pytest.mark.parametrize(
    "names",
    [
        ("cat", CAT),
        ("сор", "cop"),  # the first is a word in Cyrillic letters
        ("Α", "A"),  # Greek
        ("ｃａｔ", "cat"),  # as wide as Chinese characters
        ("T-cell", "T\u2011cell"),
        ("driver's seat", "driver\u2019s seat"),
        ("CAT", CAT),
    ],
)
def test_names_that_look_the_same(names):
    counts = {name: i for i, name in enumerate(names, 1)} | {"dog": 4}
    (words,) = look_alikes(counts)
    assert all(f"{name!r}" in words and f"({n})" in words for name, n in [*counts.items()][:2])
    assert "\\" in words
    assert not of_two_scripts(counts)


@pytest.mark.parametrize(
    "names",
    [
        ("cat", "Cat"),  # which another finding is about
        ("кот", "cat"),
        ("\u03b1 cell", "a cell"),
        ("β-cell", "ß-cell"),
        ("é", "e"),
        ("0", "O"),
        ("猫", "貓"),
    ],
)
def test_names_that_do_not(names):
    assert not look_alikes(dict.fromkeys(names, 1))


@pytest.mark.parametrize(
    ("name", "is_mixed"),
    [
        (CAT, True),
        ("stop sign \u0410B", True),
        ("кот", False),
        ("T-клетка", False),  # two words
        ("β-cell", False),
        ("Δt", False),
        ("µm", False),
        ("café", False),
        ("кот2", False),
    ],
)
def test_words_of_two_scripts(name, is_mixed):
    assert of_two_scripts({name: 3}) == [f"{name!r}, {name!a} (3)"] * is_mixed


def test_in_a_data_set(tmp_path):
    folder = write_voc(tmp_path, {"a": [("cat", BOX, ""), (CAT, BOX, "")]})
    lines = load_address(f"voc://{folder}").findings.summary()
    assert lines[0] == (
        f"class names that look the same: 1 (voc://{folder}: 'cat' (1) and {CAT!r}, "
        "'\\u0441at' (1))"
    )


def test_in_another_data_set(tmp_path, caplog):
    addresses = [
        f"voc://{write_voc(tmp_path / name, {name: [(name, BOX, '')]})}"
        for name in ("cat", CAT)
        if not (tmp_path / name).mkdir()
    ]
    cfg = get_cfg()
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (addresses[0],), (addresses[1],)
    with pytest.raises(InputError, match=r"\(it has 'cat', which looks the same\)"):
        register_datasets(cfg)
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = tuple(addresses), ()
    register_datasets(cfg)
    assert "class names that look the same: 'cat' (1) and" in caplog.text
