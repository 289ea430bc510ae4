"""`OHEMRetinaNet` and `OHEMFCOS`: what they choose, and that all else is Detectron2's."""

import copy
import math
from unittest import mock

import pytest
import reference
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_model
from detectron2.modeling.meta_arch import FCOS, RetinaNet
from detectron2.structures import Boxes
from hypothesis import given, settings
from hypothesis import strategies as st
from small_detectors import gradients, make_detector, make_inputs, step
from small_heads import NUM_CLASSES, SIZE
from small_models import SHRINK_OPTS, ZOO, assert_same_inference, shrink, tamed

from ohem_d2 import OHEMFCOS, GroundTruth, OHEMRetinaNet, Selection
from ohem_d2.errors import InputError
from ohem_d2.mining import select
from ohem_d2.modeling.valid_ranges import ValidSizes
from ohem_d2.training.config_file import load_config
from ohem_d2.training.key_checks import check_keys

BASES = {OHEMRetinaNet: RetinaNet, OHEMFCOS: FCOS}
MINING = [*BASES]
KEY = "MODEL.RETINANET.OHEM"
# All anchors, and each one's own loss.
ALL = {"sampler": "OHEMSampler", "nms_thresh": 1.0, "batch_size_per_image": 10**6}
PAPERS = {"sampler": "OHEMSampler", "batch_size_per_image": 16}
RETINANET = "COCO-Detection/retinanet_R_50_FPN_1x.yaml"


def with_regions(inputs, seed):
    generator = torch.Generator().manual_seed(seed)
    for x in inputs:
        corner = torch.rand(2, generator=generator) * SIZE / 2
        region = Boxes(torch.cat([corner, corner + SIZE * 0.4])[None])
        x["instances"] = GroundTruth((SIZE, SIZE), region, **x["instances"].get_fields())
    return inputs


def assert_same(detector, plain, inputs, iteration=0, steps=2):
    """Bit by bit: losses, gradients, what is logged and the random state; over several steps."""
    for i in range(steps):
        results = []
        for x in (detector, plain):
            losses, logged = step(x, inputs, iteration + i)
            results.append((losses, gradients(x, losses), logged, torch.get_rng_state()))
        (losses, grads, logged, state), other = results
        assert losses.keys() == other[0].keys()
        assert all(losses[k].equal(v) for k, v in other[0].items())
        assert all(a.equal(b) for a, b in zip(grads, other[1]))
        assert {k: v for k, v in logged.items() if not k.startswith("ohem_dense/")} == other[2]
        assert state.equal(other[3])
        assert detector.loss_normalizer == plain.loss_normalizer


def watch(detector):
    """What the sampler gets and returns."""
    seen, sampler = {}, detector.sampler

    def spy(candidates, num_samples):
        seen["candidates"], seen["budget"] = candidates, num_samples
        seen["selection"] = sampler(candidates, num_samples)
        return seen["selection"]

    detector.sampler = spy
    return seen


def cross_entropy(logits, label):
    """Of one anchor, over its classes."""
    total = 0.0
    for number, logit in enumerate(logits):
        probability = 1 / (1 + math.exp(-logit))
        total -= math.log(max(probability if number == label else 1 - probability, 1e-300))
    return total


def l1(anchor, deltas, box):
    """Of one anchor, by the words of the R-CNN paper."""
    width, height = anchor[2] - anchor[0], anchor[3] - anchor[1]
    to_width, to_height = box[2] - box[0], box[3] - box[1]
    targets = (
        (box[0] + to_width / 2 - anchor[0] - width / 2) / width,
        (box[1] + to_height / 2 - anchor[1] - height / 2) / height,
        math.log(to_width / width),
        math.log(to_height / height),
    )
    return sum(abs(a - b) for a, b in zip(deltas, targets))


def point_box(anchor, deltas):
    """What a point predicts: distances in strides, of which none is negative."""
    x, y = (anchor[0] + anchor[2]) / 2, (anchor[1] + anchor[3]) / 2
    left, top, right, bottom = (max(d, 0) * (anchor[2] - anchor[0]) for d in deltas)
    return x - left, y - top, x + right, y + bottom


def of_point(anchor, deltas, centerness, box):
    """One minus the generalized IoU, and the cross entropy of the centerness."""
    a = point_box(anchor, deltas)
    areas = [(x[2] - x[0]) * (x[3] - x[1]) for x in (a, box)]
    shared = max(min(a[2], box[2]) - max(a[0], box[0]), 0)
    shared *= max(min(a[3], box[3]) - max(a[1], box[1]), 0)
    union = sum(areas) - shared
    hull = (max(a[2], box[2]) - min(a[0], box[0])) * (max(a[3], box[3]) - min(a[1], box[1]))
    loss = 1 - (shared / union - (hull - union) / hull)
    x, y = (anchor[0] + anchor[2]) / 2, (anchor[1] + anchor[3]) / 2
    sides = (x - box[0], box[2] - x), (y - box[1], box[3] - y)
    target = math.sqrt(math.prod(min(s) / max(s) for s in sides))
    p = 1 / (1 + math.exp(-centerness))
    return loss - target * math.log(max(p, 1e-300)) - (1 - target) * math.log(max(1 - p, 1e-300))


def rows_of(detector, inputs):
    """
    Of all anchors that Detectron2 trains on, but for those in regions to ignore: the two losses,
    the box by which duplicates are told, the label and the image.
    """
    plain = make_detector(BASES[type(detector)])
    with torch.no_grad():
        images = torch.stack([x["image"] / 60 for x in inputs])
        features = [*detector.backbone(images).values()]
        maps = detector.head(features)
        anchors = detector.anchor_generator(features)
        sizes = [NUM_CLASSES, 4, 1][: len(maps)]
        logits, deltas, *others = (
            torch.cat(x, dim=1).tolist() for x in detector._transpose_dense_predictions(maps, sizes)
        )
    gt = [copy.deepcopy(x["instances"]) for x in inputs]
    for i, (labels, boxes) in enumerate(zip(*plain.label_anchors(anchors, gt))):
        regions = gt[i].ignore_regions.tensor.tolist() if isinstance(gt[i], GroundTruth) else []
        for j, anchor in enumerate(Boxes.cat(anchors).tensor.tolist()):
            label, box = labels[j].item(), boxes[j].tolist()
            in_region = any(reference.lies_in(anchor, r) for r in regions)
            if label < 0 or (label == NUM_CLASSES and in_region):
                continue
            of_box, told_by = 0.0, anchor
            if others:
                told_by = point_box(anchor, deltas[i][j])
            if label < NUM_CLASSES and others:
                of_box = of_point(anchor, deltas[i][j], others[0][i][j][0], box)
            elif label < NUM_CLASSES:
                of_box = l1(anchor, deltas[i][j], box)
            yield cross_entropy(logits[i][j], label), of_box, told_by, label, i


@settings(max_examples=15, deadline=None)
@given(
    kind=st.sampled_from(MINING),
    seed=st.integers(0, 2**31),
    number=st.integers(0, 3),
    regions=st.booleans(),
    budget=st.sampled_from([1, 16, 300]),
    nms_thresh=st.sampled_from([0.3, 0.7, 1.0]),
    how=st.sampled_from(["", "(scope='batch')", "(max_foreground_fraction=0.25)"]),
    at_first=st.sampled_from([1, 2]),
)
def test_equals_the_reference(
    kind, seed, number, regions, budget, nms_thresh, how, at_first
):  # fmt: skip
    ohem = {
        "sampler": f"OHEMSampler{how}",
        "nms_thresh": nms_thresh,
        "batch_size_per_image": budget,
    }
    detector = make_detector(kind, ohem=ohem)
    inputs = make_inputs(seed, [number, 2])
    if regions:
        inputs = with_regions(inputs, seed)
    seen = watch(detector)
    with mock.patch.object(select, "_AT_FIRST", at_first):
        losses, logged = step(detector, inputs)

    cls, box, boxes, labels, images = map(list, zip(*rows_of(detector, inputs)))
    candidates = seen["candidates"]
    assert candidates.labels.tolist() == labels
    assert candidates.image_ids.tolist() == images
    assert (candidates.num_classes, candidates.num_images) == (NUM_CLASSES, 2)
    for mine, expected in (
        (candidates.boxes, boxes), (candidates.loss_cls, cls), (candidates.loss_box_reg, box)
    ):  # fmt: skip
        torch.testing.assert_close(mine, torch.tensor(expected), rtol=1e-4, atol=2e-4)

    # Ranked by the model's own figures, since the others differ from them in the last digits.
    expected = reference.select(
        (candidates.loss_cls + candidates.loss_box_reg).tolist(), candidates.boxes.tolist(),
        labels, images, num_classes=NUM_CLASSES, num_samples=budget, nms_thresh=nms_thresh,
        scope="batch" if "batch" in how else "image",
        max_foreground_fraction=0.25 if "max" in how else None, num_images=2,
    )  # fmt: skip
    assert seen["selection"].indices.tolist() == expected
    num_objects = sum(x < NUM_CLASSES for x in labels)
    start = 300 if kind is OHEMFCOS else 100
    normalizer = start * 0.9 + max(num_objects, 1) * 0.1
    assert detector.loss_normalizer == pytest.approx(normalizer)
    name, *others = losses
    found = losses[name].item(), sum(losses[x].item() for x in others)
    for value, of in zip(found, (cls, box)):
        total = sum(of[x] for x in expected) / normalizer
        assert value == pytest.approx(total, rel=1e-4, abs=1e-4)
    num_chosen = sum(labels[x] < NUM_CLASSES for x in expected)
    assert logged["num_pos_anchors"] == num_chosen / 2


@pytest.mark.parametrize("kind", MINING)
@pytest.mark.parametrize("numbers", [[3, 0, 2], [0, 0]])
@pytest.mark.parametrize("gamma", [2.0, 0.5])
def test_told_to_take_every_anchor_with_the_focal_loss_it_is_detectron2s(kind, numbers, gamma):
    focal = {"focal_loss_gamma": gamma, "focal_loss_alpha": 0.3}
    detector = make_detector(kind, ohem={**ALL, "focal_loss": True}, **focal)
    plain = make_detector(BASES[kind], **focal)
    seen = watch(detector)
    assert_same(detector, plain, make_inputs(0, numbers))
    # So are the losses of single anchors.
    losses, _ = step(detector, make_inputs(0, numbers))
    candidates = seen["candidates"]
    of_boxes = sum(x.item() for k, x in losses.items() if not k.endswith("cls"))
    total = candidates.loss_box_reg.sum().item() / detector.loss_normalizer
    assert total == pytest.approx(of_boxes, rel=1e-5)
    total = candidates.loss_cls.sum().item() / detector.loss_normalizer
    assert total == pytest.approx(next(iter(losses.values())).item(), rel=1e-5)


@pytest.mark.parametrize("kind", MINING)
def test_told_to_take_every_anchor_it_is_detectron2s_cross_entropy(kind):
    detector = make_detector(kind, ohem=ALL)
    plain = make_detector(BASES[kind], focal_loss_gamma=0.0, focal_loss_alpha=-1.0)
    assert_same(detector, plain, make_inputs(0, [3, 0, 2]))
    assert (detector.focal_loss_gamma, detector.focal_loss_alpha) == (2.0, 0.25)  # as before


@pytest.mark.parametrize("box_loss", ["smooth_l1", "giou", "diou", "ciou"])
def test_every_box_loss(box_loss):
    keys = {"box_reg_loss_type": box_loss, "smooth_l1_beta": 0.1}
    detector = make_detector(OHEMRetinaNet, ohem={**ALL, "focal_loss": True}, **keys)
    plain, inputs = make_detector(RetinaNet, **keys), make_inputs(0, [3, 0, 2])
    seen = watch(detector)
    assert_same(detector, plain, inputs, steps=1)
    total = seen["candidates"].loss_box_reg.sum() / detector.loss_normalizer
    expected = make_detector(RetinaNet, **keys)
    assert total.item() == pytest.approx(step(expected, inputs)[0]["loss_box_reg"].item(), rel=1e-5)


@pytest.mark.parametrize("kind", MINING)
def test_before_start_iter_it_is_detectron2s(kind):
    detector = make_detector(kind, ohem={**PAPERS, "start_iter": 5})
    plain, inputs = make_detector(BASES[kind]), make_inputs(0, [3, 0])
    assert_same(detector, plain, inputs, iteration=3)
    seen = watch(detector)
    step(detector, inputs, iteration=5)
    assert len(seen["selection"].indices) > 0


@pytest.mark.parametrize("kind", MINING)
def test_a_pass_without_gradients_is_detectron2s(kind):
    detector, plain = make_detector(kind), make_detector(BASES[kind])
    inputs = make_inputs(0, [3, 0])
    with torch.no_grad():
        assert step(detector, inputs) == step(plain, inputs)


@pytest.mark.parametrize("kind", MINING)
def test_the_default_mines_half_and_draws_the_rest(kind):
    detector = make_detector(kind, ohem={"batch_size_per_image": 16})
    seen, inputs = watch(detector), make_inputs(0, [3, 0, 2])
    losses, logged = step(detector, inputs)
    candidates, (indices, _, is_hard) = seen["candidates"], seen["selection"]
    assert len(set(indices.tolist())) == len(indices) == 3 * 16
    images = candidates.image_ids[indices]
    assert images[is_hard].bincount().tolist() == [8, 8, 8]
    is_fg = candidates.labels < NUM_CLASSES
    assert is_fg[indices[~is_hard]].sum() <= 3 * 2  # a quarter of the 8 that are drawn
    hard, costs = indices[is_hard], candidates.loss_cls + candidates.loss_box_reg
    of_selected, of_all = costs[hard].mean().item(), costs.mean().item()
    assert logged["ohem_dense/cost_of_selected"] == pytest.approx(of_selected, rel=1e-5)
    assert logged["ohem_dense/cost_of_all"] == pytest.approx(of_all, rel=1e-5)
    assert logged["ohem_dense/cost_ratio"] == pytest.approx(of_selected / of_all, rel=1e-5)
    share = (is_fg[hard].sum() / is_fg.sum()).item()
    assert logged["ohem_dense/share_of_fg_selected"] == pytest.approx(share, rel=1e-5)
    assert all(x.isfinite().all() for x in gradients(detector, losses))


@pytest.mark.parametrize("kind", MINING)
def test_losses_far_from_the_label_have_gradients(kind):
    """Where the focal loss would be that of a probability of exactly 0 or 1."""
    detector = make_detector(kind, ohem=PAPERS)
    with torch.no_grad():
        detector.head.cls_score.weight.mul_(1000)
    losses, _ = step(detector, make_inputs(0, [3, 0]))
    found = gradients(detector, losses)
    assert all(x.isfinite().all() for x in found)
    assert any(x.abs().max() > 0 for x in found)


@pytest.mark.parametrize("kind", MINING)
@pytest.mark.parametrize("ohem", [PAPERS, {**PAPERS, "start_iter": 9}])
def test_regions_to_ignore(kind, ohem):
    """Detectron2's losses are those of all anchors but the ones in regions."""
    inputs = with_regions(make_inputs(0, [3, 0]), 0)
    detector = make_detector(kind, ohem={**ohem, **({} if "start_iter" in ohem else ALL)})
    losses, _ = step(detector, inputs)
    rows = [*rows_of(detector, inputs)]
    everything = [*rows_of(detector, make_inputs(0, [3, 0]))]
    assert 0 < len(rows) < len(everything)
    of_boxes = sum(x.item() for k, x in losses.items() if not k.endswith("cls"))
    expected = sum(row[1] for row in rows) / detector.loss_normalizer
    assert of_boxes == pytest.approx(expected, rel=1e-4)
    if "start_iter" not in ohem:
        expected = sum(row[0] for row in rows) / detector.loss_normalizer
        assert next(iter(losses.values())).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("kind", MINING)
@pytest.mark.parametrize("start_iter", [0, 9])
def test_an_image_that_is_one_region_trains_nothing(kind, start_iter):
    inputs = make_inputs(0, [0])
    region = Boxes([[-99.0, -99.0, 199.0, 199.0]])
    fields = inputs[0]["instances"].get_fields()
    inputs[0]["instances"] = GroundTruth((SIZE, SIZE), region, **fields)
    detector = make_detector(kind, ohem={"start_iter": start_iter})
    losses, _ = step(detector, inputs)
    assert all(loss == 0 for loss in losses.values())
    assert all((x == 0).all() for x in gradients(detector, losses))


@pytest.mark.parametrize("kind", MINING)
def test_weights_of_a_sampler(kind):
    inputs = make_inputs(0, [3, 0])
    detector = make_detector(kind, ohem=PAPERS)
    mines, normalizers = detector.sampler, []

    def run(weights):
        detector.sampler = lambda *args: weights(mines(*args).indices)
        if hasattr(detector, "loss_normalizer"):
            del detector.loss_normalizer
        losses, _ = step(detector, inputs)
        normalizers.append(detector.loss_normalizer)
        return losses, gradients(detector, losses)

    once, of_once = run(lambda x: Selection(x))
    ones, of_ones = run(lambda x: Selection(x.flip(0), torch.ones(len(x))))
    twice, _ = run(lambda x: Selection(x.repeat(2)))
    rising, _ = run(lambda x: Selection(x, torch.arange(len(x)).float()))
    assert len({*normalizers}) == 1
    for name, value in once.items():
        torch.testing.assert_close(ones[name], value)
        torch.testing.assert_close(twice[name], 2 * value)
    for a, b in zip(of_ones, of_once):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    seen = {}

    def spy(candidates, number):
        seen["candidates"], seen["chosen"] = candidates, mines(candidates, number).indices
        return Selection(seen["chosen"])

    detector.sampler = spy
    step(detector, inputs)
    costs = seen["candidates"].loss_cls[seen["chosen"]]
    expected = (costs * torch.arange(len(costs))).sum() / normalizers[0]
    torch.testing.assert_close(next(iter(rising.values())), expected)


@pytest.mark.parametrize("kind", MINING)
def test_what_a_sampler_can_read(kind):
    detector = make_detector(kind)
    seen, inputs = watch(detector), make_inputs(0, [3, 0])
    step(detector, inputs)
    candidates = seen["candidates"]
    assert not candidates.loss_cls.requires_grad
    assert candidates.pred_boxes.shape == candidates.boxes.shape
    is_bg = candidates.pred_classes == NUM_CLASSES
    assert 0 < is_bg.sum() < len(is_bg)
    assert candidates.pred_scores.min() >= 0.5
    missing = ["objects", "pred_ious", "objectness"]
    if kind is OHEMFCOS:
        assert candidates.pred_boxes.equal(candidates.boxes)
        missing.append("ious")
    else:
        objects = inputs[0]["instances"].gt_boxes.tensor.tolist()
        for box, iou, image in zip(candidates.boxes.tolist(), candidates.ious.tolist(),
                                   candidates.image_ids.tolist()):  # fmt: skip
            best = max(reference.iou(box, x) for x in objects) if image == 0 else 0
            assert iou == pytest.approx(best, abs=1e-5) or iou < best  # of a low-quality match
    for name in missing:
        with pytest.raises(InputError, match=f"the sampler reads {name}"):
            getattr(candidates, name)


@pytest.mark.parametrize("kind", MINING)
def test_inference_and_weights_are_those_of_detectron2(kind):
    detector, plain = make_detector(kind), make_detector(BASES[kind])
    assert list(detector.state_dict()) == list(plain.state_dict())
    plain.load_state_dict(detector.state_dict())
    detector.load_state_dict(plain.state_dict())
    assert_same_inference(detector, plain, make_inputs(0, [3, 0]))


def test_a_sampler_that_does_what_none_may_is_named():
    detector = make_detector(OHEMRetinaNet)
    detector.sampler = lambda candidates, num_samples: torch.arange(3)
    with pytest.raises(InputError, match=f"{KEY}.SAMPLER: the sampler <lambda> returned a Tensor"):
        step(detector, make_inputs(0, [3]))


@pytest.mark.parametrize("kind", MINING)
def test_in_mixed_precision(kind):
    detector = make_detector(kind, ohem=PAPERS)
    seen = watch(detector)
    with torch.autocast("cpu", torch.bfloat16):
        losses, _ = step(detector, make_inputs(0, [3, 0]))
    assert all(loss.isfinite() for loss in losses.values())
    assert all(x.isfinite().all() for x in gradients(detector, losses))
    candidates = seen["candidates"]
    assert candidates.loss_cls.dtype == candidates.boxes.dtype == torch.float32


# ------------------------------------------------------------------------------------- in configs


def yaml_model(name="OHEMRetinaNet", **keys):
    keys = {"MODEL.META_ARCHITECTURE": name, "MODEL.RETINANET.SCORE_THRESH_TEST": 0.0, **keys}
    cfg = load_config(RETINANET, [*SHRINK_OPTS, *(str(x) for pair in keys.items() for x in pair)])
    check_keys(cfg)
    torch.manual_seed(0)
    return tamed(build_model(cfg))


def test_one_line_of_a_yaml_config():
    model, plain = yaml_model(), yaml_model("RetinaNet")
    assert type(model) is OHEMRetinaNet
    assert model.ohem.batch_size_per_image == 256
    inputs = make_inputs(0, [3, 1])
    assert_same_inference(model, plain, inputs)
    losses, logged = step(model, inputs)
    assert logged["ohem_dense/cost_ratio"] > 0
    assert all(x.isfinite().all() for x in gradients(model, losses))
    keys = {"SAMPLER": "OHEMSampler", "NMS_THRESH": 1.0, "BATCH_SIZE_PER_IMAGE": 10**6,
            "FOCAL_LOSS": True}  # fmt: skip
    model = yaml_model(**{f"{KEY}.{k}": v for k, v in keys.items()})
    assert_same(model, yaml_model("RetinaNet"), inputs, steps=1)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("HARD_FRACTION", 0.0, rf"{KEY}.HARD_FRACTION is 0.0, expected a number in \(0, 1\]"),
        ("NMS_THRESH", -1.0, f"{KEY}.NMS_THRESH is -1.0, expected a number of 0 or more"),
        ("START_ITER", -1, f"{KEY}.START_ITER is -1, expected an integer of 0 or more"),
        ("BATCH_SIZE_PER_IMAGE", 0, f"{KEY}.BATCH_SIZE_PER_IMAGE is 0, expected an integer of 1"),
        ("POSITIVE_FRACTION", 1.5, rf"{KEY}.POSITIVE_FRACTION is 1.5, expected a number in \[0, 1"),
        ("SAMPLER", "Hardest", f"{KEY}.SAMPLER is 'Hardest', expected one of"),
        ("SAMPLER", "MixedSampler(positive_fraction=2)",
         f"{KEY}.SAMPLER is .*, and its positive_fraction is 2, expected a number in"),
    ],
)  # fmt: skip
def test_wrong_values_are_named(key, value, message):
    with pytest.raises(InputError, match=message):
        yaml_model(**{f"{KEY}.{key}": value})


def test_settings_that_the_sampler_does_not_have_are_named():
    for key in ("HARD_FRACTION", "POSITIVE_FRACTION"):
        with pytest.raises(InputError, match=f"{KEY}.{key} is 0.1, but OHEMSampler has no such"):
            yaml_model(**{f"{KEY}.{key}": 0.1, f"{KEY}.SAMPLER": "OHEMSampler"})
    with pytest.raises(InputError, match=r"focal_loss|FOCAL_LOSS is 'no', expected True or False"):
        make_detector(OHEMFCOS, ohem={"focal_loss": "no"})
    with pytest.raises(InputError, match="hard_fractoin is unknown, expected one of sampler, hard"):
        make_detector(OHEMRetinaNet, ohem={"hard_fractoin": 1.0})
    for wrong in ("OHEMSampler", 5):
        with pytest.raises(InputError, match=f"ohem is {wrong!r}, expected options by name, such"):
            make_detector(OHEMFCOS, ohem=wrong)


@pytest.mark.parametrize("kind", [OHEMRetinaNet, OHEMFCOS])
def test_valid_ranges_are_of_two_stage_models(kind):
    inputs = make_inputs(0, (2,))
    valid = ValidSizes(0.0, 9.0, Boxes(torch.tensor([[1.0, 1, 30, 30]])))
    for x in inputs:
        fields = x["instances"].get_fields()
        none = Boxes(torch.zeros(0, 4))
        x["instances"] = GroundTruth((SIZE, SIZE), none, valid, **fields)
    words = rf"valid ranges \(INPUT.VALID_RANGES\) for {kind.__name__}, which has none"
    with pytest.raises(InputError, match=words):
        step(make_detector(kind), inputs)


@pytest.mark.parametrize("name", ["retinanet_R_50_FPN_1x", "fcos_R_50_FPN_1x"])
def test_a_python_config(name):
    node = LazyConfig.load(str(ZOO / "COCO-Detection" / f"{name}.py")).model
    shrink(node)
    node.head.input_shape = [ShapeSpec(channels=32)] * 5
    node.test_score_thresh = 0.0
    torch.manual_seed(0)
    plain = tamed(instantiate(node))
    node["_target_"] = OHEMRetinaNet if "retina" in name else OHEMFCOS
    node.ohem = {"batch_size_per_image": 32}
    torch.manual_seed(0)
    model = tamed(instantiate(node))
    assert model.sampler.positive_fraction == 0.25
    inputs = make_inputs(0, [3, 1])
    assert_same_inference(model, plain, inputs)
    losses, logged = step(model, inputs)
    assert logged["ohem_dense/cost_ratio"] > 0
    assert all(x.isfinite().all() for x in gradients(model, losses))


@pytest.mark.gpu
@pytest.mark.parametrize("kind", MINING)
def test_on_a_gpu(kind):
    """It chooses the same there, where it is given the same predictions."""
    inputs, results = make_inputs(0, [3, 0, 2]), []
    cpu = make_detector(kind, ohem=PAPERS)
    with torch.no_grad():
        maps = cpu.head([*cpu.backbone(torch.stack([x["image"] / 60 for x in inputs])).values()])
    for device in ("cpu", "cuda"):
        detector = copy.deepcopy(cpu).to(device)
        detector.head.forward = lambda _, to=device: [[y.to(to) for y in x] for x in maps]
        seen = watch(detector)
        with mock.patch.object(select, "_AT_ONCE_ON_GPU", 0):
            losses, _ = step(detector, inputs)
        results.append((seen["selection"].indices.cpu(), [x.cpu() for x in losses.values()]))
    assert results[0][0].equal(results[1][0])
    torch.testing.assert_close(results[0][1], results[1][1])
