"""Checkpoints that were altered and given fresh checksums: one clear error, or an agent that still trains."""

from __future__ import annotations

import copy
import dataclasses
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from plastic_rl.algorithms import CMAES, PlasticA2C
from plastic_rl.algorithms.saved_policy import load_policy
from plastic_rl.algorithms.vec_env import VecLifetime, VectorEnvAdapter
from plastic_rl.checkpoint import Checkpoint, read_checkpoint, write_checkpoint, write_zip
from plastic_rl.envs import make_vector
from plastic_rl.errors import CheckpointError, ConfigError, PlasticRLError
from plastic_rl.policies import POLICIES, PlasticPolicy

BANDIT, MAZE = "plastic_rl/ReversalBandit-v0", "plastic_rl/GridMaze-v0"
MISSING = object()
WRONG = [MISSING, None, "text", -1, 10**30, float("nan"), [], {"a": 1}, np.zeros((1, 2, 3)), np.full(2, -7)]
# Sizes that only cost memory until it runs out are no damage that could be told from a large experiment.
SIZES = {"n_steps", "stats_window_size"}


def checkpoint_in(env_id: str, steps: int = 8) -> Checkpoint:
    agent = PlasticA2C(
        "BackpropaminePolicy",
        env_id,
        n_envs=2,
        n_steps=5,
        seed=1,
        env_kwargs={"steps": steps},
        policy_kwargs={"network": {"hidden_size": 3}},
    )
    return agent.learn(10).get_checkpoint()


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    if isinstance(value, dict):
        for key in value:
            yield from places(value[key], (*path, key))
    elif isinstance(value, list):
        for index in range(min(len(value), 1)):  # the others are alike
            yield from places(value[index], (*path, index))


def altered(checkpoint: Checkpoint, part: str, path: tuple[Any, ...], value: Any) -> Checkpoint:
    changed = dataclasses.replace(checkpoint, **{part: copy.deepcopy(getattr(checkpoint, part))})
    holder = getattr(changed, part)
    for key in path[:-1]:
        holder = holder[key]
    if value is MISSING:
        del holder[path[-1]]
    else:
        holder[path[-1]] = value
    return changed


@pytest.mark.parametrize("env_id", [BANDIT, MAZE])
@pytest.mark.parametrize("part", ["documents", "config"])
def test_altered_data_are_refused_or_harmless(env_id: str, part: str) -> None:
    whole = checkpoint_in(env_id)
    refused = 0
    for path in places(getattr(whole, part)):
        for value in WRONG:
            if isinstance(path[-1], int) and value is MISSING:
                continue
            if path[-1] in SIZES and isinstance(value, int) and value > 0:
                continue
            try:
                PlasticA2C.from_checkpoint(altered(whole, part, path, value), env_id, "cpu").learn(
                    10, reset_num_timesteps=False, log_interval=0
                )
            except PlasticRLError:
                refused += 1
            except Exception as error:
                error.add_note(f"with {value!r} at {path}")
                raise
    assert refused > 200


@pytest.mark.parametrize("part", ["params", "optimizer", "state"])
def test_altered_tensors_are_refused(part: str) -> None:
    whole = checkpoint_in(BANDIT)
    for name, tensor in whole.tensors[part].items():
        for value in (MISSING, torch.zeros(7, 7, 7), torch.cat([tensor.reshape(-1), torch.zeros(1)])):
            with pytest.raises(CheckpointError):
                PlasticA2C.from_checkpoint(altered(whole, "tensors", (part, name), value), BANDIT, "cpu")
        for kind in (torch.bfloat16, torch.float16, torch.float64, torch.int64):
            with pytest.raises(CheckpointError, match=r"got torch|is torch|is none of 2 lifetimes"):
                PlasticA2C.from_checkpoint(altered(whole, "tensors", (part, name), tensor.to(kind)), BANDIT, "cpu")


@pytest.mark.parametrize("number", [float("nan"), float("-inf")])
@pytest.mark.parametrize("part", ["params", "optimizer", "state"])
def test_tensors_that_are_not_finite_are_named_with_their_place(tmp_path: Path, part: str, number: float) -> None:
    whole = checkpoint_in(BANDIT)
    for name, tensor in whole.tensors[part].items():
        bad = tensor.clone()
        place = [size - 1 for size in bad.shape]
        bad[tuple(place)] = number
        write_checkpoint(tmp_path / "5", altered(whole, "tensors", (part, name), bad))
        with pytest.raises(CheckpointError) as told:
            PlasticA2C.load(tmp_path / "5", env=BANDIT if part == "state" else None)
        expected = f"{tmp_path / '5'}: {name!r} in {part}.safetensors is {number} at {place} (1 of its {bad.numel()}"
        assert str(told.value).startswith(expected), str(told.value)
        assert "use an earlier checkpoint, or train anew" in str(told.value)
    if part == "state":
        # An agent that only predicts begins lifetimes of its own.
        assert PlasticA2C.load(tmp_path / "5").policy.network.output_size == 3


def test_an_agent_of_nan_cannot_be_loaded_to_act(tmp_path: Path) -> None:
    small: dict[str, Any] = {"env_kwargs": {"steps": 8}, "seed": 1}
    for agent, name in (
        (PlasticA2C("GRUPolicy", BANDIT, n_envs=2, **small), "value_head.bias"),
        (CMAES("RNNPolicy", BANDIT, population_size=4, lifetimes=2, **small), "action_head.weight"),
    ):
        dict(agent.policy.named_parameters())[name].data.view(-1)[0] = float("nan")
        agent.save(tmp_path / "agent.zip")
        with pytest.raises(CheckpointError, match=rf"agent\.zip: {name!r} in params.safetensors is nan at \[0"):
            type(agent).load(tmp_path / "agent.zip")
        with pytest.raises(CheckpointError, match=rf"{name!r} in params.safetensors is nan"):
            load_policy(read_checkpoint(tmp_path / "agent.zip"))


def test_an_optimizer_that_lacks_a_moment_is_refused_by_name(tmp_path: Path) -> None:
    """Written anew, so that its checksums hold."""
    for optimizer, entries in (("adam", ("step", "exp_avg", "exp_avg_sq")), ("rmsprop", ("step", "square_avg"))):
        agent = PlasticA2C("RNNPolicy", BANDIT, n_envs=2, n_steps=5, seed=1, optimizer=optimizer)
        whole = agent.learn(10).get_checkpoint()
        assert {key.partition("/")[0] for key in whole.tensors["optimizer"]} == set(entries)
        for entry in entries:
            name = f"{entry}/value_head.bias"
            write_zip(tmp_path / "agent.zip", altered(whole, "tensors", ("optimizer", name), MISSING))
            with pytest.raises(
                CheckpointError, match=rf"agent\.zip: in optimizer.*: missing \['{name}'\], unknown \[\]"
            ):
                PlasticA2C.load(tmp_path / "agent.zip", env=BANDIT)
        write_zip(tmp_path / "agent.zip", altered(whole, "tensors", ("optimizer", "momentum/log"), torch.zeros(())))
        with pytest.raises(CheckpointError, match="'log', which is no trained parameter"):
            PlasticA2C.load(tmp_path / "agent.zip", env=BANDIT)
    with pytest.raises(CheckpointError, match="are not the entries of Adam: missing"):
        PlasticA2C.from_checkpoint(whole, BANDIT, "cpu", optimizer="adam")


@pytest.fixture(scope="module")
def trained() -> Checkpoint:
    return checkpoint_in(BANDIT)


@settings(max_examples=60)
@given(data=st.data())
def test_any_altered_optimizer_entry_is_refused_or_trains_on(trained: Checkpoint, data: st.DataObject) -> None:
    kinds = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.bool, torch.complex64]
    name = data.draw(st.sampled_from(sorted(trained.tensors["optimizer"])))
    stored = trained.tensors["optimizer"][name]
    shape = data.draw(st.sampled_from([tuple(stored.shape), (), (1,), (0,), (3, 3), (7, 2, 1)]))
    number = data.draw(st.floats(width=32) | st.integers(-3, 3).map(float))
    value = torch.full(shape, number).to(data.draw(st.sampled_from(kinds)))
    changed = altered(trained, "tensors", ("optimizer", name), value)
    if data.draw(st.booleans()):
        del changed.tensors["optimizer"][data.draw(st.sampled_from(sorted(changed.tensors["optimizer"])))]
    try:
        agent = PlasticA2C.from_checkpoint(changed, BANDIT, "cpu")
    except CheckpointError:
        return
    assert value.dtype == torch.float32
    assert tuple(value.shape) == tuple(stored.shape)
    agent.learn(10, reset_num_timesteps=False, log_interval=0)


def growth(begun: int) -> float:
    """GB by which the process has been larger than `begun`."""
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - begun) / 2**20


@pytest.mark.parametrize("env", [None, BANDIT])
@pytest.mark.parametrize(
    ("path", "size", "complaint"),
    [
        (("n_envs",), 20_000_000, "states 20,000,000 environments, and holds 2 of them"),
        (("n_envs",), 1_000_000, "states 1,000,000 environments, and holds 2 of them"),
        (
            ("policy", "arguments", "network", "hidden_size"),
            10_000,
            r"'network.input_weight' has shape \(3, 5\)",
        ),
        (("policy", "action_space", "n"), 10**9, "'action_head.weight' has shape"),
    ],
)
def test_sizes_are_compared_before_anything_is_made(
    trained: Checkpoint, env: str | None, path: tuple[str, ...], size: Any, complaint: str
) -> None:
    begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(PlasticRLError, match=complaint):
        PlasticA2C.from_checkpoint(altered(trained, "config", path, size), env, "cpu")
    assert growth(begun) < 0.1


@pytest.mark.parametrize("kind", ["rule_table", "plastic_feed_forward", "gru", "lstm"])
def test_networks_of_all_kinds_are_measured_without_being_made(kind: str) -> None:
    network = {"kind": kind, "hidden_size": 8, **({} if kind in {"gru", "lstm"} else {"inputs": "all"})}
    small: dict[str, Any] = {"env_kwargs": {"steps": 8}, "n_envs": 2, "n_steps": 5, "seed": 1}
    agent = PlasticA2C("PlasticPolicy", BANDIT, policy_kwargs={"network": network}, **small)
    whole = agent.learn(10).get_checkpoint()
    assert PlasticA2C.from_checkpoint(whole, None, "cpu").policy.network.output_size == agent.policy.network.output_size
    begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    sizes = ("policy", "arguments", "network", "hidden_size")
    for env in (None, BANDIT):
        with pytest.raises(CheckpointError, match=r"has shape|of the shapes"):
            PlasticA2C.from_checkpoint(altered(whole, "config", sizes, 20_000), env, "cpu")
    assert growth(begun) < 0.1


class LookingPolicy(PlasticPolicy):
    """Needs its numbers while it is made, so that it cannot be measured beforehand."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sum = self.value_head.weight.sum().item()


def test_a_policy_that_looks_at_its_numbers_is_measured_when_it_is_made() -> None:
    POLICIES.register("LookingPolicy", LookingPolicy)
    entire = PlasticA2C("LookingPolicy", BANDIT, n_envs=2, n_steps=5, seed=1).learn(10).get_checkpoint()
    loaded = PlasticA2C.from_checkpoint(entire, BANDIT, "cpu")
    assert loaded.learn(10, log_interval=0).policy.network.output_size == 100
    network = ("policy", "arguments")
    with pytest.raises(CheckpointError, match=r"has shape \(100, 5\)"):
        PlasticA2C.from_checkpoint(altered(entire, "config", network, {"network": {"hidden_size": 20}}), None, "cpu")


def test_an_agent_that_only_predicts_has_no_rollout(trained: Checkpoint) -> None:
    agent = PlasticA2C.from_checkpoint(trained, None, "cpu")
    assert not hasattr(agent, "rollout")
    again = PlasticA2C.from_checkpoint(agent.get_checkpoint(), None, "cpu")
    observations = np.zeros((3, agent.policy.input_size), np.float32)
    agent.policy.sampling.manual_seed(1)
    again.policy.sampling.manual_seed(1)
    assert np.array_equal(agent.predict(observations)[0], again.predict(observations)[0])
    # With an environment it learns, as one that was loaded with it and begins its lifetimes anew.
    agent.set_env(make_vector(BANDIT, 2, env_kwargs={"steps": 8}, task_start=0))
    assert agent.learn(10, log_interval=0).rollout.observations.shape == (5, 2, 5)


@pytest.fixture(scope="module")
def evolved() -> Checkpoint:
    network = {"network": {"rule": "oja", "hidden_size": 3}}
    return (
        CMAES(
            "PlasticPolicy",
            BANDIT,
            population_size=4,
            lifetimes=2,
            seed=1,
            env_kwargs={"steps": 8},
            policy_kwargs=network,
        )
        .learn(generations=3)
        .get_checkpoint()
    )


@pytest.mark.parametrize("part", ["documents", "config", "tensors"])
def test_an_altered_search_is_refused_or_goes_on(evolved: Checkpoint, part: str) -> None:
    refused = 0
    for path in places(getattr(evolved, part)):
        wrong: list[Any] = WRONG
        if part == "tensors" and len(path) == 2:
            tensor = evolved.tensors[path[0]][path[1]]
            kinds = (torch.float32, torch.bfloat16, torch.int64)
            # The histories are of any length.
            shaped = (
                [] if path[1].startswith("hist") else [tensor.reshape(-1)[:-1], tensor.reshape(1, 1, *tensor.shape)]
            )
            wrong = [
                MISSING,
                *([tensor * float("nan")] if tensor.numel() else []),
                *shaped,
                *(tensor.to(kind) for kind in kinds if kind != tensor.dtype),
            ]
        for value in wrong:
            if (isinstance(path[-1], int) and value is MISSING) or (part == "tensors" and len(path) == 1):
                continue
            if path[-1] in SIZES and isinstance(value, int) and value > 0:
                continue
            try:
                CMAES.from_checkpoint(altered(evolved, part, path, value), BANDIT, "cpu").learn(
                    generations=1, reset_num_timesteps=False, log_interval=0
                )
            except PlasticRLError:
                refused += 1
            except Exception as error:
                error.add_note(f"with {value!r} at {path}")
                raise
            else:
                assert part != "tensors", path
    assert refused > 100


def test_a_population_that_the_search_never_had_is_refused(evolved: Checkpoint) -> None:
    for path in (("algorithm", "search", "population_size"), ("algorithm", "search", "large_runs")):
        with pytest.raises(CheckpointError, match="a search that began with 4 individuals cannot have"):
            CMAES.from_checkpoint(altered(evolved, "documents", path, 10**7), BANDIT, "cpu")
    for path in (("arguments", "population_size"), ("arguments", "lifetimes")):
        with pytest.raises(ConfigError, match="must be less than or equal to 1000000, got 10000000"):
            CMAES.from_checkpoint(altered(evolved, "config", path, 10**7), BANDIT, "cpu")


def test_whole_parts_that_lack_are_named() -> None:
    whole = checkpoint_in(BANDIT)
    for part in ("rng", "algorithm", "env"):
        with pytest.raises(CheckpointError, match=f"it lacks '{part}'"):
            PlasticA2C.from_checkpoint(altered(whole, "documents", (part,), MISSING), BANDIT, "cpu")
    with pytest.raises(ConfigError, match="Did you mean 'gamma'"):
        PlasticA2C.from_checkpoint(whole, BANDIT, "cpu", gama=0.5)


def test_generator_states_are_checked() -> None:
    env = make_vector(BANDIT, 2, env_kwargs={"steps": 8})
    env.reset(seed=1)
    state = env.get_state()
    state["generators"][1] = {"bit_generator": "MT19937"}
    with pytest.raises(CheckpointError, match="does not fit ReversalBanditVectorEnv"):
        env.set_state(state)


def test_another_stack_of_wrappers_is_refused() -> None:
    def bandit() -> VectorEnvAdapter:
        return VectorEnvAdapter(make_vector(BANDIT, 2, env_kwargs={"steps": 8}))

    whole = checkpoint_in(BANDIT)

    class Remembering(VecNormalize):
        def get_state(self) -> dict[str, Any]:
            return {}

        def set_state(self, state: dict[str, Any]) -> None:
            assert state == {}

    agent = PlasticA2C("BackpropaminePolicy", Remembering(bandit()), policy_kwargs={"network": {"hidden_size": 3}})
    with pytest.raises(CheckpointError, match=r"state of 0 wrappers .* have 1 that keep state \(Remembering\)"):
        agent.set_checkpoint(whole)


def test_stored_feedback_must_fit() -> None:
    env = VecLifetime(DummyVecEnv([lambda: gym.make("CartPole-v1")]))
    env.reset()
    with pytest.raises(CheckpointError, match="'buffer' must be float32"):
        env.set_state({"buffer": np.zeros((3, 9), np.float32), "time": np.zeros(3, np.int64)})
    with pytest.raises(CheckpointError, match="lacks 'time'"):
        env.set_state({"buffer": np.zeros((1, 9), np.float32)})
