"""The base class of every config model."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class ConfigModel(BaseModel):
    """A frozen pydantic model that refuses unknown keys, NaN and infinity.

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
