"""Settings that the command line has more than once."""

import pytest

from ohem_d2.training.repeated_settings import warn_of_repeated_settings

RATE = "SOLVER.BASE_LR"


@pytest.mark.parametrize(
    ("opts", "words"),
    [
        ([RATE, "0.01", "SEED", "1", RATE, "0.001"], "SOLVER.BASE_LR is given 2 times, as '0.01' "
         "and as '0.001', expected once: the last one counts"),
        ([RATE, "1", RATE, "2", RATE, "1"], "given 3 times, as '1' and as '2' and as '1'"),
        ([RATE, "0.01", RATE, "0.01"], None),
        ([RATE, "0.01", "SOLVER.BASE_LR_END", "0.001"], None),
        ([], None),
    ],
)  # fmt: skip
def test_yaml(caplog, opts, words):
    warn_of_repeated_settings(opts)
    assert len(caplog.messages) == (words is not None)
    assert (words or "") in caplog.text


@pytest.mark.parametrize(
    ("opts", "told"),
    [
        (["optimizer.lr=1", "optimizer.lr=2"], True),
        (["+optimizer.eps=1", "optimizer.eps=2"], True),
        (["optimizer.lr=1", "optimizer.lr=1", "train.seed=2"], False),
        (["train.a=b=c", "train.b=b=d"], False),
    ],
)
def test_python(caplog, opts, told):
    warn_of_repeated_settings(opts, is_yaml=False)
    words = f"{opts[0].partition('=')[0].lstrip('+')} is given 2 times, as '1' and as '2'"
    assert (words in caplog.text) == bool(caplog.messages) == told
