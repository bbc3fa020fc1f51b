"""PlasticA2C itself: what one iteration computes, what is carried from rollout to rollout, what is refused."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from plastic_rl.algorithms import PlasticA2C
from plastic_rl.algorithms.a2c import advantages_and_returns
from plastic_rl.algorithms.vec_env import VectorEnvAdapter
from plastic_rl.config import Schedule
from plastic_rl.envs import Lifetime, ScalarVectorEnv
from plastic_rl.errors import ConfigError, NonFiniteError, SpaceError, UnknownNameError
from plastic_rl.networks.native import Acting
from plastic_rl.plasticity import TERMS, Parameter
from plastic_rl.plasticity.terms import Hebb
from plastic_rl.policies.policy import ArrayHead
from tests.algorithms.a2c_cases import BANDIT, equal, make, params_of

pytestmark = pytest.mark.usefixtures("each_core")


def test_rollout_is_one_lifetime_by_default() -> None:
    agent = make()
    assert agent.n_steps == 20
    agent.learn(4 * 20 * 3)
    assert (agent.num_timesteps, agent.iterations, agent._n_updates) == (240, 3, 3)
    assert len(agent.score_buffer) == 12
    assert all(4.0 - 1e-6 <= score <= 16.0 + 1e-6 for score in agent.score_buffer)  # 20 pulls of .2 or .8
    agent.learn(80)  # counted anew, as in stable-baselines3
    assert (agent.num_timesteps, agent.iterations, agent._n_updates) == (80, 1, 4)
    agent.learn(80, reset_num_timesteps=False)
    assert (agent.num_timesteps, agent.iterations, agent._n_updates) == (160, 2, 5)


def test_same_seed_same_bytes_and_global_streams_untouched() -> None:
    random.seed(11)
    np.random.seed(11)  # noqa: NPY002
    torch.manual_seed(11)
    before = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state())  # type: ignore[index]  # noqa: NPY002
    one, two, other = make().learn(400), make().learn(400), make(seed=4).learn(400)
    after = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state())  # type: ignore[index]  # noqa: NPY002
    assert before[:2] == after[:2]
    assert torch.equal(before[2], after[2])
    assert equal(params_of(one), params_of(two))
    assert not equal(params_of(one), params_of(other))


def test_neighbouring_seeds_share_no_noise() -> None:
    """Row i of the environments is keyed by their seed plus i, so their seed must not be the run's."""
    keys = []
    for seed in (0, 1, 2):
        agent = make(seed=seed, n_envs=8)
        agent.learn(8)
        assert isinstance(agent.env, VectorEnvAdapter)
        keys.append(agent.env.get_state()["vector_env"]["seeds"])
    first = [rows[0] for rows in keys]
    assert all(rows == list(range(rows[0], rows[0] + 8)) for rows in keys)
    assert all(0 <= seed < 2**31 for seed in first)
    assert len({key for rows in keys for key in rows}) == 24


def test_neighbouring_seeds_meet_other_tasks() -> None:
    met = []
    for seed in (0, 1, 2):
        agent = make(seed=seed, n_envs=4)
        agent.learn(8)
        assert isinstance(agent.env, VectorEnvAdapter)
        met.append([task["index"] for task in agent.env.get_state()["vector_env"]["tasks"]])
    assert met[0] == [4, 5, 6, 7]  # their second lifetimes have begun
    assert len({index for rows in met for index in rows}) == 12


@pytest.mark.parametrize("policy", ["BackpropaminePolicy", "PlasticPolicy", "RNNPolicy", "GRUPolicy", "LSTMPolicy"])
@pytest.mark.parametrize("n_steps", [None, 7])
def test_unroll_reproduces_what_acting_computed(policy: str, n_steps: int | None) -> None:
    """The log probabilities that learning sees are those of the actions that were taken, starts in mid-rollout too."""
    agent = make(policy=policy, n_steps=n_steps)
    seen: list[torch.Tensor] = []
    choose = ArrayHead.choose

    def record(head: ArrayHead, logits: Any, noise: torch.Tensor | None) -> Any:
        actions = choose(head, logits, noise)
        chosen = torch.from_numpy(actions).unsqueeze(-1)
        seen.append(torch.log_softmax(torch.from_numpy(logits), -1).gather(-1, chosen).squeeze(-1))
        return actions

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ArrayHead, "choose", record)
        agent.learn(4 * 20 * 2)
    steps = agent.n_steps
    if isinstance(agent.rollout.recording, Acting):  # the native core chooses by outputs of its own
        logs = torch.log_softmax(agent.rollout.recording.run.output, -1)
        seen = list(logs.gather(-1, agent.rollout.actions.unsqueeze(-1)).squeeze(-1))
    before = make(policy=policy, n_steps=n_steps)
    before.learn(agent.num_timesteps - 4 * steps)  # the parameters with which the last rollout was acted
    with torch.no_grad():
        result = before.policy.evaluate(
            before.policy.parameters_by_name(),
            agent.rollout.observations,
            agent.rollout.actions,
            agent.state_before,
            agent.rollout.episode_starts,
        )
    assert torch.allclose(result.log_probability, torch.stack(seen[-steps:]), atol=2e-6)
    if n_steps == 7:
        assert agent.rollout.episode_starts[1:].any()


def test_state_is_carried_between_truncated_rollouts() -> None:
    agent = make(n_steps=5)
    agent.learn(4 * 5 * 2)  # two rollouts inside the first lifetime of 20 steps
    assert agent.state_before["trace"].abs().sum().item() > 0
    assert not agent.rollout.episode_starts.any()
    assert all(not entry.requires_grad for entry in agent._plastic_state.values())


CASES: dict[str, dict[str, Any]] = {
    "one lifetime": {},
    "truncated": {"n_steps": 7},
    "dummy steps": {"n_steps": 21},
    "normalised": {"n_steps": 21, "normalize_advantage": True},
    "centred and scaled": {"n_steps": 21, "center_rewards": True, "reward_scale": 0.3},
    "scheduled": {"ent_coef": Schedule(start=0.5, end=0.03), "sum_p2_coef": Schedule(start=0.0, end=0.2)},
}


@pytest.mark.parametrize("case", CASES)
def test_loss_of_one_iteration_by_hand(case: str) -> None:
    """Policy, value, entropy and sum-of-squares terms and their gradient, of the last of three rollouts."""
    settings = {"ent_coef": 0.03, "sum_p2_coef": 0.2, "n_steps": 20, **CASES[case]}
    steps, scale = settings["n_steps"], settings.get("reward_scale", 1.0)
    env: Any = BANDIT
    if steps == 21:  # the last step is none of any lifetime
        env = gym.make_vec(BANDIT, 4, autoreset_mode=gym.vector.AutoresetMode.NEXT_STEP, steps=20)
    agent = make(env, learning_rate=0.0, vf_coef=0.7, gamma=0.8, gae_lambda=0.6, **settings)
    with torch.no_grad():  # values and preferences that differ from step to step
        agent.policy.value_head.weight.add_(0.5)
        agent.policy.action_head.weight.mul_(20.0)
    agent.learn(3 * 4 * steps, log_interval=0)
    rollout, policy, lived = agent.rollout, agent.policy, slice(0, 20)
    features, state = policy.network.unroll_reference(
        dict(policy.network.named_parameters()),
        rollout.observations,
        policy.feedback(rollout.observations, rollout.episode_starts),
        agent.state_before,
        rollout.episode_starts,
    )
    dist = torch.distributions.Categorical(logits=policy.action_head(features))
    values = policy.value_head(features).squeeze(-1)
    last, starts = torch.from_numpy(agent._last_obs), torch.from_numpy(agent._last_episode_starts)
    last_values = policy.value(policy.parameters_by_name(), last, state, starts).detach()
    rewards = rollout.rewards - (agent._reward_mean if settings.get("center_rewards") else 0.0)
    assert not rollout.bootstrap.any()
    advantages, returns = advantages_and_returns(
        rewards * scale, values.detach(), rollout.ended, rollout.bootstrap, last_values, 0.8, 0.6
    )
    unexplained = (returns - values)[lived].var() / returns[lived].var()
    if settings.get("normalize_advantage"):
        advantages = (advantages - advantages[lived].mean()) / advantages[lived].std()
    loss = -(advantages * dist.log_prob(rollout.actions)) + 0.7 * (returns - values).square()
    loss = (loss - 0.03 * dist.entropy() + 0.2 * dist.probs.square().sum(-1))[lived].mean()
    slopes = torch.autograd.grad(loss, list(policy.parameters()), allow_unused=True)
    slope = torch.cat([torch.zeros(0) if entry is None else entry.flatten() for entry in slopes]).norm()
    logged = agent.logger.name_to_value
    assert logged["train/gradient_norm"] == pytest.approx(slope.item(), rel=1e-4)
    assert logged["train/loss"] == pytest.approx(loss.item(), abs=1e-5)
    assert logged["train/explained_variance"] == pytest.approx(1 - unexplained.item(), abs=1e-4)


def test_centred_rewards_are_rewards_less_their_running_mean() -> None:
    agent = make(center_rewards=True)
    agent.learn(80)
    assert agent._reward_count == 80
    assert agent._reward_mean == pytest.approx(agent.rollout.rewards.mean().item(), abs=1e-6)
    first = agent.rollout.rewards.sum().item()
    agent.learn(80, reset_num_timesteps=False)
    assert agent._reward_mean == pytest.approx((first + agent.rollout.rewards.sum().item()) / 160, abs=1e-6)
    other = make(center_rewards=True)
    other.set_checkpoint(agent.get_checkpoint())
    assert (other._reward_mean, other._reward_count) == (agent._reward_mean, 160)
    with pytest.raises(ConfigError, match="center_rewards needs lifetimes of a fixed length"):
        make("CartPole-v1", center_rewards=True)


def test_discount_follows_its_schedule() -> None:
    """The last of four updates uses gamma = .99, as if it had been that from the start of the rollout."""
    agent = make(gamma=Schedule(start=0.59, end=0.99), learning_rate=0.0, gae_lambda=1.0)
    agent.learn(80 * 4, log_interval=0)
    assert agent.gamma == pytest.approx(0.99)
    constant = make(gamma=0.99, learning_rate=0.0, gae_lambda=1.0)
    constant.learn(80 * 4, log_interval=0)
    losses = [one.logger.name_to_value["train/value_loss"] for one in (agent, constant)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    agent = make(gamma=Schedule(start=0.59, end=0.99), learning_rate=0.0, gae_lambda=1.0)
    agent.learn(80 * 2, log_interval=0)
    assert agent.gamma == pytest.approx(0.99)  # progress counts within each call of learn


def test_reward_scale_is_for_learning_only() -> None:
    """With values at 0 and plain returns, the value loss scales with the square; scores and feedback do not."""
    losses, scores = [], []
    for scale in (1.0, 0.1):
        agent = make(reward_scale=scale, gae_lambda=1.0)
        with torch.no_grad():
            agent.policy.value_head.weight.zero_()
        agent.learn(80, log_interval=0)
        losses.append(agent.logger.name_to_value["train/value_loss"])
        scores.append(list(agent.score_buffer))
    assert losses[1] == pytest.approx(0.01 * losses[0], rel=1e-5)
    assert scores[0] == scores[1]
    with pytest.raises(ConfigError, match="reward_scale: must be greater than 0"):
        make(reward_scale=0.0)


def test_the_gradient_is_scaled_down_to_its_largest_norm() -> None:
    agent = make(max_grad_norm=1e-3)
    agent.learn(80, log_interval=0)
    assert agent.logger.name_to_value["train/gradient_norm"] > 1e-2
    taken = torch.cat([p.grad.flatten() for p in agent.policy.parameters() if p.grad is not None])
    assert taken.norm().item() == pytest.approx(1e-3, rel=1e-3)


def test_plasticity_has_its_own_learning_rate() -> None:
    agent = make(plasticity_lr_scale=0.0, learning_rate=Schedule(start=1e-2, end=0.0))
    before = params_of(agent)
    agent.learn(400)
    after = params_of(agent)
    frozen = set(agent.policy.plasticity_parameters())
    assert frozen
    assert all(torch.equal(before[name], after[name]) for name in frozen)
    assert not torch.equal(before["network.recurrent_weight"], after["network.recurrent_weight"])


def test_parameters_have_learning_rates_by_patterns_of_their_names() -> None:
    scales = {"network.*": 3.0, "network.recurrent_weight": 0.5, "*head.bias": 0.1}
    agent = make(learning_rate=1e-4, lr_scales=scales, plasticity_lr_scale=7.0, optimizer_eps=1e-30)
    before = params_of(agent)
    agent.learn(80)
    after = params_of(agent)

    # Adam's first step is as long as the learning rate, in each number that has a gradient.
    def step(name: str) -> float:
        return (after[name] - before[name]).abs().max().item()

    assert step("network.recurrent_weight") == pytest.approx(0.5e-4, rel=1e-2)
    assert step("network.input_weight") == pytest.approx(3e-4, rel=1e-2)
    assert step(next(name for name in agent.policy.plasticity_parameters())) == pytest.approx(3e-4, rel=1e-2)
    assert step("action_head.weight") == pytest.approx(1e-4, rel=1e-2)
    assert step("action_head.bias") == pytest.approx(1e-5, rel=2e-2)
    with pytest.raises(ConfigError, match=r"unknown parameter in algorithm\.lr_scales"):
        make(lr_scales={"network.eeta": 2.0})
    with pytest.raises(ConfigError, match=r"lr_scales.*: must be greater than 0"):
        make(lr_scales={"network.eta": 0.0})


def test_gradient_steps_are_projected_onto_valid_ranges() -> None:
    agent = make(learning_rate=5.0, policy_kwargs={"network": {"rule": "oja", "hidden_size": 8}}, max_grad_norm=1e3)
    reached = []

    class Watch(BaseCallback):
        def _on_step(self) -> bool:
            return True

        def _on_rollout_start(self) -> None:
            reached.append(params_of(self.model)["network.eta"].item())

    agent.learn(80 * 8, callback=Watch())
    # Adam's first step is as long as the learning rate: it ends at an end of the range.
    assert reached[1] in {0.0, 1.0}
    assert all(0.0 <= eta <= 1.0 for eta in reached)


class Drifting(Hebb):
    """Hebb's product plus a constant that is a gain of its own."""

    def parameters(self, *sizes: Any, **kwargs: Any) -> dict[str, Parameter]:
        return {"drift": Parameter(torch.full((1, 1), 0.1), valid=(0.0, 0.5))}

    def change(self, params: Any, *activity: Any, **kwargs: Any) -> torch.Tensor:
        return super().change(params, *activity, **kwargs) + params["drift"].unsqueeze(-3)


def test_parameters_of_a_term_from_outside_are_gains_and_those_of_built_in_terms_are_not() -> None:
    TERMS.register("drifting", Drifting, replace=True)
    try:
        own = make(policy_kwargs={"network": {"rule": "hard_clip", "term": "drifting", "hidden_size": 4}})
    finally:
        del TERMS._entries["drifting"]
    assert "network.drift" in own.policy.plasticity_parameters()
    assert own.policy.valid_ranges()["network.drift"] == (0.0, 0.5)
    built_in = make(policy_kwargs={"network": {"rule": "abcd", "hidden_size": 4}})
    assert built_in.policy.plasticity_parameters() == ["network.eta"]


def test_learning_rate_schedule_reaches_the_optimizer() -> None:
    agent = make(learning_rate=Schedule(start=1e-2, end=2e-3), optimizer="rmsprop")
    rates: list[float] = []

    class Watch(BaseCallback):
        def _on_step(self) -> bool:
            return True

        def _on_rollout_start(self) -> None:
            rates.append(self.model.policy.optimizer.param_groups[0]["lr"])

    agent.learn(80 * 4, callback=Watch())
    final = agent.policy.optimizer.param_groups[0]["lr"]
    assert [*rates[1:], final] == pytest.approx([8e-3, 6e-3, 4e-3, 2e-3])


def test_fixed_rule_is_the_same_network_without_plasticity() -> None:
    agent = make(policy_kwargs={"network": {"rule": "fixed", "hidden_size": 8}})
    agent.learn(400)
    alpha = params_of(agent)["network.alpha"]
    assert not alpha.any()


class TruncatedCounter(gym.Env[np.ndarray, int]):
    """Reward 1 a step, cut off from outside after some steps: its value is 1 / (1 - gamma)."""

    observation_space = spaces.Box(0.0, 1.0, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, truncate: bool = True, length: int = 5) -> None:
        self.truncate, self.length = truncate, length

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.time = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: int) -> Any:
        self.time += 1
        over = self.time == self.length
        return (
            np.full(1, self.time / self.length, np.float32),
            1.0,
            over and not self.truncate,
            over and self.truncate,
            {},
        )


def test_truncation_bootstraps_with_the_plastic_state_of_that_lifetime() -> None:
    agent = make(Lifetime(TruncatedCounter()), n_steps=7, n_envs=1)
    values: list[torch.Tensor] = []
    value = agent.policy.value

    def record(params: Any, observation: Any, state: Any, start: Any) -> Any:
        result = value(params, observation, state, start)
        values.append(result)
        # A lifetime that goes on: its plastic state must not be the newborn one.
        if len(values) == 1:
            assert not start.any()
            assert any(bool(entry.abs().sum() > 0) for entry in state.values())
            assert observation[0, 0] == 1.0  # the last observation of the lifetime, not the first of the next
        return result

    agent.policy.value = record  # type: ignore[method-assign]
    agent.learn(7)
    assert agent.rollout.ended.squeeze(-1).tolist() == [False] * 4 + [True] + [False] * 2
    assert agent.rollout.bootstrap[4, 0] == values[0][0]
    assert agent.rollout.bootstrap.count_nonzero() == 1
    agent.learn(7, reset_num_timesteps=False)
    assert agent.rollout.bootstrap.nonzero().tolist() == [[2, 0]]  # and no longer step 4
    ends = make(Lifetime(TruncatedCounter(truncate=False)), n_steps=7, n_envs=1)
    ends.learn(7)
    assert not ends.rollout.bootstrap.any()


@pytest.mark.parametrize(
    ("mode", "cut_off"),
    [
        (gym.vector.AutoresetMode.SAME_STEP, [[2, 0], [5, 0], [6, 2]]),
        (gym.vector.AutoresetMode.NEXT_STEP, [[2, 0], [6, 0], [6, 2]]),  # step 3 is a dummy one
    ],
)
def test_only_rows_that_were_cut_off_are_bootstrapped(mode: gym.vector.AutoresetMode, cut_off: list[list[int]]) -> None:
    rows = [TruncatedCounter(length=3), TruncatedCounter(truncate=False, length=3), TruncatedCounter(length=7)]
    agent = make(ScalarVectorEnv(rows, autoreset_mode=mode), n_steps=7)
    agent.learn(3 * 7)
    assert agent.rollout.bootstrap.nonzero().tolist() == cut_off
    ended = agent.rollout.ended & (agent.rollout.counted > 0)
    assert ended.nonzero().tolist() == sorted([*cut_off, *([step, 1] for step, row in cut_off if row == 0)])


def test_scores_are_of_rewards_as_they_were_before_normalisation() -> None:
    env = VecNormalize(DummyVecEnv([lambda: Lifetime(TruncatedCounter())]), norm_obs=False, norm_reward=True)
    agent = make(env, n_steps=10, n_envs=1)
    agent.learn(10)
    assert list(agent.score_buffer) == [5.0, 5.0]
    assert not (agent.rollout.rewards == 1.0).any()


def test_each_step_draws_noise_of_its_own() -> None:
    agent = make(n_envs=16)
    with torch.no_grad():
        agent.policy.action_head.weight.zero_()
    agent.learn(320)
    assert agent.rollout.actions.float().mean().item() == pytest.approx(0.5, abs=4 * 0.5 / 320**0.5)
    assert 0.3 < (agent.rollout.actions[1:] == agent.rollout.actions[:-1]).float().mean().item() < 0.7


def test_scores_of_lifetimes_begin_anew_with_learn() -> None:
    agent = make(Lifetime(TruncatedCounter()), n_steps=3, n_envs=1)
    agent.learn(3)
    agent.learn(6)  # from a new lifetime on
    assert list(agent.score_buffer) == [5.0]
    agent.learn(3, reset_num_timesteps=False)
    agent.learn(3, reset_num_timesteps=False)
    assert list(agent.score_buffer) == [5.0, 5.0]


def test_next_step_autoreset_gives_the_lifetimes_of_same_step_and_counts_no_dummy_step() -> None:
    """Both modes see the same lifetimes; the dummy step is neither learned from nor scored."""
    modes = gym.vector.AutoresetMode
    same, following = (
        make(gym.make_vec(BANDIT, 3, autoreset_mode=mode, steps=20), n_steps=steps)
        for mode, steps in ((modes.SAME_STEP, 41), (modes.NEXT_STEP, 42))
    )
    same.learn(3 * 41)
    following.learn(3 * 42)
    dummy = following.rollout.counted == 0
    assert dummy[20].all()
    assert dummy[41].all()
    assert int(dummy.sum()) == 6
    assert (same.rollout.counted == 1).all()
    assert following.rollout.ended[19].all()
    assert following.rollout.episode_starts[21].all()
    assert not following.rollout.rewards[20].any()
    assert len(same.score_buffer) == len(following.score_buffer) == 6
    assert all(4.0 - 1e-6 <= score <= 16.0 + 1e-6 for score in following.score_buffer)


def test_dummy_steps_count_for_no_mean() -> None:
    following = gym.make_vec(BANDIT, 3, autoreset_mode=gym.vector.AutoresetMode.NEXT_STEP, steps=20)
    agent = make(following, n_steps=21, center_rewards=True)
    agent.learn(3 * 21)
    lived = agent.rollout.counted > 0
    assert int(lived.sum()) == agent._reward_count == 3 * 20
    assert agent._reward_mean == pytest.approx(agent.rollout.rewards[lived].mean().item(), abs=1e-6)
    # Lifetimes of 20 steps and a dummy one: of rollouts of 20 steps the second has it at its start, the third after it.
    agent = make(following, n_steps=20)
    for dummies in ([], [0], [1]):
        agent.learn(3 * 20, reset_num_timesteps=False)
        assert (agent.rollout.counted == 0).all(1).nonzero().flatten().tolist() == dummies
        assert int((agent.rollout.counted == 0).sum()) == 3 * len(dummies)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("normalise", [False, True])
def test_rollouts_of_a_single_step_warn_of_nothing(normalise: bool) -> None:
    agent = make(n_envs=1, n_steps=1, normalize_advantage=normalise).learn(3)
    assert agent.logger.name_to_value["train/explained_variance"] == 0.0
    assert np.isfinite(agent.logger.name_to_value["train/loss"])


def test_nan_is_named_and_parameters_are_left_alone() -> None:
    agent = make(n_steps=None)
    agent.learn(80)
    with torch.no_grad():
        agent.policy.network.get_parameter("alpha").fill_(float("nan"))
    with pytest.raises(NonFiniteError, match=r"update 2, at 160 steps.*parameter network\.alpha"):
        agent.learn(80, reset_num_timesteps=False)
    assert not torch.isnan(agent.policy.network.get_parameter("recurrent_weight")).any()


class NaNReward(TruncatedCounter):
    def step(self, action: int) -> Any:
        observation, _, terminated, truncated, info = super().step(action)
        return observation, float("nan"), terminated, truncated, info


def test_nan_from_the_environment_is_blamed_on_it() -> None:
    with pytest.raises(NonFiniteError, match=r"^reward of environment 0 at step 0 "):
        make(Lifetime(NaNReward()), n_envs=1, n_steps=5).learn(5)


@pytest.mark.parametrize(("same", "score"), [(None, 2.0), (True, 2.0), (False, 0.0)])
def test_trials_of_a_foreign_environment_are_one_task_unless_told_otherwise(
    drawing: str, same: bool | None, score: float, tmp_path: Path
) -> None:
    agent = make(drawing, trials=3, same_task_each_trial=same, n_steps=6)
    agent.learn(24)
    assert list(agent.score_buffer) == [score] * 8
    agent.save(tmp_path / "agent.zip")
    loaded = PlasticA2C.load(tmp_path / "agent.zip", env=drawing)
    assert loaded.settings.same_task_each_trial is same
    loaded.learn(24)
    assert list(loaded.score_buffer) == [score] * 16
    # An environment that was made by hand is given its trials too.
    by_hand = make(gym.make(drawing), trials=3, same_task_each_trial=same, n_steps=6)
    by_hand.learn(6)
    assert list(by_hand.score_buffer) == [score] * 2


def test_bad_arguments_say_what_is_valid() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'BackpropaminePolicy'"):
        make(policy="BackpropaminPolicy")
    with pytest.raises(ConfigError, match="optimizer: must be 'adam' or 'rmsprop', got 'sgd'"):
        make(optimizer="sgd")
    with pytest.raises(ConfigError, match="n_steps"):
        make(n_steps=0)
    with pytest.raises(UnknownNameError, match="ReversalBandit"):
        make("plastic_rl/ReversalBandi-v0")
    with pytest.raises(SpaceError, match="make_vector"):
        make(gym.make_vec("CartPole-v1", 2))
    for name, bad, valid in (
        ("gamma", 1.5, "from 0 to 1"),
        ("gamma", lambda remaining: remaining - 0.5, "from 0 to 1"),
        ("gamma", None, "a number"),
        ("ent_coef", -0.1, "0 or more"),
        ("sum_p2_coef", {"start": 0.0, "end": -1.0}, "0 or more"),
        ("learning_rate", -1e-3, "0 or more"),
        ("gae_lambda", -0.1, "greater than or equal to 0"),
        ("gae_lambda", float("nan"), "a finite number"),
        ("plasticity_lr_scale", -1.0, "greater than or equal to 0"),
        ("vf_coef", "much", "a number"),
        ("max_grad_norm", 0.0, "greater than 0"),
        ("optimizer_eps", -1e-8, "greater than 0"),
        ("n_envs", 0, "greater than or equal to 1"),
        ("trials", 1.5, "a valid integer"),
    ):
        with pytest.raises(ConfigError, match=f"{name}.*: must be {valid}.*got"):
            make(**{name: bad})
    with pytest.raises(ConfigError, match="same_task_each_trial: must be a valid boolean"):
        make(same_task_each_trial="some")
    with pytest.raises(ConfigError, match=r"(?s)2 problems in the arguments of PlasticA2C.*n_steps: must.*gamma: must"):
        make(gamma=2, n_steps=0)
    with pytest.raises(ConfigError, match=r"gae_lamda: unknown key. Did you mean 'gae_lambda'\?"):
        make(gae_lamda=0.9)
    agent = make()
    _, state = agent.predict(np.zeros((4, 5), np.float32))
    with pytest.raises(SpaceError, match="the state is of 4 environments, the observations of 3"):
        agent.predict(np.zeros((3, 5), np.float32), state)
    with pytest.raises(SpaceError, match="episode_start must have 4 entries"):
        agent.predict(np.zeros((4, 5), np.float32), state, np.ones(3, bool))
    with pytest.raises(SpaceError, match="the state must be None or what the last predict returned"):
        agent.predict(np.zeros((4, 5), np.float32), (state,))
    with pytest.raises(SpaceError, match="Lifetime"):
        agent.predict(np.zeros((4, 0), np.float32))
    with pytest.raises(SpaceError, match=r"expected observations \(B, 5\)"):
        agent.predict(np.zeros((4, 9), np.float32))


@pytest.mark.usefixtures("each_core")
def test_parameters_that_a_callback_changes_are_learned_from_as_they_are() -> None:
    """What acting computed by the earlier ones is not mixed with them."""

    class Change(BaseCallback):
        def _on_step(self) -> bool:
            return True

        def _on_rollout_end(self) -> None:
            with torch.no_grad():
                agent.policy.get_parameter("network.recurrent_weight").mul_(0.5)

    agent = make()
    agent.learn(4 * 20, callback=Change())
    assert agent.rollout.recording is None
