"""What a model finds in an image, made up."""

import numpy as np

from ohem_d2.report.hard_examples import Detections, Findings


def findings(record, detections):
    """`detections`: of (XYWH box, class, score). Labels and regions are those of the record."""
    regions = [i for i, a in enumerate(record["annotations"]) if a["iscrowd"]]
    none, no_boxes = np.zeros(0), np.zeros((0, 4))
    return Findings(
        hard_examples=[],
        label_boxes=no_boxes,
        label_classes=none,
        label_positions=none,
        label_probs=none,
        seen_classes=none,
        seen_probs=none,
        num_classes=2,
        boxes=no_boxes,
        classes=none,
        scores=none,
        regions=no_boxes,
        region_positions=np.array(regions, dtype=int),
        detections=Detections(
            boxes=np.array([x[0] for x in detections], dtype=float).reshape(-1, 4),
            classes=np.array([x[1] for x in detections], dtype=int),
            scores=np.array([x[2] for x in detections], dtype=float),
        ),
    )
