"""The command ohem-d2 and its front doors."""

import runpy
import signal
import subprocess
import sys
import time

import pytest
import torch
from command_line import ROOT, run_train_net
from small_data import write_voc
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException

import ohem_d2
from ohem_d2 import cli
from ohem_d2.errors import InputError
from ohem_d2.training.config_file import CONFIGS

# A sampler's stand-in: what counts is that the module in the current folder is found.
MODULE = """
from detectron2.modeling import ROI_HEADS_REGISTRY
from ohem_d2 import OHEMROIHeads

@ROI_HEADS_REGISTRY.register()
class HeadsOfMyOwn(OHEMROIHeads):
    pass
"""
CONFIG = """
import my_module
from detectron2 import model_zoo

plain = model_zoo.get_config("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.py")
dataloader, lr_multiplier, model, optimizer, train = (
    plain[key] for key in ("dataloader", "lr_multiplier", "model", "optimizer", "train")
)
model.roi_heads._target_ = my_module.HeadsOfMyOwn
"""


@pytest.fixture
def called(monkeypatch):
    """What the commands are called with, in place of running."""
    calls = []
    monkeypatch.setattr(cli, "launch", lambda *args, **kwargs: calls.append((args, kwargs)))
    monkeypatch.setattr(cli, "write_report", lambda *args, **kwargs: calls.append((args, kwargs)))
    monkeypatch.setattr(sys, "path", [*sys.path])
    return calls


def test_help_names_the_commands(capsys):
    with pytest.raises(SystemExit) as done:
        cli.main(["--help"])
    assert done.value.code == 0
    said = capsys.readouterr().out
    for name, command in cli.COMMANDS.items():
        assert f"  {name} " in said
        assert command.__doc__ in said


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_each_command_has_a_help_by_its_name(name, capsys):
    with pytest.raises(SystemExit) as done:
        cli.main([name, "--help"])
    assert done.value.code == 0
    said = capsys.readouterr().out
    assert said.startswith(f"usage: ohem-d2 {name} ")
    assert f"\n  ohem-d2 {name} " in said  # an example


def test_version(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"ohem-d2 {ohem_d2.__version__}\n"


@pytest.mark.parametrize("argv", [[], ["trian"]])
def test_no_such_command(argv, capsys):
    with pytest.raises(SystemExit) as done:
        cli.main(argv)
    assert done.value.code == 2
    assert "COMMAND" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["train", "--opts", "SEED", "1"], "there is no --opts"),
        (
            ["train", "--SOLVER.MAX_ITER", "3"],
            "unrecognized arguments: --SOLVER.MAX_ITER: settings have no dashes, such as SOLVER",
        ),
        (["train", "train", "SEED", "1"], "train is a command of ohem-d2, expected the arguments"),
        (
            ["train", "SEED", "1", "--num-gpus", "2"],
            "--num-gpus comes after the settings, expected",
        ),
        (
            ["train", "SEED", "1", "x", "--resume"],
            "--resume comes after the settings, expected it before them: they begin with 'SEED'",
        ),
        *(
            (
                ["train", *before, f"{dash}eval-only", *after],
                f"'{dash}eval-only' begins with another dash than options do, expected --eval-only",
            )
            for dash in ("\u2014", "\u2013-", "\u2212\u2212")
            for before, after in ((["--num-gpus", "0"], ["SEED", "1"]), ([], ["--num-gpus", "0"]))
        ),
        (
            ["report", "\u2014dataset=a", "--config-file", "b"],
            "'\u2014dataset=a' begins with another dash than options do, expected --dataset=a",
        ),
        (["train", "eval-only", "--num-gpus", "0"], "'eval-only' has no dashes, expected --eval-o"),
        (["train", "resume", "SEED", "1"], "'resume' has no dashes, expected --resume"),
        (["train", "--eval-only=True"], "argument --eval-only is a switch, expected no value, fou"),
        (["train", "--num-gpus", "two"], "argument --num-gpus: invalid int value: 'two'"),
        (["train", "--config-file", "a", "--config-file=b"], "argument --config-file is given"),
        (["train", "--num-gpus", "1", "--num-g", "1"], "argument --num-gpus is given twice"),
        (
            ["report", "--dataset", "a", "KEY", "1", "--dataset", "a"],
            "argument --dataset is given twice",
        ),
        (["data", "a", "--output", "b", "--output", "c"], "argument --output is given twice"),
        (["report", "--dataset", "a"], "the following arguments are required: --config-file"),
        (["report", "--label-errors", "all"], "argument --label-errors: invalid choice: 'all'"),
        (["data"], "the following arguments are required: DATASET"),
    ],
)
def test_arguments_that_are_not_understood_are_one_line(argv, words, called, capsys):
    with pytest.raises(SystemExit) as done:
        cli.main(argv)
    assert done.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {words}")
    assert said.endswith(f" ('ohem-d2 {argv[0]} --help' tells the arguments)\n")
    assert said.count("\n") == 1
    assert not called


PROCESSES = {
    (2, 1, 0): (2, 8, None),
    (0, 3, 2): (0, 8, None),
    (3, 1, 0): (2, 8, "--num-gpus is 3, expected 0 to 2, of which there are 2 here"),
    (-1, 1, 0): (2, 8, "--num-gpus is -1, expected 0 to 2"),
    (8, 1, 0): (0, 8, None),
    (99, 1, 0): (0, 8, "--num-gpus is 99, expected 0 to 8: there is no GPU here, so that each is a "
                       "process on the CPU, which has 8 cores"),
    (1, 0, 0): (1, 8, "--num-machines is 0, expected 1 or more"),
    (1, 2, 2): (1, 8, "--machine-rank is 2, expected 0 to 1: --num-machines is 2"),
    (1, 2, -1): (1, 8, "--machine-rank is -1, expected 0 to 1"),
    (1, 1, 1): (1, 8, "--machine-rank is 1, expected 0: --num-machines is 1"),
}  # fmt: skip


@pytest.mark.parametrize("asked", PROCESSES)
def test_how_many_processes_there_may_be(monkeypatch, called, asked):
    gpus, cores, expected = PROCESSES[asked]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(cli.os, "cpu_count", lambda: cores)
    names = ("--num-gpus", "--num-machines", "--machine-rank")
    argv = ["train", *(f"{name}={value}" for name, value in zip(names, asked))]
    argv += ["--dist-url", "tcp://10.0.0.1:29500"]
    if expected is None:
        cli.main(argv)
        assert len(called) == 1
        return
    with pytest.raises(SystemExit) as done:
        cli.main(argv)
    assert done.value.code == f"error: {expected}"
    assert not called


@pytest.mark.parametrize("command", ["report", "proposals"])
@pytest.mark.parametrize("path", ["", " ", "out ", "~/out", "$HOME/out", "s3://bucket/out", "a\nb"])
def test_an_output_that_is_no_path(tmp_path, monkeypatch, called, command, path):
    monkeypatch.chdir(tmp_path)
    before = ["--config-file", "a.yaml", "--dataset"] if command == "report" else []
    with pytest.raises(SystemExit) as done:
        cli.main([command, *before, "ohem_shapes_test", "--output", path])
    assert done.value.code.startswith(f"error: --output is {path!r}, which ")
    assert not called
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", [["proposals", "ohem_shapes_test"], ["suspects", "report"]])
def test_a_file_whose_name_is_that_of_a_folder(tmp_path, monkeypatch, called, command):
    monkeypatch.chdir(tmp_path)
    more = ["--to", "cvat"] if command[0] == "suspects" else []
    with pytest.raises(SystemExit) as done:
        cli.main([*command, *more, "--output", "proposals/"])
    assert done.value.code == (
        "error: --output is 'proposals/', which names a folder, expected a file's path"
    )
    assert not called


@pytest.mark.parametrize("name", ["p.pkl.part", "file/p.pkl"])
def test_what_is_in_the_way_of_proposals(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.pkl.part").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as done:
        cli.main(["proposals", "ohem_shapes_test", "--output", name.removesuffix(".part")])
    assert done.value.code.startswith("error: the folder of --output is ")


def test_a_folder_in_place_of_the_file_of_proposals(tmp_path):
    with pytest.raises(SystemExit) as done:
        cli.main(["proposals", "ohem_shapes_test", "--output", str(tmp_path)])
    assert done.value.code.startswith(f"error: --output is {str(tmp_path)!r}, which is a folder, ")


def test_a_checkpoint_in_place_of_a_config(tmp_path):
    torch.save({"model": {}}, tmp_path / "x.pth")
    with pytest.raises(SystemExit) as done:
        cli.main(["train", "--config-file", str(tmp_path / "x.pth")])
    assert "is no text in UTF-8, expected a YAML or Python file in UTF-8 (a" in done.value.code


def test_train_alone_is_the_quick_start(called):
    cli.main(["train"])
    cli.main(["train", "--num-gpus", "2", "--eval-only", "SOLVER.MAX_ITER", "5"])
    (_, _, (args, _, _)), (_, processes, (more, _, resume)) = (
        (*positional, kwargs["args"]) for positional, kwargs in called
    )
    assert args.config_file == more.config_file == str(CONFIGS / "quick_start.yaml")
    assert (args.opts, args.eval_only) == ([], False)
    assert (processes, more.opts, more.eval_only) == (2, ["SOLVER.MAX_ITER", "5"], True)
    assert resume == "ohem-d2 train --resume --num-gpus 2 --eval-only SOLVER.MAX_ITER 5"


def test_settings_of_a_report_may_stand_anywhere(called):
    given = ["--config-file", "a.yaml", "SEED", "1", "--dataset", "x", "--output", "out", "B", "2"]
    cli.main(["report", *given])
    ((config_file, dataset, output, opts), _) = called[0]
    assert (config_file, dataset, str(output)) == ("a.yaml", "x", "out")
    assert opts == ["SEED", "1", "B", "2"]


def test_a_report_under_nohup_goes_on_when_the_terminal_is_closed(monkeypatch):
    during = []
    monkeypatch.setattr(
        cli, "write_report", lambda *_, **__: during.append(signal.getsignal(signal.SIGHUP))
    )
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        cli.main(["report", "--config-file", "a.yaml", "--dataset", "x", "--output", "out"])
    finally:
        signal.signal(signal.SIGHUP, before)
    assert during == [signal.SIG_IGN]


def fail(how):
    """A stand-in for launch, of which a process fails."""

    def launch(main, *_, args, **kwargs):
        with pytest.raises(how):
            main(*args)
        raise ProcessRaisedException("a traceback", 1, 2)

    return launch


def test_a_mistake_that_another_process_meets_is_told_once(monkeypatch):
    monkeypatch.setattr(cli, "launch", fail(InputError))
    with pytest.raises(SystemExit) as done:
        cli.main(["train", "--config-file", "nothing.yaml"])
    assert done.value.code.startswith("error: there is no config file 'nothing.yaml'")


def test_what_another_process_dies_of_is_told_in_one_line(monkeypatch):
    monkeypatch.setattr(cli, "launch", fail(ZeroDivisionError))
    monkeypatch.setattr(cli, "run", lambda _: 1 / 0)
    monkeypatch.setattr(cli.comm, "get_world_size", lambda: 4)
    monkeypatch.setattr(cli.comm, "get_rank", lambda: 3)
    with pytest.raises(SystemExit) as done:
        cli.main(["train"])
    line = str(done.value.code)  # where the traceback is depends on the logs of the process
    assert line.startswith("error: rank 3 failed: ZeroDivisionError: division by zero")
    assert line.endswith("; the others were stopped")
    assert "\n" not in line


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            ProcessExitedException("x", 1, 5, -9, "SIGKILL"),
            "error: the process of rank 5 was killed by SIGKILL, as systems do when memory runs "
            "out; the others were stopped",
        ),
        (
            ProcessExitedException("x", 0, 5, 3),
            "error: the process of rank 4 exited with 3; the others were stopped",
        ),
        (
            ProcessRaisedException("\n\nTraceback ...\nValueError: in use\n", 1, 5),
            "error: rank 5 did not start: ValueError: in use",
        ),
    ],
)
def test_a_process_without_a_word_of_its_own(monkeypatch, error, line):
    def launch(*_, **kwargs):
        raise error

    monkeypatch.setattr(cli, "launch", launch)
    monkeypatch.setattr(cli.os, "cpu_count", lambda: 4)
    machines = ["--num-machines", "2", "--machine-rank", "1", "--dist-url", "tcp://10.0.0.1:29500"]
    with pytest.raises(SystemExit) as done:
        cli.main(["train", "--num-gpus", "4", *machines])
    assert done.value.code == line


def test_alone_an_error_is_told_in_full(monkeypatch):
    monkeypatch.setattr(cli, "run", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli.main(["train"])


# Rank 1 dies in its second step, and leaves the time in a file.
DYING = """
import os, signal
from pathlib import Path
from detectron2.utils import comm
from ohem_d2 import OHEMSampler

class Dying:
    def __call__(self, candidates, num_samples):
        if comm.get_rank() == 1 and candidates.iteration == 1:
            Path("died").touch()
            {how}
        return OHEMSampler()(candidates, num_samples)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "line"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "the process of rank 1 was killed by SIGKILL"),
        ("raise ValueError('broken\\nin two')", "rank 1 failed: ValueError: broken in two"),
    ],
)
def test_a_rank_that_dies_is_named(tmp_path, how, line):
    write_voc(tmp_path / "voc", {f"image {i}": [("dog", (5, 5, 30, 40), "")] for i in range(4)})
    (tmp_path / "my_module.py").write_text(DYING.format(how=how))
    data = "voc://voc?split=trainval"
    opts = {
        "MODEL.ROI_HEADS.OHEM.SAMPLER": "my_module.Dying",
        "DATASETS.TRAIN": data,
        "DATASETS.TEST": data,
        "DATALOADER.NUM_WORKERS": 0,
        "SOLVER.IMS_PER_BATCH": 2,
        "SOLVER.MAX_ITER": 1000,
        "OUTPUT_DIR": "out",
    }
    opts = [x for pair in opts.items() for x in pair]
    run = run_train_net(tmp_path, "--num-gpus", 2, "--dist-url", "auto", *opts)
    assert time.time() - (tmp_path / "died").stat().st_mtime < 60  # far less than all steps take
    assert run.returncode == 1
    assert run.stderr.splitlines()[-1].startswith(f"error: {line}")
    assert "Traceback" not in run.stdout + run.stderr
    if "ValueError" in line:
        assert "(traceback in out/log.txt.rank1); the others" in run.stderr
        assert "ValueError: broken" in (tmp_path / "out" / "log.txt.rank1").read_text()


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("train_net.py", "train"),
        ("tools/hard_examples.py", "report"),
        ("tools/selective_search.py", "proposals"),
    ],
)
def test_front_doors(file, name, monkeypatch):
    calls = []
    monkeypatch.setattr(cli, name, calls.append)
    monkeypatch.setattr(sys, "argv", [file, "--some", "thing"])
    runpy.run_path(str(ROOT / file), run_name="__main__")
    assert calls == [["--some", "thing"]]


def test_python_m(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["ohem_d2", "--version"])
    with pytest.raises(SystemExit):
        runpy.run_module("ohem_d2", run_name="__main__")
    assert capsys.readouterr().out.startswith("ohem-d2 ")


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_modules_in_the_current_folder_are_found(tmp_path, processes):
    write_voc(tmp_path / "voc", {"a": [("dog", (5, 5, 30, 40), "")]})
    (tmp_path / "my_module.py").write_text(MODULE)
    (tmp_path / "config.py").write_text(CONFIG)
    # The last of what is checked before the training: each process has found the module by then.
    opts = "train.init_checkpoint=no.pth", "model.roi_heads.mask_in_features=null"
    data = (f"dataloader.{x}.dataset.names=voc://voc?split=trainval" for x in ("train", "test"))
    # A port of its own: other tests may be training on several processes.
    processes = "--num-gpus", str(processes), "--dist-url", "auto"
    run = subprocess.run(
        [sys.executable, ROOT / "train_net.py", "--config-file", "config.py", *processes,
         "train.device=cpu", "train.output_dir=out", *data, *opts],
        cwd=tmp_path, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert run.returncode == 1
    assert run.stderr.splitlines()[-1].startswith("error: train.init_checkpoint, 'no.pth', cannot")
    assert run.stderr.count("error: ") == 1


def test_the_option_of_detectron2s_demo(capsys):
    with pytest.raises(SystemExit):
        cli.main(["train", "--opts", "SEED", "1"])
    assert "there is no --opts: settings come last, without a name" in capsys.readouterr().err
