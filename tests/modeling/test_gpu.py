"""A GPU mines as the CPU does: `pytest -m gpu` where there is one."""

import copy

import pytest
import torch
from counting import synchronizations
from detectron2.utils.events import EventStorage
from mined_rois import set_options
from small_heads import make_batch, make_heads
from small_models import ZOO, build, make_inputs, step

pytestmark = pytest.mark.gpu

SIZES = [(3, 200), (0, 60), (2, 150)]
# Those that run without Detectron2's compiled part, which has rotated boxes.
HEADS = ["OHEMROIHeads", "OHEMCascadeROIHeads", "OHEMRes5ROIHeads"]
MODELS = [
    "COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml",
    "COCO-Detection/faster_rcnn_R_50_C4_1x.yaml",
    "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml",
    "COCO-InstanceSegmentation/mask_rcnn_R_50_C4_1x.yaml",
    "COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x.yaml",
    "Misc/cascade_mask_rcnn_R_50_FPN_1x.yaml",
]


@pytest.fixture(autouse=True)
def _full_precision():
    """Not TF32, with which losses differ in the third digit, and hard examples with them."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def on_gpu(batch):
    features, *instances = batch
    return {k: v.cuda() for k, v in features.items()}, *(
        [x.to("cuda") for x in y] for y in instances
    )


def heads_and_batch(name="OHEMROIHeads", masks=False, **options):
    """The same heads and the same batch on the CPU and on the GPU."""
    heads = make_heads("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 32, name=name, masks=masks)
    set_options(heads, **options)
    batch = make_batch(0, SIZES, masks=masks)
    return (heads, batch), (copy.deepcopy(heads).cuda(), on_gpu(copy.deepcopy(batch)))


def train(heads, batch):
    """The RoIs that a step trains on, its losses and its gradients."""
    heads.train()
    with EventStorage():
        rois, losses = heads(None, *batch)
    heads.zero_grad()
    sum(losses.values()).backward()
    gradients = {k: p.grad.cpu() for k, p in heads.named_parameters() if p.grad is not None}
    return rois, {k: v.detach().cpu() for k, v in losses.items()}, gradients


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("masks", [False, True])
def test_reads_selects_and_trains_as_the_cpu(name, masks):
    found = []
    for heads, batch in heads_and_batch(name, masks, hard_fraction=1.0):
        with EventStorage():
            _, candidates = heads.label_and_read_proposals(*batch)
        found.append((candidates, *train(heads, batch)))
    (candidates, rois, losses, gradients), (of_gpu, rois_gpu, losses_gpu, gradients_gpu) = found
    for field in ("boxes", "labels", "image_ids", "loss_cls", "loss_box_reg", "ious"):
        expected = getattr(candidates, field)
        torch.testing.assert_close(getattr(of_gpu, field).cpu(), expected, rtol=1e-4, atol=1e-5)
    for mine, theirs in zip(rois, rois_gpu):
        assert len(mine) == len(theirs)
        assert theirs.proposal_boxes.tensor.is_cuda
        torch.testing.assert_close(theirs.proposal_boxes.tensor.cpu(), mine.proposal_boxes.tensor)
        assert theirs.gt_classes.cpu().equal(mine.gt_classes)
    assert losses.keys() == losses_gpu.keys()
    for k, loss in losses.items():
        torch.testing.assert_close(losses_gpu[k], loss, rtol=1e-4, atol=1e-5)
    assert gradients.keys() == gradients_gpu.keys()
    for k, g in gradients.items():
        scale = max(g.abs().max().item(), 1e-3)
        assert (gradients_gpu[k] - g).abs().max() <= 1e-3 * scale, k


@pytest.mark.parametrize(
    "options",
    [
        {"sampler": "RandomSampler"},
        {"sampler": "OHEMSampler"},
        {"sampler": "OHEMSampler", "scope": "batch", "max_foreground_fraction": 0.25},
        {"sampler": "MixedSampler"},
        {"sampler": "MixedSampler", "scope": "batch", "max_candidates": 50},
    ],
    ids=lambda x: " ".join(map(str, x.values())),
)
def test_samplers(options):
    """What is hard is the same; what is drawn is of the same number, and nothing twice."""
    selections = []
    for heads, batch in heads_and_batch(**options):
        torch.manual_seed(0)
        with EventStorage():
            _, candidates = heads.label_and_read_proposals(*batch)
        selections.append(heads.sampler(candidates, 32))
    mine, theirs = selections
    assert theirs.indices.is_cuda
    assert len(theirs.indices) == len(mine.indices) == len(theirs.indices.unique())
    hard, hard_gpu = (x.indices if x.is_hard is None else x.indices[x.is_hard] for x in selections)
    assert hard_gpu.tolist() == hard.tolist()


@pytest.mark.parametrize("path", MODELS)
@pytest.mark.parametrize("amp", [False, True])
def test_models_train(path, amp, caplog):
    """A few steps in float32 and in mixed precision, without a warning of differing losses."""
    torch.manual_seed(0)
    model = build(ZOO / path, mining=True).cuda()
    inputs = make_inputs(model, torch.Generator().manual_seed(1))
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    scaler = torch.amp.GradScaler("cuda", enabled=amp)
    for _ in range(3):
        with torch.autocast("cuda", torch.float16, enabled=amp):
            losses = step(model, inputs)
        assert all(x.isfinite() for x in losses.values()), losses
        optimizer.zero_grad()
        scaler.scale(sum(losses.values())).backward()
        scaler.step(optimizer)
        scaler.update()
    assert not [r for r in caplog.records if r.name.startswith("ohem_d2")]
    model.eval()
    with torch.no_grad():
        assert len(model(inputs)[0]["instances"]) > 0


@pytest.mark.parametrize("images", [1, 3])
def test_mining_waits_for_the_gpu_a_few_times_more(images):
    """However many RoIs: for pooling, suppression, the sizes and what is logged."""
    numbers = {}
    for start_iter in (0, 10):  # mining, and Detectron2's sampling
        _, (heads, (features, *rest)) = heads_and_batch(start_iter=start_iter)
        batch = {k: v[:images] for k, v in features.items()}, *(x[:images] for x in rest)
        for _ in range(2):  # the first step compares losses
            train(heads, batch)

        def step_alone(heads=heads, batch=batch):
            with EventStorage():
                heads(None, *batch)

        numbers[start_iter] = synchronizations(step_alone, torch.device("cuda"))
    assert numbers[0] <= numbers[10] + 12 + images, numbers
