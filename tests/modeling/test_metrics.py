import pytest
import torch
from detectron2.utils.events import EventStorage

from ohem_d2 import Candidates
from ohem_d2.mining.error_types import ERROR_TYPES
from ohem_d2.modeling.metrics import PERIOD, MiningMetrics, add_up

BACKGROUND = 3


def rois(*images, num_classes=BACKGROUND):
    """The RoIs of each image: label, taken for, classification loss, box loss."""
    rows = [(*row, i) for i, image in enumerate(images) for row in image]
    labels, predicted, cls, box, image_ids = zip(*rows) if rows else [()] * 5
    return Candidates(
        boxes=torch.zeros(len(rows), 4),
        labels=torch.tensor(labels, dtype=torch.int64),
        image_ids=torch.tensor(image_ids, dtype=torch.int64),
        pred_classes=torch.tensor(predicted, dtype=torch.int64),
        loss_cls=torch.tensor(cls),
        loss_box_reg=torch.tensor(box),
        num_images=len(images),
        num_classes=num_classes,
    )


def add(candidates, hard, drawn=()):
    indices = torch.tensor([*hard, *drawn], dtype=torch.int64)
    return add_up(candidates, indices, torch.arange(len(indices)) < len(hard))


def logged(candidates, hard, names=None, drawn=()):
    with EventStorage() as storage:
        sums = add(candidates, hard, drawn)
        MiningMetrics().add(sums.tolist(), names)
        return {name: value for name, (value, _) in storage.latest().items()}


def test_by_hand():
    labelled = rois(
        [
            (1, BACKGROUND, 2.0, 1.0),  # 0, a missed object
            (BACKGROUND, 1, 4.0, 0.0),  # 1, a look-alike, and not of the last class either
            (BACKGROUND, BACKGROUND, 0.5, 0.0),  # 2, is easy
        ],
        [(0, 1, 1.0, 0.5), (0, 0, 0.25, 0.75)],  # 3, another class; 4, a box out of place
    )
    metrics = logged(labelled, [0, 1, 2, 3], ["cat", "dog", "bird"])
    assert metrics == {
        "roi_head/num_fg_samples": 1.0,
        "roi_head/num_bg_samples": 1.0,
        "ohem/cost_of_selected": 9.0 / 4,
        "ohem/cost_of_all": 2.0,
        "ohem/loss_ratio": 1.125,
        "ohem/share_of_missed_object": 0.25,
        "ohem/share_of_look-alike": 0.25,
        "ohem/share_of_confused_class": 0.25,
        "ohem/share_of_badly_placed_box": 0.0,
        "ohem/share_of_right_class": 0.25,
        "ohem/share_of_fg_selected": pytest.approx(2 / 3),
        "ohem_class/cat/selected": 0.5,
        "ohem_class/cat/cost": 1.5,
        "ohem_class/cat/share_of_missed_object": 0.0,
        "ohem_class/cat/share_of_look-alike": 0.0,
        "ohem_class/cat/share_of_confused_class": 1.0,
        "ohem_class/cat/share_of_badly_placed_box": 0.0,
        "ohem_class/cat/share_of_right_class": 0.0,
        # what it costs to miss one, and to take background for one
        "ohem_class/dog/selected": 1.0,
        "ohem_class/dog/cost": 3.5,
        "ohem_class/dog/share_of_missed_object": 0.5,
        "ohem_class/dog/share_of_look-alike": 0.5,
        "ohem_class/dog/share_of_confused_class": 0.0,
        "ohem_class/dog/share_of_badly_placed_box": 0.0,
        "ohem_class/dog/share_of_right_class": 0.0,
    }
    # What is drawn beside them, the fourth and the easy one, is counted as what is trained on.
    with_drawn = logged(labelled, [0, 1, 3], ["cat", "dog", "bird"], drawn=[2, 4])
    alone = logged(labelled, [0, 1, 3], ["cat", "dog", "bird"])
    counts = {"roi_head/num_fg_samples": 1.5, "roi_head/num_bg_samples": 1.0}
    assert with_drawn == alone | counts
    assert logged(labelled, [4])["ohem_class/0/cost"] == 1.0
    assert logged(labelled, [4])["ohem/share_of_badly_placed_box"] == 1.0


def test_shares_of_all_kinds_are_one():
    torch.manual_seed(0)
    rows = torch.randint(0, BACKGROUND + 1, (50, 2)).tolist()
    labelled = rois([(*row, *torch.rand(2).tolist()) for row in rows])
    metrics = logged(labelled, torch.randperm(50)[:20].tolist())
    shares = [metrics[f"ohem/share_of_{x.replace(' ', '_')}"] for x in ERROR_TYPES]
    assert sum(shares) == pytest.approx(1)


def test_nothing_selected_or_nothing_that_costs():
    labelled = rois([(BACKGROUND, BACKGROUND, 0.0, 0.0)])
    assert "ohem/loss_ratio" not in logged(labelled, [0])
    metrics = logged(rois([]), [])
    assert metrics == {"roi_head/num_fg_samples": 0.0, "roi_head/num_bg_samples": 0.0}


def test_the_console_line_gains_one_figure():
    """Of Detectron2's printer, which shows what has "loss" in its name."""
    metrics = logged(rois([(1, 2, 1.0, 1.0)]), [0], ["glossy", "loss", "x"])
    assert [name for name in metrics if "loss" in name] == ["ohem/loss_ratio"]


def test_classes_of_one_name_do_not_share_their_metrics():
    labelled = rois([(0, 2, 1.0, 0.0), (1, 2, 2.0, 0.0), (2, 2, 3.0, 0.0)])
    metrics = logged(labelled, [0, 1, 2], ["cat", "cat"])  # and a class without a name
    costs = {name: x for name, x in metrics.items() if "ohem_class" in name and "cost" in name}
    assert costs == {f"ohem_class/{i}/cost": i + 1.0 for i in range(3)}


def test_many_classes_are_logged_less_often():
    num_classes = 3 * PERIOD
    sums = add(rois([(7, 7, 1.0, 0.0)], num_classes=num_classes), [0]).tolist()
    metrics = MiningMetrics()
    with EventStorage(start_iter=1) as storage:
        for _ in range(2 * num_classes):
            metrics.add(sums)
            storage.step()
        logged = storage.history("ohem_class/7/selected").values()
        # As they are, not as medians, which would take time.
        assert not storage.smoothing_hints()["ohem_class/7/selected"]
    assert logged == [(1.0, num_classes), (1.0, 2 * num_classes)]


def test_classes_are_logged_of_many_steps_together():
    labelled = rois([(1, 0, 1.0, 0.0), (0, 0, 3.0, 2.0), (1, 1, 2.0, 0.0)])
    metrics = MiningMetrics()
    with EventStorage(start_iter=1) as storage:
        for hard in ([0], [0, 1], [2]) * PERIOD:
            metrics.add(add(labelled, hard).tolist(), ["cat", "dog", "bird"])
            storage.step()
        logged = {name: history.values() for name, history in storage.histories().items()}
    assert [step for _, step in logged["ohem_class/dog/cost"]] == [100, 200, 300]
    # Of the hundred steps to the second time, 33 choose the first RoI alone, and so on.
    steps = [(i - 1) % 3 for i in range(PERIOD + 1, 2 * PERIOD + 1)]
    dogs = [1.0 if i < 2 else 2.0 for i in steps]
    assert logged["ohem_class/dog/cost"][1][0] == pytest.approx(sum(dogs) / len(dogs))
    assert logged["ohem_class/cat/selected"][1][0] == pytest.approx(steps.count(1) / PERIOD)
    assert logged["ohem_class/cat/share_of_badly_placed_box"][1][0] == 0
