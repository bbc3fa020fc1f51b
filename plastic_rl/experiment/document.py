"""The part of a checkpoint that belongs to the run, not to the algorithm."""

from __future__ import annotations

from typing import Any

from pydantic import Field, ValidationError

from plastic_rl.checkpoint import Checkpoint
from plastic_rl.config import ConfigModel
from plastic_rl.errors import CheckpointError

RUN_DOCUMENT = "run"
"""Its name among the checkpoint's documents."""


class Best(ConfigModel):
    """The best checkpoint so far."""

    step: int = Field(ge=0)
    """Its step."""
    valid_score: float
    """Its score on `valid`."""


class TableState(ConfigModel):
    """How far a table of metrics reaches."""

    columns: list[str]
    """Its columns, `step` first."""
    rows: int = Field(ge=0, lt=2**62)
    """Its rows."""


class MetricsState(ConfigModel):
    """How far both tables reach."""

    metrics: TableState
    """`metrics.csv`."""
    timing: TableState
    """`timing.csv`."""


class RunDocument(ConfigModel):
    """What a run adds to the checkpoint of its algorithm."""

    step: int = Field(ge=0)
    """Steps done."""
    config: dict[str, Any]
    """The part of the config that the bytes of a run depend on."""
    metrics: MetricsState
    """How far the tables reach."""
    best: Best | None
    """The best checkpoint on `valid`; None without scores on it."""

    @classmethod
    def of(cls, checkpoint: Checkpoint, where: object) -> RunDocument:
        """Read it from a checkpoint.

        Args:
            checkpoint: With at least this document.
            where: What the message calls the checkpoint.

        Raises:
            CheckpointError: If it has none, or one that is no such document.
        """
        try:
            return cls.model_validate(checkpoint.documents.get(RUN_DOCUMENT))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(str(key) for key in first["loc"]) or RUN_DOCUMENT
            raise CheckpointError(f"{where} is not a checkpoint of a run ({place}: {first['msg']}).") from None
