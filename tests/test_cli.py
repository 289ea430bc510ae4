"""The command ohem-d2 and its front doors."""

import runpy
import subprocess
import sys

import pytest
from command_line import ROOT
from small_data import write_voc
from torch.multiprocessing import ProcessRaisedException

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


def test_what_else_another_process_meets_is_told_in_full(monkeypatch):
    monkeypatch.setattr(cli, "launch", fail(ZeroDivisionError))
    monkeypatch.setattr(cli, "run", lambda _: 1 / 0)
    with pytest.raises(ProcessRaisedException, match="a traceback"):
        cli.main(["train"])


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
