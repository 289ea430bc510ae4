"""Options of this project that change nothing."""

import pytest
from detectron2.modeling import build_proposal_generator
from small_detectors import make_detector
from small_heads import SHAPES, make_cfg, make_heads
from test_choice import model_of
from torch import nn

from ohem_d2 import OHEMRetinaNet
from ohem_d2.config import BoxVotingOptions, IgnoreRegionsOptions
from ohem_d2.training.unread_options import KEYS, LAZY_KEYS, warn_of_unread_options

OHEM, VOTING = "MODEL.ROI_HEADS.OHEM", "TEST.BOX_VOTING"
ROUNDS, SAMPLER, FRACTION = (
    f"{VOTING}.ROUNDS",
    f"{OHEM}.SAMPLER",
    "MODEL.ROI_HEADS.POSITIVE_FRACTION",
)
CLS, BOX = f"{OHEM}.LOSS_WEIGHT_CLS", f"{OHEM}.LOSS_WEIGHT_BOX_REG"
MIXED = [f"{OHEM}.HARD_FRACTION", 0.5]
RANDOM = [f"{OHEM}.HARD_FRACTION", 0.5, SAMPLER, "RandomSampler"]
MASKS = ["MODEL.MASK_ON", True]
OHEM_RPN = {
    "MODEL.PROPOSAL_GENERATOR.NAME": "OHEMRPN",
    "MODEL.RPN.IN_FEATURES": ["p2", "p3"],
    "MODEL.ANCHOR_GENERATOR.SIZES": [[8], [16]],
}
NMS = "MODEL.ROI_HEADS.NMS_THRESH_TEST"


@pytest.mark.parametrize(
    ("opts", "words"),
    [
        ([f"{VOTING}.NMS_THRESH", 0.4], f"{VOTING}.NMS_THRESH is 0.4, to no effect: {ROUNDS} is 0, "
         "expected 1 or more"),
        ([f"{VOTING}.VOTE_THRESH", 0.4], f"VOTE_THRESH is 0.4, to no effect: {ROUNDS} is 0, expe"),
        ([f"{VOTING}.VOTE_THRESH", 0.4, ROUNDS, 1], None),
        ([NMS, 0.4, ROUNDS, 2],
         f"{NMS} is 0.4, to no effect: {ROUNDS} is 2, so {VOTING}.NMS_THRESH is taken in"),
        ([NMS, 0.4, ROUNDS, 2, f"{VOTING}.NMS_THRESH", 0.4], None),
        ([NMS, 0.4], None),
        ([CLS, 2.0, BOX, 0.0], f"{CLS} is 2.0, to no effect: {BOX} is 0, so the order"),
        ([CLS, 0.0, BOX, 3.0], f"{BOX} is 3.0, to no effect: {CLS} is 0, so the order"),
        ([CLS, 2.0, BOX, 2.0], f"{CLS} is 2.0, to no effect: {BOX} is the same, and only their "),
        ([CLS, 2.0, BOX, 2.0, *MIXED, SAMPLER, "OHEMSampler"], f"{CLS} is 2.0, to no effect"),
        ([CLS, 2.0], None),
        ([BOX, 0.0], None),
        ([f"{OHEM}.SCOPE", "batch"], f"{OHEM}.SCOPE is 'batch', to no effect: SOLVER.IMS_PER_BATCH "
         "is one image for each process, expected more"),
        ([*RANDOM, f"{OHEM}.START_ITER", 5], f"{OHEM}.START_ITER is 5, to no effect: {SAMPLER} is "
         "'RandomSampler', which draws as before that iteration"),
        ([*MIXED, f"{OHEM}.START_ITER", 5], None),
        ([*RANDOM, f"{OHEM}.START_ITER", 5, f"{OHEM}.MAX_CANDIDATES", 20], None),
        ([FRACTION, 0.5], f"{FRACTION} is 0.5, to no effect: {OHEM}.HARD_FRACTION is 1.0, by whi"),
        ([FRACTION, 0.5, *MIXED, SAMPLER, "MixedSampler(hard_fraction=1)"],
         f"{FRACTION} is 0.5, to no effect: {SAMPLER} is 'MixedSampler(hard_fraction=1)', by whi"),
        ([FRACTION, 0.5, *MIXED, SAMPLER, "OHEMSampler"], f"{SAMPLER} is 'OHEMSampler', by which"),
        ([FRACTION, 0.5, *MIXED], None),
        ([FRACTION, 0.5, f"{OHEM}.START_ITER", 5], None),
        ([FRACTION, 0.5, *MASKS], None),
        ([f"{OHEM}.MAX_CANDIDATES", 200], f"{OHEM}.MAX_CANDIDATES is 200, to no effect: MODEL.RPN."
         "POST_NMS_TOPK_TRAIN is 100: there are fewer to choose among"),
        ([f"{OHEM}.MAX_CANDIDATES", 199], None),
        ([f"{OHEM}.MAX_CANDIDATES", 100, "MODEL.ROI_HEADS.PROPOSAL_APPEND_GT", False],
         f"{OHEM}.MAX_CANDIDATES is 100, to no effect"),
        ([], None),
    ],
)  # fmt: skip
def test_heads(caplog, monkeypatch, opts, words):
    proposals = nn.Module()
    proposals.post_nms_topk = {True: 100, False: 1}
    monkeypatch.setattr("ohem_d2.training.unread_options.RPN", nn.Module)
    heads = make_heads(*opts, masks="MODEL.MASK_ON" in opts)
    warn_of_unread_options(model_of(heads, proposals), KEYS, images=1)
    assert len(caplog.messages) == (words is not None)
    assert (words or "") in caplog.text


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"MODEL.RPN.OHEM.SAMPLER": "RandomSampler", "MODEL.RPN.OHEM.START_ITER": 5},
         "MODEL.RPN.OHEM.START_ITER is 5, to no effect: MODEL.RPN.OHEM.SAMPLER is 'RandomSampler'"),
        ({"MODEL.RPN.OHEM.HARD_FRACTION": 1.0, "MODEL.RPN.POSITIVE_FRACTION": 0.25},
         "MODEL.RPN.POSITIVE_FRACTION is 0.25, to no effect: MODEL.RPN.OHEM.HARD_FRACTION is 1.0"),
        ({"MODEL.RPN.OHEM.SAMPLER": "OHEMSampler", "MODEL.RPN.POSITIVE_FRACTION": 0.25},
         "MODEL.RPN.POSITIVE_FRACTION is 0.25, to no effect: MODEL.RPN.OHEM.SAMPLER is 'OHEMSamp"),
        ({"MODEL.RPN.OHEM.START_ITER": 5, "MODEL.RPN.POSITIVE_FRACTION": 0.25}, None),
    ],
)  # fmt: skip
def test_anchors(caplog, keys, words):
    cfg = make_cfg(*(x for pair in {**OHEM_RPN, **keys}.items() for x in pair))
    rpn = build_proposal_generator(cfg, SHAPES)
    warn_of_unread_options(model_of(None, rpn), KEYS, images=2)
    assert len(caplog.messages) == (words is not None)
    assert (words or "") in caplog.text


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"sampler": "MixedSampler(hard_fraction=1)"},
            "MODEL.RETINANET.OHEM.SAMPLER is 'MixedSampler(hard_fraction=1)', by which no",
        ),
        ({"hard_fraction": 1.0}, "MODEL.RETINANET.OHEM.HARD_FRACTION is 1.0, by which no anchors"),
        ({}, None),
    ],
)
def test_anchors_of_one_stage(caplog, options, words):
    detector = make_detector(OHEMRetinaNet, ohem={**options, "positive_fraction": 0.1})
    regions = IgnoreRegionsOptions(enabled=False)  # which it would ignore
    warn_of_unread_options(detector, KEYS, regions=regions)
    assert len(caplog.messages) == (words is not None)
    if words:
        changed = "MODEL.RETINANET.OHEM.POSITIVE_FRACTION is 0.1, to no effect: "
        assert caplog.messages[0].startswith(changed + words)


def test_names_of_python_configs(caplog):
    model = model_of(make_heads(CLS, 2.0, BOX, 2.0, f"{VOTING}.NMS_THRESH", 0.4))
    warn_of_unread_options(model, LAZY_KEYS)
    assert caplog.messages == [
        "model.roi_heads.box_voting.nms_thresh is 0.4, to no effect: "
        "model.roi_heads.box_voting.rounds is 0, expected 1 or more",
        "model.roi_heads.ohem.loss_weight_cls is 2.0, to no effect: "
        "model.roi_heads.ohem.loss_weight_box_reg is the same, and only their ratio matters",
    ]


def test_what_the_command_line_turns_off_is_meant(caplog):
    model = model_of(make_heads(f"{VOTING}.NMS_THRESH", 0.4, f"{VOTING}.VOTE_THRESH", 0.6))
    warn_of_unread_options(model, KEYS, given=[ROUNDS])
    assert caplog.text == ""
    warn_of_unread_options(model, KEYS, given=[ROUNDS, f"{VOTING}.VOTE_THRESH"])
    (message,) = caplog.messages
    assert message.startswith(f"{VOTING}.VOTE_THRESH is 0.6, to no effect")


def test_an_evaluation_reads_what_is_of_tests_alone(caplog):
    model = model_of(make_heads(CLS, 2.0, BOX, 2.0))
    warn_of_unread_options(model, KEYS, training=False)
    warn_of_unread_options(nn.Linear(1, 1), KEYS, training=False)
    assert caplog.text == ""
    warn_of_unread_options(nn.Linear(1, 1), KEYS, BoxVotingOptions(vote_thresh=0.4), training=False)
    assert f"{VOTING}.VOTE_THRESH is 0.4, to no effect: {ROUNDS} is 0" in caplog.text


def test_regions_of_heads_that_ignore_none(caplog):
    for enabled, name in ((True, "StandardROIHeads"), (False, "OHEMROIHeads")):
        options = IgnoreRegionsOptions(enabled=enabled)
        warn_of_unread_options(model_of(make_heads(name=name)), KEYS, regions=options)
        assert caplog.text == ""
    warn_of_unread_options(model_of(make_heads(name="StandardROIHeads")), KEYS, regions=options)
    assert caplog.messages == [
        "INPUT.IGNORE_REGIONS.ENABLED is False, to no effect: MODEL.ROI_HEADS.NAME is "
        "StandardROIHeads, which ignores no regions anyway"
    ]


def test_a_sampler_of_ones_own_may_mean_something_else(caplog):
    heads = make_heads(CLS, 2.0, BOX, 2.0, f"{OHEM}.SCOPE", "batch")
    heads.sampler = lambda candidates, num_samples: None
    warn_of_unread_options(model_of(heads), KEYS, images=1)
    assert caplog.text == ""
