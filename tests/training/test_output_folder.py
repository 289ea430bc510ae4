"""One training in a folder at a time."""

import pytest
from command_line import ROOT
from detectron2.engine import default_argument_parser
from locks import held
from small_data import write_voc

from ohem_d2.errors import InputError
from ohem_d2.training import trainer

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
    with pytest.raises(InputError, match=rf"^{key} is 'out', which cannot be written \(File ex"):
        run(arguments)
