"""What is wrong with a path, before anything is opened or made there."""

import os
import socket
from pathlib import Path

import pytest

from ohem_d2.paths import (
    wrong_file,
    wrong_file_name,
    wrong_folder_name,
    wrong_name,
    wrong_output,
)

NAMES = {
    "is no path": (None, 5, ["out"], b"out"),
    "is blank": ("", " ", "\t"),
    "begins or ends with white space": ("out ", " out", "out\n", "\tout", "out\u3000"),
    "has characters that cannot be seen": (
        "out\0put", "out\x1b[31m", "out\x7f", "a\u200bb", "a\u202eb", "a\u2028b",
        "\ufeffout",
    ),
    "has bytes that are no UTF-8": ("a\udcffb",),
    r"has characters that cannot be seen, as \n and \t are read in double quotes": (
        "out\nput", "D:\new\tests",
    ),
    "is an address": ("s3://bucket/out", "file:///tmp/out", "gs://b", "git+ssh://me@host/out"),
    "is an address, or a place on another machine": (
        "s3:/bucket/out", "me@cluster:/scratch/out", "me@cluster:out", "me@cluster:", "node7:/out",
        "me@[fe80::1]:/out", "node7:~/out", "node7:../out", "login.cluster.org:out", "10.0.0.1:out",
        "localhost:out",
    ),
    "is a list of paths": (
        "/a:/b", "/a:", ":/a", "./a:./b", "../a:~/b", "/data/a:b:/data/c", "/a;/b",
        "/a,/b",
    ),
    "has a part that only a shell replaces": (
        "~/out", "~nobody", "$HOME/out", "${HOME}/out", "runs/$USER", "out/$(date)", "/a:$HOME/b",
    ),
    "has a part that a template replaces": ("out/{{ run_id }}", "out/{% if x %}"),
    "is in quotes": ("'out'", '"/data/my sets"', "''"),
    "is a path of Windows": ("C:\\runs", "C:/runs", "d:", "runs\\a", ".\\out"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("path", "words"), [(path, words) for words, paths in NAMES.items() for path in paths]
)
def test_what_cannot_be_meant_as_a_path(path, words):
    assert wrong_name(path) == words


@pytest.mark.parametrize(
    "path",
    [
        "out", "./out", "../a b/c", "/a/b", "a~b", "out/~", "cost in $", "Bob's", "5'",
        "run:2024-01-01 12:30", "runs/12:30/a", "/runs/12:30", "v1.2:b", "me@home 12:30", "me@home",
        "./me@host:out", "a,b", "1;2",
        "größe", "图像", "a\u200cb", "a\u3000b", "[x]", "a<b", "a < b > c", "{", Path("out"),
    ],
)  # fmt: skip
def test_any_other_name_is_a_path(path):
    assert wrong_name(path) is None


def test_a_file_in_place_of_a_folder_to_write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in ("report.html", "a/model_final.pth", Path("x.JSON")):
        assert wrong_folder_name(path) == "names a file"
    for path in ("out", "run_v1.2", "a.b", ".json"):
        assert wrong_folder_name(path) is None
    os.mkdir("old.json")
    assert wrong_folder_name("old.json") is None
    assert wrong_folder_name("~/out") == "has a part that only a shell replaces"


@pytest.mark.parametrize("path", ["out/", "a/b/", ".", "..", "a/.."])
def test_a_folder_in_place_of_a_file_to_write(path):
    assert wrong_file_name(path) == "names a folder"
    assert wrong_file_name(path.rstrip("/.") + "x.pkl") is None
    assert wrong_file_name("~/x.pkl") == "has a part that only a shell replaces"


@pytest.mark.parametrize("path", ["me@cluster:/out", "node7:/out", "login.cluster.org:a", "a:/b"])
def test_a_name_with_a_colon_that_is_there(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    assert wrong_name(path)
    os.makedirs(path)
    assert wrong_name(path) == ("is a path of Windows" if path == "a:/b" else None)


@pytest.mark.parametrize("path", ["a*", "{a}", "<a>"])
def test_a_name_with_signs_of_a_shell_that_is_there(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    assert wrong_name(path)
    os.mkdir(path)
    assert wrong_name(path) is None


def test_a_list_of_folders_that_are_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("aa", "bb", "cc:d"):
        os.mkdir(name)
    assert wrong_name("aa:bb") == wrong_name("aa:/b") == "is a list of paths"
    assert wrong_name(f"{tmp_path}/aa:{tmp_path}/bb") == "is a list of paths"
    assert wrong_name("aa:e") is wrong_name("cc:d") is wrong_name(f"{tmp_path}/cc:d") is None
    os.makedirs(f"{tmp_path}/aa:{tmp_path}/bb")
    assert wrong_name(f"{tmp_path}/aa:{tmp_path}/bb") is None


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with one of everything."""
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("file").write_text("x")
    os.mkfifo("pipe")
    for link, target in (
        ("loop", "loop"),
        ("nowhere", "gone"),
        ("to_file", "file"),
        ("to_folder", "folder"),
        ("to_device", "/dev/full"),
    ):
        Path(link).symlink_to(target)
    with socket.socket(socket.AF_UNIX) as s:
        s.bind("socket")
        yield tmp_path


KINDS = {
    "file": None,
    "to_file": None,
    "folder": "is a folder",
    "to_folder": "is a folder",
    "pipe": "is a pipe",
    "socket": "is a socket",
    "/dev/null": "is a device",
    "to_device": "is a device",
    "gone": "does not exist",
    "nowhere": "is a link that leads nowhere",
    "loop": "is a link that leads back to itself",
    "file/below": "is below a file",
    "a" * 300: "cannot be looked at (File name too long)",
    "a\0b": "cannot be looked at (embedded null byte)",
}


@pytest.mark.parametrize("path", KINDS)
def test_a_file_to_read(here, path):
    assert wrong_file(path) == KINDS[path]


@pytest.mark.parametrize("path", KINDS)
def test_a_file_to_write(here, path):
    expected = None if path == "gone" else KINDS[path]
    assert wrong_output(Path(path), is_folder=False) == expected


@pytest.mark.parametrize("path", [x for x in KINDS if "\0" not in x])
def test_a_folder_to_write(here, path):
    expected = {"gone": None, "folder": None, "to_folder": None}.get(path, KINDS[path])
    expected = "is a file" if path in ("file", "to_file") else expected
    assert wrong_output(Path(path), is_folder=True) == expected


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_what_may_not_be_written(here):
    Path("file").chmod(0o444)
    Path("folder").chmod(0o555)
    assert wrong_output(Path("file"), is_folder=False) == "may not be written"
    assert wrong_output(Path("file"), is_folder=False, in_place=False) is None
    assert wrong_output(Path("folder"), is_folder=True) == "may not be written"
