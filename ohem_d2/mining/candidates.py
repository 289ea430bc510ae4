"""All labelled RoIs of a batch, with the model's predictions for each; and a selection of them."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import InputError
from .select import describe

_Value = Tensor | Callable[[], Tensor] | None
_LARGEST_WEIGHT = 1e6  # as of a loss: its product with one is a number


class Candidates:
    """
    The R RoIs that a sampler chooses from: those of all images of the batch (of this process),
    except those that the matcher ignores, and those that lie in a region to ignore. A sampler sees
    nothing else.

    All tensors are flat, have a row for each RoI, and carry no gradients. Do not change them in
    place: logs and training use the same tensors.

    Attributes:
        boxes: (R, 4) as XYXY in pixels of the image as the model sees it, or (R, 5) rotated, as
            (x_center, y_center, width, height, angle in degrees).
        labels: (R,) int64 in [0, num_classes]; ``num_classes`` is background.
        image_ids: (R,) int64 in [0, num_images), the image of each RoI.
        loss_cls: (R,) the classification loss of each RoI, as in training.
        loss_box_reg: (R,) its box loss; 0 for background.
        num_classes: number of foreground classes.
        num_images: number of images in the batch.
        iteration: that of the training, from 0.
    """

    def __init__(
        self,
        *,
        boxes: Tensor,
        labels: Tensor,
        image_ids: Tensor,
        loss_cls: Tensor,
        loss_box_reg: Tensor,
        num_classes: int,
        num_images: int | None = None,
        iteration: int = 0,
        ious: _Value = None,
        objects: _Value = None,
        objectness: _Value = None,
        pred_classes: _Value = None,
        pred_scores: _Value = None,
        pred_boxes: _Value = None,
        pred_ious: _Value = None,
    ) -> None:
        """
        Args:
            boxes: and the others up to ``iteration``: see the attributes. By default,
                ``num_images`` is the highest image id + 1.
            ious: and the others below: see the properties. A function is called when the property
                is first read. None: reading it is an error.
        """
        if num_images is None:
            num_images = int(image_ids.max()) + 1 if len(image_ids) else 0
        self.boxes, self.labels, self.image_ids = boxes, labels, image_ids
        self.loss_cls, self.loss_box_reg = loss_cls, loss_box_reg
        self.num_classes, self.num_images, self.iteration = num_classes, num_images, iteration
        self._optional = {
            "ious": ious,
            "objects": objects,
            "objectness": objectness,
            "pred_classes": pred_classes,
            "pred_scores": pred_scores,
            "pred_boxes": pred_boxes,
            "pred_ious": pred_ious,
        }

    def __len__(self) -> int:
        """The number of RoIs, R."""
        return len(self.labels)

    @property
    def ious(self) -> Tensor:
        """(R,) the IoU of each RoI with the object that it overlaps most; 0 without objects."""
        return self._get("ious")

    @property
    def objects(self) -> Tensor:
        """(R,) int64, the number of that object among those of its image; -1 without objects."""
        return self._get("objects")

    @property
    def objectness(self) -> Tensor:
        """
        (R,) the logit that the proposal generator gives each RoI. Appended ground truth has about
        23. Boxes that an earlier stage of a cascade predicts have none: reading it is an error.
        """
        return self._get("objectness")

    @property
    def pred_classes(self) -> Tensor:
        """(R,) int64 in [0, num_classes], the class that the model predicts for each RoI."""
        return self._get("pred_classes")

    @property
    def pred_scores(self) -> Tensor:
        """(R,) in [0, 1], the predicted probability of that class (or background)."""
        return self._get("pred_scores")

    @property
    def pred_boxes(self) -> Tensor:
        """
        (R, 4) or (R, 5), the box that the model predicts from each RoI: that for the predicted
        class or, if it predicts background, for the most probable object. Computed when it is
        first read, from what the box branch has already returned.
        """
        return self._get("pred_boxes")

    @property
    def pred_ious(self) -> Tensor:
        """(R,) the IoU of that box with the object that it overlaps most; 0 without objects."""
        return self._get("pred_ious")

    def computed(self) -> list[tuple[str, Tensor]]:
        """Which of the properties above have been read, or were given, and their values."""
        return [(name, x) for name, x in self._optional.items() if isinstance(x, Tensor)]

    def _get(self, name: str) -> Tensor:
        value = self._optional[name]
        if value is None:
            raise InputError(
                f"the sampler reads {name}, which these candidates do not have (for example, there "
                "is no objectness in the stages of a cascade after the first)"
            )
        if not isinstance(value, Tensor):
            value = self._optional[name] = value()
        return value


class Selection(NamedTuple):
    """
    The S RoIs that a sampler chose to train on.

    Attributes:
        indices: (S,) int64 into the R candidates. The heads sort them by image, with hard examples
            first, and otherwise keep this order.
        weights: (S,) of a float type, from 0 to 1e6: the classification and box loss of each RoI is
            multiplied by it in training. None: 1 each.
        is_hard: (S,) bool, which of them are hard examples, for logs and pictures. None: all.
    """

    indices: Tensor
    weights: Tensor | None = None
    is_hard: Tensor | None = None


def name_of(sampler: object) -> str:
    """What messages call a sampler."""
    return getattr(sampler, "__name__", type(sampler).__name__)


def check_selection(
    selection: object, candidates: Candidates, sampler: object, waits: bool = False
) -> Selection:
    """
    Check that a sampler returned a valid selection.

    The ranges of indices and weights are checked on the CPU, where it costs nothing.

    Args:
        selection: what it returned.
        candidates: what it was given.
        sampler: itself.
        waits: whether the ranges are checked on a GPU, too, which has to be waited for.

    Raises:
        InputError: it did not.
    """
    name = name_of(sampler)
    if not isinstance(selection, Selection):
        raise InputError(
            f"the sampler {name} returned a {type(selection).__name__}, expected a Selection"
        )
    indices, weights, is_hard = selection
    if not _is_vector(indices) or indices.dtype != torch.int64:
        raise InputError(
            f"the sampler {name} returned indices {describe(indices)}, expected a vector of int64"
        )
    number = len(indices)
    if weights is not None and not (_is_vector(weights, number) and weights.is_floating_point()):
        raise InputError(
            f"the sampler {name} returned weights {describe(weights)}, expected ({number},) of a "
            "float type, one for each index"
        )
    if is_hard is not None and not (_is_vector(is_hard, number) and is_hard.dtype == torch.bool):
        raise InputError(
            f"the sampler {name} returned is_hard {describe(is_hard)}, expected ({number},) of "
            "torch.bool, one for each index"
        )
    if (waits or indices.is_cpu) and number:
        low, high = torch.stack(indices.aminmax()).tolist()
        if low < 0 or high >= len(candidates):
            raise InputError(
                f"the sampler {name} returned indices in [{low}, {high}], expected them in "
                f"[0, {len(candidates)}), the indices of the candidates"
            )
    if weights is not None and (waits or weights.is_cpu) and number:
        low_weight, high_weight = torch.stack(weights.aminmax()).tolist()
        if not 0 <= low_weight <= high_weight <= _LARGEST_WEIGHT:  # NaN is neither
            raise InputError(
                f"the sampler {name} returned weights in [{low_weight:g}, {high_weight:g}], "
                f"expected finite values from 0 to {_LARGEST_WEIGHT:g}"
            )
    return selection


def _is_vector(x: object, length: int | None = None) -> bool:
    return isinstance(x, Tensor) and x.dim() == 1 and length in (None, len(x))
