"""What is tried before a run: augmentations, an image, the first step."""

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.data import DatasetCatalog, DatasetMapper, build_detection_test_loader
from detectron2.data import transforms as T
from detectron2.engine import HookBase
from detectron2.modeling import GeneralizedRCNN, build_model
from omegaconf import OmegaConf
from small_models import SHRINK_OPTS
from small_training import config, register_images

from ohem_d2.errors import InputError
from ohem_d2.training import lazy_trainer
from ohem_d2.training.config_file import load_config
from ohem_d2.training.data_loader import try_batch
from ohem_d2.training.lazy_trainer import _test_loader
from ohem_d2.training.named_settings import named_settings
from ohem_d2.training.random_state import random_state
from ohem_d2.training.trainer import Trainer
from ohem_d2.training.trial import name_first_step, try_augmentations, try_losses, try_model

FPN = "COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml"


@pytest.mark.parametrize(
    ("augmentation", "message"),
    [
        (T.ResizeShortestEdge((128, 96), sample_style="range"), "ResizeShortestEdge.* low >= high"),
        (T.RandomCrop("relative", (0.0001, 0.5)), "RandomCrop.*fails .nothing is left of it"),
        (
            T.RandomCrop("absolute_range", (300, 200)),
            r"RandomCrop.* fails \(AssertionErr",
        ),
        (T.ResizeShortestEdge(("a",), 9, "choice"), "ResizeShortestEdge.* fails"),
    ],
)
def test_augmentations_that_fail(augmentation, message):
    with pytest.raises(InputError, match=f"^KEYS cannot be applied to an image .*{message}"):
        try_augmentations([T.RandomFlip(), augmentation], "KEYS")


@pytest.mark.parametrize("augmentation", ["RandomFlip", T.RandomFlip, T.RandomFlip().get_transform])
def test_what_is_no_augmentation(augmentation):
    with pytest.raises(InputError, match=r"^KEYS has .*RandomFlip.*, expected one of .*augmentat"):
        try_augmentations([T.RandomFlip(), augmentation], "KEYS")


def test_augmentations_that_work_leave_the_random_state_alone():
    class OfMine(T.Augmentation):
        def get_transform(self, image):
            pytest.fail("it may expect more than an image")

    state = random_state()
    crop = T.RandomCrop("relative_range", (0.5, 0.5))
    try_augmentations([crop, T.ResizeShortestEdge((64, 96), 100, "range"), T.RandomFlip()], "KEYS")
    try_augmentations([OfMine(), T.ResizeShortestEdge((2, 1), sample_style="range")], "KEYS")
    assert random_state() == state


@pytest.mark.parametrize(
    "name",
    ["COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml", "COCO-Detection/fast_rcnn_R_50_FPN_1x.yaml",
     "COCO-Detection/retinanet_R_50_FPN_1x.yaml", "COCO-Detection/rpn_R_50_C4_1x.yaml",
     "COCO-InstanceSegmentation/mask_rcnn_R_50_C4_1x.yaml",
 "Misc/semantic_R_50_FPN_1x.yaml",
     "COCO-PanopticSegmentation/panoptic_fpn_R_50_1x.yaml"],
)  # fmt: skip
def test_a_model_is_as_before(name):
    model = build_model(load_config(name, SHRINK_OPTS))
    model.backbone.eval()  # a part that is not to learn
    state, modes = random_state(), [m.training for m in model.modules()]
    before = {k: v.clone() for k, v in model.state_dict().items()}
    try_model(model, named_settings("x.yaml", {}))
    assert random_state() == state
    assert modes == [m.training for m in model.modules()]
    assert all(v.equal(before[k]) for k, v in model.state_dict().items())


def test_a_model_that_cannot_detect_names_its_settings():
    opts = [*SHRINK_OPTS, "MODEL.ANCHOR_GENERATOR.NAME", "RotatedAnchorGenerator"]
    cfg = load_config(FPN, opts)
    model = build_model(cfg)
    with pytest.raises(InputError, match="^.*GENERATOR.NAME is 'Rotated.* be evaluated: Run"):
        try_model(model, named_settings("x.yaml", cfg, opts[-2:], verb="evaluated"))
    assert model.training


def test_a_model_with_a_part_of_the_users_is_left_alone():
    class Mine(GeneralizedRCNN):
        def forward(self, images):
            pytest.fail("it may expect other input")

    model = build_model(load_config(FPN, SHRINK_OPTS))
    model.__class__ = Mine
    try_model(model, named_settings("x.yaml", {}))


@pytest.mark.parametrize("part", ["backbone.bottom_up.res2.0.conv1", "roi_heads.box_head.fc2"])
@pytest.mark.parametrize("value", [1e38, 1e15])
def test_weights_with_which_numbers_overflow(part, value):
    model = build_model(load_config(FPN, SHRINK_OPTS))
    model.get_submodule(part).weight.data.fill_(value)
    message = rf"^KEY: 'x.pth': of a black image, {part}(.norm)? makes numbers .* did not diverge$"
    with pytest.raises(InputError, match=message):
        try_model(model, named_settings("x.yaml", {}), "KEY: 'x.pth'")
    assert not torch.nn.modules.module._global_forward_hooks


class Break(HookBase):
    """Lets Detectron2's own code fail in a step."""

    def __init__(self, step):
        self._step = step

    def before_step(self):
        if self.trainer.iter == self._step:
            self.trainer._trainer.optimizer = None


@pytest.mark.parametrize(
    ("step", "error", "message"),
    [
        (
            0,
            InputError,
            "x.yaml, .* cannot be trained: AttributeError: 'NoneType' .*detect",
        ),
        (1, AttributeError, "^'NoneType' object has no attribute"),
    ],
)
def test_the_first_step_names_its_settings(tmp_path, caplog, step, error, message):
    cfg = config(tmp_path, register_images(tmp_path), "SOLVER.MAX_ITER", 2)
    trainer = Trainer(cfg)
    trainer.register_hooks([Break(step)])
    name_first_step(trainer, named_settings("x.yaml", cfg, verb="trained"))
    with pytest.raises(error, match=message):
        trainer.train()
    assert ("Exception during training" in caplog.text) == (step == 1)


def test_nothing_is_evaluated_if_the_only_step_fails(tmp_path, monkeypatch):
    cfg = config(tmp_path, register_images(tmp_path), "SOLVER.MAX_ITER", 1)
    trainer = Trainer(cfg)
    trainer.register_hooks([Break(0)])
    monkeypatch.setattr(trainer, "test", lambda *args: pytest.fail("it is evaluated"))
    name_first_step(trainer, named_settings("x.yaml", cfg, verb="trained"))
    with pytest.raises(InputError, match="cannot be trained"):
        trainer.train()


@pytest.mark.parametrize("groups", [True, False])
def test_losses_are_tried_without_a_trace(tmp_path, groups):
    opts = ("DATALOADER.ASPECT_RATIO_GROUPING", groups)
    cfg = config(tmp_path, register_images(tmp_path), *opts)
    trainer = Trainer(cfg)
    before = {k: v.clone() for k, v in trainer.model.state_dict().items()}
    state, stream = random_state(), trainer.data_loader.state_dict()
    mines = []
    trainer.model.register_forward_pre_hook(lambda *_: mines.append(torch.is_grad_enabled()))
    assert len(trainer.data_loader.a_batch()) == cfg.SOLVER.IMS_PER_BATCH
    try_losses(trainer, named_settings("x.yaml", cfg))
    assert mines == [True]
    assert random_state() == state
    assert trainer.data_loader.state_dict() == stream
    assert all(v.equal(before[k]) for k, v in trainer.model.state_dict().items())
    assert trainer.model.roi_heads._check._num_steps == 0


def test_losses_that_cannot_be_computed_name_their_settings(tmp_path):
    cfg = config(tmp_path, register_images(tmp_path))
    trainer = Trainer(cfg)
    trainer.model.roi_heads.box_head.fc1 = torch.nn.Linear(2, 2)
    with pytest.raises(
        InputError, match="^MODEL.ROI.* in x.yaml, .* cannot be trained: RuntimeErr"
    ):
        try_losses(trainer, named_settings("x.yaml", cfg, verb="trained"))


@pytest.mark.parametrize("part", ["model", "mapper", "layer"])
def test_losses_of_what_is_the_users_are_left_alone(tmp_path, part):
    class Mine(torch.nn.Module):
        def forward(self, *args):
            pytest.fail("it may count its calls")

    trainer = Trainer(config(tmp_path, register_images(tmp_path)))
    if part == "model":
        trainer._trainer.model = Mine()
    elif part == "layer":
        trainer.model.roi_heads.box_head.fc1 = Mine()
    else:
        trainer.data_loader._dataset._map_func._obj = Mine().forward
    try_losses(trainer, named_settings("x.yaml", {}))


@pytest.mark.parametrize("collate_fn", [None, 7])
def test_a_batch_to_evaluate_with(tmp_path, collate_fn):
    cfg = config(tmp_path, register_images(tmp_path))
    mapper, state = DatasetMapper(cfg, False), random_state()
    loader = build_detection_test_loader(
        DatasetCatalog.get(cfg.DATASETS.TRAIN[0]),
        mapper=mapper,
        num_workers=2,
        collate_fn=collate_fn,
    )
    if collate_fn is not None:
        with pytest.raises(TypeError, match="not callable"):
            try_batch(loader)
    else:
        try_batch(loader)
        assert loader.num_workers == 0  # they would load ahead
    assert random_state() == state


def test_a_mapper_that_gives_nothing_to_evaluate(monkeypatch):
    cfg = OmegaConf.create({"dataloader": {"evaluator": {}}}, flags={"allow_objects": True})
    loader = L(build_detection_test_loader)(dataset=[{}, {}], mapper=none_of_the_second)
    cfg.dataloader.test = loader
    monkeypatch.setattr(lazy_trainer, "build_lazy_evaluators", lambda cfg: [None])
    monkeypatch.setattr(lazy_trainer, "inference_on_dataset", lambda _, images, __: list(images))
    message = "^dataloader.test.mapper: .*none_of_the_second gives None for an image, expected a "
    with pytest.raises(InputError, match=message):
        lazy_trainer.evaluate(cfg, None)


def none_of_the_second(record, seen=[]):  # noqa: B006
    seen.append(record)
    return record if len(seen) == 1 else None


def test_a_batch_that_the_users_own_code_makes_is_left_alone():
    def mine(record):
        pytest.fail("it may count its calls")

    try_batch(build_detection_test_loader([{}], mapper=mine))
    try_batch(torch.utils.data.DataLoader([1]))


def test_a_test_loader_of_another_kind():
    cfg = OmegaConf.create({"dataloader": {"test": {"_target_": "builtins.dict"}}})
    with pytest.raises(InputError, match="^dataloader.test makes a dict, expected a torch.utils.d"):
        _test_loader(cfg)
