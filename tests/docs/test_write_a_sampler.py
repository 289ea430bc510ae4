"""The example of docs/write_a_sampler.md is short, and trains."""

import re
from pathlib import Path

import pytest
from small_heads import make_batch, make_heads, train_step

PAGE = (Path(__file__).parent.parent.parent / "docs/write_a_sampler.md").read_text(encoding="utf-8")


def block(name):
    """The Python between two comments of this name."""
    (code,) = re.findall(f"<!-- {name} -->\n```python\n(.*?)```\n<!-- {name} -->", PAGE, re.DOTALL)
    return code


EXAMPLE = block("example")


@pytest.fixture
def named(tmp_path, monkeypatch):
    """The key by which the page names the example, which lies where it says."""
    (tmp_path / "my_module.py").write_text(EXAMPLE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    (key,) = re.findall(r'OHEM\.SAMPLER "(.+?)"', PAGE)
    return key


def test_the_example_has_at_most_15_lines():
    assert len(EXAMPLE.splitlines()) <= 15


def test_the_example_passes_the_test_of_the_page():
    exec(EXAMPLE + block("test"), {})


def test_the_example_trains_a_step(named):
    heads = make_heads(
        "MODEL.ROI_HEADS.OHEM.SAMPLER", named, "MODEL.ROI_HEADS.OHEM.HARD_FRACTION", "0.5"
    )
    trained, losses, logged = train_step(heads, *make_batch(0, [(2, 60), (1, 60)]))
    assert [len(x) for x in trained] == [heads.batch_size_per_image] * 2
    sum(losses.values()).backward()
    assert heads.box_predictor.cls_score.weight.grad.isfinite().all()
    assert logged["ohem/loss_ratio"] > 1
