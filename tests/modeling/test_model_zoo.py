"""Every two-stage config of the installed Detectron2 with mining: a step, and an inference."""

import re
from collections import defaultdict

import pytest
import reference
import torch
from command_line import ROOT
from detectron2.config import LazyConfig
from detectron2.modeling import GeneralizedRCNN
from small_models import (
    BUDGET,
    NAMES,
    SHRINK_OPTS,
    ZOO,
    assert_same_inference,
    assert_same_step,
    build,
    make_inputs,
    step,
)

from ohem_d2.training.config_file import load_config


def model_of(path):
    """The model of a config as text, and its mining head; or None, and why it has none."""
    if path.suffix == ".py":
        model = LazyConfig.load(str(path)).get("model") if "common" not in path.parts else None
        if model is None:
            return None, PART
        if "roi_heads" not in model:
            return None, model._target_.__name__
        text = re.sub("0x[0-9a-f]+", "", str(model))  # the addresses of functions
        return text, NAMES[model.roi_heads._target_.__name__]
    cfg = load_config(str(path), SHRINK_OPTS)
    if path.name.startswith("Base-"):
        return None, PART
    if cfg.MODEL.META_ARCHITECTURE not in ("GeneralizedRCNN", "PanopticFPN"):
        return None, cfg.MODEL.META_ARCHITECTURE
    return cfg.MODEL.dump(), NAMES[cfg.MODEL.ROI_HEADS.NAME]


PART = "a part of other configs"
# name -> the mining head, and the name of the config that has the same model once it is shrunk
WITH_HEADS = {}
# name -> why it is not run
WITHOUT = {}


def every_config():
    seen = {}
    for path in sorted(ZOO.rglob("*")):
        if path.suffix not in (".yaml", ".py"):
            continue
        name = str(path.relative_to(ZOO))
        model, head = model_of(path)
        if model is None:
            WITHOUT[name] = head
            reason = head if head == PART else f"no RoI heads: {head}"
        else:
            same = seen.setdefault(model, name)
            WITH_HEADS[name] = head, same
            reason = None if same == name else f"once shrunk, the same model as {same}"
        yield pytest.param(path, id=name, marks=pytest.mark.skip(reason=reason) if reason else ())


CONFIGS = list(every_config())
# The tests that each config has passed.
PASSED = defaultdict(set)


@pytest.mark.slow
@pytest.mark.parametrize("path", CONFIGS)
def test_mining_in(path):
    torch.manual_seed(0)
    model = build(path, mining=True)
    plain = build(path, mining=False)
    assert isinstance(model, GeneralizedRCNN)
    loaded = model.load_state_dict(plain.state_dict())
    assert not loaded.missing_keys
    assert not loaded.unexpected_keys
    inputs = make_inputs(model, torch.Generator().manual_seed(1))

    seen = []
    sample = model.roi_heads._sample

    def spy(labelled, candidates, *how):
        chosen = sample(labelled, candidates, *how)
        cost = candidates.loss_cls + candidates.loss_box_reg
        seen.append((labelled, cost, [x.proposal_boxes.tensor for x in chosen]))
        return chosen

    model.roi_heads._sample = spy
    losses = step(model, inputs)
    assert all(loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9).step()
    assert any(not p.equal(q) for p, q in zip(model.parameters(), plain.parameters()))
    ((labelled, cost, chosen),) = seen
    boxes = [x.proposal_boxes.tensor for x in labelled]
    expected = reference.select(
        cost.tolist(),
        torch.cat(boxes).tolist(),
        torch.cat([x.gt_classes for x in labelled]).tolist(),
        [i for i, b in enumerate(boxes) for _ in b],
        num_samples=BUDGET // 2,
        num_classes=model.roi_heads.num_classes,
        num_images=2,
    )
    number = [sum(i < len(boxes[0]) for i in expected), sum(i >= len(boxes[0]) for i in expected)]
    hard = [x[:n] for x, n in zip(chosen, number)]
    assert torch.cat(hard).equal(torch.cat(boxes)[expected])
    assert all(n < len(x) <= BUDGET for n, x in zip(number, chosen))  # the rest is drawn

    del model.roi_heads._sample
    model.load_state_dict(plain.state_dict())
    assert_same_inference(model, plain, inputs)
    PASSED[str(path.relative_to(ZOO))].add("mining")


@pytest.mark.slow
@pytest.mark.parametrize("path", CONFIGS)
def test_all_rois_in(path):
    """Told to take every RoI, mining trains as plain Detectron2 does when it takes every RoI."""
    torch.manual_seed(0)
    model = build(path, mining=True, everything=True)
    plain = build(path, mining=False, everything=True)
    model.load_state_dict(plain.state_dict())
    inputs = make_inputs(model, torch.Generator().manual_seed(1))
    assert_same_step(model, plain, inputs)
    PASSED[str(path.relative_to(ZOO))].add("all RoIs")


def table():
    """What has passed, by family (the folder in the model zoo) and head."""
    rows = defaultdict(list)
    for name, (head, same) in WITH_HEADS.items():
        rows[name.partition("/")[0], f"`{head}`"].append(PASSED[same] == {"mining", "all RoIs"})
    without = defaultdict(list)
    for name, reason in WITHOUT.items():
        if reason != PART:
            without[name.partition("/")[0], "none"].append(reason)
    lines = ["| family | configs | head | status |", "| --- | --- | --- | --- |"]
    for (family, head), passed in sorted(rows.items()):
        status = "works" if all(passed) else f"{passed.count(False)} FAIL"
        lines.append(f"| {family} | {len(passed)} | {head} | {status} |")
    for (family, head), reasons in sorted(without.items()):
        status = f"no RoI heads: {', '.join(sorted(set(reasons)))}"
        lines.append(f"| {family} | {len(reasons)} | {head} | {status} |")
    return "\n".join(lines)


@pytest.mark.slow
def test_the_page_on_heads_shows_the_table():
    if {same for _, same in WITH_HEADS.values()} - PASSED.keys():
        pytest.skip("not all configs were run")
    page = (ROOT / "docs/heads.md").read_text(encoding="utf-8")
    assert table() in page, f"docs/heads.md should have\n\n{table()}\n"
