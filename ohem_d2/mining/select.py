"""The rule of mining: which RoIs are hard examples. Tensors in, indices out."""

import math

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import batched_nms

# The time of NMS grows with the square of the number of RoIs. So the costliest are looked at first,
# this many times as many as are asked for, and more if most of these are duplicates.
_AT_FIRST = 2
# That waits for a GPU, which so many RoIs of an image are not worth: the 2,000 proposals that are
# usual, and the ground truth.
_AT_ONCE_ON_GPU = 2560


@torch.no_grad()
def select_hard_examples(
    losses: Tensor,
    boxes: Tensor,
    labels: Tensor,
    image_ids: Tensor,
    *,
    num_samples: int,
    num_classes: int,
    nms_thresh: float = 0.7,
    scope: str = "image",
    max_foreground_fraction: float | None = None,
    num_images: int | None = None,
) -> Tensor:
    """
    Select the RoIs with the highest loss, as in "Training Region-based Object Detectors with
    Online Hard Example Mining" (Shrivastava, Gupta, Girshick, CVPR 2016).

    First, duplicates are dropped: non-maximum suppression with the loss as score, among the RoIs of
    the same image and the same label. Then the survivors with the highest loss are taken. The
    result depends on nothing but the arguments: ties are broken by index, on every device.

    Args:
        losses: (R,) of any float type, the loss of each RoI. A NaN or infinite loss ranks before
            all others, is never suppressed and suppresses none, so that it reaches the training
            step and stops it.
        boxes: (R, 4) as XYXY in absolute coordinates, or (R, 5) rotated, as (x_center, y_center,
            width, height, angle in degrees). Coordinates are pixels: beyond about 1e9, precision is
            lost. Rotated boxes need Detectron2's compiled operators.
        labels: (R,) integers in [0, num_classes]; ``num_classes`` is background.
        image_ids: (R,) integers in [0, num_images), the image of each RoI.
        num_samples: how many RoIs to select per image.
        num_classes: number of foreground classes.
        nms_thresh: if two RoIs of the same image and label overlap by a higher IoU, the one with
            the lower loss is dropped. 1 or more turns this off.
        scope: "image": the ``num_samples`` RoIs with the highest loss in each image; "batch": the
            ``num_samples * num_images`` with the highest loss in all images together.
        max_foreground_fraction: None: loss alone decides, as in the paper. A number in [0, 1]: at
            most this fraction of the budget goes to foreground and the rest to background, each
            ranked by loss.
        num_images: number of images in the batch; by default the highest image id + 1.

    Returns:
        int64 indices into R, ordered by image, then by falling loss. If fewer RoIs survive the
        suppression than the budget allows, all of them.

    Raises:
        ValueError: an argument has another shape, or lies outside the range above. The ranges of
            labels and image ids are checked on the CPU only, where it costs nothing.

    Examples:
        >>> import torch
        >>> boxes = torch.tensor([[0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30], [5, 5, 9, 9]])
        >>> losses = torch.tensor([0.9, 0.8, 0.1, 0.3])  # the second overlaps the first by 0.9
        >>> labels = torch.tensor([2, 2, 0, 2])  # two classes, so 2 is background
        >>> image_ids = torch.tensor([0, 0, 0, 0])
        >>> select_hard_examples(losses, boxes, labels, image_ids, num_samples=2, num_classes=2)
        tensor([0, 3])
    """
    _check_tensors(losses, boxes, labels, image_ids, num_classes, num_images)
    if num_samples < 1:
        raise ValueError(f"num_samples is {num_samples}, expected 1 or more")
    if not nms_thresh >= 0:
        raise ValueError(f"nms_thresh is {nms_thresh}, expected 0 or more")
    if scope not in ("image", "batch"):
        raise ValueError(f"scope is {scope!r}, expected 'image' or 'batch'")
    if max_foreground_fraction is not None and not 0 <= max_foreground_fraction <= 1:
        raise ValueError(
            f"max_foreground_fraction is {max_foreground_fraction}, expected None or [0, 1]"
        )
    if num_images is None:
        num_images = int(image_ids.max()) + 1 if len(image_ids) else 0
    labels, image_ids = labels.long(), image_ids.long()

    # What shares a budget.
    if scope == "image":
        shares, budget, num_shares = image_ids, num_samples, num_images
    else:
        shares, budget, num_shares = torch.zeros_like(image_ids), num_samples * num_images, 1

    finite = losses.isfinite()
    cost = losses.masked_fill(~finite, math.inf)
    groups = image_ids * (num_classes + 1) + labels
    # What is not finite is in a group of its own.
    alone = num_images * (num_classes + 1) + torch.arange(len(groups), device=groups.device)
    groups = torch.where(finite, groups, alone)
    # Everything from here on is ordered by falling loss.
    few = max(_AT_FIRST * num_samples, _AT_ONCE_ON_GPU if cost.is_cuda else 0)
    if len(cost) <= few * num_images:
        ranking = _ranked_survivors(cost, boxes, groups, nms_thresh)
    else:
        is_apart = max_foreground_fraction is not None
        queues = shares * 2 + (labels < num_classes) if is_apart else shares
        ranking = _first_survivors(cost, boxes, groups, queues, nms_thresh, budget)

    shares = shares[ranking]
    if max_foreground_fraction is None:
        selected = _rank_within(shares) < budget
    else:
        foreground = labels[ranking] < num_classes
        rank = _rank_within(shares * 2 + foreground)
        selected_fg = foreground & (rank < int(budget * max_foreground_fraction))
        num_fg = shares.new_zeros(num_shares).index_add(0, shares, selected_fg.to(shares.dtype))
        selected = selected_fg | (~foreground & (rank < budget - num_fg[shares]))

    ranking = ranking[selected]
    return ranking[image_ids[ranking].argsort(stable=True)]


def _ranked_survivors(cost: Tensor, boxes: Tensor, groups: Tensor, nms_thresh: float) -> Tensor:
    """
    Indices of what NMS among the RoIs of the same group leaves, by falling cost; stable, so that
    ties go by index.
    """
    ranking = cost.argsort(descending=True, stable=True)
    if nms_thresh < 1:
        ranking = ranking[_survives_nms(boxes[ranking], groups[ranking], nms_thresh)]
    return ranking


def _first_survivors(
    cost: Tensor, boxes: Tensor, groups: Tensor, queues: Tensor, nms_thresh: float, number: int
) -> Tensor:
    """
    The first ``number`` of each queue that `_ranked_survivors` returns, and perhaps more. A RoI is
    never suppressed by one of lower cost, so those at the end of a queue need not be looked at.

    Args:
        cost: (R,), without NaN.
        boxes: (R, 4) or (R, 5).
        groups: (R,) non-negative integers.
        queues: (R,) non-negative integers. All RoIs of a group are in the same queue.
    """
    members = [(queues == x).nonzero().squeeze(1) for x in range(int(queues.max()) + 1)]
    depth = _AT_FIRST * number
    while True:
        seen = torch.cat([x[_costliest(cost[x], depth)] for x in members])
        seen = seen.sort().values  # for ties
        ranking = seen[_ranked_survivors(cost[seen], boxes[seen], groups[seen], nms_thresh)]
        found = queues[ranking].bincount(minlength=len(members)).tolist()
        if all(len(x) <= depth or n >= number for x, n in zip(members, found)):
            return ranking
        depth *= 2


def _costliest(cost: Tensor, number: int) -> Tensor:
    """Indices of the ``number`` highest, of equal ones the first, or of all: in no order."""
    if number >= len(cost):
        return torch.arange(len(cost), device=cost.device)
    least = cost.topk(number, sorted=False).values.min()
    above = (cost > least).nonzero().squeeze(1)
    equal = (cost == least).nonzero().squeeze(1)
    return torch.cat([above, equal[: number - len(above)]])


def _survives_nms(boxes: Tensor, groups: Tensor, nms_thresh: float) -> Tensor:
    """
    Greedy suppression among the boxes of the same group, earlier ones first.

    Args:
        boxes: (R, 4) or (R, 5), those to keep before those that they suppress.
        groups: (R,) non-negative integers.

    Returns:
        (R,) bool, True for the boxes that no earlier one suppresses.
    """
    survives = torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    if len(boxes) == 0:
        return survives
    # In double precision, which holds any box of any group exactly.
    boxes = boxes.double().nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
    scores = torch.arange(len(boxes), 0, -1, dtype=torch.float64, device=boxes.device)
    # The kernels disagree on details (the threshold as float or double, "above" or "at least"):
    # the next float above it means the same to all of them.
    thresh = float(np.nextafter(np.float32(nms_thresh), np.float32(math.inf)))
    if boxes.shape[1] == 5:
        # Detectron2's batched_nms_rotated moves each group to a place of its own too, but in
        # single precision, in which boxes far from the origin lose their shape.
        from detectron2.layers import nms_rotated  # torchvision has none

        spread = boxes[:, :4].abs().sum(dim=1).max().ceil()
        boxes[:, :2] += groups[:, None] * (2 * spread + 1)
        kept = nms_rotated(boxes, scores, thresh)
    else:
        # Groups are told apart by what is added to their coordinates, which must not be negative.
        kept = batched_nms(boxes - boxes.min().floor(), scores, groups, thresh)
    survives[kept] = True
    return survives


def _rank_within(groups: Tensor) -> Tensor:
    """The position of each element among those of its own group, in the order given: (R,)."""
    groups, order = groups.sort(stable=True)
    starts = torch.searchsorted(groups, groups)  # where the group of each begins
    rank = torch.empty_like(groups)
    rank[order] = torch.arange(len(groups), device=groups.device) - starts
    return rank


def _check_tensors(
    losses: Tensor,
    boxes: Tensor,
    labels: Tensor,
    image_ids: Tensor,
    num_classes: int,
    num_images: int | None,
) -> None:
    if losses.dim() != 1 or not losses.is_floating_point():
        raise ValueError(
            f"losses is {describe(losses)}, expected a vector (R,) of floating point numbers"
        )
    num_rois = len(losses)
    if boxes.dim() != 2 or len(boxes) != num_rois or boxes.shape[1] not in (4, 5):
        raise ValueError(f"boxes is {describe(boxes)}, expected ({num_rois}, 4) or ({num_rois}, 5)")
    for name, ids, stop in (
        ("labels", labels, num_classes + 1),
        ("image_ids", image_ids, num_images),
    ):
        if ids.shape != (num_rois,) or ids.is_floating_point():
            raise ValueError(f"{name} is {describe(ids)}, expected ({num_rois},) integers")
        if ids.is_cpu and num_rois:
            low, high = torch.stack(ids.aminmax()).tolist()
            if low < 0 or (stop is not None and high >= stop):
                end = "the number of images" if stop is None else stop
                raise ValueError(f"{name} spans [{low}, {high}], expected [0, {end})")


def describe(tensor: object) -> str:
    """The shape and type of a tensor, for messages; the type of what is none."""
    if not isinstance(tensor, Tensor):
        return f"of {type(tensor).__name__}"
    return f"{tuple(tensor.shape)} of {tensor.dtype}"
