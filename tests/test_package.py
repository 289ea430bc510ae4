"""What is installed: the wheel, and what it says that it needs."""

import ast
import os
import re
import shutil
import subprocess
import sys
import zipfile
from configparser import ConfigParser
from email import message_from_bytes

import pytest
import setuptools
import yaml
from command_line import ROOT

import ohem_d2
from ohem_d2.training.config_file import CONFIGS, find_config, load_config

NAMES_ON_INDEX = {"PIL": "pillow", "yaml": "pyyaml", "hydra": "hydra-core"}
# Imported only if it is asked for, or only by the tools.
EXTRAS = {"timm": "timm", "cleanlab": "cleanlab", "matplotlib": "plots"}


def read_setup(monkeypatch, installed):
    """The arguments of setup() where these packages are installed."""
    monkeypatch.chdir(ROOT)
    given = {}
    monkeypatch.setattr(setuptools, "setup", lambda **kwargs: given.update(kwargs))

    def distribution(name):
        if name not in installed:
            raise PackageNotFoundError(name)

    from importlib.metadata import PackageNotFoundError

    monkeypatch.setattr("importlib.metadata.distribution", distribution)
    code = compile((ROOT / "setup.py").read_text(), str(ROOT / "setup.py"), "exec")
    exec(code, {"__name__": "__main__", "__file__": str(ROOT / "setup.py")})
    return given


def imported(folder):
    """What the modules in a folder import, by the name of the topmost package."""
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from (alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                yield node.module.partition(".")[0]


def test_what_is_imported_is_declared(monkeypatch):
    required = read_setup(monkeypatch, [])["install_requires"]
    declared = {re.match(r"[\w-]+", x)[0].lower() for x in required}
    project = (ROOT / "pyproject.toml").read_text()
    needed = set()
    for module in {*imported(ROOT / "ohem_d2"), *imported(ROOT / "tools"), *imported(CONFIGS)}:
        if module in sys.stdlib_module_names or module == "ohem_d2":
            continue
        if (ROOT / "benchmarks" / f"{module}.py").exists() or (ROOT / "tools" / module).is_dir():
            continue
        if module in EXTRAS:
            assert re.search(rf'^{EXTRAS[module]} = \["{module}>=', project, re.MULTILINE)
            continue
        name = "opencv-python" if module == "cv2" else NAMES_ON_INDEX.get(module, module)
        assert name in declared, module
        needed.add(name)
    # And nothing else, but for what Detectron2 forgets to declare.
    assert declared - needed == {"setuptools"}


@pytest.mark.parametrize(
    ("installed", "expected"),
    [
        ([], "opencv-python"),
        (["opencv-python"], "opencv-python"),
        (["opencv-contrib-python"], "opencv-contrib-python"),
        (["opencv-python-headless"], "opencv-python-headless"),
        (["opencv-contrib-python-headless"], "opencv-contrib-python-headless"),
    ],
)
def test_whichever_opencv_is_there_will_do(monkeypatch, installed, expected):
    required = read_setup(monkeypatch, installed)["install_requires"]
    assert [x.partition(">=")[0] for x in required if "opencv" in x] == [expected]


def test_the_oldest_versions_are_the_lower_bounds(monkeypatch):
    required = read_setup(monkeypatch, ["opencv-contrib-python"])["install_requires"]
    lines = [*required, *re.findall(r'"(\w\S+)"', (ROOT / "pyproject.toml").read_text())]
    bounds = dict(x.lower().split(">=") for x in lines if ">=" in x)
    pins = re.findall(r"^(\S+)==(\S+)", (ROOT / "requirements-oldest.txt").read_text(), re.M)
    oldest = {name.lower(): version for name, version in pins}
    # Detectron2 is pinned by its commit. The others run no test.
    assert bounds.keys() - oldest.keys() == {"detectron2", "mkdocs-material", "mypy", "ruff"}
    for name in bounds.keys() & oldest.keys():
        assert f"{oldest[name]}.".startswith(f"{bounds[name]}."), name


@pytest.mark.parametrize("prefix", ["", "configs/"])
@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda p: p.stem)
def test_configs_by_name_from_any_folder(tmp_path, monkeypatch, path, prefix):
    monkeypatch.chdir(tmp_path)
    name = f"{prefix}{path.relative_to(CONFIGS).as_posix()}"
    assert find_config(name) == str(path)


def test_a_file_that_is_here_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quick_start.yaml").write_text("SEED: 5\nVERSION: 2\n")
    assert load_config("quick_start.yaml").SEED == 5
    assert load_config("configs/quick_start.yaml").SEED != 5


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == ohem_d2.__version__
    assert citation["preferred-citation"]["url"] == "https://arxiv.org/abs/1604.03540"


def test_messages_name_no_file_that_is_not_installed():
    for path in (ROOT / "ohem_d2").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        docs = {ast.get_docstring(n, clean=False) for n in ast.walk(tree) if hasattr(n, "body")
                and isinstance(n, ast.Module | ast.ClassDef | ast.FunctionDef)}  # fmt: skip
        texts = [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant)]
        for text in (x for x in texts if isinstance(x, str) and x not in docs):
            assert not re.search(r"README|train_net\.py|tools/|docs/", text), (path, text)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, unpacked, and what is in it."""
    folder = tmp_path_factory.mktemp("wheel")
    source, built, unpacked = (folder / x for x in ("source", "built", "unpacked"))
    source.mkdir()
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("ohem_d2", "configs"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet"]
    subprocess.run([*pip, "--wheel-dir", built, source], check=True, timeout=300)
    (file,) = built.glob("*.whl")
    with zipfile.ZipFile(file) as archive:
        archive.extractall(unpacked)
    return unpacked


@pytest.mark.slow
def test_the_wheel_holds_everything(wheel):
    def files(folder):
        paths = (p for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
        return sorted(p.relative_to(folder).as_posix() for p in paths)

    package = wheel / "ohem_d2"
    assert files(package / "configs") == files(ROOT / "configs")
    rest = [x for x in files(package) if not x.startswith("configs/")]
    assert rest == files(ROOT / "ohem_d2")
    assert {"py.typed", "report/report.html", "report/decide.js", "cli.py"} <= set(rest)
    (info,) = wheel.glob("*.dist-info")
    assert {p.name for p in wheel.iterdir()} == {"ohem_d2", info.name}
    scripts = ConfigParser()
    scripts.read(info / "entry_points.txt")
    assert dict(scripts["console_scripts"]) == {"ohem-d2": "ohem_d2.cli:main"}
    metadata = message_from_bytes((info / "METADATA").read_bytes())
    assert metadata["Name"] == "ohem_d2"
    assert metadata["Version"] == ohem_d2.__version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata["Requires-Python"] == ">=3.10"


@pytest.mark.slow
def test_the_wheel_works_in_an_empty_folder(wheel, tmp_path):
    def run(*command):
        # With the wheel's package in front of the one that is installed here.
        env = {**os.environ, "PYTHONPATH": str(wheel), "DETECTRON2_DATASETS": "nothing"}
        return subprocess.run(
            [sys.executable, "-W", "ignore", *command],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            timeout=300,
        )

    program = "import ohem_d2.cli; print(ohem_d2.__file__); ohem_d2.cli.main()"
    called = run("-c", program, "--help")
    assert called.returncode == 0, called.stderr
    assert called.stdout.startswith(f"{wheel}/ohem_d2/__init__.py\nusage: ohem-d2 ")
    called = run("-m", "ohem_d2", "train", "--config-file", "configs/faster_rcnn_ohem.yaml")
    assert called.returncode == 1
    assert "error: DATASETS.TRAIN: the data set 'coco_2017_train' is not here" in called.stderr
    python_config = "mask_rcnn_R_50_FPN_1x_ohem.py"
    called = run("-m", "ohem_d2", "train", "--config-file", python_config)
    assert called.returncode == 1
    key = "dataloader.train.dataset.names"
    assert f"error: {key}: the data set 'coco_2017_train' is not here" in called.stderr


def test_no_two_test_files_have_the_same_name():
    """pytest imports each by its name alone, and takes one for the other."""
    names = [file.name for file in (ROOT / "tests").rglob("*.py")]
    assert [name for name in names if names.count(name) > 1] == []
