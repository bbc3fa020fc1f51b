"""The loop version: how one would first write it, kept as the yardstick of `python -m benchmarks`.

A plastic recurrent actor-critic on the grid maze, from the equations of Miconi et al. 2019 (Backpropamine): the
network is batched over lifetimes, but environments are stepped one by one in Python, autograd follows the whole
lifetime step by step, and actions come from torch.distributions. Nothing of plastic_rl is used but the environment.

    y_t = tanh(U o_t + b + (W0 + alpha * F_t) y_{t-1})                              forward pass
    M_t = tanh(w_m . y_t + b_m),  a_t = y_t y_{t-1}^T                               modulator, pairing
    simple:       F <- clip(F + M_t a_t, -1, 1)                                     eq. 3
    fan_out:      F_j <- clip(F_j + (f_j M_t + g_j) a_tj, -1, 1), unit by unit      section 2
    retroactive:  F <- clip(F + M_t E_t, -1, 1), then E <- (1 - eta) E + eta a_t    eqs. 4-5
    loss = sum_t (-log pi(a_t) A_t + 0.1 A_t^2 + 0.03 sum p_t^2) / T, mean over lifetimes; A_t = R_t - V_t, gamma 0.9
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import gymnasium
import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Categorical

Rule = Literal["simple", "retroactive", "fan_out"]


class PlasticNet(nn.Module):
    """One plastic recurrent layer with a modulator, an actor and a critic.

    Args:
        inputs: `I`, size of an observation.
        hidden: `O`, number of units.
        actions: Number of actions.
        rule: When and how the modulator gates plasticity.
    """

    def __init__(self, inputs: int, hidden: int, actions: int, rule: Rule) -> None:
        super().__init__()
        self.rule = rule
        self.hidden = hidden
        self.input = nn.Linear(inputs, hidden)
        self.w = nn.Parameter(0.001 * torch.rand(hidden, hidden))
        self.alpha = nn.Parameter(0.001 * torch.rand(hidden, hidden))
        self.eta = nn.Parameter(torch.tensor(0.01))
        self.modulator = nn.Linear(hidden, 1)
        self.actor = nn.Linear(hidden, actions)
        self.critic = nn.Linear(hidden, 1)
        if rule == "fan_out":
            self.fan_out = nn.Parameter(torch.ones(hidden))
            self.offset = nn.Parameter(torch.zeros(hidden))

    def start(self, batch: int) -> tuple[Tensor, Tensor, Tensor]:
        """Activity `(B, O)`, trace `(B, O, O)` and eligibility `(B, O, O)` of newborn lifetimes."""
        return (
            torch.zeros(batch, self.hidden),
            torch.zeros(batch, self.hidden, self.hidden),
            torch.zeros(batch, self.hidden, self.hidden),
        )

    def forward(
        self, x: Tensor, state: tuple[Tensor, Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor, Tensor]]:
        """One step: logits `(B, A)`, value `(B,)` and the next state, from observations `(B, I)`."""
        y_before, trace, eligibility = state
        weights = self.w + self.alpha * trace
        y = torch.tanh(self.input(x) + torch.bmm(weights, y_before.unsqueeze(2)).squeeze(2))
        modulator = torch.tanh(self.modulator(y)).unsqueeze(2)
        pairing = torch.bmm(y.unsqueeze(2), y_before.unsqueeze(1))
        if self.rule == "simple":
            trace = torch.clamp(trace + modulator * pairing, -1.0, 1.0)
        elif self.rule == "fan_out":
            gains = self.fan_out.unsqueeze(1) * modulator + self.offset.unsqueeze(1)
            trace = torch.clamp(trace + gains * pairing, -1.0, 1.0)
        else:
            trace = torch.clamp(trace + modulator * eligibility, -1.0, 1.0)
            eligibility = (1.0 - self.eta) * eligibility + self.eta * pairing
        return self.actor(y), self.critic(y).squeeze(1), (y, trace, eligibility)


class LoopTrainer:
    """A2C over whole lifetimes, environments one by one.

    Args:
        envs: `B` scalar environments whose lifetimes all last as long.
        hidden: Number of units.
        rule: Neuromodulation.
        seed: Of the parameters, the environments and the actions.
    """

    def __init__(self, envs: Sequence[gymnasium.Env[Any, Any]], hidden: int, rule: Rule, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.envs = list(envs)
        first = self.envs[0]
        observation_space, action_space = first.observation_space, first.action_space
        assert isinstance(observation_space, gymnasium.spaces.Box)
        assert isinstance(action_space, gymnasium.spaces.Discrete)
        self.net = PlasticNet(observation_space.shape[0], hidden, int(action_space.n), rule)
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=1e-4, eps=1e-4)
        for index, env in enumerate(self.envs):
            env.reset(seed=seed + index)

    def iteration(self) -> float:
        """Live one lifetime in every environment, learn from it, and return the mean reward per lifetime."""
        observations = [env.reset()[0] for env in self.envs]
        state = self.net.start(len(self.envs))
        log_probs: list[Tensor] = []
        values: list[Tensor] = []
        square_probs: list[Tensor] = []
        rewards: list[list[float]] = []
        finished = False
        while not finished:
            logits, value, state = self.net(torch.as_tensor(np.stack(observations)), state)
            policy: Any = Categorical(logits=logits)
            actions = policy.sample()
            log_probs.append(policy.log_prob(actions))
            values.append(value)
            square_probs.append((policy.probs**2).sum(1))
            rewards.append([])
            for index, env in enumerate(self.envs):
                observations[index], reward, terminated, truncated, _ = env.step(int(actions[index]))
                rewards[-1].append(float(reward))
                finished = finished or terminated or truncated
        received = torch.tensor(rewards)
        returns = torch.zeros_like(received)
        following = torch.zeros(len(self.envs))
        for step in reversed(range(len(rewards))):
            following = received[step] + 0.9 * following
            returns[step] = following
        advantages = returns - torch.stack(values)
        policy_loss = -(torch.stack(log_probs) * advantages.detach())
        loss = (policy_loss + 0.1 * advantages**2 + 0.03 * torch.stack(square_probs)).mean(1).sum() / len(rewards)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.net.parameters(), 4.0)
        self.optimizer.step()
        return float(received.sum(0).mean())
