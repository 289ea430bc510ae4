"""Valid ranges on their way from the config to the model that is trained."""

import copy
import logging
import math
import re
from pathlib import Path

import pytest
import reference
import torch
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.data import DatasetCatalog, DatasetMapper
from detectron2.data import transforms as T
from detectron2.modeling import StandardROIHeads
from detectron2.modeling.proposal_generator import RPN
from detectron2.utils.env import seed_all_rng
from detectron2.utils.events import EventStorage
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from small_training import assert_same, config, register_images, train, weights

from ohem_d2 import GroundTruth, IgnoreMapper, IgnoreRPN, OHEMROIHeads
from ohem_d2.errors import InputError
from ohem_d2.modeling.valid_ranges import as_valid_ranges, valid_ranges
from ohem_d2.report.hard_examples import build_mapper
from ohem_d2.training.config_file import CONFIGS, load_config
from ohem_d2.training.ignore_regions import use_ignore_regions_lazily, use_ignore_rpn
from ohem_d2.training.key_checks import check_keys
from ohem_d2.training.trainer import Trainer

MINING = ("MODEL.ROI_HEADS.NAME", "OHEMROIHeads")
# Of the objects of `register_images`, whose sizes are 32.4 and 22.4.
SOME = "((48, 30, 1e9), (56, 0, 100), (64, 0, 25))"
ALL = "((48, 0, 1e9), (56, 0, 1e9), (64, 0, 1e9))"
ONE = ("INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.VALID_RANGES")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return register_images(tmp_path_factory.mktemp("images"))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), crops=st.booleans())
def test_which_objects_count(images, tmp_path_factory, seed, crops):
    """As the boxes in the image are large, in pixels of the file."""
    ranges = {48: (30, 1e9), 56: (0, 100), 64: (0, 25)}
    opts = ("INPUT.VALID_RANGES", SOME, "INPUT.CROP.ENABLED", crops, "INPUT.CROP.SIZE", "(0.5,0.9)")
    cfg = config(tmp_path_factory.mktemp("out"), images, *MINING, *opts)
    record = DatasetCatalog.get(images)[seed % 9]
    results = []
    for mapper in (DatasetMapper(cfg, True), IgnoreMapper(cfg, True)):
        seed_all_rng(seed)
        results.append((mapper(record), torch.get_rng_state()))
    (plain, state), (x, other_state) = results
    assert state.equal(other_state)
    assert plain["image"].equal(x["image"])
    if crops:  # their sizes are for the next test but one
        return
    height, width = x["image"].shape[1:]
    scale = height / record["height"], width / record["width"]
    smallest, largest = ranges[min(height, width)]
    assert x["instances"].valid[:2] == pytest.approx(
        [v * (scale[0] * scale[1]) ** 0.5 for v in (smallest, largest)]
    )
    boxes = plain["instances"].gt_boxes.tensor.tolist()
    in_file = [(x0 / scale[1], y0 / scale[0], x1 / scale[1], y1 / scale[0])
               for x0, y0, x1, y1 in boxes]  # fmt: skip
    counts = [reference.counts(b, smallest, largest) for b in in_file]
    kept = [b for b, c in zip(boxes, counts) if c]
    assert x["instances"].gt_boxes.tensor.tolist() == kept
    invalid = x["instances"].valid.invalid_objects.tensor.tolist()
    assert invalid == [b for b, c in zip(boxes, counts) if not c]


def test_masks_and_classes_go_with_their_objects(images):
    record = copy.deepcopy(DatasetCatalog.get(images)[1])
    for a in record["annotations"]:
        x, y, w, h = a["bbox"]
        a["segmentation"] = [[x, y, x + w, y, x + w, y + h]]
    augmentations = [T.ResizeShortestEdge([120], sample_style="choice")]
    how = {"is_train": True, "augmentations": augmentations, "image_format": "BGR"}
    how["use_instance_mask"] = True
    x = IgnoreMapper(**how, valid_ranges=[(120, 0, 25)])(record)["instances"]
    y = DatasetMapper(**how)(record)["instances"]
    assert isinstance(x, GroundTruth)
    assert (len(x), len(y)) == (1, 2)
    assert x.gt_classes.equal(y.gt_classes[1:])
    assert (x.gt_masks.polygons[0][0] == y.gt_masks.polygons[1][0]).all()
    assert x.valid.invalid_objects.tensor.equal(y.gt_boxes.tensor[:1])


def test_crops_are_as_large_as_they_are(images):
    """What is cropped and then resized counts by its size in the file."""
    record = DatasetCatalog.get(images)[1]
    augmentations = [
        T.CropTransform(0, 0, 40, 40),
        T.ResizeShortestEdge([80], sample_style="choice"),
    ]
    how = {"is_train": True, "augmentations": augmentations, "image_format": "BGR"}
    x = IgnoreMapper(**how, valid_ranges=[(80, 25, math.inf)])(record)["instances"]
    assert x.valid[:2] == pytest.approx((50, math.inf))
    # [6, 5] to [36, 40], of a size of 32.4, and [20, 16] to the edges of the crop, 21.9.
    assert x.gt_boxes.tensor.tolist() == [[12, 10, 72, 80]]
    assert x.valid.invalid_objects.tensor.tolist() == [[40, 32, 80, 72]]


def test_an_image_that_is_cropped_after_it_is_resized(images):
    """Its scale is the one that was drawn, though it is as large as at another."""
    record = DatasetCatalog.get(images)[1]
    resize = T.ResizeShortestEdge([120], sample_style="choice")
    how = {"is_train": True, "image_format": "BGR"}
    sizes = []
    for after in ([], [T.RandomCrop("absolute", (80, 80))], [T.FixedSizeCrop((200, 200))]):
        mapper = IgnoreMapper(**how, augmentations=[resize, *after], valid_ranges=[(120, 5, 25)])
        # The range of a scale that another image is resized to.
        mapper.valid_ranges += as_valid_ranges([(80, 0, 5), (200, 25, 99)])
        sizes.append(mapper(record)["instances"].valid[:2])
    assert sizes[1] == sizes[2] == sizes[0]


def test_an_image_that_is_resized_again(images):
    augmentations = [T.ResizeShortestEdge(120), T.Resize((90, 90))]
    how = {"is_train": True, "augmentations": augmentations, "image_format": "BGR"}
    mapper = IgnoreMapper(**how, valid_ranges=[(120, 0, 25)])
    with pytest.raises(InputError, match="expected nothing that resizes it after ResizeShortestEd"):
        mapper(DatasetCatalog.get(images)[1])


def test_a_training_where_all_sizes_count_is_as_without_ranges(images, tmp_path):
    """Bit by bit, with the RPN of Detectron2, and with one that ignores."""
    for name, opts in (("plain", ()), ("all", ("INPUT.VALID_RANGES", ALL))):
        train(config(tmp_path / name, images, *MINING, *opts))
    assert_same(weights(tmp_path / "plain"), weights(tmp_path / "all"))


@pytest.mark.parametrize("generator", ["RPN", "OHEMRPN"])
@pytest.mark.parametrize("sampler", ["MixedSampler", "RandomSampler"])
def test_a_training(images, tmp_path, caplog, generator, sampler):
    caplog.set_level(logging.INFO, logger="ohem_d2")
    opts = (*MINING, "INPUT.VALID_RANGES", SOME, "MODEL.PROPOSAL_GENERATOR.NAME", generator)
    opts += ("MODEL.ROI_HEADS.OHEM.SAMPLER", sampler, "SOLVER.MAX_ITER", 3)
    if sampler == "RandomSampler":
        opts += ("MODEL.ROI_HEADS.OHEM.HARD_FRACTION", 0.5)
    cfg = config(tmp_path, images, *opts)
    check_keys(cfg)
    trainer = Trainer(cfg)
    if generator == "RPN":
        assert type(trainer.model.proposal_generator) is IgnoreRPN
    expected = "of 18 objects of the training set, these count: 9 at 48, 18 at 56, 9 at 64"
    assert expected in caplog.text
    warnings = [x.getMessage() for x in caplog.records if x.levelname == "WARNING"]
    assert not [x for x in warnings if "VALID_RANGES" in x]
    trainer.train()
    assert all(x.isfinite().all() for x in trainer.model.state_dict().values())


def test_an_image_where_nothing_counts_is_trained_on(images, tmp_path, monkeypatch):
    # In all images it is refused.
    monkeypatch.setattr("ohem_d2.training.ignore_regions.log_valid_objects", lambda *_: None)
    cfg = config(tmp_path, images, *MINING, *ONE, "((64, 1000, 2000),)")
    trainer = Trainer(cfg)
    x = next(iter(trainer.build_train_loader(cfg)))
    assert all(len(y["instances"]) == 0 for y in x)
    with EventStorage():
        losses = trainer.model.train()(x)
    assert all(loss.isfinite() for loss in losses.values())
    assert losses["loss_cls"] == losses["loss_box_reg"] == 0  # no RoI is of that size


@pytest.mark.parametrize(
    ("ranges", "warning"),
    [
        ("((64, 0, 25),)", "9 of 18 objects of .* are in no range of INPUT.VALID_RANGES: they are"),
        ("((64, 0, float('inf')),)", None),
    ],
)
def test_warnings(images, tmp_path, caplog, ranges, warning):
    cfg = config(tmp_path, images, *MINING, *ONE[:2])
    cfg.INPUT.VALID_RANGES = eval(ranges)
    use_ignore_rpn(cfg)
    warning = warning or "leaves nothing out: each range is from 0 to infinity"
    assert any(re.search(warning, x.getMessage()) for x in caplog.records)


def test_ranges_in_which_no_object_counts(images, tmp_path):
    cfg = config(tmp_path, images, *MINING, *ONE, "((64, 0, 0.5),)")
    message = (
        r"^INPUT.VALID_RANGES is \[\(64, 0, 0.5\)\], by which none of the 18 objects of .* counts, "
        r"expected ranges of their sizes, which are from \d+ to \d+ pixels of the file$"
    )
    with pytest.raises(InputError, match=message):
        use_ignore_rpn(cfg)


def test_a_warning_if_it_is_evaluated_at_one_scale(images, tmp_path, caplog):
    cfg = config(tmp_path, images, *MINING, "INPUT.VALID_RANGES", SOME, "DATASETS.TEST", images)
    use_ignore_rpn(cfg)
    assert "TEST.AUG.ENABLED is False: the model is evaluated at one scale" in caplog.text
    assert "expected True, and the same scales" in caplog.text


@pytest.mark.parametrize(
    "opts", [("MODEL.KEYPOINT_ON", True), ("MODEL.META_ARCHITECTURE", "PanopticFPN")]
)
def test_a_model_that_has_no_augmentation_is_not_told_to_use_it(images, tmp_path, caplog, opts):
    """Since `check_keys` refuses it."""
    opts += ("INPUT.VALID_RANGES", SOME, "DATASETS.TEST", images)
    use_ignore_rpn(config(tmp_path, images, *MINING, *opts))
    assert "expected another model for SNIP's evaluation, since this has no augm" in caplog.text
    assert "expected True" not in caplog.text


@pytest.mark.parametrize("kind", ["RetinaNet", "OHEMRetinaNet"])
def test_a_model_of_one_stage_is_told_what_it_takes(images, tmp_path, kind):
    opts = "MODEL.META_ARCHITECTURE", kind, "MODEL.ROI_HEADS.NAME", "StandardROIHeads"
    cfg = config(tmp_path, images, *opts, "INPUT.VALID_RANGES", SOME)
    message = rf"META_ARCHITECTURE is {kind}, .*: expected \(\), or a model of two stages with"
    with pytest.raises(InputError, match=message):
        use_ignore_rpn(cfg)


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        ((*ONE, "(64, 0, 80)"), r"VALID_RANGES is \(64, 0, 80\), expected a list of \(shortest"),
        ((*ONE, "((64, 0),)"), "expected a list of"),
        ((*ONE, "((64, 80, 40),)"), "each smallest size less than the largest"),
        ((*ONE, "((64, 40, 40),)"), "expected a list of"),
        ((*ONE, "((64, -1, 40),)"), "expected a list of"),
        ((*ONE, "((64.5, 0, 40),)"), "expected a list of"),
        ((*ONE, "((64, 0, 'x'),)"), "expected a list of"),
        ((*ONE, "((64, 0, 40), (64, 40, 80))"), "each edge once"),
        (("INPUT.VALID_RANGES", "((64, 0, 80),)"),
         r"ranges for \[64\], expected one for each shortest edge in INPUT.MIN_SIZE_TRAIN, \[4"),
        ((*ONE, "((64, 0, 80), (80, 0, 80))"),
         r"ranges for \[80\], expected some for the edges in INPUT.MIN_SIZE_TRAIN alone, \[64\]"),
        ((*ONE, "((64, 0, 80),)", "TEST.AUG.ENABLED", True, "TEST.AUG.MIN_SIZES", "(64, 80)"),
         r"expected one for each shortest edge in TEST.AUG.MIN_SIZES, \[64, 80\]"),
        (("INPUT.VALID_RANGES", "((64, 0, 80),)", "INPUT.MIN_SIZE_TRAIN", "(48, 64)",
          "INPUT.MIN_SIZE_TRAIN_SAMPLING", "range"),
         "MIN_SIZE_TRAIN_SAMPLING is 'range', expected 'choice', since INPUT.VALID_RANGES"),
    ],
)  # fmt: skip
def test_wrong_values(images, tmp_path, opts, message):
    cfg = config(tmp_path, images, *MINING, *opts)
    with pytest.raises(InputError, match=message):
        check_keys(cfg)


def test_ranges_for_the_augmentation_at_test_time(images, tmp_path):
    opts = ("TEST.AUG.ENABLED", True, "TEST.AUG.MIN_SIZES", "(64, 80)")
    cfg = config(tmp_path, images, *MINING, *ONE, "((64, 0, 80), (80, 0, 80))", *opts)
    check_keys(cfg)
    assert [x.edge for x in IgnoreMapper(cfg, True).valid_ranges] == [64]


def test_ranges_for_the_augmentation_alone_are_not_trained_at(images, tmp_path, caplog):
    """The objects of the range of 80 alone count at no scale of the training."""
    caplog.set_level(logging.INFO, logger="ohem_d2")
    opts = ("TEST.AUG.ENABLED", True, "TEST.AUG.MIN_SIZES", "(64, 80)")
    cfg = config(tmp_path, images, *MINING, *ONE, "((64, 0, 25), (80, 25, 80))", *opts)
    use_ignore_rpn(cfg)
    assert "these count: 9 at 64\n" in caplog.text
    assert "9 of 18 objects of" in caplog.text
    cfg = config(tmp_path, images, *MINING, *ONE, "((64, 0, 5), (80, 5, 80))", *opts)
    with pytest.raises(InputError, match="by which none of the 18 objects"):
        use_ignore_rpn(cfg)


def test_a_mapper_that_does_not_train(images, tmp_path):
    """It resizes images to a scale that needs no range."""
    cfg = config(tmp_path, images, *MINING, *ONE, "((64, 0, 25),)", "INPUT.MIN_SIZE_TEST", 80)
    assert IgnoreMapper(cfg, False)(DatasetCatalog.get(images)[1])["image"].shape[1] == 80


@pytest.mark.parametrize(
    ("opts", "found"),
    [
        (("MODEL.ROI_HEADS.NAME", "StandardROIHeads"), "MODEL.ROI_HEADS.NAME is StandardROIHeads"),
        ((*MINING, "INPUT.IGNORE_REGIONS.ENABLED", False), "INPUT.IGNORE_REGIONS.ENABLED is False"),
    ],
)
def test_heads_that_do_not_know_them(images, tmp_path, opts, found):
    cfg = config(tmp_path, images, *opts, "INPUT.VALID_RANGES", SOME)
    with pytest.raises(InputError, match=f"INPUT.VALID_RANGES is set, but {found}"):
        Trainer(cfg)


@pytest.mark.parametrize(
    "augmentations",
    [
        [T.RandomFlip()],
        [T.ResizeShortestEdge([48, 64], sample_style="range")],
        [T.ResizeShortestEdge(48), T.ResizeShortestEdge(48)],
    ],
)
def test_augmentations_that_choose_no_scale(augmentations):
    how = {"is_train": True, "augmentations": augmentations, "image_format": "BGR"}
    with pytest.raises(InputError, match="expected one ResizeShortestEdge, whose sample_style is"):
        IgnoreMapper(**how, valid_ranges=[(48, 0, 80)])


def test_the_report_looks_at_all_objects(images, tmp_path):
    cfg = config(tmp_path, images, *MINING, "INPUT.VALID_RANGES", SOME)
    x = build_mapper(cfg)(DatasetCatalog.get(images)[1])
    assert len(x["instances"]) == 2


def test_the_papers_settings_in_the_docs(tmp_path):
    page = (Path(__file__).parents[2] / "docs/valid_ranges.md").read_text("utf-8")
    (block,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    file = tmp_path / "papers.yaml"
    file.write_text(f"_BASE_: {CONFIGS / 'quick_start.yaml'}\n{block}")
    cfg = load_config(str(file), list(MINING))
    check_keys(cfg)
    assert valid_ranges(cfg) == ((480, 120, math.inf), (800, 40, 160), (1400, 0, 80))


def test_none_are_none():
    assert as_valid_ranges(()) == as_valid_ranges([]) == ()


# ------------------------------------------------------------------------------- Python configs


class OwnMapper:
    """Knows nothing of sizes."""


def lazy_config(ranges, mapper=DatasetMapper, heads=OHEMROIHeads):
    resize = L(T.ResizeShortestEdge)(short_edge_length=[48, 64], sample_style="choice")
    of_train = L(mapper)(is_train=True, augmentations=[resize], image_format="BGR")
    model = {"proposal_generator": L(RPN)(), "roi_heads": L(heads)()}
    tree = {"model": model, "dataloader": {"train": {"mapper": of_train}}}
    return OmegaConf.create(
        {**tree, "train": {"valid_ranges": ranges}}, flags={"allow_objects": True}
    )


def test_python_configs(images):
    cfg = lazy_config([[48, 30, math.inf], [64, 0, 25]])
    use_ignore_regions_lazily(cfg, [images])
    assert cfg.model.proposal_generator["_target_"] is IgnoreRPN
    mapper = instantiate(cfg.dataloader.train.mapper)
    assert isinstance(mapper, IgnoreMapper)
    assert mapper.valid_ranges == ((48, 30, math.inf), (64, 0, 25))
    x = mapper(DatasetCatalog.get(images)[1])["instances"]
    assert len(x) == len(x.valid.invalid_objects) == 1


def test_a_range_without_a_scale_in_a_python_config(images):
    cfg = lazy_config([[48, 30, math.inf], [64, 0, 25], [80, 0, 20]])
    use_ignore_regions_lazily(cfg, [images])
    message = r"has ranges for \[80\], expected some for the edges in the augmentations alone, \[4"
    with pytest.raises(InputError, match=message):
        instantiate(cfg.dataloader.train.mapper)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"ranges": 5}, "VALID_RANGES is 5, expected a list of"),
        (
            {"ranges": [[48, 0, 25]], "heads": StandardROIHeads},
            "train.valid_ranges is set, but mod",
        ),
        (
            {"ranges": [[48, 0, 25]], "mapper": OwnMapper},
            "is OwnMapper, which knows no train.valid_ranges",
        ),
    ],
)
def test_wrong_python_configs(images, given, message):
    with pytest.raises(InputError, match=message):
        use_ignore_regions_lazily(lazy_config(**given), [images])
