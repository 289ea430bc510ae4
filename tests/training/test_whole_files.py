"""What Detectron2 writes during a run, whole or not at all."""

import gc
import json
import multiprocessing
import os

import pytest
from detectron2.config import LazyConfig, get_cfg
from detectron2.utils.file_io import PathManager
from killing import kill_while
from omegaconf import OmegaConf

from ohem_d2.training.whole_files import whole_files


@pytest.fixture
def file(tmp_path):
    file = tmp_path / "results.json"
    file.write_text("of before")
    return file


def alone(file):
    return [x.name for x in file.parent.iterdir()] == [file.name]


@pytest.mark.parametrize("mode", ["w", "wb"])
def test_until_it_is_closed_what_was_there_stays(file, mode):
    with whole_files(), PathManager.open(str(file), mode) as f:
        f.write("ünï".encode() if "b" in mode else "ünï")
        f.flush()
        assert file.read_text() == "of before"
    assert file.read_text(encoding="utf-8") == "ünï"
    assert alone(file)


def test_an_error_leaves_what_was_there(file):
    with whole_files(), pytest.raises(TypeError), PathManager.open(str(file), "w") as f:
        json.dump([1, object()], f)
    assert file.read_text() == "of before"
    assert alone(file)


def test_without_with(file):
    with whole_files():
        f = PathManager.open(str(file), "w")
        f.write("of now")
        f.close()
        f.close()
        assert file.read_text() == "of now"
        json.dump([1], PathManager.open(str(file), "w"))
        gc.collect()
        assert json.loads(file.read_text()) == [1]
    assert alone(file)


def test_what_is_appended_to_read_or_no_file(file):
    with whole_files():
        with PathManager.open(str(file), "a") as f:
            f.write(" and now")
            f.flush()
            assert file.read_text() == "of before and now"
        assert PathManager.open(str(file)).read() == "of before and now"
        with PathManager.open(os.devnull, "w") as f:
            f.write("nothing")
        link = file.with_name("link")
        link.symlink_to(file.name)
        with PathManager.open(str(link), "w") as f:
            f.write("by a link")
        assert link.is_symlink()
        assert file.read_text() == "by a link"


def test_afterwards_all_is_as_before(file):
    before = PathManager._native_path_handler
    with whole_files():
        assert PathManager._native_path_handler is not before
    assert PathManager._native_path_handler is before


def test_two_processes_write_the_same_file(file):
    with whole_files(), PathManager.open(str(file), "w") as f:
        f.write("of the first")
        process = multiprocessing.get_context("fork").Process(target=write, args=(file, "other"))
        process.start()
        process.join()
        assert process.exitcode == 0
        assert file.read_text() == "other"
    assert file.read_text() == "of the first"
    assert alone(file)


def write(file, content):
    with whole_files(), PathManager.open(str(file), "w") as f:
        f.write(content)


@pytest.mark.parametrize("kind", ["yaml", "py"])
def test_the_config_that_detectron2_saves(tmp_path, kind):
    file = tmp_path / "config.yaml"
    file.write_text("of before")
    os.link(file, tmp_path / "before")  # would change with a file that is written where it is
    with whole_files():
        if kind == "yaml":
            with PathManager.open(str(file), "w") as f:  # as in Detectron2's `default_setup`
                f.write(get_cfg().dump())
        else:
            LazyConfig.save(OmegaConf.create({"train": {"max_iter": 3}}), str(file))
    assert (tmp_path / "before").read_text() == "of before"
    assert len(file.read_text()) > len("of before")


def write_for_ever(folder):
    with whole_files():
        i = 0
        while True:
            with PathManager.open(str(folder / "results.json"), "w") as f:
                json.dump([i] * 200_000, f)
            i += 1


def test_a_kill_leaves_no_half_files(tmp_path):
    file = tmp_path / "results.json"
    for i in range(5):
        kill_while(write_for_ever, file, 0.1 + 0.043 * i)
        assert len(json.loads(file.read_text())) == 200_000
