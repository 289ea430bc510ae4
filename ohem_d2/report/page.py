"""A page to look through hard examples and label errors with, and both in COCO's format."""

import json
import logging
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
from detectron2.structures import BoxMode
from tqdm import tqdm

from ..data import read_image
from ..files import write_whole
from ..mining.error_types import ERROR_TYPES, TIDE_NAMES
from ..visualization import ERROR_COLORS
from .coco_form import TITLES, id_for_page, package_version
from .comparison import comparison_for_page
from .label_errors import LABEL_ERRORS
from .list_rows import BOXES, FIELDS, as_rows
from .model_errors import for_page
from .tide import ERRORS

logger = logging.getLogger(__name__)

_TEMPLATE = Path(__file__).with_name("report.html")
_SCRIPTS = [
    Path(__file__).with_name(f"{x}.js")
    for x in ("pictures", "gallery", "decisions", "decide", "model_errors", "comparison")
]
_MOST = 5000  # crops of each list are drawn; a browser makes the others from the images
_MOST_DETECTIONS = 200_000  # and of detections, and of false positives of a comparison
_CROP_SIZE = 260  # pixels of the longer side of a crop, whatever it shows
_CONTEXT = 0.6  # of the longer side of what is shown, on each side
_TRUTH_COLOR = (255, 255, 255)
# Of each box that is drawn, whether it is the truth, and how wide its line is. Where two are the
# same, the first is drawn.
_STYLES = {"true_bbox": (True, 2), "bbox": (False, 2), "predicted_bbox": (False, 1)}
# The lists, and which error types they have.
_LISTS = {
    "hard_examples": ERROR_TYPES[:-1],
    "label_errors": LABEL_ERRORS,
}
# An error in a label looks to the model like a mistake of its own, and has the colour of that.
_COLORS = dict(zip(ERROR_TYPES[:-1], ERROR_COLORS)) | {
    error: ERROR_COLORS[ERROR_TYPES.index(error_type)]
    for error, error_type in zip(
        LABEL_ERRORS, ("look-alike", "missed object", "confused class", "badly placed box")
    )
}
# TIDE's error types have the colours of the same mistakes, and the two that have no such mistake
# their own.
_TIDE_COLORS = {name: _COLORS[error_type] for error_type, name in TIDE_NAMES.items()} | {
    "Both": (0.55, 0.34, 0.29),
    "Dupe": (0.50, 0.50, 0.50),
    "": (0.00, 0.62, 0.45),  # right: bluish green
}


def write_list(folder: Path, name: str, coco: dict) -> None:
    """
    Write a list as JSON, whole or not at all.

    Args:
        folder: where to. It is made if need be.
        name: "hard_examples", "label_errors", "model_errors" or "model_comparison".
        coco: what `as_coco`, `as_model_errors` or `as_comparison` returned.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / f"{name}.json", json.dumps(coco, allow_nan=False))


def write_page(
    folder: Path,
    dataset_name: str,
    hard_examples: dict,
    label_errors: dict,
    model_errors: dict,
    comparison: dict | None = None,
) -> None:
    """
    Write crops of the first 5000 examples of each list, a page that opens from disk and shows all,
    and the lists, which name the crops. What has no crop, the page draws from the image: what
    cannot be drawn here, which is named, and all that is left if drawing is interrupted.

    Crops go to a new folder, ``crops/<number>``. Once the page shows them, those of earlier pages
    go; until then, the earlier page stays whole. No other file is touched.

    Args:
        folder: where to. It is made if need be.
        dataset_name: that of the data set.
        hard_examples: what `as_coco` returned. ``crop`` of what is drawn becomes its file, relative
            to the folder, and ``crop_bbox`` what part of the image it shows; of other examples they
            stay null.
        label_errors: the same, of the same images.
        model_errors: what `as_model_errors` returned, of the same images.
        comparison: what `as_comparison` returned, of the same images, if there is one.

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
    for name, error_types in _LISTS.items():
        of = cocos[name]["annotations"]
        to_draw += [(crops / f"{name}_{x['id']:06d}.jpg", x) for x in of[:_MOST]]
        each = {"id": name.replace("_", "-"), "name": TITLES[name], "error_types": error_types}
        lists.append({**each, "number": len(of), "is_of_labels": name == "label_errors"})
    images = {x["id"]: x for x in hard_examples["images"]}
    interrupt = None
    try:
        try:
            _write_crops(folder, images, to_draw)
        except KeyboardInterrupt as e:
            logger.warning("Interrupted while drawing: the page has no more crops than are drawn")
            interrupt = e
        _write_html(folder, dataset_name, lists, cocos, model_errors, comparison)
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


def _write_html(
    folder: Path,
    dataset_name: str,
    lists: list[dict],
    cocos: dict[str, dict],
    model_errors: dict,
    comparison: dict | None,
) -> None:
    """The page. What is not shown first has elements of its own, to be read when it is."""
    coco = cocos["hard_examples"]  # which has the images of all
    of_model = for_page(model_errors, _MOST_DETECTIONS)
    of_both = comparison and comparison_for_page(comparison, _MOST_DETECTIONS)
    shown = {x["image_id"] for of_list in cocos.values() for x in of_list["annotations"]}
    shown |= {x[0] for x in (*of_model["detections"], *of_model["labels"])}
    if of_both is not None:
        shown |= {x[1] for x in of_both["false_positives"]}
    images = [_for_page(x) for x in coco["images"] if x["id"] in shown]
    data = {
        "dataset": dataset_name,
        # An address may be relative: what it names is told by where its images are.
        "folder": os.path.dirname(coco["images"][0]["file_name"]),
        "ohem_d2": package_version(),
        "number_of_images": len(coco["images"]),
        "images": images,
        "categories": coco["categories"],
        "lists": lists,
        "fields": FIELDS,
        "boxes": BOXES,
        "errors": ERRORS,
        "is_compared": of_both is not None,
        "colors": {
            error_type: f"rgb({', '.join(str(round(255 * c)) for c in color)})"
            for error_type, color in (_COLORS | _TIDE_COLORS).items()
        },
        "tide_names": TIDE_NAMES,
    }
    page = _TEMPLATE.read_text(encoding="utf-8")
    for script in _SCRIPTS:
        page = page.replace(f">{script.name}<", f">\n{script.read_text(encoding='utf-8')}<")
    parts = {
        "DATA": data,
        **{
            name.replace("_", " ").upper(): as_rows(of_list["annotations"])
            for name, of_list in cocos.items()
        },
        "MODEL ERRORS": of_model,
        "MODEL COMPARISON": of_both,
    }
    for name, part in parts.items():
        # Nothing in a name can end the script element that holds it.
        text = json.dumps(part, separators=(",", ":")).replace("<", "\\u003c")
        page = page.replace(f">{name}<", f">{text}<")
    write_whole(folder / "index.html", page)


def _for_page(image: dict) -> dict:
    file = image["file_name"]
    target = os.path.realpath(file)
    more = {"links_to": target} if target != file else {}
    of_user = id_for_page(image["original_id"])
    return image | {"original_id": of_user, "url": Path(file).as_uri()} | more


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
        logger.warning(f"Of {image_file} not all crops are drawn: {e}")


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
