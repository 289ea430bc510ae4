"""What a Python config says twice of its images."""

import pytest
from detectron2 import model_zoo
from detectron2.data import DatasetCatalog
from omegaconf import OmegaConf

from ohem_d2.errors import InputError
from ohem_d2.training.lazy_agreement import check_evaluated, check_mappers

TRAIN, TEST = (f"dataloader.{x}.mapper.image_format" for x in ("train", "test"))


def config():
    return model_zoo.get_config("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.py")


@pytest.mark.parametrize(
    ("changes", "warning"),
    [
        ({}, None),
        ({"model.input_format": None, TRAIN: "RGB"}, None),
        ({"model.input_format": "RGB", TRAIN: "RGB"}, None),
        ({TRAIN: "RGB"}, f"{TRAIN} is 'RGB', but model.input_format is 'BGR'"),
        ({"model.input_format": "RGB"}, f"{TRAIN} is 'BGR', but model.input_format is 'RGB'"),
        ({"dataloader.test.mapper.is_train": True}, "dataloader.test.mapper.is_train is True: no"),
        ({TEST: "RGB", "dataloader.test.mapper._target_": "mine.Mapper"}, None),
    ],
)
def test_what_can_be_read(caplog, changes, warning):
    cfg = config()
    for key, value in changes.items():
        OmegaConf.update(cfg, key, value)
    check_mappers(cfg)
    assert [x.getMessage()[: len(warning or "")] for x in caplog.records] == [warning] * bool(
        warning
    )


def test_formats_that_differ(caplog):
    cfg = config()
    OmegaConf.update(cfg, TEST, "RGB")
    with pytest.raises(InputError, match=f"^{TEST} is 'RGB', expected 'BGR', as {TRAIN} is$"):
        check_mappers(cfg)
    check_mappers(cfg, training=False)
    assert f"{TEST} is 'RGB', but model.input_format is 'BGR'" in caplog.text


def test_a_mapper_that_leaves_out_annotations():
    cfg = config()
    cfg.dataloader.train.mapper.is_train = False
    with pytest.raises(
        InputError, match="^dataloader.train.mapper.is_train is False, expected True"
    ):
        check_mappers(cfg)
    cfg.dataloader.train.mapper._target_ = "mine.Mapper"
    check_mappers(cfg)


@pytest.fixture
def registered():
    sets = {"agreement_all": [1, 2], "agreement_one": [1]}
    for name, ids in sets.items():
        DatasetCatalog.register(name, lambda ids=ids: [{"image_id": i} for i in ids])
    yield
    for name in sets:
        DatasetCatalog.remove(name)


@pytest.mark.parametrize(
    ("read", "evaluated", "message"),
    [
        ("agreement_all", "agreement_all", None),
        (["agreement_all"], "agreement_all", None),
        ("agreement_one", "agreement_all", "is 'agreement_all', but dataloader.test.dataset.names"),
        (
            "coco://x",
            "agreement_all",
            "dataset_name=agreement_all is not used: dataloader.test.data",
        ),
    ],
)
def test_data_sets_that_can_be_evaluated(registered, caplog, read, evaluated, message):
    cfg = config()
    cfg.dataloader.test.dataset.names = read
    check_evaluated(cfg)
    cfg.dataloader.evaluator.dataset_name = evaluated
    check_evaluated(cfg)
    assert len(caplog.records) == (message is not None)
    assert (message or "") in caplog.text


@pytest.mark.parametrize(
    ("read", "evaluated", "message"),
    [
        ("agreement_all", "agreement_one", "is 'agreement_one', which has no image 2, expected"),
        (["agreement_all", "agreement_one"], "agreement_one", "which has no image 2, expected"),
        ("agreement_all", "agreement_typo", ": the data set 'agreement_typo' is not known"),
    ],
)
def test_data_sets_that_cannot_be_evaluated(registered, read, evaluated, message):
    cfg = config()
    cfg.dataloader.test.dataset.names = read
    cfg.dataloader.evaluator.dataset_name = evaluated
    with pytest.raises(InputError, match=f"^dataloader.evaluator.dataset_name.*{message}"):
        check_evaluated(cfg)
    cfg.dataloader.evaluator = [{}, cfg.dataloader.evaluator]
    with pytest.raises(InputError, match=f"^dataloader.evaluator.1.dataset_name.*{message}"):
        check_evaluated(cfg)
    cfg.dataloader.evaluator[1]._target_ = "mine.Evaluator"
    check_evaluated(cfg)


@pytest.mark.parametrize(
    ("opt", "is_used"),
    [
        ("+dataloader.evaluator.tasks=[bbox]", False),
        ("dataloader.evaluator.kpt_oks_sigmas=[0.1]", True),
        ("dataloader.test.num_workers=0", True),
    ],
)
def test_settings_of_an_evaluator_that_an_address_replaces(caplog, opt, is_used):
    cfg = config()
    cfg.dataloader.test.dataset.names = "coco://x"
    check_evaluated(cfg, [opt])
    words = (
        f"{opt.lstrip('+')} is not used: dataloader.test.dataset.names is 'coco://x', an address"
    )
    assert (words in caplog.text) == (not is_used)
    cfg.dataloader.test.dataset.names = "x"
    caplog.clear()
    check_evaluated(cfg, [opt])
    assert not caplog.text
