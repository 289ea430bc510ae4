"""Suspects as Label Studio's tasks with predictions, and what it exports as JSON."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from ..data.text_files import read_json
from ..errors import InputError
from .suspects import Returned, Suspect, checked_shape, names_of_images, of_images

_NUMBER = re.compile(r"suspect[ -](\d+)\b")


def write_label_studio(suspects: Sequence[Suspect]) -> str:
    """Return tasks to import, each an image with a prediction. Boxes are in percent of its size."""
    _, names = names_of_images(suspects)
    tasks = [
        {
            "data": {
                "image": f"/data/local-files/?d={quote(names[image])}",
                "image_path": image,
                "image_id": of_image[0].image_id,
            },
            "predictions": [{"model_version": "ohem_d2", "result": [*map(_result, of_image)]}],
        }
        for image, of_image in of_images(suspects).items()
    ]
    return json.dumps(tasks, indent=1)


def _result(x: Suspect) -> dict[str, Any]:
    width, height = x.size
    box = x.shown.box
    return {
        "id": f"suspect-{x.number}",
        "type": "rectanglelabels",
        "from_name": "label",
        "to_name": "image",
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "value": {
            "x": 100 * box.x0 / width,
            "y": 100 * box.y0 / height,
            "width": 100 * (box.x1 - box.x0) / width,
            "height": 100 * (box.y1 - box.y0) / height,
            "rotation": 0,
            "rectanglelabels": [x.shown.category],
        },
        # Shown beside the box, and exported, whatever becomes of its id.
        "meta": {"text": [f"suspect {x.number}: {x.name}"]},
    }


def setup_of_label_studio(suspects: Sequence[Suspect], classes: Sequence[str]) -> list[str]:
    """Return what to set up, a line for each."""
    labels = "".join(f"<Label value={quoteattr(x)}/>" for x in classes)
    return [
        f'Labelling interface: <View><Image name="image" value="$image"/><RectangleLabels '
        f'name="label" toName="image">{labels}</RectangleLabels></View>',
        "Start it with LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true and "
        f"LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={names_of_images(suspects)[0]}",
    ]


def read_label_studio(file: Path, suspects: Sequence[Suspect]) -> Returned:
    """
    Read an export in the format JSON. Tasks without a submitted annotation were not looked at.

    Raises:
        InputError: it is another one.
    """
    tasks = read_json(file)
    sizes = {x.image: x.size for x in suspects}
    returned = Returned()
    if not isinstance(tasks, list) or not all(
        isinstance(x, dict) and isinstance(x.get("annotations"), list) for x in tasks
    ):
        raise InputError(
            f"{file} is no export of Label Studio's: expected its format JSON, not JSON-MIN"
        )
    for task in tasks:
        image = (task.get("data") or {}).get("image_path")
        done = [x for x in task["annotations"] if not x.get("was_cancelled")]
        if image not in sizes or not done:
            continue
        returned.images.add(image)
        for result in done[-1].get("result", []):
            if result.get("type") == "rectanglelabels":
                where = f"{file}: task {task.get('id')}"
                _add(returned, image, sizes[image], result, where)
    return returned


def _add(returned: Returned, image: str, size: tuple[int, int], result: dict, where: str) -> None:
    value = result.get("value") or {}
    if value.get("rotation"):
        raise InputError(f"{where} has a turned box, expected upright ones")
    x, y, width, height = (value.get(k, 0) for k in ("x", "y", "width", "height"))
    sides = size * 2
    corners = [v * side / 100 for v, side in zip((x, y, x + width, y + height), sides)]
    category = next(iter(value.get("rectanglelabels") or []), None)
    notes = [str(result.get("id")), *map(str, (result.get("meta") or {}).get("text") or [])]
    number = next((int(m[1]) for m in map(_NUMBER.search, notes) if m), None)
    returned.add(image, number, checked_shape(category, corners, where))
