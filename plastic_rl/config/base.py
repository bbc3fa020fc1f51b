"""The base class of every config model."""

from __future__ import annotations

from types import NoneType
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError


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

    @field_validator("*", mode="before")
    @classmethod
    def _numbers_are_numbers(cls, value: Any, info: ValidationInfo) -> Any:
        # Pydantic would read `true` as 1 and '7' as 7, which hides mistakes.
        kind = cls.model_fields[str(info.field_name)].annotation
        if isinstance(value, bool | str) and set(get_args(kind) or (kind,)) <= {int, float, NoneType}:
            raise PydanticCustomError("number", "must be a number")
        return value
