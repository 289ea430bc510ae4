"""Boxes that objects of several classes share, where a detector expects one class for each."""

from collections.abc import Sequence

from .boxes import corners
from .findings import Findings
from .overview import is_region


def find_shared_boxes(records: Sequence[dict], findings: Findings) -> None:
    """
    Name boxes on the same pixels that have several classes. They are kept: they may be meant so.

    Args:
        records: in Detectron2's form, with the class's name in place of ``category_id``.
        findings: where to put them.
    """
    for record in records:
        of_boxes: dict[tuple[int, ...], dict[str, None]] = {}
        for annotation in record["annotations"]:
            if not is_region(annotation):
                box = tuple(map(round, corners(annotation)))
                of_boxes.setdefault(box, {})[annotation["category_id"]] = None
        for box, classes in of_boxes.items():
            if len(classes) > 1:
                words = f"{', '.join(map(repr, classes))} from corner to corner {list(box)}"
                findings.add(
                    "box that objects of several classes share", record["file_name"], words
                )
