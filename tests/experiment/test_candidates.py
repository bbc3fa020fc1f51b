"""Candidates: each as it is made, each scored on valid, the best one kept; a policy and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from plastic_rl.algorithms.saved_policy import load_policy
from plastic_rl.checkpoint import read_checkpoint
from plastic_rl.errors import ConfigError, TrainingInterrupted
from plastic_rl.experiment import create_runs, find_agent, parse_experiment, train
from plastic_rl.experiment.candidates import Candidates
from plastic_rl.experiment.folder import RunFolder
from plastic_rl.experiment.training import check_unfinished, valid_score
from tests.experiment.watching import Pressing, quiet

NETWORK: dict[str, Any] = {"kind": "rule_table", "tables": "label_free_hebb", "inputs": "all", "hidden_size": 6}
GRID = {"table_values.chosen_unrewarded": [-1.0, -2.0], "cap": [1, 2, 3]}
BANDIT = {"id": "plastic_rl/ReversalBandit-v0", "kwargs": {"steps": 20}}


def settings(grid: Any = None, network: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "environment": BANDIT,
        "network": network or NETWORK,
        "candidates": {"grid": GRID if grid is None else grid},
        "checkpoint": {"interval": 1},
        "evaluation": {"valid_tasks": 20, "tasks": 10},
        "logging": {"tensorboard": False},
        "seed": 3,
    }


def run_of(folder: Path, name: str = "own", **kwargs: Any) -> RunFolder:
    return create_runs(folder, name, {"": parse_experiment(settings(**kwargs))})[0]


def test_every_combination_is_a_candidate_in_order() -> None:
    candidates = Candidates(parse_experiment(settings()))
    assert len(candidates) == 6
    made = [candidates.policy(number).network for number in range(6)]
    seen = [(float(network.output_table.detach()[-1, 2]), network.config.cap) for network in made]  # type: ignore[index, operator, union-attr]
    assert seen == [(punished, cap) for punished in (-1.0, -2.0) for cap in (1, 2, 3)]


def test_candidates_start_from_the_same_draws() -> None:
    grid = {"step.output": [0.1, 0.2]}
    candidates = Candidates(parse_experiment(settings(grid, {**NETWORK, "tables": "normal"})))
    first, second = (dict(candidates.policy(number).named_parameters()) for number in range(2))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_another_rule_in_a_grid_is_another_rule_with_all_its_parts() -> None:
    network = {"kind": "plastic_rnn", "hidden_size": 3, "rule": "backpropamine_simple"}
    candidates = Candidates(parse_experiment(settings({"rule": ["oja", "hard_clip"]}, network)))
    parts = [candidates.policy(number).network.config for number in range(2)]
    assert [(own.term, own.modulator, own.bound) for own in parts] == [  # type: ignore[union-attr]
        ("oja", "constant", "none"),
        ("hebb", "constant", "hard_clip"),
    ]


def test_a_run_keeps_the_best_on_valid_as_a_policy_alone(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    train(run, progress=quiet())
    candidates = Candidates(run.config())
    scores = [valid_score(candidates.policy(number), run.config()) for number in range(6)]
    best = max(range(6), key=lambda number: (scores[number], number))  # a tie goes to the later one
    assert run.best() == best + 1
    assert sorted(int(path.name) for path in run.checkpoints.iterdir()) == sorted({best + 1, 5, 6})
    stored = read_checkpoint(run.chosen())
    assert set(stored.tensors) == {"params"}
    assert stored.documents["algorithm"] == {"candidates": best + 1}
    assert valid_score(find_agent(run.path).load(), run.config()) == scores[best]
    assert load_policy(stored).network.config.cap == candidates.settings(best)["cap"]  # type: ignore[union-attr]


def test_a_stopped_run_goes_on_with_the_next_candidate(tmp_path: Path) -> None:
    whole, pieces = run_of(tmp_path, "whole"), run_of(tmp_path, "pieces")
    train(whole, progress=quiet())
    with pytest.raises(TrainingInterrupted):
        train(pieces, progress=Pressing(2))
    assert pieces.latest() == pieces.checkpoints / "2"
    check_unfinished(pieces, pieces.config())
    train(pieces, progress=quiet())
    for name in ("metrics.csv", "checkpoints/6/params.safetensors", f"checkpoints/{whole.best()}/params.safetensors"):
        assert (whole.path / name).read_bytes() == (pieces.path / name).read_bytes()
    assert whole.best() == pieces.best()


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({"hidden_sise": [3]}, r"(?s)candidates.grid.hidden_sise: 3\) makes no network.*Did you mean 'hidden_size'"),
        # Told at once, though the candidate before it is a network.
        (
            {"rounds": [0, 1], "cap": [3, 0]},
            r"(?s)candidate 2 of 4 \(candidates.grid.rounds: 0, candidates.grid.cap: 0\)",
        ),
        (
            {"kind": ["rule_tabel"]},
            r"candidates.grid.kind: 'rule_tabel'\) makes no network: .*Did you mean 'rule_table'",
        ),
        ({"hidden_size.deep": [3]}, r"candidates.grid.hidden_size.deep: hidden_size is 6 and has no settings"),
    ],
)
def test_what_makes_no_network_is_refused_by_its_key(grid: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Candidates(parse_experiment(settings(grid)))


@pytest.mark.parametrize("grid", [{"cap": 3}, {"cap": "many"}, [3], {}, {"cap": []}])
def test_a_grid_that_is_no_mapping_of_lists_is_refused_by_its_key(grid: Any) -> None:
    with pytest.raises(ConfigError, match=r"\n  candidates\.grid"):
        parse_experiment(settings(grid))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"checkpoint": {"interval": 2}}, "set checkpoint.interval to 1"),
        ({"evaluation": {"valid_tasks": 0}}, "evaluation.valid_tasks to 1 or more, got 1 and 0"),
        ({"algorithm": {"name": "cma_es", "generations": 3}}, "needs either `algorithm` or `candidates`"),
        ({"candidates": None}, "needs either `algorithm` or `candidates`"),
    ],
)
def test_candidates_are_scored_each_and_stand_for_the_algorithm(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_experiment(settings() | changes)
