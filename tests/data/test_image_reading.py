import os

import numpy as np
import pytest
from detectron2.data import detection_utils
from PIL import Image

from ohem_d2.data import image_reading
from ohem_d2.data.image_reading import EIGHT_BIT, ImageCache, read_header, read_image, read_whole

GRADIENT = np.arange(48).reshape(6, 8)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("a.png", (GRADIENT * 200).astype(np.uint16)),  # a sensor of 14 bits
        ("a.tiff", (GRADIENT * 1000 + 5).astype(np.uint16)),
        ("a.tiff", (GRADIENT * 70000 - 9).astype(np.int32)),
        ("a.tiff", (GRADIENT / 47).astype(np.float32)),
        ("a.tiff", (GRADIENT * 1e6 - 3).astype(np.float32)),
    ],
)
def test_wide_pixels_are_scaled_not_clipped(tmp_path, name, values):
    file = str(tmp_path / name)
    Image.fromarray(values).save(file)
    expected = np.round(GRADIENT * (255 / 47)).astype(np.uint8)
    assert read_header(file).is_wide
    for image in (
        read_image(file, "BGR"),
        read_image(EIGHT_BIT + file, "RGB"),
        detection_utils.read_image(EIGHT_BIT + file, "BGR"),  # as mappers do
    ):
        assert image.shape == (6, 8, 3)
        assert np.abs(image.astype(int) - expected[:, :, None]).max() <= 1
    assert len(np.unique(detection_utils.read_image(EIGHT_BIT + file, "L"))) == 48


def test_no_numbers_and_no_contrast(tmp_path):
    file = str(tmp_path / "a.tiff")
    Image.fromarray(np.array([[np.nan, 1, 2, np.inf]], np.float32)).save(file)
    assert read_image(file, "L")[0, :, 0].tolist() == [0, 0, 255, 0]
    Image.fromarray(np.full((2, 2), 700, np.uint16)).save(file)
    assert read_image(file, "L").max() == 0


def test_wide_pixels_are_turned(tmp_path):
    file, exif = str(tmp_path / "a.png"), Image.Exif()
    exif[0x0112] = 6
    Image.fromarray((GRADIENT * 200).astype(np.uint16)).save(file, exif=exif)
    image = read_image(file, "L")[:, :, 0]
    assert image.shape == (8, 6)
    assert image[0].tolist() == sorted(image[0].tolist(), reverse=True)
    assert round(int(image[0, 0]) * 47 / 255) == GRADIENT[-1, 0]


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK"])
@pytest.mark.parametrize("suffix", [".tiff", ".png", ".jpg"])
def test_eight_bits_are_as_detectron2_reads_them(tmp_path, mode, suffix):
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 255, (20, 30, 3), dtype=np.uint8)).convert(mode)
    file = str(tmp_path / f"a{suffix}")
    try:
        image.save(file)
    except OSError:
        pytest.skip("not in this format")
    assert not read_header(file).is_wide
    with Image.open(file) as opened:
        expected = np.asarray(opened.convert("RGB"))
    assert (read_image(file, "RGB") == expected).all()


def write_jpeg(path):
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (120, 160, 3), dtype=np.uint8)).save(path)
    return path.read_bytes()


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "webp", "gif", "tiff"])
def test_truncated(tmp_path, suffix):
    file = tmp_path / f"a.{suffix}"
    content = write_jpeg(file)
    assert read_whole(str(file)).problem == ""
    file.write_bytes(content[: len(content) // 2])
    assert read_whole(str(file)).problem != ""


@pytest.mark.parametrize(
    ("content", "problem"),
    [(b"", "it is empty"), (b"<html>404</html>", "no image that Pillow knows")],
)
def test_no_image(tmp_path, content, problem):
    file = tmp_path / "a.jpg"
    file.write_bytes(content)
    assert read_header(str(file)).problem == read_whole(str(file)).problem == problem
    assert read_header(str(tmp_path / "b.jpg")).problem == "no such file"


def test_what_was_read_is_not_read_again(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    files = [str(tmp_path / f"{i}.jpg") for i in range(3)]
    for file in files:
        write_jpeg(tmp_path / file)
    (tmp_path / "2.jpg").write_bytes(b"no image")
    read = []

    def spy(path):
        read.append(path)
        return read_whole(path)

    monkeypatch.setattr(image_reading, "read_whole", spy)

    def look():
        read.clear()
        cache = ImageCache("data")
        found = cache.whole(files)
        cache.keep(found)
        return [bool(found[file].problem) for file in files], sorted(read)

    assert look() == ([False, False, True], files)
    assert look() == ([False, False, True], files[2:])  # it may be mended
    os.utime(files[0], (1, 1))
    assert look() == ([False, False, True], [files[0], files[2]])
    monkeypatch.setattr(image_reading, "_VERSION", 2)
    assert look()[1] == files
    for file in (tmp_path / "cache").rglob("*.json"):
        file.write_text("{")
    assert look()[1] == files


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "cache").write_text("a file")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_jpeg(tmp_path / "a.jpg")
    cache = ImageCache("data")
    cache.keep(cache.whole([str(tmp_path / "a.jpg")]))
