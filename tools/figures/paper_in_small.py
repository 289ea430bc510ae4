"""The paper's comparisons in small, in docs/paper.md, from what benchmarks/accuracy.py stored."""

from collections.abc import Callable
from statistics import mean

from figures.markdown import table
from figures.study import last_aps, with_each

FOLDER = "accuracy/fast_rcnn"
DATA = {"bccd": "blood cells", "pear": "pears on trees"}
BASELINE = "sampling_from_01"
# Of each variant: how it chooses, N, bg_lo, what is added, and the paper's mAP on VOC07.
WAYS = {
    BASELINE: ("1:3", "2", "0.1", "", "66.9"),
    "sampling_n1": ("1:3", "1", "0.1", "", "see the paper"),
    "sampling": ("1:3", "2", "0", "", "see the paper"),
    "all_rois": ("all RoIs", "2", "0", "", "see the paper"),
    "ohem": ("OHEM", "2", "0", "", "69.9"),
    "ohem_n1": ("OHEM", "1", "0", "", "69.7"),
    "paper_from_01": ("OHEM", "2", "0.1", "", ""),
    "sampling_mb": ("1:3", "2", "0.1", "+M +B", "72.4"),
    "ohem_mb": ("OHEM", "2", "0", "+M +B", "75.1"),
}


def paper_in_small() -> str:
    """AP of the paper's baseline, and how much more it is in the other ways, seed by seed."""
    last = last_aps(FOLDER)
    rows = []
    for variant, (*cells, paper) in WAYS.items():
        found = []
        for data in DATA:
            baseline, runs = (last.get((data, x), {}) for x in (BASELINE, variant))
            if not runs:
                found.append("not yet measured")
            elif variant == BASELINE:
                each = " ".join(f"{runs[s]:.1f}" for s in sorted(runs))
                found.append(f"{mean(runs.values()):.1f} ({each})")
            else:
                seeds = sorted(runs.keys() & baseline.keys())
                found.append(with_each([runs[s] - baseline[s] for s in seeds]))
        rows.append([*cells, paper, *found])
    titles = ["sampling", "N", "bg_lo", "", "paper, VOC07 mAP"]
    return table([*titles, *(f"{x}, AP" for x in DATA.values())], rows)


BLOCKS: dict[str, Callable[[], str]] = {"paper-in-small": paper_in_small}
