"""The package's name, what it needs, and nothing else: `pip install -e .`."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent

setup(
    name="ohem_d2",
    version=re.search(r'__version__ = "(.+)"', (HERE / "ohem_d2/__init__.py").read_text()).group(1),
    description="Online hard example mining for Detectron2",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(include=["ohem_d2", "ohem_d2.*"]),
    package_data={"ohem_d2.report": ["*.html"]},
    python_requires=">=3.10",
    # Ranges in which the tests were run; requirements.txt holds one set of exact versions.
    # Detectron2 is on no package index: see README.md, "Install".
    install_requires=[
        "torch>=2.4",
        "torchvision>=0.19",
        "detectron2>=0.6",
        "fvcore>=0.1.5",
        "pycocotools>=2.0.7",
        "opencv-python>=4.8",
        "numpy>=1.26",
        "Pillow",
        "PyYAML",
        "tqdm",
        # Detectron2's model zoo imports pkg_resources, which setuptools 81 removed.
        "setuptools<81",
    ],
    extras_require={
        # What Detectron2 needs for some of its Python configs: ViTDet, new_baselines.
        "lazy": ["timm>=0.9", "shapely>=2"],
        # What may rank suspected label errors, if asked for.
        "cleanlab": ["cleanlab>=2.7"],
        "dev": ["pytest>=8", "hypothesis>=6.100", "ruff>=0.6", "selenium>=4.20"],
    },
)
