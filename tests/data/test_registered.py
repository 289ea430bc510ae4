"""Images of data sets that are registered by their names, which Detectron2 would misread."""

from contextlib import nullcontext

import cv2
import numpy as np
import pytest
from detectron2.data import DatasetCatalog
from detectron2.structures import BoxMode
from PIL import Image

from ohem_d2 import cli
from ohem_d2.data import read_all_images
from ohem_d2.data.registered import check_records
from ohem_d2.errors import InputError

W, H = 64, 48
NAME = "registered_with_odd_pixels"
TURNED = "TIFF with an orientation, which Detectron2 reads turned or mirrored otherwise"
WIDE = "image of 16-bit or float pixels, most of which Detectron2 may read as white or black"


def tiff(file, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (W, H)).save(file, exif=exif)


def png_of_16_bits(file):
    cv2.imwrite(str(file), np.arange(W * H, dtype=np.uint16).reshape(H, W))


BOX = {"category_id": 0, "bbox": [5, 5, 20, 20], "bbox_mode": BoxMode.XYXY_ABS}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"category_id": 3}, "category_id is 3, expected 0 to 2, a place in its 3 thing_classes"),
        ({"category_id": -1}, "category_id is -1, expected 0 to 2"),
        ({"category_id": "dog"}, "category_id is 'dog', expected 0 to 2"),
        ({"category_id": None}, "category_id is None, expected 0 to 2"),
        ({"bbox": None}, "bbox is None, expected 4 numbers"),
        ({"bbox": [1, 2, 3]}, r"bbox is \[1, 2, 3\], expected 4 numbers"),
        ({"bbox": [1, 2, float("nan"), 4]}, "bbox is .*nan.*, expected 4 numbers"),
        ({"bbox": 5}, "bbox is 5, expected 4 numbers"),
        ({"bbox_mode": None}, "bbox_mode is None, expected one such as BoxMode.XYXY_ABS"),
        ({"bbox_mode": "XYXY"}, "bbox_mode is 'XYXY', expected one such as BoxMode.XYXY_ABS"),
    ],
)
def test_annotations_that_detectron2_cannot_take(change, words):
    records = [{"file_name": "a.jpg", "annotations": [BOX]}]
    check_records("mine", records, ["a", "b", "c"], evaluated=False)
    records.append({"file_name": "b.jpg", "annotations": [BOX, {**BOX, **change}]})
    message = f"^the data set 'mine' has 1 annotations .* the first in 'b.jpg', where {words}"
    with pytest.raises(InputError, match=message):
        check_records("mine", records, ["a", "b", "c"], evaluated=False)


def test_annotations_of_every_form():
    boxes = [[1, 2, 3, 4, 5], np.array([1.5, 2, 3, 4]), (np.float32(1), 2, 3, 4)]
    annotations = [{**BOX, "bbox": x, "category_id": np.int64(2), "bbox_mode": 0} for x in boxes]
    records = [{"annotations": annotations}, {"annotations": None}, {}]
    check_records("mine", records, ["a", "b", "c"], evaluated=False)
    check_records("mine", [{"annotations": [{**BOX, "category_id": 99}]}], [], evaluated=True)


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        ([1, 2, 1], "2 images of the data set 'mine' have the image_id 1, expected each its own"),
        ([1, None, 2], "1 of 3 images of the data set 'mine' have no image_id, expected one each"),
        ([1, 2, 3], None),
        (["a", "b", "c"], None),
    ],
)
def test_images_that_cannot_be_told_from_each_other(ids, words):
    records = [{"image_id": x} if x is not None else {} for x in ids]
    check_records("mine", records, ["a"], evaluated=False)
    with pytest.raises(InputError, match=words) if words else nullcontext():
        check_records("mine", records, ["a"], evaluated=True)


@pytest.fixture
def register(tmp_path):
    """Registers an image by its name."""

    def register(file, prefix="", size=(W, H)):
        annotation = {"category_id": 0, "bbox": [5, 5, 20, 20], "bbox_mode": BoxMode.XYXY_ABS}
        record = {"file_name": f"{prefix}{file}", "width": size[0], "height": size[1]}
        records = [{**record, "image_id": 1, "annotations": [annotation]}]
        DatasetCatalog.register(NAME, lambda: records)

    yield register
    DatasetCatalog.remove(NAME)


@pytest.mark.parametrize(
    ("write", "prefix", "size", "words"),
    [
        (lambda file: tiff(file, 1), "", (W, H), ""),
        (lambda file: tiff(file, 3), "", (W, H), TURNED),
        (lambda file: tiff(file, 6), "", (H, W), TURNED),
        (lambda file: tiff(file, 3), "8bit://", (W, H), ""),
        (lambda file: tiff(file, 6), "8bit://", (H, W), ""),
        (png_of_16_bits, "", (W, H), WIDE),
        (png_of_16_bits, "8bit://", (W, H), ""),
    ],
)
def test_what_detectron2_misreads(tmp_path, register, caplog, capsys, write, prefix, size, words):
    file = tmp_path / ("a.png" if write is png_of_16_bits else "a.tif")
    write(file)
    register(file, prefix, size)
    read_all_images((NAME,), ())
    assert (f"{NAME}: {words}" in caplog.text) if words else not caplog.text
    cli.main(["data", NAME])
    said = capsys.readouterr().out
    assert (f"- {words}" in said) if words else "Nothing odd was found." in said


@pytest.mark.parametrize("prefix", ["", "8bit://"])
def test_the_size_before_turning(tmp_path, register, prefix):
    tiff(tmp_path / "a.tif", 6)
    register(tmp_path / "a.tif", prefix)
    with pytest.raises(InputError, match=rf"a.tif: {H} x {W}, annotated {W} x {H}"):
        read_all_images((NAME,), ())


def test_what_an_annotation_lacks():
    for key in BOX:
        records = [{"file_name": "a.jpg", "annotations": [{k: BOX[k] for k in BOX if k != key}]}]
        with pytest.raises(InputError, match=f"where {key} is missing, expected"):
            check_records("mine", records, ["a"], evaluated=False)
