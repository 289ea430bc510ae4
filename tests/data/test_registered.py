"""Images of data sets that are registered by their names, which Detectron2 would misread."""

import cv2
import numpy as np
import pytest
from detectron2.data import DatasetCatalog
from detectron2.structures import BoxMode
from PIL import Image

from ohem_d2 import cli
from ohem_d2.data import read_all_images
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
