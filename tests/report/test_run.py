"""What a model finds hard, written down as a user would."""

import json
import math
import multiprocessing
import os
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import cv2
import pytest
import torch
from command_line import run_command, run_script
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import instantiate
from detectron2.data import MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.modeling import build_model
from full_disk import fill_disk
from locks import held
from pycocotools.coco import COCO
from small_data import write_voc
from small_models import SHRINK_OPTS

from ohem_d2 import cli
from ohem_d2.data import register_datasets
from ohem_d2.errors import InputError
from ohem_d2.report import run as report_run
from ohem_d2.report.hard_examples import look_at
from ohem_d2.report.label_errors import LABEL_ERRORS
from ohem_d2.training.config_file import load_config
from ohem_d2.training.lazy_config import load_lazy_config
from ohem_d2.training.lazy_data import register_lazy_datasets

NAME = "COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml"
DATA = "voc://voc?split=trainval"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """The folder of a model of plain Detectron2, and its data."""
    folder = tmp_path_factory.mktemp("models")
    objects = [("dog", (5, 5, 30, 40), ""), ("cat", (40, 10, 70, 50), "")]
    write_voc(folder / "voc", {f"image {i}": objects for i in range(4)})
    none = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "cat"}]}
    (folder / "none.json").write_text(json.dumps(none))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        cfg = load_config(NAME, [*SHRINK_OPTS, "DATASETS.TEST", DATA, "INPUT.MIN_SIZE_TEST", "64"])
        register_datasets(cfg)
        model = build_model(cfg)
        DetectionCheckpointer(model, str(folder)).save("model")
        model.roi_heads.box_predictor.cls_score.weight.data.fill_(math.nan)
        DetectionCheckpointer(model, str(folder)).save("diverged")
        two = cfg.clone()
        two.MODEL.ROI_HEADS.NUM_CLASSES = 2
        DetectionCheckpointer(build_model(two), str(folder)).save("two_classes")
        cfg.MODEL.WEIGHTS = "model.pth"
        (folder / "config.yaml").write_text(cfg.dump())
    return folder


@pytest.fixture
def trained(models, tmp_path, monkeypatch):
    """A copy of it, for a test to work in."""
    shutil.copytree(models, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(folder, *arguments, run=run_command):
    usual = {"--config-file": "config.yaml", "--dataset": DATA, "--output": "report"}
    given = [x for name in usual if name not in arguments for x in (name, usual[name])]
    return run(folder, "report", *given, *arguments)


def test_writes_what_pycocotools_reads(trained, capsys):
    (trained / "voc/JPEGImages/image 1.jpg").write_bytes(b"no image")
    run = call(trained, "MODEL.WEIGHTS", "model.pth", "--max-images", 3, run=run_script)
    assert run.returncode == 0, run.stderr
    assert "image 1.jpg is left out" in run.stdout
    coco = COCO(str(trained / "report/hard_examples.json"))
    names = [x["file_name"].split("/")[-1] for x in coco.imgs.values()]
    assert names == ["image 0.jpg", "image 2.jpg"]
    annotations = json.loads((trained / "report/hard_examples.json").read_text())["annotations"]
    assert annotations
    assert {"loss", "error_type"} <= set(annotations[0])
    errors = json.loads((trained / "report/label_errors.json").read_text())["annotations"]
    assert {x["error_type"] for x in errors} <= set(LABEL_ERRORS)
    found = f"{len(annotations)} hard examples and {len(errors)} suspected label errors of 2 images"
    assert f"Wrote {found}" in run.stdout
    of_model = COCO(str(trained / "report/model_errors.json"))
    assert len(of_model.imgs) == 2
    assert {"score", "error_type"} <= set(of_model.anns[1])
    assert f"AP50 is {of_model.dataset['info']['ap50']:.1f}" in run.stdout
    crops = [trained / "report" / x["crop"] for x in annotations + errors]
    assert all(cv2.imread(str(x)) is not None for x in crops)
    assert sorted(crops) == sorted((trained / "report/crops/1").iterdir())


PRECOMPUTED = [
    "MODEL.LOAD_PROPOSALS",
    True,
    "MODEL.PROPOSAL_GENERATOR.NAME",
    "PrecomputedProposals",
]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--max-images", 0], "--max-images is 0, expected 1 or more"),
        (["MODEL.WEIGHTS", "missing.pth"], "'missing.pth', cannot be loaded"),
        (
            ["--output", "config.yaml"],
            "--output is 'config.yaml', which is a file, expected a folder",
        ),
        (["--dataset", "ohem_shapes_test"], "NUM_CLASSES is 80, expected 3, as the data set"),
        (["MODEL.META_ARCHITECTURE", "RetinaNet"], "is RetinaNet, expected GeneralizedRCNN"),
        (
            ["--dataset", "ohem_shapes_test", "MODEL.META_ARCHITECTURE", "RetinaNet"],
            "is RetinaNet, expected GeneralizedRCNN",
        ),
        (["MODEL.META_ARCHITECTURE", "Retina"], "META_ARCHITECTURE is 'Retina', expected one of"),
        (["--dataset", "coco://none.json?images=voc"], "none.json: it has no images"),
        (["MODEL.LOAD_PROPOSALS", True], "expected False, since MODEL.PROPOSAL_GENERATOR.NAME is"),
        (PRECOMPUTED, "DATASETS.PROPOSAL_FILES_TEST has 0 files, expected 1"),
        (
            [*PRECOMPUTED, "DATASETS.TEST", "('ohem_shapes_test',)"],
            "expected one of DATASETS.TEST or DATASETS.TRAIN",
        ),
    ],
)
def test_mistakes_are_answered_by_one_line(trained, arguments, error):
    run = call(trained, *arguments)
    assert run.returncode == 1
    assert error in run.stderr
    assert "Traceback" not in run.stderr
    assert not list(trained.glob("report/*"))


@pytest.mark.usefixtures("signals_as_from_a_terminal")
@pytest.mark.parametrize("reason", [KeyboardInterrupt, KeyError, signal.SIGTERM, signal.SIGHUP])
def test_what_was_found_is_written_whatever_happens(trained, monkeypatch, reason):
    looked = []
    of_end = signal.SIGTERM, signal.SIGHUP
    before = [signal.getsignal(x) for x in of_end]

    def look(model, x):
        if len(looked) == 2 and isinstance(reason, signal.Signals):
            os.kill(os.getpid(), reason)
        if len(looked) == 2:
            raise reason
        looked.append(x)
        return look_at(model, x)

    monkeypatch.setattr(report_run, "look_at", look)
    given = ["--config-file", "config.yaml", "--dataset", DATA, "--output", "report"]
    with pytest.raises(reason if reason is KeyError else SystemExit) as stopped:
        cli.report([*given, "MODEL.WEIGHTS", "model.pth"])
    codes = {KeyboardInterrupt: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
    assert reason is KeyError or stopped.value.code == codes[reason]
    assert [signal.getsignal(x) for x in of_end] == before
    found = json.loads((trained / "report/hard_examples.json").read_text())
    assert len(found["images"]) == 2
    assert (trained / "report/index.html").exists()


def report(folder, output="report"):
    given = ["--config-file", "config.yaml", "--dataset", DATA, "--output", output]
    cli.report([*given, "MODEL.WEIGHTS", "model.pth"])


def test_a_report_that_is_killed_leaves_what_it_had(trained, monkeypatch):
    """At any moment, all lists are there, of all images but the last one."""
    looked = []

    def look(model, x):
        if looked:
            for name in ("hard_examples", "label_errors", "model_errors"):
                assert len(COCO(f"report/{name}.json").imgs) == len(looked)
        looked.append(x)
        return look_at(model, x)

    monkeypatch.setattr(report_run, "look_at", look)
    monkeypatch.setattr(report_run, "_PERIOD", 0.0)
    monkeypatch.setattr(report_run, "_SHARE", math.inf)
    report(trained)
    assert len(looked) == 4


def examples(report, name):
    """All that a list has, but where its pictures are."""
    found = json.loads((report / f"{name}.json").read_text())["annotations"]
    return [{**x, "crop": None} for x in found]


def report_slowly(folder, seen):
    """Write the lists after each image, one of which lasts until somebody ends it."""

    def look(model, x):
        if seen.value == 3:
            time.sleep(60)
        found = look_at(model, x)
        seen.value += 1
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report_run, "look_at", look)
        patch.setattr(report_run, "_PERIOD", 0.0)
        patch.setattr(report_run, "_SHARE", math.inf)
        report(folder)


def test_a_report_that_is_killed_by_9_can_be_written_again(trained):
    report(trained, "whole")
    shutil.copytree("whole", "report")
    page = (trained / "report" / "index.html").read_bytes()
    context = multiprocessing.get_context("fork")
    seen = context.Value("i", 0)
    process = context.Process(target=report_slowly, args=(trained, seen))
    process.start()
    while process.is_alive() and seen.value < 3:
        time.sleep(0.02)
    time.sleep(0.3)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    for name in ("hard_examples", "label_errors", "model_errors"):
        assert len(COCO(f"report/{name}.json").imgs) in (2, 3)
    assert (trained / "report" / "index.html").read_bytes() == page  # of the report before
    report(trained)
    for name in ("hard_examples", "label_errors", "model_errors"):
        assert examples(trained / "report", name) == examples(trained / "whole", name)
    assert not list((trained / "report").rglob("*.tmp"))


def test_a_full_disk_is_told_by_one_line(trained, monkeypatch):
    report(trained)
    before = (trained / "report/index.html").read_bytes()
    (trained / "report/label_errors.json").write_text("{}")
    fill_disk(monkeypatch, lambda name: name.startswith(("label_errors", "index")))
    with pytest.raises(SystemExit) as failed:
        report(trained)
    assert failed.value.code == (
        "error: --output report cannot be written (No space left on device). What was there before "
        "is kept"
    )
    assert (trained / "report/index.html").read_bytes() == before
    assert (trained / "report/label_errors.json").read_text() == "{}"
    assert not list((trained / "report").rglob("*.tmp"))


def test_a_report_may_be_written_in_any_thread(trained):
    with ThreadPoolExecutor() as pool:  # where Python lets nobody listen to signals
        pool.submit(report, trained).result()
    assert (trained / "report/index.html").exists()


def test_a_second_report_in_a_folder_is_refused(trained):
    with held(trained / "report" / ".lock") as first, pytest.raises(SystemExit) as failed:
        report(trained)
    assert f"error: --output is report, where process {first.pid} on " in failed.value.code


def test_weights_of_a_training_that_diverged(trained):
    run = call(trained, "MODEL.WEIGHTS", "diverged.pth")
    assert run.returncode == 1
    assert "'diverged.pth' has " in run.stderr
    assert "that are NaN or infinite: roi_heads.box_predictor.cls_score.weight" in run.stderr
    assert "Traceback" not in run.stderr


def test_weights_without_a_head(trained):
    weights = torch.load("model.pth", weights_only=True)
    model = {k: v for k, v in weights["model"].items() if "box_predictor" not in k}
    torch.save({**weights, "model": model}, "headless.pth")
    run = call(trained, "MODEL.WEIGHTS", "headless.pth")
    assert run.returncode == 1
    assert "of the model are not in 'headless.pth': roi_heads.box_predictor" in run.stderr
    assert "Traceback" not in run.stderr


def test_a_second_interrupt_leaves_the_list_that_is_there(trained, monkeypatch):
    rankings = iter([[], KeyboardInterrupt])

    def rank(findings):
        found = next(rankings)
        if found is KeyboardInterrupt:
            raise found
        return found

    monkeypatch.setitem(report_run.RANKINGS, "loss", rank)
    given = ["--config-file", "config.yaml", "--dataset", DATA, "--output", "report"]
    with pytest.raises(SystemExit) as stopped:
        cli.report([*given, "MODEL.WEIGHTS", "model.pth"])
    assert stopped.value.code == 130
    assert len(COCO("report/hard_examples.json").imgs) == 4


def write_python_config(folder, base, *opts):
    """A small model of Detectron2's zoo, saved, and a Python config that reads it."""
    data = f"dataloader.train.dataset.names='{DATA}'", f"dataloader.test.dataset.names='{DATA}'"
    small = (
        "model.backbone.bottom_up.stem.norm=BN",
        "model.backbone.bottom_up.stages.norm=BN",
        "model.proposal_generator.post_nms_topk=[20,10]",
        "dataloader.test.mapper.augmentations.0.short_edge_length=64",
        "train.init_checkpoint=model.pth",
    )
    (folder / "config.py").write_text(
        "from detectron2 import model_zoo\nfrom detectron2.config import LazyConfig\n"
        f"cfg = model_zoo.get_config({base!r})\n"
        f"cfg = LazyConfig.apply_overrides(cfg, {[*small, *data, *opts]!r})\n"
        "model, dataloader, train = cfg.model, cfg.dataloader, cfg.train\n"
    )
    cfg = load_lazy_config(str(folder / "config.py"), training=False)
    register_lazy_datasets(cfg)
    DetectionCheckpointer(instantiate(cfg.model), str(folder)).save("model")


def test_python_configs(trained):
    no_masks = "model.roi_heads.mask_in_features=null"
    base = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.py"
    write_python_config(trained, base, no_masks)
    run = call(trained, "--config-file", "config.py")
    assert run.returncode == 0, run.stderr
    assert len(COCO(str(trained / "report/hard_examples.json")).imgs) == 4

    run = call(trained, "--config-file", "config.py", "model.roi_heads.num_classes=1")
    assert run.returncode == 0, run.stderr  # the data set decides
    shapes = "--dataset", "ohem_shapes_test", "dataloader.train.dataset.names=[]"
    run = call(trained, "--config-file", "config.py", *shapes)
    assert run.returncode == 1
    assert "model.roi_heads.num_classes is 80, expected 3, as the data set" in run.stderr


def test_a_training_set_that_is_not_here(trained):
    given = "MODEL.WEIGHTS", "two_classes.pth", "DATASETS.TRAIN"
    run = call(trained, *given, "('voc://gone?split=trainval',)")
    assert run.returncode == 1
    assert "leave it out: DATASETS.TRAIN '()'" in run.stderr
    assert call(trained, *given, "()").returncode == 0
    run = call(trained, *given, "()", "--dataset", "voc://gone?split=trainval")
    assert "leave it out" not in run.stderr


def test_classes_that_are_known_once_the_data_is_loaded(trained):
    annotations = {
        "images": [{"id": 1, "file_name": "image 0.jpg", "height": 60, "width": 90}],
        "annotations": [],
        "categories": [{"id": 4, "name": "cat"}, {"id": 9, "name": "dog"}],
    }
    (trained / "own.json").write_text(json.dumps(annotations))
    register_coco_instances("own", {}, "own.json", "voc/JPEGImages")
    assert MetadataCatalog.get("own").get("thing_classes") is None
    report_run.check_classes("NUM_CLASSES", 2, "own")
    with pytest.raises(InputError, match="NUM_CLASSES is 3, expected 2"):
        report_run.check_classes("NUM_CLASSES", 3, "own")


def test_hostile_names(trained):
    hostile = '</script><img src=x onerror=alert(1)> "it\'s" & \u00fcn\u00ef'
    image = f"1 {hostile.replace('/', '_')}"
    folder = trained / hostile.replace("/", "_")
    write_voc(folder, {image: [("dog", (5, 5, 30, 40), ""), (hostile, (40, 10, 70, 50), "")]})
    data = f"voc://{folder.name}?split=trainval"
    given = "--dataset", data, "MODEL.WEIGHTS", "two_classes.pth", "DATASETS.TRAIN", "()"
    run = call(trained, *given)
    assert run.returncode == 0, run.stderr
    found = json.loads((trained / "report/hard_examples.json").read_text())
    assert [x["name"] for x in found["categories"]] == [hostile, "dog"]
    assert found["images"][0]["file_name"].endswith(f"{image}.jpg")
    page = (trained / "report/index.html").read_text(encoding="utf-8")
    assert page.count("</script>") == 13
    assert "<img" not in page


def test_an_earlier_report_stays_if_nothing_can_be_read(trained):
    (trained / "report").mkdir()
    (trained / "report/index.html").write_text("earlier")
    (trained / "report/label_errors.json").write_text("{}")
    for image in (trained / "voc/JPEGImages").iterdir():
        image.write_bytes(b"no image")
    run = call(trained, "MODEL.WEIGHTS", "model.pth")
    assert run.returncode == 1
    assert f"no image of {DATA} was looked at" in run.stderr
    assert (trained / "report/index.html").read_text() == "earlier"


def compared(folder, *arguments):
    return call(folder, "MODEL.WEIGHTS", "model.pth", "--compare", "report", *arguments)


def test_an_earlier_report_is_compared_with(trained):
    """Before and after an object gets its label: both are judged by the labels of now."""
    report(trained)
    then = json.loads((trained / "report/model_errors.json").read_text())
    file = trained / "voc/Annotations/image 1.xml"
    text = file.read_text()
    file.write_text(text.replace("<name>dog</name>", "<name>cat</name>", 1))
    run = compared(trained, "--output", "newer")
    assert run.returncode == 0, run.stderr
    assert "Since then 1 labels are new and 1 are gone" in run.stdout
    comparison = json.loads((trained / "newer/model_comparison.json").read_text())
    assert comparison["info"]["earlier"] == comparison["info"]["now"]  # it is the same model
    assert comparison["info"]["ap50_then"] == then["info"]["ap50"]
    assert len(comparison["annotations"]) == 8
    assert COCO(str(trained / "newer/model_comparison.json")).imgs
    report(trained, "newer")  # without a comparison: that of before goes with its page
    assert not (trained / "newer/model_comparison.json").exists()


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--output", "report"], "--compare is 'report', the folder of --output, expected another"),
        (["--output", "new", "--compare", "voc"], "argument --compare is given twice"),
        (["--output", "new"], "which lacks 2 of 4 images, such as"),
    ],
)
def test_an_earlier_report_that_cannot_be_compared_with(trained, arguments, error):
    report(trained)
    file = trained / "report/model_errors.json"
    content = json.loads(file.read_text())
    kept = {x["id"] for x in content["images"][:2]}
    content["images"] = content["images"][:2]
    for part in ("annotations", "labels"):
        content[part] = [x for x in content[part] if x["image_id"] in kept]
    file.write_text(json.dumps(content))
    before = file.read_bytes()
    run = compared(trained, *arguments)
    assert run.returncode in (1, 2)
    assert error in run.stderr
    assert len(run.stderr.strip().splitlines()) == 1
    assert file.read_bytes() == before
    assert not list(trained.glob("new/*"))
