from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, Metadata, MetadataCatalog
from detectron2.structures import Boxes, BoxMode, Instances
from detectron2.utils.events import EventStorage
from full_disk import fill_disk
from small_heads import make_batch, make_heads
from torch import nn

from ohem_d2 import visualization
from ohem_d2.errors import InputError
from ohem_d2.mining.error_types import ERROR_TYPES
from ohem_d2.visualization import ERROR_COLORS, DetectionPictures, MinedPictures, draw_mined


def draw(image, names=("dog", "cat")):
    mined = Instances((100, 120))
    mined.proposal_boxes = Boxes(torch.tensor([[5.0, 5, 25, 25], [35, 5, 55, 25], [65, 5, 85, 25]]))
    mined.gt_classes = torch.tensor([0, 2, 1])
    mined.ohem_pred_classes = torch.tensor([2, 1, 1])
    mined.ohem_loss_cls = torch.tensor([1.0, 2.0, 0.5])
    mined.ohem_loss_box_reg = torch.tensor([1.0, 0.0, 0.7])
    targets = Instances((100, 120), gt_boxes=Boxes([[5.0, 5, 25, 25]]))
    targets.gt_classes = torch.tensor([0])
    return draw_mined(image, mined, targets, Metadata(thing_classes=names), num_classes=2)


@pytest.fixture
def drawn():
    return draw(np.zeros((100, 120, 3), np.uint8))


def test_truth_and_rois_side_by_side(drawn):
    _, width, channels = drawn.shape
    assert channels == 3
    assert drawn.dtype == np.uint8
    truth, rois = drawn[:, : width // 2], drawn[:, width // 2 :]
    assert truth[40:].any()
    assert rois[40:].any()


@pytest.mark.parametrize(
    ("column", "error_type"), [(0, "missed object"), (1, "look-alike"), (2, "badly placed box")]
)
def test_coloured_by_error_type(drawn, column, error_type):
    height, width, _ = drawn.shape
    scale = width / 2 / 120
    caption = height - round(100 * scale)
    left = round(width / 2 + (5 + 30 * column) * scale)
    edge = drawn[caption + round(15 * scale), left - 3 : left + 4].astype(float)
    brightest = edge[edge.sum(axis=1).argmax()]
    color = np.array(ERROR_COLORS[ERROR_TYPES.index(error_type)]) * 255
    cosine = brightest @ color / np.linalg.norm(brightest) / np.linalg.norm(color)
    assert cosine > 0.98


@pytest.mark.parametrize("name", [r"$\alpha_{$", "$$", r"\$x_$y^$", "a $5 and a $6"])
def test_no_name_of_a_class_is_a_formula(name):
    image = np.zeros((100, 120, 3), np.uint8)
    assert draw(image, [name, "cat"]).shape == draw(image).shape


@pytest.mark.parametrize("size", [(10, 20000), (20000, 10), (1, 1), (3000, 4000)])
def test_panels_are_bounded_whatever_the_image(size):
    height, width, _ = draw(np.full((*size, 3), 90, np.uint8)).shape
    assert height <= 448
    assert width <= 2 * 1600


@pytest.fixture
def data(tmp_path):
    """A data set of two images of one object, whose first file is not there."""
    name = f"pictures of {tmp_path}"
    cv2.imwrite(str(tmp_path / "b.png"), np.zeros((200, 600, 3), np.uint8))
    box = {"bbox": [300, 100, 450, 150], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0}
    records = [{"file_name": str(tmp_path / x), "image_id": x, "annotations": [box]}
               for x in ("a.png", "b.png")]  # fmt: skip
    DatasetCatalog.register(name, lambda: records)
    MetadataCatalog.get(name).set(thing_classes=["dog"])
    yield name
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


def detections():
    found = Instances((200, 600), pred_boxes=Boxes([[300.0, 100, 450, 150]]))
    found.scores, found.pred_classes = torch.tensor([0.9]), torch.tensor([0])
    found.pred_masks = torch.zeros(1, 200, 600, dtype=torch.bool)
    found.pred_masks[0, 100:150, 300:450] = True
    found.pred_keypoints = torch.tensor([[[310.0, 110.0, 1.0], [440.0, 140.0, 1.0]]])
    return found


def evaluate(data, file):
    pictures = DetectionPictures(data, file)
    pictures.reset()
    for name in ("a.png", "b.png"):
        pictures.process([{"image_id": name}], [{"instances": detections()}])
    pictures.evaluate()


def test_what_cannot_be_drawn_is_named_and_the_rest_is_drawn(tmp_path, data, caplog):
    # Detectron2 draws the colour at random, and four of its 74 are nearly as black as the image.
    np.random.seed(1)
    evaluate(data, tmp_path / "pictures" / "x.jpg")
    assert f"{tmp_path / 'a.png'} is not drawn: FileNotFoundError: " in caplog.text
    picture = cv2.imread(str(tmp_path / "pictures" / "x.jpg"))
    # Truth and detection, each of 1200 x 400 pixels below its caption, and a margin.
    assert picture.shape == (42 + 400 + 6, 2400, 3)
    found = picture[42:442, 1200:].max(axis=2) > 30
    rows, columns = np.flatnonzero(found.any(axis=1)), np.flatnonzero(found.any(axis=0))
    assert rows.max() == pytest.approx(300, abs=8)
    assert columns.max() == pytest.approx(900, abs=8)
    assert columns.min() == pytest.approx(600, abs=8)
    assert found[210:290, 610:890].mean() > 0.95  # the mask


def test_a_picture_that_is_not_written_is_not_said_to_be(tmp_path, data, caplog, monkeypatch):
    caplog.set_level("INFO")
    file = tmp_path / "pictures" / "x.jpg"
    evaluate(data, file)
    assert f"Wrote {file}" in caplog.text
    caplog.clear()
    before = file.read_bytes()
    with monkeypatch.context() as patched:
        fill_disk(patched)
        evaluate(data, file)
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]
    assert f"{file} is not written: OSError: [Errno 28] No space left" in caplog.text

    evaluate(data, tmp_path / "b.png" / "x.jpg")  # below a file
    assert f"{tmp_path / 'b.png' / 'x.jpg'} is not written: " in caplog.text
    monkeypatch.setattr(cv2, "imencode", lambda *_: (False, None))
    evaluate(data, file)
    assert "Wrote" not in caplog.text


class Model(nn.Module):
    """Mining heads in a model."""

    def __init__(self):
        super().__init__()
        self.roi_heads = make_heads()
        self.batch = make_batch(0, [(3, 40)])

    def forward(self, inputs):
        return self.roi_heads(None, *self.batch)


@pytest.mark.parametrize("metadata", ["my_train", None, {"thing_classes": ["dog"]}])
def test_the_name_in_place_of_the_metadata(tmp_path, metadata):
    with pytest.raises(InputError, match="^the metadata of MinedPictures is .*, expected that of"):
        visualization.MinedPictures(tmp_path / "mined.jpg", metadata, "BGR")


def test_metadata_without_classes(tmp_path, caplog):
    metadata = MetadataCatalog.get("a_name_that_is_misspelt")
    hook = visualization.MinedPictures(tmp_path / "mined.jpg", metadata, "BGR")
    hook.trainer = SimpleNamespace(model=Model())
    hook.before_train()
    assert "metadata of the data set 'a_name_that_is_misspelt' has no thing_classes" in caplog.text


class Wrapped(nn.Module):
    """A wrapper that nobody here has seen, under names of its own."""

    def __init__(self, model):
        super().__init__()
        self.student = nn.ModuleDict({"inner": model})

    def forward(self, inputs):
        return self.student["inner"](inputs)


class OtherName(nn.Module):
    """A model that has its heads under another name."""

    def __init__(self):
        super().__init__()
        self.heads = make_heads()


def draw_a_step(model, file):
    """A training of one step, of which a picture is drawn."""
    hook = MinedPictures(file, Metadata(thing_classes=["a", "b", "c"]), "RGB")
    hook.trainer = SimpleNamespace(model=model, iter=0, max_iter=1)
    targets = Model().batch[2][0]
    image = {"image": torch.zeros(3, *targets.image_size), "instances": targets}
    hook.before_train()
    hook.before_step()
    with EventStorage():
        model([{**image, "file_name": "a.jpg"}])
    hook.after_step()
    hook.after_train()


def test_mined_pictures_in_any_wrapper(tmp_path, caplog):
    draw_a_step(Wrapped(Wrapped(Model())), tmp_path / "mined.jpg")
    assert (tmp_path / "mined.jpg").exists()
    assert "No pictures" not in caplog.text


def test_heads_that_mined_pictures_do_not_find(tmp_path, caplog):
    hook = MinedPictures(tmp_path / "mined.jpg", Metadata(thing_classes=["a", "b", "c"]), "RGB")
    hook.trainer = SimpleNamespace(model=OtherName())
    hook.before_train()
    assert "No pictures of mined RoIs are drawn: no part of OtherName has mining hea" in caplog.text


@pytest.mark.parametrize("fails", [False, True])
def test_no_step_is_stopped_by_a_drawing(tmp_path, monkeypatch, caplog, fails):
    if fails:
        monkeypatch.setattr(visualization, "draw_mined", lambda *_: 1 / 0)
    draw_a_step(Model(), tmp_path / "mined.jpg")
    assert ("a.jpg is not drawn: ZeroDivisionError: division by zero" in caplog.text) == fails
    assert (tmp_path / "mined.jpg").exists() == (not fails)
