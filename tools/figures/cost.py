"""Blocks of README.md and docs/cost.md, from the tables in docs/cost/measured.md and gpu.md."""

import re
from collections.abc import Callable
from typing import NamedTuple

from figures import stored
from figures.markdown import is_met, table, wrapped

PAGE = "cost/measured.md"
GPU_PAGE = "cost/gpu.md"
AND_RPN = " and OHEMRPN"


class StepCost(NamedTuple):
    """A row of a table of benchmarks/step_cost.py, as it stands there."""

    seconds: str
    ratio: str  # to plain Detectron2, with the lowest and the highest in brackets
    same_pooling: str  # to plain Detectron2 with the same pooling
    mebibytes: str
    memory: str  # to plain Detectron2
    synchronizations: str
    rois: str  # with the foreground in brackets


def step_costs(title: str, page: str = PAGE) -> dict[str, StepCost]:
    """The first table of a section of a page, by head."""
    rows = re.findall(
        r"^\| (\w+Heads[\w ]*) \| (.*) \|$", stored.section(page, title), re.MULTILINE
    )
    return {head: StepCost(*re.split(r" ?\| ", cells)) for head, cells in rows}


def _of_mining(title: str, page: str = PAGE) -> tuple[StepCost, StepCost]:
    """Plain Detectron2's row, and that of the head that mines."""
    by_head = step_costs(title, page)
    plain = next(iter(by_head))
    return by_head[plain], next(x for head, x in by_head.items() if head.startswith("OHEM"))


FPN = "Faster R-CNN, R50-FPN"
QUARTER = "Mining with a quarter of the budget"
QUICK_START = "The quick start's small model"
MASKS = "Mask R-CNN, R50-FPN"
C4 = "R50-C4"
COSTS = {
    FPN: "Faster R-CNN R50-FPN",
    QUARTER: "the same, the paper's rule, a quarter of the budget",
    QUICK_START: "the quick start's small model",
    MASKS: "Mask R-CNN R50-FPN, untrained",
    C4: "Faster R-CNN R50-C4",
    "Mixed precision (bfloat16)": "Faster R-CNN R50-FPN, bfloat16, the paper's rule",
}


GPU_COSTS = {
    "Faster R-CNN, R50-FPN": ("1.03", "1.01"),
    "Mask R-CNN, R50-FPN": ("1.03", "1.01"),
    "Faster R-CNN, R50-C4": ("1.35", ""),
    "Cascade Mask R-CNN, R50-FPN": ("", ""),
}


def gpu_cost() -> str:
    """What mining costs each of the models on a GPU, next to what was aimed at."""
    rows = []
    for model, goals in GPU_COSTS.items():
        for precision in ("", ", mixed precision"):
            by_head = step_costs(f"{model} on a GPU{precision}", GPU_PAGE)
            plain, mining, *_ = by_head.values()
            fewer = {h.split(" of ")[1].split()[0]: x for h, x in by_head.items() if " of " in h}
            found = mining.ratio.split(" ")[0], mining.memory
            met = [float(x) <= float(goal) for x, goal in zip(found, goals) if goal]
            rows.append(
                [
                    model + precision,
                    f"**{found[0]}** {mining.ratio.partition(' ')[2]}",
                    mining.memory,
                    *(f"{x.ratio.split(' ')[0]}, {x.memory}" for x in fewer.values()),
                    f"{plain.synchronizations}, {mining.synchronizations}",
                    ", ".join(filter(None, goals)),
                    is_met(all(met)) if met else "",
                ]
            )
    titles = ["model", "time (lowest to highest)", "peak memory"]
    titles += [f"of {n} candidates: time, memory" for n in fewer]
    titles += ["synchronizations: plain, mining", "goal: time, memory", ""]
    environment = stored.section(GPU_PAGE, f"{model} on a GPU").partition("|")[0].strip()
    setting = environment.split("\n\n")[-1].replace("\n", " ")
    setting = setting.replace("float32", "float32 unless the row says otherwise")
    return f"{table(titles, rows)}\n\n{wrapped(f'Each with {setting}.')}"


def readme_cost() -> str:
    """A few sentences."""
    mining, with_masks = _of_mining(FPN)[1], _of_mining(MASKS)[1]
    ratio_to_plain = mining.ratio.split(" ")[0]
    masks_to_plain = with_masks.ratio.split(" ")[0]
    memory = float(mining.memory)
    on_gpu = [
        _of_mining(f"{FPN} on a GPU{x}", GPU_PAGE)[1].ratio.split(" ")[0]
        for x in ("", ", mixed precision")
    ]
    text = (
        "On 2 CPU cores, with 2,000 proposals, a training step of Faster R-CNN R50-FPN takes "
        f"**{mining.same_pooling} times as long** as plain Detectron2's if both use our multi-core "
        f"RoI pooling, and {ratio_to_plain} times as long with Detectron2's own, which uses one "
        f"core (Mask R-CNN: {with_masks.same_pooling} and {masks_to_plain}). Peak memory is "
        f"{memory:.2f} and {float(with_masks.memory):.2f} times as high. On a GPU (NVIDIA H100), a "
        f"step takes {on_gpu[0]} times as long, {on_gpu[1]} in mixed precision."
    )
    return wrapped(text)


def cost() -> str:
    """What mining costs each of the models."""
    rows = []
    for title, words in COSTS.items():
        plain, mining = _of_mining(title)
        one_pass = step_costs(title).get("OnePassROIHeads")
        foreground = (re.findall(r"\((\d+)\)", x.rois)[0] for x in (plain, mining))
        rows.append(
            [
                words,
                f"**{mining.same_pooling}**",
                mining.ratio,
                mining.memory,
                ", ".join(foreground),
                f"{one_pass.same_pooling}, {one_pass.memory}" if one_pass else "not measured",
            ]
        )
    titles = (
        "time, same pooling",
        "time, Detectron2's own pooling (lowest to highest)",
        "peak memory",
        "foreground: plain, mining",
        "one pass: time, memory",
    )
    return table(["model", *titles], rows)


def rpn_cost() -> str:
    """What mining among anchors adds to a step, in a sentence."""
    by_head = step_costs(FPN)
    with_rpn = {head: x for head, x in by_head.items() if AND_RPN in head}
    mining = next(x for head, x in with_rpn.items() if head.startswith("OHEM"))
    of_mining = float(mining.seconds) / float(_of_mining(FPN)[1].seconds)
    memory = max(float(x.memory) for x in with_rpn.values())
    of_plain = next(iter(with_rpn.values())).ratio
    return wrapped(
        "On 2 CPU cores, a step of Faster R-CNN R50-FPN took "
        f"{of_plain} times as long with `OHEMRPN` as with `RPN`, and one that mines in the RoI "
        f"heads as well {of_mining:.2f} times, with {memory:.2f} times the peak memory. The goal "
        "was at most 1.03."
    )


def cost_goals() -> str:
    """What was aimed at, and what was found."""
    rows = []
    goals = (FPN, 1.15, 1.02), (MASKS, 1.15, 1.02), (QUARTER, 0.95, 1.0), (QUICK_START, 1.15, None)
    for title, time, memory in goals:
        _, mining = _of_mining(title)
        met = float(mining.ratio.split(" ")[0]) <= time
        met &= memory is None or float(mining.memory) <= memory
        goal = f"{time:.2f}" + (f", {memory:.2f}" if memory else "")
        rows.append(
            [
                f"{COSTS[title]}, CPU",
                goal,
                f"{mining.ratio}, {mining.memory}",
                is_met(met),
                mining.same_pooling,
            ]
        )
    titles = ["goal: time, memory", "found (lowest to highest)", "", "time, same pooling"]
    return table(["model", *titles], rows)


def logging_cost() -> str:
    """One sentence."""
    section = stored.section(PAGE, "What logging takes")
    rows = re.findall(r"^\| (\d+) \| .* \| (.*) \| .* \|$", section, re.MULTILINE)
    (few, of_few), *_, (many, of_many) = rows
    return (
        f"Logging takes {float(of_few):.1f} ms of a step with {few} classes, and "
        f"{float(of_many):.1f} ms with {many}."
    )


def half_precision() -> str:
    """Whether it would pay to rank in half precision."""
    rows, environments = [], set()
    for model in ("quick start", "blood cells"):
        section = stored.section(PAGE, f"Ranking in half precision, {model}")
        environment, _, measured = section.strip().partition("\n\n")
        environments.add(environment.replace("\n", " "))
        batches = re.findall(r"^\| (\d+) batches", measured, re.MULTILINE)
        rows.append([model, *batches, *measured.splitlines()[-1].strip("| ").split(" | ")])
    titles = ["model", "batches", "ranked in", "time (float32: 1)", "other RoIs selected"]
    measured_on = wrapped(f"Measured with {'; '.join(environments)}.")
    return f"{table(titles, rows)}\n\n{measured_on}"


BLOCKS: dict[str, Callable[[], str]] = {
    "readme-cost": readme_cost,
    "cost": cost,
    "cost-goals": cost_goals,
    "rpn-cost": rpn_cost,
    "gpu-cost": gpu_cost,
    "logging-cost": logging_cost,
    "half-precision": half_precision,
}
