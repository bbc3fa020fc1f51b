"""Config models made from constructors: an argument is declared in a signature and its docstring, and nowhere else.

A class states its own keyword-only arguments, with `Annotated` ranges, and the defaults that it changes; what it leaves
to the classes above it, it takes as `**shared` and hands on. Data flow: constructors along the MRO -> `arguments_of` ->
`model_of` -> a validated model, whose field descriptions are the command line's help.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, get_args, get_type_hints

from pydantic import Field, create_model

from plastic_rl.config.base import ConfigModel

ModelT = TypeVar("ModelT", bound=ConfigModel)


class NotStored:
    """Marks, in `Annotated`, an argument that results do not depend on: checkpoints leave it out."""


@dataclass(frozen=True)
class Argument:
    """A keyword-only argument, with its line of the docstring and the class that declares it first.

    The annotation includes what `Annotated` adds; without a default there is `inspect.Parameter.empty`.
    """

    name: str
    annotation: Any
    default: Any
    help: str
    owner: type

    @property
    def is_stored(self) -> bool:
        """Whether results depend on it."""
        return NotStored not in get_args(self.annotation)


@functools.cache
def arguments_of(cls: type, root: type) -> Mapping[str, Argument]:
    """Return the keyword-only arguments of the constructors of `cls`, from those of `root` down."""
    found: dict[str, Argument] = {}
    for kind in reversed(cls.__mro__):
        if issubclass(kind, root) and "__init__" in vars(kind):
            helps = argument_help(kind.__doc__)
            constructor: Any = kind.__init__
            hints = get_type_hints(constructor, include_extras=True)
            for name, one in inspect.signature(constructor).parameters.items():
                if one.kind is one.KEYWORD_ONLY:
                    above = found.get(name)
                    line = helps.get(name, above.help if above else "")
                    found[name] = Argument(name, hints[name], one.default, line, above.owner if above else kind)
    return found


def argument_of(function: Any, name: str, owner: type) -> Argument:
    """Return one argument of a method, whether keyword-only or not."""
    annotation = get_type_hints(function, include_extras=True)[name]
    default = inspect.signature(function).parameters[name].default
    return Argument(name, annotation, default, argument_help(function.__doc__).get(name, ""), owner)


def model_of(name: str, base: type[ModelT], arguments: Iterable[Argument], *, doc: str | None = None) -> type[ModelT]:
    """Make the config model that has some arguments as its fields."""
    fields: dict[str, Any] = {}
    for argument in arguments:
        default = ... if argument.default is inspect.Parameter.empty else argument.default
        fields[argument.name] = (argument.annotation, Field(default, description=argument.help))
    return create_model(name, __base__=base, __doc__=doc, **fields)


def handed_on(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What a constructor hands on to the one above it: its keyword-only arguments, and `shared`, of its `locals()`."""
    left = {"self", "__class__", "policy", "env", "step_size", "shared"}
    return {name: value for name, value in arguments.items() if name not in left} | dict(arguments["shared"])


def argument_help(docstring: str | None) -> dict[str, str]:
    r"""Read the lines of a Google-style docstring's `Args`, each as one line.

    >>> argument_help("A maze.\n\nArgs:\n    side: Cells of\n        a side.\n\nRaises:\n    TaskError: If even.")
    {'side': 'Cells of a side.'}
    """
    lines = inspect.cleandoc(docstring or "").split("\n")
    found: dict[str, str] = {}
    if "Args:" not in lines:
        return found
    last = ""
    for line in lines[lines.index("Args:") + 1 :]:
        if line and not line.startswith(" "):
            break
        match = re.match(r"^    \*{0,2}(\w+): (.*)$", line)
        if match:
            last = match.group(1)
            found[last] = match.group(2)
        elif last:
            found[last] = f"{found[last]} {line.strip()}".strip()
    return found
