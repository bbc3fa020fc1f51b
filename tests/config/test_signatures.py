"""Config models made from constructors' signatures."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from pydantic import Field

from plastic_rl.config import ConfigModel, Schedule, check
from plastic_rl.config.schedule import EndsWithin, Scheduled
from plastic_rl.config.signatures import NotStored, argument_of, arguments_of, handed_on, model_of


class Root:
    """What all have in common.

    Args:
        seed: Of everything
            random.
        verbose: Says more.
    """

    def __init__(self, *, seed: int = 0, verbose: Annotated[int, NotStored] = 0, **own: Any) -> None:
        self.given = {"seed": seed, "verbose": verbose, **own}


class Middle(Root):
    """In between.

    Args:
        rate: Step size.
        steps: How many.
    """

    def __init__(
        self,
        *,
        rate: Annotated[Scheduled, EndsWithin(0)] = 1e-3,
        steps: Annotated[int, Field(ge=1)] = 10,
        **shared: Any,
    ) -> None:
        super().__init__(**handed_on(locals()))


class Leaf(Middle):
    """At the end.

    Args:
        share: A share.
    """

    def __init__(
        self,
        *,
        share: Annotated[Scheduled, EndsWithin(0, 1)] = 0.5,
        steps: Annotated[int, Field(ge=2)] = 20,
        **shared: Any,
    ) -> None:
        super().__init__(**handed_on(locals()))

    def learn(self, total: Annotated[int, Field(ge=1)], seed: int = 3) -> None:
        """Learn.

        Args:
            total: For how long.
            seed: Not looked at.
        """


def test_each_class_states_its_own_arguments_and_the_defaults_that_it_changes() -> None:
    arguments = arguments_of(Leaf, Root)
    assert list(arguments) == ["seed", "verbose", "rate", "steps", "share"]
    assert [argument.owner for argument in arguments.values()] == [Root, Root, Middle, Middle, Leaf]
    assert arguments["seed"].help == "Of everything random."
    assert arguments["steps"].help == "How many."
    assert arguments["steps"].default == 20
    assert [name for name, argument in arguments.items() if not argument.is_stored] == ["verbose"]


def test_constructors_hand_all_of_it_on() -> None:
    assert Leaf(seed=4, share=0.25).given == {"seed": 4, "verbose": 0, "rate": 1e-3, "steps": 20, "share": 0.25}


def test_the_model_has_ranges_defaults_and_help() -> None:
    arguments = [argument for argument in arguments_of(Leaf, Root).values() if argument.owner is not Root]
    model = model_of("LeafConfig", ConfigModel, [*arguments, argument_of(Leaf.learn, "total", Leaf)], doc="At the end.")
    assert model.__doc__ == "At the end."
    assert {name: field.description for name, field in model.model_fields.items()} == {
        "rate": "Step size.",
        "steps": "How many.",
        "share": "A share.",
        "total": "For how long.",
    }
    made: Any = model.model_validate({"total": 3, "share": {"start": 1, "end": 0}})
    assert (made.steps, made.rate, made.share(0.5)) == (20, Schedule(start=1e-3, end=1e-3), 0.5)
    _, problems = check(model, {"steps": 1, "share": {"start": 0.5, "end": 1.5}, "rate": -1, "stepps": 3})
    assert problems == [
        "rate: must be 0 or more, got -1",
        "steps: must be greater than or equal to 2, got 1.",
        "share: must be from 0 to 1, got 1.5",
        "total: missing, and it has no default.",
        "stepps: unknown key. Did you mean 'steps'? Valid: rate, steps, share, total.",
    ]


def test_functions_are_schedules() -> None:
    model: Any = model_of("LeafConfig", ConfigModel, arguments_of(Leaf, Root).values())

    def falling(remaining: float) -> float:
        return 2 * remaining

    assert model(rate=falling).rate is falling
    with pytest.raises(ValueError, match="must be from 0 to 1, got 2"):
        model(share=falling)
