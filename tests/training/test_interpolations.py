"""References of a Python config that lead nowhere."""

import pytest
from detectron2 import model_zoo
from omegaconf import OmegaConf

from ohem_d2.errors import InputError
from ohem_d2.training.interpolations import check_interpolations


def mapper(record):
    return record


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (
            "${..c.y}",
            "which refers to model.c.y, but model.c is 5: expected a node that has y, or a value",
        ),
        (
            "${.d.colr}",
            "which refers to model.b.d.colr, but there is none, the nearest is model.b.d.color",
        ),
        ("${...e}", "which refers to e, but there is none"),
        ("${model.b.none}", "which refers to model.b.none, but there is none"),
        ("x${model.l[3]}", "which refers to model.l.3, but there is none"),
        ("${oc.env:NO_SUCH_NAME}", "which cannot be read: .*'NO_SUCH_NAME' not found"),
        ("${no_such_function:1}", "which cannot be read: .*no_such_function"),
    ],
)
def test_what_leads_nowhere(written, expected):
    cfg = OmegaConf.create({"model": {"b": {"x": written, "d": {"color": 1}}, "c": 5, "l": [1, 2]}})
    with pytest.raises(InputError, match="^model.b.x in x.py is ") as e:
        check_interpolations(cfg, "x.py")
    assert e.match(expected)
    cfg.model.b.x = "${..l[1]}${.d.color}"
    check_interpolations(cfg, "x.py")


def test_a_function_in_place_of_a_node_that_is_referred_to():
    cfg = model_zoo.get_config("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.py")
    cfg.dataloader.train.mapper = mapper
    message = (
        "dataloader.test.mapper.image_format in x.py is .*, which refers to "
        "dataloader.train.mapper.image_format, but dataloader.train.mapper is mapper: expected a "
        "node that has image_format, or a value in place of the reference"
    )
    with pytest.raises(InputError, match=message):
        check_interpolations(cfg, "x.py")
