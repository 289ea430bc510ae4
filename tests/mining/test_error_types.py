import torch

from ohem_d2.mining.error_types import ERROR_TYPES, TIDE_NAMES, error_types


def test_each_error_type():
    background = 3
    rows = [
        # label, taken for, classification loss, box loss
        (1, background, 2.0, 9.0, "missed object"),
        (background, 2, 2.0, 0.0, "look-alike"),
        (1, 2, 2.0, 9.0, "confused class"),
        (1, 1, 0.5, 0.6, "badly placed box"),
        (1, 1, 0.5, 0.4, "right class"),
        (background, background, 0.5, 0.0, "right class"),
    ]
    *columns, names = zip(*rows)
    types = error_types(*map(torch.tensor, columns), num_classes=3)
    assert [ERROR_TYPES[k] for k in types] == list(names)
    assert set(names) == set(ERROR_TYPES)


def test_each_mistake_has_its_name_in_tide():
    assert [*TIDE_NAMES] == [x for x in ERROR_TYPES if x != "right class"]
