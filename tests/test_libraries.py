"""What Detectron2 and others choke on in the environment while they are imported."""

import os
import subprocess
import sys
import warnings

import pytest
from command_line import ROOT
from detectron2.utils.env import _configure_libraries, setup_custom_environment

from ohem_d2 import libraries
from ohem_d2.libraries import out_of_memory, wrong_variable

SETS_UP = "def setup_environment():\n    {}\n"
MODULES = {
    "a syntax error": ("def setup(:\n", r"SyntaxError: .*mine\.py, line 1"),
    "nothing to call": ("setup_environment = 5\n", "callable attribute 'setup_environment'"),
    "an import that fails": ("import nothing_of_this_name\n", "No module named 'nothing_of_this_"),
    "what it raises": (SETS_UP.format("raise OSError('no\\nlicence')"), "OSError: no licence"),
}


def reason(function, *args):
    """What is said of what a function raises."""
    try:
        function(*args)
    except Exception as e:
        return wrong_variable(e)


@pytest.mark.parametrize("name", MODULES)
def test_a_module_that_does_not_set_up(tmp_path, monkeypatch, name):
    content, words = MODULES[name]
    file = tmp_path / "mine.py"
    file.write_text(content)
    monkeypatch.setenv("DETECTRON2_ENV_MODULE", str(file))
    found = reason(setup_custom_environment, str(file))
    assert found.startswith(f"DETECTRON2_ENV_MODULE is '{file}', which Detectron2 cannot set up (")
    assert "\n" not in found
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(found)


@pytest.mark.parametrize("module", ["my_cluster_env", "/nowhere/mine.py", ".relative"])
def test_a_module_that_is_not_there(monkeypatch, module):
    monkeypatch.setenv("DETECTRON2_ENV_MODULE", module)
    found = reason(setup_custom_environment, module)
    assert found.startswith(f"DETECTRON2_ENV_MODULE is '{module}', ")


def test_a_value_that_a_library_refuses(monkeypatch):
    monkeypatch.setenv("DETECTRON2_DISABLE_CV2", "yes")
    assert reason(_configure_libraries) == (
        "DETECTRON2_DISABLE_CV2 is 'yes' in the environment, which detectron2 refuses (ValueError: "
        "invalid literal for int() with base 10: 'yes')"
    )


def test_a_variable_that_an_error_names(monkeypatch):
    monkeypatch.setenv("PYTORCH_JIT", "abc")

    def read():
        if "PYTORCH_JIT" in os.environ:
            raise ValueError("Unknown setting of PYTORCH_JIT")

    assert reason(read).startswith("PYTORCH_JIT is 'abc' in the environment, which test_libraries")


def test_a_variable_is_named_by_its_whole_name(monkeypatch):
    for name, value in {"_": "/usr/bin/env", "DEBUG": "x", "A": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TORCH_DISTRIBUTED_DEBUG", "VERBOSE")

    def read():
        short = "_", "DEBUG", "A"
        raise ValueError(f"The value of TORCH_DISTRIBUTED_DEBUG must be OFF, not {len(short)}1")

    assert reason(read).startswith("TORCH_DISTRIBUTED_DEBUG is 'VERBOSE' in the environment, ")


@pytest.mark.skipif(libraries.resource is None, reason="only Unix has these limits")
@pytest.mark.parametrize("is_limited", [True, False])
def test_a_limit_on_memory(monkeypatch, is_limited):
    most = 2 * 10**9 if is_limited else libraries.resource.RLIM_INFINITY
    monkeypatch.setattr(libraries.resource, "getrlimit", lambda _: (most, most))
    words = "libtorch_cpu.so: failed to map segment from shared object"
    found = out_of_memory(ImportError(words))
    assert found == (
        "this process may use 2.0 GB of memory (ulimit -v), expected more: ImportError: " + words
        if is_limited
        else None
    )
    assert out_of_memory(ImportError("No module named 'x'")) is None


def test_a_warning_that_is_an_error(monkeypatch):
    def warn():
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.warn("old", stacklevel=1)

    monkeypatch.delenv("PYTHONWARNINGS", raising=False)
    assert reason(warn) is None
    monkeypatch.setenv("PYTHONWARNINGS", "error")
    assert reason(warn).startswith("PYTHONWARNINGS is 'error' in the environment, which ")


def test_another_error_is_not_blamed_on_the_environment(monkeypatch):
    monkeypatch.setenv("OTHER", "other")
    assert reason(lambda: int("other")) is None
    assert reason(lambda: ("OTHER", int("x"))) is None
    assert reason(lambda: __import__("nothing_of_this_name")) is None


@pytest.mark.parametrize(
    "command",
    [["train_net.py"], ["-m", "ohem_d2", "train"], ["-c", "import ohem_d2"]],
    ids=lambda x: x[0],
)
def test_one_line_wherever_it_is_imported(command):
    env = {**os.environ, "PYTHONPATH": str(ROOT), "DETECTRON2_ENV_MODULE": "my_cluster_env"}
    run = [sys.executable, "-W", "ignore", *command]
    ended = subprocess.run(run, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 1
    (line,) = (x for x in ended.stderr.splitlines() if "cpp_extension" not in x)
    assert line.startswith("error: DETECTRON2_ENV_MODULE is 'my_cluster_env', which ")


def test_a_current_folder_that_is_gone(tmp_path):
    folder = tmp_path / "gone"
    folder.mkdir()
    code = f"import os; os.rmdir({str(folder)!r}); import ohem_d2"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment,
                         capture_output=True, text=True)  # fmt: skip
    assert run.returncode == 1
    assert run.stderr.startswith("error: the current folder is not there any more, expected one")
