"""Mining as its definition reads: slow, obvious, and sharing no code with the package."""

import math


def iou(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """IoU of two XYXY boxes, or of two rotated ones (cx, cy, w, h, degrees)."""
    if len(a) == 5:
        p, q = _corners(a), _corners(b)
        shared = _area(_clip(p, q))
        union = a[2] * a[3] + b[2] * b[3] - shared
    else:
        width = min(a[2], b[2]) - max(a[0], b[0])
        height = min(a[3], b[3]) - max(a[1], b[1])
        shared = max(width, 0) * max(height, 0)
        union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return shared / union if union > 0 else 0.0


def lies_in(box: tuple[float, ...], region: tuple[float, ...]) -> bool:
    """Whether half of a box or more lies in a region: XYXY boxes, or rotated ones."""
    if len(box) == 5:
        area = box[2] * box[3]
        shared = _area(_clip(_corners(box), _corners(region)))
    else:
        area = (box[2] - box[0]) * (box[3] - box[1])
        width = min(box[2], region[2]) - max(box[0], region[0])
        height = min(box[3], region[3]) - max(box[1], region[1])
        shared = max(width, 0) * max(height, 0)
    return shared > 0 and shared >= area / 2


def counts(box: tuple[float, ...], smallest: float, largest: float) -> bool:
    """Whether a box is of these sizes: XYXY, or rotated."""
    width, height = box[2:4] if len(box) == 5 else (box[2] - box[0], box[3] - box[1])
    return smallest**2 <= width * height <= largest**2


def _corners(box):
    """The corners of a rotated box, in the order that gives a positive area."""
    cx, cy, w, h, angle = box
    # Detectron2 counts angles counter-clockwise in the image, whose y axis points down.
    c, s = math.cos(math.radians(-angle)), math.sin(math.radians(-angle))
    signs = ((-1, -1), (1, -1), (1, 1), (-1, 1))
    return [
        (cx + c * sx * w / 2 - s * sy * h / 2, cy + s * sx * w / 2 + c * sy * h / 2)
        for sx, sy in signs
    ]


def _area(polygon):
    pairs = zip(polygon, polygon[1:] + polygon[:1])
    return sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in pairs) / 2


def _clip(polygon, window):
    """The part of a polygon inside a convex one (Sutherland and Hodgman, 1974)."""
    for (ax, ay), (bx, by) in zip(window, window[1:] + window[:1]):

        def side(p, ax=ax, ay=ay, bx=bx, by=by):
            return (bx - ax) * (p[1] - ay) - (by - ay) * (p[0] - ax)

        clipped = []
        for p, q in zip(polygon, polygon[1:] + polygon[:1]):
            sp, sq = side(p), side(q)
            if sp >= 0:
                clipped.append(p)
            if (sp >= 0) != (sq >= 0):
                t = sp / (sp - sq)
                clipped.append((p[0] + t * (q[0] - p[0]), p[1] + t * (q[1] - p[1])))
        polygon = clipped
    return polygon


def select(
    losses,
    boxes,
    labels,
    image_ids,
    *,
    num_samples,
    num_classes,
    nms_thresh=0.7,
    scope="image",
    max_foreground_fraction=None,
    num_images=None,
):
    """The same arguments as `ohem_d2.select_hard_examples`, as plain lists; returns a list."""
    if num_images is None:
        num_images = max(image_ids, default=-1) + 1

    def rank(i):
        broken = not math.isfinite(losses[i])
        return (not broken, 0 if broken else -losses[i], i)

    survivors = []
    for i in sorted(range(len(losses)), key=rank):
        suppressed = math.isfinite(losses[i]) and any(
            math.isfinite(losses[j])
            and image_ids[i] == image_ids[j]
            and labels[i] == labels[j]
            and iou(boxes[i], boxes[j]) > nms_thresh
            for j in survivors
        )
        if not suppressed or nms_thresh >= 1:
            survivors.append(i)

    if scope == "image":
        pools = [[i for i in survivors if image_ids[i] == n] for n in range(num_images)]
        budget = num_samples
    else:
        pools, budget = [survivors], num_samples * num_images

    selected = []
    for pool in pools:
        if max_foreground_fraction is None:
            selected += pool[:budget]
        else:
            foreground = [i for i in pool if labels[i] < num_classes]
            background = [i for i in pool if labels[i] == num_classes]
            foreground = foreground[: int(budget * max_foreground_fraction)]
            selected += foreground + background[: budget - len(foreground)]
    return sorted(selected, key=lambda i: (image_ids[i], rank(i)))
