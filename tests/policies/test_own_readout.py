"""Networks that choose actions by a readout of their own, under the policy's value head."""

from __future__ import annotations

import torch

from plastic_rl.algorithms import PlasticA2C

NETWORK = {"kind": "rule_table", "hidden_size": 8, "cap": 3, "tables": "label_free_hebb", "exploration": 0.0}


def test_the_value_is_read_from_how_sure_the_preferences_are_and_does_not_bend_them() -> None:
    agent = PlasticA2C(
        "PlasticPolicy",
        "plastic_rl/Classification-v0",
        env_kwargs={"data": "D", "steps": 20},
        n_envs=3,
        policy_kwargs={"network": NETWORK},
        seed=1,
    ).learn(60)
    policy, rollout = agent.policy, agent.rollout
    parameters = policy.parameters_by_name()
    state = agent.state_before
    result = policy.evaluate(parameters, rollout.observations, rollout.actions, state, rollout.episode_starts)
    _, head = policy.outputs(parameters, rollout.observations, state, rollout.episode_starts)
    probabilities = torch.softmax(head, -1)
    expected = (probabilities.square() @ policy.value_head.weight.mT).squeeze(-1) + policy.value_head.bias
    torch.testing.assert_close(result.values, expected)

    policy.zero_grad()
    result.values.sum().backward()  # type: ignore[no-untyped-call]
    moved = [name for name, parameter in policy.named_parameters() if parameter.grad is not None]
    assert sorted(moved) == ["value_head.bias", "value_head.weight"]
    # The same value where the agent acts, one step at a time.
    with torch.no_grad():
        first = policy.value(parameters, rollout.observations[0], state, rollout.episode_starts[0])
    torch.testing.assert_close(first, result.values.detach()[0])
