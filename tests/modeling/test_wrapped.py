"""Mining in code that nobody here has seen: what it reads, what it leaves behind, whom it stops."""

import copy
import math
import random

import numpy as np
import pytest
import torch
from detectron2.modeling.roi_heads import StandardROIHeads
from detectron2.structures import Instances
from detectron2.utils.events import EventStorage
from mined_rois import make_family, spy_on_sampler
from small_heads import (
    FAMILIES,
    NUM_CLASSES,
    SHAPES,
    make_batch,
    make_cfg,
    make_heads,
    rotated,
    train_step,
)
from torch import nn
from torch.ao.quantization import MovingAverageMinMaxObserver
from torch.nn.utils import parametrizations, prune, spectral_norm
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop

from ohem_d2 import MixedSampler, OHEMMixin, OHEMOptions, OHEMROIHeads
from ohem_d2.errors import InputError
from ohem_d2.mining.candidates import Selection
from ohem_d2.mining.samplers import SharedSampler

BACKGROUND = NUM_CLASSES
BOX_HEAD = "MODEL.ROI_BOX_HEAD"
BN = f"{BOX_HEAD}.NORM", "BN", f"{BOX_HEAD}.NUM_CONV", 1, f"{BOX_HEAD}.CONV_DIM", 4


def loss_of(mined):
    return torch.cat([x.ohem_loss_cls + x.ohem_loss_box_reg for x in mined]).mean().item()


def build(*bases, opts=()):
    """A mining head of these classes, with the weights of `make_heads`."""
    heads = type("Mine", (OHEMMixin, *bases), {})(make_cfg(*opts), SHAPES)
    heads.load_state_dict(make_heads().state_dict())
    return heads


def batch_of(name, seed=0, sizes=((3, 40), (0, 10))):
    batch = make_batch(seed, list(sizes))
    return rotated(batch, seed) if name == "OHEMRROIHeads" else batch


# ---- RoIs are ranked by what is trained on


class _Scaled(StandardROIHeads):
    """Does something to the features in its own forward."""

    def forward(self, images, features, proposals, targets=None):
        features = {k: 50 * v for k, v in features.items()}
        return super().forward(images, features, proposals, targets)


def test_features_that_a_forward_changes_are_those_that_rank():
    heads = build(_Scaled)
    mined, losses, _ = train_step(heads, *make_batch(0, [(3, 40)]))
    assert loss_of(mined) == pytest.approx(sum(losses.values()).item(), rel=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_features_that_a_hook_changes_are_those_that_rank(name):
    heads = make_heads(name=name)

    def scale(module, args):
        images, features, *rest = args
        return images, {k: 50 * v for k, v in features.items()}, *rest

    heads.register_forward_pre_hook(scale)
    seen = []
    heads.observers.append(seen.extend)
    _, losses, _ = train_step(heads, *batch_of(name))
    names = [n for n in losses if n in ("loss_cls", "loss_cls_stage0")]
    trained = losses[names[0]] + losses[names[0].replace("cls", "box_reg")]
    assert loss_of(seen) == pytest.approx(trained.item(), rel=1e-5)


def test_a_hook_that_changes_the_box_branch_is_noticed(caplog):
    heads = make_heads()
    heads.box_head.register_forward_hook(lambda module, args, output: 20 * output)
    batch = make_batch(0, [(3, 40)])
    train_step(heads, *batch)
    assert "but train with " in caplog.text
    assert "forward hooks are called while RoIs are read too from now on" in caplog.text
    mined, losses, _ = train_step(heads, *batch)
    assert loss_of(mined) == pytest.approx(sum(losses.values()).item(), rel=1e-5)
    assert caplog.text.count("from now on") == 1


class _OwnBranch(StandardROIHeads):
    def _forward_box(self, features, proposals):
        return super()._forward_box({k: 50 * v for k, v in features.items()}, proposals)


def test_a_box_branch_of_its_own_is_noticed_by_its_losses(caplog):
    heads = build(_OwnBranch)
    caplog.clear()
    mined, losses, _ = train_step(heads, *make_batch(0, [(3, 40)]))
    trained = sum(losses.values()).item()
    assert loss_of(mined) != pytest.approx(trained, rel=0.1)
    for number in (loss_of(mined), trained):
        assert f"{number:.4g}" in caplog.text
    assert "override read_boxes" in caplog.text


@pytest.mark.parametrize("name", FAMILIES)
def test_nothing_is_noticed_where_all_is_well(name, caplog):
    heads = make_heads("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 4, name=name)
    heads._fewest_at_a_time = 0
    train_step(heads, *batch_of(name))
    assert not caplog.text


class _Relation(nn.Module):
    """A box head in which RoIs see each other."""

    def __init__(self, head):
        super().__init__()
        self.head, self.output_shape = head, head.output_shape

    def forward(self, x):
        x = self.head(x)
        return x + 3 * (x - x.mean(dim=0))


@pytest.mark.parametrize("said", [True, False])
def test_rois_that_see_each_other_are_read_together(said, caplog):
    heads = make_heads()
    heads.box_head = _Relation(heads.box_head)
    heads.batch_size_per_image, heads._fewest_at_a_time = 4, 0
    heads.rois_see_each_other = said
    batch = make_batch(0, [(3, 40), (1, 30)])
    seen = spy_on_sampler(heads)
    train_step(heads, *batch)
    assert ("depends on the other RoIs" in caplog.text) != said
    whole = make_heads()
    whole.box_head = _Relation(whole.box_head)
    whole.batch_size_per_image = 1000
    with EventStorage():
        expected = whole.label_and_read_proposals(*batch)[1]
    torch.testing.assert_close(seen[0][0].loss_cls, expected.loss_cls)
    train_step(heads, *batch)
    assert caplog.text.count("depends on the other RoIs") == (not said)


# ---- reading leaves no trace


class _Observer(nn.Module):
    """As those of quantization: remembers the range of what it has seen."""

    def __init__(self):
        super().__init__()
        self.register_buffer("largest", torch.tensor(0.0))

    def forward(self, x):
        self.largest.copy_(torch.maximum(self.largest, x.detach().abs().max()))
        return x


def changed(heads, change):
    if change == "spectral norm":
        spectral_norm(heads.box_predictor.cls_score)
    elif change == "spectral norm as parametrization":
        parametrizations.spectral_norm(heads.box_predictor.cls_score)
    elif change == "observer":
        heads.box_head = nn.Sequential(heads.box_head, _Observer())
    elif change == "dropout":
        heads.box_head = nn.Sequential(heads.box_head, nn.Dropout(0.5))
    return heads


CHANGES = ["batch norm", "spectral norm", "spectral norm as parametrization", "observer", "dropout"]


@pytest.mark.parametrize("change", CHANGES)
def test_reading_is_not_noticed(change):
    heads = changed(make_heads(*(BN if change == "batch norm" else ())), change).train()
    before = copy.deepcopy(heads.state_dict())
    calls = []
    for module in heads.modules():
        module.register_forward_hook(lambda *_: calls.append(1))
        module.register_forward_pre_hook(lambda *_: calls.append(1))
    torch.manual_seed(0)
    state = torch.get_rng_state()
    with EventStorage() as storage:
        for _ in range(2):
            heads.label_and_read_proposals(*make_batch(0, [(3, 40)]))
    after = heads.state_dict()
    assert before.keys() == after.keys()
    assert all(v.equal(after[k]) for k, v in before.items())
    assert torch.get_rng_state().equal(state)
    assert storage.histories() == {}
    assert calls == []
    assert all(m.training for m in heads.modules())
    assert all(len(m._forward_hooks) == 1 for m in heads.modules())


def test_dropout_drops_nothing_while_rois_are_read():
    batch = make_batch(0, [(3, 40)])
    found = []
    for heads in (make_heads(), changed(make_heads(), "dropout")):
        with EventStorage():
            found.append(heads.train().label_and_read_proposals(*batch)[1].loss_cls)
    assert found[0].equal(found[1])


class DropPath(nn.Module):
    """As timm's: drops whole RoIs."""

    def forward(self, x):
        kept = torch.rand(len(x), *[1] * (x.dim() - 1)) < 0.5 if self.training else 1.0
        return kept * x


class _Attention(nn.MultiheadAttention):
    """Of each RoI to itself, which keeps what there is unless something is dropped."""

    def __init__(self, size):
        super().__init__(size, 1, dropout=0.5)

    def forward(self, x):
        return x + super().forward(*[x[:, None]] * 3)[0][:, 0]


@pytest.mark.parametrize("kind", [DropPath, _Attention])
def test_other_modules_that_drop_are_off(kind, caplog):
    batch = make_batch(0, [(3, 40)])
    heads = make_heads().train()
    size = heads.box_head.output_shape.channels
    heads.box_head = nn.Sequential(heads.box_head, kind(*[size] * (kind is _Attention)))
    found = []
    for seed in range(2):
        torch.manual_seed(seed)
        with EventStorage():
            found.append(heads.label_and_read_proposals(*batch)[1].loss_cls)
    assert found[0].equal(found[1])
    assert heads.box_head[1].training
    assert not caplog.text


class _Restless(nn.Module):
    """Draws random numbers of all kinds."""

    def forward(self, x):
        random.random()
        np.random.rand()
        return nn.functional.dropout(x)


def test_dropout_by_a_function_is_told_and_leaves_random_states(caplog):
    heads = make_heads().train()
    heads.box_head = nn.Sequential(heads.box_head, _Restless())
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    with EventStorage():
        for _ in range(2):
            heads.label_and_read_proposals(*make_batch(0, [(3, 40)]))
    assert random.getstate() == states[0]
    assert np.random.get_state()[1].tolist() == states[1]
    assert torch.get_rng_state().equal(states[2])
    assert caplog.text.count("draws random numbers while RoIs are read to rank them") == 1


def test_a_pruned_norm_is_read_as_it_is():
    batch = make_batch(0, [(3, 40)])
    pruned, plain = make_heads(*BN).train(), make_heads(*BN).train()
    norms = [next(m for m in x.modules() if isinstance(m, nn.BatchNorm2d)) for x in (pruned, plain)]
    prune.l1_unstructured(norms[0], "weight", amount=0.5)
    with torch.no_grad():  # as after a step of the optimizer
        norms[0].weight_orig.mul_(-3)
        norms[1].weight.copy_(norms[0].weight_orig * norms[0].weight_mask)
    found = []
    for heads in (pruned, plain):
        with EventStorage():
            found.append(heads.label_and_read_proposals(*batch)[1].loss_cls)
    assert found[0].equal(found[1])


def test_an_observer_of_torchs_quantization_sees_nothing():
    heads = make_heads().train()
    heads.box_head = nn.Sequential(heads.box_head, MovingAverageMinMaxObserver())
    before = copy.deepcopy(heads.state_dict())
    with EventStorage():
        heads.label_and_read_proposals(*make_batch(0, [(3, 40)]))
    assert all(v.equal(heads.state_dict()[k]) for k, v in before.items())


def test_a_pruned_layer_is_read_as_it_is():
    """Its weights are computed by a hook that comes with torch."""
    batch = make_batch(0, [(3, 40)])
    heads = make_heads()
    score = heads.box_predictor.cls_score
    prune.l1_unstructured(score, "weight", amount=0.5)
    with torch.no_grad():  # as after a step of the optimizer
        score.weight_orig.mul_(-1)
    mined, losses, _ = train_step(heads, *batch)
    assert loss_of(mined) == pytest.approx(sum(losses.values()).item(), rel=1e-5)


# ---- images without objects


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(
    "opts",
    [
        ("MODEL.ROI_HEADS.IOU_LABELS", [-1, 1]),
        ("MODEL.ROI_HEADS.OHEM.BG_IOU_LO", 0.1),
        ("MODEL.ROI_HEADS.OHEM.BG_IOU_LO", 0.1, "MODEL.ROI_HEADS.OHEM.CASCADE_STAGES", (0, 1, 2)),
    ],
)
def test_an_image_without_objects_is_all_background(name, opts):
    if len(opts) > 2 and name != "OHEMCascadeROIHeads":
        pytest.skip("the stages are those of a cascade")
    heads = make_heads(*opts, name=name)
    seen = []
    heads.observers.append(seen.append)
    train_step(heads, *batch_of(name, sizes=[(0, 30)]))
    for (mined,) in seen:
        assert len(mined) > 0
        assert (mined.gt_classes == BACKGROUND).all()


@pytest.mark.parametrize("budget", range(1, 12))
def test_half_of_a_budget_is_rounded_up(budget):
    heads = make_heads("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", budget)
    heads.sampler = MixedSampler(hard_fraction=0.5, nms_thresh=1.0)
    seen = []
    heads.observers.append(seen.extend)
    mined, _, _ = train_step(heads, *make_batch(0, [(0, 40)]))
    assert len(seen[0]) == math.ceil(budget / 2)
    assert len(mined[0]) == budget


# ---- passes without gradients


@pytest.mark.parametrize("name", FAMILIES)
def test_a_validation_loss_compares_with_that_of_the_extended_head(name):
    heads, plain, batch = make_family(name, 1, [(3, 60), (0, 10), (2, 40)])
    found = []
    for h in (heads, plain):
        torch.manual_seed(3)
        with torch.no_grad():
            found.append(train_step(h, *batch))
    (_, losses, logged), (_, plain_losses, plain_logged) = found
    assert losses.keys() == plain_losses.keys()
    assert all(v.equal(plain_losses[k]) for k, v in losses.items())
    assert logged == plain_logged


def test_a_teacher_may_mine_without_gradients():
    heads = make_heads()
    heads.mines_without_gradients = True
    with torch.no_grad():
        mined, _, logged = train_step(heads, *make_batch(0, [(3, 40)]))
    expected, _, _ = train_step(make_heads(), *make_batch(0, [(3, 40)]))
    assert mined[0].proposal_boxes.tensor.equal(expected[0].proposal_boxes.tensor)
    assert not [x for x in logged if "ohem" in x]


def test_statistics_are_those_of_the_rois_that_are_trained_on():
    heads = make_heads(*BN)
    with torch.no_grad():
        mined, _, _ = train_step(heads, *make_batch(0, [(3, 40)]))
    assert mined[0].has("ohem_loss_cls")


@pytest.mark.parametrize("use_reentrant", [True, False])
@pytest.mark.parametrize("iteration", [4, 5])
def test_a_checkpointed_step_takes_the_same_rois_twice(use_reentrant, iteration):
    heads = make_heads("MODEL.ROI_HEADS.OHEM.START_ITER", 5)
    (features, proposals, targets) = make_batch(0, [(3, 60)])
    features = {k: v.requires_grad_() for k, v in features.items()}
    chosen = []

    def step(*maps):
        given = dict(zip(features, maps))
        mined, losses = heads(None, given, copy.deepcopy(proposals), targets)
        chosen.append(mined[0].proposal_boxes.tensor)
        return sum(losses.values())

    heads.train()
    # All of it is computed again, also what nobody needs.
    with EventStorage(iteration), set_checkpoint_early_stop(False):
        checkpoint(step, *features.values(), use_reentrant=use_reentrant).backward()
    first, second = chosen
    assert first.equal(second)


# ---- heads as others call them


class _Branches(StandardROIHeads):
    """As Unbiased Teacher's: a further argument, on which what is returned depends."""

    @torch.no_grad()
    def label_and_sample_proposals(self, proposals, targets, branch=""):
        assert branch == "supervised"
        for x in targets:
            assert x.gt_scores is not None
        return super().label_and_sample_proposals(proposals, targets)

    def forward(self, images, features, proposals, targets=None):
        proposals = self.label_and_sample_proposals(proposals, targets, branch="supervised")
        return proposals, self._forward_box(features, proposals)


class _Ious(StandardROIHeads):
    """As Omni3D's: further arguments for the sampling."""

    def _sample_proposals(self, matched_idxs, matched_labels, gt_classes, matched_ious=None):
        assert matched_ious is not None
        return super()._sample_proposals(matched_idxs, matched_labels, gt_classes)

    @torch.no_grad()
    def label_and_sample_proposals(self, proposals, targets):
        chosen = []
        for p, t in zip(proposals, targets):
            matched, labels = self.proposal_matcher(torch.rand(len(t), len(p)))
            sampled, classes = self._sample_proposals(
                matched, labels, t.gt_classes, matched_ious=torch.zeros(len(p))
            )
            p = p[sampled]
            p.gt_classes, p.gt_boxes = classes, t.gt_boxes[matched[sampled]]
            p.gt_scores = t.gt_scores[matched[sampled]]
            chosen.append(p)
        return chosen


@pytest.mark.parametrize("base", [_Branches, _Ious])
def test_further_arguments_and_fields(base):
    features, proposals, targets = make_batch(0, [(3, 40)])
    targets[0].gt_scores = torch.rand(3)
    heads = build(base)
    mined, losses, _ = train_step(heads, features, proposals, targets)
    assert len(mined[0]) == 8
    assert mined[0].has("ohem_loss_cls")
    assert mined[0].has("gt_scores")
    sum(losses.values()).backward()


def test_masks_are_there_for_a_head_that_reads_them():
    class Reads(StandardROIHeads):
        def label_and_sample_proposals(self, proposals, targets):
            assert all(x.has("gt_masks") for x in targets)
            return super().label_and_sample_proposals(proposals, targets)

    batch = make_batch(0, [(3, 40)], masks=True)
    train_step(build(Reads), *batch)


def test_proposals_that_are_labelled_outside_of_a_forward(caplog):
    """As SparseDet does it: they are sampled as the extended head does."""
    heads, plain = make_heads(), make_heads(name="StandardROIHeads")
    _, proposals, targets = make_batch(0, [(3, 40)])
    found = []
    for h in (heads, plain):
        torch.manual_seed(0)
        with EventStorage():
            found.append(h.label_and_sample_proposals(copy.deepcopy(proposals), targets)[0])
    assert found[0].proposal_boxes.tensor.equal(found[1].proposal_boxes.tensor)
    assert "was called outside the heads' forward" in caplog.text


def test_heads_that_call_themselves():
    class Twice(StandardROIHeads):
        depth = 0

        def forward(self, images, features, proposals, targets=None):
            self.depth += 1
            if self.depth == 1:
                self(images, features, copy.deepcopy(proposals), targets)
            return super().forward(images, features, proposals, targets)

    mined, losses, _ = train_step(build(Twice), *make_batch(0, [(3, 40)]))
    assert loss_of(mined) == pytest.approx(sum(losses.values()).item(), rel=1e-5)


@pytest.mark.parametrize("value", [True, 1, "yes", None])
def test_a_switch_in_place_of_keys(value):
    cfg = make_cfg()
    cfg.MODEL.ROI_HEADS.OHEM = value
    with pytest.raises(InputError, match=r"OHEM is .*, expected keys below it: SAMPLER, NMS_"):
        OHEMROIHeads(cfg, SHAPES)


class _Watcher:
    def __init__(self):
        self.lock = (x for x in ())  # which cannot be copied

    def look(self, mined):
        pass


def test_a_copy_is_watched_by_nobody():
    heads = make_heads()
    heads.observers.append(_Watcher().look)
    train_step(heads, *make_batch(0, [(3, 40)]))
    average = copy.deepcopy(heads)
    assert average.observers == []
    assert len(heads.observers) == 1
    batch = make_batch(0, [(3, 40)])
    assert train_step(average, *batch)[1]["loss_cls"].equal(
        train_step(heads, *batch)[1]["loss_cls"]
    )


def test_options_that_are_replaced_during_a_training():
    heads = make_heads("MODEL.ROI_HEADS.OHEM.START_ITER", 1000)
    batch = make_batch(0, [(3, 40), (0, 20)])
    assert not train_step(heads, *batch)[0][0].has("ohem_loss_cls")
    heads.ohem = OHEMOptions(hard_fraction=1.0, bg_iou_lo=0.2)
    mined, _, _ = train_step(heads, *batch)
    assert mined[0].has("ohem_loss_cls")
    assert heads.sampler == MixedSampler(hard_fraction=1.0)
    heads.ohem = OHEMOptions(sampler="OHEMSampler")
    assert 0.2 not in heads.proposal_matcher.thresholds


@pytest.mark.parametrize("grad", [True, False])
def test_teacher_and_student_take_the_same_rois(grad):
    student, teacher = make_heads(seed=1), make_heads(seed=2)
    shared = SharedSampler(student.sampler)
    student.sampler, teacher.sampler = shared, shared.follower
    teacher.mines_without_gradients = True
    batch = make_batch(0, [(3, 40), (1, 30)])
    of_student = train_step(student, *copy.deepcopy(batch))[0]
    with torch.set_grad_enabled(grad):
        of_teacher = train_step(teacher, *copy.deepcopy(batch))[0]
    for a, b in zip(of_student, of_teacher):
        assert a.proposal_boxes.tensor.equal(b.proposal_boxes.tensor)
        assert not a.ohem_loss_cls.equal(b.ohem_loss_cls)
    with pytest.raises(InputError, match="received different RoIs .*, and a MAX_CANDIDATES of 0"):
        train_step(teacher, *make_batch(5, [(3, 40), (1, 30)]))


def test_a_follower_without_anyone_to_follow():
    heads = make_heads()
    heads.sampler = SharedSampler(heads.sampler).follower
    with pytest.raises(InputError, match="was called before its SharedSampler"):
        train_step(heads, *make_batch(0, [(3, 40)]))


def test_heads_whose_weights_are_shared_out_read_once(monkeypatch):
    """However many RoIs a process has: each read gathers the weights from all."""
    monkeypatch.setattr("ohem_d2.modeling.self_check.is_sharded", lambda heads: True)
    numbers = []
    for size in (400, 10, 0):
        heads = make_heads("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 4)
        heads._fewest_at_a_time = 0
        calls, read_boxes = [], heads.read_boxes
        heads.read_boxes = lambda *a, calls=calls, read=read_boxes: calls.append(1) or read(*a)
        train_step(heads, *make_batch(0, [(2, size)]))
        numbers.append(len(calls))
    assert numbers == [1, 1, 1]


def test_box_voting_does_not_call_a_box_branch_of_its_own(caplog):
    build(_OwnBranch, opts=("TEST.BOX_VOTING.ROUNDS", 2))
    assert "which TEST.BOX_VOTING does not call" in caplog.text


def test_instances_are_what_they_were():
    """Proposals and targets that are handed in are left as they are."""
    features, proposals, targets = make_batch(0, [(3, 40)], masks=True)
    fields = [set(x.get_fields()) for x in (*proposals, *targets)]
    train_step(make_heads(masks=True), features, proposals, targets)
    assert [set(x.get_fields()) for x in (*proposals, *targets)] == fields
    assert isinstance(proposals[0], Instances)


# ---- the order of RoIs


def test_rois_come_back_by_image_with_hard_examples_first(monkeypatch):
    """As `OHEMMixin` and `Selection` say: from Detectron2's heads, foreground comes first."""
    seen, trained = [], []

    def backwards(candidates, budget):
        indices = torch.arange(len(candidates.labels)).flip(0)[:20]
        seen.append((candidates, indices))
        return Selection(indices, is_hard=indices % 2 == 0)

    heads = make_heads()
    heads.sampler, heads.batch_size_per_image = backwards, 100
    forward_box = heads._forward_box
    monkeypatch.setattr(
        heads, "_forward_box", lambda *x: (trained.append(x[1]), forward_box(*x))[1]
    )
    train_step(heads, *make_batch(0, [(3, 12), (2, 12)]))
    [(candidates, indices)], [of_images] = seen, trained
    for i, found in enumerate(of_images):
        of_image = [n for n in indices.tolist() if candidates.image_ids[n] == i]
        assert len(of_image) > 3
        ordered = [n for n in of_image if n % 2 == 0] + [n for n in of_image if n % 2]
        assert found.proposal_boxes.tensor.equal(candidates.boxes[ordered])
