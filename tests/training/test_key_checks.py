"""Values that cannot work, of Detectron2's own keys."""

from pathlib import Path

import pytest
from detectron2 import model_zoo
from detectron2.config import get_cfg
from detectron2.modeling import BACKBONE_REGISTRY, PROPOSAL_GENERATOR_REGISTRY
from omegaconf import OmegaConf

from ohem_d2.config import BoxVotingOptions, OHEMOptions
from ohem_d2.errors import InputError
from ohem_d2.training import checks
from ohem_d2.training.checks import check_output_dir, check_seed
from ohem_d2.training.config_file import _ZOO, CONFIGS, load_config
from ohem_d2.training.data_checks import check_num_classes
from ohem_d2.training.expected_results import check_expected_results
from ohem_d2.training.key_checks import (
    _leaves,
    check_keys,
    check_lazy_keys,
    warn_of_long_warmup,
)
from ohem_d2.training.key_rules import RULES, TRAINING_RULES

QUICK_START = str(CONFIGS / "quick_start.yaml")
RETINANET = "COCO-Detection/retinanet_R_50_FPN_1x.yaml"
PRECOMPUTED = ["MODEL.LOAD_PROPOSALS", "True",
               "MODEL.PROPOSAL_GENERATOR.NAME", "PrecomputedProposals"]  # fmt: skip
# What any value goes with, or what another check is for.
FREE = {"VERSION", "OUTPUT_DIR", "GLOBAL.HACK", "MODEL.ROI_BOX_HEAD.NAME"}


def test_each_key_of_detectron2_has_a_rule():
    known = {key for key, value in _leaves(get_cfg()) if not isinstance(value, bool)}
    rules = {*RULES, *TRAINING_RULES}
    assert known - rules == FREE
    assert rules <= {key for key, _ in _leaves(get_cfg())}


@pytest.mark.parametrize(
    "file",
    [
        *(x for x in sorted(CONFIGS.rglob("*.yaml")) if x.parent.name != "parts"),
        *(x for x in sorted(_ZOO.rglob("*.yaml")) if "dconv" not in x.name),
    ],
    ids=lambda x: f"{x.parent.name}/{x.stem}",
)
def test_ours_and_those_of_the_zoo_keep_the_rules(file):
    check_keys(load_config(str(file)))


def test_detectron2s_defaults_keep_the_rules():
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    check_keys(cfg)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", None),
        ("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 2**40),
        ("SOLVER.MAX_ITER", 0),
        ("SOLVER.MAX_ITER", -1),
        ("SOLVER.BASE_LR", 0.0),
        ("SOLVER.BASE_LR", float("nan")),
        ("SOLVER.CHECKPOINT_PERIOD", 0),
        ("SOLVER.LR_SCHEDULER_NAME", "X"),
        ("SOLVER.STEPS", (2, 1)),
        ("SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "size"),
        ("DATALOADER.NUM_WORKERS", -1),
        ("DATASETS.TRAIN", (1, 2)),
        ("DATASETS.TRAIN", ("",)),
        ("INPUT.MIN_SIZE_TRAIN", ()),
        ("INPUT.FORMAT", "XYZ"),
        ("MODEL.DEVICE", "tpu"),
        ("MODEL.DEVICE", "meta"),
        ("MODEL.PIXEL_STD", [0.0, 1.0, 1.0]),
        ("MODEL.PIXEL_MEAN", [1.0]),
        ("MODEL.BACKBONE.NAME", "resnet"),
        ("MODEL.RESNETS.DEPTH", 77),
        ("MODEL.RESNETS.RES2_OUT_CHANNELS", 100),
        ("MODEL.ANCHOR_GENERATOR.SIZES", [[8], [16]]),
        ("MODEL.RPN.IOU_THRESHOLDS", [0.7, 0.3]),
        ("MODEL.ROI_HEADS.IOU_LABELS", [0, 1, 1]),
        ("MODEL.ROI_BOX_HEAD.NAME", "BoxHead"),
        ("MODEL.PROPOSAL_GENERATOR.NAME", "Selective"),
        ("TEST.EXPECTED_RESULTS", ["bbox", "AP", 5]),
        ("SEED", 2**33),
        ("INPUT.MIN_SIZE_TRAIN", (8,)),
        ("INPUT.MIN_SIZE_TEST", 1),
        ("INPUT.MIN_SIZE_TEST", True),
        ("INPUT.MIN_SIZE_TEST", 60000),
        ("INPUT.MAX_SIZE_TRAIN", 3),
        ("INPUT.MAX_SIZE_TEST", 1),
        ("TEST.AUG.MIN_SIZES", (1,)),
        ("TEST.AUG.MAX_SIZE", 1),
        ("MODEL.BACKBONE.FREEZE_AT", 6),
        ("MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS", [[0.5, 1.0], [1.0], [1.0], [1.0], [1.0]]),
        ("MODEL.ANCHOR_GENERATOR.NAME", "RotatedAnchorGenerator"),
        ("MODEL.ROI_BOX_HEAD.NUM_FC", 0),
        ("MODEL.ROI_HEADS.NAME", "Res5ROIHeads"),
        ("DATALOADER.SAMPLER_TRAIN", "WeightedTrainingSampler"),
        ("DATALOADER.SAMPLER_TRAIN", "WeightedCategoryTrainingSampler"),
        ("TEST.EXPECTED_RESULTS", [["bbox", 5, 1.0, 1.0]]),
        ("TEST.EXPECTED_RESULTS", [["bbox", "AP", 1.0, float("nan")]]),
        ("TEST.EXPECTED_RESULTS", [["bbox", "AP", 1.0, -1]]),
    ],
)
def test_a_value_that_cannot_work(key, value):
    cfg = load_config(QUICK_START)
    node, name = cfg, key.split(".")
    for x in name[:-1]:
        node = node[x]
    node[name[-1]] = value
    with pytest.raises(InputError, match=rf"^{key} is .*, expected ") as e:
        check_keys(cfg)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("opts", "expected"),
    [
        (["INPUT.MIN_SIZE_TRAIN_SAMPLING", "range", "INPUT.MIN_SIZE_TRAIN", "(128, 96)"],
         r"INPUT.MIN_SIZE_TRAIN is \(128, 96\), expected 2 numbers above 0, the lower one first, "),
        (["MODEL.PROPOSAL_GENERATOR.MIN_SIZE", "1333"],
         "PROPOSAL_GENERATOR.MIN_SIZE is 1333, expected less than 1333, the longest side of im"),
        (["INPUT.MIN_SIZE_TRAIN_SAMPLING", "range", "INPUT.MIN_SIZE_TRAIN", "(0, 96)"],
         "expected 2 numbers above 0, the lower one first, since .*SAMPLING is 'range'"),
        (["INPUT.CROP.ENABLED", "True", "INPUT.CROP.TYPE", "absolute", "INPUT.CROP.SIZE", "[1, 9]"],
         r"INPUT.CROP.SIZE is \[1, 9\], expected integers of 16 or more, since .* is 'absolute'"),
        (["INPUT.CROP.ENABLED", "True", "INPUT.CROP.SIZE", "[0.0001, 0.5]"],
         "expected numbers from 0.01 to 1, since INPUT.CROP.TYPE is 'relative_range'"),
        (["INPUT.CROP.ENABLED", "True", "INPUT.CROP.TYPE", "absolute_range",
          "INPUT.CROP.SIZE", "[300, 200]"], "expected integers .*, the lower one first"),
        (["MODEL.ROI_HEADS.IN_FEATURES", "['p5', 'p4', 'p3', 'p2']"],
         r"IN_FEATURES is .* expected .'p2', 'p3', 'p4', 'p5'., without gaps from the largest"),
        (["MODEL.FPN.IN_FEATURES", "['res2', 'res4', 'res5']"],
         r"IN_FEATURES is .* expected .'res2', 'res3', 'res4', 'res5'., without gaps from the lar"),
        (["MODEL.ROI_HEADS.IN_FEATURES", "['p2', 'p4']"],
         r"IN_FEATURES is .* expected .'p2', 'p3', 'p4'., without gaps from the largest"),
        (["MODEL.RPN.IN_FEATURES", "p2"],
         r"ANCHOR_GENERATOR.SIZES is .* as many as MODEL.RPN.IN_FEATURES has, which is \['p2'\]"),
        (["MODEL.META_ARCHITECTURE", "RetinaNet", "MODEL.ROI_HEADS.NAME", "StandardROIHeads",
          "MODEL.ANCHOR_GENERATOR.NAME", "RotatedAnchorGenerator"],
         "expected 'DefaultAnchorGenerator', since MODEL.META_ARCHITECTURE is 'RetinaNet'"),
        (["MODEL.LOAD_PROPOSALS", "True"], "PROPOSALS is True, expected False, since .* 'RPN'"),
        (["MODEL.META_ARCHITECTURE", "RetinaNet", "MODEL.LOAD_PROPOSALS", "True",
          "MODEL.ROI_HEADS.NAME", "StandardROIHeads"], "'RetinaNet', which takes no proposals"),
        (["MODEL.META_ARCHITECTURE", "PanopticFPN", "MODEL.MASK_ON", "True", *PRECOMPUTED],
         "NAME is 'PrecomputedProposals', expected one such as 'RPN', since .* is 'PanopticFPN'"),
        (PRECOMPUTED[2:], "MODEL.LOAD_PROPOSALS is False, expected True, since MODEL.PROPOSAL_GEN"),
        (["MODEL.ROI_HEADS.NAME", "OHEMCascadeROIHeads"],
         "is OHEMCascadeROIHeads, but this is not the config of a Cascade R-CNN .* OHEMROIHeads$"),
        (["MODEL.ROI_HEADS.NAME", "OHEMRes5ROIHeads"], "but .*FCHead: expected OHEMROIHeads$"),
        (["MODEL.ROI_HEADS.NAME", "OHEMRROIHeads"], "but .*FCHead: expected OHEMROIHeads$"),
        (["MODEL.ROI_HEADS.NAME", "CascadeROIHeads"], "CLS_AGNOSTIC_BBOX_REG is False, expected T"),
        *((["SOLVER.RESCALE_INTERVAL", "True", "SOLVER.MAX_ITER", "9", "SOLVER.WARMUP_ITERS", x],
           f"^SOLVER.WARMUP_ITERS is {x}, expected less than SOLVER.MAX_ITER, 9, since .* is True")
          for x in ("9", "1000")),
    ],
)  # fmt: skip
def test_keys_that_have_to_go_together(opts, expected):
    with pytest.raises(InputError, match=expected):
        check_keys(load_config(QUICK_START, opts))


def test_a_c4_config_names_the_head_that_it_needs(caplog):
    c4 = "COCO-Detection/faster_rcnn_R_50_C4_1x.yaml"
    with pytest.raises(InputError, match="NAME is OHEMROIHeads, but .* expected OHEMRes5ROIHeads$"):
        check_keys(load_config(c4, ["MODEL.ROI_HEADS.NAME", "OHEMROIHeads"]))
    agnostic = ["MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", "True"]
    check_keys(load_config(QUICK_START, agnostic))
    assert caplog.text == ""  # building the model warns


def test_a_warmup_that_is_longer_than_the_training(caplog):
    opts = ["SOLVER.WARMUP_ITERS", "1000", "SOLVER.MAX_ITER"]
    warn_of_long_warmup(load_config(QUICK_START, [*opts, "1001"]))
    assert caplog.text == ""
    warn_of_long_warmup(load_config(QUICK_START, [*opts, "2"]))
    assert "SOLVER.WARMUP_ITERS is 1000, and SOLVER.MAX_ITER is 2: the training" in caplog.text


@pytest.mark.parametrize(
    ("results", "opts", "expected"),
    [
        ([["box", "AP", 38.5, 0.2]], [], "expected results of bbox, box_proposals, as"),
        ([["segm", "AP", 38.5, 0.2]], [], "expected results of bbox, box_proposals, as"),
        ([["segm", "AP", 38.5, 0.2]], ["MODEL.META_ARCHITECTURE", "OHEMRetinaNet",
                                          "MODEL.ROI_HEADS.NAME", "StandardROIHeads"],
         "expected results of bbox, box_proposals, as"),
        ([["bbox", "mAP", 38.5, 0.2]], [], "expected a metric of bbox such as AP, .* of 'mAP'"),
        ([["bbox_TTA", "AP", 38.5, 0.2]], [], "expected results of bbox, box_proposals, as"),
        ([["bbox", "AP", 385, 2]], [], "expected AP in percent, from 0 to 100, in the pl"),
        ([["bbox", "AP50", -5, 2]], [], "expected AP50 in percent, .* in the place of -5"),
        ([["bbox", "AP", 101, 1]], [], None),
        ([["bbox", "APx", 38, 1]], [], "APs, APm, APl in the place of 'APx', the nearest is "),
        ([["bbox", "AP-persn", 38, 1]], [], "the nearest is AP-person"),
        ([["bbox", "AP-person", 38, 1]], [], None),
        ([["box_proposals", "AR@100", 0.5, 0.1]], [], None),
        ([["bbox", "AP", 38.5, 0.2]], ["DATASETS.TEST", "()"], "has 0 data sets"),
        ([["bbox", "AP", 38.5, 0.2]],
         ["DATASETS.TEST", "('coco_2017_val', 'coco_2014_val')"], "has 2 data sets"),
        ([["bbox", "AP", 38.5, 0.2]], [], None),
        ([["bbox", "AP", 3, 1], ["segm", "AP", 3, 1]], ["MODEL.MASK_ON", "True"], None),
        ([["bbox_TTA", "AP", 3, 1]], ["TEST.AUG.ENABLED", "True"], None),
        ([], ["DATASETS.TEST", "()"], None),
    ],
)  # fmt: skip
def test_results_that_no_evaluation_has(results, opts, expected):
    cfg = load_config(QUICK_START, ["DATASETS.TEST", "('coco_2017_val',)", *opts])
    cfg.TEST.EXPECTED_RESULTS = results
    check_keys(cfg)
    if expected is None:
        check_expected_results(cfg)
        return
    with pytest.raises(InputError, match=f"^TEST.EXPECTED_RESULTS is .*{expected}"):
        check_expected_results(cfg)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("SEED", 2**40, "an integer from -2147483647 to 4294967295"),
        ("SOLVER.MAX_ITER", 2**40, "an integer of 1 or more, 2147483647 at most"),
        ("SOLVER.MAX_ITER", 0, "an integer of 1 or more"),
        ("SOLVER.STEPS", (1, 2**40), "a list .*0 or more, 2147483647 at most, in increasing order"),
    ],
)
def test_what_is_too_large_is_told_the_largest(key, value, expected):
    cfg = load_config(QUICK_START, [key, str(value)])
    with pytest.raises(InputError, match=f"^{key} is .*, expected {expected}$"):
        check_keys(cfg)


OHEM_RPN = ["MODEL.PROPOSAL_GENERATOR.NAME", "OHEMRPN"]


def test_keys_of_training_do_not_matter_to_an_evaluation():
    cfg = load_config(QUICK_START, ["SOLVER.MAX_ITER", "0"])
    check_keys(cfg, training=False)


def test_a_mining_rpn_keeps_the_rules_of_an_rpn():
    check_keys(load_config(QUICK_START, OHEM_RPN))
    opts = [*OHEM_RPN, "MODEL.LOAD_PROPOSALS", "True"]
    with pytest.raises(InputError, match="LOAD_PROPOSALS is True, expected False, since .*OHEMRPN"):
        check_keys(load_config(QUICK_START, opts))


def test_a_mining_retinanet_keeps_the_rules_of_a_retinanet():
    mining = ["MODEL.META_ARCHITECTURE", "OHEMRetinaNet"]
    check_keys(load_config(RETINANET, mining))
    for key, value, expected in (
        ("MODEL.RETINANET.IOU_LABELS", "[0, 1]", "3 labels"),
        ("MODEL.RETINANET.PRIOR_PROB", "2", "a number"),
        ("MODEL.LOAD_PROPOSALS", "True", "False, since .* is 'OHEMRetinaNet', which takes no"),
        ("MODEL.ANCHOR_GENERATOR.NAME", "RotatedAnchorGenerator", "'DefaultAnchorGenerator'"),
        ("MODEL.ROI_HEADS.NAME", "OHEMROIHeads", "another: .* 'OHEMRetinaNet', which has no RoI"),
        ("TEST.AUG.ENABLED", "True", "False: the model is a RetinaNet"),
    ):
        with pytest.raises(InputError, match=f"^{key} is .*, expected {expected}"):
            check_keys(load_config(RETINANET, [*mining, key, value]))


def test_heads_whose_boxes_do_not_vote():
    opts = ["TEST.BOX_VOTING.ROUNDS", "2", "MODEL.ROI_HEADS.NAME"]
    with pytest.raises(
        InputError, match=r"ROUNDS is 2, expected 0: .* 'StandardROIHeads', whose boxes do not"
    ):
        check_keys(load_config(QUICK_START, [*opts, "StandardROIHeads"]))
    dense = ["MODEL.META_ARCHITECTURE", "RetinaNet", *opts, "BoxVotingROIHeads"]
    with pytest.raises(InputError, match="ROUNDS is 2, expected 0: .*'RetinaNet', which has no R"):
        check_keys(load_config(QUICK_START, dense))
    for head in ("BoxVotingROIHeads", "OHEMROIHeads"):
        check_keys(load_config(QUICK_START, [*opts, head]))


@pytest.mark.parametrize(
    ("key", "value", "found"),
    [
        ("MODEL.KEYPOINT_ON", "True", "that of keypoints"),
        ("MODEL.META_ARCHITECTURE", "PanopticFPN", "a PanopticFPN"),
    ],
)
def test_models_that_know_no_test_time_augmentation(key, value, found):
    opts = ["TEST.AUG.ENABLED", "True", "MODEL.MASK_ON", "True", key, value]
    with pytest.raises(
        InputError, match=f"TEST.AUG.ENABLED is True, expected False: the model is {found}"
    ):
        check_keys(load_config(QUICK_START, opts))


def test_no_such_head():
    with pytest.raises(InputError, match=r"NAME is 'OHEMHeads', expected one of .*OHEMROIHeads"):
        check_keys(load_config(QUICK_START, ["MODEL.ROI_HEADS.NAME", "OHEMHeads"]))


def test_a_model_without_roi_heads():
    with pytest.raises(
        InputError, match="is 'OHEMROIHeads', expected another: .* is 'RetinaNet', which has no"
    ):
        check_keys(load_config(RETINANET, ["MODEL.ROI_HEADS.NAME", "OHEMROIHeads"]))


def test_keys_that_nothing_looks_at():
    cfg = load_config(QUICK_START, ["MODEL.ROI_MASK_HEAD.NAME", "NoMasks"])
    check_keys(cfg)
    cfg.MODEL.MASK_ON = True
    with pytest.raises(InputError, match="MODEL.ROI_MASK_HEAD.NAME is 'NoMasks', expected one of"):
        check_keys(cfg)


def test_a_key_without_a_value(tmp_path):
    (tmp_path / "bad.yaml").write_text("MODEL:\n  MASK_ON:\nVERSION: 2\n")
    with pytest.raises(InputError, match="MODEL.MASK_ON is None, expected a value, such as False"):
        load_config(str(tmp_path / "bad.yaml"))


def test_proposals_of_ones_own():
    @PROPOSAL_GENERATOR_REGISTRY.register()
    class ProposalsOfMyOwn:
        pass

    for loads in ("True", "False"):
        opts = ["MODEL.PROPOSAL_GENERATOR.NAME", "ProposalsOfMyOwn", "MODEL.LOAD_PROPOSALS", loads]
        check_keys(load_config(QUICK_START, opts))


def test_names_that_are_registered_later_are_known():
    @BACKBONE_REGISTRY.register()
    def build_a_backbone_of_my_own(cfg, input_shape):
        pass

    check_keys(load_config(QUICK_START, ["MODEL.BACKBONE.NAME", "build_a_backbone_of_my_own"]))


@pytest.mark.parametrize("text", ["MODEL:\n", "MODEL:\n  RPN:\n", "MODEL: {ROI_HEADS: {OHEM: }}\n"])
def test_a_node_without_keys(tmp_path, text):
    (tmp_path / "bad.yaml").write_text(f"{text}VERSION: 2\n")
    with pytest.raises(InputError, match=r"MODEL[.\w]* is None, of NoneType, expected"):
        load_config(str(tmp_path / "bad.yaml"))


@pytest.mark.parametrize(
    "setting",
    [
        "train.max_iter=0",
        "train.max_iter=many",
        "train.checkpointer.period=0",
        "train.device=tpu",
        "dataloader.train.total_batch_size=-1",
        "dataloader.train.num_workers=-1",
        "optimizer.lr=0",
        "model.pixel_std=[0, 1, 1]",
        "model.roi_heads.batch_size_per_image=null",
    ],
)
def test_python_configs(setting):
    key = setting.partition("=")[0]
    with pytest.raises(InputError, match=rf"^{key} is .*, expected "):
        check_lazy_keys(OmegaConf.from_dotlist(["model.x=1", setting]))


def test_a_warmup_that_leaves_nothing_to_rescale():
    opts = ["model.x=1", "lr_multiplier.rescale_interval=true", "lr_multiplier.warmup_length="]
    check_lazy_keys(OmegaConf.from_dotlist([*opts[:-1], f"{opts[-1]}0.9"]))
    cfg = OmegaConf.from_dotlist([*opts[:-1], f"{opts[-1]}1.0"])
    check_lazy_keys(cfg, training=False)
    with pytest.raises(
        InputError, match=r"^lr_multiplier.warmup_length is 1.0, expected less than"
    ):
        check_lazy_keys(cfg)


@pytest.mark.parametrize(("processes", "seed"), [(1, 2**32 - 1), (2, 2**32 - 2), (8, -1), (8, 7)])
def test_each_process_gets_a_seed(monkeypatch, processes, seed):
    monkeypatch.setattr(checks.comm, "get_world_size", lambda: processes)
    check_seed("SEED", seed)
    with pytest.raises(InputError, match=rf"^SEED is {2**32}, expected {2**32 - processes} at mo"):
        check_seed("SEED", 2**32)


@pytest.mark.parametrize("name", ["mask_rcnn_fpn", "fcos", "retinanet", "mask_rcnn_c4"])
@pytest.mark.parametrize("freeze_at", [5, 6])
def test_stages_to_freeze_in_a_python_config(name, freeze_at):
    model = model_zoo.get_config(f"common/models/{name}.py").model
    key = "backbone" if name == "mask_rcnn_c4" else "backbone.bottom_up"
    OmegaConf.update(model, f"{key}.freeze_at", freeze_at, force_add=True)
    cfg = OmegaConf.create({"model": model}, flags={"allow_objects": True})
    if freeze_at == 5:
        return check_lazy_keys(cfg)
    with pytest.raises(InputError, match=rf"^model\.{key}\.freeze_at is 6, expected 5 at most"):
        check_lazy_keys(cfg)


def test_means_and_deviations_of_different_length_in_a_python_config():
    cfg = OmegaConf.create({"model": {"pixel_mean": [1.0, 2.0, 3.0], "pixel_std": [1.0]}})
    error = r"^model.pixel_std has 1 numbers, expected 3, as many as model.pixel_mean has"
    with pytest.raises(InputError, match=error):
        check_lazy_keys(cfg)


def test_weights_of_losses_that_overflow():
    with pytest.raises(InputError, match="LOSS_WEIGHT_CLS is 1e[+]308, expected a number from 0"):
        OHEMOptions(loss_weight_cls=1e308)
    with pytest.raises(InputError, match="ROUNDS is 1000000, expected an integer from 0 to 100"):
        BoxVotingOptions(rounds=1000000)


def test_classes_of_a_data_set():
    check_num_classes("KEY", 80, ["coco_2017_train"])
    with pytest.raises(InputError, match="KEY is 3, expected 80, as the data set 'coco_2017_train"):
        check_num_classes("KEY", 3, ["coco_2017_train"])


@pytest.mark.parametrize("path", [
    "", " ", None, 5, "file", "file/out", "a" * 300, "/proc/x", "s3://b/c", "s3:/b", "~/x",
    "me@host:/x", "host:/x", "./a:./b",
])  # fmt: skip
def test_folders_that_cannot_be_written(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="^KEY is "):
        check_output_dir("KEY", path)
    assert [x.name for x in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("path", ["link", "link/out", "link/a/b"])
def test_a_folder_at_a_link_that_leads_nowhere(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("/nowhere/else")
    with pytest.raises(InputError, match=f"^KEY is '{path}', which .*is a link that leads nowhere"):
        check_output_dir("KEY", path)


def test_a_folder_that_can_be_written(tmp_path):
    check_output_dir("KEY", tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_the_error_is_one_line():
    assert str(InputError("a:\n  b\n\n c\n")) == "a: b c"
    assert (
        str(InputError(f"KEY is {'x' * 5000}, expected y")) == f"KEY is {'x' * 300}... expected y"
    )
    assert Path(QUICK_START).is_file()
