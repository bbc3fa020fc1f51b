"""The program as a whole: faults of environments in mid-run, its own options, Ctrl-C, a full disk. Real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

FRAGILE = """
from pathlib import Path

import gymnasium
import numpy as np


class Fragile(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(0.0, 1.0, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)
    steps_in_all = 0

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.time += 1
        Fragile.steps_in_all += 1
        if Fragile.steps_in_all > 200 and not Path("mended").exists():
            raise KeyError("the floor is missing")
        return np.zeros(2, np.float32), float(action), self.time == 5, False, {}


gymnasium.register("program_tests/Fragile-v0", Fragile)
"""
CONFIG = """
environment: {id: program_tests/Fragile-v0}
network: {kind: gru, hidden_size: 4}
algorithm: {name: a2c, total_timesteps: 400, n_envs: 2, n_steps: 20}
evaluation: {tasks: 4, valid_tasks: 0}
checkpoint: {interval: 2}
logging: {tensorboard: false}
"""


def program(folder: Path, *words: str, **kwargs: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **kwargs}
    root = str(Path(__file__).parents[2])
    environment["PYTHONPATH"] = os.pathsep.join([kwargs.get("PYTHONPATH", ""), root]).strip(os.pathsep)
    command = [sys.executable, "-m", "plastic_rl", *words]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.fixture
def fragile(tmp_path: Path) -> Path:
    (tmp_path / "fragile.py").write_text(FRAGILE)
    (tmp_path / "fragile.yaml").write_text(CONFIG)
    return tmp_path


def test_an_environment_that_breaks_down_ends_training_with_one_message_and_the_run_can_go_on(fragile: Path) -> None:
    broken = program(fragile, "train", "fragile.yaml", "--plugin", "fragile.py")
    assert broken.returncode == 2
    message = broken.stderr.strip().splitlines()[-1]
    assert message.startswith("error: program_tests/Fragile-v0 broke down in row 0, step 1 of its lifetime: KeyError")
    assert "Traceback" not in broken.stderr
    assert sorted(entry.name for entry in (fragile / "runs/fragile/checkpoints").iterdir()) == ["160", "80"]
    (fragile / "mended").touch()
    mended = program(fragile, "resume", "fragile", "--plugin", "fragile.py")
    assert mended.returncode == 0, mended.stderr
    assert (fragile / "runs/fragile/evaluation.json").exists()


def test_debug_shows_where_an_error_comes_from(fragile: Path) -> None:
    shown = program(fragile, "--debug", "train", "fragile.yaml", "--plugin", "fragile.py")
    assert shown.returncode == 2
    assert 'raise KeyError("the floor is missing")' in shown.stderr
    assert "EnvironmentFaultError" in shown.stderr
    assert shown.stderr.strip().splitlines()[-1].startswith("error: program_tests/Fragile-v0 broke down")


def test_a_full_disk_is_one_message_with_the_name_of_the_file(fragile: Path) -> None:
    (fragile / "mended").touch()
    (fragile / "sitecustomize.py").write_text(
        "import resource, signal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\nresource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))\n"
    )
    full = program(fragile, "train", "fragile.yaml", "--plugin", "fragile.py", PYTHONPATH=str(fragile))
    assert full.returncode == 2
    assert full.stderr.strip().splitlines()[-1].startswith("error: [Errno 27] File too large: '")
    assert "runs/fragile/" in full.stderr.strip().splitlines()[-1]
    assert "Traceback" not in full.stderr


@pytest.mark.parametrize("module", ["gymnasium", "typer"])
def test_control_c_while_importing(tmp_path: Path, module: str) -> None:
    (tmp_path / f"{module}.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(60)\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])}
    command = [sys.executable, "-m", "plastic_rl", "envs", "list"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "importing\n"
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert error == "stopped.\n"
    assert process.returncode == 130
