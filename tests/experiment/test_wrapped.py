"""Experiments in a wrapped environment: trained, saved, resumed and scored as what the config says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from plastic_rl.algorithms import CMAES, PlasticA2C
from plastic_rl.cli.app import main
from plastic_rl.config import read_mapping
from plastic_rl.envs import distribution_for, first_task, make_vector
from plastic_rl.errors import CheckpointError, ConfigError
from plastic_rl.evaluation import evaluate
from plastic_rl.evaluation.classification import AccuracyQuestions
from plastic_rl.evaluation.lifetimes import run_lifetimes

CUES, POLE = "plastic_rl/CueAssociation-v0", "CartPole-v1"
LATE_GAIN = {"name": "observation_gain", "factor": 8.0, "from_trial": 2, "from_step": 0}
LESION = {"name": "lesion", "share": 0.5, "of": "actuators", "from_trial": 0, "from_step": 4}
CONFIG = """
environment: {id: ID, OPTIONSwrappers: [{name: observation_gain, factor: 8, from_trial: 2}, {name: lesion, share: .5}]}
network: {kind: plastic_rnn, rule: oja, hidden_size: 6}
algorithm: {name: a2c, total_timesteps: 480, n_envs: 4, n_steps: 20, learning_rate: 5e-3}
evaluation: {tasks: 12, valid_tasks: 6}
checkpoint: {interval: 2}
logging: {tensorboard: false}
"""


def make(**kwargs: Any) -> PlasticA2C:
    options: dict[str, Any] = {
        "env_kwargs": {"trials": 5},
        "wrappers": [LATE_GAIN, LESION],
        "policy_kwargs": {"network": {"hidden_size": 8}},
        "n_envs": 4,
        "n_steps": 7,
        "seed": 3,
    }
    return PlasticA2C("BackpropaminePolicy", CUES, **{**options, **kwargs})


def test_a_saved_agent_goes_on_in_mid_lifetime_to_the_bit(tmp_path: Path) -> None:
    whole = make().learn(4 * 7 * 6)
    half = make()
    half.learn(4 * 7 * 3)
    half.save(tmp_path / "half")
    rest = PlasticA2C.load(tmp_path / "half", env=CUES, force_reset=False)
    assert [dict(one) for one in rest.settings.wrappers] == [LATE_GAIN, LESION]
    rest.learn(4 * 7 * 3, reset_num_timesteps=False)
    for (name, one), (_, other) in zip(whole.policy.named_parameters(), rest.policy.named_parameters(), strict=True):
        assert torch.equal(one, other), name
    rows = make_vector(CUES, 4, env_kwargs={"trials": 5}, wrappers=[LATE_GAIN, LESION], task_start=first_task(3))
    again = PlasticA2C.load(tmp_path / "half", env=rows, force_reset=False)
    again.learn(4 * 7 * 3, reset_num_timesteps=False)
    for (name, one), (_, other) in zip(again.policy.named_parameters(), rest.policy.named_parameters(), strict=True):
        assert torch.equal(one, other), name
    again.set_env(make_vector(CUES, 4, wrappers=[LATE_GAIN]))
    assert whole.observation_space == make_vector(CUES, 1, wrappers=[LATE_GAIN]).single_observation_space
    mismatched = make(wrappers=[LESION])
    with pytest.raises(CheckpointError, match="wrappers"):
        mismatched.set_checkpoint(half.get_checkpoint())


def test_the_wrappers_reach_what_an_agent_is_trained_on() -> None:
    plain, wrapped = make(wrappers=[]).learn(4 * 7), make(wrappers=[{**LATE_GAIN, "from_trial": 1}]).learn(4 * 7)
    own, seen = (agent.rollout.observations for agent in (plain, wrapped))
    np.testing.assert_array_equal(seen[0, :, :21], own[0, :, :21])
    assert np.abs(np.asarray(own[:, :, :21])).max() == 1.0
    assert np.abs(np.asarray(seen[:, :, :21])).max() == 8.0
    evolved = CMAES(
        "PlasticPolicy",
        CUES,
        env_kwargs={"trials": 3},
        wrappers=[LESION],
        population_size=4,
        lifetimes=2,
        seed=0,
        policy_kwargs={"network": {"kind": "gru", "hidden_size": 2}},
    )
    assert evolved.evaluator is not None
    assert evolved.learn(generations=1).iterations == 1


def test_wrappers_go_around_an_id_alone() -> None:
    with pytest.raises(ConfigError, match="wrappers go around an environment that is made of an id"):
        PlasticA2C("BackpropaminePolicy", make_vector(CUES, 2), wrappers=[LESION])
    with pytest.raises(ConfigError, match="Did you mean 'lesion'"):
        make(wrappers=[{"name": "lesoin"}])


@pytest.mark.parametrize(("env_id", "options"), [(CUES, "kwargs: {trials: 5}, "), (POLE, "trials: 3, ")])
def test_a_config_trains_and_scores_and_states_its_wrappers(
    tmp_path: Path, env_id: str, options: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "wrapped.yaml").write_text(CONFIG.replace("ID", env_id).replace("OPTIONS", options))
    assert main(["train", str(tmp_path / "wrapped.yaml"), "--runs-folder", str(tmp_path)]) == 0
    run = tmp_path / "wrapped"
    stated = [LATE_GAIN, {"name": "lesion", "share": 0.5, "of": "sensors", "from_trial": 0, "from_step": 0}]
    assert read_mapping(run / "config.yaml")["environment"]["wrappers"] == stated
    assert json.loads((run / "evaluation.json").read_text())["wrappers"] == stated
    out = capsys.readouterr().out
    assert f"{env_id} (" in out
    assert "observation_gain(factor=8.0, from_trial=2), lesion(share=0.5, of=sensors)), split test" in out
    for words, expected in (
        (["--no-wrappers"], []),
        (["--wrapper", "{name: lesion, share: .5, of: actuators, from_step: 4}"], [LESION]),
    ):
        output = tmp_path / f"{len(words)}.json"
        assert main(["evaluate", str(run), "--tasks", "4", *words, "--output", str(output)]) == 0
        assert json.loads(output.read_text())["wrappers"] == expected


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("[{name: lesoin, share: .5}]", "environment.wrappers: unknown wrapper 'lesoin'. Did you mean 'lesion'?"),
        ("[{name: lesion, shares: .5}]", "lesion.shares: unknown key. Did you mean 'share'?"),
        ("[{name: lesion, share: 2}]", "lesion.share: must be less than or equal to 1, got 2."),
        ("lesion", "environment.wrappers: wrappers are a list"),
        ("[{name: lesion, share: .5, from_trial: 5}]", "lesion.from_trial: it would never begin"),
    ],
)
def test_what_is_no_wrapper_is_told_with_exit_code_2(
    tmp_path: Path, value: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "wrapped.yaml").write_text(CONFIG.replace("ID", CUES).replace("OPTIONS", "kwargs: {trials: 5}, "))
    words = [f"environment.wrappers={value}", "--runs-folder", str(tmp_path)]
    assert main(["train", str(tmp_path / "wrapped.yaml"), *words]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "wrapped").exists()


def test_the_command_line_checks_lists_and_shows(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["envs", "check", POLE, "--wrapper", "{name: lesion, share: .5}"]) == 0
    assert "FAILED" not in capsys.readouterr().out
    assert main(["envs", "check", POLE, "--wrapper", "{name: lesoin, share: .5}"]) == 2
    assert "Did you mean 'lesion'?" in capsys.readouterr().err
    assert main(["envs", "list"]) == 0
    out = capsys.readouterr().out
    assert "\nlesion            Some sensors, or actuators, are dead" in out
    assert main(["envs", "show", "observation_gain"]) == 0
    out = capsys.readouterr().out
    assert "    factor: number, above 0, up to 1,000\n" in out
    assert "    from_trial: whole number, 0 or more  (default 0)\n" in out
    assert main(["config", "environment"]) == 0
    assert "environment.wrappers.share: number, above 0, up to 1\n" in capsys.readouterr().out


def test_reference_agents_but_random_live_without_wrappers() -> None:
    """The oracle earns all of the undisturbed environment; half of its answers would be lost to dead actions."""
    wrappers = [{"name": "lesion", "share": 0.5, "of": "actuators"}]
    agents = distribution_for(CUES).reference_agents("test")
    evaluation = evaluate(agents["random"], CUES, tasks=200, wrappers=wrappers, resamples=100)
    split = evaluation.splits["test"]
    assert split.reference_agents["oracle"].raw_score == 20.0
    assert [one["name"] for one in evaluation.wrappers] == ["lesion"]
    assert "Reference agents but random live without the wrappers" in evaluation.table(rich=False)
    task, seeds = distribution_for(CUES).tasks("test", 0, 200), 1
    lesioned = run_lifetimes(agents["oracle"], CUES, task, wrappers=wrappers, seed=seeds)
    assert 8.0 < lesioned.totals.mean() < 12.0


class Watching:
    """Answers 0 and keeps what it sees."""

    def __init__(self) -> None:
        self.seen: list[npt.NDArray[Any]] = []

    def predict(self, observation: Any, state: Any = None, starts: Any = None, deterministic: bool = False) -> Any:
        self.seen.append(observation.copy())
        return np.zeros(len(observation), dtype=np.int64), 0


def test_held_out_samples_are_asked_about_as_the_agent_would_see_them() -> None:
    """Sample n + 1 and the questions after n samples go through the same wrappers; so do the answers."""
    env_id, kwargs = "plastic_rl/Classification-v0", {"data": "D", "steps": 6}
    distribution = distribution_for(env_id, kwargs)
    tasks = distribution.tasks("test", 0, 3)
    largest, answered = [], []
    for factor in (1.0, 0.001):
        agent = Watching()
        questions = AccuracyQuestions(distribution, [2, 6], 3, (0.0, 1.0))
        gain = [{"name": "observation_gain", "factor": factor, "from_step": 4}]
        run_lifetimes(agent, env_id, tasks, env_kwargs=kwargs, wrappers=gain, on_step=questions)
        sizes = [float(np.abs(seen[:, :10]).max()) for seen in agent.seen]
        # Steps 0 and 1, the questions after two samples, the other steps, the questions after six.
        largest.append((max(sizes[2:1002]), max(sizes[-1000:])))
        assert len(sizes) == 6 + 2 * 1000
    assert largest[0][0] == largest[1][0] > 1.0
    assert largest[1][1] == pytest.approx(largest[0][1] / 1000, rel=1e-5)
    for wrappers in ([], [{"name": "lesion", "share": 1.0, "of": "actuators"}]):
        questions = AccuracyQuestions(distribution, [2], 3, (0.0, 1.0))
        lived = run_lifetimes(Watching(), env_id, tasks, env_kwargs=kwargs, wrappers=wrappers, on_step=questions)
        answered.append(questions.result(lived).accuracy[:, 0])
    assert answered[0] == pytest.approx(np.full(3, 0.25), abs=0.06)
    assert (answered[0] != answered[1]).any()  # three of four actions do what the fourth does
