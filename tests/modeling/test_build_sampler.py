"""From the key OHEM.SAMPLER to a sampler."""

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.modeling.roi_heads import build_roi_heads
from small_heads import FAMILIES, SHAPES, make_batch, make_cfg, make_heads, train_step

from ohem_d2 import (
    SAMPLERS,
    Candidates,
    MixedSampler,
    OHEMOptions,
    OHEMSampler,
    RandomSampler,
    Selection,
    with_ohem,
)
from ohem_d2.errors import InputError
from ohem_d2.modeling.build_sampler import build_sampler

KEY = "MODEL.ROI_HEADS.OHEM.SAMPLER"


class First:
    """The first RoIs of the batch."""

    def __init__(self, num_first=3, nms_thresh=0.0, positive_fraction=0.0):
        self.num_first, self.nms_thresh = num_first, nms_thresh
        self.positive_fraction = positive_fraction

    def __call__(self, candidates: Candidates, num_samples: int) -> Selection:
        return Selection(torch.arange(self.num_first))


class NoSampler:
    pass


def first(candidates, num_samples):
    return Selection(torch.arange(2))


def of_something_else(source, destination):
    pytest.fail("it was called")


class NeedsMore(First):
    def __init__(self, temperature):
        pass


class Opens:
    def __init__(self, file="x"):
        pytest.fail("it was built")


HERE = __name__
# What a config must not run to find out.
NO_SAMPLERS = [
    "os.system",
    "os.mkdir",
    "os.getpid",
    "os.path.join",
    "shutil.move",
    "builtins.exec",
    "builtins.print",
    "functools.partial",
    "subprocess.Popen(args='false')",
    "math.pi",
    "collections.abc",
    f"{HERE}.of_something_else",
    f"{HERE}.Opens",
    L(Opens)(file="y"),
    lambda candidates: None,
]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, MixedSampler(positive_fraction=0.3)),
        ({"hard_fraction": 0.25}, MixedSampler(hard_fraction=0.25, positive_fraction=0.3)),
        (
            {"sampler": "OHEMSampler", "nms_thresh": 0.5, "scope": "batch"},
            OHEMSampler(nms_thresh=0.5, scope="batch"),
        ),
        ({"sampler": "RandomSampler"}, RandomSampler(positive_fraction=0.3)),
        ({"sampler": "RandomSampler(positive_fraction=0.5)"}, RandomSampler(0.5)),
        (
            {"sampler": "ohem_d2.mining.samplers.OHEMSampler( scope='batch' )"},
            OHEMSampler(scope="batch"),
        ),
        ({"sampler": OHEMSampler, "loss_weight_cls": 2.0}, OHEMSampler(loss_weight_cls=2.0)),
        ({"sampler": OHEMSampler(nms_thresh=0.1)}, OHEMSampler(nms_thresh=0.1)),
        ({"sampler": L(RandomSampler)(positive_fraction=0.5)}, RandomSampler(0.5)),
    ],
)
def test_a_name_a_class_or_a_sampler(options, expected):
    assert build_sampler(OHEMOptions(**options), positive_fraction=0.3) == expected


def test_a_class_of_ones_own_gets_the_keys_that_it_asks_for():
    sampler = build_sampler(OHEMOptions(sampler=f"{HERE}.First(num_first=5)", nms_thresh=0.6), 0.3)
    assert (sampler.num_first, sampler.nms_thresh, sampler.positive_fraction) == (5, 0.6, 0.3)


def test_a_registered_function_may_call_its_arguments_anything():
    def registered(them, number):
        return first(them, number)

    SAMPLERS.register(registered)
    try:
        assert build_sampler(OHEMOptions(sampler="registered"), 0.25) is registered
    finally:
        SAMPLERS._obj_map.pop("registered")


@pytest.mark.parametrize("sampler", [f"{HERE}.first", first])
def test_a_function(sampler):
    assert build_sampler(OHEMOptions(sampler=sampler), 0.25) is first


def test_a_registered_one():
    class Registered(First):
        pass

    SAMPLERS.register(Registered)
    try:
        assert type(build_sampler(OHEMOptions(sampler="Registered"), 0.25)) is Registered
    finally:
        SAMPLERS._obj_map.pop("Registered")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sampler": "Nothing"}, "is 'Nothing', expected one of OHEMSampler, RandomSampler, Mixed"),
        ({"sampler": "nothing.Sampler"}, r"is 'nothing.Sampler', which cannot be imported \(No"),
        ({"sampler": f"{HERE}.Nothing"}, "which cannot be imported .*has no attribute 'Nothing'"),
        (
            {"sampler": "RandomSampler(0.5)"},
            "pass arguments by keyword, as in HardPool",
        ),
        ({"sampler": "RandomSampler(a=b)"}, "expected a name such as OHEMSampler or my_module"),
        ({"sampler": "1 + 1"}, "it is not a name"),
        ({"sampler": "Random Sampler"}, "expected a name such as OHEMSampler"),
        (
            {"sampler": "RandomSampler(bins=3)"},
            "RandomSampler has no argument bins: expected one of .*positive_fraction",
        ),
        (
            {"sampler": f"{HERE}.First(num_frst=3)"},
            "First.num_frst=3.', but First has no argument num_frst: .*, the nearest is num_first$",
        ),
        ({"sampler": L(First)(num_frst=3)}, r"is L\(First\)\(num_frst=3\), but First has no argum"),
        ({"sampler": f"{HERE}.NoSampler"}, r"expected a class with a method __call__"),
        ({"sampler": f"{HERE}.first(a=1)"}, "which is not a sampler: expected a class"),
        *(
            ({"sampler": x}, "which is not a sampler: expected a class with a method __call__")
            for x in NO_SAMPLERS
        ),
        ({"sampler": f"{HERE}.NeedsMore"}, "cannot be built: .*missing 1 required .*'temperature'"),
        ({"sampler": "RandomSampler" + "(" * 500}, r"expected a name such as OHEMSampler"),
        (
            {"sampler": "RandomSampler", "hard_fraction": 0.25},
            "OHEM.HARD_FRACTION is 0.25, but RandomSampler has no such setting: expected 0.5",
        ),
        (
            {"sampler": f"{HERE}.first", "scope": "batch"},
            "OHEM.SCOPE is 'batch', but first has no such setting: expected 'image'",
        ),
        (
            {"sampler": "OHEMSampler(nms_thresh=0.5)", "nms_thresh": 0.6},
            "OHEM.NMS_THRESH is 0.6, but .*OHEM.SAMPLER says nms_thresh=0.5: expected one of both",
        ),
    ],
)
def test_what_cannot_be_built_is_named(options, message):
    with pytest.raises(InputError, match=f"MODEL.ROI_HEADS.*{message}"):
        build_sampler(OHEMOptions(**options), 0.25)


@pytest.mark.parametrize("sampler", ["", 5, None])
def test_what_is_no_sampler_at_all(sampler):
    with pytest.raises(InputError, match="OHEM.SAMPLER is .*, expected the name of a sampler"):
        OHEMOptions(sampler=sampler)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_head_trains_on_what_the_sampler_chooses(name):
    heads = make_heads(
        KEY, f"{HERE}.First(num_first=4)", "MODEL.ROI_HEADS.OHEM.HARD_FRACTION", 0.5, name=name
    )
    batch = make_batch(0, [(2, 20), (0, 9)])
    if name == "OHEMRROIHeads":
        from small_heads import rotated

        batch = rotated(batch, 0)
    seen = []
    heads.observers.append(seen.append)
    _, losses, _ = train_step(heads, *batch)
    assert [len(x) for x in seen[0]] == [4, 0]
    sum(losses.values()).backward()


def test_a_config_names_it():
    cfg = make_cfg(KEY, f"{HERE}.First", "MODEL.ROI_HEADS.OHEM.HARD_FRACTION", 0.5)
    assert type(build_roi_heads(cfg, SHAPES).sampler) is First


@pytest.mark.parametrize(
    "sampler", [f"{HERE}.First(num_first=7)", L(First)(num_first=7), First, "RandomSampler"]
)
def test_a_python_config_names_it(sampler):
    from detectron2 import model_zoo

    roi_heads = model_zoo.get_config(
        "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.py"
    ).model.roi_heads
    heads = instantiate(with_ohem(roi_heads, sampler=sampler))
    if sampler == "RandomSampler":
        assert heads.sampler == RandomSampler(positive_fraction=0.25)
    else:
        assert type(heads.sampler) is First
        assert heads.sampler.num_first == (3 if sampler is First else 7)


def test_a_python_config_does_not_hold_what_is_built():
    from detectron2 import model_zoo

    roi_heads = model_zoo.get_config(
        "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.py"
    ).model.roi_heads
    with pytest.raises(InputError, match="was given the sampler OHEMSampler.* expected a name, a"):
        with_ohem(roi_heads, sampler=OHEMSampler())
