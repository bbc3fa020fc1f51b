"""Sparse weights in gradient training: their number, their exchange by RigL and SET, and what that is good for."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from plastic_rl.algorithms import PlasticA2C, SupervisedGradient
from plastic_rl.algorithms.sparsity import Sparsity, SparsityConfig
from plastic_rl.errors import CheckpointError, ConfigError
from tests.algorithms.a2c_cases import BANDIT, equal, make, params_of

WEIGHTS = ("network.input_weight", "network.recurrent_weight", "network.alpha")
SPARSE = {"weights": WEIGHTS, "density": 0.25, "interval": 2, "share": 0.5}


class Student(nn.Module):
    """One matrix, with its optimizer."""

    def __init__(self, outputs: int, inputs: int, generator: torch.Generator) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, generator=generator) / inputs**0.5)
        self.optimizer = torch.optim.Adam(self.parameters(), lr=0.02)


def sparsity(student: Any, seed: int = 0, **settings: Any) -> Sparsity:
    config = SparsityConfig(**{"weights": ("weight",), **settings})
    return Sparsity(config, student, torch.Generator().manual_seed(seed))


def masks(agent: PlasticA2C | SupervisedGradient) -> dict[str, Tensor]:
    change = agent._changes["sparsity"]
    assert isinstance(change, Sparsity)
    return {name: mask.clone() for name, mask in change.masks.items()}


def test_one_exchange_by_hand() -> None:
    student = Student(2, 4, torch.Generator().manual_seed(0))
    change = sparsity(student, density=0.5, interval=3, share=0.5, until=1.0)
    there = torch.tensor([[True, True, False, False], [True, True, False, False]])
    change.masks["weight"] = there
    with torch.no_grad():
        student.weight.copy_(torch.tensor([[0.1, -0.9, 0, 0], [0.5, -0.2, 0, 0]]))
    gradient = torch.tensor([[0.05, 1.0, -0.3, 0.2], [1.0, 0.01, 0.1, -4.0]])
    change.updates = 2
    student.weight.grad = gradient.clone()
    for average in ("exp_avg", "exp_avg_sq"):
        student.optimizer.state[student.weight][average] = torch.ones(2, 4)
    change.before_step()
    # Only weights that are there have gradients.
    assert torch.equal(student.weight.grad, gradient * there)
    assert change.after_step(1.0) == {"exchanged_weights": 2}
    # Half of the four are dropped, .1 and -.2; largest of the other gradients are -4 and -.3.
    assert change.masks["weight"].tolist() == [[False, True, True, False], [True, False, False, True]]
    assert student.weight.tolist() == [[0, pytest.approx(-0.9), 0, 0], [0.5, 0, 0, 0]]
    # What was dropped or grew, or is not there, has no past.
    kept = torch.tensor([[False, True, False, False], [True, False, False, False]])
    for average in ("exp_avg", "exp_avg_sq"):
        assert torch.equal(student.optimizer.state[student.weight][average] == 1, kept)
    # A weight that was dropped may grow at once (its gradient counts), from 0.
    student.weight.grad = torch.zeros(2, 4)
    student.weight.grad[1, 0], student.weight.grad[0, 0] = 1.0, 0.5
    with torch.no_grad():
        student.weight[0, 2] = student.weight[1, 3] = 2.0
    change.updates = 5
    change.before_step()
    assert change.after_step(1.0) == {"exchanged_weights": 2 + 1}
    assert change.masks["weight"].tolist() == [[True, False, True, False], [True, False, False, True]]
    assert student.weight.tolist() == [[0, 0, 2, 0], [0, 0, 0, 2]]


def test_the_exchanged_share_follows_the_cosine() -> None:
    change = sparsity(Student(2, 4, torch.Generator()), share=0.3, until=0.8)
    for gone in (0.0, 0.2, 0.4, 0.79):
        expected = 0.15 * (1 + math.cos(math.pi * gone / 0.8))
        assert change.exchanged(1 - gone) == pytest.approx(expected, abs=1e-12)
    assert change.exchanged(1.0) == 0.3
    assert change.exchanged(0.2) == pytest.approx(0, abs=1e-15)
    assert change.exchanged(0.1) == 0.0


@pytest.mark.parametrize(("grow", "optimizer"), [("gradient", "adam"), ("random", "rmsprop")])
def test_the_number_of_weights_stays_and_the_others_are_exactly_zero(grow: str, optimizer: str) -> None:
    agent = make(sparsity={**SPARSE, "grow": grow, "until": 1.0}, optimizer=optimizer)
    counts = {name: round(0.25 * agent.policy.get_parameter(name).numel()) for name in WEIGHTS}
    seen: list[dict[str, Tensor]] = []

    def look(_locals: Any, _globals: Any) -> bool:
        if agent.num_timesteps % 80 == 4:  # the first step of each rollout
            seen.append(masks(agent))
            for name, mask in seen[-1].items():
                weights = agent.policy.get_parameter(name).detach()
                assert int(mask.sum()) == counts[name]
                assert not weights[~mask].any()
        return True

    agent.learn(8 * 80, callback=look)
    assert set(seen[0]) == set(WEIGHTS)
    # Updates 2, 4 and 6 exchange some; the masks stay in the others, and towards the end few change.
    for name in WEIGHTS:
        changed = [not torch.equal(one[name], other[name]) for one, other in itertools.pairwise(seen)]
        assert changed[::2] == [False] * 4
        assert changed[1]
    untouched = agent.policy.get_parameter("value_head.weight")
    assert bool((untouched != 0).all())


def test_without_exchange_the_mask_stays_and_clipping_sees_only_the_weights_that_are_there() -> None:
    agent = make(sparsity={**SPARSE, "share": 0.0}, max_grad_norm=1e9)
    before = masks(agent)
    norms: list[float] = []
    original = torch.nn.utils.clip_grad_norm_

    def clip(parameters: Any, *args: Any) -> Tensor:
        kept = list(parameters)
        norms.append(float(sum(own.grad.square().sum() for own in kept if own.grad is not None)) ** 0.5)
        found = original(kept, *args)
        assert float(found) == pytest.approx(norms[-1], rel=1e-5)
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.utils, "clip_grad_norm_", clip)
        agent.learn(2 * 80)
    assert len(norms) == 2
    assert all(torch.equal(mask, before[name]) for name, mask in masks(agent).items())
    for name, mask in before.items():
        gradient = agent.policy.get_parameter(name).grad
        assert gradient is not None
        assert gradient[mask].any()
        assert not gradient[~mask].any()


def test_a_resumed_run_gives_the_same_bytes(tmp_path: Path) -> None:
    settings = {**SPARSE, "grow": "random", "interval": 1, "until": 1.0}
    agent = make(sparsity=settings).learn(3 * 80)
    agent.save(tmp_path / "agent.zip")
    loaded = PlasticA2C.load(tmp_path / "agent.zip", env=BANDIT, force_reset=False)
    saved = masks(agent)
    assert equal(masks(loaded), saved)
    for one in (agent, loaded):
        one.learn(4 * 80, reset_num_timesteps=False)
    assert equal(params_of(agent), params_of(loaded))
    assert equal(masks(agent), masks(loaded))
    assert not equal(masks(agent), saved)


def teacher(seed: int, grow: str, share: float) -> float:
    """Share of a sparse linear teacher's synapses that a student of the same density has found."""
    generator = torch.Generator().manual_seed(seed)
    outputs, inputs, density = 4, 50, 0.1
    student = Student(outputs, inputs, generator)
    change = sparsity(student, seed + 100, density=density, interval=5, grow=grow, share=share)
    support = torch.rand(outputs * inputs, generator=generator).argsort().view(outputs, inputs) < 20
    true = torch.where(support, torch.randn(outputs, inputs, generator=generator).sign(), 0.0)
    steps = 300
    for step in range(steps):
        x = torch.randn(32, inputs, generator=generator)
        student.optimizer.zero_grad()
        (x @ (student.weight - true).mT).square().mean().backward()  # type: ignore[no-untyped-call]
        change.before_step()
        student.optimizer.step()
        change.after_step(1 - (step + 1) / steps)
    assert int(change.masks["weight"].sum()) == 20
    return int((change.masks["weight"] & support).sum()) / 20


def test_rigl_finds_the_synapses_of_a_sparse_linear_teacher() -> None:
    seeds = range(3)
    rigl = [teacher(seed, "gradient", 0.3) for seed in seeds]
    grown_at_random = [teacher(seed, "random", 0.3) for seed in seeds]
    static = [teacher(seed, "gradient", 0.0) for seed in seeds]
    means = [sum(found) / len(found) for found in (rigl, grown_at_random, static)]
    assert min(rigl) >= 0.95
    assert all(one > other for one, other in zip(rigl, grown_at_random, strict=True))
    assert min(grown_at_random) > max(static)
    # By chance: a tenth of the places.
    assert means[2] == pytest.approx(0.1, abs=0.1)


def test_a_teacher_of_labels_is_learned_sparsely_too() -> None:
    agent = SupervisedGradient(
        "PlasticPolicy",
        "plastic_rl/SupervisedClassification-v0",
        env_kwargs={"data": "D", "steps": 20},
        n_envs=2,
        policy_kwargs={"network": {"kind": "plastic_feed_forward", "start": "trained", "rule": "fixed"}},
        sparsity={"weights": ("network.layers.*",), "density": 0.5, "interval": 1},
        seed=1,
    )
    agent.learn(2 * 40)
    assert {name.rpartition(".")[2] for name in masks(agent)} == {"weight"}
    for name, mask in masks(agent).items():
        assert int(mask.sum()) == round(0.5 * mask.numel())
        assert not agent.policy.get_parameter(name).detach()[~mask].any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weights": ("network.reccurent_weight",)}, "unknown parameter in algorithm.sparsity.weights"),
        ({"weights": ("network.input_bias",)}, "unknown parameter in algorithm.sparsity.weights 'network.input_bias'"),
        ({"density": 0.0}, r"sparsity\.density: must be greater than 0, got 0"),
        ({"grow": "gradients"}, r"sparsity\.grow: .*gradient"),
        ({"weights": ()}, r"sparsity\.weights"),
    ],
)
def test_what_cannot_be_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(sparsity=settings)


def test_altered_masks_are_refused() -> None:
    agent = make(sparsity=SPARSE)
    checkpoint = agent.learn(80).get_checkpoint()
    name = WEIGHTS[0]
    stored = checkpoint.documents["algorithm"]["sparsity"]["masks"]
    stored[name] = ~stored[name]
    with pytest.raises(CheckpointError, match="weights are there in the checkpoint, but"):
        make(sparsity=SPARSE).set_checkpoint(checkpoint)
    del stored[name]
    with pytest.raises(CheckpointError, match=r"it lacks 'network\.input_weight'"):
        make(sparsity=SPARSE).set_checkpoint(checkpoint)
    # A run without sparsity can go on with it: its weights are made sparse.
    dense = make().learn(80).get_checkpoint()
    begun = make(sparsity=SPARSE)
    begun.set_checkpoint(dense)
    for own, mask in masks(begun).items():
        assert not begun.policy.get_parameter(own).detach()[~mask].any()
