"""Areas of objects, against their boxes and outlines."""

import numpy as np
import pycocotools.mask as mask_util
import pytest
from detectron2.structures import BoxMode

from ohem_d2.data.areas import check_areas
from ohem_d2.data.findings import Findings

POLYGON = [[10, 20, 60, 20, 10, 80]]  # half of the box
MASK = np.zeros((100, 100), np.uint8, order="F")
MASK[20:50, 10:60] = 1
RUNS = {"size": [100, 100], "counts": mask_util.encode(MASK)["counts"]}


def named(*areas, segmentation=None):
    """What is found, of objects of 50 x 60 pixels."""
    annotations = [
        {"bbox": [10, 20, 50, 60], "bbox_mode": BoxMode.XYWH_ABS, "category_id": "cat"}
        | ({} if area is None else {"area": area})
        | ({} if segmentation is None else {"segmentation": segmentation})
        for area in areas
    ]
    findings = Findings()
    check_areas("x", [{"file_name": "a.jpg", "annotations": annotations}], findings)
    return findings


@pytest.mark.parametrize(
    ("segmentation", "good", "bad"),
    [
        (None, [3000, 3111, 1, 40, None], [0, -3000, 12000]),
        (POLYGON, [1500, 1530, 3000], [0, -1500, 100, 6000]),
        (RUNS, [1500, 1400, 3000], [0, 94, 24000]),
        ([*POLYGON, *POLYGON], [1500, 3000], [200]),  # two that overlap
        ([[10, 20, 11, 20, 10, 21]], [3000, 5], [0]),  # an outline that does not fit its box
    ],
)
def test_areas(segmentation, good, bad):
    assert not named(*good, segmentation=segmentation)
    for area in bad:
        (finding,) = named(area, segmentation=segmentation)
        assert finding.name.startswith("area that cannot be that of its object")
        assert finding.words == f"'cat' at [10, 20, 50, 60] has {area:g}"


def test_areas_of_smaller_images():
    (finding,) = named(*[3000 / 16] * 20)
    assert finding.name.startswith("areas that are far less than those of the boxes")
    assert (finding.file, finding.words) == ("x", "20 of 20 objects")
    assert not named(*np.linspace(30, 290, 19))  # too few to tell
    assert not named(*[3000 / 16] * 18, 1500, 1500)  # thin ones
    assert len(named(*[3000 / 4] * 5)) == 1  # they are all the same part
    assert not named(*[3000 / 4] * 4)
    assert not named(*[1500] * 9)  # triangles
    assert not named(*[1500] * 20, segmentation=POLYGON)
