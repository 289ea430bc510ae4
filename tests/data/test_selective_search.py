"""Selective search proposals of small data sets, searched for real."""

import contextlib
import fcntl
import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from command_line import ROOT
from detectron2.data import DatasetCatalog
from detectron2.data.build import load_proposals_into_dataset
from detectron2.structures import Boxes, BoxMode, pairwise_iou
from PIL import Image
from small_data import write_coco, write_voc
from torch import from_numpy, tensor

from ohem_d2.data import selective_search
from ohem_d2.errors import InputError

TOOL = ROOT / "tools" / "selective_search.py"
HEADER = "selective search (fast) of voc://voc?split=trainval"  # of the part file, see `voc`
RECTANGLE = (80, 60, 200, 150)  # XYXY

has_selective_search = pytest.mark.skipif(
    not hasattr(getattr(cv2, "ximgproc", None), "segmentation"),
    reason="OpenCV is not opencv-contrib-python",
)


def draw(factor=1):
    """A BGR image, 300 wide and 240 high but for the factor, with RECTANGLE in it."""
    image = np.full((240 * factor, 300 * factor, 3), (60, 120, 60), np.uint8)
    x0, y0, x1, y1 = (factor * c for c in RECTANGLE)
    image[y0:y1, x0:x1] = (40, 40, 220)
    noise = np.random.default_rng(0).integers(0, 12, image.shape, dtype=np.uint8)
    return image + noise


def best_iou(boxes, box):
    return pairwise_iou(Boxes(from_numpy(boxes)), Boxes(tensor([box]).float())).max().item()


@pytest.fixture
def voc(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_voc(tmp_path / "voc", {f"image {i}": [("dog", (5, 5, 30, 40), "")] for i in range(4)})
    return "voc://voc?split=trainval"


@pytest.fixture
def searched(monkeypatch):
    """The indices of the images that are searched, as they come."""
    indices = []

    def search(image, index, mode):
        indices.append(index)
        return original(image, index, mode)

    original = selective_search.search
    monkeypatch.setattr(selective_search, "search", search)
    return indices


def run(folder, *args, **env):
    return subprocess.run(
        [sys.executable, str(TOOL), *map(str, args)],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", **env},
        capture_output=True,
        text=True,
        timeout=300,
    )


def read(path):
    return pickle.loads(path.read_bytes())


@has_selective_search
@pytest.mark.parametrize("factor", [1, 4])  # 4: shrunk before the search
@pytest.mark.parametrize("mode", selective_search.MODES)
def test_a_visible_object_is_proposed(factor, mode):
    image = draw(factor)
    boxes = selective_search.search(image, 0, mode)
    assert boxes.dtype == np.float32
    assert best_iou(boxes, [factor * c for c in RECTANGLE]) > 0.9
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert boxes.min() == 0
    assert boxes[:, 2].max() == image.shape[1]
    assert boxes[:, 3].max() == image.shape[0]


@has_selective_search
def test_the_order_is_random_but_always_the_same():
    image = cv2.resize(np.random.default_rng(0).integers(0, 255, (12, 16, 3), np.uint8), (320, 240))
    first = selective_search.search(image, 0)
    assert len(first) > 50
    assert len(np.unique(first, axis=0)) == len(first)
    assert (selective_search.search(image, 0) == first).all()
    other = selective_search.search(image, 1)
    assert (other != first).any()
    assert (np.unique(other, axis=0) == np.unique(first, axis=0)).all()
    area = (first[:, 2:] - first[:, :2]).prod(axis=1)
    assert abs(np.corrcoef(area, np.arange(len(area)))[0, 1]) < 0.3


@has_selective_search
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (1, 4000), (4000, 1)])
def test_tiny_and_thin_images(size):
    boxes = selective_search.search(np.zeros((*size, 3), np.uint8), 0)
    assert boxes.tolist() == [[0, 0, size[1], size[0]]]


@has_selective_search
def test_from_the_command_line_to_detectron2(tmp_path):
    names = ["a.jpg", "b.jpg", "c.jpg"]
    file = write_coco(tmp_path, {name: [("dog", [5, 5, 25, 35])] for name in names}, {1: "dog"})
    content = json.loads(file.read_text())
    for image in content["images"]:
        image.update(width=0, height=0)  # those of the files
    file.write_text(json.dumps(content))
    cv2.imwrite(str(tmp_path / "images" / "b.jpg"), draw())
    turned = Image.fromarray(np.rot90(draw()[..., ::-1], 1).copy())
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned back by a quarter for display
    turned.save(tmp_path / "images" / "c.jpg", exif=exif)
    address = "coco://annotations.json?images=images"
    output = tmp_path / "new" / "folder" / "proposals.pkl"

    result = run(tmp_path, address, "--output", output, "--jobs", 2)
    assert result.returncode == 0, result.stderr
    assert "3 images" in result.stdout.splitlines()[-1]
    assert "0 images skipped" in result.stdout.splitlines()[-1]
    assert [p.name for p in output.parent.iterdir()] == ["proposals.pkl"]

    records = [{"image_id": i} for i in (3, 2, 1)]
    c, b, a = load_proposals_into_dataset(records, str(output))
    assert len(a["proposal_boxes"]) > 0
    for record in (b, c):
        assert best_iou(record["proposal_boxes"], RECTANGLE) > 0.7
    assert {r["proposal_bbox_mode"] for r in records} == {BoxMode.XYXY_ABS}
    # Detectron2's sorting leaves the order as it is.
    assert (b["proposal_boxes"] == read(output)["boxes"][1]).all()
    assert len(b["proposal_objectness_logits"]) == len(b["proposal_boxes"])
    assert b["proposal_objectness_logits"].dtype == np.float32

    # The number of processes changes nothing, nor does another run.
    result = run(tmp_path, address, "--output", "again.pkl", "--jobs", 1)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "again.pkl").read_bytes() == output.read_bytes()

    result = run(tmp_path, address, "--output", "again.pkl")
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == (
        "error: again.pkl already exists, choose another --output or delete it"
    )
    assert "Traceback" not in result.stderr


@has_selective_search
@pytest.mark.parametrize(
    ("jobs", "stop", "min_done"),
    [(1, "INT", 1), (2, "KILL", 1), (2, "INT", 0)],  # 0: while the other processes start
)
def test_stopped_and_going_on(tmp_path, monkeypatch, capsys, jobs, stop, min_done):
    monkeypatch.chdir(tmp_path)
    images = {f"image {i}": [("dog", (5, 5, 30, 40), "")] for i in range(16)}
    write_voc(tmp_path / "voc", images)
    for path in (tmp_path / "voc" / "JPEGImages").iterdir():
        cv2.imwrite(str(path), draw())
    for path in (tmp_path / "voc" / "Annotations").iterdir():
        path.write_text(re.sub("<size>.*</size>", "", path.read_text()))
    address = "voc://voc?split=trainval"
    process = subprocess.Popen(
        [sys.executable, str(TOOL), address, "--output", "out.pkl", "--jobs", str(jobs)],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Where a shell runs the tests in the background, Ctrl-C is ignored, also by children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    part = tmp_path / "out.pkl.part"
    try:
        end = time.monotonic() + 100
        while not (part.exists() and part.stat().st_size > 200 * min_done - 1):
            assert time.monotonic() < end
            time.sleep(0.02)
        time.sleep(0 if min_done else 0.3)
        if stop == "INT":
            os.killpg(process.pid, signal.SIGINT)  # all processes, as a terminal does
        else:
            process.kill()
        # Until all processes have closed it: those of a killed parent end, too.
        _, errors = process.communicate(timeout=60)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert "Traceback" not in errors
    done, _ = selective_search.read_part(part, HEADER)
    assert min_done <= len(done) < 16
    assert not (tmp_path / "out.pkl").exists()
    if stop == "INT":
        assert process.returncode == 130
        assert errors.splitlines()[-1] == (
            f"interrupted: {len(done)} of 16 images are done; the same command goes on from there"
        )

    selective_search.compute_proposals(address, tmp_path / "out.pkl")
    assert (f"{len(done)} of 16 images are done" in capsys.readouterr().out) == bool(done)
    assert min(map(len, read(tmp_path / "out.pkl")["boxes"])) > 0
    assert not part.exists()


@has_selective_search
@pytest.mark.parametrize("lost", [0, 1, 40])
def test_a_cut_off_part_file_changes_nothing(tmp_path, voc, searched, monkeypatch, lost):
    selective_search.compute_proposals(voc, tmp_path / "whole.pkl")
    assert searched == [0, 1, 2, 3]

    part = tmp_path / "out.pkl.part"
    searched.clear()
    with monkeypatch.context() as m:
        m.setattr(selective_search, "_write_proposals", interrupt)
        with pytest.raises(KeyboardInterrupt, match="4 of 4 images are done"):
            selective_search.compute_proposals(voc, tmp_path / "out.pkl")
    records, size = selective_search.read_part(part, HEADER)
    assert size == part.stat().st_size
    assert list(records) == [f"image {i}" for i in range(4)]
    part.write_bytes(part.read_bytes()[: size - lost])

    searched.clear()
    selective_search.compute_proposals(voc, tmp_path / "out.pkl")
    assert searched == ([3] if lost else [])
    assert (tmp_path / "out.pkl").read_bytes() == (tmp_path / "whole.pkl").read_bytes()


def interrupt(*_):
    raise KeyboardInterrupt


@has_selective_search
def test_an_empty_part_file(tmp_path, voc):
    (tmp_path / "out.pkl.part").touch()  # killed before the first write
    selective_search.compute_proposals(voc, tmp_path / "out.pkl")
    assert read(tmp_path / "out.pkl")["ids"] == [f"image {i}" for i in range(4)]


@has_selective_search
def test_bad_images_are_named_and_get_no_box(tmp_path, voc, capsys, searched):
    folder = tmp_path / "voc" / "JPEGImages"
    whole = (folder / "image 1.jpg").read_bytes()
    (folder / "image 1.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "image 2.jpg").write_text("no image")
    records = [
        {"image_id": i, "file_name": f} for i, f in selective_search.list_images(voc).items()
    ]
    (folder / "image 3.jpg").unlink()
    with registered("of_three_bad", records):
        selective_search.compute_proposals("of_three_bad", tmp_path / "out.pkl")
    out, err = capsys.readouterr()
    warnings = [line for line in err.replace("\r", "\n").splitlines() if "warning" in line]
    assert len(warnings) == 3
    for i, warning in enumerate(warnings, 1):
        assert warning.startswith(f"warning: voc/JPEGImages/image {i}.jpg: ")
    assert re.search("4 images, .+ 3 images skipped", out.splitlines()[-1])
    assert searched == [0]
    proposals = read(tmp_path / "out.pkl")
    assert len(proposals["boxes"][0]) > 0
    for boxes, logits in zip(proposals["boxes"][1:], proposals["objectness_logits"][1:]):
        assert boxes.shape == (0, 4)
        assert logits.shape == (0,)
    records = [{"image_id": image_id} for image_id in proposals["ids"]]
    assert len(load_proposals_into_dataset(records, str(tmp_path / "out.pkl"))) == 4


@has_selective_search
def test_a_mended_image_is_searched_after_all(tmp_path, voc, searched, monkeypatch):
    image = tmp_path / "voc" / "JPEGImages" / "image 2.jpg"
    whole = image.read_bytes()
    image.write_bytes(whole[:100])
    with monkeypatch.context() as m:
        m.setattr(selective_search, "_write_proposals", interrupt)
        with pytest.raises(KeyboardInterrupt, match="3 of 4"):
            selective_search.compute_proposals(voc, tmp_path / "out.pkl")
    image.write_bytes(whole)
    selective_search.compute_proposals(voc, tmp_path / "out.pkl")
    assert searched == [0, 1, 3, 2]
    assert min(map(len, read(tmp_path / "out.pkl")["boxes"])) > 0


@has_selective_search
def test_no_image_can_be_read(tmp_path, voc):
    for path in (tmp_path / "voc" / "JPEGImages").iterdir():
        path.write_text("no image")
    with pytest.raises(InputError, match="none of the 4 images of 'voc://.+' can be read"):
        selective_search.compute_proposals(voc, tmp_path / "out.pkl")
    assert not (tmp_path / "out.pkl").exists()


@has_selective_search
@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps("selective search (quality) of voc://voc?split=trainval"),
        pickle.dumps("selective search (fast) of voc://voc?split=test"),
        b"garbage",
        np.random.default_rng(0).bytes(100),
    ],
)
def test_part_file_of_another_run(tmp_path, voc, searched, content):
    part = tmp_path / "out.pkl.part"
    part.write_bytes(content)
    message = (
        r"out\.pkl\.part is '.+', expected 'selective search \(fast\) of voc://voc\?split=trai"
    )
    with pytest.raises(InputError, match=message):
        selective_search.compute_proposals(voc, tmp_path / "out.pkl")
    assert part.read_bytes() == content
    assert searched == []


@has_selective_search
def test_a_process_that_dies(tmp_path, voc, monkeypatch):
    monkeypatch.setattr(selective_search, "ProcessPoolExecutor", BrokenPool)
    with pytest.raises(InputError, match="a worker died.+--jobs 2.+0 of 4 images are done"):
        selective_search.compute_proposals(voc, tmp_path / "out.pkl", jobs=2)


class BrokenPool:
    """Takes all tasks, but has no process left to do them."""

    def __init__(self, *_):
        pass

    def submit(self, *_):
        future = Future()
        future.set_exception(BrokenProcessPool())
        return future

    def shutdown(self, **_):
        pass


@has_selective_search
@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ("nothing", "the data set 'nothing' is not known, expected one that is registered"),
        ("voc://elsewhere?split=train", "does not exist, expected the PASCAL VOC layout"),
        ("coco_2017_val", "the data set 'coco_2017_val' cannot be loaded"),
    ],
)
def test_data_sets_that_are_not_there(tmp_path, monkeypatch, dataset, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        selective_search.compute_proposals(dataset, tmp_path / "new" / "out.pkl")
    assert list(tmp_path.iterdir()) == []


@has_selective_search
def test_images_without_ids(tmp_path):
    message = "'no_ids' has images without image_id"
    with (
        registered("no_ids", [{"file_name": "a.jpg"}]),
        pytest.raises(InputError, match=message),
    ):
        selective_search.compute_proposals("no_ids", tmp_path / "out.pkl")


@has_selective_search
def test_output_that_cannot_be(tmp_path, voc, searched):
    (tmp_path / "there.pkl").touch()
    with pytest.raises(InputError, match=r"there\.pkl already exists"):
        selective_search.compute_proposals(voc, tmp_path / "there.pkl")
    with pytest.raises(InputError, match=r"--output .+/there\.pkl/out\.pkl cannot be written"):
        selective_search.compute_proposals(voc, tmp_path / "there.pkl" / "out.pkl")
    with pytest.raises(InputError, match="--jobs is 0, expected 1 to "):
        selective_search.compute_proposals(voc, tmp_path / "out.pkl", jobs=0)
    assert searched == []


@pytest.mark.parametrize("lacking", ["ximgproc", "segmentation"])
def test_opencv_without_selective_search(tmp_path, voc, monkeypatch, lacking):
    monkeypatch.setattr(cv2, "ximgproc", SimpleNamespace(), raising=False)
    if lacking == "ximgproc":
        monkeypatch.delattr(cv2, "ximgproc")
    message = "pip uninstall opencv-python.+pip install opencv-contrib-python"
    with pytest.raises(InputError, match=message):
        selective_search.compute_proposals(voc, tmp_path / "out.pkl")


@contextlib.contextmanager
def registered(name, records):
    DatasetCatalog.register(name, lambda: records)
    try:
        yield
    finally:
        DatasetCatalog.remove(name)


def test_two_runs_that_write_the_same_file(tmp_path, voc):
    part = tmp_path / "out.pkl.part"
    with part.open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another run is writing"):
            selective_search.compute_proposals(voc, tmp_path / "out.pkl")
