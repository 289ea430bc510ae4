"""Pictures: detections beside the ground truth, and the RoIs that were mined: hard examples."""

import logging
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
import torch
from detectron2.data import DatasetCatalog, Metadata, MetadataCatalog
from detectron2.data.detection_utils import convert_image_to_rgb
from detectron2.engine import HookBase
from detectron2.evaluation import DatasetEvaluator
from detectron2.structures import Boxes, BoxMode, Instances, RotatedBoxes
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage
from detectron2.utils.visualizer import VisImage, Visualizer
from torch.utils.hooks import RemovableHandle

from .data import plain_path, read_image
from .errors import InputError, shown
from .files import write_whole
from .mining.error_types import ERROR_TYPES
from .modeling.metrics import error_types_of
from .modeling.mixin import OHEMMixin

logger = logging.getLogger(__name__)

BoxesType = TypeVar("BoxesType", Boxes, RotatedBoxes)

# RGB in [0, 1], in the order of ERROR_TYPES. Told apart by people with colour blindness too
# (Okabe and Ito, 2008).
ERROR_COLORS = (
    (0.84, 0.37, 0.00),  # missed object: vermilion
    (0.00, 0.45, 0.70),  # look-alike: blue
    (0.80, 0.47, 0.65),  # confused class: purple
    (0.94, 0.89, 0.26),  # badly placed box: yellow
    (0.60, 0.60, 0.60),  # right class: grey
)
_PANEL_HEIGHT, _MAX_PANEL_WIDTH = 400, 1600
_FONT = (cv2.FONT_HERSHEY_SIMPLEX, 0.42)
_MARGIN, _LINE_HEIGHT = 6, 18
_CAPTION_HEIGHT = 2 * _LINE_HEIGHT + _MARGIN


def file_name(dataset_name: str) -> str:
    """Turn the name of a data set, which may be a long address, into a part of a file's name."""
    name = re.sub(r"[^\w.-]+", "_", dataset_name)
    if len(name) > 80:
        name = f"{name[-80:]}_{zlib.crc32(os.fsencode(dataset_name)):08x}"
    return name


def detections_file(output_dir: str | Path, dataset_name: str) -> Path:
    """Tell where the picture of a data set's detections goes."""
    return Path(output_dir) / "pictures" / f"detections_{file_name(dataset_name)}.jpg"


class DetectionPictures(DatasetEvaluator):
    """Draws the first images of a data set while it is evaluated: ground truth | detections."""

    def __init__(
        self,
        dataset_name: str,
        file: Path,
        num_images: int = 6,
        score_thresh: float = 0.5,
    ) -> None:
        """
        Args:
            dataset_name: a registered data set.
            file: the picture to write.
            num_images: how many images to draw.
            score_thresh: detections with a lower score are not drawn.
        """
        self._metadata = MetadataCatalog.get(dataset_name)
        records = DatasetCatalog.get(dataset_name)[:num_images] if comm.is_main_process() else []
        self._records = {r["image_id"]: r for r in records}
        self._file = file
        self._score_thresh = score_thresh

    def reset(self) -> None:
        """See Detectron2's `DatasetEvaluator.reset`."""
        self._rows: list[np.ndarray] = []

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """See Detectron2's `DatasetEvaluator.process`."""
        for x, output in zip(inputs, outputs):
            record = self._records.get(x["image_id"])
            if record is None or "instances" not in output:
                continue
            with _trying(f"{plain_path(record['file_name'])} is not drawn"):
                self._rows.append(self._draw(record, output["instances"].to("cpu")))

    def _draw(self, record: dict, found: Instances) -> np.ndarray:
        image = read_image(record["file_name"], format="RGB")
        found = found[found.scores >= self._score_thresh]
        detections = _Panel(image, self._metadata).draw_instance_predictions(found)
        caption = f"detections (score >= {self._score_thresh})"
        return np.hstack(
            [
                _captioned(self._draw_truth(image, record), [("ground truth", None)]),
                _captioned(detections.get_image(), [(caption, None)]),
            ]
        )

    def _draw_truth(self, image: np.ndarray, record: dict) -> np.ndarray:
        annotations = record.get("annotations", [])
        boxes = [BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS) for a in annotations]
        labels = _in_words([a["category_id"] for a in annotations], self._metadata)
        return draw_objects(image, boxes, labels, self._metadata)

    def evaluate(self) -> None:
        """Write the picture."""
        if comm.is_main_process() and self._rows:
            _write(self._file, self._rows)


class MinedPictures(HookBase):
    """
    Draws the RoIs that are mined, coloured by error type: now and then into Detectron2's event
    storage, whose writer for TensorBoard shows them, and those of the last steps into a file.

    The heads are also told the names of the classes, for what they log.
    """

    def __init__(
        self,
        file: Path,
        metadata: Metadata,
        image_format: str,
        period: int = 0,
        num_steps: int = 6,
    ) -> None:
        """
        Args:
            file: the picture to write.
            metadata: that of the training set.
            image_format: ``cfg.INPUT.FORMAT``.
            period: ``cfg.VIS_PERIOD``, every how many steps to draw one. 0: never.
            num_steps: how many of the last steps go to the file, one image each.

        Raises:
            InputError: the metadata is something else, such as the data set's name.
        """
        if not isinstance(metadata, Metadata):
            raise InputError(
                f"the metadata of MinedPictures is {shown(metadata)}, expected that of the "
                "training set: MetadataCatalog.get(name)"
            )
        self._file, self._metadata = file, metadata
        self._format, self._period, self._num_steps = image_format, period, num_steps
        self._heads: OHEMMixin | None = None
        self._watched: RemovableHandle | None = None
        self._rows: list[np.ndarray] = []

    def before_train(self) -> None:
        """Find the heads that mine, if there are any, in whatever wraps the model."""
        for module in self.trainer.model.modules():
            if isinstance(heads := getattr(module, "roi_heads", None), OHEMMixin):
                self._model, self._heads, self._num_classes = module, heads, heads.num_classes
                heads.class_names = self._metadata.get("thing_classes")
                if heads.class_names is None:
                    logger.warning(
                        "Classes are drawn and logged by their numbers: the metadata of the data "
                        f"set {self._metadata.get('name')!r} has no thing_classes"
                    )
                return
        if any(isinstance(m, OHEMMixin) for m in self.trainer.model.modules()):
            logger.warning(
                "No pictures of mined RoIs are drawn: no part of "
                f"{type(self.trainer.model).__name__} has mining heads as its roi_heads"
            )

    def before_step(self) -> None:
        """Watch a step that is to be drawn."""
        iteration = self.trainer.iter
        self._is_last = iteration >= self.trainer.max_iter - self._num_steps
        self._is_due = self._period > 0 and iteration % self._period == 0
        if self._heads is not None and (self._is_last or self._is_due):
            self._heads.observers.append(self._draw)
            self._watched = self._model.register_forward_pre_hook(self._keep_inputs)

    def _keep_inputs(self, model, args) -> None:
        self._inputs = args[0]

    def _draw(self, mined: list[Instances]) -> None:
        if self._inputs is None:
            return  # drawn already: another stage of a cascade mines too
        inputs, self._inputs = self._inputs, None
        x = inputs[0]
        name = x.get("file_name", f"an image of step {self.trainer.iter}")
        with _trying(f"{name} is not drawn"):
            image = convert_image_to_rgb(x["image"].permute(1, 2, 0), self._format)
            row = draw_mined(image, mined[0], x["instances"], self._metadata, self._num_classes)
            if self._is_last:
                self._rows.append(row)
            if self._is_due:
                get_event_storage().put_image("ohem/mined", row.transpose(2, 0, 1))

    def after_step(self) -> None:
        """Stop watching."""
        if self._heads is not None and self._watched is not None:
            self._watched.remove()
            self._heads.observers.remove(self._draw)
            self._watched, self._inputs = None, None

    def after_train(self) -> None:
        """Write the picture of the last steps."""
        if self._rows:
            _write(self._file, self._rows)


@torch.no_grad()
def draw_mined(
    image: np.ndarray, mined: Instances, targets: Instances, metadata: Metadata, num_classes: int
) -> np.ndarray:
    """
    Draw the mined RoIs of one image, and its ground truth beside them.

    Args:
        image: (H, W, 3) RGB of uint8, as the model sees it.
        mined: the hard examples, as observers of a mining head are given them.
        targets: the objects in the image.
        metadata: that of the training set.
        num_classes: number of foreground classes.

    Returns:
        RGB of uint8, no larger for a larger image.
    """
    mined, targets = mined.to("cpu"), targets.to("cpu")
    types = error_types_of(mined, num_classes)
    panel = _Panel(image, metadata)
    is_mistake = types != ERROR_TYPES.index("right class")
    for chosen, alpha in ((~is_mistake, 0.3), (is_mistake, 0.9)):
        panel.overlay_instances(
            boxes=panel.scaled(mined.proposal_boxes[chosen]),
            assigned_colors=[ERROR_COLORS[k] for k in types[chosen]],
            alpha=alpha,
        )
    rois = panel.output.get_image()
    labels = _in_words(targets.gt_classes.tolist(), metadata)
    truth = draw_objects(image, targets.gt_boxes, labels, metadata)
    counts = types.bincount(minlength=len(ERROR_TYPES)).tolist()
    caption = [
        (f"{n} {name}", color) for n, name, color in zip(counts, ERROR_TYPES, ERROR_COLORS) if n
    ]
    return np.hstack([_captioned(truth, [("ground truth", None)]), _captioned(rois, caption)])


def draw_objects(
    image: np.ndarray,
    boxes: Boxes | list,
    labels: Sequence[str] | None,
    metadata: Metadata,
    colors: Sequence[Sequence[float]] | None = None,
) -> np.ndarray:
    """
    Draw boxes into an image.

    Args:
        image: (H, W, 3) RGB of uint8.
        boxes: XYXY, in pixels of the image.
        labels: the words at each of them, if any.
        metadata: that of the data set.
        colors: RGB in [0, 1] of each of them; by default, any.

    Returns:
        RGB of uint8, no larger for a larger image.
    """
    panel = _Panel(image, metadata)
    boxes = panel.scaled(Boxes(boxes) if isinstance(boxes, list) else boxes)
    alpha = 0.5 if colors is None else 1.0
    return panel.overlay_instances(
        boxes=boxes, labels=labels, assigned_colors=colors, alpha=alpha
    ).get_image()


def _in_words(classes: Sequence[int], metadata: Metadata) -> list[str]:
    names = metadata.get("thing_classes")
    return [names[c] if names else str(c) for c in classes]


class _Panel(Visualizer):
    """
    Detectron2's `Visualizer`, on an image that is scaled to a panel first, so that no image takes
    more memory than another. Of a very long one, a line is left.
    """

    def __init__(self, image: np.ndarray, metadata: Metadata) -> None:
        """
        Args:
            image: (H, W, 3) RGB of uint8.
            metadata: the names of the classes.
        """
        height, width = image.shape[:2]
        scale = min(_PANEL_HEIGHT / height, _MAX_PANEL_WIDTH / width)
        size = [max(1, round(scale * side)) for side in (width, height)]
        self._scale = size[0] / width, size[1] / height
        super().__init__(cv2.resize(image, size, interpolation=cv2.INTER_AREA), metadata)

    def scaled(self, boxes: BoxesType) -> BoxesType:
        """From pixels of the image to those of the panel."""
        boxes = boxes.clone()
        boxes.scale(*self._scale)
        return boxes

    def draw_instance_predictions(self, predictions: Instances) -> VisImage:
        """See Detectron2's `Visualizer.draw_instance_predictions`. In pixels of the image."""
        size = self.output.height, self.output.width
        fields = dict(predictions.get_fields())
        fields["pred_boxes"] = self.scaled(predictions.pred_boxes)
        if "pred_masks" in fields:
            # Row by row and column by column, which takes no memory but that of the panel.
            for axis, (old, new) in enumerate(zip(fields["pred_masks"].shape[1:], size), 1):
                nearest = ((torch.arange(new) + 0.5) * old / new).long()
                fields["pred_masks"] = fields["pred_masks"].index_select(axis, nearest)
        if "pred_keypoints" in fields:
            scale = fields["pred_keypoints"].new_tensor([*self._scale, 1.0])
            fields["pred_keypoints"] = fields["pred_keypoints"] * scale
        return super().draw_instance_predictions(Instances(size, **fields))

    def draw_text(self, text: str, position: tuple, **kwargs: object) -> VisImage:
        """See Detectron2's `Visualizer.draw_text`. Nothing in the name of a class is a formula."""
        return super().draw_text(text.replace("$", r"\$"), position, **kwargs)


@contextmanager
def _trying(what: str) -> Iterator[None]:
    """Nothing that draws may end a training: say what failed, and go on."""
    try:
        yield
    except Exception as e:  # whatever readers of images, matplotlib and OpenCV raise
        logger.warning(f"{what}: {type(e).__name__}: {e}")


def _captioned(
    panel: np.ndarray, words: Sequence[tuple[str, Sequence[float] | None]]
) -> np.ndarray:
    """A panel with coloured words above it."""
    width = panel.shape[1]
    caption = np.full((_CAPTION_HEIGHT, width, 3), 32, np.uint8)
    x, y = _MARGIN, _LINE_HEIGHT
    for text, color in words:
        (length, _), _ = cv2.getTextSize(text, *_FONT, 1)
        if x > _MARGIN and x + length > width:
            x, y = _MARGIN, y + _LINE_HEIGHT
        rgb = [255 * c for c in color or (1, 1, 1)]
        cv2.putText(caption, text, (x, y), *_FONT, rgb, 1, cv2.LINE_AA)
        x += length + 2 * _MARGIN
    return np.vstack([caption, panel])


def _write(file: Path, rows: list[np.ndarray]) -> None:
    """Write a picture whole, or say why it is not written."""
    with _trying(f"{file} is not written"):
        width = max(row.shape[1] for row in rows)
        rows = [np.pad(row, ((0, 6), (0, width - row.shape[1]), (0, 0))) for row in rows]
        _, encoded = cv2.imencode(file.suffix, np.vstack(rows)[:, :, ::-1])
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, encoded.tobytes())
        logger.info(f"Wrote {file}")
