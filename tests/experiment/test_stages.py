"""Stages: one network through several environments, stopped and resumed anywhere, scored on all of them after each."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import plastic_rl.experiment.scoring as scoring
from plastic_rl.algorithms.saved_policy import load_policy
from plastic_rl.checkpoint import read_checkpoint, saved_steps
from plastic_rl.cli.app import main
from plastic_rl.config import parse
from plastic_rl.errors import ConfigError, TrainingInterrupted, UnknownNameError
from plastic_rl.evaluation import Evaluation, evaluate, plot_learning_curves
from plastic_rl.evaluation.stage_scores import StageScores
from plastic_rl.experiment import (
    RunFolder,
    check_experiment,
    create_runs,
    draw_curves,
    export_agent,
    find_agent,
    make_algorithm,
    parse_experiment,
    train,
)
from plastic_rl.experiment.stages import score_stages
from plastic_rl.experiment.training import valid_score
from tests.experiment.watching import Pressing, quiet

ROOT = Path(__file__).parents[2]
BANDIT = {"id": "plastic_rl/ReversalBandit-v0", "kwargs": {"steps": 10}}
OTHER = {"kwargs": {"hazard": 0.9}}
STAGES: list[dict[str, Any]] = [
    {"name": "A", "budget": 400},
    {"name": "B", "budget": 240, "environment": OTHER},
    {"name": "A again", "budget": 160, "reset_optimizer": True},
]
A2C: dict[str, Any] = {
    "environment": BANDIT,
    "network": {"kind": "gru", "hidden_size": 5},
    # Rollouts of 6 steps in lifetimes of 10: stages end in the middle of lifetimes.
    "algorithm": {
        "name": "a2c",
        "n_envs": 4,
        "n_steps": 6,
        "learning_rate": {"start": 0.02, "end": 0},
        "center_rewards": True,
        "regulariser": {"name": "ewc", "strength": 10.0, "samples": 6},
    },
    "stages": STAGES,
    "evaluation": {"valid_tasks": 10, "tasks": 20},
    "checkpoint": {"interval": 3, "keep": 1000},
    "logging": {"tensorboard": False},
}
FREE: dict[str, Any] = {**A2C, "algorithm": {**A2C["algorithm"], "regulariser": "none"}}
TAUGHT: dict[str, Any] = {
    **A2C,
    "environment": {"id": "plastic_rl/SupervisedClassification-v0", "kwargs": {"data": "D", "steps": 12}},
    "network": {"kind": "rule_table", "hidden_size": 6, "cap": 3, "rounds": 0, "output_table": "supervised"},
    "algorithm": {
        "name": "supervised_gradient",
        "n_envs": 4,
        "n_steps": 5,
        "regulariser": {"name": "synaptic_intelligence", "strength": 3.0},
    },
    "stages": [
        {"name": "A", "budget": 400},
        {"name": "B", "budget": 200, "environment": {"kwargs": {"data": "D1"}}},
        {"name": "C", "budget": 160, "environment": {"kwargs": {"data": "D8c"}}},
    ],
}
EVOLVED: dict[str, Any] = {
    **A2C,
    "algorithm": {"name": "cma_es", "population_size": 4, "lifetimes": 2},
    "stages": [
        {"name": "A", "budget": 5},
        {"name": "B", "budget": 4, "environment": OTHER},
        {"name": "A again", "budget": 4, "reset_optimizer": True},
    ],
}
CONFIGS = {"a2c": A2C, "supervised_gradient": TAUGHT, "cma_es": EVOLVED}


def run_of(folder: Path, name: str, mapping: dict[str, Any]) -> RunFolder:
    [run] = create_runs(folder, name, {"": parse_experiment(mapping)})
    return run


@pytest.fixture(scope="module", params=sorted(CONFIGS))
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    run = run_of(tmp_path_factory.mktemp("whole"), "whole", CONFIGS[request.param])
    train(run, progress=quiet())
    return run


def bytes_of(run: RunFolder) -> dict[str, bytes]:
    """Everything that a run computed."""
    files = [run.metrics, *run.checkpoints.glob("*/*")]
    return {str(file.relative_to(run.path)): file.read_bytes() for file in files}


def rows_of(run: RunFolder) -> list[dict[str, str]]:
    with run.metrics.open(newline="") as file:
        return list(csv.DictReader(file))


def ends_of(run: RunFolder) -> list[int]:
    newest = run.latest()
    assert newest is not None
    return list(read_checkpoint(newest).documents["run"]["stage_ends"])


# --- training --------------------------------------------------------------------------------------------------------


def test_a_run_that_goes_on_from_any_checkpoint_gives_the_same_bytes(whole: RunFolder, tmp_path: Path) -> None:
    steps, ends = saved_steps(whole.checkpoints), ends_of(whole)
    assert len(ends) == 3
    assert set(ends) < set(steps)
    wanted = bytes_of(whole)
    # In mid-stage, at both boundaries and beside them.
    for at in sorted({steps[0], *(steps[steps.index(end) + shift] for end in ends[:2] for shift in (-1, 0, 1))}):
        shutil.copytree(whole.path, tmp_path / str(at))
        again = RunFolder(tmp_path / str(at))
        for step in steps[steps.index(at) + 1 :]:
            shutil.rmtree(again.checkpoints / str(step))
        train(again, progress=quiet())
        assert bytes_of(again) == wanted, at


def test_ctrl_c_in_the_last_update_of_a_stage_stops_and_goes_on_with_the_next(whole: RunFolder, tmp_path: Path) -> None:
    config = whole.config()
    at = config.ends[0] if config.unit == "generations" else ends_of(whole)[0]
    run = run_of(tmp_path, "stopped", config.to_mapping())
    with pytest.raises(TrainingInterrupted):
        train(run, progress=Pressing(at))
    assert run.latest() == run.checkpoints / str(ends_of(whole)[0])
    train(run, progress=quiet())
    assert bytes_of(run) == bytes_of(whole)


def test_metrics_name_the_stage(whole: RunFolder) -> None:
    rows, names = rows_of(whole), [stage.name for stage in whole.config().stages]
    before = 0
    for name, end in zip(names, ends_of(whole), strict=True):
        assert {row["stage"] for row in rows if before < int(row["step"]) <= end} == {name}
        before = end
    assert before == max(int(row["step"]) for row in rows)


def test_curves_mark_the_stages_and_have_no_levels_of_one_of_them(
    whole: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: dict[str, Any] = {}

    def drawn(groups: Any, path: Path, **options: Any) -> Path:
        told.update(options)
        return plot_learning_curves(groups, path, **options)

    monkeypatch.setattr(scoring, "plot_learning_curves", drawn)
    evaluation = Evaluation.load(ROOT / "agents" / "default" / "evaluation.json")
    assert draw_curves([whole], tmp_path / "curves.png", evaluation=evaluation).stat().st_size > 0
    names = [stage.name for stage in whole.config().stages]
    assert (told["levels"], told["stages"]) == (None, dict(zip(names, ends_of(whole), strict=True)))


def test_the_best_checkpoint_is_one_of_the_last_stage(whole: RunFolder) -> None:
    last = whole.config().stages[-1].name
    scores = {int(row["step"]): float(row["valid/score"]) for row in rows_of(whole) if row["valid/score"]}
    own = {int(row["step"]) for row in rows_of(whole) if row["stage"] == last and row["valid/score"]}
    best = max(own, key=lambda step: (scores[step], step))
    assert whole.chosen() == whole.checkpoints / str(best)
    assert set(own) < set(scores)


def test_scores_on_valid_are_those_of_the_stage(whole: RunFolder) -> None:
    config = whole.config()
    scores = {int(row["step"]): float(row["valid/score"]) for row in rows_of(whole) if row["valid/score"]}
    for number, end in enumerate(ends_of(whole)):
        policy = load_policy(read_checkpoint(whole.checkpoints / str(end)))
        assert scores[end] == pytest.approx(valid_score(policy, config.in_stage(number)), abs=1e-9)


def test_stage_ends_outlive_the_newest_checkpoints(tmp_path: Path) -> None:
    run = run_of(tmp_path, "few", {**A2C, "checkpoint": {"interval": 1, "keep": 2}})
    train(run, progress=quiet())
    steps, ends = saved_steps(run.checkpoints), ends_of(run)
    assert ends == [408, 648, 816]
    assert set(ends) <= set(steps)
    assert len(steps) <= 5


def test_each_stage_is_lived_in_its_environment_on_tasks_of_its_own(whole: RunFolder) -> None:
    config = whole.config()
    for number, end in enumerate(ends_of(whole)):
        checkpoint = read_checkpoint(whole.checkpoints / str(end))
        assert checkpoint.config["arguments"]["env_kwargs"] == config.in_stage(number).environment.kwargs
        assert checkpoint.config["arguments"]["task_offset"] == number * (10**9 // 3)
    algorithms = [make_algorithm(config, stage=stage) for stage in range(3)]
    if config.unit == "steps":
        for algorithm in algorithms:
            assert algorithm.env is not None
            algorithm.env.reset()
        tasks = [{task.index for task in algorithm.env.env.tasks} for algorithm in algorithms]  # type: ignore[union-attr]
        assert [min(one) for one in tasks] == [0, 333333333, 666666666]


def test_the_network_and_the_optimizer_are_carried_on_unless_told_otherwise(tmp_path: Path) -> None:
    """Adam's count of updates goes on through B, and begins anew in the last stage; parameters never do."""
    run = run_of(tmp_path, "counted", {**A2C, "checkpoint": {"interval": 1, "keep": 1000}})
    train(run, progress=quiet())
    first, second, last = ends_of(run)
    steps = saved_steps(run.checkpoints)

    def read(step: int, part: str, name: str) -> torch.Tensor:
        return read_checkpoint(run.checkpoints / str(step)).tensors[part][name]

    def updates(step: int) -> float:
        return read(step, "optimizer", "step/action_head.bias").item()

    assert [updates(end) for end in (first, second, last)] == [408 / 24, 648 / 24, (816 - 648) / 24]
    after = steps[steps.index(second) + 1]
    assert updates(after) == 1
    moved = read(after, "params", "action_head.weight") - read(second, "params", "action_head.weight")
    # Adam's first step is the learning rate's at most; a network drawn anew would be further away.
    assert 0 < moved.abs().max() <= 0.02 + 1e-6


@pytest.mark.parametrize("reset", [False, True])
def test_masks_and_utilities_go_on_in_the_next_stage_and_after_a_stop(reset: bool, tmp_path: Path) -> None:
    algorithm = {
        **A2C["algorithm"],
        "regulariser": {"name": "synaptic_intelligence", "strength": 3.0},
        "sparsity": {"density": 0.5, "interval": 2, "share": 0.5, "until": 1.0},
        "unit_turnover": {"rate": 0.1, "maturity": 2},
        "activity_cost": {"start": 0.1, "end": 0},
    }
    stages = [STAGES[0], {**STAGES[1], "reset_optimizer": reset}]
    mapping = {**A2C, "algorithm": algorithm, "stages": stages, "checkpoint": {"interval": 1, "keep": 1000}}
    run = run_of(tmp_path, "whole", mapping)
    train(run, progress=quiet())
    wanted, steps, ends = bytes_of(run), saved_steps(run.checkpoints), ends_of(run)
    for at in (ends[0], steps[steps.index(ends[0]) + 2]):
        again = RunFolder(shutil.copytree(run.path, tmp_path / str(at)))
        for step in steps[steps.index(at) + 1 :]:
            shutil.rmtree(again.checkpoints / str(step))
        train(again, progress=quiet())
        assert bytes_of(again) == wanted, at
    found = [read_checkpoint(run.checkpoints / str(step)) for step in steps]
    documents = [one.documents["algorithm"] for one in found]
    assert [one["sparsity"]["updates"] for one in documents] == list(range(1, len(steps) + 1))
    counts = [(one["sparsity"]["exchanges"], one["unit_turnover"]["count"]) for one in documents]
    assert counts == sorted(counts)
    assert counts[-1] > counts[steps.index(ends[0])] > (0, 0)
    for one, document in zip(found, documents, strict=True):
        for name, mask in document["sparsity"]["masks"].items():
            assert not one.tensors["params"][name][~torch.from_numpy(mask)].any()
    # Up to its end each stage exchanges by its own schedule.
    exchanged = np.diff([count for count, _ in counts], prepend=0)
    first = steps.index(ends[0])
    assert exchanged[1] > exchanged[first - 1 - first % 2]
    assert exchanged[first + 1 :].max() > exchanged[first - 1 - first % 2]


def test_schedules_run_from_start_to_end_in_each_stage(tmp_path: Path) -> None:
    run = run_of(tmp_path, "scheduled", A2C)
    train(run, progress=quiet())
    rates = {int(row["step"]): float(row["train/learning_rate"]) for row in rows_of(run) if row["train/learning_rate"]}
    for step, rate in rates.items():
        first, last = next(span for span in ((0, 400), (400, 640), (640, 800)) if step <= span[1] + 8 + 8)
        assert rate == pytest.approx(0.02 * (1 - (step - first) / (last - first)), abs=1e-12)


def test_one_stage_trains_as_no_stages_do(tmp_path: Path) -> None:
    plain = {**FREE, "algorithm": {**FREE["algorithm"], "total_timesteps": 400}, "stages": []}
    runs = [
        run_of(tmp_path, name, mapping)
        for name, mapping in (("plain", plain), ("staged", {**FREE, "stages": [{"name": "A", "budget": 400}]}))
    ]
    for run in runs:
        train(run, progress=quiet())
    one, other = (read_checkpoint(run.checkpoints / "408") for run in runs)
    assert "stage_ends" not in one.documents["run"]
    assert "stage" not in rows_of(runs[0])[0]
    for part in ("params", "optimizer", "state"):
        assert one.tensors[part].keys() == other.tensors[part].keys()
        assert all(torch.equal(own, other.tensors[part][name]) for name, own in one.tensors[part].items())
    assert [{**row, "stage": "A"} for row in rows_of(runs[0])] == rows_of(runs[1])


def test_evolution_begins_a_new_search_where_it_is_told_to(tmp_path: Path) -> None:
    run = run_of(tmp_path, "evolved", {**EVOLVED, "checkpoint": {"interval": 1, "keep": 1000}})
    train(run, progress=quiet())
    found = [read_checkpoint(run.checkpoints / str(end)).documents["algorithm"] for end in ends_of(run)]
    assert [one["iterations"] for one in found] == [5, 9, 13]
    assert [one["generations_begun"] for one in found] == [5, 9, 13]  # so that tasks are fresh
    assert [one["search"]["generation"] for one in found] == [5, 9, 4]


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"stages": [{"name": "A", "budget": 10}, {"name": "A", "budget": 10}]},
            "stages: each needs a name of its own, got A, A",
        ),
        ({"stages": [{"name": "A", "budget": 0}]}, r"stages\.0\.budget: must be greater than or equal to 1, got 0"),
        ({"stages": [{"name": "A", "budgett": 10}]}, r"stages\.0\.budgett: unknown key. Did you mean 'budget'\?"),
        (
            {"stages": [{"name": "A", "budget": 10, "environment": {"kwarg": {}}}]},
            r"stages\.0\.environment\.kwarg: unknown key. Did you mean 'kwargs'\?",
        ),
        (
            {"algorithm": {"name": "a2c", "total_timesteps": 500}},
            r"algorithm\.total_timesteps is 500, and the budgets of the stages are 800 together",
        ),
        (
            {
                "algorithm": None,
                "candidates": {"grid": {"hidden_size": [3]}},
                "checkpoint": {"interval": 1},
            },
            "candidates are not trained, so they have no stages",
        ),
        (
            {"stages": [], "algorithm": {**A2C["algorithm"], "total_timesteps": 100}},
            "ewc holds what earlier stages have taught, and does nothing without two or more; got 0",
        ),
        ({"stages": STAGES[:1]}, "ewc holds what earlier stages have taught.*got 1"),
    ],
)
def test_configs_that_make_no_sense_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_experiment({**A2C, **changes})


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        (
            {"id": "plastic_rl/CueAssociation-v0"},
            r"stage B: observations are \(26,\) float32, and in the experiment's own environment \(5,\) float32",
        ),
        ({"id": "plastic_rl/BernoulliBandit-v0", "kwargs": {"arms": 3}}, r"stage B: actions are Discrete\(3\), and in"),
        (
            {"id": "plastic_rl/CueAssociation-v0"},
            r"stage B: feedback are \{'action': \(21, 23\), .* environment \{'action",
        ),
    ],
)
def test_stages_that_one_network_cannot_go_through_are_refused(environment: dict[str, Any], message: str) -> None:
    stages = [STAGES[0], {"name": "B", "budget": 240, "environment": environment}]
    with pytest.raises(ConfigError, match=message) as caught:
        check_experiment(parse_experiment({**A2C, "stages": stages}))
    assert "must be the same in all" in str(caught.value)


def test_features_may_have_other_bounds(tmp_path: Path) -> None:
    gain = {"wrappers": [{"name": "observation_gain", "factor": 8.0}]}
    cues = {
        **A2C,
        "environment": {"id": "plastic_rl/CueAssociation-v0", "kwargs": {"trials": 3}},
        "stages": [{"name": "A", "budget": 48}, {"name": "gain", "budget": 48, "environment": gain}],
    }
    check_experiment(parse_experiment(cues))
    run = run_of(tmp_path, "gain", cues)
    train(run, progress=quiet())
    assert score_stages(run, tasks=4).tested[1].wrappers[0]["factor"] == 8.0


def test_a_stage_that_rollouts_would_skip_is_refused() -> None:
    stages = [{"name": "A", "budget": 30}, {"name": "B", "budget": 10}]
    with pytest.raises(ConfigError, match=r"stage B would be over before it begins: .* end at 48 steps, and it at 40"):
        check_experiment(parse_experiment({**A2C, "stages": stages}))


def test_a_split_that_a_stage_lacks_is_refused() -> None:
    stages = [STAGES[0], {"name": "B", "budget": 240, "environment": {"id": "plastic_rl/BernoulliBandit-v0"}}]
    with pytest.raises((ConfigError, UnknownNameError)):
        check_experiment(parse_experiment({**A2C, "stages": stages, "evaluation": {"splits": ["nowhere"]}}))


# --- scores ----------------------------------------------------------------------------------------------------------


def test_the_matrix_holds_what_each_agent_does_in_each_environment(whole: RunFolder) -> None:
    config = whole.config()
    found = score_stages(whole, tasks=12)
    environments = [config.in_stage(number).environment for number in range(3)]
    again = environments[2] == environments[0]
    assert [one.name for one in found.tested] == (["A", "B"] if again else ["A", "B", "C"])
    assert found.column == ((0, 1, 0) if again else (0, 1, 2))
    assert np.shape(found.scores) == (4, len(found.tested))
    agent = find_agent(whole.path)

    policy = load_policy(read_checkpoint(whole.checkpoints / str(ends_of(whole)[1])))
    options = agent.config.in_stage(1).environment.options
    alone = evaluate(policy, environments[1].id, tasks=12, **options, references=False, greedy=False, frozen=False)
    assert found.scores[2][1] == alone.splits["test"].raw_score
    untrained = make_algorithm(config).policy
    first = evaluate(untrained, environments[0].id, tasks=12, **environments[0].options, greedy=False, frozen=False)
    assert found.scores[0][0] == first.splits["test"].raw_score
    assert found.tested[0].random == first.splits["test"].reference_agents["random"].raw_score
    assert found.tested[0].limit == first.splits["test"].reference_agents[first.splits["test"].limit_kind].raw_score


def test_train_evaluate_and_export_tell_of_the_stages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "staged.yaml").write_text(parse_experiment(A2C).to_yaml())
    runs = ["--runs-folder", str(tmp_path / "runs")]
    assert main(["train", str(tmp_path / "staged.yaml"), "--seeds", "0,1", *runs]) == 0
    said = capsys.readouterr()
    assert "stage 2 of 3: B" in said.err
    assert "after 3 A again" in said.out
    assert "backward transfer" in said.out
    folder = tmp_path / "runs" / "staged"
    run = RunFolder(folder / "seed-0")
    scores = StageScores.load(run.stages)
    assert run.stages_picture.exists()
    both = StageScores.load(folder / "stages.json")
    other = StageScores.load(folder / "seed-1" / "stages.json")
    assert both.seeds == 2
    assert both.scores[1][0] == pytest.approx((scores.scores[1][0] + other.scores[1][0]) / 2)
    assert both.backward_transfer == pytest.approx(np.mean([scores.backward_transfer, other.backward_transfer]))
    before = run.stages.read_bytes()
    run.stages.unlink()
    assert main(["evaluate", str(run.path), "--stages"]) == 0
    assert run.stages.read_bytes() == before
    said = capsys.readouterr()
    assert max(map(len, said.out.splitlines())) <= 80
    output = tmp_path / "elsewhere.json"
    words = ["--stages", "--split", "valid", "--tasks", "5", "--output", str(output)]
    assert main(["evaluate", str(run.path), *words]) == 0
    assert (json.loads(output.read_text())["split"], run.stages.read_bytes()) == ("valid", before)
    agent = export_agent(run, tmp_path / "agent")
    card = (agent.folder / "README.md").read_text()
    assert "in the stages A (400), B (240), A again (160)" in card
    assert "after 3 A again" in card
    assert "![stages](stages.png)" in card
    assert (agent.folder / "stages.json").read_bytes() == before
    capsys.readouterr()
    assert main(["evaluate", str(agent.folder), "--tasks", "5"]) == 0
    assert Evaluation.load(agent.folder / "evaluation.json").env_kwargs == {"steps": 10}
    for words, message in (
        ([str(agent.folder), "--stages"], "is an exported agent, without the checkpoints at which its stages ended"),
        ([str(run.path), "--stages", "--trials", "2"], "--stages goes with one --split, --tasks and --output alone"),
        ([str(run.path), "--stages", "--carry-over"], "--stages goes with one --split, --tasks and --output alone"),
    ):
        assert main(["evaluate", *words]) == 2
        assert message in capsys.readouterr().err


def test_the_matrix_of_an_unfinished_run_or_one_without_stages_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_of(tmp_path, "stopped", A2C)
    with pytest.raises(TrainingInterrupted):
        train(run, progress=Pressing(408 + 24))
    assert main(["evaluate", str(run.path), "--stages"]) == 2
    assert f"{run.path} has gone through 1 of its 3 stages. Go on with: plastic-rl resume" in capsys.readouterr().err
    plain = {**FREE, "algorithm": {**FREE["algorithm"], "total_timesteps": 48}, "stages": []}
    alone = run_of(tmp_path, "plain", plain)
    train(alone, progress=quiet())
    assert main(["evaluate", str(alone.path), "--stages"]) == 2
    assert "was trained in one environment, without stages" in capsys.readouterr().err


def test_the_echo_of_a_config_with_stages_resolves_to_itself() -> None:
    config = parse_experiment(A2C)
    assert parse_experiment(parse(config.to_yaml())) == config
    assert (config.total, config.ends) == (800, (400, 640, 800))
    assert [config.stage_at(done) for done in (0, 399, 400, 648, 800, 816)] == [0, 0, 1, 2, 2, 2]
    assert config.in_stage(1).environment.kwargs == {"steps": 10, "hazard": 0.9}
