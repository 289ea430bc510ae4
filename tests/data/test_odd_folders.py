"""Folders that are links to themselves, and names of files that are no text."""

import os
import sys

import pytest
from test_file_names import labelme, voc, yolo

from ohem_d2 import cli
from ohem_d2.data.addresses import load_address
from ohem_d2.data.image_files import images_below, is_image


@pytest.mark.parametrize("write", [voc, yolo, labelme])
def test_links_to_themselves(tmp_path, write):
    address = write(tmp_path / "set", "a", "a")
    for folder in [x for x in (tmp_path / "set").rglob("*") if x.is_dir()] + [tmp_path / "set"]:
        (folder / folder.name).symlink_to(folder, target_is_directory=True)
    (record,) = load_address(address).records
    assert len(record["annotations"]) == 1


def test_links_to_other_folders_are_followed(tmp_path):
    (tmp_path / "a" / "ab").mkdir(parents=True)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "1.jpg").touch()
    (tmp_path / "a" / "link").symlink_to(tmp_path / "b")
    (tmp_path / "a" / "ab" / "link").symlink_to(tmp_path / "b")
    assert len(list(images_below(tmp_path / "a"))) == 2


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.JPG", True), ("a.webp", True), ("a.mpg", False), ("a.mpeg", False), ("a.mp4", False),
     ("a.pdf", False), ("a.h5", False), ("a.tif", True), ("a", False)],
)  # fmt: skip
def test_what_is_an_image(tmp_path, name, expected):
    assert is_image(tmp_path / name) == expected


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
@pytest.mark.parametrize("write", [voc, yolo, labelme])
def test_names_that_are_no_text(tmp_path, write, capsys):
    folder = tmp_path / os.fsdecode(b"M\xfcll")
    address = write(tmp_path / "set", "a", "a").replace("/set", f"/{folder.name}", 1)
    (tmp_path / "set").rename(folder)
    for file in list(folder.rglob("a.*")):
        new = file.with_name(os.fsdecode(b"K\xfche") + file.suffix)
        file.rename(new)
        if file.suffix == ".jpg":
            new.with_stem(f"{new.stem}2").write_bytes(new.read_bytes()[:50])
    cli.main(["data", address, "--output", str(tmp_path / "look")])
    said = capsys.readouterr().out
    assert "1 images, 1 objects" in said
    assert "K\\udcfche2.jpg" in said
    for file in ("findings.csv", "index.html"):
        assert "K\\udcfche2.jpg" in (tmp_path / "look" / file).read_text(encoding="utf-8")
