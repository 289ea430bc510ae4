"""What is in the way in the folder of a run; and one training in it at a time."""

import os
import shutil
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from command_line import ROOT
from detectron2.config import LazyConfig, get_cfg
from detectron2.engine import default_argument_parser
from detectron2.solver.build import maybe_add_gradient_clipping
from full_disk import small_files
from locks import held
from small_data import write_voc
from torch import nn

from ohem_d2.errors import InputError
from ohem_d2.training import trainer
from ohem_d2.training.lazy_config import load_lazy_config
from ohem_d2.training.output_folder import (
    check_output_files,
    check_space,
    config_kept,
    mend_metrics,
    tell_of_earlier_training,
)

DATA = "voc://voc?split=trainval"
YAML = ["OUTPUT_DIR", "out", "MODEL.WEIGHTS", "none.pth", "DATASETS.TRAIN", DATA, "DATASETS.TEST"]
PYTHON = [
    "train.output_dir=out",
    "train.init_checkpoint=none.pth",
    "train.device=cpu",
    "model.roi_heads.mask_in_features=null",
    *(f"dataloader.{split}.dataset.names={DATA}" for split in ("train", "test")),
]
# For a config of each kind: the key of the folder, the config and settings, whose weights are none.
KINDS = {
    "yaml": ("OUTPUT_DIR", "COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml", [*YAML, DATA]),
    "py": ("train.output_dir", ROOT / "configs" / "mask_rcnn_R_50_FPN_1x_ohem.py", PYTHON),
}


@pytest.mark.parametrize("begins", [False, True])
def test_the_config_is_that_of_the_last_training(tmp_path, begins):
    file = tmp_path / "config.yaml"
    with config_kept(tmp_path, training=False):  # in an empty folder, what is written stays
        file.write_text("of before")
    with suppress(InputError), config_kept(tmp_path, training=True) as begin:
        file.write_text("of now")
        if begins:
            begin()
        raise InputError("it cannot be resumed")
    assert file.read_text() == ("of now" if begins else "of before")


@pytest.mark.parametrize("begins", [False, True])
def test_a_run_that_is_refused_leaves_no_config(tmp_path, begins):
    file = tmp_path / "config.yaml"
    with suppress(InputError), config_kept(tmp_path, training=True) as begin:
        file.write_text("of now")
        if begins:
            begin()
        raise InputError("it cannot be trained")
    assert file.exists() == begins


def test_an_evaluation_leaves_the_config_of_a_training_beside_it(tmp_path):
    file = tmp_path / "config.yaml"
    with suppress(InputError), config_kept(tmp_path, training=False):
        file.write_text("of a training that has begun meanwhile")
        raise InputError("it cannot be evaluated")
    assert file.exists()


@pytest.fixture(params=KINDS)
def command(request, tmp_path, monkeypatch):
    """The key of the folder, and the arguments."""
    write_voc(tmp_path / "voc", {"a": [("dog", (5, 5, 30, 40), "")]})
    monkeypatch.chdir(tmp_path)
    key, config, opts = KINDS[request.param]
    return key, ["--config-file", str(config), *opts]


def run(arguments):
    return trainer.run(default_argument_parser().parse_args(arguments))


def test_a_second_training_is_refused_by_name_of_the_first(tmp_path, command):
    key, arguments = command
    with held(tmp_path / "out" / ".lock") as first:
        who = rf"^{key} is out, where process {first.pid} on \S+, since .* is at work: expected"
        with pytest.raises(InputError, match=who):
            run(arguments)
        assert [x.name for x in (tmp_path / "out").iterdir()] == [".lock"]  # nothing of it changed
        with pytest.raises(InputError, match="'none.pth', cannot be loaded"):  # no training
            run(["--eval-only", *arguments])
        first.kill()
        first.wait()
        for _ in range(2):
            with pytest.raises(InputError, match="'none.pth', cannot be loaded"):
                run(arguments)


def test_a_folder_that_cannot_be_written(tmp_path, command):
    key, arguments = command
    (tmp_path / "out").touch()
    with pytest.raises(InputError, match=rf"^{key} is 'out', which is a file, expected a"):
        run(arguments)


FILES = ["config.yaml", "log.txt", "log.txt.rank1", "inference/coco_instances_results.json"]
OF_TRAINING = ["metrics.json", ".lock", "last_checkpoint", "model_final.pth", "model_0000001.pth",
               "model_final.pth.tmp"]  # fmt: skip
FOLDERS = ["inference", "pictures", "TTA", "TTA/inference"]
IN_THE_WAY = {
    "a folder": Path.mkdir,
    "a pipe": os.mkfifo,
    "a device": lambda path: path.symlink_to("/dev/full"),
    "a link that leads nowhere": lambda path: path.symlink_to("/nowhere/else"),
    "a file": Path.touch,
}


@pytest.mark.parametrize("what", IN_THE_WAY)
@pytest.mark.parametrize("name", [*FILES, *OF_TRAINING, *FOLDERS])
def test_what_is_in_the_way(tmp_path, name, what):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    IN_THE_WAY[what](tmp_path / name)
    if what == ("a folder" if name in FOLDERS else "a file"):
        check_output_files("KEY", str(tmp_path), training=True)
        return
    for training in (True,) if name in OF_TRAINING else (True, False):
        with pytest.raises(InputError, match=rf"^KEY is '.*', where {name} is {what}, expected"):
            check_output_files("KEY", str(tmp_path), training)
    if name in OF_TRAINING:
        check_output_files("KEY", str(tmp_path), training=False)


@pytest.mark.parametrize(
    "text",
    ["_BASE_: other.yaml\n", "MODEL:\n  WEIGHTS: ''\n", "# mine\n{}", "train:\n  max_iter: 9\n"],
)
def test_a_config_that_is_written_by_hand_is_not_written_over(tmp_path, text):
    if "{}" in text:
        text = text.format(get_cfg().dump())
    (tmp_path / "config.yaml").write_text(text)
    check_output_files("KEY", str(tmp_path), training=False)
    with pytest.raises(InputError, match=r"^KEY is '.*', where config.yaml is written by hand: "):
        check_output_files("KEY", str(tmp_path), training=True)


@pytest.mark.parametrize("kind", KINDS)
def test_a_config_that_a_run_has_saved_may_be_written_over(tmp_path, kind):
    file = tmp_path / "config.yaml"
    if kind == "yaml":
        cfg = get_cfg()
        cfg.VIS_PERIOD = 7
        cfg.pop("CUDNN_BENCHMARK")  # a key that another version of Detectron2 may lack
        file.write_text(cfg.dump())
    else:
        LazyConfig.save(load_lazy_config(str(KINDS[kind][1]), [], training=True), str(file))
    check_output_files("KEY", str(tmp_path), training=True)
    file.write_text("")  # cut off, which --resume tells
    check_output_files("KEY", str(tmp_path), training=True)


def test_the_folder_of_an_earlier_training(tmp_path, caplog):
    folder = str(tmp_path / "out")
    tell_of_earlier_training("KEY", folder, resume=False)
    assert not caplog.text
    tell_of_earlier_training("KEY", folder, resume=True)
    assert "--resume: KEY is " in caplog.text
    assert "where there is no checkpoint: the training starts at the first" in caplog.text
    caplog.clear()
    torch.save({}, tmp_path / "weights_to_start_from.pth")
    tell_of_earlier_training("KEY", str(tmp_path), resume=False)
    assert not caplog.text
    (tmp_path / "last_checkpoint").write_text("model_final.pth")
    tell_of_earlier_training("KEY", str(tmp_path), resume=True)
    assert not caplog.text
    tell_of_earlier_training("KEY", str(tmp_path), resume=False)
    assert "an earlier training (model_final.pth is its last): files of the same" in caplog.text


@pytest.mark.parametrize(
    ("content", "mended", "is_told"),
    [
        ('{"a": 1}\n{"b": 2}\n', '{"a": 1}\n{"b": 2}\n', False),
        ('{"a": 1}\n{"b": 2, "c', '{"a": 1}\n', True),
        ('{"a": 1}\n{"b": 2}', '{"a": 1}\n{"b": 2}\n', False),
        ('{"a', "", True),
        ("", "", False),
    ],
)
def test_half_a_line_of_metrics(tmp_path, caplog, content, mended, is_told):
    mend_metrics(tmp_path / "none")
    file = tmp_path / "metrics.json"
    file.write_text(content)
    mend_metrics(tmp_path)
    assert file.read_text() == mended
    assert ("metrics.json ends in half a line" in caplog.text) == is_told


def test_other_things_may_be_there(tmp_path):
    check_output_files("KEY", str(tmp_path / "nothing"), training=True)
    for name in ("config.yaml.d", "metrics.json.old", "models", "inference/images", "log"):
        (tmp_path / name).mkdir(parents=True)
    check_output_files("KEY", str(tmp_path), training=True)


def test_a_checkpoint_has_to_fit(tmp_path, monkeypatch):
    model = nn.Linear(1000, 500, bias=False)  # of 2 MB
    check_space("KEY", tmp_path, model)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1_900_000))
    with pytest.raises(
        InputError, match=r"^KEY is '.*', where 1.9 MB are free, expected 2.0 MB or"
    ):
        check_space("KEY", tmp_path, model)


@pytest.mark.parametrize("clips", [True, False])
def test_a_checkpoint_has_the_state_of_its_optimizer(tmp_path, monkeypatch, clips):
    model = nn.Linear(1000, 500, bias=False)  # of 2 MB
    cfg = get_cfg()
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = clips  # by a class that Detectron2 derives
    sgd, adam = (maybe_add_gradient_clipping(cfg, x) for x in (torch.optim.SGD, torch.optim.AdamW))
    check_space("KEY", tmp_path, model, sgd(model.parameters(), 0.1))
    for optimizer, megabytes, words in (
        (sgd(model.parameters(), 0.1, momentum=0.9), 4, "momentum"),
        (adam(model.parameters(), 0.1), 6, "averages"),
    ):
        free = megabytes * 1_000_000
        monkeypatch.setattr(shutil, "disk_usage", lambda _, x=free: SimpleNamespace(free=x))
        check_space("KEY", tmp_path, model, optimizer)
        monkeypatch.setattr(shutil, "disk_usage", lambda _, x=free: SimpleNamespace(free=x - 1))
        with pytest.raises(InputError, match=rf"expected {megabytes}.0 MB or more: .* {words}"):
            check_space("KEY", tmp_path, model, optimizer)


def test_a_checkpoint_has_to_fit_into_a_file(tmp_path):
    model = nn.Linear(1000, 500, bias=False)  # of 2 MB
    with small_files(2_000_000):
        check_space("KEY", tmp_path, model)
    with (
        small_files(1_900_000),
        pytest.raises(
            InputError, match=r"may write files of 1.9 MB at most \(ulimit -f\), expected"
        ),
    ):
        check_space("KEY", tmp_path, model)


def test_it_is_known_before_anything_is_written(tmp_path, command):
    key, arguments = command
    (tmp_path / "out" / "model_final.pth").mkdir(parents=True)
    with pytest.raises(InputError, match=rf"^{key} is 'out', where model_final.pth is a folder"):
        run(arguments)
    assert [x.name for x in (tmp_path / "out").iterdir()] == ["model_final.pth"]
