"""Hand-written rule tables: what evolved ones must beat.

Each is a function from the sizes of a network's tables to the tables themselves, under a name in `HAND_WRITTEN`. It
fills the output table; input and hidden tables stay 0, so that those layers keep their random start weights. "Fired"
is the last bit of a unit's code: whether it fired in the last round, whose activity the outputs read.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from plastic_rl.errors import ConfigError, unknown_name_message
from plastic_rl.networks.rule_table.tables import OutputTable
from plastic_rl.registry import Registry


@dataclass(frozen=True)
class HandWritten:
    """A table that someone wrote.

    Attributes:
        output_table: The kind of output table that it fills.
        columns: From named values to the output table's row for units that fired, and for those that did not. The
            names are the columns' own; the defaults are the published or usual ones.
        update: Whether entries add to weights or scale them.
        when: Whether weights change always, or only on errors.
    """

    output_table: OutputTable
    columns: Callable[..., tuple[tuple[float, ...], tuple[float, ...]]]
    update: str = "additive"
    when: str = "always"

    def values(self) -> dict[str, float]:
        """Names and defaults of the values."""
        return {name: parameter.default for name, parameter in inspect.signature(self.columns).parameters.items()}

    def table(self, codes: int, columns: int, values: Mapping[str, float]) -> Tensor:
        """The output table `(C, S)`.

        Args:
            codes: `C`.
            columns: `S`; columns beyond those of the table's kind (steps without an outcome) are 0.
            values: Changes to the defaults.

        Raises:
            ConfigError: If a value has an unknown name.
        """
        for name in values:
            if name not in self.values():
                raise ConfigError(unknown_name_message("value of table_values", name, self.values()))
        fired, silent = self.columns(**values)
        table = torch.zeros(codes, columns, dtype=torch.float32)
        table[codes // 2 :, : len(fired)] = torch.tensor(fired)
        table[: codes // 2, : len(silent)] = torch.tensor(silent)
        return table


def hebb(correct: float = 1.0, wrong: float = 0.0) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Fire together, wire together: the correct output's synapses from units that fired grow."""
    return (wrong, correct), (0.0, 0.0)


def label_free_hebb(
    chosen_rewarded: float = 1.0,
    chosen_unrewarded: float = -2.0,
    other_rewarded: float = 0.0,
    other_unrewarded: float = 1 / 3,
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Hebb without labels: reward says whether the chosen output was right, and else it was one of the others."""
    return (other_unrewarded, other_rewarded, chosen_unrewarded, chosen_rewarded), (0.0, 0.0, 0.0, 0.0)


def perceptron(size: float = 1.0) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Rosenblatt's rule for inputs 0 and 1: [[0, 0], [-1, 1]] for rows (silent, fired) and columns (wrong, correct)."""
    return (-size, size), (0.0, 0.0)


def winnow(factor: float = 2.0) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Littlestone's balanced Winnow for inputs 0 and 1; entries are factors less 1.

    On an error the weights of active inputs onto the correct output are multiplied by `factor`, and those onto the
    others divided by it.
    """
    return (1 / factor - 1, factor - 1), (0.0, 0.0)


HAND_WRITTEN: Registry[HandWritten] = Registry("hand-written table")
HAND_WRITTEN.register("hebb", HandWritten("supervised", hebb))
HAND_WRITTEN.register("label_free_hebb", HandWritten("label_free", label_free_hebb))
HAND_WRITTEN.register("perceptron", HandWritten("supervised", perceptron, when="errors"))
HAND_WRITTEN.register("winnow", HandWritten("supervised", winnow, update="multiplicative", when="errors"))
