"""Experiments whose outer loop is CMA-ES: configs and their errors, runs, resuming, scores, export."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from plastic_rl.algorithms import CMAES
from plastic_rl.algorithms.base import algorithm_model
from plastic_rl.checkpoint import read_checkpoint
from plastic_rl.envs import load_plugin
from plastic_rl.errors import CheckpointError, ConfigError, FinishedError, TrainingInterrupted
from plastic_rl.experiment import (
    RunFolder,
    check_experiment,
    create_runs,
    export_agent,
    find_agent,
    load_agent,
    parse_experiment,
    score_run,
    train,
)
from plastic_rl.experiment.agents import checkpoint_line
from plastic_rl.experiment.training import check_unfinished
from tests.experiment.watching import Pressing, quiet

EXAMPLE = Path(__file__).parents[2] / "envs" / "patch_leaving.py"
SMALL: dict[str, Any] = {
    "environment": {"id": "plastic_rl/ReversalBandit-v0", "kwargs": {"steps": 10}},
    "network": {"kind": "plastic_rnn", "rule": "backpropamine_simple", "hidden_size": 4},
    "algorithm": {"name": "cma_es", "generations": 6, "population_size": 6, "lifetimes": 2},
    "evaluation": {"valid_tasks": 10, "tasks": 10},
    "checkpoint": {"interval": 2},
    "logging": {"tensorboard": False},
}


def with_algorithm(**changes: Any) -> dict[str, Any]:
    return {**SMALL, "algorithm": {**SMALL["algorithm"], **changes}}


def small_run(folder: Path, mapping: dict[str, Any] = SMALL) -> RunFolder:
    [run] = create_runs(folder, "small", {"": parse_experiment(mapping)})
    return run


def problems_of(**changes: Any) -> list[str]:
    with pytest.raises(ConfigError) as refusal:
        parse_experiment(with_algorithm(**changes))
    return str(refusal.value).splitlines()[1:]


# --- config --------------------------------------------------------------------------------------------------------


def test_algorithms_are_told_apart_by_name() -> None:
    assert isinstance(parse_experiment(SMALL).algorithm, algorithm_model("cma_es"))
    unnamed = {**SMALL, "algorithm": {"total_timesteps": 100}}
    assert isinstance(parse_experiment(unnamed).algorithm, algorithm_model("a2c"))
    config = parse_experiment(with_algorithm(groups={"network.alpha": {"scale": 0.1, "low": 0}}))
    assert parse_experiment(config.to_mapping()) == config


def test_mistakes_are_told_with_their_path_and_the_nearest_name() -> None:
    assert problems_of(name="cma_se")[0].startswith(
        "  algorithm.name: unknown name 'cma_se'. Did you mean 'cma_es'? Valid: a2c, cma_es"
    )
    assert problems_of(popsize=3, sigma=-1) == [
        "  algorithm.sigma: must be greater than 0, got -1.",
        "  algorithm.popsize: unknown key. Did you mean 'population_size'? Valid: "
        + ", ".join(algorithm_model("cma_es").model_fields)
        + ".",
    ]
    assert problems_of(n_envs=3)[0].startswith("  algorithm.n_envs: unknown key.")
    assert problems_of(covariance="diagonal")[0].startswith("  algorithm.covariance: must be 'auto', 'full' or")
    assert problems_of(engine={"worker": 3})[0].startswith(
        "  algorithm.engine.worker: unknown key. Did you mean 'workers'?"
    )
    assert problems_of(groups={"network.*": {"low": 2, "high": 1}}) == [
        "  algorithm.groups.network.*: low must be below high, got low 2 and high 1"
    ]


def test_what_only_the_network_or_this_machine_can_tell_is_refused_before_a_folder_is_made() -> None:
    for changes, message in (
        ({"evolve": ["network.alfa"]}, "Did you mean 'network.alpha'"),
        ({"groups": {"nothing": {"scale": 2}}}, "unknown parameter in algorithm.groups 'nothing'"),
        ({"engine": {"name": "proces"}}, "Did you mean 'process'"),
    ):
        with pytest.raises(Exception, match=message):
            check_experiment(parse_experiment(with_algorithm(**changes)))
    large = {"id": "plastic_rl/ReversalBandit-v0", "kwargs": {"steps": 100_000}}
    many = {**with_algorithm(population_size=5000, individuals_per_chunk=5000), "environment": large}
    with pytest.raises(ConfigError, match="too much"):
        check_experiment(parse_experiment(many))


# --- runs ----------------------------------------------------------------------------------------------------------


def test_a_run_from_training_to_an_exported_agent(tmp_path: Path) -> None:
    run = small_run(tmp_path)
    shown = quiet()
    train(run, progress=shown)
    assert isinstance(shown.stream, io.StringIO)
    assert "6/6 generations" in shown.stream.getvalue()
    steps = 6 * 6 * 2 * 10
    assert run.latest() == run.checkpoints / str(steps)

    with run.metrics.open() as file:
        rows = list(csv.DictReader(file))
    logged = [row for row in rows if row["fitness/mean"]]
    assert len(logged) == 6
    for name in ("fitness/mean", "fitness/best", "search/sigma", "search/axis_ratio", "search/diversity"):
        assert all(np.isfinite(float(row[name])) for row in logged), name
    valid = [float(row["valid/score"]) for row in rows if row["valid/score"]]
    assert len(valid) == 3

    evaluation = score_run(run, plugins=[])
    assert "sampled" in evaluation.table(rich=False)
    trained = find_agent(run.path)
    best = max(range(3), key=lambda index: (valid[index], index))
    assert checkpoint_line(trained) == f"checkpoint {2 * best + 2} of 6 generations (best on valid)"
    with pytest.raises(FinishedError, match=r"is finished \(6 generations\)"):
        check_unfinished(run, run.config())

    exported = export_agent(run, tmp_path / "agents" / "evolved")
    assert "- Training: `cma_es`, 6 generations, seed 0" in (exported.folder / "README.md").read_text()
    agent, own = load_agent(exported.folder), load_agent(run.path)
    assert not read_checkpoint(exported.folder / "checkpoint").tensors["optimizer"]
    observations = np.random.default_rng(0).random((4, 5), dtype=np.float32)
    assert np.array_equal(
        agent.predict(observations, deterministic=True)[0], own.predict(observations, deterministic=True)[0]
    )


def test_the_best_on_valid_is_a_mean_of_the_distribution(tmp_path: Path) -> None:
    run = small_run(tmp_path)
    train(run, progress=quiet())
    agent = CMAES.load(run.chosen())
    mean = agent.genome.parameters(agent.search.mean)
    assert all(bool((value == mean[name]).all()) for name, value in agent.policy.named_parameters() if name in mean)


@pytest.mark.parametrize(("begun_with", "ended_with"), [("serial", "process"), ("process", "serial")])
def test_a_run_may_go_on_with_another_engine(tmp_path: Path, begun_with: str, ended_with: str) -> None:
    def settings(engine: str) -> dict[str, Any]:
        return with_algorithm(individuals_per_chunk=2, engine={"name": engine, "workers": 2})

    whole, pieces = (
        small_run(tmp_path / "whole", settings("serial")),
        small_run(tmp_path / "pieces", settings(begun_with)),
    )
    train(whole, progress=quiet())
    with pytest.raises(TrainingInterrupted):
        train(pieces, progress=Pressing(3))
    assert pieces.latest() == pieces.checkpoints / str(3 * 6 * 2 * 10)
    (pieces.path / "config.yaml").write_text(parse_experiment(settings(ended_with)).to_yaml())
    assert train(pieces, progress=quiet()).iterations == 6
    assert pieces.metrics.read_bytes() == whole.metrics.read_bytes()
    last = str(6 * 6 * 2 * 10)
    for part in ("params.safetensors", "optimizer.safetensors", "rng.json", "algorithm.json"):
        mine, undisturbed = (run.checkpoints / last / part for run in (pieces, whole))
        assert mine.read_bytes() == undisturbed.read_bytes(), part


def test_a_run_may_not_go_on_with_other_settings(tmp_path: Path) -> None:
    run = small_run(tmp_path)
    with pytest.raises(TrainingInterrupted):
        train(run, progress=Pressing(2))
    config = run.path / "config.yaml"
    config.write_text(config.read_text().replace("generations: 6", "generations: 7").replace("serial", "process"))
    with pytest.raises(CheckpointError, match="generations: 6 became 7") as refusal:
        train(run, progress=quiet())
    assert "engine" not in str(refusal.value)


def test_plugins_are_imported_in_worker_processes(tmp_path: Path) -> None:
    load_plugin(str(EXAMPLE))
    example = {"id": "examples/PatchLeaving-v0", "kwargs": {}}
    runs = []
    for name in ("serial", "process"):
        settings = with_algorithm(
            engine={"name": name, "workers": 2}, generations=1, individuals_per_chunk=2, population_size=4
        )
        run = small_run(tmp_path / name, {**settings, "environment": example, "plugins": [str(EXAMPLE)]})
        train(run, progress=quiet())
        runs.append(run)
    one, two = (run.metrics.read_bytes() for run in runs)
    assert one == two
