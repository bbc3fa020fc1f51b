"""A small trained run, and the command line called in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from plastic_rl.cli.app import main

SMALL = """
description: A reversal bandit of 20 steps.
environment: {id: plastic_rl/ReversalBandit-v0, kwargs: {steps: 20}}
network: {kind: plastic_rnn, rule: oja, hidden_size: 6}
algorithm: {name: a2c, total_timesteps: 480, n_envs: 4, learning_rate: 5e-3}
evaluation: {tasks: 30, valid_tasks: 10}
checkpoint: {interval: 2}
logging: {tensorboard: false}
"""


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


Call = Callable[..., Outcome]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    def run(*arguments: str | Path) -> Outcome:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that holds `small.yaml` and `runs/small`."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "small.yaml").write_text(SMALL)
    assert main(["train", str(folder / "small.yaml"), "--runs-folder", str(folder / "runs")]) == 0
    return folder


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with `small.yaml`."""
    (tmp_path / "small.yaml").write_text(SMALL)
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    yield tmp_path
    torch.set_num_threads(threads)
