from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from plastic_rl.algorithms import PlasticA2C
from plastic_rl.envs import distribution_for
from plastic_rl.errors import RunError, UnknownNameError
from plastic_rl.evaluation import Evaluation, Lifetimes, evaluate, score_lifetimes

REVERSAL = "plastic_rl/ReversalBandit-v0"
BERNOULLI = "plastic_rl/BernoulliBandit-v0"


def lived(totals: list[float], steps: int = 1) -> Lifetimes:
    table = np.repeat(np.array(totals, np.float64)[:, None] / steps, steps, axis=1)
    return Lifetimes(
        scores=table,
        rewards=table,
        trial_ends=np.ones(table.shape, bool),
        lengths=np.full(len(totals), steps),
        expected=True,
        lifetime_steps=steps,
        steps_per_trial=1,
    )


def scored(**totals: list[float]) -> Any:
    entries = {key.replace("__", ":"): lived(values, steps=4) for key, values in totals.items()}
    return score_lifetimes(
        entries, limit_kind="bayes", environment_seed=0, generator=np.random.default_rng(0), resamples=500
    )


def test_scores_by_hand() -> None:
    result = scored(
        sampled=[6.0, 8.0, 10.0],
        greedy=[7.0, 9.0, 11.0],
        frozen=[4.0, 5.0, 6.0],
        reference__random=[4.0, 5.0, 6.0],
        reference__bayes=[8.0, 10.0, 12.0],
        reference__oracle=[11.0, 13.0, 15.0],
    )
    assert result.raw_score == 8.0
    assert result.normalised_score == pytest.approx((8 - 5) / (10 - 5))
    assert result.regret == pytest.approx(2.0)
    assert_allclose(result.regret_interval, (2.0, 2.0))  # paired: every task loses 2
    assert result.oracle_regret == pytest.approx(5.0)
    assert result.greedy.difference == pytest.approx(1.0)
    assert_allclose(result.greedy.difference_interval, (1.0, 1.0))
    assert result.frozen.normalised_score == 0.0
    assert result.reference_agents["bayes"].normalised_score == 1.0
    assert result.reference_agents["bayes"].normalised_score_interval == (1.0, 1.0)
    assert result.raw_score_interval[0] < 8.0 < result.raw_score_interval[1]
    assert result.difference == 0.0
    assert result.limit_kind == "bayes"
    assert result.score_of == "expected_reward"
    assert_allclose(result.curve.mean, [2.0] * 4)
    assert result.curve.position == (1.0, 2.0, 3.0, 4.0)
    assert result.curve.tasks == (3, 3, 3, 3)


def test_a_score_below_random_is_negative() -> None:
    result = scored(sampled=[1.0, 2.0], reference__random=[3.0, 4.0], reference__bayes=[5.0, 6.0])
    assert result.normalised_score == -1.0
    assert result.normalised_score_interval == (-1.0, -1.0)


def test_without_a_limit_there_is_no_normalised_score() -> None:
    result = scored(sampled=[1.0, 2.0], reference__random=[3.0, 4.0])
    assert (result.normalised_score, result.regret, result.limit_kind) == (None, None, "none")


def test_a_limit_no_better_than_random_gives_no_ratio() -> None:
    result = scored(sampled=[1.0, 2.0], reference__random=[3.0, 4.0], reference__bayes=[3.0, 4.0])
    assert (result.normalised_score, result.normalised_score_interval) == (None, None)
    assert result.regret == 2.0


class Switchable:
    """Wraps a reference agent as a plastic agent would look: it can be frozen, and then always takes arm 0."""

    def __init__(self, agent: Any) -> None:
        self.agent = agent
        self.frozen = False

    def begin(self, tasks: Any, seed: int) -> None:
        self.agent.begin(tasks, seed)

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> Any:
        actions, state = self.agent.predict(observation, state, episode_start, deterministic)
        return (np.zeros_like(actions) if self.frozen else actions), state

    @contextmanager
    def freeze_plasticity(self) -> Iterator[None]:
        self.frozen = True
        yield
        self.frozen = False


@pytest.fixture(scope="module")
def reversal() -> Evaluation:
    bayes = distribution_for(REVERSAL, {}).reference_agents("test")["bayes"]
    return evaluate(Switchable(bayes), REVERSAL, splits=["test", "shift"], tasks=1500, name="filter", resamples=500)


def test_reversal_bandit_reference_agents_reach_their_published_numbers(reversal: Evaluation) -> None:
    test = reversal.splits["test"]
    assert test.limit_kind == "bayes"
    scores = {name: score.raw_score for name, score in test.reference_agents.items()}
    # The belief filter's expected reward has a deviation of 2.9 per lifetime: standard error .07.
    assert scores["bayes"] == pytest.approx(74.07, abs=0.25)
    assert scores["oracle"] == pytest.approx(80.0, abs=1e-9)
    assert scores["random"] == pytest.approx(50.0, abs=0.3)
    heuristic = next(name for name in scores if name not in {"bayes", "oracle", "random"})
    assert scores[heuristic] == pytest.approx(67.1, abs=0.25)
    low, high = test.reference_agents["bayes"].raw_score_interval
    assert 0.1 < high - low < 0.5


def test_an_agent_that_is_the_limit_scores_1(reversal: Evaluation) -> None:
    test = reversal.splits["test"]
    assert test.normalised_score == pytest.approx(1.0, abs=0.02)
    assert test.regret == pytest.approx(0.0, abs=0.5)
    assert test.greedy is not None
    assert test.greedy.normalised_score == pytest.approx(1.0, abs=0.02)


def test_the_frozen_twin_stays_at_random_all_its_life(reversal: Evaluation) -> None:
    frozen = reversal.splits["test"].frozen
    assert frozen is not None
    assert frozen.normalised_score == pytest.approx(0.0, abs=0.05)
    assert frozen.difference == pytest.approx(-24, abs=1)
    assert frozen.adaptation == pytest.approx(0.0, abs=0.05)
    test = reversal.splits["test"]
    assert test.curve.mean[0] == pytest.approx(0.5, abs=0.04)
    assert np.mean(test.curve.mean[-10:]) == pytest.approx(0.744, abs=0.015)
    assert test.adaptation == pytest.approx(np.mean(test.curve.mean[-10:]) - np.mean(test.curve.mean[:10]), abs=1e-9)
    assert test.adaptation_interval is not None
    low, high = test.adaptation_interval
    assert low < test.adaptation < high < low + 0.03


def small_agent() -> PlasticA2C:
    network = {"rule": "backpropamine_retroactive", "hidden_size": 6}
    agent = PlasticA2C("BackpropaminePolicy", REVERSAL, n_envs=4, policy_kwargs={"network": network}, seed=3)
    return agent.learn(400)


def test_a_plastic_agent_is_evaluated_with_its_frozen_twin_and_reproducibly() -> None:
    agent = small_agent()
    first, second = (evaluate(agent, REVERSAL, tasks=60, resamples=100).splits["test"] for _ in range(2))
    assert first == second
    assert first.frozen is not None
    assert first.frozen.raw_score != first.raw_score
    assert first.frozen.steps == 100


@pytest.mark.parametrize("network", [{"kind": "lstm"}, {"kind": "plastic_rnn", "rule": "fixed"}])
def test_controls_have_no_frozen_twin(network: dict[str, str]) -> None:
    """Where nothing is plastic it would be the agent itself, under a misleading name."""
    agent = PlasticA2C("PlasticPolicy", REVERSAL, n_envs=2, policy_kwargs={"network": {**network, "hidden_size": 4}})
    result = evaluate(agent, REVERSAL, tasks=5, resamples=10, references=False)
    assert result.splits["test"].frozen is None
    assert "frozen" not in result.table(rich=False)


def test_evaluation_leaves_training_as_it_was() -> None:
    undisturbed, evaluated = small_agent(), small_agent()
    evaluate(evaluated, REVERSAL, splits=["valid"], tasks=20, resamples=10)
    for agent in (undisturbed, evaluated):
        agent.learn(800, reset_num_timesteps=False)
    for one, other in zip(undisturbed.policy.parameters(), evaluated.policy.parameters(), strict=True):
        assert torch.equal(one, other)


def test_the_shift_split_is_harder(reversal: Evaluation) -> None:
    # Hazard .05 instead of .02.
    assert reversal.splits["shift"].raw_score < reversal.splits["test"].raw_score - 3


def test_pairing_narrows_the_regret(reversal: Evaluation) -> None:
    bandit = evaluate(
        distribution_for(BERNOULLI, {"arms": 2, "steps": 10}).reference_agents("test")["random"],
        BERNOULLI,
        env_kwargs={"arms": 2, "steps": 10},
        tasks=3000,
        resamples=500,
    ).splits["test"]
    assert bandit.regret_interval is not None
    width = bandit.regret_interval[1] - bandit.regret_interval[0]
    unpaired = np.hypot(
        bandit.raw_score_interval[1] - bandit.raw_score_interval[0],
        np.subtract(*bandit.reference_agents["bayes"].raw_score_interval[::-1]),
    )
    assert width < 0.75 * unpaired
    # Two arms, 10 pulls, exact dynamic programming: 6.0218; the oracle 20/3.
    low, high = bandit.reference_agents["bayes"].raw_score_interval
    assert low - 0.03 < 6.0218 < high + 0.03
    assert bandit.reference_agents["oracle"].raw_score == pytest.approx(20 / 3, abs=0.13)
    assert bandit.raw_score == pytest.approx(5.0, abs=0.13)


def test_bandits_default_to_ten_thousand_tasks_and_one_bin_per_step() -> None:
    kwargs = {"arms": 2, "steps": 3}
    agent = distribution_for(BERNOULLI, kwargs).reference_agents("test")["random"]
    result = evaluate(agent, BERNOULLI, env_kwargs=kwargs, references=False, resamples=50)
    test = result.splits["test"]
    assert test.tasks == 10_000
    assert test.curve.unit == "step"
    assert len(test.curve.mean) == 3
    assert test.reference_agents == {}
    assert test.frozen is None


def test_foreign_environments_have_no_limit_but_a_curve_over_trials() -> None:
    agent = distribution_for("CartPole-v1", {}).reference_agents("test")["random"]
    result = evaluate(agent, "CartPole-v1", tasks=20, trials=3, resamples=100)
    test = result.splits["test"]
    assert (test.limit_kind, test.normalised_score, test.score_of) == ("none", None, "reward")
    assert test.curve.unit == "trial"
    assert test.curve.position == (1.0, 2.0, 3.0)
    assert sum(test.curve.mean) == pytest.approx(test.raw_score)
    assert "no known limit" in result.table(rich=False)


def test_json_and_back(reversal: Evaluation, tmp_path: Any) -> None:
    path = reversal.save(tmp_path / "evaluation.json")
    assert Evaluation.load(path) == reversal
    document = json.loads(path.read_text())
    test = document["splits"]["test"]
    expected = {"raw_score", "normalised_score", "limit_kind", "regret", "curve", "reference_agents", "frozen", "tasks"}
    assert expected <= test.keys()
    assert set(test["reference_agents"]["bayes"]) >= {"raw_score", "raw_score_interval", "curve"}
    assert document["seconds"]["test"].keys() == {"sampled", "greedy", "frozen"} | {
        f"reference:{name}" for name in test["reference_agents"]
    }
    assert document["versions"]["numpy"] == np.__version__
    assert list(tmp_path.iterdir()) == [path]


def test_evaluating_again_gives_the_same_but_for_the_clock(reversal: Evaluation) -> None:
    bayes = distribution_for(REVERSAL, {}).reference_agents("test")["bayes"]
    again = evaluate(Switchable(bayes), REVERSAL, splits=["shift"], tasks=1500, name="filter", resamples=500)
    assert again.splits["shift"] == reversal.splits["shift"]


@pytest.mark.parametrize("contents", [b"", b"{}", b"\x00\x01", b"[1, 2]", b'{"format": 2}'])
def test_what_is_no_evaluation_is_refused(contents: bytes, tmp_path: Any) -> None:
    path = tmp_path / "evaluation.json"
    path.write_bytes(contents)
    with pytest.raises(RunError, match="is no evaluation that plastic_rl wrote"):
        Evaluation.load(path)


def test_a_missing_evaluation_is_refused(tmp_path: Any) -> None:
    with pytest.raises(RunError, match="cannot read the evaluation"):
        Evaluation.load(tmp_path / "nowhere.json")


def test_an_unknown_split_is_refused_before_anything_runs() -> None:
    agent = distribution_for(REVERSAL, {}).reference_agents("test")["random"]
    with pytest.raises(UnknownNameError, match="Did you mean 'test'"):
        evaluate(agent, REVERSAL, splits=["tset"])


def test_the_plain_table_ranks_agents_and_says_what_one_task_means(reversal: Evaluation) -> None:
    lines = reversal.table(rich=False).splitlines()
    assert "split test: 1,500 lifetimes, 100 steps each" in lines[0]
    ranked = [line[2:].split("  ")[0] for line in lines[3:10]]
    assert ranked[0] == "oracle"
    assert {"bayes (limit)", "filter, sampled", "filter, greedy"} == set(ranked[1:4])
    assert "filter, plasticity frozen" in ranked[-2:]
    assert [line[0] == ">" for line in lines[3:10]] == [name.startswith("filter") for name in ranked]
    assert "one and the same task" in lines[-1]
    assert all(len(line) <= 140 for line in lines)
    assert "\x1b" not in "\n".join(lines)


def test_the_rich_table_holds_the_same_numbers(reversal: Evaluation) -> None:
    table = reversal.table(rich=True)
    assert "\x1b[" in table
    assert f"{reversal.splits['test'].raw_score:.2f}" in table


def test_the_header_says_where_tasks_depart_from_the_arguments() -> None:
    agent = distribution_for("plastic_rl/GridMaze-v0").reference_agents("test")["random"]
    evaluation = evaluate(
        agent, "plastic_rl/GridMaze-v0", splits=["test", "shift"], tasks=12, resamples=5,
        env_kwargs={"side": 9, "steps": 20}, references=False,
    )  # fmt: skip
    assert evaluation.splits["test"].environment_overrides == {}
    assert evaluation.splits["shift"].environment_overrides == {"side": (7.0, 11.0)}
    shift = next(line for line in evaluation.table(rich=False).splitlines() if "split shift" in line)
    assert "12 lifetimes, 20 steps each, one on each task with side 7 to 11; reward per lifetime" in shift


def test_the_header_names_a_single_other_value(reversal: Evaluation) -> None:
    assert reversal.splits["shift"].environment_overrides == {"hazard": (0.05, 0.05)}
    assert "one on each task with hazard 0.05;" in reversal.table(rich=False)
