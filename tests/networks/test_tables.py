"""Rule tables: codes, k-cap, look-ups and the hand-written ones."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch
from sklearn.linear_model import Perceptron
from torch import Tensor

from plastic_rl.errors import ConfigError
from plastic_rl.networks.rule_table.hand_written import HAND_WRITTEN
from plastic_rl.networks.rule_table.tables import (
    add_round,
    hidden_change,
    input_change,
    output_change,
    output_columns,
    scaled_,
    stacked,
)
from plastic_rl.neurons import k_cap

ONE = torch.ones(())


def test_a_kept_zero_has_not_fired() -> None:
    kept = k_cap(torch.tensor([[0.0, -1.0, 5.0], [0.0, 0.0, 0.0]]), 2)
    assert add_round(None, kept, 0).tolist() == [[0, 0, 1], [0, 0, 0]]


def test_codes_count_rounds_by_bits() -> None:
    rounds = torch.tensor([[1, 0, 1, 0], [1, 1, 0, 0], [1, 0, 1, 0.0]])
    codes = None
    for number, kept in enumerate(rounds):
        codes = add_round(codes, kept, number)
    assert codes is not None
    assert codes.tolist() == [7, 2, 5, 0]


def test_conditions_of_outputs() -> None:
    chosen, label = torch.tensor([0.0, 1, 0]), torch.tensor([0.0, 0, 1])
    yes, no = torch.tensor(True), torch.tensor(False)
    assert output_columns("supervised", chosen, None, label, None).tolist() == [0, 0, 1]
    assert output_columns("supervised_chosen", chosen, None, label, None).tolist() == [0, 2, 1]
    assert output_columns("label_free", chosen, no, None, None).tolist() == [0, 2, 0]
    assert output_columns("label_free", chosen, yes, None, None).tolist() == [1, 3, 1]
    assert output_columns("label_free", chosen, yes, None, yes).tolist() == [1, 3, 1]
    assert output_columns("label_free", chosen, yes, None, no).tolist() == [4, 5, 4]


@pytest.mark.parametrize("codes", [2, 4, 16])
def test_look_ups_equal_a_loop_over_weights(codes: int) -> None:
    generator = torch.Generator().manual_seed(codes)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    def whole(limit: int, *shape: int) -> Tensor:
        return torch.randint(limit, shape, generator=generator)

    population, batch, units, outputs, gates, columns = 3, 2, 5, 4, 2, 6
    tables = (
        normal(population, gates, codes),
        normal(population, gates, codes, codes),
        normal(population, codes, columns),
    )
    code, gate = whole(codes, population, batch, units).to(torch.uint8), whole(gates, population, batch)
    column, factor = whole(columns, population, batch, outputs), normal(population, batch, units)
    steps = normal(population)
    individual = torch.arange(population).unsqueeze(-1)
    place = gate + gates * individual
    got_input = input_change(stacked(tables[0], steps), place, code)
    got_hidden = hidden_change(stacked(tables[1], steps), place, code, factor).view(population, batch, units, units)
    rows = stacked(tables[2].mT, steps)
    got_output = output_change(rows, column + columns * individual.unsqueeze(-1), code)
    for p in range(population):
        for b in range(batch):
            g, of = int(gate[p, b]), code[p, b].tolist()
            for j in range(units):
                torch.testing.assert_close(got_input[p, b, j], steps[p] * tables[0][p, g, of[j]])
                for i in range(units):
                    expected = steps[p] * tables[1][p, g, of[i], of[j]] * factor[p, b, i]
                    torch.testing.assert_close(got_hidden[p, b, j, i], expected)
                for q in range(outputs):
                    expected = steps[p] * tables[2][p, of[j], int(column[p, b, q])]
                    torch.testing.assert_close(got_output[p, b, q, j], expected)


@pytest.mark.parametrize("axis", [-1, -2])
@pytest.mark.parametrize("rows", [3, 40])
def test_scaling_is_to_length_one_with_and_without_a_graph(axis: Literal[-1, -2], rows: int) -> None:
    weights = torch.randn(2, rows, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weights[0, 1], weights[1, :, 2] = 0, 0
    weights[1, 0], weights[0, :, 3] = 1e-8 * weights[1, 0], 1e-8 * weights[0, :, 3]  # short, and still of length 1
    with_graph = scaled_(weights, axis)
    lengths = with_graph.norm(dim=axis)
    torch.testing.assert_close(lengths, (weights.norm(dim=axis) > 0).double())
    with torch.no_grad():
        in_place = scaled_(weights, axis)
    assert in_place is weights
    torch.testing.assert_close(in_place, with_graph, atol=1e-14, rtol=0)


@pytest.mark.parametrize("axis", [-1, -2])
def test_the_gradient_of_scaling_is_finite_at_zero(axis: Literal[-1, -2]) -> None:
    weights = torch.tensor([[3.0, 4.0], [0.0, 0.0]], dtype=torch.float64)
    weights = (weights if axis == -1 else weights.mT.contiguous()).requires_grad_()
    scaled_(weights, axis).sum().backward()
    assert weights.grad is not None
    gradient = weights.grad if axis == -1 else weights.grad.mT
    # d(w / |w|) = (1 - w wT / |w|^2) / |w|: (1 - (9 + 12) / 25) / 5 and (1 - (12 + 16) / 25) / 5.
    torch.testing.assert_close(gradient, torch.tensor([[0.032, -0.024], [1.0, 1.0]], dtype=torch.float64))


def test_the_hand_written_tables() -> None:
    def rows(name: str, codes: int = 2, **values: float) -> list[list[float]]:
        written = HAND_WRITTEN[name]
        table: list[list[float]] = written.table(
            codes, 2 if written.output_table == "supervised" else 4, values
        ).tolist()
        return table

    assert rows("perceptron") == [[0, 0], [-1, 1]]
    assert rows("hebb") == [[0, 0], [0, 1]]
    assert rows("winnow") == [[0, 0], [-0.5, 1]]
    third = pytest.approx(1 / 3)
    # Columns: unrewarded, rewarded, then the same for the chosen output.
    assert rows("label_free_hebb") == [[0, 0, 0, 0], [third, 0, -2, 1]]
    assert rows("label_free_hebb", chosen_unrewarded=-1.0)[1][2] == -1
    # With a round of recurrence, "fired" is the last bit: codes 2 and 3.
    assert rows("perceptron", 4) == [[0, 0], [0, 0], [-1, 1], [-1, 1]]
    with pytest.raises(ConfigError, match="Did you mean 'chosen_unrewarded'"):
        rows("label_free_hebb", chosen_unrewardd=1.0)


def test_the_perceptron_table_for_signs_follows_scikit_learn_update_for_update() -> None:
    """Inputs +-1, rows (pre -, pre +), columns (correct, wrong): [[-1, 1], [1, -1]]; zero start, errors only."""
    rng = np.random.default_rng(0)
    inputs = rng.choice([-1.0, 1.0], (300, 6))
    labels = (inputs @ rng.normal(size=6) + rng.normal(size=300) > 0).astype(int)
    reference = Perceptron(fit_intercept=False, shuffle=False, penalty=None, max_iter=1, tol=None)
    # Our columns are (wrong, correct).
    rows = stacked(torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=torch.float64).mT, ONE.double())
    weights = torch.zeros(2, 6, dtype=torch.float64)
    updates = 0
    for x, label in zip(inputs, labels, strict=True):
        signs, wanted = torch.from_numpy(x), torch.eye(2, dtype=torch.float64)[label]
        outputs = weights @ signs
        if outputs[label] <= outputs[1 - label]:
            place = output_columns("supervised", wanted, None, wanted, None)
            weights = weights + output_change(rows, place, (signs > 0).to(torch.uint8))
            updates += 1
        reference.partial_fit(x[None], [label], classes=[0, 1])
        np.testing.assert_array_equal((weights[1] - weights[0]).numpy(), 2 * reference.coef_[0])
    assert updates > 30
