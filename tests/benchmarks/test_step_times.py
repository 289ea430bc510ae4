import pytest
import step_times
from detectron2.utils.events import get_event_storage


class Trainer:
    """Of which each step takes a second more than the last."""

    max_iter = 100

    def __init__(self, name, log, clock):
        self.name, self.log, self.clock = name, log, clock

    def run_step(self):
        self.log.append((self.name, self.iter))
        assert get_event_storage().iter == self.iter
        self.clock[0] += len(self.log)


def test_steps_are_taken_in_turn_and_spread_over_the_schedule(monkeypatch):
    log, clock = [], [0.0]
    monkeypatch.setattr(step_times, "ROUNDS", 4)
    monkeypatch.setattr(step_times, "_WARM_UP", 1)
    monkeypatch.setattr(step_times.time, "perf_counter", lambda: clock[0])
    seconds = step_times.time_steps({name: Trainer(name, log, clock) for name in "ab"})
    # The first round is not counted.
    assert log[:4] == [("b", 0), ("a", 0), ("a", 0), ("b", 0)]
    assert log[4:] == [("b", 25), ("a", 25), ("a", 50), ("b", 50), ("b", 75), ("a", 75)]
    assert seconds == {"a": [3, 6, 7, 10], "b": [4, 5, 8, 9]}


def test_ratio_by_hand():
    assert step_times.ratio([1.0, 3.0], [2.0, 2.0]) == 1.0
    # Of ten, the lowest and the highest do not count.
    assert step_times.ratio([1.0] + [4.0] * 4 + [6.0] * 4 + [90.0], [2.0] * 10) == pytest.approx(
        2.5
    )
