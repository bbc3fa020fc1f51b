"""Killed at any moment, of training or of saving, and resumed: the same bytes as a run that was never disturbed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from plastic_rl import _native
from plastic_rl.checkpoint import read_checkpoint
from plastic_rl.cli.app import main

CONFIG = """
environment: ENVIRONMENT
network: NETWORK
algorithm: ALGORITHM
evaluation: {valid_tasks: 20, final: false}
checkpoint: {interval: 3}
logging: {interval: INTERVAL, tensorboard: false}
"""
CANDIDATES = """
environment: {id: plastic_rl/Classification-v0, kwargs: {data: D, steps: 30}}
network: {kind: rule_table, hidden_size: 12, tables: label_free_hebb, cap: 4, rounds: 2}
candidates: {grid: {cap: [2, 3, 4, 5], step.output: [0.01, 0.03, 0.1, 0.3, 1.0]}}
evaluation: {valid_tasks: 20, final: false}
checkpoint: {interval: 1}
logging: {interval: 1, tensorboard: false}
"""
BANDIT = CONFIG.replace("ENVIRONMENT", "{id: plastic_rl/ReversalBandit-v0, kwargs: {steps: 30}}").replace(
    "NETWORK", "{kind: plastic_rnn, rule: backpropamine_retroactive, hidden_size: 12}"
)
TAUGHT = CONFIG.replace(
    "ENVIRONMENT", "{id: plastic_rl/SupervisedClassification-v0, kwargs: {data: D, steps: 30}}"
).replace("NETWORK", "{kind: rule_table, hidden_size: 12, cap: 4, rounds: 2, output_table: supervised}")
CMA_ES = "{name: cma_es, generations: 20, population_size: 8, lifetimes: 2, individuals_per_chunk: 3, ENGINE}"
CONFIGS = {
    # Rollouts of 20 steps in lifetimes of 30: checkpoints fall into the middle of lifetimes.
    "a2c": BANDIT.replace(
        "ALGORITHM",
        "{name: a2c, total_timesteps: 9600, n_envs: 16, n_steps: 20, center_rewards: true, "
        "learning_rate: {start: 0.005, end: 0}}",
    ).replace("INTERVAL", "3"),
    "candidates": CANDIDATES,
    "cma_es": BANDIT.replace("ALGORITHM", CMA_ES.replace("ENGINE", "restarts: ipop")).replace("INTERVAL", "1"),
    "supervised_gradient": TAUGHT.replace(
        "ALGORITHM",
        "{name: supervised_gradient, total_timesteps: 9600, n_envs: 16, n_steps: 20, "
        "learning_rate: {start: 0.1, end: 0.01}}",
    ).replace("INTERVAL", "3"),
}
PROCESSES = CONFIGS["cma_es"].replace("restarts", "engine: {name: process, workers: 2}, restarts")


def launch(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "plastic_rl", *arguments]
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def run(folder: Path, *arguments: str) -> tuple[int, str]:
    process = launch(folder, *arguments)
    output, _ = process.communicate(timeout=300)
    return process.returncode, output


def rows(run_folder: Path) -> int:
    file = run_folder / "metrics.csv"
    return file.read_bytes().count(b"\n") if file.exists() else 0


def saving(run_folder: Path) -> bool:
    return any((run_folder / "checkpoints").glob(".unfinished-*"))


def kill_when(process: subprocess.Popen[str], condition: Callable[[], bool], delay: float) -> bool:
    """Wait for the condition, then a moment, then kill; false if the process ended by itself before."""
    deadline = time.monotonic() + 120
    while not condition():
        if process.poll() is not None:
            return False
        if time.monotonic() > deadline:
            process.kill()
            pytest.fail("the moment to kill at did not come")
        time.sleep(0.0005)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    return process.returncode == -signal.SIGKILL


@pytest.fixture(scope="module", params=sorted(CONFIGS))
def algorithm(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, algorithm: str) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "config.yaml").write_text(CONFIGS[algorithm])
    code, output = run(folder, "train", "config.yaml", "--name", "whole")
    assert code == 0, output
    return folder / "runs" / "whole"


def last_checkpoint(run_folder: Path) -> Path:
    return max((run_folder / "checkpoints").iterdir(), key=lambda entry: int(entry.name))


def assert_same_bytes(run_folder: Path, undisturbed: Path) -> None:
    assert (run_folder / "metrics.csv").read_bytes() == (undisturbed / "metrics.csv").read_bytes()
    steps = sorted(entry.name for entry in (undisturbed / "checkpoints").iterdir())
    assert sorted(entry.name for entry in (run_folder / "checkpoints").iterdir()) == steps
    mine, whole = (
        {part.name: part.read_bytes() for part in last_checkpoint(folder).iterdir() if part.name != "manifest.json"}
        for folder in (run_folder, undisturbed)
    )
    assert "params.safetensors" in whole
    assert "algorithm.json" in whole
    assert mine == whole


def kill_while_saving(folder: Path, process: subprocess.Popen[str]) -> subprocess.Popen[str] | None:
    """Kill and resume until a kill has left a checkpoint half written; None if the run ended before that."""
    while kill_when(process, lambda: saving(folder), 0.0):
        half_written = saving(folder)
        process = launch(folder.parent.parent, "resume", folder.name)
        if half_written:
            return process
    return None


def test_killed_runs_end_with_the_same_bytes(tmp_path: Path, undisturbed: Path, algorithm: str) -> None:
    (tmp_path / "config.yaml").write_text(CONFIGS[algorithm])
    generator = random.Random(20)
    # On a busy machine the moments to kill at may be missed: then the run simply ends, and another one is tried.
    for attempt in range(5):
        name = f"killed-{attempt}"
        folder = tmp_path / "runs" / name
        process = launch(tmp_path, "train", "config.yaml", "--name", name)
        if not kill_when(process, lambda folder=folder: rows(folder) >= 1, generator.uniform(0, 0.03)):
            continue
        while_saving = kill_while_saving(folder, launch(tmp_path, "resume", name))
        if while_saving is None:
            continue
        if not kill_when(while_saving, lambda folder=folder: rows(folder) >= 11, generator.uniform(0, 0.03)):
            continue
        code, output = run(tmp_path, "resume", name)
        assert code == 0, output
        break
    else:
        pytest.fail("no run could be killed before its first checkpoint, while saving, and later on")
    assert_same_bytes(folder, undisturbed)
    assert not list(folder.glob("**/.unfinished-*"))


def test_a_run_that_began_on_torch_is_killed_and_goes_on_there_where_there_is_the_native_core(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The runs above are on the native core, where there is one. Two are of this process: starting takes longest."""
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    (tmp_path / "config.yaml").write_text(CONFIGS["a2c"])
    monkeypatch.setenv(_native.VARIABLE, "torch")
    assert main(["train", "config.yaml", "--name", "whole"]) == 0
    assert capsys.readouterr().err.startswith("core: torch (PLASTIC_RL_CORE=torch)\n")
    for name in ("killed-0", "killed-1", "killed-2"):
        folder = tmp_path / "runs" / name
        process = launch(tmp_path, "train", "config.yaml", "--name", name)
        if kill_when(process, lambda folder=folder: rows(folder) >= 4, 0.0):
            break
    else:
        pytest.fail("no run could be killed")
    assert (folder / "checkpoints").exists()
    monkeypatch.delenv(_native.VARIABLE)
    assert main(["resume", name]) == 0
    why = "it began on torch" if _native.levels() else "the package was installed without its compiled core"
    assert capsys.readouterr().err.startswith(f"core: torch ({why})\n")
    torch.set_num_threads(threads)
    assert_same_bytes(folder, tmp_path / "runs" / "whole")
    [core] = {read_checkpoint(path).core["name"] for path in (folder / "checkpoints").iterdir()}
    assert core == "torch"


# The others are stopped by the same code: killed, all four are tested above.
@pytest.mark.parametrize("algorithm", ["a2c", "cma_es"], indirect=True, scope="module")
def test_ctrl_c_saves_says_where_and_exits_130(tmp_path: Path, undisturbed: Path, algorithm: str) -> None:
    (tmp_path / "config.yaml").write_text(CONFIGS[algorithm])
    folder = tmp_path / "runs" / "stopped"
    process = launch(tmp_path, "train", "config.yaml", "--name", "stopped")
    while rows(folder) < 4:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    [saved] = [line for line in output.splitlines() if line.startswith("stopped: saved in runs/stopped/checkpoints/")]
    assert saved.endswith("Go on with: plastic-rl resume runs/stopped")
    checkpoint = saved.removeprefix("stopped: saved in ").split(". Go on")[0]
    assert (tmp_path / checkpoint / "manifest.json").is_file()
    assert "Traceback" not in output

    code, output = run(tmp_path, "resume", "stopped")
    assert code == 0, output
    assert (folder / "metrics.csv").read_bytes() == (undisturbed / "metrics.csv").read_bytes()
    mine, whole = (last_checkpoint(path) / "params.safetensors" for path in (folder, undisturbed))
    assert mine.read_bytes() == whole.read_bytes()

    if algorithm == "cma_es":
        code, output = run(tmp_path, "resume", "stopped")
        assert (code, output.startswith("error: runs/stopped is finished")) == (2, True)


def workers_of(process: subprocess.Popen[str]) -> list[int]:
    """Processes in which a pool's workers live: those that multiprocessing has spawned, beside its own helper."""
    found = []
    for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        command = Path(f"/proc/{child}/cmdline").read_bytes()
        if b"spawn_main" in command:
            found.append(int(child))
    return found


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the workers in /proc")
@pytest.mark.parametrize("algorithm", ["cma_es"], indirect=True, scope="module")
def test_a_pool_whose_workers_and_master_are_killed_gives_the_bytes_of_one_process(
    tmp_path: Path, undisturbed: Path
) -> None:
    (tmp_path / "config.yaml").write_text(PROCESSES)
    folder = tmp_path / "runs" / "pool"
    process = launch(tmp_path, "train", "config.yaml", "--name", "pool")
    killed: list[int] = []

    def kill_a_worker() -> bool:
        if rows(folder) >= 1 and not killed:
            killed.append(workers_of(process)[0])
            os.kill(killed[0], signal.SIGKILL)
        return rows(folder) >= 5

    assert kill_when(process, kill_a_worker, 0.0)
    assert killed
    code, output = run(tmp_path, "resume", "pool")
    assert code == 0, output
    assert_same_bytes(folder, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_killed_at_random_times(tmp_path: Path, undisturbed: Path, algorithm: str, seed: int) -> None:
    (tmp_path / "config.yaml").write_text(PROCESSES if algorithm == "cma_es" else CONFIGS[algorithm])
    folder = tmp_path / "runs" / "killed"
    generator = random.Random(seed)
    process = launch(tmp_path, "train", "config.yaml", "--name", "killed")
    kills = 0
    for _ in range(8):
        started = rows(folder)
        # The first moments lie within the run for sure, later ones may fall anywhere up to its end.
        delay = generator.uniform(0, 0.01 if kills < 2 else 0.4)
        if not kill_when(process, lambda started=started: rows(folder) != started, delay):
            break
        kills += 1
        process = launch(tmp_path, "resume", "killed")
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0 or "is finished" in output, output
    assert kills >= 2
    assert_same_bytes(folder, undisturbed)
