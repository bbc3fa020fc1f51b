"""CMA-ES evolves the same way wherever, in however many pieces, and from a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from plastic_rl.algorithms import CMAES, PlasticA2C
from plastic_rl.checkpoint import to_json
from plastic_rl.engine import ENGINES
from plastic_rl.errors import CheckpointError, ConfigError
from tests.algorithms.cma_es_cases import BANDIT, make


@pytest.mark.parametrize("name", [name for name in sorted(ENGINES) if name != "serial"])
def test_engines_and_numbers_of_workers_change_no_bit(name: str) -> None:
    if name == "ray":
        pytest.importorskip("ray")
    serial = make(individuals_per_chunk=2).learn(generations=3)
    for workers in (1, 2):
        with ENGINES[name](workers=workers) as engine:
            other = make(individuals_per_chunk=2, engine=engine).learn(generations=3)
            assert np.array_equal(serial.search.mean, other.search.mean)
            assert serial.num_timesteps == other.num_timesteps
        if name == "ray":
            break


def test_threads_of_torch_change_no_bit() -> None:
    before = torch.get_num_threads()
    one = make().learn(generations=2)
    torch.set_num_threads(2)
    try:
        two = make().learn(generations=2)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert np.array_equal(one.search.mean, two.search.mean)


def test_global_random_state_is_not_touched() -> None:
    np.random.seed(5)  # noqa: NPY002 - the very state that must stay
    torch.manual_seed(5)
    numpy_state, torch_state = np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    make(restarts="bipop").learn(generations=3)
    assert np.array_equal(np.random.get_state()[1], numpy_state[1])  # type: ignore[index]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), torch_state)


def test_seeds_make_runs() -> None:
    one, two, other = (make(seed=seed).learn(generations=2) for seed in (4, 4, 5))
    assert np.array_equal(one.search.mean, two.search.mean)
    assert not np.array_equal(one.search.mean, other.search.mean)


# --- saving --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("covariance", ["full", "separable"])
@pytest.mark.parametrize("restarts", ["none", "bipop"])
def test_going_on_from_a_file_gives_the_bytes_of_not_having_stopped(
    tmp_path: Path, covariance: str, restarts: str
) -> None:
    def fresh() -> CMAES:
        return make(
            covariance=covariance,
            restarts=restarts,
            evolve=["action_head.*"],
            groups={"action_head.bias": {"scale": 2.0, "high": 0.5}},
        )

    whole = fresh().learn(generations=40)
    half = fresh().learn(generations=17)
    half.save(tmp_path / "half")
    rest = CMAES.load(tmp_path / "half", env=BANDIT)
    rest.learn(generations=23, reset_num_timesteps=False)
    assert rest.num_timesteps == whole.num_timesteps
    assert rest.iterations == whole.iterations == 40
    assert rest.search.run == whole.search.run
    one, two = whole.get_checkpoint(), rest.get_checkpoint()
    assert to_json(one.documents) == to_json(two.documents)
    for part in ("params", "optimizer"):
        for name, tensor in one.tensors[part].items():
            assert torch.equal(tensor, two.tensors[part][name]), name


def test_a_loaded_agent_predicts_the_same_and_says_that_it_cannot_learn(tmp_path: Path) -> None:
    agent = make().learn(generations=2)
    agent.save(tmp_path / "agent")
    loaded = CMAES.load(tmp_path / "agent.zip")
    observations = np.random.default_rng(0).random((6, 5), dtype=np.float32)
    one, two = agent.predict(observations, deterministic=True)[0], loaded.predict(observations, deterministic=True)[0]
    assert np.array_equal(one, two)
    for learn in (loaded.evolve_once, lambda: loaded.learn(generations=1), lambda: loaded.learn(100)):
        with pytest.raises(ConfigError, match=r"this CMAES was made or loaded without an environment.* set an env"):
            learn()
    with pytest.raises(CheckpointError, match="a checkpoint of 'CMAES', not of PlasticA2C"):
        PlasticA2C.load(tmp_path / "agent.zip")


def test_an_agent_loaded_to_predict_learns_once_it_has_an_environment(tmp_path: Path) -> None:
    make().learn(generations=2).save(tmp_path / "agent")
    given = CMAES.load(tmp_path / "agent", env=BANDIT)
    set_later = CMAES.load(tmp_path / "agent")
    set_later.set_env(BANDIT)
    for agent in (given, set_later):
        agent.learn(generations=2, reset_num_timesteps=False)
    one, two = given.get_checkpoint(), set_later.get_checkpoint()
    assert to_json([one.documents, one.config]) == to_json([two.documents, two.config])
    for name, tensor in one.tensors["params"].items():
        assert torch.equal(tensor, two.tensors["params"][name]), name
    with pytest.raises(ValueError, match="spaces do not match"):
        set_later.set_env("plastic_rl/BernoulliBandit-v0")


def test_altered_search_state_is_refused(tmp_path: Path) -> None:
    agent = make().learn(generations=2)
    checkpoint = agent.get_checkpoint()
    checkpoint.tensors["optimizer"]["C"][0, 0] = float("nan")
    with pytest.raises(CheckpointError, match=r"'C' in optimizer.safetensors is nan at \[0, 0\] \(1 of its"):
        make().set_checkpoint(checkpoint)
    altered = agent.get_checkpoint()
    del altered.documents["algorithm"]["search"]["spent"]
    with pytest.raises(CheckpointError, match="it lacks 'spent'"):
        make().set_checkpoint(altered)
