"""A look at a data set before any training: its figures, what is odd, and pictures with boxes."""

import base64
import csv
import html
import io
import logging
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
from detectron2.data import DatasetCatalog, Metadata, MetadataCatalog
from detectron2.structures import BoxMode
from tqdm import tqdm

from ..data import plain_path, read_image, register_builtin
from ..data.addresses import Loaded, load_address
from ..data.checks import read_to_end
from ..data.findings import Findings
from ..data.overview import Overview, is_region, overview
from ..data.registered import look_at_images, opened_by_detectron2
from ..errors import InputError
from ..files import write_whole
from ..paths import printable
from ..training.data_checks import check_datasets
from ..visualization import draw_objects
from .own_page import check_own_page

logger = logging.getLogger(__name__)

MAX_PICTURES = 60
_WITH_FINDINGS = 20  # of them, those that show what is odd
_OF_EMPTY = 8  # one of so many shows an image without objects
_MOST_LABELS = 12  # objects in a picture; of more, the names would cover the boxes
_MOST_LISTED = 500  # findings of a kind on the page; the file beside it has all
_TEMPLATE = Path(__file__).with_name("data.html")
_COLORS = (  # all of them light enough to be read on black
    "#e69f00", "#56b4e9", "#2fd6a3", "#f0e442", "#ff6f61", "#cc79a7", "#ffffff", "#7fbf3f",
    "#b39ddb", "#ff9ecf", "#00e5ff", "#d7a86e",
)  # fmt: skip


def look_at_data(name: str, output: Path | None = None, max_pictures: int = MAX_PICTURES) -> None:
    """
    Print the figures of a data set and what is odd in it.

    Args:
        name: its address, or the name under which it is registered.
        output: a folder to write ``index.html``, a page with pictures, and ``findings.csv`` to. It
            is made if need be.
        max_pictures: how many images the page shows at most.

    Raises:
        InputError: the data set cannot be read, or the folder cannot be written.
    """
    if max_pictures < 0:
        raise InputError(f"--max-pictures is {max_pictures}, expected 0 or more")
    if output is not None:
        check_own_page(output, "findings.csv", "data")
    if "://" in name:
        data = load_address(name, unreadable="skip")
        data.records, _ = read_to_end(name, data.records, data.findings, unreadable="skip")
    else:
        data = _load_registered(name)
    figures = overview(data.records, data.classes)
    print(printable("\n".join([name, *figures.lines(), "", *figures.table()])))
    pictures = [] if output is None else list(_draw(data, max_pictures))
    print()
    if data.findings:
        print("\n".join(["What is odd:", *(f"- {line}" for line in data.findings.summary())]))
    else:
        print("Nothing odd was found.")
    if output is None:
        return
    try:
        output.mkdir(parents=True, exist_ok=True)
        write_whole(output / "findings.csv", _as_csv(data.findings))
        write_whole(output / "index.html", _as_html(name, data, figures, pictures))
    except OSError as e:
        raise InputError(f"--output {output} cannot be written ({e.strerror})") from None
    print(f"Wrote {output / 'index.html'} and findings.csv beside it")


def _load_registered(name: str) -> Loaded:
    register_builtin([name])
    check_datasets(name)
    classes = MetadataCatalog.get(name).get("thing_classes")
    records = [dict(r, annotations=r.get("annotations", [])) for r in DatasetCatalog.get(name)]
    for record in records:
        record["annotations"] = [
            dict(a, category_id=classes[a["category_id"]] if classes else str(a["category_id"]))
            for a in record["annotations"]
        ]
    findings = Findings()
    if opened := opened_by_detectron2(records, training=False):
        left, _ = look_at_images(name, opened, findings, unreadable="skip")
        gone = {r["file_name"] for r in opened} - {r["file_name"] for r in left}
        records = [r for r in records if r.get("file_name") not in gone]
    used = {a["category_id"] for r in records for a in r["annotations"]}
    return Loaded(records, list(classes or sorted(used)), {}, findings)


def choose(records: Sequence[dict], findings: Findings, number: int) -> list[int]:
    """
    Choose images to show: those in which something is odd first, then such that all classes are
    seen, the rarest first, and some without objects; of each, images from the whole of the list.

    Args:
        records: those of the data set, with the class's name in place of ``category_id``.
        findings: what is odd.
        number: how many to choose at most.

    Returns:
        their indices. Images in which something is odd come first.
    """
    of_image = _OfImages(findings)
    odd = [i for i, record in enumerate(records) if of_image(record)]
    chosen = dict.fromkeys(_spread(odd, min(_WITH_FINDINGS, number)))
    having = defaultdict(list)
    for i, record in enumerate(records):
        for name in {a["category_id"] for a in record["annotations"]} or {None}:
            having[name].append(i)
    empty = _spread(having.pop(None, []), number // _OF_EMPTY)
    waiting = [iter(_spread(x, number)) for x in sorted(having.values(), key=len)]
    chosen.update(dict.fromkeys(empty[: max(0, number - len(chosen))]))
    while waiting and len(chosen) < number:
        for images in list(waiting):
            new = next((x for x in images if x not in chosen), None)
            if new is None:
                waiting.remove(images)
            elif len(chosen) < number:
                chosen[new] = None
    return list(chosen)


def _spread(items: Sequence[int], number: int) -> list[int]:
    """At most so many of them, evenly from the first to the last."""
    step = max(1.0, len(items) / max(number, 1))
    return [items[int(k * step)] for k in range(min(number, len(items)))]


class _OfImages:
    """What is odd in an image: of its own file, or of the annotations of its stem."""

    def __init__(self, findings: Findings) -> None:
        self._words = [f"{x.name}: {x.words}".rstrip(": ") for x in findings]
        self._numbers = defaultdict(list)
        for i, x in enumerate(findings):
            path = Path(x.file)
            self._numbers["file", x.file].append(i)
            if path.suffix in (".xml", ".json", ".txt"):
                self._numbers["stem", path.stem].append(i)
            _, *ends = x.file.split("image ")
            for k in range(len(ends)):
                self._numbers["id", "image ".join(ends[k:])].append(i)

    def __call__(self, record: dict) -> list[str]:
        file = plain_path(record["file_name"])
        keys = ("file", file), ("stem", Path(file).stem), ("id", repr(record["image_id"]))
        return [self._words[i] for i in sorted({i for x in keys for i in self._numbers.get(x, ())})]


def _draw(data: Loaded, number: int) -> Iterator[tuple[dict, bytes]]:
    """Records, and their pictures with boxes as JPEG."""
    metadata = Metadata(thing_classes=data.classes)
    colors = {
        x: [int(c[k : k + 2], 16) / 255 for k in (1, 3, 5)] for x, c in color_of(data).items()
    }
    chosen = choose(data.records, data.findings, number)
    for i in tqdm(chosen, desc="drawing", unit="image"):
        record = data.records[i]
        boxes = [
            BoxMode.convert(list(a["bbox"]), a["bbox_mode"], BoxMode.XYXY_ABS)
            for a in record["annotations"]
        ]
        names = [a["category_id"] for a in record["annotations"]]
        shown = [
            f"{name}, to ignore" if is_region(a) else name
            for name, a in zip(names, record["annotations"])
        ]
        try:
            image = read_image(record["file_name"], format="RGB")
            is_told = len(data.classes) > 1 or shown != names
            labels = shown if is_told and len(names) <= _MOST_LABELS else None
            picture = draw_objects(image, boxes, labels, metadata, [colors[x] for x in names])
            _, encoded = cv2.imencode(".jpg", picture[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])
        except Exception as e:  # whatever readers of images, matplotlib and OpenCV raise
            data.findings.add("image that is not drawn", record["file_name"], str(e))
            continue
        yield record, encoded.tobytes()


def color_of(data: Loaded) -> dict[str, str]:
    """Return a colour for each class."""
    return {x: _COLORS[i % len(_COLORS)] for i, x in enumerate(data.classes)}


def _as_csv(findings: Findings) -> str:
    file = io.StringIO()
    table = csv.writer(file, lineterminator="\n")
    table.writerow(["what", "file", "where"])
    table.writerows([x.name, x.file, x.words] for x in findings)
    return file.getvalue()


def _as_html(
    name: str, data: Loaded, figures: Overview, pictures: Sequence[tuple[dict, bytes]]
) -> str:
    of_image = _OfImages(data.findings)
    filled = {
        "NAME": html.escape(name),
        "FIGURES": "".join(f"<li>{html.escape(x)}</li>" for x in figures.lines()),
        "CLASSES": _class_table(data, figures),
        "FINDINGS": "".join(_findings_html(data.findings)) or "<p>Nothing odd was found.</p>",
        "SHOWN": f"{len(pictures)} of {figures.images}",
        "PICTURES": "".join(_picture_html(x, jpeg, of_image(x)) for x, jpeg in pictures),
    }
    page = _TEMPLATE.read_text(encoding="utf-8")
    parts = page.split("%%")  # text and the names of what is filled in, in turns
    return "".join(filled[x] if i % 2 else x for i, x in enumerate(parts))


def _class_table(data: Loaded, figures: Overview) -> str:
    most = max([1, *figures.objects.values()])
    colors = color_of(data)
    return "".join(
        f'<tr><td><i style="background:{colors.get(x, "#fff")}"></i>{html.escape(x)}</td>'
        f"<td>{n}</td><td>{figures.images_with[x]}</td>"
        f'<td><b style="width:{200 * n / most:.0f}px"></b></td></tr>'
        for x, n in figures.objects.items()
    )


def _findings_html(findings: Findings) -> Iterator[str]:
    for kind, found in findings.by_name().items():
        items = "".join(
            f"<li>{html.escape(x.file)} {html.escape(x.words)}</li>" for x in found[:_MOST_LISTED]
        )
        more = len(found) - _MOST_LISTED
        rest = f"<p>and {more} more, in findings.csv</p>" if more > 0 else ""
        title = f"{html.escape(kind)}: {len(found)}"
        yield f"<details><summary>{title}</summary><ul>{items}</ul>{rest}</details>"


def _picture_html(record: dict, jpeg: bytes, odd_words: Sequence[str]) -> str:
    counts = Counter(a["category_id"] for a in record["annotations"] if not is_region(a))
    objects = ", ".join(f"{n} {x}" for x, n in counts.items()) or "no objects"
    if regions := sum(map(is_region, record["annotations"])):
        objects += f", {regions} to ignore"
    odd = "".join(f'<p class="odd">{html.escape(x)}</p>' for x in odd_words)
    file = html.escape(os.path.basename(record["file_name"]))
    return (
        f'<figure title="{html.escape(plain_path(record["file_name"]))}">'
        f'<img alt="{file}" src="data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}">'
        f"<figcaption>{file}, {record['width']} x {record['height']}: {html.escape(objects)}{odd}"
        "</figcaption></figure>"
    )
