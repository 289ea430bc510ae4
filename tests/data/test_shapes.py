import copy

import cv2
import numpy as np
import pycocotools.mask as mask_util
import pytest
from detectron2.data import DatasetCatalog
from detectron2.structures import BoxMode

from ohem_d2.data import register_builtin, shapes
from ohem_d2.data.shapes import CLASSES, IMAGE_SIZE, LOOK_ALIKES, draw_image, write_shapes
from ohem_d2.errors import InputError

SIZES = {"train": 4, "test": 3}


@pytest.fixture
def registered(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    monkeypatch.setattr(shapes, "SIZES", SIZES)
    write = shapes.write_shapes
    monkeypatch.setattr(shapes, "write_shapes", lambda folder: write(folder, SIZES))
    register_builtin(shapes.datasets())
    return tmp_path / "ohem_shapes_v2"


def test_drawn_on_first_use_and_only_then(registered):
    train = DatasetCatalog.get("ohem_shapes_train")
    assert len(train) == 4
    stamp = (registered / "train.json").stat().st_mtime_ns
    assert DatasetCatalog.get("ohem_shapes_train") == train
    assert (registered / "train.json").stat().st_mtime_ns == stamp
    assert [p.name for p in registered.parent.iterdir()] == ["ohem_shapes_v2"]


def test_both_layouts_say_the_same(registered):
    coco, voc = (DatasetCatalog.get(f"ohem_shapes_test{x}") for x in ("", "_voc"))
    assert len(coco) == len(voc) == 3
    for a, b in zip(coco, voc):
        assert a["file_name"] == b["file_name"]
        for x, y in zip(a["annotations"], b["annotations"], strict=True):
            assert x["category_id"] == y["category_id"]
            box = BoxMode.convert(x["bbox"], x["bbox_mode"], BoxMode.XYXY_ABS)
            assert box == y["bbox"]


def test_same_seed_same_images(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_shapes(tmp_path / name, {"train": 2}, seed)
    a, b, c = (
        [cv2.imread(str(p)) for p in sorted((tmp_path / n / "JPEGImages").iterdir())] for n in "abc"
    )
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)


def test_an_interrupted_drawing_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(shapes.cv2, "imwrite", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_shapes(tmp_path / "sub" / "shapes", SIZES)
    assert list((tmp_path / "sub").iterdir()) == []


def test_boxes_and_outlines_are_tight_and_look_alikes_unlabelled(monkeypatch):
    drawn, ious = [], []
    draw = shapes.draw_shape

    def spy(image, rng, kind, center, radius):
        plain = np.zeros_like(image)  # on which the shape stands out all around
        draw(plain, copy.deepcopy(rng), kind, center, radius)
        box, outline = draw(image, rng, kind, center, radius)
        seen = plain.max(axis=2) > 45  # half of the least contrast
        ys, xs = np.nonzero(seen)
        drawn.append((kind, box, (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)))
        if kind in CLASSES:
            polygon = [outline.reshape(-1).tolist()]
            mask = mask_util.decode(mask_util.merge(mask_util.frPyObjects(polygon, *seen.shape)))
            ious.append((mask & seen).sum() / (mask | seen).sum())
        return box, outline

    monkeypatch.setattr(shapes, "draw_shape", spy)
    labelled = []
    for seed in range(30):
        image, objects = draw_image(np.random.default_rng(seed))
        assert image.shape == (IMAGE_SIZE, IMAGE_SIZE, 3)
        assert objects
        labelled += objects
    assert {kind for kind, _, _ in drawn} == {*CLASSES, *LOOK_ALIKES}
    labelled = [(kind, box) for kind, box, _ in labelled]
    assert labelled == [(kind, box) for kind, box, _ in drawn if kind in CLASSES]
    assert min(ious) > 0.8
    for _, box, seen in drawn:
        assert np.abs(np.subtract(box, seen)).max() <= 2


def test_without_look_alikes(monkeypatch):
    kinds = []
    draw = shapes.draw_shape
    monkeypatch.setattr(shapes, "draw_shape", lambda *args: (kinds.append(args[2]), draw(*args))[1])
    for seed in range(10):
        draw_image(np.random.default_rng(seed), max_look_alikes=0)
    assert set(kinds) <= set(CLASSES)


@pytest.mark.parametrize("root", [
    "file", "file/below", "s3://bucket", "a" * 300, "/proc/data", "", "  ", "$HOME/data",
    "~nosuchuser/data", "data ", "a\nb", "/a:/b", "me@host:/data",
])  # fmt: skip
def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch, root):
    (tmp_path / "file").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DETECTRON2_DATASETS", root)
    load, _ = shapes.datasets()["ohem_shapes_train"]
    with pytest.raises(InputError, match="DETECTRON2_DATASETS .*a folder on this machine"):
        load()
    assert [x.name for x in tmp_path.iterdir()] == ["file"]


def test_a_file_where_it_would_be(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    shapes.shapes_folder().write_text("")
    load, _ = shapes.datasets()["ohem_shapes_train"]
    with pytest.raises(InputError, match="there is a file of this name"):
        load()


@pytest.mark.parametrize("root", ["file", "file/data"])
def test_a_file_in_place_of_the_root(tmp_path, monkeypatch, root):
    (tmp_path / "file").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DETECTRON2_DATASETS", root)
    with pytest.raises(InputError, match=f"^DETECTRON2_DATASETS is '{root}', which is .*a file, "):
        shapes.shapes_folder()


@pytest.mark.parametrize("root", ["", "~nosuchuser/data"])
@pytest.mark.parametrize("name", ["voc_2012_test", "coco_2014_train_voc_classes"])
def test_a_folder_that_is_none_is_said_of_other_data_sets_too(monkeypatch, root, name):
    monkeypatch.setenv("DETECTRON2_DATASETS", root)
    # As if no test before had registered it.
    others = DatasetCatalog.data.items()
    monkeypatch.setattr(DatasetCatalog, "data", {k: v for k, v in others if k != name})
    register_builtin(["coco_2017_train"])  # which is not below it here
    with pytest.raises(InputError, match=f"^DETECTRON2_DATASETS is '{root}', which "):
        register_builtin([name])
