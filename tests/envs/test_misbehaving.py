"""Environments that break Gymnasium's contract: one message that names id, row, step and what was expected."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from plastic_rl.envs import make_vector
from plastic_rl.errors import EnvironmentFaultError, NonFiniteError

ENV = "misbehaving_tests/Faulty-v0"
GOOD = np.zeros(2, np.float32)


class Faulty(gym.Env[Any, Any]):
    """Well-behaved but for its third step, which returns what it is told to."""

    observation_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, third: Callable[[Faulty], Any] | None = None) -> None:
        self.third = third

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.time = 0
        return GOOD, {}

    def step(self, action: Any) -> Any:
        self.time += 1
        if self.time == 3 and self.third is not None:
            return self.third(self)
        return GOOD, 1.0, self.time == 5, False, {}


@pytest.fixture(scope="module", autouse=True)
def registered() -> Iterator[None]:
    gym.register(ENV, Faulty)
    yield
    del gym.registry[ENV]


def act(third: Callable[[Faulty], Any] | None, steps: int = 4) -> None:
    env = make_vector(ENV, 2, env_kwargs={"third": third})
    env.reset(seed=0)
    for _ in range(steps):
        env.step(np.zeros(2, np.int64))


def changed(env: Faulty) -> Any:
    env.observation_space = gym.spaces.Box(-1.0, 1.0, (3,), np.float32)
    return np.zeros(3, np.float32), 1.0, False, False, {}


def broken(env: Faulty) -> Any:
    raise ZeroDivisionError("the floor is missing")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("third", "message"),
    [
        (lambda _: (GOOD, None, False, False, {}), "the reward is None, not a number"),
        (lambda _: (GOOD, np.ones(2), False, False, {}), r"the reward is array\(\[1., 1.\]\), not a number"),
        (lambda _: (GOOD, "much", False, False, {}), "the reward is 'much', not a number"),
        (lambda _: (np.zeros(3, np.float32), 1.0, False, False, {}), r"has shape \(3,\), where its space says \(2,\)"),
        (lambda _: (None, 1.0, False, False, {}), r"has shape \(\), where its space says \(2,\)"),
        (lambda _: (GOOD, 1.0, False, False, None), "info is None, not a mapping"),
        (lambda _: (GOOD, 1.0, False, {}), "ValueError: not enough values to unpack"),
        (changed, r"has shape \(3,\), where its space says \(2,\)"),
        (broken, "ZeroDivisionError: the floor is missing"),
    ],
)
def test_a_fault_is_named(third: Any, message: str) -> None:
    pattern = (
        rf"^misbehaving_tests/Faulty-v0 broke down in row 0, step 3 of its lifetime: .*{message}.*\. Expected: reset "
    )
    with pytest.raises(EnvironmentFaultError, match=pattern) as raised:
        act(third)
    assert raised.value.__cause__ is not None
    if third is broken:
        assert isinstance(raised.value.__cause__, ZeroDivisionError)


def test_a_fault_in_the_middle_of_a_batch_names_its_row() -> None:
    env = make_vector(ENV, 3)
    env.reset(seed=0)
    env.envs[1].unwrapped.third = broken  # type: ignore[attr-defined]
    for _ in range(2):
        env.step(np.zeros(3, np.int64))
    with pytest.raises(EnvironmentFaultError, match="in row 1, step 3 of its lifetime"):
        env.step(np.zeros(3, np.int64))


def test_numbers_of_any_kind_are_rewards() -> None:
    for reward in (1, True, np.float32(1.0), np.int64(1), np.array(1.0)):
        act(lambda _, own=reward: (GOOD, own, False, False, {}))


def test_observations_outside_the_bounds_are_warned_of_once_and_taken_as_they_are() -> None:
    env = make_vector(ENV, 2, env_kwargs={"third": lambda _: (np.full(2, 4.0, np.float32), 1.0, False, False, {})})
    env.reset(seed=0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        seen = [env.step(np.zeros(2, np.int64))[0] for _ in range(9)]
    own = [str(warning.message) for warning in caught if "outside its declared bounds" in str(warning.message)]
    assert len(own) == 1
    assert own[0].startswith(
        f"{ENV} gives observations outside its declared bounds (e.g. 4 in column 0, declared from -1"
    )
    assert seen[2][:, :2].tolist() == [[4.0, 4.0]] * 2


def test_what_is_not_finite_is_refused_by_who_acts() -> None:
    from plastic_rl.envs import distribution_for
    from plastic_rl.evaluation import run_lifetimes

    kwargs = {"third": lambda _: (np.full(2, np.nan, np.float32), 1.0, False, False, {})}
    distribution = distribution_for(ENV)
    agent = distribution.reference_agents("test")["random"]
    with pytest.raises(NonFiniteError, match="gave an observation of nan after 3 steps to task 0 of test"):
        run_lifetimes(agent, ENV, distribution.tasks("test", 0, 2), env_kwargs=kwargs)
