import atexit
import importlib
import logging
import os
import shutil
import signal
import tempfile
import warnings

import pytest

# Detectron2 asks on its import where its data sets are: no test should find any.
os.environ.pop("DETECTRON2_DATASETS", None)

# Nor should one leave anything in the user's cache.
if "XDG_CACHE_HOME" not in os.environ:
    os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="ohem_d2_cache_")
    atexit.register(shutil.rmtree, os.environ["XDG_CACHE_HOME"], ignore_errors=True)

# Detectron2 scripts a few functions on import, which torch announces as deprecated.
warnings.filterwarnings("ignore", message=".*torch.jit.script.*")


def pytest_addoption(parser):
    parser.addoption(
        "--report",
        action="append",
        default=[],
        help="a folder that `ohem-d2 report` wrote, to be opened in a browser",
    )
    parser.addoption(
        "--formats",
        action="append",
        default=[],
        help="a folder with the same boxes in several formats, as in the repository "
        "rafaelpadilla/review_object_detection_metrics",
    )


def pytest_collection_modifyitems(items):
    # Asked for once there is such a test: torch takes its time to be imported.
    of_gpus = [x for x in items if x.get_closest_marker("gpu")]
    if of_gpus and not importlib.import_module("torch").cuda.is_available():
        for x in of_gpus:
            x.add_marker(pytest.mark.skip(reason="needs a GPU"))


def pytest_generate_tests(metafunc):
    if "report_folder" in metafunc.fixturenames:
        metafunc.parametrize("report_folder", metafunc.config.getoption("report"))
    if "formats_folder" in metafunc.fixturenames:
        metafunc.parametrize("formats_folder", metafunc.config.getoption("formats"))


@pytest.fixture(autouse=True)
def _loggers():
    """A command that a test calls sets up logging, and would take the log from pytest for good."""
    for name in ("detectron2", "fvcore", "ohem_d2"):
        logging.getLogger(name).propagate = True


@pytest.fixture
def signals_as_from_a_terminal():
    """nohup ignores some of them, and so does a shell for what it starts in the background."""
    usual = {"SIGINT": signal.default_int_handler, "SIGTERM": signal.SIG_DFL}
    usual |= {"SIGHUP": signal.SIG_DFL} if hasattr(signal, "SIGHUP") else {}
    before = {name: signal.signal(getattr(signal, name), usual[name]) for name in usual}
    yield
    for name, handler in before.items():
        signal.signal(getattr(signal, name), handler)
