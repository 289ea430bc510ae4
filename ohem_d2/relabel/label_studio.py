"""Suspects as Label Studio's tasks with predictions, and what it exports as JSON."""

import json
import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from ..data.fields import is_number
from ..data.text_files import read_json
from ..errors import InputError, shown
from .decisions import SUSPECTS
from .returned import NOT_OF_THE_REPORT, Drawn, Returned, checked_box
from .suspects import Suspect, digest_of, names_of_images, of_images

_KNOWN = re.compile(rf"suspect[ -](\d+)\b(?:: ({'|'.join(SUSPECTS)}))?")


def write_label_studio(suspects: Sequence[Suspect]) -> str:
    """Return tasks to import, each an image with a prediction. Boxes are in percent of its size."""
    folder, names = names_of_images(suspects)
    within = Path(os.path.basename(os.path.abspath(folder)))
    digest = digest_of(suspects)
    tasks = [
        {
            "data": {
                "image": f"/data/local-files/?d={quote(os.fsencode(within / names[image]))}",
                "image_path": image,
                "image_id": of_image[0].image_id,
                "report": digest,
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
    folder = os.path.abspath(names_of_images(suspects)[0])
    return [
        f'Labelling interface: <View><Image name="image" value="$image"/><RectangleLabels '
        f'name="label" toName="image">{labels}</RectangleLabels></View>',
        "Start it with LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true and "
        f"LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={shlex.quote(os.path.dirname(folder))}",
        f"Storage of the project: a Local Files one with the path {folder}, not synchronised. "
        "Then import the tasks",
    ]


def read_label_studio(file: Path, suspects: Sequence[Suspect], returned: Returned) -> None:
    """
    Read an export in the format JSON. Tasks without a submitted annotation were not looked at.

    Args:
        file: the export.
        suspects: those of the report.
        returned: what the content is added to.

    Raises:
        InputError: it is another one.
    """
    tasks = read_json(file)
    sizes = {x.image: x.size for x in suspects}
    if not isinstance(tasks, list) or not all(
        isinstance(x, dict) and isinstance(x.get("annotations"), list) for x in tasks
    ):
        raise InputError(
            f"{file} is no export of Label Studio's: expected its format JSON, not JSON-MIN"
        )
    for i, task in enumerate(tasks):
        where = f"{file}: task {task.get('id', f'at [{i}]')}"
        data = _given(task, "data", dict, where)
        image = data.get("image_path")
        if not isinstance(image, str) or image not in sizes:
            returned.findings.add(NOT_OF_THE_REPORT, where, shown(image))
            continue
        returned.check_report(data.get("report"), where)
        for j, annotation in enumerate(task["annotations"]):
            here = f"{where}, annotations[{j}]"
            if not isinstance(annotation, dict):
                raise InputError(f"{here} is {shown(annotation)}, expected an object")
            if annotation.get("was_cancelled"):
                continue
            results = _given(annotation, "result", list, here)
            drawn = []
            for k, result in enumerate(results):
                at = f"{here}, result[{k}]"
                if not isinstance(result, dict):
                    raise InputError(f"{at} is {shown(result)}, expected an object")
                keys = ("original_width", "original_height")
                returned.check_size(image, [result.get(x) for x in keys], at)
                drawn.append(_drawn(result, sizes[image], at))
            returned.add(image, drawn, here)


def _given(content: dict, key: str, kind: type, where: str) -> Any:
    value = content.get(key)
    if not isinstance(value, kind):
        found = f"{key!r} {shown(value)}" if key in content else f"no {key!r}"
        expected = "a list" if kind is list else "an object"
        raise InputError(f"{where} has {found}, expected {expected}")
    return value


def _drawn(result: dict, size: tuple[int, int], where: str) -> Drawn:
    meta = result.get("meta")
    text = meta.get("text") if isinstance(meta, dict) else None
    notes = [*map(str, text if isinstance(text, list) else [text]), str(result.get("id"))]
    known = next(filter(None, map(_KNOWN.search, notes)), None)
    number, name = known.groups() if known else (None, None)
    if result.get("type") != "rectanglelabels":
        return Drawn(number, None, f"{where}, {shown(result.get('type'))}", name)
    value = _given(result, "value", dict, where)
    if value.get("rotation"):
        raise InputError(f"{where} has a turned box, expected upright ones")
    for key in ("x", "y", "width", "height"):
        if not is_number(value.get(key)):
            found = shown(value[key]) if key in value else "missing"
            raise InputError(f"{where} has a box whose {key!r} is {found}, expected a number")
    names = _given(value, "rectanglelabels", list, where)
    if len(names) != 1:
        raise InputError(f"{where} has a box of the classes {shown(names)}, expected one class")
    x, y, width, height = (value[k] for k in ("x", "y", "width", "height"))
    corners = [v * side / 100 for v, side in zip((x, y, x + width, y + height), size * 2)]
    return Drawn(number, checked_box(names[0], corners, where), where, name)
