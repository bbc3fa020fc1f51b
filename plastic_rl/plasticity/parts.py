"""Parts: the pieces of a synapse or a unit that a config chooses by name, with options.

    term: hebb
    term: {name: stdp_pair, tau_plus: 16.8, learned: [tau_plus]}

The options of a part are the keyword-only arguments of its constructor, declared there with their ranges and told in
its docstring. Those that are numbers are parameters of the network: they stay as given, or start there and are changed
by the outer loop where `learned` names them, within the same range. Data flow: a config's `Named` value -> `make_part`
-> a part, which holds no state -> its `numbers`, which the network adopts as parameters.
"""

from __future__ import annotations

import functools
import math
from abc import ABC
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, Self, TypeVar

import torch
from pydantic import AfterValidator, model_validator
from pydantic_core import PydanticCustomError
from torch import Tensor

from plastic_rl.config import ConfigModel, check, describe
from plastic_rl.config.signatures import arguments_of, model_of
from plastic_rl.errors import ConfigError, unknown_name_message
from plastic_rl.plasticity.gains import Parameter, Range
from plastic_rl.registry import Registry

PartT = TypeVar("PartT", bound="Part")

Named = str | dict[str, Any]
"""What a config holds of a part: its name, or its name and options."""


ResetScope = Literal["lifetime", "trial"]


@dataclass(frozen=True)
class StateEntry:
    """One entry of the state of a lifetime.

    Attributes:
        shape: Without the leading `B`.
        reset: When it starts anew.
        dtype: None: that of the parameters.
        start: Where it starts: a number, or the name of a parameter that broadcasts against it.
        momentary: Whether it is of the moment, as activity, voltages and eligibility are, and not of what was learned:
            what is replayed in sleep begins from a stored one, and awaking brings back the one of before.
    """

    shape: tuple[int, ...]
    reset: ResetScope = "lifetime"
    dtype: torch.dtype | None = None
    start: float | str = 0.0
    momentary: bool = False


def momentary(entries: Mapping[str, StateEntry]) -> dict[str, StateEntry]:
    """The entries, as those of the moment."""
    return {name: replace(entry, momentary=True) for name, entry in entries.items()}


def starting_at(entry: StateEntry, names: Mapping[str, str]) -> StateEntry:
    """The entry, where the parameter that it starts at has another name in the network, by `names`."""
    return replace(entry, start=names[entry.start]) if isinstance(entry.start, str) else entry


class Setting:
    """Marks, in `Annotated`, an option that is a number and no parameter: it only says how to compute."""


class Curves(NamedTuple):
    """What a picture of a part shows.

    Attributes:
        x_label: What `x` is, with its unit.
        y_label: What the lines are.
        x: `(n,)`.
        lines: `(n,)` each, by their names in the legend.
    """

    x_label: str
    y_label: str
    x: Tensor
    lines: Mapping[str, Tensor]


class PartOptions(ConfigModel):
    """What every part may be given, beside the options of its own."""

    learned: tuple[str, ...] = ()
    """Names of the numbers that the outer loop changes; the others stay as they are."""

    @model_validator(mode="after")
    def _learned_are_numbers(self) -> Self:
        numbers = ranges(type(self))
        for name in self.learned:
            if name not in numbers:
                raise ValueError(f"learned: {unknown_name_message('number of this part', name, numbers)}")
        return self


class Part(ABC):  # noqa: B024 - what is abstract stands in the kinds of parts
    """A piece of a network that is chosen by name; a subclass states its options and hands `**shared` on.

    Args:
        step_size: Time that one update of this part takes, ms.
        **options: Its own, and those of `PartOptions`.

    Attributes:
        step_size: As given.
        options: All options, validated.

    Raises:
        ConfigError: If an option is unknown or out of its range.
    """

    def __init__(self, step_size: float = 1.0, **options: Any) -> None:
        self.step_size = step_size
        chosen, problems = check_options(type(self), options)
        if chosen is None:
            raise ConfigError(describe(problems, f"the options of {type(self).__name__}"))
        self.options: Any = chosen

    def curves(self) -> Curves | None:
        """What a picture of this part, with these options, shows; None by default: there is none."""
        return None

    @classmethod
    def used_numbers(cls, options: Any) -> Collection[str]:
        """Names of the numbers that anything depends on with these `options`: all of them by default."""
        return ranges(type(options))

    def numbers(self) -> dict[str, Parameter]:
        """The options that are numbers, and used, as parameters `(1,)` with their ranges, by name.

        `params[name].unsqueeze(-2)` broadcasts against `(.., B, O)`, with a population too.
        """
        learned, used = self.options.learned, self.used_numbers(self.options)
        return {
            name: Parameter(
                torch.full((1,), getattr(self.options, name), dtype=torch.float32),
                name in learned,
                valid=valid,
                is_gain=False,
            )
            for name, valid in ranges(type(self.options)).items()
            if name in used
        }


@functools.cache
def options_model(part: type) -> type[PartOptions]:
    """What the options of a part must be."""
    return model_of(f"{part.__name__}Options", PartOptions, arguments_of(part, Part).values())


def ranges(model: type[PartOptions]) -> dict[str, Range]:
    """Lowest and highest valid value of the options that are numbers, by name; `ge` and `le` of a `Field` say them."""
    found: dict[str, Range] = {}
    for name, field in model.model_fields.items():
        if field.annotation is float and Setting not in field.metadata:
            low, high = ([getattr(one, end) for one in field.metadata if hasattr(one, end)] for end in ("ge", "le"))
            found[name] = (float(low[0]) if low else -math.inf, float(high[0]) if high else math.inf)
    return found


def check_options(part: type[Part], options: Mapping[str, Any]) -> tuple[PartOptions | None, list[str]]:
    """What a part's options are; or None and every problem with them as one line."""
    chosen, problems = check(options_model(part), options)
    if chosen is None:
        return None, problems
    used = part.used_numbers(chosen)
    idle = [name for name in chosen.learned if name not in used]
    if idle:
        there = f"those that would: {', '.join(sorted(used))}" if used else "no number of it would"
        return None, [f"learned: {', '.join(idle)} would change nothing with these options; {there}"]
    return chosen, []


def named_part(registry: Registry[type[PartT]], value: Named) -> type[PartT]:
    """The part that `value` names.

    Raises:
        UnknownNameError: If there is none of this name.
    """
    return registry[value if isinstance(value, str) else str(value.get("name"))]


def make_part(registry: Registry[type[PartT]], value: Named, step_size: float = 1.0) -> PartT:
    """Make the part that `value` names, with its options.

    Raises:
        UnknownNameError: If there is none of this name.
        ConfigError: If an option is unknown or out of its range.
    """
    options = {} if isinstance(value, str) else {key: one for key, one in value.items() if key != "name"}
    return named_part(registry, value)(step_size, **options)


def check_named(registry: Registry[type[PartT]], value: Named) -> Named:
    """Check a name, or a name with options, in a config's validator; the name alone where no option is given.

    Raises:
        ValueError: If the name is missing or unknown.
        PydanticCustomError: With every problem of the options.
    """
    name, options = (value, {}) if isinstance(value, str) else (value.get("name"), {**value})
    options.pop("name", None)
    if not isinstance(name, str):
        raise ValueError(f"name is missing: use one of {', '.join(sorted(registry))}")
    if name not in registry:
        raise ValueError(unknown_name_message(registry.kind, name, registry))
    _, problems = check_options(registry[name], options)
    if problems:
        raise PydanticCustomError("problems", "{count} problems", {"count": len(problems), "problems": problems})
    return {"name": name, **options} if options else name


def named_in(registry: Registry[type[PartT]]) -> AfterValidator:
    """For `Annotated[Named, ...]`: what a config's field may name, with plug-ins' parts, and `check_named` of it."""
    return AfterValidator(functools.partial(check_named, registry))
