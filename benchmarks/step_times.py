"""What a step of training takes, of several trainers in turn."""

import time

import torch
from detectron2.engine import DefaultTrainer
from detectron2.utils.events import EventStorage
from tqdm import tqdm

ROUNDS = 40
_WARM_UP = 3


def time_steps(trainers: dict[str, DefaultTrainer]) -> dict[str, list[float]]:
    """
    Train each for `ROUNDS` steps that are spread over its schedule, since some choose RoIs in
    another way later on. The weights stay those of the beginning, but for what a few steps change.

    Args:
        trainers: by name; without workers that load images ahead, which would count for others.

    Returns:
        seconds of each step, by name.
    """
    names = list(trainers)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for i in tqdm(range(-_WARM_UP, ROUNDS), desc="timing", unit="round", leave=False):
        first = i % len(names)  # so that each comes after each
        for name in names[first:] + names[:first]:
            trainer = trainers[name]
            trainer.iter = max(i, 0) * trainer.max_iter // ROUNDS
            start = time.perf_counter()
            with EventStorage(trainer.iter):
                trainer.run_step()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if i >= 0:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def ratio(seconds: list[float], of_baseline: list[float]) -> float:
    """
    How much longer than another a trainer takes: the mean over rounds, without the tenth of them
    with the lowest and the tenth with the highest ratio, when the machine did something else.
    """
    ratios = sorted(a / b for a, b in zip(seconds, of_baseline))
    left_out = len(ratios) // 10
    kept = ratios[left_out : len(ratios) - left_out]
    return sum(kept) / len(kept)
