"""Running Python configs, and what is said of those that do not run."""

import pytest

from ohem_d2.errors import InputError
from ohem_d2.training.lazy_file import run_file


def test_configs_that_import_each_other(tmp_path):
    for name, other in (("a", "b"), ("b", "c"), ("c", "b")):
        (tmp_path / f"{name}.py").write_text(f"from .{other} import model\n")
    with pytest.raises(InputError, match="configs import each other: .*b.py, .*c.py$"):
        run_file(str(tmp_path / "a.py"))
    (tmp_path / "a.py").write_text("def f():\n    return f()\n\n\nf()\n")
    with pytest.raises(InputError, match="RecursionError: maximum recursion depth"):
        run_file(str(tmp_path / "a.py"))


def test_a_python_config_on_one_of_yaml(tmp_path):
    lines = (
        "from detectron2 import model_zoo",
        "_zoo = model_zoo.get_config('COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml')",
        "model = _zoo.model",
    )
    (tmp_path / "a.py").write_text("\n".join(lines))
    message = "a.py is no valid config: line 3: there is no 'model' in a YAML config, expected a Py"
    with pytest.raises(InputError, match=message):
        run_file(str(tmp_path / "a.py"))


FROM, NO = "from .base import model", "is no valid config: line"


@pytest.mark.parametrize(
    ("line", "base", "message"),
    [
        (
            FROM,
            "import math\nsolver = dict(a=1)\ntrain = {}\n",
            f"top.py {NO} 2: there is no 'model' in .*base.py, which has solver, train$",
        ),
        (FROM, "x = 1\n", "there is no 'model' in .*base.py, which has no nodes$"),
        (
            "from .base import *",
            "model = {}\n",
            f"top.py {NO} 2: it imports \\* from .*base.py, expected the names, such as model$",
        ),
        (
            FROM,
            "x = 1\n\nmodel = y\n",
            f"base.py {NO} 3: NameError: name 'y' is not defined. [^ ]*top.py imports it$",
        ),
        (
            FROM,
            "model = {}['backbone']\n",
            f"base.py {NO} 1: KeyError: 'backbone'. [^ ]*top.py imports it$",
        ),
        (
            "import of_top; model = of_top.make()",
            "",
            f"top.py {NO} 2: KeyError: 'size', in [^ ]*of_top.py, line 2$",
        ),
        (
            "from detectron2 import model_zoo; model = model_zoo.get_config('x.py')",
            "",
            f"top.py {NO} 2: RuntimeError: x.py not available in Model Zoo!$",
        ),
    ],
)
def test_the_file_and_line_of_an_error(tmp_path, monkeypatch, line, base, message):
    (tmp_path / "top.py").write_text(f"a = 1\n{line}\n")
    (tmp_path / "base.py").write_text(base)
    (tmp_path / "of_top.py").write_text("def make(**sizes):\n    return sizes['size']\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=message):
        run_file(str(tmp_path / "top.py"))


def test_yaml_in_a_python_file(tmp_path):
    (tmp_path / "a.py").write_text("MODEL:\n  ROI_HEADS:\n    NAME: OHEMROIHeads\n")
    message = "a.py is no valid config: it has YAML's keys, expected Python, or a name that ends w"
    with pytest.raises(InputError, match=message):
        run_file(str(tmp_path / "a.py"))
    (tmp_path / "a.py").write_text("x: int = \n")
    with pytest.raises(InputError, match="a.py is no valid config: line 1: SyntaxError"):
        run_file(str(tmp_path / "a.py"))
