"""The base class of every config model."""

from __future__ import annotations

from collections.abc import Mapping
from types import NoneType
from typing import Any, Self, get_args

from pydantic import BaseModel, ConfigDict, ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError


class ConfigModel(BaseModel):
    """A frozen pydantic model that refuses unknown keys, NaN and infinity, and texts or truth values for numbers.

    Subclasses describe each field in `Field(description=...)` or in a string under the field: that text is the
    command line's help.

    >>> class Example(ConfigModel):
    ...     hidden_size: int = 100
    >>> Example(hidden_size=20).model_dump()
    {'hidden_size': 20}
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        protected_namespaces=(),
    )

    @model_validator(mode="wrap")
    @classmethod
    def _numbers_are_numbers(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        # Pydantic would read `true` as 1 and '7' as 7, which hides mistakes. All other problems are collected as well,
        # so that they are reported together.
        problems = [
            InitErrorDetails(type=PydanticCustomError("number", "must be a number"), loc=(name,), input=value[name])
            for name, field in cls.model_fields.items()
            if isinstance(value, Mapping)
            and isinstance(value.get(name), bool | str)
            and set(get_args(field.annotation) or (field.annotation,)) <= {int, float, NoneType}
        ]
        if not problems:
            return handler(value)
        found = {problem["loc"] for problem in problems}
        try:
            handler(value)
        except ValidationError as error:
            problems += [
                InitErrorDetails(
                    type=PydanticCustomError(detail["type"], _literal(detail["msg"]), detail.get("ctx", {})),
                    loc=detail["loc"],
                    input=detail["input"],
                )
                for detail in error.errors(include_url=False)
                if detail["loc"][:1] not in found
            ]
        raise ValidationError.from_exception_data(cls.__name__, problems)


def _literal(message: str) -> Any:
    # Custom messages are templates, in which braces would stand for values of the context.
    return message.replace("{", "(").replace("}", ")")
