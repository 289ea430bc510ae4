"""Whether the first batch of a training is what the model learns from."""

import re
from contextlib import nullcontext

import pytest
import torch
from detectron2.data import DatasetMapper, build_detection_train_loader
from detectron2.data import detection_utils as utils
from detectron2.data.samplers import InferenceSampler, TrainingSampler
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Boxes, Instances, RotatedBoxes
from small_models import SHRINK_OPTS
from small_training import config, register_images
from torch.utils.data import SequentialSampler

from ohem_d2.errors import InputError
from ohem_d2.training.config_file import load_config
from ohem_d2.training.data_loader import ResumableLoader
from ohem_d2.training.first_batch import _odd, _wrong, check_first_batch
from ohem_d2.training.trainer import Trainer

MASKS = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml"
SIZE = (64, 96)


@pytest.fixture(scope="module")
def trainer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("training")
    return Trainer(config(folder, register_images(folder)))


class Mine(DatasetMapper):
    """Changes what Detectron2's mapper makes."""

    def __init__(self, cfg, change):
        super().__init__(cfg, True)
        self.change = change

    def __call__(self, record):
        made = super().__call__(record)
        return self.change(made) or made


def check(trainer, change, num_steps=1):
    trainer.data_loader._dataset._map_func._obj = Mine(trainer.cfg, change)
    for images in trainer.data_loader._loader._buckets:  # what another test left
        images.clear()
    check_first_batch(trainer, num_steps, "MAPPER", nullcontext())


def boxes(made, change):
    made["instances"].gt_boxes = Boxes(change(made["instances"].gt_boxes.tensor))


WRONG = [
    (lambda x: x.pop("instances"), r"'instances' of '.*png' is missing among \['file_name'"),
    (lambda x: x.update(instances=None), "'instances' of .* is None, expected Instances with gt_"),
    (lambda x: x.pop("image"), "'image' of .* is missing, expected a torch.Tensor of shape .3, h"),
    (lambda x: x.update(image=x["image"].numpy()), "'image' of .* is a numpy.ndarray of uint8"),
    (lambda x: x.update(image=x["image"].permute(1, 2, 0)), r"'image' of .*, 3\), expected"),
    (lambda x: x.update(image=x["image"][[0, 1, 2, 0]]), r"'image' of .* shape \(4, .* 3 channels"),
    (lambda x: x.update(image=x["image"].double()), "'image' of .*float64.*, expected one of"),
    (lambda x: x.update(image=x["image"] / 0.0), "'image' of .* is nan or infinite"),
    (lambda x: x["instances"].gt_classes.add_(9), "gt_classes of .* in places, expected 0 to 1"),
    (lambda x: x["instances"].gt_classes.sub_(1), "gt_classes of .* is .-1.*expected 0 to 1"),
    (lambda x: x["instances"].remove("gt_classes"), "gt_classes of .* is missing among"),
    (lambda x: x["instances"]._fields.update(gt_classes=[]), "gt_classes of .* is of 0 objects"),
    (lambda x: boxes(x, lambda b: b[:, [2, 3, 0, 1]]), "gt_boxes of .*, expected .x0, y0, x1, y1"),
    (lambda x: boxes(x, lambda b: b * float("nan")), "gt_boxes of .* is .nan.*, expected numbers"),
    (lambda x: x["instances"].set("gt_boxes", torch.ones(2, 4)), "gt_boxes of .*, expected Boxes"),
    (lambda x: (x["image"], x["instances"]), "gives no dict with 'width' and 'height' for"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), WRONG)
def test_what_cannot_be_learned(trainer, change, message):
    def changed(made):
        new = change(made)
        return new if isinstance(new, tuple) else None

    with pytest.raises(InputError, match=f"^MAPPER .*test_first_batch.Mine.*{message}"):
        check(trainer, changed)


def test_what_a_one_stage_model_that_mines_cannot_learn(tmp_path):
    opts = ["MODEL.META_ARCHITECTURE", "OHEMRetinaNet", "MODEL.ROI_HEADS.NAME", "StandardROIHeads",
            "MODEL.RETINANET.NUM_CLASSES", 2, "MODEL.RETINANET.IN_FEATURES", "['p2', 'p3']",
            "MODEL.ANCHOR_GENERATOR.SIZES", "[[8], [16]]"]  # fmt: skip
    trainer = Trainer(config(tmp_path, register_images(tmp_path), *opts))
    with pytest.raises(InputError, match="gt_classes of .* in places, expected 0 to 1"):
        check(trainer, lambda x: x["instances"].set("gt_classes", x["instances"].gt_classes + 9))


def warnings(caplog):
    return [x.getMessage() for x in caplog.records if x.levelname == "WARNING"]


ODD = [
    (lambda x: x.update(image=x["image"] / 255), "'image' is .* at most, in all 4 images"),
    (lambda x: boxes(x, lambda b: b / 100), "gt_boxes is such as .*, expected sides in pixels"),
    (lambda x: boxes(x, lambda b: b + 500), "outside of the image '.*png', expected boxes in the"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), ODD)
def test_what_is_odd_gets_one_warning(trainer, caplog, change, message):
    check(trainer, change)
    (said,) = warnings(caplog)
    assert re.search(message, said)


FINE = [
    lambda x: None,
    lambda x: x.update(more=1, instances=x["instances"][:0]),
    lambda x: x.update(image=x["image"].float()),
    lambda x: x.update(image=x["image"][:1]),
]


@pytest.mark.parametrize("change", FINE)
def test_what_is_fine(trainer, caplog, change):
    check(trainer, change)
    assert not warnings(caplog)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_mapper_that_gives_nothing(tmp_path, workers):
    opts = "DATALOADER.NUM_WORKERS", str(workers)
    trainer = Trainer(config(tmp_path, register_images(tmp_path), *opts))
    trainer.data_loader._dataset._map_func._obj = nothing
    message = (
        "^MAPPER .test_first_batch.nothing. gives None for all .* expected a dict with 'image'"
    )
    with pytest.raises(InputError, match=message):
        check_first_batch(trainer, 1, "MAPPER", nullcontext())


def test_a_mapper_that_leaves_out_some(trainer):
    record = trainer.data_loader._dataset._dataset[0]["file_name"]
    trainer.data_loader._dataset._map_func._obj = lambda x: (
        None if x["file_name"] != record else DatasetMapper(trainer.cfg, True)(x)
    )
    check_first_batch(trainer, 1, "MAPPER", nullcontext())


def nothing(record):
    return None


def test_what_is_not_detectron2s_is_left_alone(trainer, monkeypatch):
    class MyModel(type(trainer.model)):
        pass

    class MyHead(torch.nn.Module):
        pass

    monkeypatch.setattr(trainer.model.roi_heads.box_head, "fc1", MyHead())
    check(trainer, lambda x: x.pop("instances") and None)
    monkeypatch.setattr(trainer.model, "__class__", MyModel)
    check(trainer, lambda x: x.pop("image") and None)


def test_the_first_step_gets_the_batch(trainer):
    loader = trainer.data_loader
    loader._dataset._map_func._obj = Mine(trainer.cfg, lambda x: None)
    torch.manual_seed(0)
    first = loader.first_batch()
    stream = iter(loader)
    assert next(stream) is first
    assert loader.state_dict()["position"] >= len(first)
    assert next(stream) is not first
    assert next(iter(loader)) is not first


def test_a_class_that_comes_up_late(trainer, monkeypatch):
    wrong = record(gt_classes=torch.tensor([99])) | {"file_name": "b.jpg"}
    batches = [[record()], [record()], [wrong]]
    monkeypatch.setattr(trainer._trainer, "data_loader", ResumableLoader(batches))
    monkeypatch.setattr(trainer.model.roi_heads, "mask_on", False)
    check_first_batch(trainer, 3, "LOADER", nullcontext())
    stream = iter(trainer._trainer.data_loader)
    assert [next(stream), next(stream)] == batches[:2]
    message = "^LOADER .*'instances'.gt_classes of 'b.jpg' is .99. in places, expected 0 to"
    with pytest.raises(InputError, match=message):
        next(stream)


class Endless(torch.utils.data.IterableDataset):
    def __iter__(self):
        while True:
            yield 1

    def __len__(self):
        return 3  # of an epoch


@pytest.mark.parametrize(("samples", "endless"), [([1, 2, 3], False), (Endless(), True)])
def test_how_many_batches_there_are(samples, endless):
    loader = torch.utils.data.DataLoader(samples, batch_size=2, collate_fn=list)
    assert ResumableLoader(loader).length() == (None if endless else 2)


@pytest.mark.parametrize(
    ("sampler", "number"),
    [(InferenceSampler(5), 2), (SequentialSampler(range(5)), 2), (TrainingSampler(5), None)],
)
def test_samplers_that_end(sampler, number):
    images = [{"width": 2, "height": 2}] * 5
    loader = ResumableLoader(
        build_detection_train_loader(
            images, mapper=dict, sampler=sampler, total_batch_size=2, num_workers=0
        )
    )
    assert loader.length() == number
    stream = iter(loader)
    assert [len(next(stream)) for _ in range(2)] == [2, 2]
    if number is not None:
        message = f"that builtins.dict gives by .*{type(sampler).__name__} end after 2 batches, exp"
        with pytest.raises(InputError, match=message):
            next(stream)


class Epoch(torch.utils.data.Sampler):
    """One of the user's own."""

    def __iter__(self):
        return iter(range(5))

    def __len__(self):
        return 5


def test_a_sampler_of_the_users_own_that_has_a_length():
    def loader(sampler):
        images = [{"width": 2, "height": 2}] * 5
        return ResumableLoader(
            build_detection_train_loader(
                images, mapper=dict, sampler=sampler, total_batch_size=2, num_workers=0
            )
        )

    assert loader(Epoch()).length_of_own_sampler() == ("test_first_batch.Epoch", 5)
    assert loader(TrainingSampler(5)).length_of_own_sampler() is None
    assert ResumableLoader([1]).length_of_own_sampler() is None


def test_images_that_torch_puts_together(trainer, monkeypatch):
    images = torch.utils.data.DataLoader([record(), record()], batch_size=2)
    monkeypatch.setattr(trainer._trainer, "data_loader", ResumableLoader(images))
    with pytest.raises(InputError, match=r"default collate_fn .*trivial_batch_collator"):
        check_first_batch(trainer, 1, "LOADER", nullcontext())


def record(**fields):
    instances = Instances(
        SIZE, gt_boxes=Boxes([[9.0, 9, 50, 50]]), gt_classes=torch.zeros(1).long()
    )
    for name, value in fields.items():
        instances.set(name, value)
    image = torch.randint(0, 255, (3, *SIZE), dtype=torch.uint8)
    return {"image": image, "instances": instances, "sem_seg": torch.zeros(SIZE).long()}


LOADERS = {
    "no batch": [],
    "a dict, {'image': 1}": [{"image": 1}],
    "ends after 2 batches, expected one for each of 3 steps": [[record()]] * 2,
    "gives a int, 5 for an image, expected a dict with 'image' and 'instances'": [[5]] * 3,
}


@pytest.mark.parametrize("message", LOADERS)
def test_loaders_of_another_kind(trainer, monkeypatch, message):
    monkeypatch.setattr(trainer._trainer, "data_loader", ResumableLoader(LOADERS[message]))
    with pytest.raises(InputError, match="^LOADER .builtins.list.") as error:
        check_first_batch(trainer, 3, "LOADER", nullcontext())
    assert message in str(error.value)


ROTATED = RotatedBoxes([[30.0, 30, 20, 10, 45]])
OF_MODELS = [
    (MASKS, {}, "gt_masks"),
    (MASKS, {"gt_masks": torch.ones(1, *SIZE)}, "gt_masks"),
    (MASKS, {"gt_masks": BitMasks(torch.ones(1, *SIZE))}, ""),
    ("COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x.yaml", {}, "gt_keypoints"),
    ("COCO-Detection/rpn_R_50_C4_1x.yaml", {"gt_classes": torch.tensor([99])}, ""),
    ("COCO-Detection/retinanet_R_50_FPN_1x.yaml", {"gt_classes": torch.tensor([-1])}, ""),
    ("COCO-Detection/retinanet_R_50_FPN_1x.yaml", {"gt_classes": torch.tensor([80])}, "gt_classes"),
    ("COCO-Detection/fast_rcnn_R_50_FPN_1x.yaml", {}, "proposals"),
    ("Misc/semantic_R_50_FPN_1x.yaml", {}, ""),
    ("COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml", {"gt_boxes": ROTATED}, ""),
]  # fmt: skip


@pytest.mark.parametrize(("name", "fields", "wrong"), OF_MODELS)
def test_other_models(name, fields, wrong):
    model, made = build_model(load_config(name, SHRINK_OPTS)), record(**fields)
    found = [field for field, *_ in _wrong(made, model)]
    assert found == ([] if not wrong else found[:1])
    assert not wrong or wrong in found[0]
    if not wrong:
        assert len([*_odd([made], model)]) == (fields.get("gt_classes") == torch.tensor([-1]))


@pytest.mark.parametrize(
    ("labels", "message"),
    [(None, "missing"), (torch.zeros(9, 9).long(), "shape .9, 9."), (torch.full(SIZE, 54), "54"),
     (torch.zeros(SIZE), "float32"), (torch.full(SIZE, 255), "")],
)  # fmt: skip
def test_labels_of_pixels(labels, message):
    model = build_model(load_config("Misc/semantic_R_50_FPN_1x.yaml", SHRINK_OPTS))
    made = {**record(), "sem_seg": labels}
    if labels is None:
        del made["sem_seg"]
    found = [*_wrong(made, model)]
    assert [x[0] for x in found] == ["'sem_seg'"] * bool(message)
    assert all(re.search(message, x[1]) for x in found)


def test_utils_read_no_annotations_as_fine(trainer):
    empty = utils.annotations_to_instances([], SIZE)
    assert not [*_wrong({**record(), "instances": empty}, trainer.model)]
