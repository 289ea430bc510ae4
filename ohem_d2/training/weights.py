"""Weights from files that cannot run code, and that have all a model needs."""

import itertools
import logging
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile, is_zipfile

import numpy as np
import torch
from detectron2.checkpoint import DetectionCheckpointer

from ..data.class_names import normalise
from ..data.other_files import what_file_is
from ..data.pickles import read_pickle
from ..errors import InputError, shown
from .weight_checks import (
    check_finite,
    check_floating,
    check_not_cut_short,
    check_varied,
    check_weights_of_file,
    listed,
    may_be_missing,
    missing_weights,
    renamed_weights,
)

logger = logging.getLogger(__name__)

# What torch.compile, DDP and FSDP add to the names of weights.
_WRAPPERS = ("_orig_mod", "module", "_fsdp_wrapped_module")
_SAFETENSORS = ".safetensors"
# How much of an error of torch a message quotes: it may repeat itself for every weight.
_QUOTED = 200


class _NotWhole(InputError):
    """A file is none of torch's, or only a part of one: another copy may be better."""


class SafeCheckpointer(DetectionCheckpointer):
    """
    Detectron2's checkpointer, which refuses files that could run code, and weights that are missing
    or not finite.

    A training that starts may lack weights: new heads start at random, and a warning tells which.
    A training that is resumed, and a model without anything to train it with (it is evaluated),
    need all of them.

    Attributes:
        class_names: of the data, in the order in which the model has its classes. They are saved
            beside the weights, and compared with those of the weights that are loaded. None: not
            known.
        config: that of the training, as Detectron2 saves it. It is saved beside the weights, for
            the next run to compare its own with. None: not known.
        key: where the config names what is loaded, for what is wrong with it.
    """

    class_names: Sequence[str] | None = None
    config: str | None = None
    key = "MODEL.WEIGHTS"
    _others: Sequence[str] = ()  # names in the file that the model lacks
    _path = ""  # what is being loaded, as the user named it
    _other_number = ""  # in words: of classes, than the data has
    _fetched = ""  # in words: where it is if it came from an address

    def load(
        self, path: str, checkpointables: list[str] | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """
        See Detectron2's `DetectionCheckpointer.load`.

        Raises:
            InputError: the file is no checkpoint, or not of this model.
        """
        self._path, self._fetched, self._other_number = path, "", ""
        self._starts_training = bool(self.checkpointables) and checkpointables == []
        try:
            return super().load(path, checkpointables, **kwargs)
        except _NotWhole as e:
            raise InputError(f"{self.key}: {e}{self._fetched}") from e
        except InputError as e:
            raise InputError(f"{self.key}: {e}") from e
        except Exception as e:  # there is no end to what other files make of a model and its state
            text = " ".join(str(e).split())
            text = text if len(text) <= _QUOTED else f"{text[:_QUOTED]}..."
            raise InputError(
                f"{self.key}: {path!r} is no checkpoint of this model: {type(e).__name__}: {text}"
            ) from e
        finally:
            self._parsed_url_during_load = None  # Detectron2 leaves it, and refuses another load

    @property
    def loaded(self) -> str:
        """What was loaded last, as the user named it, behind the key that names it."""
        return f"{self.key}: {self._path!r}"

    def save(self, name: str, **kwargs: Any) -> None:
        """See fvcore's `Checkpointer.save`."""
        if self.config:
            kwargs = {"config": self.config, **kwargs}
        if self.class_names:
            kwargs = {"class_names": [*self.class_names], **kwargs}
        super().save(name, **kwargs)

    def _load_file(self, filename: str) -> dict[str, Any]:
        if "://" in self._path:
            self._fetched = f". It was fetched to {filename!r}: remove that file to fetch it anew"
        if os.path.isfile(filename) and os.path.getsize(filename) == 0:
            raise _NotWhole(f"{self._path!r} is empty, expected a checkpoint")
        if os.path.basename(filename) == "last_checkpoint":
            named = Path(filename).read_bytes()[:_QUOTED].decode(errors="replace").strip()
            raise InputError(
                f"{self._path!r} only names a checkpoint, expected that one: {named!r} beside it"
            )
        # Detectron2 reads the first two kinds with what runs code, so they are looked at before.
        if filename.endswith(".pkl"):
            _check_mapping(self._path, read_pickle("the weights", filename))
        elif filename.endswith(".pyth"):
            _check_mapping(self._path, self._torch_load(filename))
        loaded = super()._load_file(filename)
        check_weights_of_file(self._path, loaded["model"])
        return loaded

    def _torch_load(self, filename: str) -> Any:
        loaded = load_torch_file(self._path, filename)
        _check_mapping(self._path, loaded)
        return loaded

    def _convert_ndarray_to_tensor(self, state_dict: dict[str, Any]) -> None:
        super()._convert_ndarray_to_tensor(state_dict)
        # Detectron2 calls this last, when all have the names that they have in the model.
        check_floating(self._path, state_dict, self.model)

    def _load_model(self, checkpoint: dict[str, Any]) -> Any:
        self._check_class_names(checkpoint.get("class_names"))
        incompatible = super()._load_model(checkpoint)
        names = {*incompatible.missing_keys, *(name for name, *_ in incompatible.incorrect_shapes)}
        missing = missing_weights(self.model, names)
        of_other_shapes = {name for name, *_ in incompatible.incorrect_shapes}
        absent = [name for name in missing if name not in of_other_shapes]
        renamed = renamed_weights(absent, incompatible.unexpected_keys)
        self._others = incompatible.unexpected_keys
        self._check_complete(missing, incompatible.incorrect_shapes, renamed)
        if self._other_number and not self._starts_training:
            raise InputError(
                f"{self._path!r} has the weights of this model, but was trained for "
                f"{self._other_number}, as its class_names say, expected those of the data: "
                f"{listed([*(self.class_names or ())])}"
            )
        self._check_norms(incompatible.unexpected_keys)
        state = self.model.state_dict()
        loaded = {n: x for n, x in state.items() if n not in names}
        check_finite(self._path, loaded)
        weights = {n: x for n, x in self.model.named_parameters() if n in loaded}
        if found := check_varied(self._path, weights, trained=not self._starts_training):
            logger.warning(f"{self.key}: {found}")
        if not self._starts_training:
            check_not_cut_short(self._path, incompatible.unexpected_keys, self.model)
        return incompatible

    def _log_incompatible_keys(self, incompatible: Any) -> None:
        # What is missing ends an evaluation, which leaves what the model lacks: Detectron2 lists
        # that in many lines, without the file.
        if self._starts_training:
            super()._log_incompatible_keys(incompatible)
        elif others := [x for x in self._others if not may_be_missing(x)]:
            logger.warning(
                f"{self.loaded} has {len(others)} weights that the model lacks, and that are not "
                f"used: {listed(others)}. Expected the config of their training"
            )

    def _check_class_names(self, found: object) -> None:
        if not self.class_names or found is None:
            return  # Detectron2's checkpoints do not tell
        names = _as_names(found)
        if names is None:
            logger.warning(
                f"{self.key}: {self._path!r} has {shown(found)} as class_names, expected a list of "
                "names: whether its classes are those of the data is not known"
            )
            return
        of_data = list(map(normalise, self.class_names))
        of_weights = list(map(normalise, names))
        if of_weights == of_data:
            return
        if len(of_weights) != len(of_data):
            self._other_number = f"{len(of_weights)} classes ({listed(of_weights)})"
            return  # the shapes tell more, unless they are those of the model
        words = (
            f"{self._path!r} was trained for the classes {listed(of_weights)}, but the data has "
            f"{listed(of_data)}"
        )
        if not self._starts_training:
            # Those of data sets that are given by address were put into order before.
            is_same = sorted(of_weights) == sorted(of_data)
            raise InputError(f"{words}: expected the same{' in the same order' if is_same else ''}")
        logger.warning(f"{self.key}: {words}: each is taken for the one in the same place")

    def _check_norms(self, unexpected: Sequence[str]) -> None:
        """What batch normalization has learnt is not for another norm that has its weights too."""
        modules = dict(self.model.named_modules())
        statistics = [
            name
            for name in unexpected
            if name.endswith(".running_var") and name.rpartition(".")[0] in modules
        ]
        if not statistics:
            return
        found = (
            f"{self._path!r} has {len(statistics)} weights of batch normalization where the model "
            f"has another norm: {listed(statistics)}"
        )
        if not self._starts_training:
            raise InputError(f"{found}. Expected the checkpoint of a model with the same norm")
        logger.warning(f"{self.key}: {found}; they are not used")

    def _check_complete(
        self, missing: list[str], incorrect_shapes: Sequence[tuple], renamed: Mapping[str, str]
    ) -> None:
        if not missing:
            return
        total = len(self.model.state_dict())
        shapes = {name: shapes for name, *shapes in incorrect_shapes}
        words = [
            f"{name} ({_size(shapes[name][0])} in the file, {_size(shapes[name][1])} in the model)"
            if name in shapes
            else name
            # Those of another shape first, which tell what is wrong.
            for name in sorted(missing, key=lambda name: name not in shapes)
        ]
        found = f"{len(missing)} of {total} weights of the model are not in {self._path!r}"
        other = ""
        for name, of_file in itertools.islice(renamed.items(), 1):
            other = (
                f"; {len(renamed)} are there under longer names, such as {of_file!r} for {name!r}"
            )
        if any(wrapper in x.split(".") for x in renamed.values() for wrapper in _WRAPPERS):
            raise InputError(
                f"{found}{other}. Expected those of the model itself, saved without what wraps it"
            )
        if not self._starts_training:
            raise InputError(
                f"{found}: {listed(words)}{other}. Expected the checkpoint of a model with the "
                "same config and as many classes"
            )
        if len(missing) == sum(not may_be_missing(name) for name in self.model.state_dict()):
            found = f", but {self._others[0]} and the like" if self._others else ""
            raise InputError(
                f"{self._path!r} has no weight of this model{found}, expected names such as "
                f"{missing[0]}{other}"
            )
        logger.warning(f"{self.key}: {found}, and start at random: {listed(words, 10)}{other}")


def class_names_in(path: str) -> list[str] | None:
    """
    Read the classes that a checkpoint was trained for, and nothing else of it.

    Args:
        path: of the file.

    Returns:
        their names, in the order of the model's labels; None if it does not tell, or is none, which
        loading it will say.
    """
    return _as_names(_beside_weights(path, "class_names")) or None


def _as_names(found: object) -> list[str] | None:
    """The names of classes, in the order of labels, in the forms that others save them in, too."""
    if isinstance(found, Mapping) and {*found} == {*range(len(found))}:
        found = [found[i] for i in range(len(found))]
    if isinstance(found, (list, tuple)) and all(isinstance(x, str) for x in found):
        return [*found]
    return None


def config_in(path: str) -> str | None:
    """
    Read the config that a checkpoint was trained with, and nothing else of it.

    Args:
        path: of the file.

    Returns:
        its text, in YAML; None if it does not tell, or is no checkpoint, which loading it will say.
    """
    text = _beside_weights(path, "config")
    return text if isinstance(text, str) and text else None


def _beside_weights(path: str, name: str) -> object:
    try:
        content = _load(path, mmap=is_zipfile(path))
    except Exception:
        return None
    return content.get(name) if isinstance(content, Mapping) else None


def load_torch_file(name: str, path: str) -> Any:
    """
    Load what torch has saved, if it is tensors, numbers, texts and plain containers.

    Args:
        name: what the user calls the file.
        path: where it is.

    Raises:
        InputError: it holds something else, or is none of torch's files, or not as it was saved.
    """
    _check_sums(name, path)
    try:
        return _load(path)
    except OSError as e:
        raise InputError(f"{name!r} cannot be read ({e.strerror})") from e
    except Exception as e:  # of which torch's text advises to run the code
        # As torch words it from 2.5 on.
        found = re.search(r"GLOBAL ([\w.]+)|(?:class|function|type) ([\w.]+\.\w+)", str(e))
        if found:
            what = (found[1] or found[2]).strip(".")
            raise InputError(
                f"{name!r} was not loaded, because it names {what}, which could run code: expected "
                "tensors and plain containers, such as a model's state_dict()"
            ) from None
        what = what_file_is(Path(path))
        if "ZIP" in what:  # which torch's own files are
            what = _what_zip_has(path)
        if path.endswith(_SAFETENSORS) and what in ("", "a safetensors file"):
            # Which torch loads by this name, from some version on.
            told = type(e).__module__.startswith("safetensors") or isinstance(e, ImportError)
            reason = f" ({e})" if told else ""
            raise InputError(
                f"{name!r} cannot be loaded as a safetensors file{reason}: expected a whole one, "
                "or a file that torch.save has written, with a name that ends in .pth"
            ) from None
        raise _NotWhole(
            f"{name!r} is {what or 'no checkpoint, or not a whole one'}: expected a file that "
            "torch.save has written"
        ) from None


def _what_zip_has(path: str) -> str:
    """What a ZIP archive has, if it is a whole one, and none that torch.save has written."""
    try:
        with ZipFile(path) as archive:
            names = archive.namelist()
    except BadZipFile:
        return ""
    if any(x.rpartition("/")[2] == "constants.pkl" for x in names):
        return "a TorchScript archive, of a whole model"
    if any(x.rpartition("/")[2] == "data.pkl" for x in names):
        return ""
    return f"a ZIP archive with {listed(names)}"


def _load(path: str, mmap: bool = False) -> Any:
    reconstruct = np.array(0).__reduce__()[0]
    scalar = np.float64(0).__reduce__()[0]
    dtypes = {type(np.dtype(x)) for x in "?bBhHiIlLqQefd"}
    # Numbers and arrays of numpy, as in the state of a hook or of a generator of random numbers.
    numpy: list[Any] = [reconstruct, scalar, np.ndarray, np.dtype, *dtypes]
    with torch.serialization.safe_globals(numpy):
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)


def _check_sums(name: str, path: str) -> None:
    """
    Compare all that is in a file with its checksums, which torch does not do with tensors. Files of
    before torch 1.6 have none.
    """
    if not is_zipfile(path):
        return
    try:
        with ZipFile(path) as archive:
            # torch writes 0 for all of them where it was told to compute none.
            has_sums = any(x.CRC for x in archive.infolist())
            record = archive.testzip() if has_sums else None
        damage = record and f"{record} is not what was saved"
    except Exception as e:  # zlib's errors, and zipfile's own, have no common base
        damage = str(e)
    if damage:
        raise _NotWhole(
            f"{name!r} is damaged ({damage}), expected a whole one: copy or download it again"
        )


def _check_mapping(name: str, loaded: object) -> None:
    if not isinstance(loaded, Mapping):
        raise InputError(
            f"{name!r} holds a {type(loaded).__name__}, expected the weights of a model by their "
            "names, or a mapping that has them as 'model'"
        )


def _size(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "a number"
