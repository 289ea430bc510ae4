"""JSON and YAML files as people leave them behind."""

import codecs
import json

import pytest

from ohem_d2.data.text_files import read_json, read_yaml
from ohem_d2.errors import InputError


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"shapes": [1], "shapes": []}', r"a\.x: the key 'shapes' stands twice in one object, "),
        ('{"annotations": [{"id": 7, "bbox": [1], "bbox": [2]}]}', r"'bbox' .* object of id 7, "),
        ('{"id": 1, "id": 2}', r"the key 'id' stands twice in one object, with other content"),
        ('{"a": {"b": [{"c": 1, "d": 2, "c": null}]}}', r"the key 'c' stands twice"),
        ("", r"a\.x is empty, expected JSON"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:1\n", r"a\.x is a Git LFS point"),
        ('{"id": 1}\n{"id": 2}\n', r"a\.x is JSON Lines, an object in each line, expected JSON"),
        ("<!DOCTYPE html><html>", r"a\.x is a web page"),
        ('{\n<<<<<<< HEAD\n"a": 1\n=======\n"a": 2\n>>>>>>> b\n}', r"the marks of a merge"),
        ("[" * 100_000, r"nested too deeply"),
        ('{"a": ', r"a\.x is no JSON: Expecting value"),
        (b'{"a": "\xfc"}', r"a\.x is no JSON: 'utf-8' codec"),
    ],
)
def test_json_that_is_refused(tmp_path, content, message):
    file = tmp_path / "a.x"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message):
        read_json(file)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_json_that_is_read(tmp_path, encoding):
    file = tmp_path / "a.json"
    content = {"names": ["Tür", "猫"], "a": [{"id": 1}, {"id": 1}], "b": None}
    file.write_text(json.dumps(content, ensure_ascii=False), encoding=encoding)
    assert read_json(file) == content
    file.write_text('{"a": [1], "a": [1]}')  # nothing is lost
    assert read_json(file) == {"a": [1]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("names: [cat]\nnc: 1\nnames: [dog]\n", r"a\.x, line 3: the key 'names' stands twice"),
        ("names:\n  0: cat\n  1: dog\n  0: bird\n", r"line 4: the key '0' stands twice"),
        ("train: a\n'train': b\n", r"line 2: the key 'train' stands twice"),
        ("<<<<<<< HEAD\nnames: [cat]\n=======\n", r"the marks of a merge that is not done"),
        ("version https://git-lfs.github.com/spec/v1\n", r"a Git LFS pointer"),
        ("", r"a\.x is empty, expected YAML"),
        ("names: [cat\n", r"a\.x is no YAML"),
        ("day: 2021-02-30\n", r"a\.x is no YAML"),
        ("names:\n  010: cat\n", r"a\.x, line 2: the key is 010, which YAML reads as 8, with base"),
        ("names: {1:30: cat}\n", r"a\.x, line 1: the key is 1:30, which YAML reads as 90, with b"),
    ],
)
def test_yaml_that_is_refused(tmp_path, content, message):
    file = tmp_path / "a.x"
    file.write_text(content)
    with pytest.raises(InputError, match=message):
        read_yaml(file)


@pytest.mark.parametrize(
    "content",
    [
        "a: {x: 1}\nb: {x: 2}\n",
        "names: [no, 007]\nnames:\n- no\n- 007\n",  # the same in another form
        "names: {00: no, 01: 007}\n",
        "base: &base {x: 1, y: 2}\nc: {d: &e {<<: *base, x: 3}}\nf: {<<: *e, y: 4}\n",
    ],
)
def test_yaml_that_is_read(tmp_path, content):
    file = tmp_path / "a.yaml"
    file.write_bytes(codecs.BOM_UTF8 + content.encode())
    read, as_texts = read_yaml(file)
    assert read
    if "names" in read:
        names = as_texts["names"]
        assert [*(names.values() if isinstance(names, dict) else names)] == ["no", "007"]
