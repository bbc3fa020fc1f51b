"""stable-baselines3's own tools work with the agent unchanged."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import (
    CheckpointCallback,
    EvalCallback,
    EveryNTimesteps,
    StopTrainingOnRewardThreshold,
)
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecNormalize

import plastic_rl
from plastic_rl.algorithms import CMAES, PlasticA2C, SupervisedGradient
from plastic_rl.algorithms.base import PlasticAlgorithm
from plastic_rl.algorithms.vec_env import FeedbackExemptMeanStd, VecLifetime, VectorEnvAdapter, _row
from plastic_rl.checkpoint import write_checkpoint
from plastic_rl.envs import Lifetime, make_vector
from plastic_rl.errors import ConfigError

BANDIT = "plastic_rl/ReversalBandit-v0"
SMALL = {"network": {"hidden_size": 8}}


def make_bandit() -> gym.Env[Any, Any]:
    assert plastic_rl.__version__  # the import registers the ids, in worker processes too
    return gym.make(BANDIT, steps=20)


def make_cartpole() -> gym.Env[Any, Any]:
    return Lifetime(gym.make("CartPole-v1"))


def make(env: Any, **kwargs: Any) -> PlasticA2C:
    return PlasticA2C("BackpropaminePolicy", env, **{"seed": 3, "policy_kwargs": SMALL, "n_envs": 4, **kwargs})


@pytest.mark.parametrize("kind", [DummyVecEnv, SubprocVecEnv])
def test_vec_envs_of_scalar_environments_train_like_the_vectorised_one(kind: type[Any]) -> None:
    """The scalar environments in any VecEnv give the very transitions of the natively vectorised family."""
    rows = kind([make_bandit for _ in range(2)])
    scalar = make(rows, env_kwargs={}).learn(2 * 20)
    vector = make(BANDIT, n_envs=2, env_kwargs={"steps": 20}).learn(2 * 20)
    assert scalar.num_timesteps == vector.num_timesteps == 40
    assert np.array_equal(scalar.rollout.observations[0], vector.rollout.observations[0])
    assert scalar.n_steps == vector.n_steps == 20
    assert len(scalar.score_buffer) == 2
    rows.close()


@pytest.fixture
def double_by_default() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def small_agents() -> Iterator[PlasticAlgorithm]:
    common: dict[str, Any] = {"env_kwargs": {"steps": 8}, "seed": 3}
    for rule in ("backpropamine_fan_out", "reward_gated", "bcm", "general"):
        network = {"rule": rule, "hidden_size": 4}
        yield PlasticA2C("PlasticPolicy", BANDIT, n_envs=2, policy_kwargs={"network": network}, **common).learn(48)
    for policy in ("GRUPolicy", "LSTMPolicy", "RNNPolicy"):
        yield PlasticA2C(policy, BANDIT, n_envs=2, optimizer="rmsprop", **common).learn(48)
    yield PlasticA2C("BackpropaminePolicy", "Pendulum-v1", n_envs=2, n_steps=8, seed=3).learn(48)
    network = {"kind": "rule_table", "hidden_size": 8, "output_table": "supervised"}
    teaching = {"data": "D", "steps": 8}
    yield SupervisedGradient(
        "PlasticPolicy",
        "plastic_rl/SupervisedClassification-v0",
        n_envs=2,
        seed=3,
        env_kwargs=teaching,
        policy_kwargs={"network": network},
    ).learn(48)
    for network in ({"rule": "oja", "hidden_size": 3}, {"kind": "plastic_feed_forward", "hidden_size": 3}):
        evolving = CMAES(
            "PlasticPolicy", BANDIT, population_size=4, lifetimes=2, policy_kwargs={"network": network}, **common
        )
        yield evolving.learn(generations=3)


def bytes_of(agent: PlasticAlgorithm, folder: Path) -> dict[str, bytes]:
    write_checkpoint(folder, agent.get_checkpoint())
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.fixture(scope="module")
def as_always(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, bytes]]:
    return [bytes_of(agent, tmp_path_factory.mktemp("agents") / "64") for agent in small_agents()]


@pytest.mark.usefixtures("double_by_default")
def test_torchs_default_type_changes_no_byte(as_always: list[dict[str, bytes]], tmp_path: Path) -> None:
    for number, (agent, expected) in enumerate(zip(small_agents(), as_always, strict=True)):
        assert {p.dtype for p in agent.policy.parameters()} == {torch.float32}, number
        assert bytes_of(agent, tmp_path / str(number)) == expected, number
        again = type(agent).load(tmp_path / str(number), env=agent.env_id)
        observations = np.zeros((2, agent.policy.input_size), np.float32)
        agent.policy.sampling.manual_seed(1)
        again.policy.sampling.manual_seed(1)
        assert np.array_equal(agent.predict(observations)[0], again.predict(observations)[0]), number


def test_evaluate_policy_resets_plastic_state_exactly_at_episode_starts() -> None:
    """Every lifetime that evaluate_policy runs is the one that a fresh agent would live."""
    agent = make(BANDIT, env_kwargs={"steps": 20}).learn(160)
    env = VectorEnvAdapter(make_vector(BANDIT, 3, env_kwargs={"steps": 20}))
    env.seed(5)
    rewards, lengths = evaluate_policy(
        agent, env, n_eval_episodes=9, deterministic=True, return_episode_rewards=True, warn=False
    )
    assert lengths == [20] * 9
    env.seed(5)
    expected: list[float] = []
    observations, state, start = env.reset(), None, np.ones(3, bool)
    totals = np.zeros(3)
    for _ in range(3 * 20):
        actions, state = agent.predict(observations, state, start, deterministic=True)
        observations, reward, start, _ = env.step(actions)
        totals += reward
        if start.any():
            expected += totals.tolist()
            totals[:] = 0.0
            state = None  # born again: must change nothing
    assert sorted(rewards) == sorted(expected)


def test_reset_infos_are_those_of_each_row() -> None:
    env = VectorEnvAdapter(make_vector(BANDIT, 3, env_kwargs={"steps": 20}))
    env.reset()
    assert [info["task"].index for info in env.reset_infos] == [0, 1, 2]
    assert not [name for info in env.reset_infos for name in info if name.startswith("_")]
    infos = {"episode": {"r": np.zeros(2)}, "_episode": np.zeros(2, np.bool_), "step": np.arange(2)}
    assert _row(infos, 1) == {"step": 1}


def test_predict_copies_episode_start_and_state() -> None:
    agent = make(BANDIT, env_kwargs={"steps": 20})
    observations, start = np.zeros((3, 5), np.float32), np.array([True, False, True])
    _, state = agent.predict(observations, None, start)
    kept = {name: entry.clone() for name, entry in state.items()}
    start[:] = False
    agent.predict(observations + 1.0, state, start)
    assert all((state[name] == kept[name]).all() for name in kept)
    action, _ = agent.predict(observations[0])
    assert np.shape(action) == ()


def test_eval_callback_stops_at_the_threshold_and_saves_the_best(tmp_path: Path) -> None:
    agent = make(BANDIT, env_kwargs={"steps": 20})
    evaluation = EvalCallback(
        DummyVecEnv([lambda: Monitor(make_bandit())]),
        callback_on_new_best=StopTrainingOnRewardThreshold(reward_threshold=1.0),
        eval_freq=20,
        n_eval_episodes=2,
        best_model_save_path=str(tmp_path / "best"),
        log_path=str(tmp_path / "log"),
        verbose=0,
    )
    agent.learn(100_000, callback=evaluation)
    assert agent.num_timesteps == 4 * 20
    best = PlasticA2C.load(tmp_path / "best" / "best_model")
    observations = np.zeros((2, 5), np.float32)
    assert np.array_equal(
        best.predict(observations, deterministic=True)[0], agent.predict(observations, deterministic=True)[0]
    )


def test_checkpoint_callback_saves_files_that_load_and_go_on(tmp_path: Path) -> None:
    agent = make(BANDIT, env_kwargs={"steps": 20})
    agent.learn(4 * 60, callback=CheckpointCallback(save_freq=25, save_path=str(tmp_path), name_prefix="agent"))
    saved = sorted(path.name for path in tmp_path.iterdir())
    assert saved == ["agent_100_steps.zip", "agent_200_steps.zip"]
    loaded = PlasticA2C.load(tmp_path / "agent_100_steps", env=BANDIT, force_reset=False)
    assert loaded.num_timesteps == 100
    assert int(loaded._last_obs[0, -1] * 20) == 5  # in mid-lifetime, 5 steps into the second
    loaded.learn(80, reset_num_timesteps=False)
    assert loaded.num_timesteps == 180


def test_an_agent_loaded_without_an_environment_says_how_to_give_it_one(tmp_path: Path) -> None:
    make(BANDIT, env_kwargs={"steps": 20}).learn(80).save(tmp_path / "agent")
    learnt = []
    for _ in range(2):
        agent = PlasticA2C.load(tmp_path / "agent")
        with pytest.raises(ConfigError, match=r"this PlasticA2C was made or loaded without an environment.*set_env"):
            agent.learn(80)
        agent.set_env(BANDIT)
        assert agent.learn(80, reset_num_timesteps=False).num_timesteps == 160
        learnt.append(agent.policy.state_dict())
    assert all(torch.equal(value, learnt[1][name]) for name, value in learnt[0].items())


def test_vec_normalize_leaves_the_feedback_alone() -> None:
    inner = DummyVecEnv([make_cartpole for _ in range(3)])
    env = VecNormalize(inner)
    agent = make(env, n_steps=32)
    agent.learn(3 * 64)
    layout = agent.description.feedback
    assert isinstance(env.obs_rms, FeedbackExemptMeanStd)
    columns = slice(layout.start, layout.stop)
    assert np.array_equal(env.obs_rms.mean[columns], np.zeros(5))
    assert np.array_equal(env.obs_rms.var[columns], np.ones(5))
    assert not np.allclose(env.obs_rms.var[: layout.start], 1.0)
    seen = agent.rollout.observations.numpy()
    assert set(np.unique(seen[:, :, layout.action[0] : layout.action[1]]).round(6)) == {0.0, 1.0}
    assert set(np.unique(seen[:, :, layout.reward[0]]).round(6)) == {0.0, 1.0}
    # The statistics reach an evaluation environment as EvalCallback copies them, exemption included.
    test = VecNormalize(DummyVecEnv([make_cartpole]), training=False)
    agent.learn(96, callback=EvalCallback(test, eval_freq=32, n_eval_episodes=1, verbose=0), reset_num_timesteps=False)
    assert np.array_equal(test.obs_rms.mean[columns], np.zeros(5))


class Generous(gym.RewardWrapper[Any, Any]):
    """Pays 100 a step."""

    def reward(self, reward: Any) -> float:
        return 100.0


def test_vec_normalize_does_not_clip_the_feedback() -> None:
    def make_generous() -> gym.Env[Any, Any]:
        return Lifetime(Generous(gym.make("CartPole-v1")))

    env = VecNormalize(DummyVecEnv([make_generous, make_generous]), clip_obs=0.5)
    test = VecNormalize(DummyVecEnv([make_generous]), clip_obs=0.5, training=False)
    callback = EvalCallback(test, eval_freq=16, n_eval_episodes=1, verbose=0)
    agent = make(env, n_steps=32).learn(64, callback=[EveryNTimesteps(10_000, callback), callback])
    layout = agent.description.feedback
    seen = agent.rollout.observations.numpy()
    assert set(np.unique(seen[:, :, layout.reward[0]]).round(3)) == {0.0, 100.0}
    assert abs(seen[:, :, : layout.start]).max() == 0.5
    test.reset()
    shown = test.step(np.zeros(1, np.int64))[0][0]
    assert shown[layout.reward[0]] == pytest.approx(100.0)
    assert shown[layout.action[0]] == pytest.approx(1.0)
    assert abs(shown[: layout.start]).max() <= 0.5


def test_vec_normalize_around_an_environment_without_feedback() -> None:
    env = VecNormalize(DummyVecEnv([lambda: gym.make("CartPole-v1") for _ in range(2)]))
    agent = make(env, n_steps=16).learn(64)
    assert isinstance(agent.env, VecLifetime)
    layout = agent.description.feedback
    rewards = agent.rollout.observations[..., layout.reward[0]]
    assert set(rewards.unique().tolist()) <= {0.0, 1.0}
    assert (agent.rollout.rewards != 1.0).any()  # what is learned from is normalised


@pytest.mark.parametrize("limited", [True, False])
def test_vec_lifetime_shows_what_lifetime_shows(limited: bool) -> None:
    """The vectorised wrapper and the scalar one give the same observations, step for step."""

    def make_inner() -> gym.Env[Any, Any]:
        env = gym.make("CartPole-v1")
        return env if limited else type(env.unwrapped)()  # without a spec there is no time limit

    wrapped = VecLifetime(DummyVecEnv([make_inner]))
    scalar = DummyVecEnv([lambda: Lifetime(make_inner())])
    for env in (wrapped, scalar):
        env.seed(1)
    assert np.allclose(wrapped.reset(), scalar.reset())
    generator = np.random.default_rng(0)
    ends = 0
    for _ in range(200):
        action = generator.integers(2, size=1)
        one, two = wrapped.step(action), scalar.step(action)
        assert np.allclose(one[0], two[0])
        assert one[2][0] == two[2][0]
        if one[2][0]:
            ends += 1
            assert np.allclose(one[3][0]["terminal_observation"], two[3][0]["terminal_observation"])
    assert ends > 3


@pytest.mark.parametrize("env_id", ["CartPole-v1", "FrozenLake-v1", "Pendulum-v1"])
def test_plain_gymnasium_ids_train(env_id: str) -> None:
    agent = make(env_id, n_steps=10).learn(4 * 20)
    assert agent.num_timesteps == 80
    mean, _ = evaluate_policy(agent, agent.get_env(), n_eval_episodes=2, warn=False)
    assert np.isfinite(mean)


def test_saved_agent_is_the_same_agent(tmp_path: Path) -> None:
    agent = make(BANDIT, env_kwargs={"steps": 20}).learn(160)
    agent.save(tmp_path / "agent")
    loaded = PlasticA2C.load(tmp_path / "agent.zip")
    generator = np.random.default_rng(0)
    one: Any = None
    two: Any = None
    for step in range(10):
        observations = generator.random((6, 5), dtype=np.float32)
        start = np.full(6, step == 0)
        first, one = agent.predict(observations, one, start, deterministic=True)
        second, two = loaded.predict(observations, two, start, deterministic=True)
        assert np.array_equal(first, second)


def test_lifetimes_that_start_anew_after_loading_have_scores_of_their_own(tmp_path: Path) -> None:
    agent = make(BANDIT, env_kwargs={"steps": 20}, n_steps=15).learn(4 * 15)
    agent.save(tmp_path / "agent")
    loaded = PlasticA2C.load(tmp_path / "agent", env=BANDIT)
    assert loaded.lifetime_scores.all()  # 15 steps into the stored lifetimes
    loaded.learn(4 * 15, reset_num_timesteps=False)
    assert (loaded.lifetime_scores <= 15 * 0.8 + 1e-9).all()
    assert not loaded.score_buffer


@pytest.mark.parametrize("kind", [DummyVecEnv, SubprocVecEnv])
@pytest.mark.parametrize("make_env", [make_bandit, make_cartpole])
def test_environments_in_stable_baselines3s_vec_envs_start_anew_with_a_warning(
    tmp_path: Path, kind: type[Any], make_env: Any
) -> None:
    """Saving must not harm them, whatever they are: a worker that is asked for what it lacks would die."""
    rows = kind([make_env for _ in range(2)])
    agent = make(rows, n_steps=7).learn(14)
    agent.save(tmp_path / "agent")
    agent.learn(14, reset_num_timesteps=False)
    with pytest.warns(UserWarning, match="its lifetimes start anew"):
        loaded = PlasticA2C.load(tmp_path / "agent", env=rows, force_reset=False)
    loaded.learn(14, reset_num_timesteps=False)
    assert loaded.num_timesteps == 28
    assert loaded.rollout.episode_starts[0].all()
    rows.close()


@pytest.mark.parametrize("normalised", [False, True])
def test_foreign_environments_go_on_with_their_very_next_lifetimes(tmp_path: Path, normalised: bool) -> None:
    def rows() -> Any:
        env = VectorEnvAdapter(make_vector("CartPole-v1", 2))
        return VecNormalize(env) if normalised else env

    agent = make(rows(), n_steps=7).learn(14)
    before = [task.index for task in agent.env.get_attr("tasks")[0]]
    agent.save(tmp_path / "agent")
    with pytest.warns(UserWarning, match="its lifetimes start anew"):
        loaded = PlasticA2C.load(tmp_path / "agent", env=rows(), force_reset=False)
    tasks = loaded.env.get_attr("tasks")[0]
    assert [task.index for task in tasks] == [index + 2 for index in before]
    own = loaded.env.venv if normalised else loaded.env
    shown = own.env.observe()
    expected = loaded.env.normalize_obs(shown) if normalised else shown
    np.testing.assert_allclose(loaded._last_obs, expected)
    loaded.learn(14, reset_num_timesteps=False)
    loaded.env.reset()
    assert [task.index for task in loaded.env.get_attr("tasks")[0]] != [task.index for task in tasks]


@pytest.mark.parametrize("n_steps", [None, 7])
def test_going_on_from_a_file_gives_the_bytes_of_not_having_stopped(tmp_path: Path, n_steps: int | None) -> None:
    whole = make(BANDIT, env_kwargs={"steps": 20}, n_steps=n_steps)
    whole.learn(4 * 140)
    half = make(BANDIT, env_kwargs={"steps": 20}, n_steps=n_steps)
    half._total_timesteps = 4 * 140
    half.learn(4 * 140 // 2 if n_steps is None else 4 * 70)
    half.save(tmp_path / "half")
    rest = PlasticA2C.load(tmp_path / "half", env=BANDIT, force_reset=False)
    rest.learn(4 * 140 - rest.num_timesteps, reset_num_timesteps=False)
    assert rest.num_timesteps == whole.num_timesteps
    for (name, one), (_, two) in zip(whole.policy.named_parameters(), rest.policy.named_parameters(), strict=True):
        assert one.equal(two), name
    assert list(whole.score_buffer) == list(rest.score_buffer)
