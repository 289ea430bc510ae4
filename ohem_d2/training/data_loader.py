"""
The stream of training images, which can be taken up where another process left it.

Detectron2's loaders draw images from an endless stream of indices (the sampler), augment them with
numpy's global generator, in this process or in workers that are ahead of it, and may hold some back
until there are enough of a similar shape for a batch. What a step gets is thus a function of how
many images were taken, and of the random state in which each was augmented. Each image comes with
that state, so that the few which are held back, or which a worker augmented last, can be made anew.
"""

import copy
import logging
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from itertools import chain, islice
from typing import Any

import torch
from detectron2.data.common import AspectRatioGroupedDataset, MapDataset, ToIterableDataset
from detectron2.utils import comm
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler, get_worker_info

from ..errors import InputError
from .given_images import limit_nothing, name_of_maker
from .named_settings import is_known
from .random_state import keep_random_state, random_state, set_random_state
from .system_errors import pass_on_lost_images

logger = logging.getLogger(__name__)

# What a sampler draws its stream from, beside the number of images: its seeds, and the subset that
# Detectron2's RandomSubsetTrainingSampler draws when it is built.
_SUBSET = "_indexes_subset"

# macOS and Windows cannot tell who sent a signal.
_TO_PARENT = [x for x in signal.Signals if x.name in ("SIGINT", "SIGHUP")]  # what terminals send
_CAN_SHIELD = hasattr(signal, "sigwaitinfo")


class ResumableLoader:
    """
    Gives the batches of one of Detectron2's loaders for training, and knows where it is.

    A loader that `build_detection_train_loader` did not build is passed on as it is: it starts anew
    when a training is resumed, which a warning says.
    """

    def __init__(self, loader: Iterable) -> None:
        """
        Args:
            loader: it is changed, and cannot be used without this one any more.
        """
        self._loader = loader
        self._groups = isinstance(loader, AspectRatioGroupedDataset)
        source = loader.dataset if isinstance(loader, AspectRatioGroupedDataset) else loader
        self._source: DataLoader | None = None
        self._resumed: dict[str, Any] | None = None
        self._begun: Iterator | None = None
        if not isinstance(source, DataLoader) or source.batch_size is None:
            return
        shield_workers(source)
        stream = source.dataset
        if not isinstance(stream, ToIterableDataset):
            return
        self._source = source
        # Of those that were given out: how many, the random states before the last of them, and the
        # images that wait for others of their shape. Each is an image, or a batch if there is no
        # grouping by shape.
        self._position = 0
        self._states: deque = deque(maxlen=2 * source.num_workers)
        self._waiting: list[tuple[Any, int, dict]] = []
        self._first_state: bytes | None = None
        self._dataset = stream.dataset
        limit_nothing(self._dataset)
        self._sampler = _Sampler(stream.sampler, stream.shard_sampler, stream.shard_chunk_size)
        stream.dataset = _Traced(stream.dataset)
        stream.sampler, stream.shard_sampler = self._sampler, False
        if not self._groups:
            source.collate_fn = _TracedBatch(source.collate_fn)

    def a_batch(self) -> list[Any] | None:
        """
        Make a batch of the first images, in this process. The stream stays where it is, and so do
        the random states.

        Returns:
            what the mapper makes of the images, without those that it leaves out. None if the
            loader is none of Detectron2's, or if code of the user's own reads the images: it may
            count its calls.
        """
        if self._source is None or not is_known(type(self._sampler.sampler).__module__):
            return None
        loader: Any = self._loader if self._groups else self._source
        return make_images(self._dataset, islice(self._sampler.sampler, loader.batch_size))

    def first_batch(self) -> Any:
        """
        Draw the first batch of the stream, ahead of the first step, which is given it.

        Returns:
            the batch, or None if there is none.
        """
        stream = self._batches()
        first = list(islice(stream, 1))
        self._begun = chain(first, stream)
        return first[0] if first else None

    def check_each(self, check: Callable[[Any], None]) -> None:
        """Let a function look at each batch that the next iterator gives; it may raise."""
        batches = iter(self)

        def checked(batch: Any) -> Any:
            check(batch)
            return batch

        self._begun = map(checked, batches)

    def length(self) -> int | None:
        """
        How many batches there are, or None if that is not known: code of the user's own may say so
        of an epoch, and go on.
        """
        loader = self._loader
        if isinstance(loader, (list, tuple)):
            return len(loader)
        if self._source is not None:
            sampler, batch_size = self._sampler.sampler, loader.batch_size  # type: ignore[attr-defined]
            ends = is_known(type(sampler).__module__) and isinstance(sampler, Sized)
            return len(sampler) // batch_size if ends else None  # type: ignore[arg-type]
        if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
            return None
        samplers = (loader.sampler, loader.batch_sampler)
        known = all(type(x).__module__.startswith("torch.") for x in samplers if x is not None)
        return len(loader) if known else None

    def name_of_sampler(self) -> str:
        """The class of the sampler; empty if the loader is none of Detectron2's."""
        return "" if self._source is None else name_of_maker(self._sampler.sampler)

    def length_of_own_sampler(self) -> tuple[str, int] | None:
        """
        The name of a sampler of the user's own, and how many images it has if it says so. It may
        mean an epoch, and go on.
        """
        sampler = None if self._source is None else self._sampler.sampler
        if not isinstance(sampler, Sized) or is_known(type(sampler).__module__):
            return None
        return name_of_maker(sampler), len(sampler)

    def maker(self) -> Any:
        """What makes the images: the mapper, or the loader itself if it is none of Detectron2's."""
        dataset = None if self._source is None else self._dataset
        return dataset._map_func._obj if isinstance(dataset, MapDataset) else self._loader

    def __iter__(self) -> Iterator:
        """
        Yield batches without end, from where `load_state_dict` said.

        Raises:
            InputError: there are no more.
        """
        begun, self._begun = self._begun, None
        return self._without_end(self._batches() if begun is None else begun)

    def _without_end(self, batches: Iterator) -> Iterator:
        number = 0
        for batch in batches:
            number += 1
            yield batch
        sampler = f" by {by}" if (by := self.name_of_sampler()) else ""
        raise InputError(
            f"the training images that {name_of_maker(self.maker())} gives{sampler} end after "
            f"{number} batches, expected one for each step: as build_detection_train_loader has "
            "them by default, without end"
        )

    def _batches(self) -> Iterator:
        if self._source is None:
            yield from self._loader
            return
        outputs = self._outputs()
        if not self._groups:
            yield from outputs
            return
        # A copy: were there a cycle of references, the queues of the workers would be closed before
        # the workers are told to end, and that would be waited for.
        groups = copy.copy(self._loader)
        groups.dataset = outputs  # type: ignore[attr-defined]
        for batch in groups:
            given = {id(x) for x in batch}
            self._waiting = [x for x in self._waiting if id(x[0]) not in given]
            yield batch

    def _outputs(self) -> Iterator:
        """What the loader of torch gives out: images or, if there is no grouping, batches."""
        assert self._source is not None
        state, self._resumed = self._resumed, None
        if state is None:
            self._position, first, self._waiting = 0, 0, []
            self._first_state = torch.get_rng_state().numpy().tobytes()
            self._sampler.start(0, [])
            with _signals_held_back():
                outputs = iter(self._source)
        else:
            self._position = state["position"]
            first = self._first_output(self._position, state["workers"])
            self._first_state = first_state = state["first_state"]
            rounds = first // max(self._source.num_workers, 1)
            self._sampler.start(rounds * (self._source.batch_size or 1), state["workers"])
            with keep_random_state(), _signals_held_back():
                # From which the seeds of the workers are drawn, as in the first process.
                torch.set_rng_state(torch.frombuffer(bytearray(first_state), dtype=torch.uint8))
                outputs = iter(self._source)
                self._waiting = [(self._make(*x), *x) for x in state["waiting"]]
        yield from [x for x, *_ in self._waiting]
        for number, (output, index, random) in enumerate(outputs, first):
            self._states.append(random)
            if number < self._position:
                continue  # it was given out before
            self._position = number + 1
            if self._groups:
                self._waiting.append((output, index, random))
            yield output

    def _first_output(self, position: int, states: list) -> int:
        """
        Tell the output to start with, of which those before `position` do not count.

        Workers give out in turn, a round after the other. Each output comes with the random state
        before it, not with that which it leaves the worker in. So all workers start a round before
        the one that is under way, or at the very first one, and load what they had loaded again.
        """
        assert self._source is not None
        workers = self._source.num_workers
        if workers == 0:
            return position
        return (position // workers - bool(states)) * workers

    def _make(self, index: int, state: dict[str, Any]) -> Any:
        set_random_state(state)
        return self._dataset[index]

    def state_dict(self) -> dict[str, Any]:
        """
        Tell where the stream is.

        Returns:
            plain containers for `load_state_dict`; those of several processes differ. Empty if the
            loader is none of Detectron2's.
        """
        if self._source is None or self._resumed is not None:
            return self._resumed or {}
        workers = self._source.num_workers
        states: list = []
        if workers and self._position >= workers:
            # Of the round before the one that is under way.
            first = (self._position // workers - 1) * workers
            start = first - (self._position - len(self._states))
            states = list(self._states)[start : start + workers]
        state = {
            "position": self._position,
            "first_state": self._first_state,
            "waiting": [(int(index), random) for _, index, random in self._waiting],
            "workers": states,
            **self._shape(),
        }
        if comm.is_main_process():  # the same for all
            state["sampler"] = self._sampler.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """
        Go on where another loader was.

        If it is not the same loader, of as many processes, the stream goes on after as many images
        as were taken, but they are not the ones that would have come: a warning says so.

        Args:
            state: what `state_dict` returned in the same process of another training, with the part
                that only the main process has.
        """
        if self._source is None or not state:
            logger.warning(
                "The training images start anew, not where the training was: only the loader that "
                "Detectron2's build_detection_train_loader builds can be resumed"
            )
            return
        state, shape = dict(state), self._shape()
        changed = [
            f"{words} was {state[name]} and is {shape[name]}"
            for name, words in _WORDS.items()
            if state[name] != shape[name]
        ]
        if changed:
            logger.warning(
                "The training goes on after as many images as it has seen, but not bit by bit as "
                f"if it had not been interrupted: {', '.join(changed)}"
            )
            images = state["position"] * state["batch_size"] * state["processes"]
            state["position"] = images // (shape["batch_size"] * shape["processes"])
            state["workers"], state["waiting"] = [], []
        if all(state[name] == shape[name] for name in ("images", "sampler_type")):
            self._sampler.load_state_dict(state["sampler"])
        if state["first_state"]:  # else no image was taken yet
            self._resumed = {**state, **shape}

    def _shape(self) -> dict[str, Any]:
        """What a stream must have in common with another to go on bit by bit."""
        assert self._source is not None
        return {
            "images": len(self._dataset),
            "sampler_type": type(self._sampler.sampler).__name__,
            "grouping": self._groups,
            "batch_size": self._source.batch_size,
            "images_in_step": self._loader.batch_size,  # type: ignore[attr-defined]
            "workers_per_process": self._source.num_workers,
            "processes": comm.get_world_size(),
        }


_WORDS = {
    "images": "the number of training images",
    "sampler_type": "the sampler",
    "grouping": "grouping by aspect ratio",
    "images_in_step": "the number of images in a step of a process",
    "workers_per_process": "the number of workers",
    "processes": "the number of processes",
}


class _Sampler(Sampler):
    """The indices of another sampler, for each worker those that Detectron2 gives to it."""

    def __init__(self, sampler: Sampler, shards: bool, chunk_size: int) -> None:
        self.sampler, self._shards, self._chunk_size = sampler, shards, chunk_size
        self.start(0, [])

    def start(self, skipped: int, random_states: list) -> None:
        """Of its own indices, each worker skips some, and starts with a random state of its own."""
        self._skipped, self._random_states = skipped, random_states

    def __iter__(self) -> Iterator[int]:
        info = get_worker_info()
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        if self._random_states:
            set_random_state(self._random_states[worker])
        indices: Iterable = self.sampler
        if self._shards and workers > 1:
            size = self._chunk_size
            indices = (x for i, x in enumerate(indices) if i // size % workers == worker)
        yield from islice(indices, self._skipped, None)

    def state_dict(self) -> dict[str, Any]:
        """What the stream of indices is drawn from."""
        return {k: v for k, v in vars(self.sampler).items() if "seed" in k or k == _SUBSET}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Draw the stream of another."""
        vars(self.sampler).update(state)


class _Traced(Dataset):
    """Gives each image with its index and the random state that it is augmented from."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> tuple[Any, int, dict]:
        state = random_state()
        return self._dataset[index], index, state


class _TracedBatch:
    """A batch, without the index of an image, and the random state of the first image."""

    def __init__(self, collate: Callable) -> None:
        self._collate = collate

    def __call__(self, images: list[tuple[Any, int, dict]]) -> tuple[Any, None, dict]:
        return self._collate([x for x, *_ in images]), None, images[0][2]


def make_images(dataset: Dataset, indices: Iterable[int]) -> list[Any] | None:
    """
    Let the mapper of one of Detectron2's data sets make images, and leave no trace.

    Args:
        dataset: that of a loader.
        indices: of the images. Those beyond the end are left out.

    Returns:
        what the mapper makes, but for what it leaves out. None if the data set is none of
        Detectron2's, or if the mapper is the user's own: it may count its calls.
    """
    if not isinstance(dataset, MapDataset):
        return None
    records, mapper = dataset._dataset, dataset._map_func._obj
    mapper_itself = getattr(mapper, "func", mapper)  # of a partial
    if not is_known(str(getattr(mapper_itself, "__module__", ""))):
        return None
    with keep_random_state():
        made = [mapper(records[i]) for i in indices if i < len(records)]
    return [x for x in made if x is not None]


def try_batch(loader: DataLoader) -> None:
    """
    Make the first batch of a loader of images to evaluate with, in this process, unless code of the
    user's own makes the images.

    Args:
        loader: it is changed, and not to be used any more.
    """
    if make_images(loader.dataset, []) is None:
        return
    loader.num_workers = 0
    with keep_random_state():
        next(iter(loader), None)


@contextmanager
def _signals_held_back() -> Iterator[None]:
    """What starts meanwhile begins without signals: a worker may get one before it is shielded."""
    if not _CAN_SHIELD:
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [*_TO_PARENT, signal.SIGTERM])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def shield_workers(loader: DataLoader) -> DataLoader:
    """
    Let only the process that reads from a loader end its workers, and know of what they cannot send
    it.

    Clusters and terminals send their signals to workers too, which would take from the process the
    images of the step that it is about to finish.
    """
    if not isinstance(loader.worker_init_fn, _Shielded):
        loader.worker_init_fn = _Shielded(loader.worker_init_fn)
    return loader


class _Shielded:
    def __init__(self, init: Callable[[int], None] | None) -> None:
        self._init = init

    def __call__(self, worker: int) -> None:
        pass_on_lost_images()
        for signum in _TO_PARENT:
            signal.signal(signum, signal.SIG_IGN)
        if _CAN_SHIELD:
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
            threading.Thread(target=_obey_parent, daemon=True).start()
        if self._init is not None:
            self._init(worker)


def _obey_parent() -> None:
    while signal.sigwaitinfo([signal.SIGTERM]).si_pid != os.getppid():
        pass
    os._exit(0)
