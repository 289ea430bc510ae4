import json
import os
import subprocess
import sys

import pytest
from command_line import ROOT


@pytest.mark.slow
def test_kills(tmp_path):
    """A process of its own, since it forks trainings."""
    code = (
        "import survival\n"
        "survival.SETTINGS = [survival.Setting('ohem_d2', 'mining', 2, 1)]\n"
        "survival.main()"
    )
    file = tmp_path / "kills.json"
    path = os.pathsep.join(map(str, (ROOT, ROOT / "benchmarks")))
    run = subprocess.run(
        [sys.executable, "-c", code, "--kills", "2", "--output", str(file)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert run.returncode == 0, run.stderr
    assert "1 processes: 2 of 2 the same" in run.stdout
    (result,) = json.loads(file.read_text())["runs"]
    assert result["control"] == 0
    assert [x["difference"] for x in result["kills"]] == [0, 0]
    assert all(x["checkpoint"].startswith("model_") for x in result["kills"])
