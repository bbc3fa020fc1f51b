"""A cost on the activity of hidden units: its value and gradient, where it leads training, what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from plastic_rl.algorithms import SupervisedGradient
from plastic_rl.algorithms.activity import activity_cost
from plastic_rl.config import Schedule
from plastic_rl.errors import ConfigError
from tests.algorithms.a2c_cases import equal, make, params_of
from tests.networks.cases import ONE_TO_ONE, UNITS, make_case

READOUT = {"rule": "reward_gated", "neuron": "tanh", "population": 2}
RATES: dict[str, Any] = {
    "kind": "plastic_units",
    "neuron": "sigmoid",
    "hidden_size": 4,
    "recurrent": {"rule": "backpropamine_simple"},
    "readout": READOUT,
}
SPIKES: dict[str, Any] = UNITS["units_spiking"] | {"hidden_size": 6}


def test_the_cost_by_hand() -> None:
    """Steps of weight 3/4, 1/4 and 0: means 1/4, 3/4; squares of outputs 1/4, 3/4; target 1/2."""
    activity = torch.tensor([[[0.0, 1.0]], [[1.0, 0.0]], [[9.0, 9.0]]])
    weight = torch.tensor([[0.75], [0.25], [0.0]])
    assert activity_cost(activity, weight, 0.5).item() == pytest.approx(1 / 16)
    assert activity_cost(activity, weight, None).item() == pytest.approx(1 / 2)


@pytest.mark.parametrize("target", [None, 0.2])
def test_its_gradient_is_that_of_finite_differences(target: float | None) -> None:
    """Through the whole unroll, readout and all, with respect to every weight and the start state."""
    case = make_case(RATES, steps=4, batch=2, units=3)
    weight = torch.full((4, 2), 1 / 8, dtype=torch.float64)
    names = ["synapses.input.weight", "synapses.recurrent.alpha", "synapses.recurrent.modulator_weight"]

    def cost(activity: Tensor, *values: Tensor) -> Tensor:
        params = case.params | dict(zip(names, values, strict=True))
        state = case.state | {"activity.hidden": activity}
        _, outputs, _ = case.network.unroll_with_activity(params, case.xs, case.feedbacks, state, case.starts)
        return activity_cost(outputs, weight, target)

    leaves = [case.state["activity.hidden"], *(case.params[name] for name in names)]
    assert torch.autograd.gradcheck(cost, [leaf.clone().requires_grad_() for leaf in leaves])


@pytest.mark.parametrize("config", [RATES, SPIKES], ids=["rates", "spikes"])
def test_the_activity_is_what_the_units_put_out_and_the_features_are_the_same(config: dict[str, Any]) -> None:
    case = make_case(config, steps=6)
    network = case.network
    features, activity, final = network.unroll_with_activity(
        case.params, case.xs, case.feedbacks, case.state, case.starts
    )
    plain, plain_final = network.unroll(case.params, case.xs, case.feedbacks, case.state, case.starts)
    torch.testing.assert_close(features, plain, atol=0, rtol=0)
    torch.testing.assert_close(final, plain_final, atol=0, rtol=0)
    # The same network without its readout has these outputs as features.
    alone = make_case({name: one for name, one in config.items() if name not in {"readout", "reset"}}, steps=6)
    params = {name: case.params[name] for name in alone.params}
    state = {name: case.state[name] for name in alone.state}
    expected, same, _ = alone.network.unroll_with_activity(params, case.xs, case.feedbacks, state, case.starts)
    assert same is expected
    torch.testing.assert_close(activity, expected, atol=1e-12, rtol=0)
    if config is SPIKES:
        assert set((4 * activity).unique().tolist()) <= {0.0, 1.0, 2.0, 3.0, 4.0}
        assert activity.max().item() > 0


def test_without_a_cost_bytes_are_those_of_no_cost() -> None:
    plain, none = make().learn(160), make(activity_cost=Schedule(start=0.0, end=0.0)).learn(160)
    assert equal(params_of(plain), params_of(none))
    assert not none.costs_activity
    assert "train/mean_activity" not in none.logger.name_to_value
    assert not equal(params_of(plain), params_of(make(activity_cost=0.1).learn(160)))


@pytest.mark.parametrize(
    ("network", "target"),
    [({"kind": "plastic_rnn", "hidden_size": 8}, 0.3), (RATES, 0.2)],
    ids=["plastic_rnn", "plastic_units"],
)
def test_training_moves_the_mean_output_to_the_target(network: dict[str, Any], target: float) -> None:
    def trained(iterations: int, **options: Any) -> dict[str, Any]:
        agent = make(
            policy="PlasticPolicy",
            policy_kwargs={"network": network},
            env_kwargs={"steps": 8},
            n_envs=2,
            learning_rate=Schedule(start=0.05, end=0.0),
            **options,
        )
        return agent.learn(2 * 8 * iterations, log_interval=1_000_000).logger.name_to_value

    moved = trained(50, activity_cost=20.0, activity_target=target)
    assert moved["train/mean_activity"] == pytest.approx(target, rel=0.05)
    begun = trained(1, activity_cost=1e-9, activity_target=target)
    assert moved["train/activity_cost"] < 0.05 * begun["train/activity_cost"]  # every unit's, not their mean alone
    assert abs(begun["train/mean_activity"] - target) > 0.25 * target


def test_the_supervised_twin_pays_it_too() -> None:
    def first_loss(**options: Any) -> tuple[float, float]:
        agent = SupervisedGradient(
            "PlasticPolicy",
            "plastic_rl/SupervisedClassification-v0",
            env_kwargs={"data": "D", "steps": 6},
            n_envs=2,
            policy_kwargs={"network": {"kind": "plastic_rnn", "hidden_size": 4}},
            seed=1,
            **options,
        ).learn(12, log_interval=1_000_000)
        values = agent.logger.name_to_value
        return values["train/loss"], values.get("train/activity_cost", 0.0)

    plain, _ = first_loss()
    loss, cost = first_loss(activity_cost=3.0)
    assert cost > 0.01
    assert loss == pytest.approx(plain + 3 * cost, rel=1e-5)


def test_a_recurrent_network_whose_first_units_answer_tells_what_all_put_out() -> None:
    case = make_case(ONE_TO_ONE["one_to_one_differentiable_plasticity"], steps=6)
    network = case.network
    assert network.has_readout
    assert network.tells_activity
    run = (case.params, case.xs, case.feedbacks, case.state, case.starts)
    features, activity, final = network.unroll_with_activity(*run)
    plain, _ = network.unroll(*run)
    torch.testing.assert_close(features, plain, atol=1e-12, rtol=0)
    torch.testing.assert_close(activity[-1], final["activity"], atol=0, rtol=0)
    torch.testing.assert_close(activity[..., : network.output_size], features, atol=0, rtol=0)


@pytest.mark.parametrize(
    ("options", "network", "message"),
    [
        ({"activity_target": 0.1}, {"kind": "gru"}, "activity_target does nothing while activity_cost is 0"),
        (
            {"activity_cost": 1.0},
            {"kind": "plastic_feed_forward", "inputs": "all"},
            "this plastic_feed_forward network",
        ),
        (
            {"activity_cost": 1.0},
            {"kind": "plastic_units", "hidden_size": 0, "readout": {}},
            "which this plastic_units network does not tell",
        ),
    ],
)
def test_what_would_do_nothing_is_refused(options: dict[str, Any], network: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(policy="PlasticPolicy", policy_kwargs={"network": network}, **options)
