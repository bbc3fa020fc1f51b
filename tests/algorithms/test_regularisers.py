"""Regularisers: what their penalties are worth, by closed forms, and what every one of them keeps to."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from plastic_rl.algorithms import PlasticA2C, SupervisedGradient
from plastic_rl.algorithms.regularisers import (
    REGULARISERS,
    ElasticWeightConsolidation,
    Regulariser,
    SynapticIntelligence,
    fisher_information,
    quadratic_penalty,
)
from plastic_rl.algorithms.unit_turnover import UnitTurnover
from plastic_rl.config.signatures import arguments_of
from plastic_rl.errors import CheckpointError, ConfigError
from plastic_rl.plasticity import Part
from tests.algorithms.a2c_cases import equal, make, params_of

TAUGHT = "plastic_rl/SupervisedClassification-v0"
ON = sorted(set(REGULARISERS) - {"none"})
everywhere = pytest.mark.parametrize("name", ON)
QUICK: dict[str, dict[str, Any]] = {"ewc": {"samples": 8}}
"""Options with which a stage ends sooner."""


def named(name: str, **options: Any) -> dict[str, Any]:
    return {"name": name, **QUICK.get(name, {}), **options}


def drawn(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def supervised(**kwargs: Any) -> SupervisedGradient:
    network = {"kind": "rule_table", "hidden_size": 6, "cap": 3, "rounds": 0, "output_table": "supervised"}
    options: dict[str, Any] = {"env_kwargs": {"data": "D", "steps": 8}, "n_envs": 4, "seed": 5}
    return SupervisedGradient(
        "PlasticPolicy", TAUGHT, **{**options, "policy_kwargs": {"network": network}, "optimizer": "rmsprop", **kwargs}
    )


# --- elastic weight consolidation ------------------------------------------------------------------------------------


def test_ewc_with_the_full_fisher_is_the_joint_solution_of_linear_gaussian_problems() -> None:
    """y = X w + noise of variance 1: the Fisher information of a problem is XT X, its loss 1/2 |y - X w|^2."""
    generator = torch.Generator().manual_seed(1)
    problems = [(drawn(generator, 12, 4), drawn(generator, 12)) for _ in range(3)]
    weights, fisher = torch.zeros(4, dtype=torch.float64), torch.zeros(4, 4, dtype=torch.float64)
    for inputs, targets in problems:
        # The minimum of a quadratic function, by its gradient and curvature at the anchor.
        at = weights.clone().requires_grad_()

        def loss(w: Tensor, anchor: Tensor = weights, x: Tensor = inputs, y: Tensor = targets) -> Tensor:
            return 0.5 * (y - x @ w).square().sum() + quadratic_penalty(w - anchor, fisher)  # noqa: B023 - called here

        [gradient] = torch.autograd.grad(loss(at), [at])
        curvature = torch.autograd.functional.hessian(loss, weights)
        weights = weights - torch.linalg.solve(curvature, gradient)
        fisher = fisher + inputs.T @ inputs
    together = torch.linalg.lstsq(torch.cat([x for x, _ in problems]), torch.cat([y for _, y in problems])[:, None])
    torch.testing.assert_close(weights, together.solution[:, 0], rtol=0, atol=1e-10)
    alone = torch.linalg.lstsq(problems[-1][0], problems[-1][1][:, None]).solution[:, 0]
    assert (weights - alone).abs().max() > 0.1


def test_the_regulariser_itself_is_the_joint_solution_where_the_fisher_is_diagonal() -> None:
    """Orthogonal inputs, and samples at +1 and -1 beside each prediction: the squared gradients are X^2 exactly."""
    signs = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=3)), dtype=torch.float64)
    problems = [(signs * torch.tensor(scale, dtype=torch.float64), 3.0 * shift + signs.sum(1)) for scale, shift in (
        ([1.0, 2.0, 0.5], 1.0), ([0.3, 1.5, 2.0], signs[:, 0]), ([1.0, 0.1, 1.0], signs[:, 2]),
    )]  # fmt: skip
    ewc = ElasticWeightConsolidation(strength=1.0, samples=16)
    params: dict[str, Tensor] = {"w": torch.zeros(3, dtype=torch.float64)}
    state = ewc.begun(params)
    assert ewc.penalty(params, state) is None
    for inputs, targets in problems:

        def loss(w: Tensor, x: Tensor = inputs, y: Tensor = targets) -> Tensor:
            penalty = ewc.penalty({"w": w}, state)  # noqa: B023 - called here
            return 0.5 * (y - x @ w).square().mean() + (0.0 if penalty is None else penalty)

        at = params["w"].clone().requires_grad_()
        [gradient] = torch.autograd.grad(loss(at), [at])
        curvature = torch.autograd.functional.hessian(loss, params["w"])
        params = {"w": params["w"] - torch.linalg.solve(curvature, gradient)}

        def samples(count: int, x: Tensor = inputs) -> Iterator[dict[str, Tensor]]:
            for number in range(count):
                yield {"w": (1.0 if number % 2 else -1.0) * x[number // 2]}

        state = ewc.stage_ended(state, params, samples)
        assert torch.equal(state["anchor/w"], params["w"])
    rows = torch.cat([x for x, _ in problems]), torch.cat([y for _, y in problems])[:, None]
    torch.testing.assert_close(params["w"], torch.linalg.lstsq(*rows).solution[:, 0], rtol=0, atol=1e-10)


def test_the_fisher_information_is_of_single_samples_and_not_of_their_mean() -> None:
    """Gradients +3 and -3 cancel in the mean; their squares do not."""
    found = fisher_information([{"w": torch.tensor([3.0])}, {"w": torch.tensor([-3.0])}], {"w": torch.zeros(1)})
    assert found["w"].item() == 9.0


def test_the_information_of_a2c_is_that_of_the_actions_of_single_lifetimes() -> None:
    """One lifetime of one step: the gradient of log softmax by the action head's bias is onehot - p."""
    agent = make(policy="GRUPolicy", env_kwargs={"steps": 1}, n_envs=2, regulariser={"name": "ewc", "samples": 2})
    agent.learn(2)
    before = params_of(agent)
    agent.end_stage()
    rollout = agent.rollout
    params = agent.policy.parameters_by_name()
    features, _ = agent.policy.features(
        params, rollout.observations[0], agent.state_before, torch.ones(2, dtype=torch.bool)
    )
    shares = torch.softmax(agent.policy.head(params, features), -1)
    expected = (torch.eye(2)[rollout.actions[0]] - shares).square().mean(0)
    torch.testing.assert_close(agent.regulariser_state["importance/action_head.bias"], expected.detach())
    assert agent.regulariser_state["importance/value_head.weight"].abs().max() == 0
    assert equal(before, params_of(agent))
    assert all(torch.equal(agent.regulariser_state[f"anchor/{name}"], own) for name, own in before.items())


def test_the_information_of_a_lifetime_is_that_of_its_gradient_over_its_steps() -> None:
    agent = make(policy="GRUPolicy", env_kwargs={"steps": 6}, n_envs=3, regulariser={"name": "ewc", "samples": 3})
    agent.learn(18)
    agent.end_stage()
    rollout, params = agent.rollout, agent.policy.parameters_by_name()
    result = agent.policy.evaluate(
        params, rollout.observations, rollout.actions, agent.state_before, rollout.episode_starts
    )
    by_lifetime = [
        torch.autograd.grad(result.log_probability[:, row].sum(), params["network.recurrent_weight"], retain_graph=True)
        for row in range(3)
    ]
    expected = torch.stack([own[0].square() / 6 for own in by_lifetime]).mean(0)
    found = agent.regulariser_state["importance/network.recurrent_weight"]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-9)
    of_the_mean = torch.stack([own[0] for own in by_lifetime]).mean(0).square() / 6
    assert found.sum() > 1.5 * of_the_mean.sum()


def test_the_information_of_a_taught_network_is_that_of_its_errors() -> None:
    agent = supervised(regulariser={"name": "ewc", "samples": 4})
    agent.learn(4 * 8)
    agent.end_stage()
    labels, known = agent.labels()
    params = {name: own for name, own in agent.policy.named_parameters() if own.requires_grad}
    outputs, head = agent.policy.outputs(
        agent.policy.parameters_by_name(), agent.rollout.observations, agent.state_before, agent.rollout.episode_starts
    )
    errors = agent._errors(outputs, head, labels)
    assert known.sum(0).tolist() == [7, 7, 7, 7]
    name = next(name for name in params if "table" in name)
    squares = [
        torch.autograd.grad(errors[:-1, row].sum(), params[name], retain_graph=True)[0].square() / 7 for row in range(4)
    ]
    found = agent.regulariser_state[f"importance/{name}"]
    torch.testing.assert_close(found, torch.stack(squares).mean(0), rtol=1e-3, atol=1e-9)
    assert found.sum() > 0


# --- synaptic intelligence -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.02, 0.01, 0.005])
def test_the_importances_sum_to_the_fall_of_the_loss_up_to_the_learning_rate(rate: float) -> None:
    """Gradient descent on 1/2 sum a w^2 over a fixed time: sum omega - (L_0 - L_T) is rate times a constant."""
    si, curvature = SynapticIntelligence(), torch.tensor([1.0, 3.0, 0.2], dtype=torch.float64)
    params = {"w": torch.tensor([1.0, -1.0, 2.0], dtype=torch.float64)}
    state = si.begun(params)

    def loss(w: Tensor) -> float:
        return float(0.5 * (curvature * w.square()).sum())

    start = loss(params["w"])
    for _ in range(round(1 / rate)):
        gradient = curvature * params["w"]
        moved = {"w": params["w"] - rate * gradient}
        state = si.stepped(state, {"w": gradient}, params, moved)
        params = moved
    fall = start - loss(params["w"])
    excess = float(state["omega/w"].sum()) - fall
    # To first order: rate / 2 times the integral of gT H g, which is sum a^2 w_0^2 (1 - exp(-2 a)) / 2.
    squares = torch.tensor([1.0, 1.0, 4.0], dtype=torch.float64)
    integral = float((curvature**2 * squares * (1 - torch.exp(-2 * curvature)) / 2).sum())
    assert excess / (rate / 2) == pytest.approx(integral, rel=5 * rate)
    assert abs(excess) < 0.03 * fall * rate / 0.005


def test_a_hand_computed_stage_of_synaptic_intelligence() -> None:
    """omega = -(2)(-.5) - (1)(-.25) = 1.25; moved by -.75, so Omega = 1.25 / (.5625 + .1); c (w - w*)^2 Omega."""
    si = SynapticIntelligence(strength=2.0, xi=0.1)
    one = {"w": torch.tensor([1.0, 0.0])}
    two = {"w": torch.tensor([0.5, 0.1])}
    three = {"w": torch.tensor([0.25, 0.2])}
    state = si.begun(one)
    state = si.stepped(state, {"w": torch.tensor([2.0, 1.0])}, one, two)
    state = si.stepped(state, {"w": torch.tensor([1.0, 1.0])}, two, three)
    torch.testing.assert_close(state["omega/w"], torch.tensor([1.25, -0.2]))
    assert si.penalty(three, state) is None
    state = si.stage_ended(state, three, lambda count: iter(()))
    torch.testing.assert_close(state["importance/w"], torch.tensor([1.25 / 0.6625, 0.0]))
    assert torch.equal(state["omega/w"], torch.zeros(2))
    penalty = si.penalty({"w": torch.tensor([0.75, 9.0])}, state)
    assert penalty is not None
    assert penalty.item() == pytest.approx(2.0 * 0.25 * 1.25 / 0.6625)
    again = si.stage_ended({**state, "omega/w": torch.tensor([0.2, 0.3])}, three, lambda count: iter(()))
    torch.testing.assert_close(again["importance/w"], torch.tensor([1.25 / 0.6625 + 2.0, 3.0]))


def test_the_path_follows_the_gradient_of_the_loss_alone_and_the_steps_that_were_taken() -> None:
    """With a clipped gradient and Adam's step: omega is minus the whole gradient times what the parameter did."""
    agent = make(policy="GRUPolicy", regulariser="synaptic_intelligence", max_grad_norm=1e-3)
    before, gradients = params_of(agent), {}
    original = torch.nn.utils.clip_grad_norm_

    def clipped(parameters: Any, most: float) -> Tensor:
        gradients.update({name: own.grad.clone() for name, own in agent.policy.named_parameters()})
        return original(parameters, most)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(torch.nn.utils, "clip_grad_norm_", clipped)
        agent.learn(80)
    after = params_of(agent)
    for name, gradient in gradients.items():
        torch.testing.assert_close(agent.regulariser_state[f"omega/{name}"], -gradient * (after[name] - before[name]))
    assert sum(float(own.abs().sum()) for own in gradients.values()) > 1.0


SPARSE = {"density": 0.5, "interval": 2, "share": 0.5, "until": 1.0}
OTHER_CHANGES: dict[str, dict[str, Any]] = {
    "sparsity": {"sparsity": SPARSE},
    "unit_turnover": {"unit_turnover": {"rate": 1.0, "maturity": 1}},
    "both": {"sparsity": SPARSE, "unit_turnover": {"rate": 1.0, "maturity": 1}},
}


@pytest.mark.parametrize("kind", OTHER_CHANGES)
def test_weights_that_are_set_anew_begin_their_path_there(kind: str) -> None:
    """Of a weight that was dropped, grown or redrawn only the steps since then count, and only the way since then."""
    agent = make(
        policy="PlasticPolicy",
        policy_kwargs={"network": {"kind": "rnn", "hidden_size": 6}},
        regulariser={"name": "synaptic_intelligence", "xi": 0.1},
        learning_rate=0.02,
        n_steps=5,
        **OTHER_CHANGES[kind],
    )
    agent.span = 0, 1000
    start, omega = params_of(agent), {name: torch.zeros_like(own) for name, own in params_of(agent).items()}
    stepped, gradients = dict(start), dict(start)
    si, original, set_anew = agent.regulariser, agent.regulariser.stepped, 0

    def recorded(state: Any, found: Any, before: Any, after: Any) -> Any:
        gradients.update(found)
        stepped.update({name: own.detach().clone() for name, own in after.items()})
        return original(state, found, before, after)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(si, "stepped", recorded)
        for _ in range(6):
            before = params_of(agent)
            agent.learn(20, reset_num_timesteps=False)
            now = params_of(agent)
            for name, own in now.items():
                omega[name] -= gradients[name] * (stepped[name] - before[name])
                jumped = stepped[name] != own
                set_anew += int(jumped.sum())
                omega[name][jumped] = 0.0
                start[name][jumped] = own[jumped]
    assert set_anew > 10
    agent.end_stage()
    for name, own in now.items():
        expected = omega[name].clamp_min(0.0) / ((own - start[name]).square() + 0.1)
        torch.testing.assert_close(agent.regulariser_state[f"importance/{name}"], expected)
        assert torch.equal(agent.regulariser_state[f"anchor/{name}"], own)


@pytest.mark.parametrize("kind", OTHER_CHANGES)
def test_a_saved_agent_whose_weights_were_set_anew_goes_on_to_the_bit(kind: str, tmp_path: Path) -> None:
    options = {"regulariser": "synaptic_intelligence", "n_steps": 5, **OTHER_CHANGES[kind]}
    agent = make(policy="PlasticPolicy", policy_kwargs={"network": {"kind": "rnn", "hidden_size": 6}}, **options)
    agent.learn(80)
    agent.save(tmp_path / "half")
    rest = PlasticA2C.load(tmp_path / "half", env="plastic_rl/ReversalBandit-v0", force_reset=False)
    for one in (agent, rest):
        one.learn(60, reset_num_timesteps=False)
        one.end_stage()
    assert equal(agent.regulariser_state, rest.regulariser_state)


# --- what all keep to ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(REGULARISERS))
def test_documentation_names_and_options(name: str) -> None:
    part: type[Regulariser] = REGULARISERS[name]
    first = (part.__doc__ or "").split("\n")[0]
    assert first.endswith(".")
    assert "`" in first or name == "none"
    assert [option for option, one in arguments_of(part, Part).items() if not one.help] == []
    assert part().numbers() == {}
    with pytest.raises(ConfigError, match="learned: unknown number of this part"):
        part(learned=("strength",))


@everywhere
def test_the_first_stage_is_trained_as_without_a_regulariser(name: str) -> None:
    plain, own = make(policy="GRUPolicy"), make(policy="GRUPolicy", regulariser=name)
    assert equal(params_of(plain.learn(240)), params_of(own.learn(240)))
    assert "regulariser" not in plain.get_checkpoint().tensors


@everywhere
def test_lifetimes_of_a_stage_end_are_not_counted(name: str) -> None:
    agent = make(policy="GRUPolicy", regulariser=named(name)).learn(240)
    counted = agent.num_timesteps, list(agent.score_buffer), list(agent.ep_info_buffer or []), agent.iterations
    agent.end_stage()
    assert counted == (
        agent.num_timesteps,
        list(agent.score_buffer),
        list(agent.ep_info_buffer or []),
        agent.iterations,
    )


@everywhere
def test_lifetimes_of_a_stage_end_say_nothing_of_the_use_of_units(name: str) -> None:
    agent = make(policy="GRUPolicy", regulariser=named(name), unit_turnover={"maturity": 10**6}).learn(240)
    agent.end_stage()
    turnover = agent._changes["unit_turnover"]
    assert isinstance(turnover, UnitTurnover)
    assert turnover._steps == 0
    agent.learn(80, reset_num_timesteps=False)
    assert set(agent._changes) == {"unit_turnover"}


@everywhere
def test_the_stronger_the_penalty_the_less_the_next_stage_moves_what_matters(name: str) -> None:
    """Weighed by the importances, the way from the anchor shrinks; without strength the bytes are those of none."""
    ways, final = [], []
    for strength in (0.0, 1.0, 1000.0):
        agent = make(policy="GRUPolicy", regulariser=named(name, strength=strength), learning_rate=1e-2)
        agent.learn(800)
        agent.end_stage()
        state = dict(agent.regulariser_state)
        agent.learn(1600, reset_num_timesteps=False)
        now = params_of(agent)
        ways.append(
            sum(
                float((state[f"importance/{key}"] * (own - state[f"anchor/{key}"]).square()).sum())
                for key, own in now.items()
            )
        )
        final.append(now)
    assert ways[0] > 1.5 * ways[1] or ways[1] > 1.5 * ways[2]
    assert ways[0] > ways[1] > ways[2] > 0


@everywhere
def test_no_argument_is_changed(name: str) -> None:
    part = REGULARISERS[name]()
    params = {"w": torch.tensor([1.0, -2.0])}
    moved = {"w": params["w"] + 0.5}

    def gradients(count: int) -> Iterator[dict[str, Tensor]]:
        yield from ({"w": torch.tensor([0.5, 1.0])} for _ in range(count))

    state: dict[str, Tensor] = part.begun(params)
    for _ in range(2):
        kept = {key: value.clone() for key, value in state.items()}
        following = part.stepped(state, {"w": -torch.ones(2)}, params, moved)
        ended = part.stage_ended(following, moved, gradients)
        assert kept.keys() == state.keys()
        assert all(torch.equal(state[key], value) for key, value in kept.items())
        assert {key.partition("/")[0] for key in ended} <= set(part.entries)
        state = ended
    assert torch.equal(params["w"], torch.tensor([1.0, -2.0]))
    penalty = part.penalty({"w": (params["w"] + 1.0).requires_grad_()}, state)
    assert penalty is not None
    assert penalty.item() > 0
    zero = part.penalty(moved, state)
    assert zero is not None
    assert zero.item() == 0


@everywhere
@pytest.mark.parametrize("ended", [False, True])
def test_a_saved_agent_goes_on_to_the_bit(name: str, ended: bool, tmp_path: Path) -> None:
    def begun() -> PlasticA2C:
        agent = make(policy="GRUPolicy", regulariser=named(name, strength=5.0), n_steps=7)
        agent.learn(84)
        if ended:
            agent.end_stage()
        agent.learn(84, reset_num_timesteps=False)
        return agent

    whole = begun()
    whole.learn(84, reset_num_timesteps=False)
    begun().save(tmp_path / "half")
    rest = PlasticA2C.load(tmp_path / "half", env="plastic_rl/ReversalBandit-v0", force_reset=False)
    rest.learn(84, reset_num_timesteps=False)
    assert equal(params_of(whole), params_of(rest))
    assert equal(whole.regulariser_state, rest.regulariser_state)


@everywhere
def test_altered_states_are_refused(name: str) -> None:
    agent = make(policy="GRUPolicy", regulariser=named(name)).learn(80)
    agent.end_stage()
    checkpoint = agent.get_checkpoint()
    key = "importance/action_head.bias"
    for altered, message in (
        ({key: torch.tensor([np.nan, 0.0])}, "NaN or infinite"),
        ({key: torch.zeros(3)}, "must be torch.float32 of shape"),
        ({"importance/stranger": torch.zeros(1)}, "are not the entries of"),
        ({"moment/action_head.bias": torch.zeros(2)}, "are not the entries of"),
    ):
        tensors = {**checkpoint.tensors, "regulariser": {**checkpoint.tensors["regulariser"], **altered}}
        with pytest.raises(CheckpointError, match=message):
            agent.set_checkpoint(dataclasses.replace(checkpoint, tensors=tensors))
    lacking = {own: value for own, value in checkpoint.tensors["regulariser"].items() if own != key}
    with pytest.raises(CheckpointError, match="missing"):
        agent.set_checkpoint(dataclasses.replace(checkpoint, tensors={**checkpoint.tensors, "regulariser": lacking}))


def test_what_is_no_regulariser_is_told() -> None:
    with pytest.raises(ConfigError, match=r"regulariser: unknown regulariser 'ecw'. Did you mean 'ewc'\?"):
        make(regulariser="ecw")
    with pytest.raises(ConfigError, match=r"regulariser\.strenght: unknown key. Did you mean 'strength'\?"):
        make(regulariser={"name": "ewc", "strenght": 2})
    with pytest.raises(ConfigError, match=r"regulariser\.strength: must be greater than or equal to 0, got -1"):
        make(regulariser={"name": "ewc", "strength": -1})
