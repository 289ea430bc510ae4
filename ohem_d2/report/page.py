"""A page to look through hard examples and label errors with, and both in COCO's format."""

import json
import logging
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from itertools import count
from pathlib import Path

import cv2
import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.structures import BoxMode
from tqdm import tqdm

from ..data import plain_path, read_image
from ..files import write_whole
from ..mining.error_types import ERROR_TYPES, TIDE_NAMES
from ..visualization import ERROR_COLORS
from .hard_examples import Box, HardExample
from .label_errors import LABEL_ERRORS

logger = logging.getLogger(__name__)

_TEMPLATE = Path(__file__).with_name("report.html")
_SCRIPTS = [Path(__file__).with_name(x) for x in ("decisions.js", "decide.js")]
_MOST = 5000  # of each list are on the page
_CROP_SIZE = 260  # pixels of the longer side of a crop, whatever it shows
_CONTEXT = 0.6  # of the longer side of what is shown, on each side
_TRUTH_COLOR = (255, 255, 255)
# Of each box that is drawn, whether it is the truth, and how wide its line is. Where two are the
# same, the first is drawn.
_STYLES = {"true_bbox": (True, 2), "bbox": (False, 2), "predicted_bbox": (False, 1)}
# What the lists are called, and which error types they have.
_LISTS = {
    "hard_examples": ("hard examples", ERROR_TYPES[:-1]),
    "label_errors": ("suspected label errors", LABEL_ERRORS),
}
# An error in a label looks to the model like a mistake of its own, and has the colour of that.
_COLORS = dict(zip(ERROR_TYPES[:-1], ERROR_COLORS)) | {
    error: ERROR_COLORS[ERROR_TYPES.index(error_type)]
    for error, error_type in zip(
        LABEL_ERRORS, ("look-alike", "missed object", "confused class", "badly placed box")
    )
}


def as_coco(
    records: Sequence[dict],
    ranked: Sequence[tuple[int, HardExample]],
    dataset_name: str,
    name: str,
) -> dict:
    """
    Turn examples into COCO's format, each an annotation with fields of its own.

    Args:
        records: those of the images in Detectron2's catalog.
        ranked: pairs of the index of an image and an example, in the order to show them.
        dataset_name: the registered data set.
        name: "hard_examples" or "label_errors".

    Returns:
        what a JSON file of COCO's has. An annotation has the box of the example, the class of the
        object or, where there is none, that for which it is taken; and ``error_type``, ``loss``,
        ``score``, ``iou``, ``predicted_category_id`` (null: background), ``is_labelled``,
        ``true_bbox``, ``predicted_bbox``; ``label_index``, ``label_id`` and ``label_bbox`` of the
        label that it belongs to, as the record has it; ``crop`` and ``crop_bbox``, for which see
        `write_page`.
    """
    ids = _category_ids(dataset_name)
    image_ids = _image_ids(records)
    annotations = []
    for number, (image, x) in enumerate(ranked, 1):
        # Of a label and of what the model finds, no more than one is background.
        classes = [k for k in (x.true_class, x.predicted_class) if k is not None]
        predicted = None if x.predicted_class is None else ids.get(x.predicted_class)
        box = _xywh(x.box)
        label = None if x.label is None else records[image]["annotations"][x.label]
        annotations.append(
            {
                "id": number,
                "image_id": image_ids[image],
                "category_id": ids[classes[0]],
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": 0,
                "error_type": x.error_type,
                "loss": x.loss,
                "score": x.score,
                "iou": x.iou,
                "is_labelled": x.true_class is not None,
                "predicted_category_id": predicted,
                "true_bbox": None if x.true_box is None else _xywh(x.true_box),
                "predicted_bbox": None if x.predicted_box is None else _xywh(x.predicted_box),
                "label_index": x.label,
                "label_id": label.get("id") if label else None,
                "label_bbox": _box_of(label) if label else None,
                "crop": None,
                "crop_bbox": None,
            }
        )
    return {
        "info": {
            "description": f"{_LISTS[name][0]} of {dataset_name}",
            "dataset": dataset_name,
            "ohem_d2": _version(),
        },
        "images": [
            {
                "id": i,
                "file_name": os.path.abspath(
                    plain_path(r["file_name"])
                ),  # wherever the file is read from
                "height": r["height"],
                "width": r["width"],
                "original_id": r["image_id"],
            }
            for i, r in zip(image_ids, records)
        ],
        "categories": [
            {"id": ids[i], "name": x}
            for i, x in enumerate(MetadataCatalog.get(dataset_name).thing_classes)
        ],
        "annotations": annotations,
    }


def _category_ids(dataset_name: str) -> dict[int, int | str]:
    """The ids that the classes have in the user's file, if it has any, or numbers from 1."""
    metadata = MetadataCatalog.get(dataset_name)
    contiguous = metadata.get("thing_dataset_id_to_contiguous_id")
    if contiguous:
        return {v: k for k, v in contiguous.items()}
    in_file = metadata.get("category_ids", {})
    names = metadata.thing_classes
    # A class of the training set alone has none.
    unused = (i for i in count(1) if i not in in_file.values())
    return {i: in_file[x] if x in in_file else next(unused) for i, x in enumerate(names)}


def _image_ids(records: Sequence[dict]) -> list[int]:
    """Those of the user's file where they are numbers, as COCO's are, or numbers from 1."""
    ids = [r["image_id"] for r in records]
    return ids if all(isinstance(i, int) for i in ids) else list(range(1, len(ids) + 1))


def _version() -> str | None:
    """That of this package; None where it is not installed, as in a clone."""
    try:
        return version("ohem_d2")
    except PackageNotFoundError:
        return None


def _box_of(label: dict) -> list[float]:
    box = [float(v) for v in label["bbox"]]
    return BoxMode.convert(box, label["bbox_mode"], BoxMode.XYWH_ABS)


def _xywh(box: Box) -> list[float]:
    return BoxMode.convert(list(box), BoxMode.XYXY_ABS, BoxMode.XYWH_ABS)


def write_list(folder: Path, name: str, coco: dict) -> None:
    """
    Write a list as JSON, whole or not at all.

    Args:
        folder: where to. It is made if need be.
        name: "hard_examples" or "label_errors".
        coco: what `as_coco` returned.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / f"{name}.json", json.dumps(coco, allow_nan=False))


def write_page(folder: Path, dataset_name: str, hard_examples: dict, label_errors: dict) -> None:
    """
    Write crops of the first 5000 examples of each list, a page that opens from disk and shows
    these, and the lists, which name them. What cannot be drawn is named and left out; if drawing is
    interrupted, the page has what is there.

    Crops go to a new folder, ``crops/<number>``. Once the page shows them, those of earlier pages
    go; until then, the earlier page stays whole. No other file is touched.

    Args:
        folder: where to. It is made if need be.
        dataset_name: that of the data set.
        hard_examples: what `as_coco` returned. ``crop`` of what is drawn becomes its file, relative
            to the folder, and ``crop_bbox`` what part of the image it shows; of other examples they
            stay null.
        label_errors: the same, of the same images.

    Raises:
        KeyboardInterrupt: it was interrupted; the page is written.
        OSError: it cannot be written, for want of space for example. The earlier page stays.
    """
    (folder / "crops").mkdir(parents=True, exist_ok=True)
    earlier = [x for x in (folder / "crops").iterdir() if x.is_dir() and x.name.isdecimal()]
    crops = folder / "crops" / str(max((int(x.name) for x in earlier), default=0) + 1)
    crops.mkdir()
    cocos = dict(zip(_LISTS, (hard_examples, label_errors)))
    lists, to_draw = [], []
    for name, (title, error_types) in _LISTS.items():
        of = cocos[name]["annotations"]
        to_draw += [(crops / f"{name}_{x['id']:06d}.jpg", x) for x in of[:_MOST]]
        each = {"name": title, "error_types": error_types, "number": len(of), "of": of[:_MOST]}
        lists.append({**each, "is_of_labels": name == "label_errors"})
    images = {x["id"]: x for x in hard_examples["images"]}
    interrupt = None
    try:
        try:
            _write_crops(folder, images, to_draw)
        except KeyboardInterrupt as e:
            logger.warning("Interrupted while drawing: the page has what is drawn")
            interrupt = e
        _write_html(folder, dataset_name, hard_examples, lists)
    except OSError:
        _remove_crops(crops)
        raise
    for old in earlier:
        _remove_crops(old)
    for name, coco in cocos.items():
        write_list(folder, name, coco)
    if interrupt is not None:
        raise interrupt


def _remove_crops(folder: Path) -> None:
    """Those of a page, and their folder if there is nothing else in it."""
    for file in folder.iterdir():
        if re.fullmatch(rf"({'|'.join(_LISTS)})_\d{{6}}\.jpg", file.name):
            file.unlink()
    with suppress(OSError):  # there is
        folder.rmdir()


def _write_html(folder: Path, dataset_name: str, coco: dict, lists: list[dict]) -> None:
    """The page, with those examples of the lists that are drawn. `coco` has the images of both."""
    for each in lists:
        each["of"] = [x for x in each["of"] if x["crop"] is not None]
    shown = {x["image_id"] for each in lists for x in each["of"]}
    images = [
        {**x, "url": Path(x["file_name"]).as_uri()} for x in coco["images"] if x["id"] in shown
    ]
    data = {
        "dataset": dataset_name,
        # An address may be relative: what it names is told by where its images are.
        "folder": os.path.dirname(coco["images"][0]["file_name"]),
        "ohem_d2": _version(),
        "number_of_images": len(coco["images"]),
        "images": images,
        "categories": coco["categories"],
        "lists": lists,
        "colors": {
            error_type: f"rgb({', '.join(str(round(255 * c)) for c in color)})"
            for error_type, color in _COLORS.items()
        },
        "tide_names": TIDE_NAMES,
    }
    # Nothing in a name can end the script element that holds it.
    text = json.dumps(data).replace("<", "\\u003c")
    page = _TEMPLATE.read_text(encoding="utf-8")
    for script in _SCRIPTS:
        page = page.replace(f">{script.name}<", f">\n{script.read_text(encoding='utf-8')}<")
    write_whole(folder / "index.html", page.replace(">DATA<", f">{text}<"))


def _write_crops(
    folder: Path, images: dict[int, dict], to_draw: Sequence[tuple[Path, dict]]
) -> None:
    """The images with the worst examples first, each of which is read once."""
    of_images: dict[int, list[tuple[Path, dict]]] = {}
    for file, x in sorted(to_draw, key=lambda pair: -pair[1]["loss"]):
        of_images.setdefault(x["image_id"], []).append((file, x))
    with tqdm(total=len(to_draw), desc="drawing", unit="crop") as progress:
        for image_id, of_image in of_images.items():
            for file, x, crop in _draw_crops(images[image_id]["file_name"], of_image):
                file.write_bytes(crop)
                x["crop"] = file.relative_to(folder).as_posix()
                progress.update()


def _draw_crops(
    image_file: str, of_image: Sequence[tuple[Path, dict]]
) -> Iterator[tuple[Path, dict, bytes]]:
    """What to write where, of one image, as far as it can be drawn."""
    try:
        image = read_image(image_file, format="RGB")
        for file, x in of_image:
            crop = draw_crop(image, x)[:, :, ::-1]
            _, encoded = cv2.imencode(".jpg", crop, [cv2.IMWRITE_JPEG_QUALITY, 85])
            content = encoded.tobytes()
            x0, y0, x1, y1 = crop_window(image.shape, x)
            x["crop_bbox"] = [x0, y0, x1 - x0, y1 - y0]
            yield file, x, content
    except Exception as e:  # what reads images raises anything
        logger.warning(f"Of {image_file} not all is on the page: {e}")


def crop_window(shape: Sequence[int], annotation: dict) -> tuple[int, int, int, int]:
    """
    What part of an image shows an example and what is around it.

    Args:
        shape: that of the image, (H, W, ...).
        annotation: one of those that `as_coco` returns.

    Returns:
        XYXY in whole pixels, within the image: a pixel at least, also of a box that has no size or
        lies outside the image.
    """
    shown = [annotation[key] for key in _STYLES if annotation[key] is not None]
    boxes = np.array([BoxMode.convert(x, BoxMode.XYWH_ABS, BoxMode.XYXY_ABS) for x in shown])
    near, far = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    margin = _CONTEXT * (far - near).max()
    size = np.array(shape[1::-1])
    x0, y0 = np.floor((near - margin).clip(0, size - 1)).astype(int).tolist()
    x1, y1 = np.ceil((far + margin).clip([x0 + 1, y0 + 1], size)).astype(int).tolist()
    return x0, y0, x1, y1


def draw_crop(image: np.ndarray, annotation: dict) -> np.ndarray:
    """
    Draw an example and what is around it: the box of the object in white, its own in the colour of
    its error type, and that which the model predicts, thinner, in the same colour.

    Args:
        image: (H, W, 3) RGB of uint8.
        annotation: one of those that `as_coco` returns.

    Returns:
        RGB of uint8.
    """
    color = tuple(round(255 * c) for c in _COLORS[annotation["error_type"]])
    drawn: dict[tuple[float, ...], tuple[Sequence[float], int]] = {}
    for key, (is_truth, width) in _STYLES.items():
        if annotation[key] is not None:
            box = BoxMode.convert(annotation[key], BoxMode.XYWH_ABS, BoxMode.XYXY_ABS)
            drawn.setdefault(tuple(box), (_TRUTH_COLOR if is_truth else color, width))
    boxes = np.array(list(drawn))
    x0, y0, x1, y1 = crop_window(image.shape, annotation)
    scale = _CROP_SIZE / max(x1 - x0, y1 - y0)
    crop_size = [max(1, round(scale * s)) for s in (x1 - x0, y1 - y0)]
    crop = cv2.resize(image[y0:y1, x0:x1], crop_size, interpolation=cv2.INTER_AREA)
    for box, (box_color, width) in zip(boxes, drawn.values()):
        corners = np.round((box.reshape(2, 2) - [x0, y0]) * scale).astype(int)
        start, end = corners.tolist()
        cv2.rectangle(crop, start, end, box_color, width)
    return crop
