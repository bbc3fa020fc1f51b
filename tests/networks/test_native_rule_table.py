"""Rule-table networks on the native core against `step`: outputs, choices and all of the state."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from plastic_rl import _native
from plastic_rl._native import Core
from plastic_rl.algorithms import CMAES
from plastic_rl.algorithms.evolution.fitness import GenerationSpec, PopulationChunk
from plastic_rl.feedback import CutFeedback
from plastic_rl.networks.native import MOST_PROBABLE, OUTPUTS, SAMPLES
from plastic_rl.networks.rule_table.native import TableActing, tiled, untiled
from plastic_rl.policies.distributions import Categorical
from tests.networks.rule_table_cases import ALL_LAYERS, UNSCALED, build

pytestmark = pytest.mark.skipif(_native.extension() is None, reason="the package is installed without its core")

FEATURES, ACTIONS = 5, 3
EVERYTHING: dict[str, Any] = {
    "rounds": 2,
    "plastic": ALL_LAYERS,
    "presynaptic": {"input": True, "hidden": True, "output": True},
    "gated": {"input": True, "hidden": True},
    "start_weights": {"output": "normal"},
}
INCOMING, OUTGOING = (dict.fromkeys(("input", "hidden", "output"), f"{way}_l2") for way in ("incoming", "outgoing"))
VARIANTS: dict[str, dict[str, Any]] = {
    "output alone": {},
    "output alone, scaled by output": {"normalise": {"output": "incoming_l2"}, "activation": "linear"},
    "output alone, two rounds": {"rounds": 2},
    "input and output": {"plastic": {"input": True}, "gated": {"input": True}, "activation": "linear"},
    "everything": EVERYTHING,
    "everything, unscaled": EVERYTHING | {"normalise": UNSCALED, "step": {"output": 0.01}},
    "everything, incoming": EVERYTHING | {"normalise": INCOMING},
    "everything, outgoing": EVERYTHING | {"normalise": OUTGOING},
    "cristian": EVERYTHING | {"recurrence": "cristian", "activation": "linear"},
    "no presynaptic factor": EVERYTHING | {"presynaptic": {"input": False, "hidden": False, "output": False}},
    "multiplicative": EVERYTHING | {"update": "multiplicative"},
    "multiplicative, incoming": EVERYTHING | {"update": "multiplicative", "normalise": INCOMING},
    "surprise": EVERYTHING | {"surprise": True},
    "surprise, output alone": {"surprise": True, "reward_average_rate": 0.5},
    "surprise, not gated": {"plastic": {"input": True, "output": False}, "surprise": True},
    "errors": EVERYTHING | {"when": "errors"},
    "supervised": EVERYTHING | {"output_table": "supervised"},
    "supervised, no reward": {"output_table": "supervised"},
    "supervised, errors": EVERYTHING | {"output_table": "supervised", "when": "errors"},
    "supervised, chosen": EVERYTHING | {"output_table": "supervised_chosen"},
    "no outcome": EVERYTHING | {"no_outcome": "zero_reward"},
    "without an outcome": EVERYTHING | {"no_outcome": "zero_reward", "update_without_outcome": True},
    "without an outcome, ungated": {
        "no_outcome": "zero_reward",
        "update_without_outcome": True,
        "inputs": "all",
        "plastic": {"input": True},
    },
    "all inputs": {"inputs": "all", "rounds": 1, "gated": {"hidden": True}},
    "tanh": EVERYTHING | {"activation": "tanh"},
    "sigmoid": EVERYTHING | {"activation": "sigmoid"},
    "sigmoid, no cap": EVERYTHING | {"activation": "sigmoid", "cap": None},
    "linear, no cap": {"activation": "linear", "cap": None},
    "nothing plastic": {"plastic": {"hidden": False, "output": False}, "start_weights": {"output": "normal"}},
    "joosten": {"preset": "joosten_2021"},
    "six rounds": {"rounds": 6, "hidden_size": 20, "cap": 6},
    "perceptron": {"tables": "perceptron"},
    "winnow": {"tables": "winnow", "start_weights": {"output": "ones"}},
    "ties": {"start_weights": {"input": "ones"}, "rounds": 1},
    "argmax": {"selection": "argmax"},
    "argmax, exploring never": {"selection": "argmax", "exploration": 0.0},
    "softmax, exploring never": {"exploration": 0.0, "start_weights": {"output": "normal"}},
}


class Lived(NamedTuple):
    """What some steps gave: outputs `(T, .., B, K)`, actions `(T, P B)` by samples and by the mode, and the state."""

    outputs: Tensor
    sampled: np.ndarray[Any, Any]
    best: np.ndarray[Any, Any]
    state: dict[str, Tensor]


class Life:
    """A network with parameters away from their start, and what it sees."""

    def __init__(
        self,
        config: dict[str, Any],
        shape: tuple[int, ...] = (4,),
        *,
        steps: int = 12,
        seed: int = 0,
        features: int = FEATURES,
        actions: int = ACTIONS,
        alike: bool = False,
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        tables = str(config.get("tables"))
        labels = str(config.get("output_table")).startswith("supervised") or tables in {"perceptron", "winnow"}
        labels |= config.get("preset") is not None
        config = {"hidden_size": 17, "cap": 5} | config
        if config.get("preset"):
            config.pop("hidden_size"), config.pop("cap")
        self.network = build(config, features, actions, labels=labels, double=False)
        self.shape, self.steps = shape, steps
        population = shape[:-1]
        self.params = {
            name: own.detach().expand(*population, *own.shape)
            + 0.5 * torch.randn(*population, *own.shape, generator=generator)
            for name, own in self.network.named_parameters()
        }
        own = (1,) * len(population) + shape[-1:] if alike else shape
        feedback, _ = self.network._surroundings

        def one_hot() -> Tensor:
            return torch.eye(actions)[torch.randint(actions, (steps, *shape), generator=generator)]

        self.xs = torch.zeros(steps, *shape, self.network.input_size)
        self.xs[..., :features] = torch.randn(steps, *own, features, generator=generator)
        self.xs[..., slice(*feedback.action)] = one_hot()
        self.xs[..., feedback.reward[0]] = torch.randint(3, (steps, *shape), generator=generator) / 2
        if feedback.label is not None:
            self.xs[..., slice(*feedback.label)] = one_hot()
        self.noise = torch.rand(steps, *shape, 1, generator=generator)
        self.starts = torch.rand(steps, *shape, generator=generator) < 0.1
        self.starts[0] = True
        if alike:
            self.starts[1:] = False
        self.state = {
            name: entry.expand(*population, *entry.shape)
            for name, entry in self.network.initial_state(shape[-1], generator).items()
        }
        self.distribution = Categorical(actions)

    def by_step(self, *, double: bool = False) -> Lived:
        """By the reference."""
        network, params, state, xs = self.network, self.params, self.state, self.xs
        if double:
            network.double()
            params = {name: value.double() for name, value in params.items()}
            state = {name: value.double() if value.is_floating_point() else value for name, value in state.items()}
            xs = xs.double()
        feedback, _ = network._surroundings
        found: list[Tensor] = []
        sampled, best = [], []
        with torch.no_grad():
            for time in range(self.steps):
                cut: Any = CutFeedback(feedback, xs[time], self.starts[time])
                outputs, state = network.step(params, xs[time], cut, state, self.starts[time])
                head = network.readout(params, outputs)
                found.append(outputs)
                sampled.append(self.distribution.sample(head, None, self.noise[time]).reshape(-1).numpy())
                best.append(self.distribution.mode(head).reshape(-1).numpy())
        if double:
            network.float()
        return Lived(torch.stack(found), np.stack(sampled), np.stack(best), state)

    def acting(self, level: str | None = None) -> TableActing:
        core = self.network.core
        self.network.core = Core(level or _native.levels()[-1], "asked for")
        with torch.no_grad():
            acting = self.network.acting(self.params, self.state, self.shape, 1)
        self.network.core = core
        assert isinstance(acting, TableActing)
        return acting

    def natively(self, level: str | None = None, choice: int = SAMPLES) -> Lived:
        """By the core."""
        acting = self.acting(level)
        found, chosen = [], []
        with torch.no_grad():
            for time in range(self.steps):
                flat = self.xs[time].reshape(-1, self.network.input_size).numpy()
                assert acting.step(
                    flat, self.starts[time].reshape(-1).numpy(), choice, self.noise[time].reshape(-1).numpy()
                )
                found.append(acting.features)
                chosen.append(acting.actions.copy())
            return Lived(torch.stack(found), np.stack(chosen), np.stack(chosen), dict(acting))


def assert_equal(native: Lived, reference: Lived, tolerance: float = 1e-5) -> None:
    assert torch.allclose(native.outputs, reference.outputs, rtol=tolerance, atol=tolerance)
    assert set(native.state) == set(reference.state)
    for name, entry in native.state.items():
        other = reference.state[name]
        assert entry.shape == other.shape, name
        assert entry.dtype == other.dtype, name
        if entry.is_floating_point():
            assert torch.allclose(entry, other, rtol=tolerance, atol=tolerance), name
        else:
            assert torch.equal(entry, other), name


over_variants = pytest.mark.parametrize("variant", VARIANTS)


@over_variants
@pytest.mark.parametrize("shape", [(4,), (2, 3)], ids=["alone", "population"])
def test_it_equals_step(variant: str, shape: tuple[int, ...]) -> None:
    life = Life(VARIANTS[variant], shape)
    native, reference = life.natively(), life.by_step()
    assert_equal(native, reference)
    # Outputs that are equal up to rounding are chosen among by that rounding, where the argmax selects.
    two = reference.outputs.topk(2, -1).values
    apart = ((two[..., 0] - two[..., 1] > 1e-5) | (life.network.config.selection == "softmax")).flatten(1).numpy()
    assert np.array_equal(native.sampled[apart], reference.sampled[apart])
    clear = (two[..., 0] - two[..., 1] > 1e-4).flatten(1).numpy()
    assert np.array_equal(life.natively(choice=MOST_PROBABLE).best[clear], reference.best[clear])


@over_variants
def test_all_levels_give_the_same_bytes(variant: str) -> None:
    life = Life(VARIANTS[variant], (2, 3))
    first, *others = (life.natively(level) for level in _native.levels())
    for other in others:
        assert torch.equal(first.outputs, other.outputs)
        assert np.array_equal(first.sampled, other.sampled)
        for name, entry in first.state.items():
            assert torch.equal(entry, other.state[name]), name


@over_variants
def test_an_individual_acts_as_if_alone(variant: str) -> None:
    """Also where the activity of hidden units is computed once for all: they see the same, with the same weights."""
    life = Life(VARIANTS[variant], (3, 2), alike=True)
    together = life.natively()
    assert_equal(together, life.by_step())
    for individual in range(3):
        alone = Life(VARIANTS[variant], (3, 2), alike=True)
        alone.shape = (2,)
        alone.params = {name: value[individual] for name, value in life.params.items()}
        alone.state = {name: value[individual] for name, value in life.state.items()}
        alone.xs, alone.noise, alone.starts = (value[:, individual] for value in (life.xs, life.noise, life.starts))
        own = alone.natively()
        assert torch.equal(together.outputs[:, individual], own.outputs)
        assert np.array_equal(together.sampled.reshape(-1, 3, 2)[:, individual], own.sampled)
        for name, entry in own.state.items():
            assert torch.equal(together.state[name][individual], entry), name


def test_shared_weights_are_held_once_until_a_lifetime_starts_alone() -> None:
    life = Life({}, (3, 2), alike=True)
    acting = life.acting()
    life.starts[7, 1, 0] = True
    for time in range(life.steps):
        acting.step(life.xs[time].flatten(0, 1).numpy(), life.starts[time].flatten().numpy(), OUTPUTS)
        assert acting._weights["input_weight"].shape[0] == (2 if time < 7 else 6)
    assert_equal(life.natively(), life.by_step())


def test_it_goes_on_from_a_state() -> None:
    """Of the reference, and of another that acts natively."""
    life = Life(EVERYTHING, (2, 3))
    whole = life.natively()
    life.steps = 5
    for halfway in (life.by_step().state, life.natively().state):
        later = Life(EVERYTHING, (2, 3))
        later.state, later.steps = halfway, 7
        later.xs, later.noise, later.starts = (value[5:] for value in (later.xs, later.noise, later.starts))
        assert_equal(later.natively(), whole._replace(outputs=whole.outputs[5:]))


def test_frozen_plasticity_holds_weights_and_average() -> None:
    life = Life(EVERYTHING, (2, 3), alike=True)
    life.network.plasticity_frozen = True
    native = life.natively()
    assert_equal(native, life.by_step())
    assert not native.state["reward_average"].any()


def test_a_state_read_is_not_written_to() -> None:
    life = Life(EVERYTHING)
    acting = life.acting()
    seen = []
    for time in range(3):
        acting.step(life.xs[time].numpy(), life.starts[time].numpy())
        seen.append({name: entry.clone() for name, entry in acting.items()})
        kept = dict(acting)
        if time:
            for name, entry in kept.items():
                assert torch.equal(entry, seen[-1][name]), name
    assert not torch.equal(seen[1]["output_weight"], seen[2]["output_weight"])
    assert torch.equal(acting["output_weight"], seen[2]["output_weight"])


def test_what_is_not_finite_is_told() -> None:
    life = Life({"start_weights": {"output": "normal"}})
    life.params["log_step"] = torch.full_like(life.params["log_step"], 100.0)
    acting = life.acting()
    well = [acting.step(life.xs[time].numpy(), life.starts[time].numpy(), MOST_PROBABLE) for time in range(3)]
    assert well[0]
    assert not well[2]
    assert ((acting.actions >= 0) & (acting.actions < ACTIONS)).all()


def test_other_types_stay_with_the_reference() -> None:
    life = Life({})
    life.network.double()
    params = dict(life.network.named_parameters())
    assert life.network.acting(params, life.network.initial_state(4), (4,), 1) is None
    life.network.float().core = Core(None, "torch")
    assert life.network.acting(dict(life.network.named_parameters()), life.state, (4,), 1) is None


@settings(deadline=None, max_examples=60)
@given(
    units=st.integers(1, 40),
    cap=st.integers(1, 45),
    features=st.integers(1, 20),
    actions=st.integers(1, 20),
    rows=st.integers(1, 3),
    individuals=st.integers(0, 2),
    rounds=st.integers(0, 3),
    normalise=st.sampled_from(["none", "incoming_l2", "outgoing_l2"]),
    recurrence=st.sampled_from(["joosten", "cristian"]),
    seed=st.integers(0, 1000),
)
def test_any_size(
    units: int, cap: int, features: int, actions: int, rows: int, individuals: int, rounds: int, seed: int, **more: str
) -> None:
    config = EVERYTHING | {"hidden_size": units, "cap": cap, "rounds": rounds, "recurrence": more["recurrence"]}
    config["normalise"] = dict.fromkeys(("input", "hidden", "output"), more["normalise"])
    shape = (individuals, rows) if individuals else (rows,)
    life = Life(config, shape, steps=6, seed=seed, features=features, actions=actions)
    reference, exact = life.by_step(), life.by_step(double=True)
    # Where single precision decides who fires, or much is lost in scaling what is small, there is nothing to compare.
    assume(torch.equal(reference.state["code"], exact.state["code"]))
    assume(torch.allclose(reference.outputs.double(), exact.outputs, rtol=1e-5, atol=1e-5))
    assert_equal(life.natively(), reference, 1e-4)


@pytest.mark.parametrize("units", [1, 16, 17, 33])
def test_tiles_and_back(units: int) -> None:
    weights = torch.randn(2, units, 5)
    tiles = tiled(weights)
    assert tiles.shape == (2, -(-units // 16), 5, 16)
    assert torch.equal(tiles[1, (units - 1) // 16, 3, (units - 1) % 16], weights[1, units - 1, 3])
    assert torch.equal(untiled(tiles, units), weights)


@pytest.mark.parametrize("inputs", ["features", "all"])
def test_fitness_is_the_same_by_either_core(inputs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    returns = {}
    for core in ("torch", "native"):
        monkeypatch.setenv("PLASTIC_RL_CORE", core)
        evolution = CMAES(
            "PlasticPolicy",
            "plastic_rl/Classification-v0",
            env_kwargs={"data": "D", "steps": 60},
            population_size=5,
            lifetimes=3,
            policy_kwargs={"network": {"kind": "rule_table", "hidden_size": 30, "cap": 8, "inputs": inputs}},
            seed=4,
        )
        genes = np.random.default_rng(0).normal(size=(5, evolution.genome.size))
        assert evolution.evaluator is not None
        returns[core] = evolution.evaluator(PopulationChunk(GenerationSpec(4, 0, 3), 0, genes))
    assert returns["native"].usable.all()
    assert np.array_equal(returns["native"].reward, returns["torch"].reward)


def test_arrays_are_checked() -> None:
    core = _native.extension()
    assert core is not None
    plan = Life({}).acting()._plan
    with pytest.raises(TypeError, match="starts must be a writable array of uint8"):
        plan.bind(starts=np.zeros(4, dtype=np.float32))
    with pytest.raises(ValueError, match=r"noise must be of shape \(4\), got \(5\)"):
        plan.bind(noise=np.zeros(5, dtype=np.float32))
    with pytest.raises(ValueError, match="no array weights"):
        plan.bind(weights=None)
    with pytest.raises(ValueError, match="is given all of its rule"):
        core.RuleTablePlan("baseline", cap=3)
    with pytest.raises(ValueError, match="has no size"):
        core.RuleTablePlan("baseline", size=3)
    plan.bind(output_weight=None)
    with pytest.raises(ValueError, match="is not bound"):
        plan.step()
    with pytest.raises(ValueError, match="each individual's own"):
        Life({"plastic": {"input": True}}).acting()._plan.share(True, False)
