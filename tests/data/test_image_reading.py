import os
import struct

import cv2
import numpy as np
import pytest
from detectron2.data import detection_utils
from PIL import Image

from ohem_d2.data import image_reading
from ohem_d2.data.image_reading import EIGHT_BIT, ImageCache, read_header, read_image, read_whole
from ohem_d2.data.orientation import turn_array

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


@pytest.mark.parametrize("name", ["a.png", "a.tiff"])
@pytest.mark.parametrize("channels", [3, 4])
def test_colours_of_16_bits_are_scaled(tmp_path, name, channels):
    file = str(tmp_path / name)
    values = (np.arange(4 * 5 * channels).reshape(4, 5, channels) * 60).astype(np.uint16)
    cv2.imwrite(file, values)
    assert read_header(file).is_wide
    colours = values[:, :, :3].astype(float)
    expected = (colours - colours.min()) * (255 / (colours.max() - colours.min()))
    for image in (read_image(file, "BGR"), detection_utils.read_image(EIGHT_BIT + file, "BGR")):
        assert np.abs(image - expected).max() <= 1


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


@pytest.mark.parametrize("at_its_end", [False, True])
def test_the_header_of_a_png_is_enough(tmp_path, at_its_end):
    file, exif = tmp_path / "a.png", Image.Exif()
    exif[0x0112] = 6
    noise = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file, exif=exif)
    content = file.read_bytes()
    if at_its_end:
        start = content.index(b"eXIf") - 4
        end = start + 12 + int.from_bytes(content[start : start + 4], "big")
        chunk, content = content[start:end], content[:start] + content[end:]
        content = content[:-12] + chunk + content[-12:]
    else:
        content = content[: len(content) // 2]
    file.write_bytes(content)
    header = read_header(str(file))
    assert (header.width, header.height, header.orientation, header.problem) == (80, 60, 6, "")


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
    [
        (b"", "it is empty"),
        (b"404", "no image that Pillow knows"),
        (b"<html>404</html>", "it is a web page, as of a download that failed"),
        (
            b"version https://git-lfs.github.com/spec/v1",
            "it is a Git LFS pointer and not the file itself (run 'git lfs pull')",
        ),
    ],
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
    monkeypatch.setattr(image_reading, "_VERSION", 0)
    assert look()[1] == files
    for file in (tmp_path / "cache").rglob("*.json"):
        file.write_text("{")
    assert look()[1] == files


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch, caplog):
    (tmp_path / "cache").write_text("a file")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_jpeg(tmp_path / "a.jpg")
    for name in ("data", "other data"):
        cache = ImageCache(name)
        cache.keep(cache.whole([str(tmp_path / "a.jpg")]))
    [told] = caplog.messages  # once
    assert f"cannot be kept below '{tmp_path / 'cache'}' (" in told
    assert told.endswith(", which XDG_CACHE_HOME names: expected a folder that can be written")


def write_tiff_of_16_bits(path, pixels, orientation):
    """Of three colours, which Pillow does not write."""
    content = np.repeat(pixels[..., None], 3, axis=2).astype("<u2").tobytes()
    height, width = pixels.shape
    tags = {256: width, 257: height, 258: 0, 259: 1, 262: 2, 273: 0, 274: orientation, 277: 3}
    tags |= {278: height, 279: len(content)}
    end = 8 + 2 + 12 * len(tags) + 4
    tags |= {258: end, 273: end + 6}
    entries = [struct.pack("<HHII", t, 4 if t in (273, 279) else 3, 1 + 2 * (t == 258), v)
               for t, v in tags.items()]  # fmt: skip
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + b"".join(entries) + bytes(4)
    path.write_bytes(head + struct.pack("<3H", 16, 16, 16) + content)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "I;16", "RGB;16"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_tiff_is_turned_once(tmp_path, orientation, mode):
    pixels = np.zeros((30, 40), np.uint8)
    pixels[:5, :10] = 255
    image = Image.fromarray(pixels.astype(np.uint16) if mode == "I;16" else pixels)
    path = tmp_path / "a.tiff"
    if mode == "RGB;16":
        write_tiff_of_16_bits(path, pixels, orientation)
    else:
        (image if mode == "I;16" else image.convert(mode)).save(path, tiffinfo={274: orientation})
    header = read_header(str(path))
    assert (header.width, header.height, header.orientation) == (40, 30, orientation)
    expected = turn_array(pixels, orientation)
    assert (read_image(str(path), "BGR")[:, :, 1] == expected).all()
