"""Two models on the same images: what each gets right that the other does not, and the costs."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from detectron2.data import MetadataCatalog

from .coco_form import box_of
from .earlier import EarlierReport, as_label, detections_now, real_path
from .hard_examples import Findings
from .model_errors import as_model_errors
from .tide import FOREGROUND, iou

MODELS = ("earlier", "now")


def as_comparison(
    earlier: EarlierReport,
    records: Sequence[dict],
    findings: Sequence[Findings],
    dataset_name: str,
    model_errors: dict,
) -> dict:
    """
    Compare the model of an earlier report with the one that was looked at now. The labels of now
    judge both.

    Args:
        earlier: the report, which `check_comparable` let pass.
        records: those of the images in Detectron2's catalog.
        findings: what `look_at` returned of each.
        dataset_name: the registered data set.
        model_errors: what `as_model_errors` returned of these.

    Returns:
        what `compare` returned; with the ``folder`` of the earlier report in ``info``, how many
        images it has (``images_then``), its AP by the labels that there were (``ap50_then``; None
        if it has more images), and how many labels are new since, and gone.
    """
    names = MetadataCatalog.get(dataset_name).thing_classes
    before = [
        replace(f, detections=detections_now(earlier, r, names)) for r, f in zip(records, findings)
    ]
    result = compare(as_model_errors(records, before, dataset_name), model_errors)
    new: Counter = Counter()
    gone: Counter = Counter()
    for record, f in zip(records, findings):
        regions = set(f.region_positions.tolist())
        labels = Counter(
            as_label(names[a["category_id"]], box_of(a), i in regions)
            for i, a in enumerate(record["annotations"])
        )
        then = earlier.labels[real_path(record)]
        new += labels - then
        gone += then - labels
    result["info"] |= {
        "folder": str(earlier.folder.absolute()),
        "images_then": len(earlier.sizes),
        "ap50_then": earlier.ap50 if len(earlier.sizes) == len(records) else None,
        "labels_new": new.total(),
        "labels_gone": gone.total(),
    }
    return result


def compare(before: dict, now: dict) -> dict:
    """
    Compare two models.

    Args:
        before: what `as_model_errors` returned of the first model.
        now: that of the second one, of the same images and labels.

    Returns:
        what a JSON file of COCO's has, with the labels as annotations, and ``false_positives``; see
        docs/model_errors.md for their fields.
    """
    models = dict(zip(MODELS, (before, now)))
    wrong = {name: _false_positives(x) for name, x in models.items()}
    finders = {
        name: {d["label"]: d for d in x["annotations"] if d["error_type"] is None}
        for name, x in models.items()
    }
    labels = [
        {
            **{key: x[key] for key in ("id", "image_id", "category_id", "bbox")},
            "area": x["bbox"][2] * x["bbox"][3],
            "iscrowd": 0,
            "label_index": x["label_index"],
            "label_id": x["label_id"],
            **{name: _finder(finders[name].get(x["id"])) for name in MODELS},
        }
        for x in now["labels"]
        if not x["iscrowd"]
    ]
    of_other = dict(zip(MODELS, (_surest_alike(*x) for x in _both_ways(wrong))))
    false_positives = [
        {
            "id": number,
            "model": name,
            **{key: d[key] for key in ("image_id", "category_id", "bbox", "score", "error_type")},
            "label": d["label"],
            "score_of_other": score,
        }
        for number, (name, d, score) in enumerate(
            ((name, *x) for name in MODELS for x in zip(wrong[name], of_other[name])), 1
        )
    ]
    result = {
        "info": {
            **{key: now["info"][key] for key in ("dataset", "ohem_d2")},
            "description": f"comparison of two models on {now['info']['dataset']}",
            **_side_by_side(before["info"], now["info"]),
        },
        "images": now["images"],
        "categories": [
            {"id": b["id"], "name": b["name"], "labels": b["labels"], **_side_by_side(a, b)}
            for a, b in zip(before["categories"], now["categories"])
        ],
        "annotations": labels,
        "false_positives": false_positives,
    }
    for name in MODELS:
        found = [x[name]["score"] for x in labels if x[name] is not None]
        missed = [d["score"] for d in wrong[name]]
        result["info"][name]["best_score"] = best_score(found, missed, len(labels))
    result["info"] |= _counts(result)
    return result


def _both_ways(wrong: dict[str, list[dict]]) -> list[tuple]:
    first, second = (wrong[name] for name in MODELS)
    return [(first, second), (second, first)]


def _false_positives(model_errors: dict) -> list[dict]:
    """The detections that count and are wrong, the surest first."""
    wrong = [x for x in model_errors["annotations"] if x["error_type"] and not x["is_ignored"]]
    return sorted(wrong, key=lambda d: -d["score"])


def _finder(detection: dict | None) -> dict | None:
    return None if detection is None else {key: detection[key] for key in ("score", "bbox", "iou")}


def _surest_alike(wrong: Sequence[dict], of_other: Sequence[dict]) -> list[float | None]:
    """
    Of each false positive, the highest score of one of the other model of the same class in the
    same place; None: there is none.
    """
    at: dict[tuple, list[dict]] = {}
    for d in of_other:
        at.setdefault((d["image_id"], d["category_id"]), []).append(d)
    groups: dict[tuple, list[int]] = {}
    for i, d in enumerate(wrong):
        groups.setdefault((d["image_id"], d["category_id"]), []).append(i)
    found: list[float | None] = [None] * len(wrong)
    for key, members in groups.items():
        others = at.get(key)
        if others is None:
            continue
        boxes, other_boxes = (
            np.array([d["bbox"] for d in x], dtype=float)
            for x in ([wrong[i] for i in members], others)
        )
        is_alike = iou(boxes, other_boxes) >= FOREGROUND
        scores = np.where(is_alike, [d["score"] for d in others], -np.inf).max(axis=1)
        for i, score in zip(members, scores.tolist()):
            found[i] = score if score > -math.inf else None
    return found


def _side_by_side(before: dict, now: dict) -> dict:
    """AP and costs of both models, and by how much they are higher now."""
    keys = ("ap50", "costs", "numbers")
    return {
        **{name: {key: x[key] for key in keys} for name, x in zip(MODELS, (before, now))},
        "difference": {
            "ap50": now["ap50"] - before["ap50"],
            "costs": {
                error: now["costs"][error] - before["costs"][error] for error in now["costs"]
            },
        },
    }


def best_score(right: Sequence[float], wrong: Sequence[float], labels: int) -> float:
    """
    Return the score from which detections have the best balance of precision and recall (F1), in
    hundredths, rounded down; 0.5 if none is right.

    Args:
        right: the scores of detections that find a label.
        wrong: those of all others that count.
        labels: how many there are.
    """
    if not right:
        return 0.5
    scores = np.array([*right, *wrong])
    order = np.argsort(-scores, kind="stable")
    found = (order < len(right)).cumsum()
    f1 = 2 * found / (np.arange(1, len(scores) + 1) + labels)
    return math.floor(100 * float(scores[order[f1.argmax()]])) / 100


def _counts(comparison: dict) -> dict:
    """How many objects and false positives the models share, each from its best score on."""
    least = {name: comparison["info"][name]["best_score"] for name in MODELS}
    objects = Counter(
        tuple(x[name] is not None and x[name]["score"] >= least[name] for name in MODELS)
        for x in comparison["annotations"]
    )
    wrong: Counter[str] = Counter()
    alone: Counter[str] = Counter()
    other = dict(zip(MODELS, reversed(MODELS)))
    for d in comparison["false_positives"]:
        if d["score"] < least[name := d["model"]]:
            continue
        wrong[name] += 1
        alone[name] += d["score_of_other"] is None or d["score_of_other"] < least[other[name]]
    return {
        "objects": {
            "both": objects[True, True],
            "only_earlier": objects[True, False],
            "only_now": objects[False, True],
            "neither": objects[False, False],
        },
        "false_positives": {
            "earlier": wrong["earlier"],
            "only_earlier": alone["earlier"],
            "now": wrong["now"],
            "only_now": alone["now"],
        },
    }


def comparison_for_page(comparison: dict, most: int) -> dict:
    """
    Make what `as_comparison` returned smaller, for a page.

    Args:
        comparison: what it returned.
        most: how many false positives the page has, those with the highest scores.

    Returns:
        ``labels``, each as image id, category id, box, and what finds it in each model: score and
        box, or null; ``false_positives`` by falling score, each as the number of the model, image
        id, category id, score, box, error type, position of its label and score of the other.
        ``left_out`` is how many false positives the page does not have.
    """
    positions = {x["id"]: i for i, x in enumerate(comparison["annotations"])}
    wrong = sorted(comparison["false_positives"], key=lambda d: -d["score"])
    return {
        "info": comparison["info"],
        "categories": comparison["categories"],
        "labels": [
            [
                x["image_id"],
                x["category_id"],
                _rounded(x["bbox"]),
                *(x[m] and [x[m]["score"], _rounded(x[m]["bbox"])] for m in MODELS),
            ]
            for x in comparison["annotations"]
        ],
        "false_positives": [
            [
                MODELS.index(d["model"]),
                d["image_id"],
                d["category_id"],
                d["score"],
                _rounded(d["bbox"]),
                d["error_type"],
                None if d["label"] is None else positions[d["label"]],
                d["score_of_other"],
            ]
            for d in wrong[:most]
        ],
        "left_out": max(0, len(wrong) - most),
    }


def _rounded(box: Sequence[float]) -> list[float]:
    return [round(v, 1) for v in box]
