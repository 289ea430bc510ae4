"""The project's own data sets, which are registered when somebody asks for them."""

import subprocess
import sys

import pytest
from command_line import ROOT
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog

from ohem_d2 import register_datasets
from ohem_d2.data import register_builtin

VOC = ["voc_2012_test", "coco_2014_train_voc_classes", "coco_2014_val_voc_classes"]
SHAPES = ["ohem_shapes_train", "ohem_shapes_test", "ohem_shapes_test_voc"]


@pytest.fixture
def nothing_registered():
    for name in VOC + SHAPES:
        if name in DatasetCatalog:
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)


@pytest.mark.parametrize("name", VOC + SHAPES)
def test_what_is_asked_for_is_registered_and_nothing_else(nothing_registered, name):
    before = set(DatasetCatalog)
    register_builtin([name, "coco_2017_train", "nothing"])
    assert set(DatasetCatalog) == before | {name}
    classes = MetadataCatalog.get(name).thing_classes
    voc = MetadataCatalog.get("voc_2012_trainval").thing_classes
    assert classes == (list(voc) if name in VOC else ["circle", "square", "triangle"])
    register_builtin([name])
    assert set(DatasetCatalog) == before | {name}


def test_a_config_asks_for_what_it_names(nothing_registered):
    cfg = get_cfg()
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = ("ohem_shapes_train",), ("voc_2012_test",)
    register_datasets(cfg)
    assert [x for x in VOC + SHAPES if x in DatasetCatalog] == ["voc_2012_test", SHAPES[0]]


def test_a_users_own_data_set_of_the_same_name_wins(nothing_registered):
    DatasetCatalog.register("voc_2012_test", lambda: ["mine"])
    MetadataCatalog.get("voc_2012_test").set(thing_classes=["mine"])
    try:
        register_builtin(["voc_2012_test"])
        assert DatasetCatalog.get("voc_2012_test") == ["mine"]
        assert MetadataCatalog.get("voc_2012_test").as_dict().keys() == {"name", "thing_classes"}
    finally:
        DatasetCatalog.remove("voc_2012_test")
        MetadataCatalog.remove("voc_2012_test")


def test_importing_the_package_registers_no_data_set():
    program = (
        "from detectron2.data import DatasetCatalog, MetadataCatalog\n"
        "before = set(DatasetCatalog), set(MetadataCatalog)\n"
        "import ohem_d2.cli\n"
        "assert (set(DatasetCatalog), set(MetadataCatalog)) == before\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], cwd=ROOT, check=True)
