import json
import logging

import numpy as np
import pytest
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, DatasetMapper
from detectron2.structures import BoxMode
from PIL import Image, ImageDraw
from small_data import OBJECT, write_coco

from ohem_d2 import register_datasets
from ohem_d2.data import read_all_images
from ohem_d2.data.addresses import load_address
from ohem_d2.data.orientation import turn_array, turn_points
from ohem_d2.errors import InputError

W, H = 160, 120
BOX = (100, 10, 40, 30)  # in the stored pixels


def write(folder, images, annotations, name="a.json", **categories):
    (folder / "images").mkdir(exist_ok=True)
    content = {
        "images": [{"id": i, **image} for i, image in enumerate(images, 1)],
        "annotations": [
            {"id": i, "category_id": 1, "area": a["bbox"][2] * a["bbox"][3], "iscrowd": 0, **a}
            for i, a in enumerate(annotations, 1)
        ],
        "categories": [{"id": 1, "name": "dog", **categories}],
    }
    (folder / name).write_text(json.dumps(content))
    return f"coco://{folder}/{name}?images={folder}/images"


def draw(file, box=BOX, size=(W, H), orientation=1, seed=0):
    """An image with a red box."""
    noise = np.random.default_rng(seed).integers(90, 140, (size[1], size[0], 3), dtype=np.uint8)
    image, exif = Image.fromarray(noise), Image.Exif()
    x, y, w, h = box
    ImageDraw.Draw(image).rectangle([x, y, x + w - 1, y + h - 1], fill=(220, 40, 40))
    exif[0x0112] = orientation
    file.parent.mkdir(exist_ok=True)
    if file.suffix == ".tiff":
        image.save(file, tiffinfo={0x0112: orientation})
    else:
        image.save(file, exif=exif, quality=95)


def load(address):
    """The records, and the findings in words."""
    data = load_address(address)
    return data.records, data.findings.summary()


# ------------------------------------------------------------------------------------ orientation


@pytest.mark.parametrize("orientation", range(1, 9))
def test_points_and_pixels_are_turned_alike(orientation):
    pixels = np.arange(12).reshape(3, 4)
    turned = turn_array(pixels, orientation)
    with Image.fromarray(pixels.astype(np.uint8)) as image:
        image.getexif()[0x0112] = orientation
        from PIL import ImageOps

        assert np.asarray(ImageOps.exif_transpose(image)).tolist() == turned.tolist()
    rows, columns = np.mgrid[:3, :4].reshape(2, -1)
    points = turn_points(np.stack([columns, rows], 1) + 0.5, orientation, 4, 3)
    where = (points - 0.5).astype(int)
    assert turned[where[:, 1], where[:, 0]].tolist() == list(range(12))


def red_inside(address):
    """How red the image is in the box, as a model is given both."""
    cfg = get_cfg()
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (address,), ()
    register_datasets(cfg)
    mapper = DatasetMapper(
        is_train=True, augmentations=[], image_format="BGR", use_instance_mask=True,
        use_keypoint=True, instance_mask_format="bitmask",
    )  # fmt: skip
    x = mapper(DatasetCatalog.get(address)[-1])
    x0, y0, x1, y1 = x["instances"].gt_boxes.tensor[0].round().int().tolist()
    red = x["image"].numpy()[2]
    inside = x["instances"].gt_masks.tensor[0].numpy()
    points = x["instances"].gt_keypoints.tensor[0, :, :2].int().tolist()
    return [
        red[y0 + 3 : y1 - 3, x0 + 3 : x1 - 3].mean(),
        red[inside].mean(),
        *(red[y, x] for x, y in points),
    ]


@pytest.mark.parametrize("form", ["polygon", "runs", "tiff"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_annotated_as_stored(tmp_path, caplog, orientation, form):
    import pycocotools.mask as mask_util

    x, y, w, h = BOX
    polygon = [x, y, x + w, y, x + w, y + h, x, y + h]
    runs = mask_util.merge(mask_util.frPyObjects([polygon], H, W))
    outline = [polygon] if form != "runs" else {"size": [H, W], "counts": runs["counts"].decode()}
    points = [x + 4, y + 4, 2, x + w - 5, y + h - 5, 2]
    object_ = {"bbox": BOX, "segmentation": outline, "keypoints": points}
    # The first tells how all are annotated: sideways, its size is another when it is shown.
    last = "o.tiff" if form == "tiff" else "o.jpg"
    draw(tmp_path / "images" / "first.jpg", orientation=6)
    draw(tmp_path / "images" / last, orientation=orientation)
    images = [{"file_name": f, "width": W, "height": H} for f in ("first.jpg", last)]
    address = write(
        tmp_path, images, [{"image_id": i, **object_} for i in (1, 2)], keypoints=["a", "b"]
    )
    assert min(red_inside(address)) > 180
    said = [r.message for r in caplog.records if "annotated before EXIF turns it" in r.message]
    assert len(said) == 1
    assert f": {1 + (orientation > 1)} (" in said[0]


def test_images_that_disagree_tell_nothing_of_a_square(tmp_path):
    draw(tmp_path / "images" / "stored.jpg", orientation=6)
    draw(tmp_path / "images" / "shown.jpg", orientation=6, seed=1)
    draw(tmp_path / "images" / "square.jpg", size=(W, W), orientation=6)
    sizes = [(W, H), (H, W), (W, W)]
    images = [
        {"file_name": f"{name}.jpg", "width": width, "height": height}
        for name, (width, height) in zip(("stored", "shown", "square"), sizes)
    ]
    objects = [{"image_id": i, "bbox": [5, 5, 20, 30]} for i in (1, 2, 3)]
    records, said = load(write(tmp_path, images, objects))
    assert [r["annotations"][0]["bbox"] for r in records][1:] == [[5, 5, 20, 30]] * 2
    (words,) = (x for x in said if x.startswith("image that its EXIF data turn: "))
    assert ": 1 (" in words
    assert "square.jpg" in words


@pytest.mark.parametrize("orientation", range(1, 9))
def test_annotated_as_shown(tmp_path, caplog, orientation):
    x, y, w, h = BOX
    corners = np.array([[x, y], [x + w, y + h]], float)
    turned = turn_points(corners, orientation, W, H)
    (x0, y0), (x1, y1) = turned.min(0).tolist(), turned.max(0).tolist()
    polygon = [x0, y0, x1, y0, x1, y1, x0, y1]
    width, height = (H, W) if orientation > 4 else (W, H)
    draw(tmp_path / "images" / "o.jpg", orientation=orientation)
    address = write(
        tmp_path,
        [{"file_name": "o.jpg", "width": width, "height": height}],
        [
            {
                "image_id": 1,
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "segmentation": [polygon],
                "keypoints": [x0 + 5, y0 + 5, 2],
            }
        ],
        keypoints=["a"],
    )
    assert min(red_inside(address)) > 180
    # The size does not tell whether an image that stands on its head was turned.
    warned = any("image that its EXIF data turn" in r.message for r in caplog.records)
    assert warned == (orientation in (2, 3, 4))


# ---------------------------------------------------------------------------------- sizes of images


@pytest.mark.parametrize(
    ("size", "words"),
    [
        ((0, 0), "size of an image missing, taken from its file: 1 ("),
        ((None, None), "size of an image missing, taken from its file: 1 ("),
        (("x", -1), "size of an image missing, taken from its file: 1 ("),
        ((H, W), "width and height of an image exchanged, taken from its file: 1 ("),
        ((str(W), f"{H}.0"), None),
    ],
)
def test_sizes_come_from_the_files(tmp_path, size, words):
    draw(tmp_path / "images" / "a.jpg")
    image = {"file_name": "a.jpg", "width": size[0], "height": size[1]}
    records, said = load(write(tmp_path, [image], [{"image_id": 1, "bbox": BOX}]))
    assert (records[0]["width"], records[0]["height"]) == (W, H)
    assert len(records[0]["annotations"]) == 1
    assert [x.startswith(words) for x in said] == ([True] if words else [])


def test_sizes_that_are_left_out(tmp_path):
    draw(tmp_path / "images" / "a.jpg")
    records, _ = load(write(tmp_path, [{"file_name": "a.jpg"}], [{"image_id": 1, "bbox": BOX}]))
    assert (records[0]["width"], records[0]["height"]) == (W, H)


def test_another_size_than_that_of_the_file(tmp_path):
    for i in range(5):
        draw(tmp_path / "images" / f"{i}.jpg")
    images = [{"file_name": f"{i}.jpg", "width": W + i, "height": H} for i in range(5)]
    address = write(tmp_path, images, [{"image_id": 1, "bbox": BOX}])
    with pytest.raises(
        InputError, match=r"^4 images .*1.jpg: 160 x 120, annotated 161 x 120; .*1 m"
    ):
        load(address)


# -------------------------------------------------------------------------------------------- boxes


def many(tmp_path, boxes):
    for i in range(len(boxes)):
        draw(tmp_path / "images" / f"{i}.jpg", seed=i)
    images = [{"file_name": f"{i}.jpg", "width": W, "height": H} for i in range(len(boxes))]
    return write(tmp_path, images, [{"image_id": i, "bbox": b} for i, b in enumerate(boxes, 1)])


def test_corners_in_the_place_of_sizes(tmp_path):
    address = many(tmp_path, [[10, 20, 50, 50], [90, 50, 120, 90], [20, 60, 100, 110]])
    with pytest.raises(
        InputError, match=r"seem to be corners.* 2 of 3 lie beyond.*expected \[x, y"
    ):
        load(address)


def test_parts_of_the_image(tmp_path):
    with pytest.raises(
        InputError, match=r"as if they were parts of width and height: expected pix"
    ):
        load(many(tmp_path, [[0.1, 0.2, 0.3, 0.4], [0, 0, 1, 1]]))


@pytest.mark.parametrize(
    "boxes",
    [
        [[0, 0, W, H]],
        [[0, 0, 1, 1], [10, 10, 50, 50]],
        [[100, 60, 60, 60]],
        [[5, 5, 158, 118], [20, 20, 100, 90]],
        [[30, 20, 140, 80], [100, 60, 20, 20], [90, 10, 30, 70]],  # a careless box among others
    ],
)
def test_other_boxes_are_taken_as_they_are(tmp_path, boxes):
    records, _ = load(many(tmp_path, boxes))
    assert [r["annotations"][0]["bbox"] for r in records] == boxes


def test_boxes_that_are_cut_off_or_left_out_are_counted(tmp_path):
    boxes = [[5, 5, 20, 20]] * 4 + [[200, 5, 9, 9], [10, 10, 0, 8], [150, 5, 90, 20]]
    records, said = load(many(tmp_path, boxes))
    assert [len(r["annotations"]) for r in records] == [1, 1, 1, 1, 0, 0, 1]
    assert [x.partition(" (")[0] for x in said] == [
        "box outside its image, left out: 1",
        "box of zero area, left out: 1",
        "box that reaches far beyond its image, cut off: 1",
    ]
    assert f"{tmp_path}/images/4.jpg: 'dog' at [200, 5, 9, 9]" in said[0]


RIGHT = [[10, 20, 40, 30], [90, 50, 60, 60], [60, 80, 70, 36], [2, 10, 20, 90]]


def as_middles(boxes):
    return [[x + w / 2, y + h / 2, w, h] for x, y, w, h in boxes]


def test_middles_in_the_place_of_corners(tmp_path):
    with pytest.raises(InputError, match=r"seem to be \[x, y, width, height\] with x and y of the"):
        load(many(tmp_path, as_middles([*RIGHT, [100, 20, 60, 90]])))


def write_voc_boxes(folder, boxes):
    draw(folder / "images" / "a.jpg")
    write_xml = "".join(OBJECT.format(*b, name="dog", extra="") for b in boxes)
    (folder / "a.xml").write_text(f"<annotation>{write_xml}</annotation>")
    return f"voc://{folder}?images={folder}/images"


def test_sizes_in_the_place_of_corners(tmp_path):
    with pytest.raises(
        InputError, match=r"seem to be \[x, y, width, height\]: read as corners.* 3 of 5"
    ):
        load(write_voc_boxes(tmp_path, [*RIGHT, [100, 70, 50, 40]]))


def write_yolo_boxes(folder, boxes):
    draw(folder / "images" / "a.jpg")
    (folder / "classes.txt").write_text("dog")
    lines = [" ".join(str(v / s) for v, s in zip(box, (W, H, W, H))) for box in boxes]
    (folder / "images" / "a.txt").write_text("".join(f"0 {x}\n" for x in lines))
    return f"yolo://{folder}"


@pytest.mark.parametrize(
    ("boxes", "words"),
    [
        ([[x, y, x + w, y + h] for x, y, w, h in RIGHT], r"seem to be corners, \[x0, y0, x1, y1\]"),
        (
            [[2, 60, 40, 30], [5, 50, 80, 40], [9, 70, 90, 40]],
            r"seem to be \[x, y, width, height\]:",
        ),
    ],
)
def test_others_in_the_place_of_middles(tmp_path, boxes, words):
    with pytest.raises(InputError, match=words):
        load(write_yolo_boxes(tmp_path, boxes))


def test_middles_where_they_are_expected(tmp_path):
    records, said = load(write_yolo_boxes(tmp_path, as_middles(RIGHT)))
    assert [a["bbox"][:2] for a in records[0]["annotations"]] == [
        pytest.approx(x[:2]) for x in RIGHT
    ]
    assert said == []


def test_boxes_that_are_likely_a_slip_are_named(tmp_path):
    boxes = [[0.1, 0.2, 0.5, 0.4], [5, 5, 20, 20]]
    draw(tmp_path / "images" / "a.jpg")
    images = [{"file_name": "a.jpg", "width": W, "height": H}]
    objects = [{"image_id": 1, "bbox": b} for b in [*boxes, boxes[1]]]
    records, said = load(write(tmp_path, images, objects))
    assert len(records[0]["annotations"]) == 3
    assert [x.partition(" (")[0] for x in said] == [
        "object annotated more than once, with the same class and box: 1",
        "box smaller than a pixel: 1",
    ]


def test_percents_are_named(tmp_path):
    draw(tmp_path / "images" / "a.jpg", size=(400, 300))
    images = [{"file_name": "a.jpg", "width": 400, "height": 300}]
    objects = [{"image_id": 1, "bbox": [k, 2 * k, 30 + k, 40]} for k in range(20)]
    _, said = load(write(tmp_path, images, objects))
    assert [x for x in said if "as if they were percents" in x]
    objects[0]["bbox"] = [300, 2, 30, 40]
    assert load(write(tmp_path, images, objects))[1] == []


@pytest.mark.parametrize("orientation", [6, 8])
def test_boxes_tell_how_an_image_without_a_size_was_annotated(tmp_path, orientation):
    draw(tmp_path / "images" / "o.jpg", orientation=orientation)  # BOX ends at 140 of 160
    _, said = load(write(tmp_path, [{"file_name": "o.jpg"}], [{"image_id": 1, "bbox": BOX}]))
    assert "image annotated before EXIF turns it, boxes turned: 1" in said[1]
    shown = [{"image_id": 1, "bbox": [10, 100, 30, 50]}]  # ends at 150 of 120 as stored
    _, said = load(write(tmp_path, [{"file_name": "o.jpg"}], shown))
    assert [x.partition(":")[0] for x in said] == ["size of an image missing, taken from its file"]


# --------------------------------------------------------------------------- identity of an image


def test_an_entry_for_each_box_is_one_image(tmp_path):
    draw(tmp_path / "images" / "a.jpg")
    images = [{"file_name": f, "width": W, "height": H} for f in ("a.jpg", "./a.jpg", "a.jpg")]
    boxes = [(1, [5, 5, 20, 20]), (2, [50, 50, 20, 20]), (3, [5, 5, 20, 20])]
    address = write(tmp_path, images, [{"image_id": i, "bbox": b} for i, b in boxes])
    records, said = load(address)
    assert len(records) == 1
    assert [a["bbox"] for a in records[0]["annotations"]] == [[5, 5, 20, 20], [50, 50, 20, 20]]
    assert said[0].startswith("image listed more than once, its objects put together: 2 (")


def test_the_same_bytes_under_two_names(tmp_path, caplog):
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        draw(tmp_path / "images" / name)
    draw(tmp_path / "images" / "d.jpg", seed=1)
    objects = [{"image_id": 1, "bbox": BOX}]
    size = {"width": W, "height": H}
    train = write(tmp_path, [{"file_name": x, **size} for x in ("a.jpg", "b.jpg")], objects)
    test = write(
        tmp_path, [{"file_name": x, **size} for x in ("c.jpg", "d.jpg")], objects, "b.json"
    )
    cfg = get_cfg()
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (train,), (test,)
    register_datasets(cfg)
    read_all_images((train,), (test,))
    said = [r.message for r in caplog.records if r.levelno == logging.WARNING]
    assert len(said) == 2
    assert said[0].startswith(f"{train}: image with the same bytes as another, but other objects: ")
    assert said[1].startswith(f"1 images of the test set {test!r} are also in the training set")
    caplog.clear()
    read_all_images((test,), (test,))  # meant so
    assert caplog.records == []
    same = [{"image_id": i, "bbox": BOX} for i in (1, 2)]
    train = write(tmp_path, [{"file_name": x, **size} for x in ("a.jpg", "b.jpg")], same)
    cfg.DATASETS.TRAIN = (train,)
    register_datasets(cfg)
    read_all_images((train,), ())
    assert "image with the same bytes and the same objects as another: 1 (" in caplog.text


@pytest.mark.parametrize(("form", "frames"), [("tiff", 2), ("gif", 3), ("webp", 2), ("jpg", 1)])
def test_further_pages_and_frames_are_named(tmp_path, caplog, form, frames):
    (tmp_path / "images").mkdir()
    pages = [Image.new("RGB", (W, H), (40 * i, 0, 0)) for i in range(frames)]
    several = {"save_all": True, "append_images": pages[1:]} if frames > 1 else {}
    pages[0].save(tmp_path / "images" / f"a.{form}", **several)
    images = [{"file_name": f"a.{form}", "width": W, "height": H}]
    address = write(tmp_path, images, [{"image_id": 1, "bbox": BOX}])
    cfg = get_cfg()
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (address,), ()
    register_datasets(cfg)
    read_all_images((address,), ())
    words = f"of which the first is read: 1 ({tmp_path}/images/a.{form}: {frames} of them)"
    assert (words in caplog.text) == (frames > 1)


# ------------------------------------------------------------------------------- unreadable images


@pytest.fixture
def damaged(tmp_path):
    """Of four images, one has no header, and one has lost its end."""
    images = {f"{i}.jpg": [("dog", [5, 5, 20, 20])] for i in range(4)}
    write_coco(tmp_path, images, {1: "dog"})
    (tmp_path / "images" / "1.jpg").write_bytes(b"<html>404</html>")
    whole = (tmp_path / "images" / "2.jpg").read_bytes()
    (tmp_path / "images" / "2.jpg").write_bytes(whole[: len(whole) // 2])
    return f"coco://{tmp_path}/annotations.json?images={tmp_path}/images"


def make_cfg(address, unreadable="error"):
    cfg = get_cfg()
    cfg.DATASETS.UNREADABLE_IMAGES = unreadable
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = (address,)
    return cfg


def test_unreadable_images_are_one_error(damaged, tmp_path):
    with pytest.raises(
        InputError, match=r"^1 of 4 images .*1.jpg: it is a web page.*IMAGES 'skip'"
    ):
        register_datasets(make_cfg(damaged))
    write_coco(tmp_path, {"1.jpg": []}, {1: "dog"}, "other.json")  # which mends it
    register_datasets(make_cfg(damaged))
    with pytest.raises(InputError, match=r"^1 of 4 images .*2.jpg: image file is truncated"):
        read_all_images((damaged,), ())


def test_unreadable_images_are_left_out_and_counted(damaged, caplog):
    register_datasets(make_cfg(damaged, "skip"))
    assert len(DatasetCatalog.get(damaged)) == 3
    read_all_images((damaged,), (damaged,), "skip")
    names = [r["file_name"].rpartition("/")[2] for r in DatasetCatalog.get(damaged)]
    assert names == ["0.jpg", "3.jpg"]
    said = [r.message for r in caplog.records if "cannot be read, left out: 1 (" in r.message]
    assert len(said) == 2


def test_another_word_for_the_key(damaged):
    with pytest.raises(InputError, match=r"UNREADABLE_IMAGES is 'keep out', expected 'error' or"):
        register_datasets(make_cfg(damaged, "keep out"))


def test_nothing_is_left(damaged, tmp_path):
    for i in range(4):
        (tmp_path / "images" / f"{i}.jpg").write_bytes(b"")
    with pytest.raises(InputError, match=r"no image of the data set .* can be read"):
        register_datasets(make_cfg(damaged, "skip"))


# -------------------------------------------------------- images of what Detectron2 has registered


@pytest.fixture
def registered(tmp_path):
    """Registers records of a data set, by its name alone."""

    def register(records):
        DatasetCatalog.register("registered_here", lambda: records)
        return ("registered_here",)

    draw(tmp_path / "a.jpg")
    draw(tmp_path / "b.jpg")
    (tmp_path / "empty.jpg").write_bytes(b"")
    yield register
    DatasetCatalog.remove("registered_here")


def record(file, objects=1, **fields):
    annotation = {"category_id": 0, "bbox": [5, 5, 20, 20], "bbox_mode": BoxMode.XYXY_ABS}
    return {"file_name": str(file), "annotations": [annotation] * objects, **fields}


@pytest.mark.parametrize(
    ("file", "fields", "words"),
    [
        ("a.jpg", {}, None),
        ("a.jpg", {"width": W, "height": H}, None),
        ("empty.jpg", {}, r"^1 of 2 images .* 'registered_here' .*empty.jpg: it is empty\)"),
        ("none.jpg", {}, r"^1 of 2 images .*none.jpg: no such file\)"),
        ("a.jpg", {"width": H, "height": W},
         rf"^1 images .*a.jpg: {W} x {H}, annotated {H} x {W}\): expected the images that were"),
    ],
)  # fmt: skip
def test_images_by_name_are_read_too(tmp_path, registered, file, fields, words):
    names = registered([record(tmp_path / "b.jpg"), record(tmp_path / file, **fields)])
    if words is None:
        read_all_images(names, names)
        return
    with pytest.raises(InputError, match=words):
        read_all_images(names, ())
    with pytest.raises(InputError, match=words):
        read_all_images((), names)


def test_what_detectron2_does_not_open_is_not_looked_at(tmp_path, registered):
    mapped_by_others = [{"pixels": 5}, {"file_name": 5}, {"file_name": "s3://bucket/a.jpg"}]
    without_objects = [record(tmp_path / "empty.jpg", objects=0)]
    names = registered([record(tmp_path / "a.jpg"), *without_objects, *mapped_by_others])
    read_all_images(names, ())
    with pytest.raises(InputError, match=r"empty.jpg: it is empty"):
        read_all_images((), names)


def test_images_by_name_are_left_out(tmp_path, registered):
    others = [{"file_name": str(tmp_path / "empty.jpg")}, {"pixels": 5}]
    names = registered([{"file_name": str(tmp_path / "a.jpg")}, *others])
    read_all_images(names, (), "skip")
    assert [len(x) for x in DatasetCatalog.get(*names)] == [1, 1]
    assert DatasetCatalog.get(*names)[1] == {"pixels": 5}


# ------------------------------------------------------------------------------- pixels of 16 bits


def test_16_bits_reach_the_model_scaled(tmp_path, caplog):
    (tmp_path / "images").mkdir()
    values = (np.arange(W * H).reshape(H, W) / 2).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "images" / "a.png")
    image = {"file_name": "a.png", "width": W, "height": H}
    address = write(tmp_path, [image], [{"image_id": 1, "bbox": BOX}])
    register_datasets(make_cfg(address))
    read_all_images((address,), ())
    mapper = DatasetMapper(is_train=True, augmentations=[], image_format="BGR")
    pixels = mapper(DatasetCatalog.get(address)[0])["image"].numpy()
    expected = np.round(values / values.max() * 255)
    assert np.abs(pixels.astype(int) - expected).max() <= 1
    words = "image of 16-bit or float pixels, scaled to 8 bits from its darkest to its brightest: 1"
    assert f"{address}: {words} ({tmp_path}/images/a.png)" in [r.message for r in caplog.records]
