"""Grid search: all candidates, each as it is made, and the chosen one back from its checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback

from plastic_rl.algorithms import GridSearch
from plastic_rl.errors import CheckpointError, ConfigError
from plastic_rl.experiment import parse_experiment

NETWORK: dict[str, Any] = {"kind": "rule_table", "tables": "label_free_hebb", "inputs": "all", "hidden_size": 6}
GRID = {"table_values.chosen_unrewarded": [-1.0, -2.0], "cap": [1, 2, 3]}
BANDIT = "plastic_rl/ReversalBandit-v0"


def make(grid: dict[str, list[Any]] | None = None, network: dict[str, Any] | None = None) -> GridSearch:
    return GridSearch(
        "PlasticPolicy",
        BANDIT,
        grid=GRID if grid is None else grid,
        policy_kwargs={"network": network or NETWORK},
        seed=3,
    )


class Witness(BaseCallback):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[float, int]] = []

    def _on_step(self) -> bool:
        assert isinstance(self.model, GridSearch)
        network: Any = self.model.policy.network
        self.seen.append((float(network.output_table.detach()[-1, 2]), network.config.cap))
        return True


def test_every_combination_is_taken_up_once_and_in_order() -> None:
    search, witness = make(), Witness()
    search.learn(callback=witness)
    assert len(search) == search.num_timesteps == 6
    assert witness.seen == [(punished, cap) for punished in (-1.0, -2.0) for cap in (1, 2, 3)]


def test_a_checkpoint_brings_its_candidate_back_and_the_search_goes_on(tmp_path: Path) -> None:
    search = make()
    search.learn(4)
    search.save(tmp_path / "fourth.zip")
    loaded = GridSearch.load(tmp_path / "fourth.zip", env=BANDIT)
    assert loaded.iterations == 4
    for name, parameter in search.policy.named_parameters():
        assert torch.equal(parameter, dict(loaded.policy.named_parameters())[name])
    witness = Witness()
    loaded.learn(callback=witness, reset_num_timesteps=False)
    assert witness.seen == [(-2.0, 2), (-2.0, 3)]
    acting = GridSearch.load(tmp_path / "fourth.zip")
    assert acting.policy.network.config.cap == 1  # type: ignore[union-attr]
    with pytest.raises(ConfigError, match=r"this GridSearch was made or loaded without .* set_env"):
        acting.learn()
    acting.set_env(BANDIT)
    acting.learn(reset_num_timesteps=False)
    assert acting.iterations == 6


def test_candidates_start_from_the_same_draws() -> None:
    search = make({"step.output": [0.1, 0.2]}, {**NETWORK, "tables": "normal"})
    search.learn(1)
    first = dict(search.policy.named_parameters())
    search.learn(reset_num_timesteps=False)
    for name, parameter in search.policy.named_parameters():
        assert torch.equal(parameter, first[name])


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({"cap": [], "rounds": [1]}, "algorithm.grid needs .* got none for cap$"),
        ({}, "algorithm.grid needs at least one setting of the network.* got none for any$"),
        ({"hidden_sise": [3]}, r"(?s)algorithm.grid.hidden_sise: 3\) makes no network.*Did you mean 'hidden_size'"),
        # Told at once, though the candidate before it is a network.
        (
            {"rounds": [0, 1], "cap": [3, 0]},
            r"(?s)candidate 2 of 4 \(algorithm.grid.rounds: 0, algorithm.grid.cap: 0\)",
        ),
        (
            {"kind": ["rule_tabel"]},
            r"algorithm.grid.kind: 'rule_tabel'\) makes no network: .*Did you mean 'rule_table'",
        ),
        ({"hidden_size.deep": [3]}, r"algorithm.grid.hidden_size.deep: hidden_size is 6 and has no settings"),
    ],
)
def test_a_grid_without_values_or_of_no_network_is_refused_by_its_key(grid: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(grid)


@pytest.mark.parametrize("grid", [{"cap": 3}, {"cap": "many"}, [3]])
def test_a_grid_that_is_no_mapping_of_lists_is_refused_by_its_key(grid: Any) -> None:
    settings = {"environment": {"id": BANDIT}, "network": NETWORK, "algorithm": {"name": "grid_search", "grid": grid}}
    with pytest.raises(ConfigError, match=r"\n  algorithm\.grid"):
        parse_experiment(settings)


def test_a_checkpoint_of_a_longer_grid_is_refused(tmp_path: Path) -> None:
    search = make()
    search.learn()
    with pytest.raises(CheckpointError, match="of candidate 6, and this grid has 2"):
        make({"cap": [1, 2]}).set_checkpoint(search.get_checkpoint())
