"""Action head and value head on the same features, as one function with its own gradient."""

from __future__ import annotations

import torch

from plastic_rl.policies.policy import _Heads


def tensors(dtype: torch.dtype) -> list[torch.Tensor]:
    """Features `(5, 3, 7)`, weight and bias of a head with 4 outputs, and of one with a value."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((5, 3, 7), (4, 7), (4,), (1, 7), (1,))
    return [torch.randn(*shape, generator=generator, dtype=dtype, requires_grad=True) for shape in shapes]


def test_gradients_against_finite_differences() -> None:
    assert torch.autograd.gradcheck(_Heads.apply, tensors(torch.float64))


def test_values_and_gradients_are_those_of_two_linear_heads() -> None:
    features, weight, bias, value_weight, value_bias = given = tensors(torch.float32)
    outputs, values = _Heads.apply(*given)
    linear = torch.nn.functional.linear
    apart = linear(features, weight, bias), linear(features, value_weight, value_bias).squeeze(-1)
    assert torch.equal(outputs, apart[0])
    assert torch.equal(values, apart[1])
    generator = torch.Generator().manual_seed(1)
    sent = [torch.randn(each.shape, generator=generator) for each in apart]
    together, separate = (torch.autograd.grad(both, given, sent) for both in ((outputs, values), apart))
    for one, other in zip(together, separate, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_fixed_features_get_no_gradient_and_an_unused_head_zeros() -> None:
    features, *rest = tensors(torch.float32)
    outputs, _ = _Heads.apply(features.detach(), *rest)
    gradients = torch.autograd.grad(outputs.sum(), rest)
    assert gradients[0].allclose(features.detach().sum((0, 1)).expand(4, 7), atol=1e-5)
    assert not gradients[2].any()
    assert not gradients[3].any()
