"""The exceptions of plastic_rl, and the wording they share.

Every error a user can cause derives from `PlasticRLError`; the command line turns exactly these into one clear
message and exit code 2. A message says what was got, what is valid, and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


class PlasticRLError(Exception):
    """Base class of every error that plastic_rl raises on purpose."""


class UnknownNameError(PlasticRLError, LookupError):
    """A name that is in no registry: an environment, rule, network, agent, split, ..."""

    def __init__(self, kind: str, got: object, valid: Iterable[str], hint: str = "") -> None:
        super().__init__(unknown_name_message(kind, got, valid, hint))


class ConfigError(PlasticRLError, ValueError):
    """A configuration that does not validate; the message lists every problem at once."""


class SpaceError(PlasticRLError, ValueError):
    """Observation or action spaces that are unsupported, or do not fit the agent."""


class TaskError(PlasticRLError, ValueError):
    """A task, split or index outside what its distribution holds."""


class CheckpointError(PlasticRLError):
    """A checkpoint or agent that is missing, incomplete, altered, or of another format."""


class RunError(PlasticRLError):
    """A run folder that exists already, or is not a run."""


class AmbiguousNameError(RunError):
    """A name that runs and agents in several folders have."""


class FinishedError(RunError):
    """A run that has nothing left to do."""


class PluginError(PlasticRLError):
    """A plugin that cannot be found or imported."""


class EnvironmentFaultError(PlasticRLError):
    """An environment that breaks Gymnasium's contract, or raises an error of its own (which is the cause)."""


class NonFiniteError(PlasticRLError, ArithmeticError):
    """A number became NaN or infinite; the message names it and when."""


class TrainingInterrupted(Exception):  # noqa: N818 - an event, not an error
    """Training of the run in a folder was asked to stop; its newest checkpoint, if there is one, is named."""

    def __init__(self, run: Path, checkpoint: Path | None) -> None:
        where = f"saved in {checkpoint}" if checkpoint else "nothing was saved yet"
        super().__init__(f"stopped: {where}. Go on with: plastic-rl resume {run}")


@contextmanager
def damage_is_refused(what: str) -> Iterator[None]:
    """Within this context whatever fails on stored data is a `CheckpointError` that begins with `what`.

    Checksums find accidents; data that were altered and given a fresh checksum only show where they do not fit.

    >>> with damage_is_refused("the state does not fit"):
    ...     {"rows": 3}["seeds"]
    Traceback (most recent call last):
        ...
    plastic_rl.errors.CheckpointError: the state does not fit: it lacks 'seeds'
    """
    try:
        yield
    except PlasticRLError:
        raise
    except KeyError as error:
        raise CheckpointError(f"{what}: it lacks {error}") from error
    except (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(f"{what}: {type(error).__name__}: {error}") from error


def nearest(name: object, valid: Iterable[str]) -> str | None:
    """Return the valid name closest to `name`, or None if none is close.

    >>> nearest("hidden_sise", ["hidden_size", "rule"])
    'hidden_size'
    """
    candidates = [str(candidate) for candidate in valid]
    folded = {candidate.casefold(): candidate for candidate in candidates}
    matches = difflib.get_close_matches(str(name).casefold(), folded, n=1, cutoff=0.5)
    return folded[matches[0]] if matches else None


def did_you_mean(name: object, valid: Iterable[str]) -> str:
    """Return " Did you mean 'NEAREST'?", or nothing where no valid name is close to `name`."""
    match = nearest(name, valid)
    return f" Did you mean {match!r}?" if match else ""


def unknown_name_message(kind: str, got: object, valid: Iterable[str], hint: str = "") -> str:
    """Compose "unknown KIND 'GOT'. Did you mean ...? Valid: ..." with the nearest match.

    >>> unknown_name_message("rule", "ojja", ["oja", "decay"])
    "unknown rule 'ojja'. Did you mean 'oja'? Valid: decay, oja."
    """
    names = sorted(str(name) for name in valid)
    listing = f" Valid: {', '.join(names)}." if names else ""
    return f"unknown {kind} {got!r}.{did_you_mean(got, names)}{listing}{' ' + hint if hint else ''}"
