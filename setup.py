"""What pyproject.toml cannot say: the version, the dependencies, and where the configs are."""

import re
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
OPENCV = (
    "opencv-python",
    "opencv-contrib-python",
    "opencv-python-headless",
    "opencv-contrib-python-headless",
)


def is_installed(name: str) -> bool:
    """Whether pip has installed a package where this is built."""
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


# Four packages bring the same module cv2, and overwrite each other. Any of them will do, which a
# requirement cannot say: so it is the one that is there, and opencv-python where there is none.
opencv = next(filter(is_installed, OPENCV), OPENCV[0])

setup(
    version=re.search(r'__version__ = "(.+)"', (HERE / "ohem_d2/__init__.py").read_text()).group(1),
    # The configs lie beside the package, as Detectron2's do, and are installed inside of it.
    packages=[*find_packages(include=["ohem_d2", "ohem_d2.*"]), "ohem_d2.configs"],
    package_dir={"ohem_d2.configs": "configs"},
    package_data={
        "ohem_d2": ["py.typed"],
        "ohem_d2.report": ["*.html", "*.js"],
        "ohem_d2.configs": ["**/*.yaml"],
    },
    include_package_data=False,
    # `make test` runs on the versions in requirements.txt, `make test-oldest` on the lower bounds,
    # which requirements-oldest.txt pins.
    # Detectron2 is on no package index: see README.md, "Install".
    install_requires=[
        "torch>=2.5",
        "torchvision>=0.20",
        "detectron2>=0.6",
        "fvcore>=0.1.5.post20211023",
        "pycocotools>=2.0.7",
        "iopath>=0.1.9",
        "omegaconf>=2.2",
        "hydra-core>=1.3",
        f"{opencv}>=4.8",
        "numpy>=1.26",
        "pillow>=9.4",
        "PyYAML>=6",
        "tqdm>=4.60",
        # Detectron2's model zoo imports pkg_resources, which setuptools 81 removed.
        "setuptools<81",
    ],
)
