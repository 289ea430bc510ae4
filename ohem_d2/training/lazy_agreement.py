"""Whether what a Python config says twice of its images is the same: how and which are read."""

import logging
from collections.abc import Iterator, Sequence

from detectron2.data import DatasetCatalog, DatasetMapper
from omegaconf import DictConfig, OmegaConf

from ..data import by_address, unknown_dataset
from ..errors import InputError
from .lazy_data import data_sets_of, key_of_names
from .lazy_targets import parts_of, target_of
from .named_settings import is_known

logger = logging.getLogger(__name__)

_EVALUATOR, _FORMAT = "dataloader.evaluator", "model.input_format"


def check_mappers(cfg: DictConfig, training: bool = True) -> None:
    """
    Make sure that Detectron2's mappers read what the model learns from, and in the same way.

    Args:
        cfg: the config.
        training: whether it is to be trained, not only evaluated.

    Raises:
        InputError: they do not.
    """
    splits = ("train", "test") if training else ("test",)
    formats = dict(_formats(cfg, splits))
    key = "dataloader.train.mapper"
    if training and _is_plain(cfg, "train") and not OmegaConf.select(
        cfg, f"{key}.is_train", default=True
    ):  # fmt: skip
        raise InputError(
            f"{key}.is_train is {OmegaConf.select(cfg, f'{key}.is_train')}, expected True: the "
            "mapper would leave out the annotations to learn from"
        )
    key = "dataloader.test.mapper.is_train"
    if _is_plain(cfg, "test") and OmegaConf.select(cfg, key):
        logger.warning(
            f"{key} is {OmegaConf.select(cfg, key)}: no annotations are used to evaluate"
        )
    if len({*formats.values()}) > 1:
        (one, found), (other, expected) = reversed(formats.items())
        raise InputError(f"{one} is {found!r}, expected {expected!r}, as {other} is")
    expected = OmegaConf.select(cfg, _FORMAT)
    for key, found in [*formats.items()][:1]:
        if expected is not None and found != expected:
            logger.warning(
                f"{key} is {found!r}, but {_FORMAT} is {expected!r}: model.pixel_mean and the "
                f"weights have to be for {found}, and pictures will have wrong colors"
            )


def _formats(cfg: DictConfig, splits: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """In which mappers read images, by their keys."""
    for split in splits:
        key = f"dataloader.{split}.mapper.image_format"
        if _is_plain(cfg, split) and (found := OmegaConf.select(cfg, key)) is not None:
            yield key, found


def _is_plain(cfg: DictConfig, split: str) -> bool:
    return target_of(OmegaConf.select(cfg, f"dataloader.{split}.mapper")) is DatasetMapper


def check_evaluated(cfg: DictConfig, opts: Sequence[str] = ()) -> None:
    """
    Make sure that Detectron2's evaluators look at the data set that is read, and warn of settings
    of an evaluator where the address of a data set decides.

    Args:
        cfg: the config, with its data sets registered.
        opts: the settings of the command line.

    Raises:
        InputError: one is not known, or lacks an image that is read.
    """
    names, key = data_sets_of(cfg, "test"), key_of_names("test")
    parts = [*parts_of(OmegaConf.select(cfg, _EVALUATOR), _EVALUATOR)]
    if by_address(names):
        given = [x.lstrip("+~") for x in opts if x.lstrip("+~").startswith(f"{_EVALUATOR}.")]
        unused = [x for x in given if not x.startswith(f"{_EVALUATOR}.kpt_oks_sigmas")]
        unused = unused or [
            f"{above}.dataset_name={part.dataset_name}"
            for above, part in parts
            if part.get("dataset_name", names[0]) not in (*names, [*names])
        ]
        if unused:
            logger.warning(
                f"{' and '.join(unused)} is not used: {key} is {names[0]!r}, an address, which is "
                "evaluated with the evaluator that goes with it"
            )
        return
    for above, part in parts:
        name, target = part.get("dataset_name"), target_of(part)
        is_plain = is_known(str(getattr(target, "__module__", "")))
        if not names or not is_plain or not isinstance(name, str) or [*names] == [name]:
            continue
        found = f"{above}.dataset_name is {name!r}"
        if name not in DatasetCatalog:
            raise InputError(f"{above}.dataset_name: {unknown_dataset(name)}")
        read, known = (_image_ids(x) for x in (names, [name]))
        if missing := [x for x in read if x not in known]:
            raise InputError(
                f"{found}, which has no image {missing[0]!r}, expected the data set that is read: "
                f"{key} is {[*names]}"
            )
        logger.warning(
            f"{found}, but {key} is {[*names]}: expected the same, since the "
            "predictions are compared with the annotations of the former"
        )


def _image_ids(names: list[str] | tuple[str, ...]) -> dict[object, None]:
    """In their order."""
    records = [x for name in names for x in DatasetCatalog.get(name)]
    return dict.fromkeys(x["image_id"] for x in records if "image_id" in x)
