"""The reference on a GPU against itself on the CPU; skipped where there is none."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from plastic_rl.algorithms import PlasticA2C
from tests.networks.cases import ALL, Case, gradients, make_case, tracked, weighted_sum

pytestmark = [pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


def moved(case: Case, device: str) -> Case:
    def own(values: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: value.to(device) for name, value in values.items()}

    feedbacks = type(case.feedbacks)(*(None if one is None else one.to(device) for one in case.feedbacks))
    network = case.network.to(device)
    return Case(network, own(case.params), case.xs.to(device), feedbacks, case.starts.to(device), own(case.state))


@pytest.mark.parametrize("name", ALL)
def test_values_and_gradients_are_those_of_the_cpu(name: str) -> None:
    found = []
    for device in ("cpu", "cuda"):
        copy, leaves = tracked(moved(make_case(ALL[name]), device))
        features, state = copy.network.unroll(copy.params, copy.xs, copy.feedbacks, copy.state, copy.starts)
        own = gradients(weighted_sum(features.cpu(), {key: one.cpu() for key, one in state.items()}), leaves)
        found.append({"features": features.detach().cpu(), **{key: one.cpu() for key, one in own.items()}})
    for key, value in found[0].items():
        torch.testing.assert_close(found[1][key], value, atol=1e-9, rtol=1e-9)


def test_an_agent_learns_on_the_gpu() -> None:
    agent = PlasticA2C("BackpropaminePolicy", "plastic_rl/ReversalBandit-v0", n_envs=4, seed=1, device="cuda")
    before = {name: one.clone() for name, one in agent.policy.named_parameters()}
    assert agent.learn(800).num_timesteps == 800
    changed = [name for name, one in agent.policy.named_parameters() if not torch.equal(one, before[name])]
    assert "network.alpha" in changed
    assert all(one.device.type == "cuda" for one in agent.policy.parameters())
