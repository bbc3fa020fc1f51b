"""Experiments as Python functions: configs, folders, choice of checkpoint, foreign environments, recorded series."""

from __future__ import annotations

import io
import multiprocessing
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import BaseModel
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from plastic_rl.algorithms.base import ALGORITHMS, algorithm_model
from plastic_rl.checkpoint import read_checkpoint, saved_steps, write_checkpoint
from plastic_rl.config import parse, read_mapping
from plastic_rl.config.loading import models_in
from plastic_rl.envs import load_plugin
from plastic_rl.errors import (
    AmbiguousNameError,
    CheckpointError,
    ConfigError,
    FinishedError,
    RunError,
    TrainingInterrupted,
)
from plastic_rl.evaluation import Evaluation
from plastic_rl.experiment import (
    ExperimentConfig,
    RunFolder,
    check_experiment,
    create_runs,
    draw_curves,
    find_run,
    find_runs,
    load_comparison,
    load_experiment,
    parse_experiment,
    scoring,
    train,
)
from plastic_rl.experiment.__main__ import main as run_recorded
from plastic_rl.experiment.agents import acting_part, agent_names, card, find_agent
from plastic_rl.experiment.config import is_comparison
from plastic_rl.experiment.folder import locate
from plastic_rl.experiment.metrics import TensorBoardWriter
from plastic_rl.experiment.progress import PlainProgress
from plastic_rl.experiment.training import RunWriter, SpokenLog, check_unfinished, make_algorithm, valid_score
from tests.experiment.watching import Pressing, quiet

ROOT = Path(__file__).parents[2]
SMALL: dict[str, Any] = {
    "environment": {"id": "plastic_rl/ReversalBandit-v0", "kwargs": {"steps": 10}},
    "network": {"kind": "gru", "hidden_size": 5},
    "algorithm": {"name": "a2c", "total_timesteps": 400, "n_envs": 4},
    "evaluation": {"valid_tasks": 10, "tasks": 10},
    "checkpoint": {"interval": 2},
    "logging": {"tensorboard": False},
}


def small_run(folder: Path, **changes: Any) -> RunFolder:
    [run] = create_runs(folder, "small", {"": parse_experiment({**SMALL, **changes})})
    return run


def test_the_resolved_config_resolves_to_itself() -> None:
    config = parse_experiment(SMALL)
    assert parse_experiment(parse(config.to_yaml())) == config
    assert config.network["hidden_size"] == 5


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.name)
def test_every_config_of_the_repository_is_valid_and_fits_its_environment(path: Path) -> None:
    if is_comparison(read_mapping(path)):
        comparison = load_comparison(path)
        assert comparison.config.description
        configs = list(comparison.experiments.values())
    else:
        configs = [load_experiment(path)]
        assert configs[0].description
    for config in configs:
        for plugin in config.plugins:
            load_plugin(str(ROOT / plugin))
        check_experiment(config)


def test_every_field_has_help() -> None:
    def undocumented(model: type[BaseModel]) -> list[str]:
        return [f"{model.__name__}.{name}" for name, field in model.model_fields.items() if not field.description]

    found: list[type[BaseModel]] = [ExperimentConfig, *map(algorithm_model, ALGORITHMS)]
    for model in found:  # which grows meanwhile
        found += [inner for field in model.model_fields.values() for inner in models_in(field.annotation)]
    names = {model.__name__ for model in found}
    assert names >= {
        "EnvironmentConfig",
        "PlasticA2CConfig",
        "CMAESConfig",
        "GeneGroup",
        "EngineConfig",
        "LoggingConfig",
    }
    assert [name for model in found for name in undocumented(model)] == []


def test_problems_of_network_and_experiment_come_together() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_experiment({**SMALL, "network": {"kind": "gru", "hidden": 3}, "seed": -1}, "mine.yaml")
    lines = str(caught.value).splitlines()
    assert lines[0] == "2 problems in mine.yaml:"
    assert lines[1] == "  seed: must be greater than or equal to 0, got -1."
    assert lines[2].startswith("  network.hidden: unknown key. Did you mean 'hidden_size'?")


def test_folders_are_made_whole_and_never_overwritten(tmp_path: Path) -> None:
    run = small_run(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["small"]
    assert run.config() == parse_experiment(SMALL)
    with pytest.raises(RunError, match="exists already"):
        small_run(tmp_path)
    for name in ("", "..", "a/../b", ".hidden", "a b"):
        with pytest.raises(RunError, match="is no good as the name of a run"):
            create_runs(tmp_path, name, {"": parse_experiment(SMALL)})


def test_a_lost_race_and_killed_processes_leave_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stale, fresh = tmp_path / ".unfinished-old-1", tmp_path / ".unfinished-new-1"
    for folder in (stale, fresh):
        folder.mkdir()
    os.utime(stale, (0, 0))

    def lose(self: Path, target: Path) -> Path:
        (target / "theirs").mkdir(parents=True)
        os.rename(self, target)
        return target

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", lose)
        with pytest.raises(RunError, match="cannot make the run folder"):
            small_run(tmp_path)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [".unfinished-new-1", "small"]


def test_runs_are_found_by_path_by_name_and_by_group(tmp_path: Path) -> None:
    config = parse_experiment(SMALL)
    create_runs(tmp_path, "pair", {"seed-10": config, "seed-2": config})
    run = small_run(tmp_path)
    assert find_run(run.path).path == run.path
    assert find_run("small", tmp_path).path == run.path
    assert [found.path.name for found in find_runs("pair", tmp_path)] == ["seed-2", "seed-10"]
    with pytest.raises(RunError, match=r"holds several runs. Name one of them: .*seed-2, .*seed-10"):
        find_run("pair", tmp_path)
    with pytest.raises(RunError, match=r"no such run: smoll. Did you mean '.*small'\? In .*: pair, small."):
        find_run("smoll", tmp_path)


def test_a_path_means_itself_and_a_bare_name_one_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = parse_experiment(SMALL)
    for folder in ("runs", "agents", "."):
        create_runs(Path(folder), "both", {"": config})
    create_runs(Path("runs"), "pair", {"seed-0": config, "seed-1": config})
    create_runs(Path("runs"), "alone", {"": config})
    create_runs(Path("agents"), "pair", {"": config})
    for path in ("runs/both", "agents/both", "./both", "both/"):
        assert locate(path, "runs", "agents") == Path(path)
    assert locate(Path("both"), "runs", "agents") == Path("both")
    assert locate("alone", "runs", "agents") == Path("runs/alone")
    assert locate("pair/seed-1", "runs", "agents") == Path("runs/pair/seed-1")
    assert locate("pair", "runs") == Path("runs/pair")
    with pytest.raises(AmbiguousNameError, match=r"^'pair' can mean several folders. Write runs/pair or agents/pair.$"):
        locate("pair", "runs", "agents")
    with pytest.raises(AmbiguousNameError, match=r"Write runs/both or agents/both or \./both\.$"):
        locate("both", "runs", "agents")
    with pytest.raises(
        RunError, match=r"no such run or agent: alon. Did you mean 'runs/alone'\? In runs: alone, both, "
    ):
        locate("alon", "runs", "agents")
    with pytest.raises(RunError, match=r"Did you mean 'runs/both' or 'agents/both'\?"):
        locate("bothe", "runs", "agents")
    monkeypatch.chdir("runs")  # one folder under two names is one place
    assert locate("alone", ".", "../agents").resolve() == tmp_path / "runs" / "alone"


def _hold(path: Path, ready: Any, done: Any) -> None:
    with RunFolder(path).owned():
        ready.set()
        done.wait(60)


def test_one_process_trains_a_run_at_a_time(tmp_path: Path) -> None:
    run = small_run(tmp_path)
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(run.path, ready, done))
    process.start()
    try:
        assert ready.wait(60)
        with pytest.raises(RunError, match="is being trained by another process"), run.owned():
            pass
    finally:
        done.set()
        process.join(60)
    with run.owned():
        pass


def test_the_best_checkpoint_on_valid_is_kept_and_chosen(tmp_path: Path) -> None:
    run = small_run(tmp_path)
    train(run, progress=quiet())
    rows = [line.split(",") for line in run.metrics.read_text().splitlines()]
    column = rows[0].index("valid/score")
    scores = {int(row[0]): float(row[column]) for row in rows[1:] if row[column]}
    assert list(scores) == [80, 160, 240, 320, 400]
    best = max(scores, key=lambda step: (scores[step], step))
    assert run.chosen() == run.checkpoints / str(best)
    assert saved_steps(run.checkpoints) == sorted({320, 400, best})
    assert read_checkpoint(run.checkpoints / "400").documents["run"]["best"] == {
        "step": best,
        "valid_score": scores[best],
    }


def test_scoring_on_valid_does_not_disturb_training(tmp_path: Path) -> None:
    final = {}
    for name, tasks in (("with", 10), ("without", 0)):
        run = small_run(tmp_path / name, evaluation={"valid_tasks": tasks})
        algorithm = train(run, progress=quiet())
        final[name] = read_checkpoint(run.checkpoints / "400").tensors["params"]
        before = algorithm._sampling.get_state()
        config = run.config().model_copy(update={"evaluation": parse_experiment(SMALL).evaluation})
        assert valid_score(algorithm, config) == valid_score(algorithm, config)
        assert torch.equal(algorithm._sampling.get_state(), before)
    for name, tensor in final["with"].items():
        assert torch.equal(tensor, final["without"][name])


@pytest.mark.parametrize("env_id", ["CartPole-v1", "FrozenLake-v1", "Pendulum-v1"])
def test_foreign_environments_train_and_resume_with_a_warning(tmp_path: Path, env_id: str) -> None:
    algorithm = {**SMALL["algorithm"], "n_steps": 20}
    run = small_run(tmp_path, environment={"id": env_id}, algorithm=algorithm, evaluation={"valid_tasks": 2})
    train(run, progress=quiet())
    assert run.latest() == run.checkpoints / "400"
    shutil.rmtree(run.checkpoints / "400")
    stream = io.StringIO()
    train(run, progress=PlainProgress(stream))
    assert run.latest() == run.checkpoints / "400"
    assert "warning: this environment cannot restore its state" in stream.getvalue()
    steps = [int(line.split(",")[0]) for line in run.metrics.read_text().splitlines()[1:]]
    assert steps == [80, 160, 160, 240, 320, 320, 400, 400]


def test_a_run_goes_on_only_as_it_began(tmp_path: Path) -> None:
    run = small_run(tmp_path)
    train(run, progress=quiet())
    changed = run.config().to_yaml().replace("total_timesteps: 400", "total_timesteps: 1200")
    (run.path / "config.yaml").write_text(changed)
    with pytest.raises(CheckpointError, match=r"algorithm.total_timesteps: 400 became 1200"):
        train(run, progress=quiet())


def test_a_run_goes_on_where_a_key_is_newer_than_its_checkpoint(tmp_path: Path) -> None:
    run = small_run(tmp_path)
    train(run, progress=quiet())
    newest = run.latest()
    assert newest is not None
    checkpoint = read_checkpoint(newest)
    # As it was written before there was such a setting.
    del checkpoint.documents["run"]["config"]["algorithm"]["expected_rewards"]
    write_checkpoint(newest, checkpoint)
    assert train(run, progress=quiet()).num_timesteps == 400
    checkpoint.documents["run"]["config"]["algorithm"]["expected_rewards"] = True
    write_checkpoint(newest, checkpoint)
    with pytest.raises(CheckpointError, match=r"algorithm\.expected_rewards: True became False"):
        train(run, progress=quiet())
    # A setting that there no longer is.
    checkpoint.documents["run"]["config"]["algorithm"] |= {"expected_rewards": False, "momentum": 0.5}
    write_checkpoint(newest, checkpoint)
    with pytest.raises(CheckpointError, match=r"\(algorithm\.momentum: 0\.5 became None\)"):
        train(run, progress=quiet())


def test_recorded_experiments_go_on_where_they_stopped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    config = parse_experiment({**SMALL, "algorithm": {**SMALL["algorithm"], "total_timesteps": 120}})
    (tmp_path / "configs" / "first.yaml").write_text(config.to_yaml())
    assert run_recorded(["configs", "--seeds", "0,1"]) == 0
    folder = tmp_path / "runs" / "experiments" / "first"
    assert {entry.name for entry in folder.iterdir()} == {"seed-0", "seed-1", "seeds.txt"}
    finished = (folder / "seed-0" / "metrics.csv").read_bytes()
    # As if it had been killed before its evaluation.
    (folder / "seed-1" / "evaluation.json").unlink()
    capsys.readouterr()
    assert run_recorded(["configs", "--seeds", "0,1"]) == 0
    assert "seed-0 is finished (120 steps)" in capsys.readouterr().out
    assert (folder / "seed-1" / "evaluation.json").exists()
    assert (folder / "seed-0" / "metrics.csv").read_bytes() == finished
    (tmp_path / "configs" / "broken.yaml").write_text("environment: 3\n")
    assert run_recorded(["configs"]) == 1
    (tmp_path / "configs" / "broken.yaml").rename(tmp_path / "configs" / "no name.yaml")
    (tmp_path / "configs" / "no name.yaml").write_text(config.to_yaml())
    assert run_recorded(["configs"]) == 1  # refused for another reason than being finished


def test_a_policy_that_becomes_nan_has_no_score_on_valid_and_is_never_the_best(tmp_path: Path) -> None:
    run = small_run(tmp_path, network={"kind": "plastic_rnn", "rule": "oja", "hidden_size": 5})
    writer, said = RunWriter(run, run.config(), None), list[str]()
    writer.logger.output_formats.append(SpokenLog(said.append))
    policy = make_algorithm(run.config()).policy
    writer.score(policy, 40)
    assert writer.best is not None
    best = writer.best
    with torch.no_grad():
        policy.get_parameter("network.eta").fill_(1e30)
    writer.score(policy, 80)
    assert writer.best == best
    assert len(said) == 1
    assert "no score on valid at step 80: the agent became NaN or infinite after" in said[0]
    writer.logger.close()


def test_scores_of_mid_training_do_not_count_for_the_finished_run(tmp_path: Path) -> None:
    run = small_run(tmp_path)
    train(run, progress=quiet())
    shutil.rmtree(run.checkpoints / "400")
    run.evaluation.write_text("scores of step 320")
    train(run, progress=quiet())  # to the end, and killed before the final evaluation
    assert run.latest() == run.checkpoints / "400"
    assert not run.evaluation.exists()
    check_unfinished(run, run.config())
    run.evaluation.write_text("scores of step 400")
    with pytest.raises(FinishedError):
        check_unfinished(run, run.config())
    train(run, progress=quiet())  # nothing is left to do, so the scores stay
    assert run.evaluation.exists()


def test_tensorboard_forgets_an_attempt_that_died_before_its_first_checkpoint(tmp_path: Path) -> None:
    run = small_run(tmp_path, logging={"tensorboard": True}, evaluation={"valid_tasks": 0})
    dead = TensorBoardWriter(run.tensorboard, 0)
    dead.write({"rollout/score": 99.0}, {"rollout/score": ("",)}, 80)
    dead.write({"rollout/score": 99.0}, {"rollout/score": ("",)}, 9999)
    dead.close()
    train(run, progress=quiet())
    events = EventAccumulator(str(run.tensorboard))
    events.Reload()
    scores = events.Scalars("rollout/score")
    assert [event.step for event in scores] == list(range(40, 440, 40))
    assert all(event.value <= 10 for event in scores)


@pytest.mark.parametrize(
    ("name", "value"),
    [("best", {"step": "last"}), ("best", 3), ("metrics", {"metrics": 1}), ("step", None), ("config", [])],
)
def test_an_altered_part_of_the_run_is_refused(tmp_path: Path, name: str, value: Any) -> None:
    run = small_run(tmp_path, evaluation={"valid_tasks": 0})
    with pytest.raises(TrainingInterrupted):
        train(run, progress=Pressing(240))
    checkpoint = read_checkpoint(run.checkpoints / "240")
    checkpoint.documents["run"][name] = value
    write_checkpoint(run.checkpoints / "240", checkpoint)
    for use in (lambda: train(run, progress=quiet()), run.chosen):
        with pytest.raises(CheckpointError, match=rf"240 is not a checkpoint of a run \({name}"):
            use()
    del checkpoint.documents["algorithm"]
    with pytest.raises(CheckpointError, match="it lacks 'algorithm'"):
        acting_part(checkpoint)


@pytest.mark.parametrize("at", [240, 400])
def test_ctrl_c_saves_and_stops_in_the_last_update_too(tmp_path: Path, at: int) -> None:
    run = small_run(tmp_path)
    with pytest.raises(TrainingInterrupted, match=f"saved in .*checkpoints/{at}. Go on with: plastic-rl resume"):
        train(run, progress=Pressing(at))
    assert run.latest() == run.checkpoints / str(at)
    assert train(run, progress=quiet()).num_timesteps == 400


def test_plain_progress_says_how_far_how_well_how_fast() -> None:
    stream = io.StringIO()
    progress = PlainProgress(stream, interval=0)
    progress.start(0, 1_000)
    progress.update(500, 72.345, "best on valid 71")
    line = stream.getvalue()
    assert line.startswith("  500/1,000 steps  score 72.34  ")
    assert line.rstrip().endswith("left  best on valid 71")


def test_an_algorithm_that_takes_the_place_of_another_has_a_config_of_its_own() -> None:
    class Bonus(ALGORITHMS["a2c"]):  # type: ignore[misc]
        def __init__(self, policy: Any, env: Any, *, bonus: float = 1.0, **shared: Any) -> None:
            super().__init__(policy, env, **shared)

    before, own = algorithm_model("a2c"), ALGORITHMS["a2c"]
    ALGORITHMS.register("a2c", Bonus, replace=True)
    try:
        assert "bonus" in algorithm_model("a2c").model_fields
    finally:
        ALGORITHMS.register("a2c", own, replace=True)
    assert algorithm_model("a2c") is before


@pytest.mark.parametrize("name", agent_names(ROOT / "agents"))
def test_every_shipped_agent_lies_within_every_valid_range(name: str) -> None:
    plugins = [str(file) for file in (ROOT / "envs").glob("*.py")]
    policy = find_agent(ROOT / "agents" / name, plugins=plugins).load()
    parameters = policy.parameters_by_name()
    for own, (low, high) in policy.valid_ranges().items():
        assert bool(((parameters[own] >= low) & (parameters[own] <= high)).all()), own


def test_a_card_names_the_trials_of_a_lifetime() -> None:
    trained = find_agent(ROOT / "agents" / "cartpole")
    evaluation = Evaluation.load(trained.folder / "evaluation.json")

    def environment_line(**changes: Any) -> str:
        environment = trained.config.environment.model_copy(update=changes)
        other = replace(trained, config=trained.config.model_copy(update={"environment": environment}))
        (line,) = [line for line in card(Path("mine"), other, evaluation, []).splitlines() if "Environment" in line]
        return line.rstrip()

    assert environment_line() == "- Environment: `CartPole-v1`"
    assert environment_line(trials=4) == "- Environment: `CartPole-v1` trials = 4"
    told = environment_line(kwargs={"length": 2}, trials=4, same_task_each_trial=False)
    assert told == "- Environment: `CartPole-v1` length = 2, trials = 4, same_task_each_trial = False"


def test_curves_merge_the_seeds_of_one_experiment_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = (ROOT / "agents" / "default" / "config.yaml").read_text()

    def made(name: str) -> RunFolder:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(config)
        (folder / "metrics.csv").write_text("time/total_timesteps,rollout/score\n10,1.0\n20,2.0\n")
        return RunFolder(folder)

    drawn: dict[str, Any] = {}
    monkeypatch.setattr(scoring, "plot_learning_curves", lambda groups, path, **_: drawn.update(groups) or path)
    seeds = [made("old/maze/seed-0"), made("old/maze/seed-1")]
    others = [made("new/maze/seed-0"), made("new/other"), made("older/other"), made("alone")]
    draw_curves([*seeds, *others, seeds[0]], tmp_path / "curves.png")
    assert drawn == {
        "old/maze": [run.metrics for run in seeds],
        "new/maze": [others[0].metrics],
        "new/other": [others[1].metrics],
        "older/other": [others[2].metrics],
        "alone": [others[3].metrics],
    }
    drawn.clear()
    draw_curves(seeds, tmp_path / "curves.png")
    assert drawn == {"maze": [run.metrics for run in seeds]}
