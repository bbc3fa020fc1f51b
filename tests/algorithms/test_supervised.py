"""SupervisedGradient: what it learns from, that it finds known solutions, that it resumes, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback

from plastic_rl.algorithms import PlasticA2C, SupervisedGradient
from plastic_rl.config import Schedule
from plastic_rl.envs import make_vector
from plastic_rl.errors import CheckpointError, ConfigError, SpaceError

TAUGHT = "plastic_rl/SupervisedClassification-v0"
SMALL = {
    "kind": "rule_table",
    "hidden_size": 12,
    "cap": 4,
    "rounds": 0,
    "output_table": "supervised",
    "exploration": 0.0,
}


def make(network: dict[str, Any] | None = None, env: Any = TAUGHT, **kwargs: Any) -> SupervisedGradient:
    options: dict[str, Any] = {
        "env_kwargs": {"data": "D", "steps": 30},
        "n_envs": 4,
        "seed": 5,
        "policy_kwargs": {"network": {**SMALL, **(network or {})}},
        **kwargs,
    }
    return SupervisedGradient("PlasticPolicy", env, **options)


def parameters(agent: SupervisedGradient) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in agent.policy.named_parameters()}


def test_labels_are_those_of_the_samples_that_were_answered() -> None:
    # The environment itself tells whether an answer was right: answer everything with class c, and compare.
    agent = make()
    agent.learn(0)
    env: Any = agent.env
    shown = []
    original = env.step

    def step(actions: np.ndarray[Any, Any]) -> Any:
        shown.append(env.env.privileged()["label"].copy())
        return original(actions)

    env.step = step
    agent.learn(4 * 30)
    labels, known = agent.labels()
    assert labels.shape == (30, 4, 4)
    assert known[:-1].all()
    assert not known[-1].any()  # the label of a lifetime's last sample never comes
    assert torch.equal(labels.argmax(-1)[:-1], torch.from_numpy(np.stack(shown))[:-1])


def test_the_last_sample_of_a_lifetime_is_not_taught_in_either_autoreset_mode() -> None:
    for mode, taught in (
        (gym.vector.AutoresetMode.SAME_STEP, [True] * 5 + [False] + [True] * 5 + [False]),
        # The last observation shows the last label, and is answered in a dummy step that is no sample.
        (gym.vector.AutoresetMode.NEXT_STEP, [True] * 5 + [False] * 2 + [True] * 5 + [False] * 2),
    ):
        agent = make(env=gym.make_vec(TAUGHT, 2, autoreset_mode=mode, data="D", steps=6), n_steps=len(taught))
        agent.learn(2 * len(taught))
        assert agent.labels()[1].tolist() == [[known] * 2 for known in taught]


def test_within_a_lifetime_the_last_label_of_a_rollout_is_known() -> None:
    agent = make(n_steps=10)
    agent.learn(4 * 10)
    labels, known = agent.labels()
    assert known.all()
    assert torch.equal(labels.sum(-1), torch.ones(10, 4))
    agent.learn(4 * 20, reset_num_timesteps=False)
    assert agent.labels()[1][:-1].all()
    assert not agent.labels()[1][-1].any()


def design(agent: SupervisedGradient, step: float) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Derive what multiplies each entry of the output table in each output, from the observations alone.

    Zero start, additive updates `u_kh += step * table[fired_h, label_k]` and nothing else plastic:
    `o_k(t) = step * sum_{c,j} table[c, j] * sum_{s<t} [label_k(s) = j] * sum_h [fired_h(s) = c] a_h(t)`.
    """
    observations = agent.rollout.observations.double().numpy()
    weights = agent._plastic_state["input_weight"].double().numpy()
    labels, known = agent.labels()
    steps, lifetimes, classes = labels.shape
    drive = np.einsum("tbi,bhi->tbh", observations[..., : weights.shape[-1]], weights)
    activity = np.maximum(drive, 0)
    cut = np.sort(activity, -1)[..., -4:-3]
    activity = np.where(activity >= cut, activity, 0)
    fired = np.stack([activity == 0, activity > 0], -1).astype(float)  # (T, B, H, code)
    correct = np.stack([1 - labels.numpy(), labels.numpy()], -1)  # (T, B, K, condition)
    seen = np.zeros((lifetimes, classes, 2, activity.shape[-1], 2))  # of each output, condition, unit and code
    rows, targets = [], []
    for t in range(steps):
        features = step * np.einsum("bkjhc,bh->bkcj", seen, activity[t])
        for b in range(lifetimes):
            if known[t, b]:
                rows.append(features[b].reshape(classes, 4))
                targets.append(labels[t, b].numpy())
        seen += np.einsum("bkj,bhc->bkjhc", correct[t], fired[t])
    return np.concatenate(rows), np.concatenate(targets)


def test_squared_error_of_an_output_table_converges_to_its_least_squares_solution() -> None:
    """The closed form of Cristian et al. 2021: with only the output table free, the loss is quadratic in its entries.

    The same rollout is learned from again and again; the supervised table's updates do not depend on the answers.
    """
    network = {"normalise": {"output": "none"}, "learn_steps": False, "step": {"output": 0.05}}
    agent = make(network, loss="squared_error", learning_rate=Schedule(start=0.1, end=0.1), max_grad_norm=1e9)
    agent.learn(0)
    assert agent.env is not None
    _, hooks = agent._setup_learn(4 * 30, None)
    hooks.on_training_start({}, {})
    agent.collect_rollouts(agent.env, hooks)

    rows, targets = design(agent, step=0.05)
    assert np.linalg.matrix_rank(rows) == 4
    solution, *_ = np.linalg.lstsq(rows, targets, rcond=None)
    samples = len(targets) / 4
    least = ((rows @ solution - targets) ** 2).sum() / samples
    nothing = (targets**2).sum() / samples
    assert nothing == 1.0
    assert least < 0.9

    table = agent.policy.get_parameter("network.output_table")
    others = {name: value for name, value in parameters(agent).items() if name != "network.output_table"}

    def loss_at(entries: np.ndarray[Any, Any]) -> float:
        with torch.no_grad():
            table.copy_(torch.from_numpy(entries).reshape(2, 2))
        return agent.rollout_loss(1.0)[0].item()

    # Quadratic: what the closed form says at any table, not only at the best one.
    for entries in np.random.default_rng(0).normal(size=(3, 4)):
        expected = ((rows @ entries - targets) ** 2).sum() / samples
        assert loss_at(entries) == pytest.approx(expected, rel=1e-5)
    loss_at(np.zeros(4))

    for rate in np.repeat([0.1, 0.03, 0.01, 0.003, 0.001], 60).tolist():
        agent.lr_schedule = Schedule(start=rate, end=rate)
        agent.train()
    final, _ = agent.rollout_loss(1.0)
    assert final.item() == pytest.approx(least, rel=1e-6)
    np.testing.assert_allclose(table.detach().numpy().reshape(-1), solution, atol=2e-3 * np.abs(solution).max())
    for name, value in parameters(agent).items():
        if name in others:  # nothing but the table is in this loss
            assert torch.equal(value, others[name]), name


def test_it_learns_to_learn_without_collapse() -> None:
    agent = make({"hidden_size": 40, "cap": 10}, env_kwargs={"data": "D", "steps": 60}, n_envs=16, learning_rate=0.3)
    found: dict[str, list[float]] = {"loss": [], "accuracy": [], "commonest_share": []}
    for _ in range(12):
        agent.learn(16 * 60, log_interval=1_000_000, reset_num_timesteps=agent.num_timesteps == 0)
        for name, values in found.items():
            values.append(agent.logger.name_to_value[f"train/{name}"])
        agent.logger.dump(agent.num_timesteps)
    # Before the first update the table is zero: all outputs equal, and the loss that of guessing.
    assert found["loss"][0] == pytest.approx(np.log(4), abs=1e-5)
    assert found["loss"][-1] < 0.9
    assert found["accuracy"][-1] > 0.7
    assert found["commonest_share"][-1] < 0.5


class SaveAt(BaseCallback):
    """Saves before the rollout that follows `updates` updates."""

    def __init__(self, updates: int, path: Path) -> None:
        super().__init__()
        self.updates, self.path = updates, path

    def _on_rollout_start(self) -> None:
        if cast("SupervisedGradient", self.model).iterations == self.updates:
            self.model.save(self.path)

    def _on_step(self) -> bool:
        return True


@pytest.mark.parametrize("network", [{}, {"rounds": 2, "start_weights": {"output": "normal"}}])
def test_going_on_from_a_checkpoint_gives_the_same_bytes(network: dict[str, Any], tmp_path: Path) -> None:
    rate = Schedule(start=0.1, end=0.01)
    keeper = SaveAt(3, tmp_path / "half.zip")
    undisturbed = make(network, n_steps=12, learning_rate=rate).learn(4 * 12 * 6, callback=keeper)
    # 36 steps in lifetimes of 30: it was saved within a lifetime.
    resumed = SupervisedGradient.load(tmp_path / "half.zip", env=TAUGHT, force_reset=False)
    assert resumed.num_timesteps == 4 * 36
    assert (resumed.settings.loss, resumed.settings.n_steps, resumed.env_kwargs) == (
        "cross_entropy",
        12,
        {"data": "D", "steps": 30},
    )
    resumed.learn(4 * 12 * 3, reset_num_timesteps=False)
    assert resumed.num_timesteps == undisturbed.num_timesteps == 288
    one, two = undisturbed.get_checkpoint(), resumed.get_checkpoint()
    for part, tensors in one.tensors.items():
        assert tensors.keys() == two.tensors[part].keys()
        for name, tensor in tensors.items():
            assert torch.equal(tensor, two.tensors[part][name]), f"{part} {name}"
    for name, stream in one.documents["rng"].items():
        np.testing.assert_array_equal(stream, two.documents["rng"][name])
    with pytest.raises(CheckpointError, match="of 'SupervisedGradient', not of PlasticA2C"):
        PlasticA2C.load(tmp_path / "half.zip")


def test_rewards_do_not_matter() -> None:
    one = make({"output_table": "supervised"}).learn(240)
    two = make({"output_table": "supervised"}, env_kwargs={"data": "D", "steps": 30, "reward": "pm1"}).learn(240)
    assert all(torch.equal(value, parameters(two)[name]) for name, value in parameters(one).items())


BITS = "plastic_rl/SupervisedPatternCompletion-v0"


@pytest.mark.parametrize("loss", ["cross_entropy", "squared_error"])
def test_the_loss_of_bits_is_that_of_those_that_were_missing(loss: str) -> None:
    agent = SupervisedGradient(
        "PlasticPolicy",
        BITS,
        env_kwargs={"bits": 6, "patterns": 2, "queries": 2},
        n_envs=3,
        seed=1,
        loss=cast("Any", loss),
        policy_kwargs={"network": {"kind": "plastic_rnn", "rule": "oja", "hidden_size": 8}, "action_head_scale": 3.0},
    )
    agent.learn(3 * 18)
    labels, known = agent.labels()
    # Trials 5 and 6 ask, in the second of their three steps; half of the bits were missing.
    assert known.nonzero()[:, 0].tolist() == [13] * 3 + [16] * 3
    assert labels[known].abs().sum(-1).tolist() == [3.0] * 6
    found, metrics = agent.rollout_loss(0.0)
    policy = agent.policy
    observations, starts = agent.rollout.observations, agent.rollout.episode_starts
    with torch.no_grad():
        outputs, _ = policy.outputs(policy.parameters_by_name(), observations, agent.state_before, starts)
    logits, signs = outputs[known].double().numpy(), labels[known].double().numpy()
    errors = np.log1p(np.exp(-signs * logits)) if loss == "cross_entropy" else (logits - signs) ** 2
    told = signs != 0
    assert found.item() == pytest.approx(errors[told].mean(), rel=1e-5)
    assert metrics["accuracy"].item() == pytest.approx(((logits > 0) == (signs > 0))[told].mean())
    ones = (logits > 0)[told].mean()
    assert metrics["commonest_share"].item() == pytest.approx(max(ones, 1 - ones))


@pytest.mark.parametrize("plastic", [True, False])
def test_units_with_one_gain_learn_to_complete_patterns_and_without_it_guess(plastic: bool) -> None:
    """After Miconi et al. 2018, section 4.1: at birth all weights and the gain are 0."""
    zero = {"granularity": "scalar", "low": 0.0, "high": 0.0, "trainable": plastic}
    network = {
        "kind": "plastic_rnn",
        "rule": "differentiable_plasticity",
        "hidden_size": 80,
        "input_gain": {"granularity": "scalar", "low": 20.0, "high": 20.0, "trainable": False},
        "readout": "units",
        "reset": {"activity": "trial"},
        "weight_bound": 0.0,
        "alpha": zero,
        "eta": {"low": 0.01, "high": 0.01},
    }
    agent = SupervisedGradient(
        "PlasticPolicy",
        BITS,
        env_kwargs={"bits": 80},
        n_envs=4,
        seed=0,
        learning_rate=3e-4,
        plasticity_lr_scale=300.0,
        policy_kwargs={"network": network},
    )
    env = make_vector(BITS, 50, env_kwargs={"bits": 80}, split="test")

    def share_right() -> float:
        observations, _ = env.reset(seed=2)
        state, total = None, np.zeros(50)
        for _ in range(env.metadata["lifetime_steps"]):
            actions, state = agent.predict(observations, state, deterministic=True)
            observations, rewards, *_ = env.step(actions)
            total += rewards
        return float(total.mean())

    chance = pytest.approx(0.5, abs=4 * 0.5 / 2000**0.5)
    assert share_right() == chance
    agent.learn(4 * 33 * 20)
    assert share_right() > 0.99 if plastic else share_right() == chance


def test_what_cannot_be_learned_from_is_refused() -> None:
    label_free = {"output_table": "label_free"}
    with pytest.raises(SpaceError, match=r"shows no labels.*SupervisedClassification"):
        make(label_free, env="plastic_rl/Classification-v0")
    with pytest.raises(ConfigError, match="loss: must be 'cross_entropy' or 'squared_error', got 'hinge'"):
        make(loss="hinge")
    with pytest.raises(ConfigError, match="selection: softmax, or loss: squared_error"):
        make({"selection": "argmax"})
    assert make({"selection": "argmax"}, loss="squared_error").learn(120).num_timesteps == 120
    with pytest.raises(ConfigError, match="n_envs: must be greater than or equal to 1, got 0"):
        make(n_envs=0)
    with pytest.raises(ConfigError, match=r"2 steps or more.*got n_steps 1 and lifetimes of 1 steps"):
        make(env_kwargs={"data": "D", "steps": 1})
    with pytest.raises(ConfigError, match=r"2 steps or more.*got n_steps 1 and lifetimes of 30 steps"):
        make(n_steps=1)


def test_an_environment_that_only_pretends_to_be_supervised_is_refused_before_anything_is_learned() -> None:
    agent = make()
    before = parameters(agent)
    env: Any = agent.env
    columns = slice(*cast("tuple[int, int]", agent.policy.feedback_layout.label))
    original = env.step

    def step(actions: np.ndarray[Any, Any]) -> Any:
        observations, *rest = original(actions)
        observations[:, columns] = 0.0
        return observations, *rest

    env.step = step
    with pytest.raises(SpaceError, match=r"showed none in the 30 steps up to 120;.*use a supervised environment"):
        agent.learn(240)
    assert all(torch.equal(value, before[name]) for name, value in parameters(agent).items())
