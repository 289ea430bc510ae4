"""Settings of mining for what does not mine."""

import re

import pytest

from ohem_d2.training.config_file import CONFIGS, load_config
from ohem_d2.training.unused_mining import warn_of_unused_mining

QUICK_START = str(CONFIGS / "quick_start.yaml")
HARD = ["MODEL.ROI_HEADS.OHEM.HARD_FRACTION", "0.25"]
HARD_DENSE = ["MODEL.RETINANET.OHEM.HARD_FRACTION", "0.25"]
HARD_RPN = ["MODEL.RPN.OHEM.HARD_FRACTION", "0.25"]
OHEM_RPN = ["MODEL.PROPOSAL_GENERATOR.NAME", "OHEMRPN"]


@pytest.mark.parametrize(
    ("opts", "words"),
    [
        (["MODEL.ROI_HEADS.NAME", "StandardROIHeads", *HARD],
         "MODEL.ROI_HEADS.OHEM.HARD_FRACTION is 0.25, but .*MODEL.ROI_HEADS.NAME is 'StandardR"),
        (["MODEL.META_ARCHITECTURE", "RetinaNet", *HARD],
         "HARD_FRACTION is 0.25, but .*MODEL.META_ARCHITECTURE is 'RetinaNet'"),
        (["MODEL.ROI_HEADS.NAME", "StandardROIHeads"], None),
        (["MODEL.ROI_HEADS.NAME", "StandardROIHeads", HARD[0], "0.5"], None),  # by default
        (HARD, None),
        (HARD_RPN,
         "MODEL.RPN.OHEM.HARD_FRACTION is 0.25, but .*GENERATOR.NAME is 'RPN', expected OHEMRPN"),
        (["MODEL.META_ARCHITECTURE", "RetinaNet", *HARD_RPN, *OHEM_RPN],
         "OHEM.HARD_FRACTION is 0.25, but .*META_ARCHITECTURE is 'RetinaNet', which has no RPN"),
        (["MODEL.META_ARCHITECTURE", "ProposalNetwork", *HARD_RPN, *OHEM_RPN], None),
        ([*HARD_RPN, *OHEM_RPN], None),
        (HARD_DENSE, "RETINANET.OHEM.HARD_FRACTION is 0.25, but .* 'GeneralizedRCNN', expected"),
        (["MODEL.META_ARCHITECTURE", "RetinaNet", *HARD_DENSE],
         "OHEM.HARD_FRACTION is 0.25, but .* is 'RetinaNet', expected OHEMRetinaNet"),
        (["MODEL.META_ARCHITECTURE", "OHEMRetinaNet", *HARD_DENSE], None),
        (["MODEL.META_ARCHITECTURE", "OHEMRetinaNet", *HARD],
         "HARD_FRACTION is 0.25, but .* is 'OHEMRetinaNet', which has no RoI heads"),
    ],
)  # fmt: skip
def test_settings_of_mining_for_heads_that_do_not_mine(caplog, opts, words):
    warn_of_unused_mining(load_config(QUICK_START, opts))
    assert bool(caplog.records) == (words is not None)
    if words:
        assert re.search(words, caplog.text)
