"""
Selective search (Uijlings et al., IJCV 2013): the proposals that Fast R-CNN learns from, in the
files that ``DATASETS.PROPOSAL_FILES_TRAIN`` and ``PROPOSAL_FILES_TEST`` name. For Unix only.
"""

import contextlib
import fcntl
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Generator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import cast

import cv2
import numpy as np
from detectron2.data import DatasetCatalog
from detectron2.structures import BoxMode
from tqdm import tqdm

from ..errors import InputError, cannot_be_written
from ..files import whole_file
from .image_reading import read_image
from .pickles import load_pickle
from .specs import register_by_name, unknown_dataset

MODES = ("fast", "quality")
# Pixels of the longer side, above which an image is shrunk first: about the size of PASCAL VOC's
# images, and the width to which R-CNN's code brings every image before the search.
MAX_SIDE = 500
SEED = 0
_MOST_JOBS = 64  # unless there are more cores


def compute_proposals(dataset: str, output: Path, mode: str = "fast", jobs: int = 1) -> None:
    """
    Write the file of proposals of a data set.

    Images that cannot be read are named in a warning and get no box. What is finished is kept in
    ``<output>.part`` until all is; a later call goes on from there and writes the same file.

    Args:
        dataset: its registered name, or its address.
        output: a pickle for Detectron2's ``load_proposals_into_dataset``. Its boxes are (n, 4)
            float32, in pixels of the image as Detectron2's ``read_image`` returns it.
        mode: one of `MODES`.
        jobs: number of processes. With 1, this one does the work.

    Raises:
        InputError: OpenCV cannot do it, the data set cannot be loaded, none of its images can be
            read, the output exists, or the part file is another's.
        KeyboardInterrupt: on Ctrl-C, with what to tell the user.
    """
    check_opencv()
    most = max(_MOST_JOBS, os.cpu_count() or 1)
    if not 1 <= jobs <= most:
        raise InputError(f"--jobs is {jobs}, expected 1 to {most}")
    if output.exists():
        raise InputError(f"{output} already exists, choose another --output or delete it")
    images = list_images(dataset)
    header = f"selective search ({mode}) of {dataset}"
    part = output.with_name(f"{output.name}.part")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        part.touch()
    except OSError as e:
        raise InputError(f"--output {output} cannot be written ({e})") from None
    finished, end = read_part(part, header)
    done = finished.keys() & images.keys()
    del finished  # the boxes of thousands of images
    if done:
        print(f"{part}: {len(done)} of {len(images)} images are done")

    begin = time.monotonic()
    todo = [
        (index, image_id, file_name, mode)
        for index, (image_id, file_name) in enumerate(images.items())
        if image_id not in done
    ]
    try:
        with (
            part.open("r+b") as file,
            tqdm(total=len(images), initial=len(done), unit="image") as progress,
            contextlib.closing(_search_all(todo, jobs)) as results,
        ):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise InputError(f"another run is writing {part}, expected one at a time") from None
            file.truncate(end)
            file.seek(end)
            if end == 0:
                file.write(pickle.dumps(header))
            for image_id, boxes, failure in results:
                if failure:
                    progress.write(f"warning: {images[image_id]}: {failure}", file=sys.stderr)
                else:
                    try:
                        file.write(pickle.dumps((image_id, boxes)))
                        file.flush()
                    except OSError as e:
                        raise InputError(
                            f"{cannot_be_written(str(part), e)}: {len(done)} of {len(images)} "
                            "images are done; the same command goes on from there"
                        ) from None
                    done.add(image_id)
                progress.update()
        if not done:
            raise InputError(f"none of the {len(images)} images of {dataset!r} can be read")
        found, _ = read_part(part, header)
        _write_proposals(output, list(images), found)
    except BrokenProcessPool:
        raise InputError(
            f"a worker died at --jobs {jobs}, probably out of memory: use fewer. "
            f"{len(done)} of {len(images)} images are done; the same command goes on from there"
        ) from None
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"{len(done)} of {len(images)} images are done; the same command goes on from there"
        ) from None
    part.unlink()
    mean = np.mean([len(found[image_id]) for image_id in done])
    print(
        f"{output}: {len(images)} images, {mean:.0f} boxes on average, "
        f"{time.monotonic() - begin:.0f} s, {len(images) - len(done)} images skipped"
    )


def check_opencv() -> None:
    """
    Make sure that OpenCV has selective search.

    Raises:
        InputError: it has not.
    """
    if not hasattr(getattr(cv2, "ximgproc", None), "segmentation"):
        raise InputError(
            "this OpenCV has no cv2.ximgproc.segmentation, expected opencv-contrib-python: "
            "'pip uninstall opencv-python', then 'pip install opencv-contrib-python', which "
            "replaces it (the two cannot be installed together)"
        )


def list_images(dataset: str) -> dict[int | str, str]:
    """
    Return the file of each image of a data set, by its ``image_id``.

    Raises:
        InputError: the data set is not known, cannot be loaded, or its images have no ids.
    """
    register_by_name([dataset], [], unreadable="keep")  # which the search will name
    if dataset not in DatasetCatalog:
        raise unknown_dataset(dataset)
    try:
        records = DatasetCatalog.get(dataset)
    except OSError as e:
        raise InputError(
            f"the data set {dataset!r} cannot be loaded ({e}), expected it where "
            "$DETECTRON2_DATASETS says, or in ./datasets"
        ) from None
    if not all("image_id" in record for record in records):
        raise InputError(
            f"the data set {dataset!r} has images without image_id, expected one for each, by "
            "which Detectron2 finds its proposals"
        )
    return {record["image_id"]: record["file_name"] for record in records}


def search(image: np.ndarray, index: int, mode: str = "fast") -> np.ndarray:
    """
    Selective search (Uijlings et al., IJCV 2013), by OpenCV.

    The same arguments give the same boxes in the same order.

    Args:
        image: (height, width, 3) BGR of uint8.
        index: the image's position in its data set, which seeds the order.
        mode: one of `MODES`.

    Returns:
        (n, 4) XYXY boxes of float32, in pixels, all different and in random order.
    """
    height, width = image.shape[:2]
    scale = min(1.0, MAX_SIDE / max(height, width))
    small_size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(image, small_size, interpolation=cv2.INTER_AREA)
    method = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
    method.setBaseImage(small)
    if mode == "fast":
        method.switchToSelectiveSearchFast()
    else:
        method.switchToSelectiveSearchQuality()
    # OpenCV finds the same boxes each time, but orders them by C's rand(), which no caller can
    # seed. The order counts: of each image, Detectron2 takes only the first
    # DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TRAIN or _TEST boxes.
    boxes = np.unique(method.process(), axis=0).astype(np.float64)
    np.random.default_rng([SEED, index]).shuffle(boxes)
    boxes[:, 2:] += boxes[:, :2]
    size = np.array([width, height] * 2)
    return np.clip(boxes * size / (small_size * 2), 0, size).astype(np.float32)


def read_part(part: Path, header: str) -> tuple[dict[int | str, np.ndarray], int]:
    """
    Read what an earlier run has finished.

    Args:
        part: the file: pickles, one after the other, of the header and of pairs of an
            ``image_id`` and its boxes. It may be empty, or end within a pair.
        header: what this run does.

    Returns:
        the boxes by ``image_id``; and the number of bytes up to the end of the last whole pair.

    Raises:
        InputError: the file is of a run that does something else.
    """
    boxes: dict[int | str, np.ndarray] = {}
    with part.open("rb") as file:
        if not file.peek(1):
            return boxes, 0
        try:
            found = load_pickle(file)
        except Exception:  # there is no end to what pickle raises for other files
            found = "something else"
        if found != header:
            raise InputError(
                f"{part} is {found!r}, expected {header!r}: give another --output, or remove it"
            )
        while True:
            end = file.tell()
            try:
                image_id, boxes_of_image = load_pickle(file)
            except (EOFError, pickle.UnpicklingError):  # the end, or a process was killed here
                return boxes, end
            boxes[image_id] = boxes_of_image


def _write_proposals(
    output: Path, image_ids: list[int | str], boxes: dict[int | str, np.ndarray]
) -> None:
    """Write the file whole or not at all; images without an entry in ``boxes`` get no box."""
    none = np.zeros((0, 4), np.float32)
    all_boxes = [boxes.get(image_id, none) for image_id in image_ids]
    proposals = {
        "ids": image_ids,
        "boxes": all_boxes,
        # Selective search has no scores: these only keep the order when Detectron2 sorts by them.
        "objectness_logits": [np.arange(len(b), 0, -1, dtype=np.float32) for b in all_boxes],
        "bbox_mode": BoxMode.XYXY_ABS,
    }
    with whole_file(output, "wb") as file:
        pickle.dump(proposals, file)


_Task = tuple[int, int | str, str, str]  # index, image_id, file, mode
_Result = tuple[int | str, np.ndarray | None, str]  # image_id, boxes, or why there are none


def _search_all(tasks: list[_Task], jobs: int) -> Generator[_Result, None, None]:
    """Do all tasks, in any order. Closed before the end, it stops those under way."""
    if jobs == 1:
        yield from map(_search_file, tasks)
        return
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _end_with_parent)
    try:
        # Ctrl-C reaches every process of a terminal, but this one deals with it alone: the others
        # inherit that it is blocked.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            futures = as_completed([pool.submit(_search_file, task) for task in tasks])
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        for future in futures:
            yield future.result()
    finally:
        for process in multiprocessing.active_children():
            process.terminate()
        pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """Let this process end when its parent was killed, rather than wait for work for ever."""

    # Only the process that a user starts has none.
    parent = cast(BaseProcess, multiprocessing.parent_process())

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _search_file(task: _Task) -> _Result:
    index, image_id, file_name, mode = task
    cv2.setNumThreads(1)  # there is a process for each core
    try:
        return image_id, search(read_image(file_name, format="BGR"), index, mode), ""
    except Exception as e:  # whatever is wrong with one image must not stop the others
        return image_id, None, f"{type(e).__name__}: {e}"
