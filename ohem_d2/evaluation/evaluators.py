"""The evaluators of a data set: Detectron2's own, by the data set's metadata."""

import json
import logging
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import (
    CityscapesInstanceEvaluator,
    CityscapesSemSegEvaluator,
    COCOEvaluator,
    COCOPanopticEvaluator,
    DatasetEvaluator,
    DatasetEvaluators,
    LVISEvaluator,
    PascalVOCDetectionEvaluator,
    SemSegEvaluator,
)
from detectron2.structures import Boxes, BoxMode, Instances
from detectron2.utils import comm
from detectron2.utils.logger import create_small_table

from ..data import coco_ground_truth, most_objects
from ..errors import InputError
from ..files import write_whole
from ..visualization import DetectionPictures, detections_file, file_name

logger = logging.getLogger(__name__)

# How many detections of an image COCO's metrics take.
_MOST_BY_COCO, _MOST_KEYPOINTS_BY_COCO = 100, 20
_PARTS_OF_A_PIXEL = 100


def build_evaluator(
    dataset_name: str, output_dir: str, kpt_oks_sigmas: Sequence[float] = ()
) -> DatasetEvaluator:
    """
    Build what evaluates a data set, and what draws some of its detections.

    Args:
        dataset_name: a registered data set, whose ``evaluator_type`` decides.
        output_dir: results go to ``inference`` in it, and the drawing to ``pictures``.
        kpt_oks_sigmas: for keypoints other than COCO's, see ``TEST.KEYPOINT_OKS_SIGMAS``.

    Raises:
        InputError: the data set does not say how to evaluate it.
    """
    check_evaluator_type(dataset_name)
    evaluator_type = MetadataCatalog.get(dataset_name).evaluator_type
    folder = Path(output_dir)
    evaluators = [
        build(dataset_name, folder / "inference", kpt_oks_sigmas)
        for build in _EVALUATORS[evaluator_type]
    ]
    if "sem_seg" not in evaluator_type:  # of which there are no boxes to draw
        evaluators.append(DetectionPictures(dataset_name, detections_file(folder, dataset_name)))
    return DatasetEvaluators(evaluators)


def check_evaluator_type(dataset_name: str) -> None:
    """
    Make sure that a data set says how to evaluate it, before a training rather than after it.

    Raises:
        InputError: its metadata has no ``evaluator_type``, or one that is not known.
    """
    evaluator_type = MetadataCatalog.get(dataset_name).get("evaluator_type")
    if evaluator_type not in _EVALUATORS:
        raise InputError(
            f"the data set {dataset_name!r} has evaluator_type {evaluator_type!r} in its metadata, "
            f"expected one of {', '.join(_EVALUATORS)}"
        )


def _coco(name: str, folder: Path, kpt_oks_sigmas: Sequence[float]) -> COCOEvaluator:
    how: dict[str, Any] = {"output_dir": str(folder), "kpt_oks_sigmas": kpt_oks_sigmas}
    if "json_file" in MetadataCatalog.get(name).as_dict():
        return KeepingEvaluator(name, **how)
    # Detectron2 would write the annotations once and use them ever after, whatever the data.
    folder.mkdir(parents=True, exist_ok=True)
    json_file = folder / f"{file_name(name)}_annotations.json"
    records, metadata = DatasetCatalog.get(name), MetadataCatalog.get(name)
    if comm.is_main_process():
        label_of = metadata.get("thing_dataset_id_to_contiguous_id")
        ids = None if label_of is None else sorted(label_of, key=label_of.__getitem__)
        truth = coco_ground_truth(records, metadata.thing_classes, ids)
        write_whole(json_file, json.dumps(truth))
    comm.synchronize()
    most = most_objects(records)
    if most > _MOST_BY_COCO:
        how["max_dets_per_image"] = most
        logger.warning(
            f"An image of the data set {name!r} has {most} objects: as many detections of an image "
            f"are evaluated, where COCO's metric takes {_MOST_BY_COCO}"
        )
    if (people := most_objects(records, "keypoints")) > _MOST_KEYPOINTS_BY_COCO:
        logger.warning(
            f"An image of the data set {name!r} has {people} objects with keypoints: COCO's metric "
            f"of keypoints takes {_MOST_KEYPOINTS_BY_COCO} detections of an image, so that it "
            "stays below 100"
        )
    with _metadata(name, json_file=str(json_file)):
        return KeepingEvaluator(name, **how)


def _voc(name: str, *_) -> PascalVOCDetectionEvaluator:
    if "dirname" in MetadataCatalog.get(name).as_dict():
        return PascalVOCDetectionEvaluator(name)
    return VOCEvaluator(name)


def _sem_seg(name: str, folder: Path, _) -> SemSegEvaluator:
    return SemSegEvaluator(name, output_dir=str(folder))


# evaluator_type -> how to build each of its evaluators
_EVALUATORS: dict[str, list[Callable[[str, Path, Sequence[float]], DatasetEvaluator]]] = {
    "coco": [_coco],
    "coco_panoptic_seg": [
        _sem_seg,
        _coco,
        lambda name, folder, _: COCOPanopticEvaluator(name, str(folder)),
    ],
    "sem_seg": [_sem_seg],
    "pascal_voc": [_voc],
    "pascal_voc_server": [lambda name, folder, _: VOCServerFiles(name, folder)],
    "lvis": [lambda name, folder, _: LVISEvaluator(name, output_dir=str(folder))],
    "cityscapes_instance": [lambda name, *_: CityscapesInstanceEvaluator(name)],
    "cityscapes_sem_seg": [lambda name, *_: CityscapesSemSegEvaluator(name)],
}


# evaluator_type -> the names of its results. Which of them there are depends on the model, too.
_COCOS = ("bbox", "segm", "keypoints", "box_proposals")
_TASKS = {
    "coco": _COCOS,
    "coco_panoptic_seg": (*_COCOS, "sem_seg", "panoptic_seg"),
    "sem_seg": ("sem_seg",),
    "pascal_voc": ("bbox",),
    "pascal_voc_server": (),
    "lvis": ("bbox", "segm", "box_proposals"),
    "cityscapes_instance": ("segm",),
    "cityscapes_sem_seg": ("sem_seg",),
}


def tasks_of(dataset_name: str) -> tuple[str, ...]:
    """What the results of an evaluation of a data set may be of, by Detectron2's names."""
    return _TASKS[MetadataCatalog.get(dataset_name).evaluator_type]


@contextmanager
def _metadata(name: str, **values: object) -> Iterator[None]:
    """Set metadata while an evaluator is built, since what is set can never be changed."""
    metadata = MetadataCatalog.get(name)
    metadata.set(**values)
    try:
        yield
    finally:
        for key in values:
            delattr(metadata, key)


class KeepingEvaluator(COCOEvaluator):
    """
    Detectron2's `COCOEvaluator`, which leaves keypoints to those that look at them next, and names
    the AP of each class by its id.
    """

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """See Detectron2's `DatasetEvaluator.process`. It moves keypoints by half a pixel."""
        super().process(inputs, [_with_own_keypoints(output) for output in outputs])

    def _derive_coco_results(
        self, coco_eval: Any, iou_type: str, class_names: Sequence[str] | None = None
    ) -> dict[str, float]:
        """
        See Detectron2's. COCO's metric has the classes in the order of their ids, which need not be
        that of the labels.
        """
        label_of = self._metadata.get("thing_dataset_id_to_contiguous_id") or {}
        ids = () if coco_eval is None else coco_eval.params.catIds
        if class_names is not None and ids and all(i in label_of for i in ids):
            class_names = [class_names[label_of[i]] for i in ids]
        return super()._derive_coco_results(coco_eval, iou_type, class_names)


def _with_own_keypoints(output: dict) -> dict:
    if "instances" not in output or not output["instances"].has("pred_keypoints"):
        return output
    found = output["instances"]
    fields = dict(found.get_fields())
    fields["pred_keypoints"] = found.pred_keypoints.clone()
    return {**output, "instances": Instances(found.image_size, **fields)}


class VOCEvaluator(PascalVOCDetectionEvaluator):
    """
    Detectron2's PASCAL VOC evaluator (2012's metric), for any registered data set.

    Detectron2's own reads the XML files, which only suits those of the VOC challenge. Here they
    are written anew from what was registered: bad boxes are gone from them, images and classes
    have plain numbers for names, and classes without an object in the data set do not count.
    """

    def __init__(self, dataset_name: str) -> None:
        """
        Args:
            dataset_name: a registered data set. An object of it may be marked ``difficult``.

        Raises:
            InputError: it has no object that is not difficult.
        """
        records = DatasetCatalog.get(dataset_name)
        present = sorted(
            {a["category_id"] for r in records for a in r["annotations"] if _counts(a)}
        )
        if not present:
            raise InputError(f"the data set {dataset_name!r} has no object to evaluate with")
        self._devkit = tempfile.TemporaryDirectory(prefix="voc_evaluation_")
        devkit = Path(self._devkit.name)
        (devkit / "Annotations").mkdir()
        # Detectron2 reads whole numbers only. What overlaps how much is the same in smaller pixels.
        whole = all(float(x).is_integer() for r in records for box in _boxes(r) for x in box)
        self._scale = 1 if whole else _PARTS_OF_A_PIXEL
        (devkit / "ImageSets" / "Main").mkdir(parents=True)
        for number, record in enumerate(records):
            _write_annotations(devkit / "Annotations" / f"{number}.xml", record, self._scale)
        split = "\n".join(str(i) for i in range(len(records)))
        (devkit / "ImageSets" / "Main" / "all.txt").write_text(split)

        with _metadata(dataset_name, dirname=str(devkit), split="all", year=2012):
            super().__init__(dataset_name)
        num_classes = len(self._class_names)
        self._class_names: list[str] = [str(c) for c in present]
        self._position = torch.full((num_classes,), -1)
        self._position[present] = torch.arange(len(present))
        self._numbers = {record["image_id"]: i for i, record in enumerate(records)}

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """See Detectron2's `DatasetEvaluator.process`."""
        for x, output in zip(inputs, outputs):
            instances = output["instances"].to("cpu")
            instances = instances[self._position[instances.pred_classes] >= 0]
            instances.pred_classes = self._position[instances.pred_classes]
            boxes = instances.pred_boxes.tensor
            instances.pred_boxes = Boxes(boxes * self._scale)
            number = self._numbers[x["image_id"]]
            super().process([{"image_id": number}], [{"instances": instances}])

    def evaluate(self) -> dict | None:
        """See Detectron2's `DatasetEvaluator.evaluate`."""
        results = super().evaluate()
        if results is not None:
            logger.info(
                f"Evaluation results for bbox ({len(self._class_names)} classes, PASCAL VOC "
                f"2012 metric):\n{create_small_table(results['bbox'])}"
            )
        return results


class VOCServerFiles(PascalVOCDetectionEvaluator):
    """Writes detections for PASCAL VOC's evaluation server, where nobody else has the truth."""

    def __init__(self, dataset_name: str, folder: Path) -> None:
        """
        Args:
            dataset_name: a registered data set, with the metadata of PASCAL VOC's.
            folder: where the files go, one for each class.
        """
        super().__init__(dataset_name)
        self._folder = folder

    def evaluate(self) -> dict | None:
        """Write the files; there are no results."""
        predictions = comm.gather(self._predictions, dst=0)
        if not comm.is_main_process():
            return None
        self._folder.mkdir(parents=True, exist_ok=True)
        split = MetadataCatalog.get(self._dataset_name).split
        for label, name in enumerate(self._class_names):
            lines = [line for of_process in predictions for line in of_process.get(label, [])]
            # comp4: detection, trained on data other than the challenge's as well, ImageNet's.
            file = self._folder / f"comp4_det_{split}_{name}.txt"
            write_whole(file, "".join(f"{line}\n" for line in lines))
        logger.info(f"Wrote {self._folder}/comp4_det_{split}_*.txt for PASCAL VOC's server")
        return {}


def _counts(annotation: dict) -> bool:
    """Whether it has to be found. What is found of the others is neither right nor wrong."""
    return not any(annotation.get(x, 0) for x in ("difficult", "iscrowd", "ignore"))


def _boxes(record: dict) -> list:
    return [
        BoxMode.convert(list(a["bbox"]), a["bbox_mode"], BoxMode.XYXY_ABS)
        for a in record["annotations"]
    ]


def _write_annotations(file: Path, record: dict, scale: int) -> None:
    root = ET.Element("annotation")
    for annotation, box in zip(record["annotations"], _boxes(record)):
        obj = ET.SubElement(root, "object")
        x0, y0, x1, y1 = (scale * x for x in box)
        fields = {
            "name": annotation["category_id"],
            "pose": "",
            "truncated": 0,
            "difficult": int(not _counts(annotation)),
        }
        # VOC counts pixels from 1.
        corners = {
            "xmin": round(x0 + 1),
            "ymin": round(y0 + 1),
            "xmax": round(x1),
            "ymax": round(y1),
        }
        for parent, values in ((obj, fields), (ET.SubElement(obj, "bndbox"), corners)):
            for key, value in values.items():
                ET.SubElement(parent, key).text = str(value)
    ET.ElementTree(root).write(file)
