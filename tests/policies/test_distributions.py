"""Action distributions against hand-computed numbers and torch.distributions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from gymnasium import spaces

from plastic_rl.errors import SpaceError
from plastic_rl.policies.distributions import (
    Categorical,
    DiagonalGaussian,
    IndependentBits,
    MultiCategorical,
    make_distribution,
)


def test_categorical_by_hand() -> None:
    dist = Categorical(3)
    head = torch.log(torch.tensor([[0.2, 0.5, 0.3]], dtype=torch.float64))
    log_probability, entropy, sum_p2 = dist.evaluate(head, None, torch.tensor([1]))
    assert log_probability.item() == pytest.approx(math.log(0.5), abs=1e-12)
    assert entropy.item() == pytest.approx(
        -(0.2 * math.log(0.2) + 0.5 * math.log(0.5) + 0.3 * math.log(0.3)), abs=1e-12
    )
    assert sum_p2.item() == pytest.approx(0.04 + 0.25 + 0.09, abs=1e-12)


def test_categorical_inverse_cdf_cuts_the_unit_interval_in_the_right_places() -> None:
    dist = Categorical(3)
    head = torch.log(torch.tensor([0.2, 0.5, 0.3])).expand(6, 3)
    noise = torch.tensor([[0.0], [0.19], [0.21], [0.69], [0.71], [0.9999999]])
    assert dist.sample(head, None, noise).tolist() == [0, 0, 1, 1, 2, 2]


def test_categorical_samples_stay_valid_where_the_sum_rounds_below_one() -> None:
    head = torch.randn(10_000, 7, generator=torch.Generator().manual_seed(0)) * 20
    actions = Categorical(7).sample(head, None, torch.full((10_000, 1), 1.0))
    assert int(actions.min()) >= 0
    assert int(actions.max()) <= 6


def test_categorical_counts_the_actions_whose_cumulative_probability_is_not_above_the_draw() -> None:
    generator = torch.Generator().manual_seed(4)
    head = torch.randn(50, 20, 5, generator=generator) * 3
    head[0, 0, 2] = -math.inf
    noise = torch.rand(20, 1, generator=generator).expand(50, 20, 1)
    below = torch.softmax(head, -1).cumsum(-1)[..., :-1] <= noise
    sampled = Categorical(5).sample(head, None, noise)
    assert torch.equal(sampled, below.sum(-1))
    assert sampled[0, 0] != 2
    assert torch.equal(Categorical(5).sample(head[0, 1], None, noise[0, 1]), sampled[0, 1])


def test_gradients_of_a_categorical_against_autograd_and_finite_differences() -> None:
    generator = torch.Generator().manual_seed(5)
    head = torch.randn(3, 2, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    actions = torch.randint(4, (3, 2), generator=generator)
    dist = Categorical(4)

    def by_autograd(head: torch.Tensor) -> tuple[torch.Tensor, ...]:
        logs = torch.log_softmax(head, -1)
        p = logs.exp()
        return logs.gather(-1, actions.unsqueeze(-1)).squeeze(-1), -(p * logs).sum(-1), p.square().sum(-1)

    assert torch.autograd.gradcheck(lambda head: dist.evaluate(head, None, actions), (head,))
    closed, reference = dist.evaluate(head, None, actions), by_autograd(head)
    weights = torch.randn(3, 3, 2, generator=generator, dtype=torch.float64).unbind(0)
    for one, other in zip(closed, reference, strict=True):
        assert torch.allclose(one, other, atol=1e-14)
    gradients = [torch.autograd.grad(values, head, weights)[0] for values in (closed, reference)]
    assert torch.allclose(*gradients, atol=1e-14)


def test_categorical_frequencies() -> None:
    generator = torch.Generator().manual_seed(3)
    dist = Categorical(4)
    probabilities = torch.tensor([0.1, 0.2, 0.3, 0.4])
    noise = dist.draw_noise((200_000,), generator)
    counts = torch.bincount(dist.sample(probabilities.log().expand(200_000, 4), None, noise), minlength=4) / 200_000
    assert torch.allclose(counts, probabilities, atol=0.005)


def test_multi_categorical_is_a_product() -> None:
    dist = MultiCategorical((2, 3))
    generator = torch.Generator().manual_seed(1)
    head = torch.randn(5, 4, 5, generator=generator)
    actions = dist.sample(head, None, dist.draw_noise((5, 4), generator))
    assert actions.shape == (5, 4, 2)
    log_probability, entropy, sum_p2 = dist.evaluate(head, None, actions)
    first = torch.distributions.Categorical(logits=head[..., :2])
    second = torch.distributions.Categorical(logits=head[..., 2:])
    expected = first.log_prob(actions[..., 0]) + second.log_prob(actions[..., 1])
    assert torch.allclose(log_probability, expected, atol=1e-6)
    assert torch.allclose(entropy, first.entropy() + second.entropy(), atol=1e-6)
    joint = (first.probs.unsqueeze(-1) * second.probs.unsqueeze(-2)).square().sum((-1, -2))
    assert torch.allclose(sum_p2, joint, atol=1e-6)


def test_bits_against_torch_and_as_choices_between_two() -> None:
    bits, choices = make_distribution(spaces.MultiBinary(3)), MultiCategorical((2, 2, 2))
    assert isinstance(bits, IndependentBits)
    generator = torch.Generator().manual_seed(1)
    head = torch.randn(40, 4, 3, generator=generator, dtype=torch.float64)
    actions = bits.sample(head, None, bits.draw_noise((40, 4), generator))
    assert (actions.shape, actions.dtype) == ((40, 4, 3), torch.int64)
    reference = torch.distributions.Bernoulli(logits=head)
    log_probability, entropy, sum_p2 = bits.evaluate(head, None, actions)
    assert torch.allclose(log_probability, reference.log_prob(actions.double()).sum(-1), atol=1e-12)
    assert torch.allclose(entropy, reference.entropy().sum(-1), atol=1e-12)
    as_choices = torch.stack([torch.zeros_like(head), head], -1).flatten(-2)
    for one, other in zip(choices.evaluate(as_choices, None, actions), (log_probability, entropy, sum_p2), strict=True):
        assert torch.allclose(one, other, atol=1e-12)
    assert torch.equal(bits.mode(head), choices.mode(as_choices))
    often = bits.sample(head[0, 0].expand(100_000, 3), None, bits.draw_noise((100_000,), generator)).double().mean(0)
    assert torch.allclose(often, torch.sigmoid(head[0, 0]), atol=0.007)
    # Certain bits have no entropy, and nothing becomes NaN.
    certain = bits.evaluate(torch.tensor([[200.0, -200.0]]), None, torch.tensor([[1, 0]]))
    assert [value.item() for value in certain] == [0.0, 0.0, 1.0]


def test_gaussian_against_torch() -> None:
    space = spaces.Box(np.array([-1.0, -2.0], np.float32), np.array([1.0, 0.5], np.float32))
    dist = DiagonalGaussian(space)
    generator = torch.Generator().manual_seed(2)
    head, log_std = torch.randn(6, 2, generator=generator), torch.tensor([0.3, -0.7])
    actions = dist.sample(head, log_std, dist.draw_noise((6,), generator))
    log_probability, entropy, sum_p2 = dist.evaluate(head, log_std, actions)
    reference = torch.distributions.Normal(head, log_std.exp())
    assert torch.allclose(log_probability, reference.log_prob(actions).sum(-1), atol=1e-5)
    assert torch.allclose(entropy, reference.entropy().sum(-1), atol=1e-6)
    # Integral of the squared density, numerically, one axis at a time.
    grid = torch.linspace(-12, 12, 20_001, dtype=torch.float64)
    squared = [
        torch.trapezoid(torch.distributions.Normal(0.0, scale).log_prob(grid).exp().square(), grid)
        for scale in log_std.exp().double()
    ]
    assert sum_p2[0].item() == pytest.approx(float(squared[0] * squared[1]), rel=1e-5)
    outside = torch.tensor([[5.0, -9.0]])
    assert dist.to_environment(outside).tolist() == [[1.0, -2.0]]


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(-np.inf, np.inf, (2,)),
        spaces.Discrete(3, start=1),
        spaces.MultiBinary([3, 2]),
        spaces.Dict({"a": spaces.Discrete(2)}),
        spaces.MultiDiscrete(np.array([[2, 2], [3, 3]])),
    ],
)
def test_unsupported_action_spaces_say_what_is_valid(space: spaces.Space[object]) -> None:
    with pytest.raises(SpaceError, match="valid are Discrete"):
        make_distribution(space)
