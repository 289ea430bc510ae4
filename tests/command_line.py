"""train_net.py, run as from a shell."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def run_train_net(folder, *args, config=None):
    """Run it in a folder, with Detectron2's data sets expected in a folder that is not there."""
    config = [] if config is None else ["--config-file", str(config)]
    # One thread: trainings of seconds are slowed by more.
    env = {**os.environ, "OMP_NUM_THREADS": "1", "DETECTRON2_DATASETS": str(folder / "datasets")}
    return subprocess.run(
        [sys.executable, str(ROOT / "train_net.py"), *config, *map(str, args)],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=600,
    )
