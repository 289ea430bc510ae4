"""A resumed training is the training that was not interrupted, bit by bit."""

import io
import itertools
import logging
import multiprocessing
import random
import tempfile
from contextlib import suppress
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from detectron2.config import instantiate
from detectron2.data import DatasetCatalog, DatasetMapper, build_detection_train_loader
from detectron2.data import transforms as T
from detectron2.data.samplers import (
    RandomSubsetTrainingSampler,
    RepeatFactorTrainingSampler,
    TrainingSampler,
)
from detectron2.engine import DefaultTrainer, HookBase
from detectron2.modeling.meta_arch import FCOS
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from fvcore.common.checkpoint import Checkpointer
from small_detectors import make_detector, make_inputs
from small_detectors import step as run_step
from small_heads import make_heads
from small_training import (
    PERIOD,
    SAMPLING,
    STEPS,
    WORKERS,
    Kill,
    Killed,
    assert_same,
    config,
    register_images,
    train,
    weights,
)
from torch import nn

from ohem_d2 import OHEMFCOS
from ohem_d2.errors import InputError
from ohem_d2.training.config_file import CONFIGS
from ohem_d2.training.data_loader import ResumableLoader
from ohem_d2.training.interruption import ResumeHook
from ohem_d2.training.lazy_config import load_lazy_config
from ohem_d2.training.lazy_trainer import build_trainer
from ohem_d2.training.random_state import keep_random_state, random_state, set_random_state
from ohem_d2.training.trainer import Trainer

RETINANET = (
    "MODEL.BACKBONE.NAME", "build_retinanet_resnet_fpn_backbone",
    "MODEL.RESNETS.OUT_FEATURES", ("res3", "res4", "res5"),
    "MODEL.FPN.IN_FEATURES", ("res3", "res4", "res5"),
    "MODEL.ANCHOR_GENERATOR.SIZES", ((16,), (32,), (64,), (128,), (256,)),
    "MODEL.RETINANET.NUM_CLASSES", 2,
    "MODEL.RETINANET.NUM_CONVS", 1,
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return register_images(tmp_path_factory.mktemp("images"))


# ------------------------------------------------------------------------------ the random states


def draw():
    return torch.rand(3).tolist(), np.random.normal(size=3).tolist(), random.gauss(0, 1)


def test_random_states():
    random.gauss(0, 1)  # of two that are drawn, one is kept for later, here and in numpy
    np.random.normal()
    state = random_state()
    expected = draw()
    assert draw() != expected
    set_random_state(copied(state))
    with keep_random_state():
        draw()
    assert draw() == expected


def copied(state):
    """Nothing but plain values: torch loads them from any file, without running code."""
    torch.save(state, file := io.BytesIO())
    file.seek(0)
    return torch.load(file, weights_only=True)


# -------------------------------------------------------------------------------------- the loader


def samplers(size):
    factors = torch.linspace(1, 2.5, size)
    return {
        "all": TrainingSampler(size),
        "by repeat factors": RepeatFactorTrainingSampler(factors),
        "a subset": RandomSubsetTrainingSampler(size, 0.8),
    }


def build_loader(dataset, workers, grouping=True, sampler="all", batch_size=3, **kwargs):
    records = DatasetCatalog.get(dataset)
    augmentations = [T.RandomFlip(), T.RandomBrightness(0.5, 1.5)]
    return build_detection_train_loader(
        records,
        mapper=DatasetMapper(is_train=True, augmentations=augmentations, image_format="BGR"),
        sampler=samplers(len(records))[sampler],
        total_batch_size=batch_size,
        aspect_ratio_grouping=grouping,
        num_workers=workers,
        **kwargs,
    )


def taken(iterator, number):
    """What a model would see of the next batches."""
    batches = itertools.islice(iterator, number)
    return [[(x["file_name"], x["image"].sum().item()) for x in batch] for batch in batches]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("grouping", [True, False])
def test_an_uninterrupted_training_sees_what_it_saw_before(dataset, workers, grouping):
    seen = []
    for wrap in (iter, lambda loader: iter(ResumableLoader(loader))):
        seed_all_rng(7)
        iterator = wrap(build_loader(dataset, workers, grouping))
        seen.append((taken(iterator, 9), draw()))
    assert seen[0] == seen[1]


@pytest.mark.parametrize(
    ("workers", "grouping", "sampler"),
    [
        *((n, grouping, "all") for n in (0, 2, 3) for grouping in (True, False)),
        (1, True, "all"),
        (0, True, "by repeat factors"),
        (2, False, "a subset"),
    ],
)
def test_a_loader_goes_on_where_it_was(dataset, workers, grouping, sampler):
    seed_all_rng(7)
    expected = taken(ResumableLoader(build_loader(dataset, workers, grouping, sampler)), 8)
    seed_all_rng(7)
    loader = ResumableLoader(build_loader(dataset, workers, grouping, sampler))
    seen = []
    for number in (0, 1, 2, 4, 1):  # interrupted again and again, by others with other seeds
        iterator = iter(loader)
        seen += taken(iterator, number)
        state = copied({"loader": loader.state_dict(), "random": random_state()})
        seed_all_rng(len(seen))
        loader = ResumableLoader(build_loader(dataset, workers, grouping, sampler))
        loader.load_state_dict(state["loader"])
        assert loader.state_dict()["position"] == state["loader"]["position"]
        set_random_state(state["random"])
    assert seen == expected


def test_what_is_held_back_is_kept_in_the_order_of_its_coming(dataset):
    loader = ResumableLoader(build_loader(dataset, 0, batch_size=4))
    next(iter(loader))
    waiting = loader.state_dict()["waiting"]
    assert 0 < len(waiting) <= 6
    assert all(isinstance(index, int) for index, _ in waiting)


@pytest.mark.parametrize("grouping", [True, False])
def test_workers_end_with_their_loader(dataset, grouping):
    iterator = iter(ResumableLoader(build_loader(dataset, 2, grouping)))
    next(iterator)
    assert len(multiprocessing.active_children()) == 2
    del iterator
    assert not multiprocessing.active_children()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"workers": 1}, "the number of workers was 2 and is 1"),
        ({"batch_size": 2}, "the number of images in a step of a process was 3 and is 2"),
        ({"sampler": "a subset"}, "the sampler was TrainingSampler and is RandomSubset"),
        ({"grouping": False}, "grouping by aspect ratio was True and is False"),
    ],
)
def test_another_loader_goes_on_after_as_many_images(dataset, changed, words, caplog):
    loader = ResumableLoader(build_loader(dataset, 2))
    assert len(taken(iter(loader), 4)) == 4
    state = loader.state_dict()
    other = ResumableLoader(build_loader(dataset, **{"workers": 2, **changed}))
    with caplog.at_level(logging.WARNING):
        other.load_state_dict(state)
    assert words in caplog.text
    size = 1 if changed.get("grouping", True) else 3
    assert other.state_dict()["position"] == state["position"] // size
    assert len(taken(iter(other), 2)) == 2


def test_a_loader_that_is_not_detectron2s(dataset, caplog):
    loader = ResumableLoader([1, 2, 3])
    stream = iter(loader)
    assert [*itertools.islice(stream, 3)] == [1, 2, 3]
    with pytest.raises(InputError, match=r"that builtins.list gives end after 3 batches, expected"):
        next(stream)
    with caplog.at_level(logging.WARNING):
        loader.load_state_dict(loader.state_dict())
    assert "The training images start anew" in caplog.text


# ------------------------------------------------------------------------------------ the training


@pytest.mark.parametrize(
    "opts",
    [
        (),
        WORKERS,
        SAMPLING,
        (*SAMPLING, *WORKERS, "DATALOADER.SAMPLER_TRAIN", "RepeatFactorTrainingSampler"),
        (*WORKERS, "DATALOADER.ASPECT_RATIO_GROUPING", False),
        ("MODEL.ROI_HEADS.OHEM.SCOPE", "batch", "MODEL.ROI_HEADS.OHEM.START_ITER", 4),
    ],
    ids=lambda opts: "-".join(map(str, opts)) or "mining",
)
def test_a_killed_training(tmp_path, dataset, opts):
    train(config(tmp_path / "whole", dataset, *opts))
    expected = weights(tmp_path / "whole")
    cfg = config(tmp_path / "killed", dataset, *opts)
    for step in (3, 4):
        assert train(cfg, kill_at=step, resume=step > 3).iter == step
    resumed = train(cfg, resume=True)
    assert resumed.start_iter == 4
    assert_same(weights(tmp_path / "killed"), expected)


@pytest.mark.parametrize("kind", ["OHEMRetinaNet", "RetinaNet"])
def test_a_killed_training_of_a_one_stage_detector(tmp_path, dataset, kind):
    """What its losses are divided by is averaged over steps, and in no state_dict."""
    opts = (*SAMPLING, "MODEL.META_ARCHITECTURE", kind, *RETINANET)
    whole = train(config(tmp_path / "whole", dataset, *opts))
    cfg = config(tmp_path / "killed", dataset, *opts)
    train(cfg, kill_at=4)
    resumed = train(cfg, resume=True)
    assert resumed.model.loss_normalizer == whole.model.loss_normalizer
    assert_same(weights(tmp_path / "killed"), weights(tmp_path / "whole"))


@pytest.mark.parametrize("kind", [OHEMFCOS, FCOS])
def test_what_the_losses_of_fcos_are_divided_by(kind):
    trained = make_detector(kind)
    hook = ResumeHook(Checkpointer(trained), PERIOD)
    run_step(trained, make_inputs(0, (2, 1)))
    hook.trainer = SimpleNamespace(model=trained, data_loader=[], iter=0)
    state = hook.state_dict()
    hook.trainer.model = resumed = make_detector(kind)
    hook.load_state_dict(state)
    assert resumed.loss_normalizer == trained.loss_normalizer < 300


def test_what_heads_found_out_about_themselves():
    heads = [make_heads(), make_heads()]
    hook = ResumeHook(Checkpointer(heads[0]), PERIOD)
    heads[0].load_found_out({"calls_hooks": True, "rois_see_each_other": True})
    hook.trainer = SimpleNamespace(model=nn.Sequential(heads[0]), data_loader=[], iter=0)
    state = hook.state_dict()
    hook.trainer.model = nn.Sequential(heads[1])
    hook.load_state_dict(state)
    assert heads[1].found_out() == heads[0].found_out()
    assert heads[1]._reader.calls_hooks
    assert heads[1].rois_see_each_other
    heads[1].load_found_out(make_heads().found_out())  # which one may also set by oneself
    assert heads[1].rois_see_each_other


def test_a_checkpoint_of_an_older_version_of_a_one_stage_detector(tmp_path, dataset, caplog):
    opts = (*SAMPLING, "MODEL.META_ARCHITECTURE", "OHEMRetinaNet", *RETINANET)
    cfg = config(tmp_path, dataset, *opts)
    train(cfg, kill_at=4)
    file = tmp_path / (tmp_path / "last_checkpoint").read_text()
    checkpoint = torch.load(file)
    (state,) = checkpoint["trainer"]["hooks"]["ResumeHook"]["processes"]
    del state["normalizers"]
    torch.save(checkpoint, file)
    with caplog.at_level(logging.WARNING):
        train(cfg, resume=True)
    assert "does not hold what losses are divided by (loss_normalizer of OHEMRet" in caplog.text


class Draws(HookBase):
    """Draws what a hook may draw between two steps."""

    def after_step(self):
        draw()


def test_what_comes_between_steps_does_not_matter(tmp_path, dataset):
    """As an evaluation, which a training that is resumed behind it does not repeat."""
    train(config(tmp_path / "whole", dataset))
    cfg = config(tmp_path / "killed", dataset)
    train(cfg, kill_at=PERIOD, hooks=[Draws()])
    train(cfg, resume=True, hooks=[Draws()])
    assert_same(weights(tmp_path / "killed"), weights(tmp_path / "whole"))


def test_a_checkpoint_without_states(tmp_path, dataset, caplog):
    """One of Detectron2's, or of an older version."""
    cfg = config(tmp_path, dataset)
    train(cfg, kill_at=3)
    (file,) = tmp_path.glob("model_*.pth")
    checkpoint = torch.load(file)
    del checkpoint["trainer"]["hooks"]["ResumeHook"]
    torch.save(checkpoint, file)
    with caplog.at_level(logging.WARNING):
        train(cfg, resume=True)
    assert "neither random states nor a place in the training images" in caplog.text


def test_the_optimizer_is_that_of_the_checkpoint(tmp_path, dataset):
    train(config(tmp_path, dataset), kill_at=3)
    trainer = Trainer(config(tmp_path, dataset, "SOLVER.BASE_LR", 0.5, "SOLVER.MOMENTUM", 0.1))
    trainer.resume_or_load(resume=True)
    assert set(trainer.scheduler.base_lrs) == {0.002}
    assert {group["momentum"] for group in trainer.optimizer.param_groups} == {0.9}
    words = "base_lrs is of length 2, expected 4 of them, .* by SOLVER.BIAS_LR_FACTOR 2.0, "
    with pytest.raises(InputError, match=words):
        Trainer(config(tmp_path, dataset, "SOLVER.BIAS_LR_FACTOR", 2.0)).resume_or_load(resume=True)


def test_detectron2_resumes_from_it_too(tmp_path, dataset):
    cfg = config(tmp_path, dataset, *SAMPLING)
    train(cfg, kill_at=3)
    trainer = DefaultTrainer(cfg)
    trainer.resume_or_load(resume=True)
    assert trainer.start_iter == 2
    assert_same(trainer.model.state_dict(), torch.load(tmp_path / "model_0000001.pth")["model"])


# ------------------------------------------------------------------------------- Python configs


def train_lazily(folder, dataset, workers, kill_at=None, resume=False):
    """As `ohem_d2.training.lazy_trainer.run` does it."""
    cfg = load_lazy_config(
        str(CONFIGS / "mask_rcnn_R_50_FPN_1x_ohem.py"),
        [
            f"train.output_dir={folder}",
            "train.max_iter=4",
            "train.checkpointer.period=1",
            "train.checkpointer.max_to_keep=1",
            "train.device=cpu",
            f"dataloader.train.dataset.names={dataset}",
            "dataloader.train.mapper.use_instance_mask=false",
            "dataloader.train.mapper.augmentations.0.short_edge_length=[48,56,64]",
            "dataloader.train.total_batch_size=3",
            f"dataloader.train.num_workers={workers}",
            "dataloader.test.dataset.names=[]",
            "lr_multiplier.warmup_length=0.5",
            "model.roi_heads.num_classes=2",
            "model.roi_heads.mask_in_features=null",
            "model.backbone.bottom_up.freeze_at=0",
            "model.backbone.bottom_up.stem.norm=BN",
            "model.backbone.bottom_up.stages.norm=BN",
            "train.eval_period=0",
            # A small model, whose checkpoints are quickly written.
            "model.backbone.bottom_up.stages.depth=18",
            "model.roi_heads.box_head.fc_dims=[64]",
            "model.roi_heads.box_predictor.input_shape.channels=64",
        ],
    )
    cfg.model.backbone.bottom_up.stages.pop("stride_in_1x1")  # ResNet-18 has no such blocks
    cfg.dataloader.pop("evaluator")
    seed_all_rng(5 if resume else 1)
    trainer, checkpointer = build_trainer(cfg, instantiate(cfg.model))
    if kill_at is not None:
        trainer.register_hooks([Kill(kill_at)])
    checkpointer.resume_or_load("", resume=resume)
    with suppress(Killed):
        trainer.train(trainer.iter + 1 if resume else 0, cfg.train.max_iter)
    del trainer, checkpointer
    assert not multiprocessing.active_children()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_a_python_config(tmp_path, dataset, workers):
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    train_lazily(tmp_path / "whole", dataset, workers)
    train_lazily(tmp_path / "killed", dataset, workers, kill_at=2)
    assert (tmp_path / "killed" / "last_checkpoint").read_text() == "model_0000001.pth"
    train_lazily(tmp_path / "killed", dataset, workers, resume=True)
    assert_same(weights(tmp_path / "killed"), weights(tmp_path / "whole"))


# -------------------------------------------------------------------------------- two processes


def work(rank, folder, store, opts, kill_at, resume):
    """One of two processes."""
    torch.distributed.init_process_group("gloo", f"file://{store}", rank=rank, world_size=2)
    comm.create_local_process_group(2)
    dataset = register_images(folder / f"images_{rank}")
    train(config(folder, dataset, *opts), kill_at, resume)


def run_on_two(folder, opts, kill_at=None, resume=False):
    """Both are killed at the same step."""
    folder.mkdir(exist_ok=True)
    context = multiprocessing.get_context("fork")  # which need not import anything
    args = (folder, tempfile.mktemp(dir=folder), opts, kill_at, resume)
    processes = [context.Process(target=work, args=(rank, *args)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(180)
        assert process.exitcode == 0


@pytest.mark.slow
@pytest.mark.parametrize("opts", [(), (*WORKERS, *SAMPLING)], ids=["mining", "workers"])
def test_two_processes(tmp_path, opts):
    run_on_two(tmp_path / "whole", opts)
    run_on_two(tmp_path / "killed", opts, kill_at=STEPS - 2)
    assert (tmp_path / "killed" / "last_checkpoint").read_text() == "model_0000003.pth"
    run_on_two(tmp_path / "killed", opts, resume=True)
    assert_same(weights(tmp_path / "killed"), weights(tmp_path / "whole"))
    states = torch.load(tmp_path / "whole" / "model_final.pth")["trainer"]["hooks"]["ResumeHook"]
    first, second = states["processes"]
    assert first["random"] != second["random"]
    assert "sampler" in first["loader"]
    assert "sampler" not in second["loader"]
