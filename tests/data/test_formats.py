"""The same photographs and boxes in the files of several formats: `pytest --formats <folder>`."""

from pathlib import Path

import pytest
from detectron2.structures import BoxMode

from ohem_d2.data.addresses import load_address

ADDRESSES = [
    "coco://{}/coco_format_v2/instances_v2.json?images={}/images",
    "voc://{}/pascalvoc_format?first_pixel=0",  # as the others were made of it
    "yolo://{}/yolo_format",
    "yolo://{}/yolo_format/obj.data?split=train&images={}/images",
    "cvat://{}/cvat_format/annotations.xml",
    "cvat://{}/cvat_format?images={}/images",
    "labelme://{}/labelme_format",
]


def objects(folder, address):
    records = load_address(address.format(folder, folder)).records
    return {
        Path(r["file_name"]).name: sorted(
            (a["category_id"], *BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS))
            for a in r["annotations"]
        )
        for r in records
    }


@pytest.mark.parametrize("address", ADDRESSES)
def test_the_same_boxes(formats_folder, address):
    expected = objects(
        formats_folder, "coco://{}/coco_format_v1/instances_default.json?images={}/images"
    )
    assert sum(map(len, expected.values())) == 273
    found = objects(formats_folder, address)
    assert len(found) == (12 if "labelme" in address else 100)
    for image, boxes in found.items():
        assert [name for name, *_ in boxes] == [name for name, *_ in expected[image]]
        for (_, *box), (_, *other) in zip(boxes, expected[image]):
            assert box == pytest.approx(other, abs=0.01)  # YOLO's numbers are rounded


def test_in_vocs_own_pixels(formats_folder):
    edges = objects(formats_folder, ADDRESSES[1])
    pixels = objects(formats_folder, "voc://{}/pascalvoc_format")
    assert pixels == {
        image: [(name, x0 - 1, y0 - 1, x1, y1) for name, x0, y0, x1, y1 in boxes]
        for image, boxes in edges.items()
    }
