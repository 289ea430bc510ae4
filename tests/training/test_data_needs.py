"""What a run finds out about data sets before its training, in both forms of a config."""

import json

import numpy as np
import pytest
from command_line import ROOT, run_command, run_train_net
from detectron2 import model_zoo
from detectron2.data import DatasetCatalog, MetadataCatalog
from omegaconf import OmegaConf
from small_data import HEIGHT, WIDTH, write_coco, write_voc

from ohem_d2.data import register_datasets
from ohem_d2.errors import InputError
from ohem_d2.training import lazy_data, lazy_trainer, trainer
from ohem_d2.training.config_file import load_config
from ohem_d2.training.key_checks import check_keys
from ohem_d2.training.lazy_config import load_lazy_config
from ohem_d2.training.lazy_data import register_lazy_datasets

IMAGES = {f"{i}.jpg": [("bug", [5, 5, 30, 30])] for i in range(4)}
NAMES = ["left_eye", "right_eye", "tail"]
KEYPOINTS = "MODEL.KEYPOINT_ON", "True"


def write(folder, name, names=NAMES, lacking=(), points=3):
    """A data set with masks and keypoints, but for what is lacking."""
    write_coco(folder, IMAGES, {1: "bug"}, name)
    content = json.loads((folder / name).read_text())
    for annotation in content["annotations"]:
        annotation["segmentation"] = [[5, 5, 35, 5, 35, 35]]
        annotation["keypoints"] = [8, 8, 2, 30, 8, 2, 20, 30, 2][: 3 * points]
        annotation["num_keypoints"] = points
        for key in lacking:
            del annotation[key]
    content["categories"][0]["keypoints"] = names[:points]
    (folder / name).write_text(json.dumps(content))
    return f"coco://{folder}/{name}?images={folder}/images"


def yaml_checks(train, test, *opts):
    cfg = load_config("quick_start.yaml", [*opts, "DATASETS.TRAIN", train, "DATASETS.TEST", test])
    check_keys(cfg)
    register_datasets(cfg)
    trainer._check_needs(cfg, training=True)
    return cfg


def lazy_checks(train, test, config, *opts):
    names = [f"dataloader.train.dataset.names={train}", f"dataloader.test.dataset.names={test}"]
    cfg = load_lazy_config(config, [*opts, *names])
    register_lazy_datasets(cfg)
    lazy_data.check_lazy_needs(cfg, [train])
    return cfg


def zoo(name):
    return model_zoo.get_config_file(name)


MASKS = str(ROOT / "configs" / "mask_rcnn_R_50_FPN_1x_ohem.py")
POINTS = zoo("COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x.py")
SIGMAS = "TEST.KEYPOINT_OKS_SIGMAS", "(0.1, 0.1, 0.1)"
LAZY_SIGMAS = "+dataloader.evaluator.kpt_oks_sigmas=[0.1,0.1,0.1]"


def test_a_test_set_without_masks(tmp_path):
    train, test = write(tmp_path, "a.json"), write(tmp_path, "b.json", lacking=["segmentation"])
    words = r"no object of the data set '.*b.json.*' has 'segmentation'"
    with pytest.raises(
        InputError, match=rf"MASK_ON is True, but {words}: expected MODEL.MASK_ON F"
    ):
        yaml_checks(train, test, "MODEL.MASK_ON", "True")
    with pytest.raises(InputError, match=rf"mask_in_features is set, but {words}.*features=null"):
        lazy_checks(train, test, MASKS)


def test_a_training_set_without_semantic_labels(tmp_path):
    train = write(tmp_path, "a.json")
    words = r"^MODEL.META_ARCHITECTURE is 'PanopticFPN', .*: 4 of 4 images .*a.json.* have none"
    heads = "MODEL.ROI_HEADS.NAME", "StandardROIHeads", "MODEL.MASK_ON", "True"
    with pytest.raises(InputError, match=words):
        yaml_checks(train, train, "MODEL.META_ARCHITECTURE", "PanopticFPN", *heads)


@pytest.fixture
def by_name(tmp_path):
    """A data set that is registered by its name, with a field that only some objects have."""
    objects = [{"bbox": [5, 5, 30, 30], "bbox_mode": 0, "category_id": 0} for _ in range(4)]
    objects[0]["segmentation"] = [[5, 5, 30, 5, 30, 30]]
    image = {"height": 50, "width": 50}
    records = [{**image, "file_name": f"{i}.jpg", "image_id": i, "annotations": [x]}
               for i, x in enumerate(objects)]  # fmt: skip
    DatasetCatalog.register("by_name", lambda: records)
    MetadataCatalog.get("by_name").set(thing_classes=["bug"], evaluator_type="none")
    yield records
    DatasetCatalog.remove("by_name")
    MetadataCatalog.remove("by_name")


PANOPTIC = (
    "MODEL.META_ARCHITECTURE", "PanopticFPN", "MODEL.ROI_HEADS.NAME", "StandardROIHeads",
    "MODEL.MASK_ON", "True",
)  # fmt: skip
FEDERATED = "MODEL.ROI_BOX_HEAD.USE_FED_LOSS", "True"


@pytest.mark.parametrize(
    ("opts", "words"),
    [
        (["MODEL.MASK_ON", "True"], "MODEL.MASK_ON is True, but 3 of 4 objects of .* 'by_name'"),
        (KEYPOINTS, "MODEL.KEYPOINT_ON is True, but no object of the data set 'by_name' has"),
        (PANOPTIC, "MODEL.META_ARCHITECTURE is 'PanopticFPN', .*: 4 of 4 images of .* 'by_name'"),
        (FEDERATED, "MODEL.ROI_BOX_HEAD.USE_FED_LOSS is True, but .* 'by_name' have no class_im"),
    ],
)
def test_what_a_data_set_by_name_lacks(by_name, opts, words):
    with pytest.raises(InputError, match=f"^{words}"):
        yaml_checks("by_name", "()", *opts)
    for name in ("RetinaNet", "OHEMRetinaNet"):
        yaml_checks("by_name", "()", "MODEL.META_ARCHITECTURE", name, "MODEL.ROI_HEADS.NAME",
                    "StandardROIHeads", "MODEL.RETINANET.IN_FEATURES", "['p2', 'p3', 'p4']",
                    "MODEL.ANCHOR_GENERATOR.SIZES", "[[8], [16], [32]]", *KEYPOINTS)  # fmt: skip


def test_what_a_data_set_by_name_has(by_name):
    for record in by_name:
        (annotation,) = record["annotations"]
        annotation["segmentation"] = [[5, 5, 30, 5, 30, 30]]
        record["sem_seg_file_name"] = "x.png"
    by_name[0]["annotations"][0]["keypoints"] = [8, 8, 2]
    metadata = MetadataCatalog.get("by_name")
    yaml_checks("by_name", "()", "MODEL.MASK_ON", "True")
    yaml_checks("by_name", "()", *PANOPTIC)
    metadata.set(class_image_count=[{"id": 1, "image_count": 5}] * 3)
    yaml_checks("by_name", "()", *FEDERATED)
    with pytest.raises(InputError, match="'by_name' have no keypoint_names"):
        yaml_checks("by_name", "()", *KEYPOINTS)
    metadata.set(keypoint_names=["tail"])
    with pytest.raises(InputError, match="'by_name' have no keypoint_flip_map"):
        yaml_checks("by_name", "()", *KEYPOINTS)
    metadata.set(keypoint_flip_map=[])
    yaml_checks("by_name", "()", *KEYPOINTS)


def test_a_panoptic_model_puts_masks_together(by_name):
    with pytest.raises(InputError, match="MODEL.MASK_ON is False, expected True: .*PanopticFPN"):
        yaml_checks("by_name", "by_name", *PANOPTIC, "MODEL.MASK_ON", "False")


def test_what_a_data_set_by_name_lacks_in_a_python_config(by_name):
    words = "mask_in_features is set, but 3 of 4 objects of the data set 'by_name'"
    with pytest.raises(InputError, match=f"^model.roi_heads.{words}"):
        lazy_checks("by_name", "[]", MASKS)
    for record in by_name:
        record["annotations"][0]["segmentation"] = [[5, 5, 30, 5, 30, 30]]
    with pytest.raises(InputError, match=r"mapper.use_instance_mask is not true, expected true"):
        lazy_checks("by_name", "[]", MASKS, "dataloader.train.mapper.use_instance_mask=False")
    with pytest.raises(InputError, match="^model is a PanopticFPN, .* 4 of 4 images"):
        lazy_checks("by_name", "[]", zoo("COCO-PanopticSegmentation/panoptic_fpn_R_50_1x.py"))


def test_coco_evaluates_what_is_not_in_its_format_in_a_python_config(by_name, tmp_path):
    cfg = lazy_checks("[]", "by_name", MASKS, "model.roi_heads.mask_in_features=null")
    cfg.train.output_dir = str(tmp_path / "out")
    lazy_trainer.build_lazy_evaluators(cfg)
    assert (tmp_path / "out" / "inference" / "by_name_coco_format.json").is_file()


def test_a_test_set_without_keypoints(tmp_path):
    train, test = write(tmp_path, "a.json"), write(tmp_path, "b.json", lacking=["keypoints"])
    words = r"no object of the data set '.*b.json.*' has 'keypoints'"
    with pytest.raises(InputError, match=words):
        yaml_checks(train, test, *KEYPOINTS, *SIGMAS)
    with pytest.raises(InputError, match=words):
        lazy_checks(train, test, POINTS, LAZY_SIGMAS)


def test_sigmas_of_the_keypoints_are_asked_for_before_the_training(tmp_path):
    address = write(tmp_path, "a.json")
    with pytest.raises(
        InputError, match=r"KEYPOINT_OKS_SIGMAS is \(\), expected 3 numbers, one for"
    ):
        yaml_checks(address, address, *KEYPOINTS)
    with pytest.raises(InputError, match=r"KEYPOINT_OKS_SIGMAS is \(0.1, 0.1\), expected 3"):
        yaml_checks(address, address, *KEYPOINTS, SIGMAS[0], "(0.1, 0.1)")
    cfg = yaml_checks(address, address, *KEYPOINTS, *SIGMAS)
    assert cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS == 3
    with pytest.raises(InputError, match=r"evaluator.kpt_oks_sigmas is \(\), expected 3 numbers"):
        lazy_checks(address, address, POINTS)
    cfg = lazy_checks(address, address, POINTS, LAZY_SIGMAS)
    assert cfg.model.roi_heads.keypoint_head.num_keypoints == 3
    evaluator = lazy_trainer.build_lazy_evaluators(
        OmegaConf.merge(cfg, {"train": {"output_dir": str(tmp_path / "out")}})
    )[0]
    assert list(evaluator._evaluators[0]._kpt_oks_sigmas) == [0.1, 0.1, 0.1]


def test_a_python_config_flips_the_keypoints_of_the_data(tmp_path):
    address = write(tmp_path, "a.json")
    cfg = lazy_checks(address, address, POINTS, LAZY_SIGMAS)
    assert list(cfg.dataloader.train.mapper.keypoint_hflip_indices) == [1, 0, 2]
    assert MetadataCatalog.get(address).keypoint_flip_map == [("left_eye", "right_eye")]


@pytest.mark.parametrize(("flip", "number"), [("horizontal", 1), ("none", 0)])
def test_a_warning_where_images_are_flipped_without_pairs(tmp_path, caplog, flip, number):
    address = write(tmp_path, "a.json", names=["eye 1", "eye 2", "tail"])
    yaml_checks(address, address, *KEYPOINTS, *SIGMAS, "INPUT.RANDOM_FLIP", flip)
    assert (
        sum("are flipped, but no names of keypoints" in x.message for x in caplog.records) == number
    )
    if number:
        caplog.clear()
        lazy_checks(address, address, POINTS, LAZY_SIGMAS)
        assert any("no names of keypoints" in x.message for x in caplog.records)


def test_a_warning_where_the_model_finds_less_than_there_is(tmp_path, caplog):
    boxes = [("bug", [i, i, 9, 9]) for i in range(7)]
    write_coco(tmp_path, {"a.jpg": boxes}, {1: "bug"})
    address = f"coco://{tmp_path}/annotations.json?images={tmp_path}/images"
    yaml_checks(address, address, "TEST.DETECTIONS_PER_IMAGE", "5")
    assert "TEST.DETECTIONS_PER_IMAGE is 5" in caplog.text
    caplog.clear()
    yaml_checks(address, address, "MODEL.RPN.POST_NMS_TOPK_TEST", "6")
    assert "MODEL.RPN.POST_NMS_TOPK_TEST is 6" in caplog.text
    caplog.clear()
    more = "model.proposal_generator.post_nms_topk=[20,4]", "model.roi_heads.mask_in_features=null"
    lazy_checks(address, address, MASKS, *more)
    assert "model.proposal_generator.post_nms_topk[1] is 4" in caplog.text
    caplog.clear()
    key = "model.roi_heads.box_predictor.test_topk_per_image"
    opts = f"+{key}=5", "model.roi_heads.mask_in_features=null"
    lazy_checks(address, address, MASKS, *opts)
    assert f"{key} is 5" in caplog.text


@pytest.mark.parametrize("is_lazy", [False, True])
def test_warnings_of_what_a_training_set_cannot_show(tmp_path, caplog, is_lazy):
    write_coco(tmp_path, IMAGES, {1: "bug", 2: "ant", 3: "bee"})
    write_coco(
        tmp_path, {"9.jpg": [("bug", [5, 5, 9, 9])]}, {1: "bug", 2: "ant", 3: "bee"}, "b.json"
    )
    one, other = (
        f"coco://{tmp_path}/{x}?images={tmp_path}/images" for x in ("annotations.json", "b.json")
    )

    def check(train, test):
        caplog.clear()
        if is_lazy:
            lazy_checks(train, test, MASKS, "model.roi_heads.mask_in_features=null")
        else:
            yaml_checks(train, test)
        return "; ".join(x.message for x in caplog.records)

    words = check(one, one)
    assert f"has {one!r}, which " in words
    assert "images that the model learns from" in words
    assert "2 of 3 classes have no object in the training set" in words
    assert words.endswith("cannot learn them: ant; bee")
    assert "learns from" not in check(one, other)


def test_runs_need_bitmasks_in_a_python_config(tmp_path):
    address = write(tmp_path, "a.json")
    content = json.loads((tmp_path / "a.json").read_text())
    for annotation in content["annotations"]:
        counts = np.array([100, HEIGHT * WIDTH - 100]).tolist()
        annotation["segmentation"] = {"size": [HEIGHT, WIDTH], "counts": counts}
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"mask_format is 'polygon', but 4 obj.*=bitmask"):
        lazy_checks(address, address, MASKS)
    lazy_checks(address, address, MASKS, "+dataloader.train.mapper.instance_mask_format=bitmask")


def test_a_truncated_image_is_named_before_the_training_or_left_out(tmp_path):
    write_coco(tmp_path, IMAGES, {1: "bug"})
    file = tmp_path / "images" / "2.jpg"
    file.write_bytes(file.read_bytes()[:600])
    spec = "coco://annotations.json?images=images"
    opts = ["DATASETS.TRAIN", spec, "DATASETS.TEST", spec, "OUTPUT_DIR", "out",
            "SOLVER.MAX_ITER", 2, "SOLVER.IMS_PER_BATCH", 2, "SOLVER.WARMUP_ITERS", 1]  # fmt: skip
    run = run_train_net(tmp_path, *opts, run=run_command)
    assert run.returncode != 0
    assert ": 1 of 4 images of the data set" in run.stderr.splitlines()[-1]
    assert "(images/2.jpg: " in run.stderr
    assert "Starting training" not in run.stdout
    run = run_train_net(tmp_path, *opts, "DATASETS.UNREADABLE_IMAGES", "skip", run=run_command)
    assert run.returncode == 0, run.stderr
    assert "image that cannot be read, left out: 1 (" in run.stdout
    (truth,) = (tmp_path / "out" / "inference").glob("*_annotations.json")
    assert len(json.loads(truth.read_text())["images"]) == 3


def test_nothing_to_train_on(tmp_path):
    file = write_coco(tmp_path, {"a.jpg": [("bug", [5, 5, 20, 20])]}, {1: "bug"})
    address = f"coco://{file}?images={tmp_path}/images"
    file.write_text(file.read_text().replace('"iscrowd": 0', '"iscrowd": 1'))
    for checks, config in (
        (yaml_checks, ()),
        (lazy_checks, (MASKS, "model.roi_heads.mask_in_features=null")),
    ):
        with pytest.raises(InputError, match=r"has no object but crowds and regions to ignore"):
            checks(address, address, *config)


def test_no_keypoint_is_visible(tmp_path):
    address = write(tmp_path, "a.json")
    file = tmp_path / "a.json"
    content = json.loads(file.read_text())
    for annotation in content["annotations"]:
        annotation["keypoints"][2::3] = [0] * len(annotation["keypoints"][2::3])
    file.write_text(json.dumps(content))
    with pytest.raises(
        InputError, match=r"has no image with 1 visible keypoints or more, the numb"
    ):
        yaml_checks(address, address, *KEYPOINTS, *SIGMAS)


def test_nothing_to_evaluate_with(tmp_path):
    write_voc(tmp_path, {"a": [("dog", (1, 1, 20, 30), "<difficult>1</difficult>")]})
    address = f"voc://{tmp_path}"
    with pytest.raises(InputError, match=r"has no object to evaluate with: all are difficult or"):
        yaml_checks(address, address)


def test_a_test_set_of_crowds(tmp_path):
    train = write(tmp_path, "a.json")
    file = write_coco(tmp_path, {"c.jpg": [("bug", [5, 5, 20, 20])]}, {1: "bug"}, "c.json")
    file.write_text(file.read_text().replace('"iscrowd": 0', '"ignore": 1'))
    test = f"coco://{file}?images={tmp_path}/images"
    for checks, config in (
        (yaml_checks, ()),
        (lazy_checks, (MASKS, "model.roi_heads.mask_in_features=null")),
    ):
        with pytest.raises(InputError, match=r"c\.json.* to evaluate with: all are crowds or reg"):
            checks(train, test, *config)
