"""Metrics, logs and evaluations on a disk that gets full in the middle of a training."""

import logging
from pathlib import Path

import pytest
import torch
from command_line import run_script, run_train_net
from detectron2.utils.events import EventStorage, JSONWriter, TensorboardXWriter
from small_data import write_coco, write_voc

from ohem_d2.training.unbroken_writers import unbroken

FULL = Path("/dev/full")
pytestmark = pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full")
SAYS = "No space left on device"

# A sampler, which every step calls. Once TensorBoard has a file in the folder `out`, it fills the
# disk: what is open there is written to /dev/full, and so is what is opened again for each write.
FILLING = """
import builtins, glob, os
from pathlib import Path
from detectron2.utils import comm
from ohem_d2 import OHEMSampler

def fill_for_evaluation():
    for where in (Path, builtins):
        def open_on_full_disk(path, mode="r", *args, usual=where.open, **kwargs):
            is_full = "w" in mode and ("out/inference" in str(path) or "voc_eval" in str(path))
            return usual(Path("/dev/full") if is_full else path, mode, *args, **kwargs)
        where.open = open_on_full_disk

def fill_disk(files):
    for number in os.listdir("/proc/self/fd"):
        file = os.path.realpath(f"/proc/self/fd/{number}")
        if "/out/" in file and not file.endswith(".lock"):
            os.dup2(os.open("/dev/full", os.O_WRONLY), int(number))
    if comm.is_main_process():
        for file in files:
            os.remove(file)
            os.symlink("/dev/full", file)

class Filling(OHEMSampler):
    is_full = False

    def __call__(self, candidates, num_samples):
        files = glob.glob("out/events*")
        if files and not self.is_full:
            self.is_full = True
            HOW
        return super().__call__(candidates, num_samples)
"""


def train(folder, how, *more, processes=1):
    """Train in an interpreter of its own, on a disk that `how` makes full."""
    write_voc(folder / "voc", {f"image {i}": [("dog", (5, 5, 30, 40), "")] for i in range(4)})
    (folder / "filling.py").write_text(FILLING.replace("HOW", how))
    data = "voc://voc?split=trainval"
    settings = {
        "MODEL.ROI_HEADS.OHEM.SAMPLER": "filling.Filling",
        "DATASETS.TRAIN": data,
        "DATASETS.TEST": data,
        "DATALOADER.NUM_WORKERS": 0,
        "INPUT.MIN_SIZE_TRAIN": (64,),
        "INPUT.MIN_SIZE_TEST": 64,
        "SOLVER.IMS_PER_BATCH": 2,
        "SOLVER.MAX_ITER": 22,  # metrics are written after 20 and at the end
        "OUTPUT_DIR": "out",
    }
    opts = [x for pair in settings.items() for x in pair]
    args = "--num-gpus", processes, "--dist-url", "auto"
    return run_train_net(folder, *args, *opts, *more, run=run_script)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_a_disk_that_gets_full_within_a_training(tmp_path, processes):
    run = train(tmp_path, "fill_disk(files)", processes=processes)
    said = run.stdout + run.stderr
    assert "Traceback" not in said, said
    assert "Exception" not in said, said
    names = ["log.txt", "metrics.json in out", "what TensorBoard shows in out"]
    for name in names:
        lines = [x for x in said.splitlines() if f"{name} cannot be written ({SAYS})" in x]
        assert len(lines) == 1, said
    assert run.returncode == 0, said
    assert (tmp_path / "out" / "model_final.pth").is_file()
    assert "AP50" in said  # it was evaluated


@pytest.mark.slow
@pytest.mark.parametrize(
    ("data", "file"),
    [
        ("coco://annotations.json?images=images", "out/inference/coco_annotations"),
        ("voc://voc?split=trainval", "a file (temporary ones are in "),
    ],
)
def test_an_evaluation_on_a_full_disk(tmp_path, data, file):
    write_coco(tmp_path, {"a.jpg": [("dog", [5, 5, 25, 35])]}, {1: "dog"})
    run = train(tmp_path, "fill_for_evaluation()", "DATASETS.TEST", data)
    assert run.returncode == 1
    assert "Traceback" not in run.stdout + run.stderr
    *_, line = run.stderr.splitlines()
    assert line.startswith(f"error: {file}")
    assert f" cannot be written ({SAYS}). To go on: " in line
    assert (tmp_path / "out" / "model_final.pth").is_file()


def test_a_writer_gives_up_once(tmp_path, caplog):
    with EventStorage() as storage:
        (writer,) = unbroken([JSONWriter(str(FULL))], "out")
        for _ in range(3):
            storage.put_scalar("loss", 1.0)
            writer.write()
            storage.step()
        writer.close()
    (message,) = caplog.messages
    assert message == f"metrics.json in out cannot be written ({SAYS}): going on without it"


def test_pictures_are_not_piled_up_where_they_cannot_be_written(tmp_path, caplog):
    (tmp_path / "no folder").touch()
    with EventStorage() as storage:
        (writer,) = unbroken([TensorboardXWriter(str(tmp_path / "no folder"))], "out")
        for _ in range(3):
            storage.put_image("mined", torch.zeros(3, 8, 8))
            storage.put_histogram("losses", torch.rand(8))
            writer.write()
            assert storage._vis_data == storage._histograms == []
        writer.close()
    (message,) = caplog.messages
    assert message.startswith("what TensorBoard shows in out cannot be written (")


def test_what_can_be_written_is_written_as_ever(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    with EventStorage() as storage:
        writers = [JSONWriter(str(tmp_path / "metrics.json")), TensorboardXWriter(str(tmp_path))]
        writers = unbroken(writers, str(tmp_path))
        for i in range(2):
            storage.put_scalar("loss", float(i))
            storage.put_image("mined", torch.zeros(3, 8, 8))
            for writer in writers:
                writer.write()
            storage.step()
        for writer in writers:
            writer.close()
    lines = (tmp_path / "metrics.json").read_text().splitlines()
    assert [f'"iteration": {i}' in line for i, line in enumerate(lines)] == [True, True]
    (events,) = tmp_path.glob("events*")
    assert b"mined" in events.read_bytes()
    assert not caplog.messages
