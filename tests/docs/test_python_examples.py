"""The Python examples of pages do what their pages say."""

import json
import re
from pathlib import Path

import pytest
from detectron2 import model_zoo
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import instantiate
from detectron2.data import MetadataCatalog
from detectron2.modeling import build_model
from small_data import write_image, write_voc
from small_models import SHRINK_OPTS

from ohem_d2 import (
    OHEMFCOS,
    OHEMRPN,
    IgnoreMapper,
    MixedSampler,
    OHEMSampler,
    register_datasets,
)
from ohem_d2.training.config_file import CONFIGS, load_config

DOCS = Path(__file__).parents[2] / "docs"
STEPS = 3


def block(page, name):
    """The Python between two comments of this name."""
    text = (DOCS / page).read_text(encoding="utf-8")
    (code,) = re.findall(f"<!-- {name} -->\n```python\n(.*?)```\n<!-- {name} -->", text, re.DOTALL)
    return code


@pytest.fixture
def cfg(tmp_path, monkeypatch):
    """A small model, and data for it in the folder in which the examples run."""
    monkeypatch.chdir(tmp_path)
    images = {str(i): [("dog", (5, 5, 40, 40), ""), ("cat", (20, 10, 70, 50), "")] for i in (1, 2)}
    address = f"voc://{write_voc(tmp_path / 'data', images)}?split=trainval"
    settings = {
        "MODEL.RESNETS.NORM": "BN",
        "MODEL.FPN.NORM": "",
        "DATASETS.TRAIN": (address,),
        "DATASETS.TEST": (address,),
        "SOLVER.IMS_PER_BATCH": 2,
        "SOLVER.MAX_ITER": STEPS,
        "TEST.EVAL_PERIOD": 0,
        "OUTPUT_DIR": "output",
    }
    opts = [*SHRINK_OPTS, *(x for pair in settings.items() for x in pair)]
    cfg = load_config(str(CONFIGS / "quick_start.yaml"), opts)
    register_datasets(cfg)
    (tmp_path / "output").mkdir()
    return cfg


def test_a_python_config_with_an_rpn_that_mines():
    model = model_zoo.get_config("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.py").model
    exec(block("mining_anchors.md", "rpn"), {"model": model})
    rpn = instantiate(model.proposal_generator)
    assert type(rpn) is OHEMRPN
    assert rpn.sampler == MixedSampler(hard_fraction=0.25, positive_fraction=0.5)


def test_a_python_config_of_one_stage_that_mines():
    model = model_zoo.get_config("COCO-Detection/fcos_R_50_FPN_1x.py").model
    exec(block("mining_dense.md", "dense"), {"model": model})
    detector = instantiate(model)
    assert type(detector) is OHEMFCOS
    assert detector.ohem.batch_size_per_image == 128
    assert detector.sampler == OHEMSampler()


def test_a_python_config_with_valid_ranges():
    cfg = model_zoo.get_config("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.py")
    exec(block("valid_ranges.md", "ranges"), {"dataloader": cfg.dataloader, "train": cfg.train})
    cfg.dataloader.train.mapper["_target_"] = IgnoreMapper
    cfg.dataloader.train.mapper.valid_ranges = cfg.train.valid_ranges
    mapper = instantiate(cfg.dataloader.train.mapper)
    assert [x.edge for x in mapper.valid_ranges] == [480, 800, 1400]
    assert mapper.max_size == 2000


def test_the_hooks_log_each_step_when_it_is_written(cfg, monkeypatch):
    names = {}
    exec(block("logging.md", "hooks"), names)

    class OfEachStep(names["MyTrainer"]):
        """Evaluates nothing, and writes after each step."""

        @classmethod
        def test(cls, *args, **kwargs):
            return {}

        def build_hooks(self):
            hooks = super().build_hooks()
            hooks[-1]._period = 1  # the PeriodicWriter, which comes last
            return hooks

    OfEachStep(cfg).train()
    lines = Path("output/metrics.json").read_text().splitlines()
    steps = [x for x in map(json.loads, lines) if "total_loss" in x]
    assert [x["iteration"] for x in steps] == list(range(STEPS))
    assert all(x["ohem/loss_ratio"] > 0 for x in steps)
    by_name = {f"ohem_class/{x}/selected" for x in ("cat", "dog")}  # the pictures tell the heads
    assert steps[0].keys() & by_name
    assert Path("mined.jpg").stat().st_size > 0


def test_a_trained_model_finds_objects_in_an_image(cfg):
    Path("output/config.yaml").write_text(cfg.dump())
    DetectionCheckpointer(build_model(cfg), "output").save("model_final")
    write_image(Path("image.png"))
    names = {}
    code = block("training.md", "predict")
    exec(code.replace('"image.jpg"', '"image.png"'), names)
    instances = names["instances"]
    assert instances.has("pred_boxes")
    assert len(instances) > 0
    assert MetadataCatalog.get(cfg.DATASETS.TEST[0]).thing_classes == ["cat", "dog"]
