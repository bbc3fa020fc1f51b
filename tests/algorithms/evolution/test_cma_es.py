"""CMA-ES evolves any policy in any environment, by fitness alone, and is an algorithm of stable-baselines3."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import CheckpointCallback, EvalCallback, StopTrainingOnRewardThreshold
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import configure
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from plastic_rl.algorithms import CMAES
from plastic_rl.algorithms.evolution.fitness import GenerationSpec, PopulationChunk, Returns
from plastic_rl.algorithms.evolution.search import into_bounds
from plastic_rl.envs import Lifetime, distribution_for
from plastic_rl.errors import ConfigError, NonFiniteError
from plastic_rl.evaluation import run_lifetimes
from tests.algorithms.cma_es_cases import BANDIT, SMALL, make

TABLE = {"network": {"kind": "rule_table", "hidden_size": 4, "inputs": "all"}}


class Odd(gym.Env[Any, Any]):
    """Lifetimes of lengths that the task says, a reward that it may spoil, and actions of the kind asked for."""

    observation_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)

    def __init__(self, actions: str = "discrete", spoilt: float = 0.0, what: str = "reward") -> None:
        self.action_space = {
            "discrete": gym.spaces.Discrete(3),
            "multi": gym.spaces.MultiDiscrete([2, 3]),
            "bits": gym.spaces.MultiBinary(2),
            "box": gym.spaces.Box(-1.0, 1.0, (2,), np.float32),
        }[actions]
        self.spoilt, self.what = spoilt, what

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.left = int(self.np_random.integers(2, 9))
        return self._look(), {}

    def _look(self) -> Any:
        return self.np_random.uniform(-1, 1, 2).astype(np.float32)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.left -= 1
        observation, reward = self._look(), float(np.sum(action))
        if self.spoilt and self.left == 1:
            observation, reward = (
                (observation, self.spoilt) if self.what == "reward" else (observation * self.spoilt, 0.0)
            )
        return observation, reward, self.left == 0, False, {}


@pytest.fixture(scope="module", autouse=True)
def odd() -> Iterator[None]:
    gym.register("cma_es_tests/Odd-v0", Odd)
    yield
    del gym.registry["cma_es_tests/Odd-v0"]


# --- what is evolved -----------------------------------------------------------------------------------------------


def test_it_learns_within_seconds_what_chance_does_not_know() -> None:
    """Two-armed Bernoulli bandits, new in every lifetime: only an agent that learns in its lifetime beats chance."""
    agent = CMAES(
        "PlasticPolicy",
        "plastic_rl/BernoulliBandit-v0",
        env_kwargs={"arms": 2, "steps": 30},
        policy_kwargs={"network": {"kind": "rnn", "hidden_size": 4}},
        population_size=24,
        lifetimes=24,
        sigma=0.5,
        seed=0,
    )
    tasks = distribution_for("plastic_rl/BernoulliBandit-v0", agent.env_kwargs).tasks("test", 0, 300)

    def score() -> float:
        lifetimes = run_lifetimes(agent, "plastic_rl/BernoulliBandit-v0", tasks, env_kwargs=agent.env_kwargs)
        return float(lifetimes.totals.mean())

    assert score() == pytest.approx(15.4, abs=0.4)
    agent.learn(generations=150)
    assert score() > 17.5


@pytest.mark.parametrize(
    "network",
    [
        {"kind": "plastic_rnn", "rule": "backpropamine_retroactive", "hidden_size": 5},
        {"kind": "plastic_rnn", "rule": "oja", "hidden_size": 5},
        {"kind": "rnn", "hidden_size": 5},
        {"kind": "gru", "hidden_size": 5},
        {"kind": "lstm", "hidden_size": 5},
        {"kind": "plastic_feed_forward", "hidden_size": [5], "start": "random"},
    ],
    ids=lambda network: network.get("rule", network["kind"]),
)
@pytest.mark.parametrize("actions", ["discrete", "multi", "bits", "box"])
def test_every_network_and_kind_of_action(network: dict[str, Any], actions: str) -> None:
    agent = make("cma_es_tests/Odd-v0", env_kwargs={"actions": actions}, policy_kwargs={"network": network})
    before = agent.search.mean
    agent.learn(generations=2)
    assert not np.array_equal(agent.search.mean, before)
    # Lifetimes of 2 to 8 steps: rows that are over rest until the others are.
    assert 2 * 6 * 2 * 2 <= agent.num_timesteps <= 2 * 6 * 2 * 8
    action, _ = agent.predict(np.zeros(agent.observation_space.shape, np.float32))
    assert agent.action_space.contains(np.asarray(action))


def test_rule_tables_evolve_from_zero_with_random_wiring() -> None:
    table = {"kind": "rule_table", "hidden_size": 12, "cap": 3, "rounds": 1}
    agent = make("cma_es_tests/Odd-v0", policy_kwargs={"network": table}, evolve=["network.*table", "network.log_step"])
    assert not agent.search.mean.any()
    agent.learn(generations=2)
    assert agent.search.mean.any()
    assert set(agent.genome.names) < set(agent.policy.acting_parameters())


def test_a_foreign_environment_by_its_id_or_as_gymnasium_made_it() -> None:
    by_id = make("CartPole-v1", lifetimes=1).learn(generations=1)
    by_env = make(gym.make("CartPole-v1"), lifetimes=1).learn(generations=1)
    assert np.array_equal(by_id.search.mean, by_env.search.mean)
    assert by_id.num_timesteps == by_env.num_timesteps
    with pytest.raises(ConfigError, match="cannot be made again from an id"):
        make(DummyVecEnv([lambda: gym.make("CartPole-v1")]))


def test_the_policy_holds_the_mean_and_only_what_evolves_changes() -> None:
    agent = make(evolve=["network.recurrent_weight", "action_head.*"])
    assert agent.genome.names == ("network.recurrent_weight", "action_head.weight", "action_head.bias")
    assert agent.genome.size == 36 + 12 + 2
    before = {name: value.detach().clone() for name, value in agent.policy.named_parameters()}
    agent.learn(generations=2)
    for name, value in agent.policy.named_parameters():
        assert torch.equal(value, before[name]) == (name not in agent.genome.names), name
    held = {name: value.detach() for name, value in agent.policy.named_parameters()}
    mean = agent.genome.parameters(agent.search.mean)
    assert all(torch.equal(held[name], mean[name]) for name in agent.genome.names)


def test_by_default_all_evolves_that_actions_depend_on() -> None:
    agent = make()
    assert agent.genome.names == tuple(agent.policy.acting_parameters())
    assert not any(name.startswith("value_head") for name in agent.genome.names)


def test_groups_have_their_scale_and_stay_within_their_bounds() -> None:
    bounds = {"low": -0.05, "high": 0.02}
    agent = make(
        groups={"*": {"scale": 0.5}, "network.recurrent_weight": bounds, "network.input_bias": {"low": 0.1}}, sigma=2.0
    )
    genes = agent.search.ask()
    parameters = agent.genome.parameters(genes)
    weights = parameters["network.recurrent_weight"]
    assert -0.05 <= weights.min() < -0.04
    assert 0.01 < weights.max() <= 0.02 + 1e-7
    assert parameters["network.input_bias"].min() >= 0.1
    # Scale 1/2 of sigma 2.
    assert parameters["network.input_weight"].std() == pytest.approx(1.0, rel=0.2)
    assert agent.genome.start.min() >= agent.genome.low.min()


def test_evolution_stays_within_valid_ranges_which_groups_only_narrow() -> None:
    network = {"network": {"rule": "oja", "hidden_size": 4}}
    free = make(policy_kwargs=network, sigma=2.0, population_size=40)
    narrowed = make(policy_kwargs=network, groups={"network.eta": {"low": -3.0, "high": 0.5}})
    place = free.genome.names.index("network.eta")
    gene = sum(int(np.prod(shape)) for shape in free.genome.shapes[:place])
    assert (free.genome.low[gene], free.genome.high[gene]) == (0.0, 1.0)
    assert (narrowed.genome.low[gene], narrowed.genome.high[gene]) == (0.0, 0.5)
    assert np.isinf(np.delete(free.genome.low, gene)).all()
    drawn = np.asarray(free.search.strategy.ask())
    outside = (drawn[:, gene] < 0) | (drawn[:, gene] > 1)
    assert outside.any()
    genes = into_bounds(drawn, free.genome)
    assert genes[:, gene].min() >= 0
    assert genes[:, gene].max() <= 1
    assert np.array_equal(genes[~outside], drawn[~outside])
    first = drawn[outside][0, gene]
    mirrored = abs(first) % 2
    assert genes[outside][0, gene] == pytest.approx(mirrored if mirrored <= 1 else 2 - mirrored)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"evolve": ["network.recurent_weight"]}, "Did you mean 'network.recurrent_weight'"),
        ({"groups": {"nothing.*": {"scale": 2.0}}}, "unknown parameter in algorithm.groups 'nothing"),
        ({"groups": {"*": {"scale": 0.0}}}, "groups.*.scale: must be greater than 0, got 0.0"),
        ({"groups": {"*": {"low": 1.0, "high": 1.0}}}, "low must be below high, got low 1 and high 1"),
        (
            {"groups": {"*": {"low": 30.0}}, "policy_kwargs": TABLE},
            "network.log_step: valid are those from -20 to 20",
        ),
        ({"evolve": []}, "no parameter evolves"),
        ({"population_size": 3}, "population_size: must be greater than or equal to 4, got 3"),
        ({"population_size": 10**9}, "population_size: must be less than or equal to 1000000, got 1000000000"),
        ({"lifetimes": 10**9}, "lifetimes: must be less than or equal to 1000000, got"),
        ({"sigma": 0.0, "lifetimes": 0}, "sigma: must be greater than 0, got 0.0"),
        ({"statistic": "median"}, "statistic: must be 'mean', 'late_half' or 'worst_quartile', got 'median'"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        make(**arguments)
    assert message in str(refusal.value)


# --- a generation --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "network",
    [
        SMALL["network"],
        {"kind": "plastic_feed_forward", "hidden_size": [5], "start": "random"},
        {"kind": "rule_table", "hidden_size": 12, "cap": 3},
    ],
    ids=lambda network: network.get("kind", "plastic_rnn"),
)
def test_individuals_with_equal_genes_live_equal_lives(network: dict[str, Any]) -> None:
    """Tasks, noise of the environment, noise of the actions, random start weights: all are common to the population."""
    agent = make("cma_es_tests/Odd-v0", lifetimes=3, policy_kwargs={"network": network})
    assert agent.evaluator is not None
    genes = np.repeat(agent.search.mean[None], 4, axis=0)
    exam = GenerationSpec(seed=1, generation=7, lifetimes=3)
    returns = agent.evaluator(PopulationChunk(exam, 0, genes))
    assert np.ptp(returns.reward, axis=0).tolist() == [0.0] * 3
    assert np.ptp(returns.steps, axis=0).tolist() == [0] * 3
    assert list(exam.tasks) == [1_000_000_021, 1_000_000_022, 1_000_000_023]
    later = agent.evaluator(PopulationChunk(GenerationSpec(1, 8, 3), 0, genes))
    assert not np.array_equal(later.reward, returns.reward)
    assert np.array_equal(agent.evaluator(PopulationChunk(exam, 0, genes)).reward, returns.reward)


def test_an_individual_lives_as_the_agent_with_its_parameters_would() -> None:
    """The batch over individuals and lifetimes gives the rewards of greedy `predict` in environments of their own."""
    agent = make("cma_es_tests/Odd-v0", env_kwargs={"actions": "box"}, deterministic=True, lifetimes=3)
    assert agent.evaluator is not None
    genes = agent.search.ask()
    exam = GenerationSpec(1, 4, 3)
    returns = agent.evaluator(PopulationChunk(exam, 0, genes))
    tasks = distribution_for("cma_es_tests/Odd-v0").tasks("train", exam.tasks.start, exam.tasks.stop)
    for individual, own in enumerate(genes):
        agent.genome.write(own, agent.policy)
        lifetimes = run_lifetimes(
            agent, "cma_es_tests/Odd-v0", tasks, env_kwargs={"actions": "box"}, deterministic=True
        )
        np.testing.assert_allclose(returns.reward[individual], lifetimes.reward_totals, rtol=1e-4, atol=1e-5)
        assert returns.steps[individual].tolist() == lifetimes.lengths.tolist()


def test_the_statistics_of_fitness() -> None:
    reward = np.array([[1.0, 2.0, 3.0, 4.0, 10.0], [5.0, 5.0, 5.0, 5.0, 5.0]])
    returns = Returns(
        reward, late=reward / 2, score=reward, steps=np.ones((2, 5), np.int64), finite=np.ones((2, 5), np.bool_)
    )
    assert returns.fitness("mean").tolist() == [4.0, 5.0]
    assert returns.fitness("late_half").tolist() == [2.0, 2.5]
    assert returns.fitness("worst_quartile").tolist() == [1.5, 5.0]  # the worst 2 of 5


def test_the_late_half_is_that_of_each_lifetime() -> None:
    agent = make("cma_es_tests/Odd-v0", env_kwargs={"actions": "discrete"}, lifetimes=4, deterministic=True)
    assert agent.evaluator is not None
    # Always the action 2, worth 2: the late half of n steps is n - n // 2 of them.
    with torch.no_grad():
        agent.policy.action_head.bias[:] = torch.tensor([0.0, 0.0, 100.0])
    agent.begin_search()
    returns = agent.evaluator(PopulationChunk(GenerationSpec(0, 0, 4), 0, agent.search.mean[None]))
    assert returns.reward[0].tolist() == (2.0 * returns.steps[0]).tolist()
    assert returns.late[0].tolist() == (2.0 * (returns.steps[0] - returns.steps[0] // 2)).tolist()
    assert len(set(returns.steps[0].tolist())) > 1


def test_fitness_is_the_reward_and_never_what_knows_the_task() -> None:
    agent = make()
    assert agent.evaluator is not None
    returns = agent.evaluator(PopulationChunk(GenerationSpec(0, 0, 2), 0, agent.search.ask()))
    assert np.array_equal(returns.fitness("mean"), returns.reward.mean(1))
    assert not np.allclose(returns.reward, returns.score)
    assert set(np.unique(returns.reward % 1)) == {0.0}  # rewards of the bandit are 0 and 1


@pytest.mark.parametrize("spoilt", ["nan", "inf"])
@pytest.mark.parametrize("what", ["reward", "observation"])
def test_what_the_environment_spoils_is_told_from_what_the_network_does(spoilt: str, what: str) -> None:
    agent = make("cma_es_tests/Odd-v0", env_kwargs={"spoilt": float(spoilt), "what": what})
    named = (
        rf"gave an? {what} of -?{spoilt} after \d steps to individual 0 in generation 0 \(seed 3, train task "
        r"300000000\d\) \(environment seed \d+\); look at the environment"
    )
    with pytest.raises(NonFiniteError, match=named):
        agent.learn(generations=1)


# --- stable-baselines3's own tools ---------------------------------------------------------------------------------


def make_bandit() -> gym.Env[Any, Any]:
    return Monitor(gym.make(BANDIT, steps=12))


def test_callbacks_count_generations_and_see_the_mean(tmp_path: Path) -> None:
    agent = make()
    evaluation = EvalCallback(
        DummyVecEnv([make_bandit]), eval_freq=2, n_eval_episodes=2, best_model_save_path=str(tmp_path), verbose=0
    )
    saving = CheckpointCallback(save_freq=3, save_path=str(tmp_path), name_prefix="agent")
    agent.learn(6 * 2 * 12 * 6, callback=[evaluation, saving])
    assert agent.iterations == 6
    assert evaluation.n_calls == 6
    assert {path.name for path in tmp_path.iterdir()} >= {
        "best_model.zip",
        "agent_432_steps.zip",
        "agent_864_steps.zip",
    }
    third = CMAES.load(tmp_path / "agent_432_steps.zip", env=BANDIT)
    third.learn(generations=3, reset_num_timesteps=False)
    assert np.array_equal(third.search.mean, agent.search.mean)


def test_the_progress_bar_counts_steps(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tqdm")
    make().learn(generations=3, progress_bar=True)
    shown = "".join(capsys.readouterr())
    assert "432/432" in shown


def test_a_callback_can_stop_it() -> None:
    agent = make()
    stop = StopTrainingOnRewardThreshold(reward_threshold=-1.0)
    agent.learn(10**9, callback=EvalCallback(DummyVecEnv([make_bandit]), callback_on_new_best=stop, eval_freq=1))
    assert agent.iterations == 1


def test_evaluate_policy_and_foreign_lifetimes() -> None:
    agent = make().learn(generations=1)
    mean, _ = evaluate_policy(agent, agent.get_env(), n_eval_episodes=4, warn=False)
    assert 0 <= mean <= 12
    foreign = make("CartPole-v1", lifetimes=1).learn(generations=1)
    mean, _ = evaluate_policy(foreign, Monitor(Lifetime(gym.make("CartPole-v1"))), n_eval_episodes=1)
    assert mean >= 8


def test_the_log_says_how_the_search_stands(tmp_path: Path) -> None:
    agent = make()
    agent.set_logger(configure(str(tmp_path), ["csv"]))
    agent.learn(generations=3, log_interval=1)
    header, *rows = (tmp_path / "progress.csv").read_text().splitlines()
    columns = header.split(",")
    assert len(rows) == 3
    for name in ("fitness/mean", "fitness/best", "search/sigma", "search/axis_ratio", "search/diversity"):
        values = [float(row.split(",")[columns.index(name)]) for row in rows]
        assert all(np.isfinite(values)), name
    best, mean = (columns.index(f"fitness/{name}") for name in ("best", "mean"))
    assert all(float(row.split(",")[best]) >= float(row.split(",")[mean]) for row in rows)


def test_learn_needs_a_limit() -> None:
    with pytest.raises(ConfigError, match="total_timesteps or generations"):
        make().learn()


@pytest.mark.parametrize(("same", "score"), [(None, 2.0), (True, 2.0), (False, 0.0)])
def test_trials_of_a_foreign_environment_are_one_task_unless_told_otherwise(
    drawing: str, same: bool | None, score: float, tmp_path: Path
) -> None:
    agent = make(drawing, trials=3, same_task_each_trial=same)
    agent.learn(generations=1)
    assert list(agent.score_buffer) == [score]
    agent.save(tmp_path / "agent.zip")
    loaded = CMAES.load(tmp_path / "agent.zip", env=drawing)
    loaded.learn(generations=1)
    assert list(loaded.score_buffer) == [score]
