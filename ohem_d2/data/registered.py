"""The images of data sets that the user's own code registers, whose records stay as they are."""

from collections.abc import Sequence

from .checks import check_sizes, read_to_end
from .findings import Findings
from .image_reading import EIGHT_BIT, ImageFile, plain_path


def look_at_images(
    name: str, records: Sequence[dict], findings: Findings, unreadable: str
) -> tuple[list[dict], dict[str, ImageFile]]:
    """
    Read images to their ends, compare their sizes with those in the records, and name what
    Detectron2 reads otherwise than viewers show it.

    Args:
        name: of the data set.
        records: those of `opened_by_detectron2`.
        findings: where to put what is odd.
        unreadable: "error", or "skip" to leave out images that cannot be read.

    Returns:
        the records to use, and what is known of each file, by its path.

    Raises:
        InputError: images cannot be read, or have another size.
    """
    left, files = read_to_end(name, list(records), findings, unreadable)
    check_sizes(name, left, files)
    for record in left:
        file = files[plain_path(record["file_name"])]
        if record["file_name"].startswith(EIGHT_BIT):
            continue
        if file.is_turned_twice:
            findings.add(
                "TIFF with an orientation, which Detectron2 reads turned or mirrored otherwise "
                f"than it is shown (put {EIGHT_BIT} in front of its path, or remove it)",
                record["file_name"],
            )
        if file.is_wide:
            findings.add(
                "image of 16-bit or float pixels, most of which Detectron2 may read as white or "
                f"black (put {EIGHT_BIT} in front of its path to have them scaled to 8 bits)",
                record["file_name"],
            )
    return left, files


def opened_by_detectron2(records: Sequence[dict], training: bool) -> list[dict]:
    """
    Return the records whose images Detectron2 opens: by default it trains on none without objects.
    Other records are for the mapper of a project of its own, and other paths for a handler of its
    own.
    """
    records = [r for r in records if isinstance(r.get("file_name"), str)]
    records = [r for r in records if "://" not in plain_path(r["file_name"])]
    if training and records and "annotations" in records[0]:
        records = [r for r in records if not all(a.get("iscrowd") for a in r["annotations"])]
    return records
