"""Rules carried over to other sizes, baselines, and accuracies pooled over seeds: through the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from plastic_rl.cli.app import main
from plastic_rl.evaluation import Evaluation, crossed_interval
from plastic_rl.experiment import find_agent
from plastic_rl.experiment.config import EnvironmentConfig
from plastic_rl.experiment.scoring import carry_over

HAND_WRITTEN = """
environment: {id: plastic_rl/Classification-v0, kwargs: {data: D, steps: 60}}
network: {kind: rule_table, hidden_size: 30, cap: 10, tables: label_free_hebb, selection: argmax}
candidates: {grid: {step.output: [0.1, 0.0]}}
checkpoint: {interval: 1}
evaluation: {valid_tasks: 4, tasks: 5}
logging: {tensorboard: false}
"""
EVOLVED = """
environment: {id: plastic_rl/Classification-v0, kwargs: {data: D, steps: 60}}
network: {kind: rule_table, hidden_size: 30, cap: 10, selection: argmax}
algorithm: {name: cma_es, generations: 2, population_size: 6, lifetimes: 2}
checkpoint: {interval: 2}
evaluation: {valid_tasks: 4, tasks: 5, baselines: [runs/hand_written]}
logging: {tensorboard: false}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("carrying")
    (folder / "hand_written.yaml").write_text(HAND_WRITTEN)
    (folder / "evolved.yaml").write_text(EVOLVED)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["train", "hand_written.yaml"]) == 0
        assert main(["train", "evolved.yaml", "--seeds", "0,1"]) == 0
    return folder


def test_a_grid_keeps_the_setting_that_learns(place: Path) -> None:
    network = find_agent(place / "runs" / "hand_written").load().network
    assert network.config.step.output == 0.1  # type: ignore[union-attr]
    score = Evaluation.load(place / "runs" / "hand_written" / "evaluation.json").splits["test"]
    assert score.accuracy_after[-1].accuracy > 0.6


def test_an_evaluation_is_not_replaced_by_one_without_the_baselines(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run = place / "runs" / "evolved" / "seed-0"
    before = (run / "evaluation.json").read_bytes()
    assert main(["evaluate", str(run)]) == 2
    assert "no such run or agent: runs/hand_written" in capsys.readouterr().err
    assert (run / "evaluation.json").read_bytes() == before


def test_a_baseline_lives_the_same_tasks_and_seeds_are_pooled(place: Path) -> None:
    alone = Evaluation.load(place / "runs" / "hand_written" / "evaluation.json").splits["test"]
    runs = [Evaluation.load(place / "runs" / "evolved" / f"seed-{seed}" / "evaluation.json") for seed in (0, 1)]
    own = np.array([run.splits["test"].accuracy_after[0].by_task for run in runs])
    baselines = [run.splits["test"].reference_agents["hand_written"].accuracy_after[0] for run in runs]
    # The same agent on the same tasks in the same order of samples: only its own ties are broken otherwise.
    assert baselines[0].by_task == baselines[1].by_task
    assert abs(baselines[0].accuracy - alone.accuracy_after[0].accuracy) < 0.1
    table = (place / "runs" / "evolved" / "seeds.txt").read_text()
    assert f"accuracy after 60 samples: {own.mean():.3f}" in table
    assert "(2 seeds x 5 tasks)" in table
    mean, low, high = crossed_interval(own - np.array([each.by_task for each in baselines]))
    assert f"minus {'hand_written':<28} {baselines[0].accuracy:.3f}: {mean:+.3f} [{low:+.3f}, {high:+.3f}]" in table


def test_rules_act_in_a_network_for_another_data_set(place: Path) -> None:
    trained = find_agent(place / "runs" / "evolved" / "seed-0")
    environment = EnvironmentConfig(id="plastic_rl/Classification-v0", kwargs={"data": "digits", "steps": 60})
    policy = carry_over(trained, environment, {"hidden_size": 50})
    assert policy.network.output_size == 10
    assert policy.network.state_entries()["input_weight"].shape == (50, 64)
    given = trained.load().parameters_by_name()
    own = policy.parameters_by_name()
    for name in policy.acting_parameters():
        assert own[name].equal(given[name])


def test_carrying_over_on_the_command_line(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    digits = ["evaluate", "runs/evolved/seed-0", "--tasks", "3", "--env-kwargs", "data=digits"]
    assert main([*digits, "--network", "hidden_size=20", "--output", "digits.json"]) == 0
    scores = Evaluation.load(place / "digits.json").splits["test"]
    assert 0 <= scores.raw_score <= 60
    assert "hand_written" in scores.reference_agents
    capsys.readouterr()
    assert main(digits) == 2
    assert "does not fit" in capsys.readouterr().err
    assert main([*digits, "--network", "rounds=1"]) == 2
    message = capsys.readouterr().err
    assert "network.output_table has shape (2, 4), and would need (4, 4)" in message


def test_crossed_interval_covers_seeds_and_tasks() -> None:
    generator = np.random.default_rng(0)
    seeds, tasks = generator.normal(size=(40, 1)), generator.normal(size=(1, 60))
    mean, low, high = crossed_interval(seeds + tasks, resamples=4000)
    # The variance of the mean is 1/40 + 1/60 for unit variances of both.
    expected = 2 * 1.96 * (seeds.var() / 40 + tasks.var() / 60) ** 0.5
    assert mean == pytest.approx((seeds + tasks).mean())
    assert high - low == pytest.approx(expected, rel=0.1)
