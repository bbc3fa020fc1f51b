"""The run folder: what is where, made whole or not at all, and owned by one process at a time.

    runs/NAME/config.yaml      the resolved config          runs/NAME/evaluation.json   scores on held-out tasks
    runs/NAME/metrics.csv      what the run computed        runs/NAME/curves.png        learning curve
    runs/NAME/timing.csv       clock readings               runs/NAME/adaptation.png    learning within a lifetime
    runs/NAME/checkpoints/     the newest and the best      runs/NAME/tb/               TensorBoard
    runs/NAME/stages.json      scores on all stages after   runs/NAME/stages.png        the same as a heat map
                               each, where there are any

Several seeds of one experiment are sibling folders: runs/NAME/seed-0, runs/NAME/seed-1, ...
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from plastic_rl.checkpoint import Checkpoint, latest, read_checkpoint, remove_unfinished, saved_steps
from plastic_rl.checkpoint.files import sync_folder, temporary_beside, write_synced
from plastic_rl.config import ConfigModel, read_mapping
from plastic_rl.errors import AmbiguousNameError, CheckpointError, ConfigError, RunError, nearest
from plastic_rl.experiment.config import ExperimentConfig, parse_experiment
from plastic_rl.experiment.metrics import MetricsState

if os.name == "posix":
    import fcntl

CONFIG = "config.yaml"
AGENT_CHECKPOINT = "checkpoint"
"""Of an exported agent; a run has `checkpoints`."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
_SEED = re.compile(r"seed-[0-9]+")
RUN_DOCUMENT = "run"
"""Its name among the checkpoint's documents."""


class Best(ConfigModel):
    """The best checkpoint so far."""

    step: int = Field(ge=0)
    valid_score: float


class RunDocument(ConfigModel):
    """What a run adds to the checkpoint of its algorithm."""

    step: int = Field(ge=0)
    config: dict[str, Any]
    """The part of the config that the bytes of a run depend on."""
    metrics: MetricsState
    best: Best | None
    """None without scores on `valid`."""
    stage_ends: tuple[int, ...] = ()
    """Steps of the checkpoints at which stages ended, where there are any; they are kept."""

    def ends_before(self, stage: int) -> bool:
        """Whether the checkpoint is the one at which the stage before number `stage` ended."""
        return len(self.stage_ends) == stage > 0 and self.stage_ends[-1] == self.step

    def document(self) -> dict[str, Any]:
        """Return it as plain data."""
        return self.model_dump(exclude=None if self.stage_ends else {"stage_ends"})

    @classmethod
    def of(cls, checkpoint: Checkpoint, where: object) -> RunDocument:
        """Read it from a checkpoint, which the message calls `where`.

        Raises:
            CheckpointError: If it has none, or one that is no such document.
        """
        try:
            return cls.model_validate(checkpoint.documents.get(RUN_DOCUMENT))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(str(key) for key in first["loc"]) or RUN_DOCUMENT
            raise CheckpointError(f"{where} is not a checkpoint of a run ({place}: {first['msg']}).") from None


class RunFolder:
    """Paths of a run.

    Raises:
        RunError: If there is no run at `path`.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        if not (self.path / CONFIG).is_file():
            raise RunError(f"{self.path} is not a run: it has no {CONFIG}.")
        if is_agent(self.path):
            raise RunError(
                f"{self.path} is an exported agent, not a run, and is left as it is. Train one like it with: "
                f"plastic-rl train {self.path / CONFIG} --name NAME"
            )
        self.checkpoints = self.path / "checkpoints"
        self.metrics = self.path / "metrics.csv"
        self.evaluation = self.path / "evaluation.json"
        self.curves = self.path / "curves.png"
        self.adaptation = self.path / "adaptation.png"
        self.stages = self.path / "stages.json"
        self.stages_picture = self.path / "stages.png"
        self.tensorboard = self.path / "tb"
        self.saved = self.path / ".saved"
        """Made with the first checkpoint: tells a run that lost its checkpoints from one that never had any."""

    def config(self) -> ExperimentConfig:
        """Read and validate the config of the run."""
        return parse_experiment(read_mapping(self.path / CONFIG), str(self.path / CONFIG))

    def plugins(self) -> list[str]:
        """Return the plugins that the run needs, without validating the rest (which may need them)."""
        return plugins_in(self.path / CONFIG)

    def latest(self) -> Path | None:
        """Return the newest checkpoint."""
        return latest(self.checkpoints)

    def check_record(self) -> None:
        """Refuse to begin anew where the checkpoints are gone but what the run computed is still there.

        Raises:
            RunError: If the run has rows of metrics, had a checkpoint, and has none any more.
        """
        had_checkpoint = self.saved.exists() or self.evaluation.exists()
        if self.latest() is None and had_checkpoint and self._has_rows():
            raise RunError(
                f"{self.path} has no checkpoint left in {self.checkpoints}, so it cannot go on, and beginning anew "
                "would destroy its metrics. Put the checkpoints back, or start another run with: "
                "plastic-rl train CONFIG --name NAME"
            )

    def set_metrics_aside(self) -> Path | None:
        """Keep the rows of an attempt that ended before its first checkpoint; return where they are now, if any."""
        if not self._has_rows():
            return None
        numbers = itertools.count(1)
        target = next(path for number in numbers if not (path := self.path / f"metrics.csv.old-{number}").exists())
        return self.metrics.rename(target)

    def _has_rows(self) -> bool:
        return self.metrics.is_file() and self.metrics.read_bytes().count(b"\n") > 1

    def chosen(self) -> Path:
        """Return the checkpoint to evaluate and export: the best on `valid`, as the newest one recorded it.

        Raises:
            CheckpointError: If the run has no checkpoint yet, or it is damaged.
        """
        newest = self.latest()
        if newest is None:
            raise CheckpointError(f"{self.path} has no checkpoint yet. Train on with: plastic-rl resume {self.path}")
        best = self.best()
        return newest if best is None else self.checkpoints / str(best)

    def best(self) -> int | None:
        """Return the steps of the checkpoint that is the best on `valid`; None where none was scored or is kept.

        Raises:
            CheckpointError: If the newest checkpoint, which recorded it, is damaged.
        """
        best = self.best_score()
        return best.step if best is not None and best.step in saved_steps(self.checkpoints) else None

    def best_score(self) -> Best | None:
        """Return the best score on `valid` so far; None where none was taken.

        Raises:
            CheckpointError: If the newest checkpoint, which recorded it, is damaged.
        """
        newest = self.latest()
        return None if newest is None else RunDocument.of(read_checkpoint(newest, only=[RUN_DOCUMENT]), newest).best

    def stage_ends(self) -> tuple[int, ...]:
        """Return the steps of the checkpoints at which stages have ended so far.

        Raises:
            CheckpointError: If the newest checkpoint, which recorded them, is damaged.
        """
        newest = self.latest()
        return () if newest is None else RunDocument.of(read_checkpoint(newest, only=[RUN_DOCUMENT]), newest).stage_ends

    @contextmanager
    def owned(self) -> Iterator[None]:
        """Hold the run for this process, and clear away what a killed one left unfinished.

        Raises:
            RunError: If another process is training it.
        """
        with (self.path / ".lock").open("a") as lock:
            # The system frees the lock of a killed process by itself.
            if os.name == "posix":
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    raise RunError(f"{self.path} is being trained by another process.") from None
            remove_unfinished(self.path, owned=True)
            if self.checkpoints.is_dir():
                remove_unfinished(self.checkpoints, owned=True)
            yield


def plugins_in(path: Path) -> list[str]:
    """Return the plugins that a config file names.

    Raises:
        ConfigError: If they are no list.
    """
    named = read_mapping(path).get("plugins") or []
    if not isinstance(named, list):
        raise ConfigError(f"{path}: plugins must be a list, got {named!r}.")
    return [str(plugin) for plugin in named]


def is_name(text: str) -> bool:
    """Tell whether a text is good as the name of a run's folder, or of one around it."""
    return _NAME.fullmatch(text) is not None


def create_runs(parent: Path, name: str, configs: Mapping[str, ExperimentConfig]) -> list[RunFolder]:
    """Make the folder `parent/name` of a run, or of sibling runs.

    `configs` has a config by sub-folder: `{"": config}` for one run, `{"seed-0": ...}` for siblings.

    Raises:
        RunError: If the name is taken, or no good as a folder's name.
    """
    if not all(map(is_name, name.split("/"))):
        raise RunError(f"{name!r} is no good as the name of a run: use letters, digits, '.', '_', '+' and '-'.")
    path = Path(parent) / name
    if path.exists():
        raise RunError(
            f"{path} exists already, and nothing is overwritten. Go on with it: plastic-rl resume {path}; "
            "or start another run with --name NAME."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_unfinished(path.parent)
    temporary = temporary_beside(path)
    for folder, config in configs.items():
        (temporary / folder).mkdir(parents=True)
        write_synced(temporary / folder / CONFIG, config.to_yaml().encode("utf-8"))
    try:
        temporary.rename(path)
    except OSError as error:
        # Another process made it in the meantime.
        shutil.rmtree(temporary)
        raise RunError(f"cannot make the run folder {path}: {error.strerror}.") from None
    sync_folder(path.parent)
    return [RunFolder(path / folder) for folder in configs]


def reopen_run(folder: Path, place: str, config: ExperimentConfig) -> RunFolder:
    """Return the run `folder/place` of a comparison that was begun before.

    Raises:
        RunError: If it is not there, or has another config.
    """
    if not (folder / place / CONFIG).is_file() or RunFolder(folder / place).config() != config:
        raise RunError(
            f"{folder} exists already and holds something else than this comparison ({place} differs), and nothing is "
            "overwritten. Give the comparison another name with --name NAME."
        )
    return RunFolder(folder / place)


def seeds_of(path: Path) -> list[Path]:
    """Return the sibling runs `seed-0`, `seed-1`, ... in a folder, by seed."""
    found = [entry for entry in path.iterdir() if _SEED.fullmatch(entry.name) and (entry / CONFIG).is_file()]
    return sorted(found, key=lambda entry: int(entry.name.removeprefix("seed-")))


def is_agent(path: Path) -> bool:
    """Tell whether a folder is an exported agent."""
    return (path / AGENT_CHECKPOINT).is_dir() and (path / CONFIG).is_file()


def locate(spec: str | Path, *folders: str | Path) -> Path:
    """Return the folder of the run, sibling runs or exported agent that `spec` means: the one rule for names.

    A path (a `Path`, or text with a separator) means what is there; where nothing is, it is looked up in `folders`
    (`mine/seed-0`). A bare name is looked up in `folders` and here, and may be in only one of these places.

    Args:
        spec: A path or a name.
        folders: Where runs live and, if exported agents are meant too, where these live.

    Raises:
        AmbiguousNameError: If a name is in several places; the message says which paths to write.
        RunError: If it is nowhere; the message suggests the nearest name.
    """
    here = Path(spec)
    if (isinstance(spec, Path) or {os.sep, os.altsep} & set(spec)) and _holds(here):
        return here
    found: dict[Path, Path] = {}
    for place in (*(Path(folder) / spec for folder in folders), here):
        if _holds(place):
            found.setdefault(place.resolve(), place)
    if len(found) > 1:
        written = [f".{os.sep}{place}" if place is here else str(place) for place in found.values()]
        raise AmbiguousNameError(f"{str(spec)!r} can mean several folders. Write {' or '.join(written)}.")
    if found:
        return next(iter(found.values()))
    what = "run or agent" if len(folders) > 1 else "run"
    problem = f"{spec} is not a run (it has no {CONFIG})." if here.exists() else f"no such {what}: {spec}."
    names = {folder: names_in(folder) for folder in folders}
    match = nearest(here.name, [name for known in names.values() for name in known])
    near = [str(Path(folder) / match) for folder, known in names.items() if match in known]
    hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    listing = "".join(f" In {folder}: {', '.join(known) or 'none'}." for folder, known in names.items())
    raise RunError(f"{problem}{hint}{listing}")


def _holds(path: Path) -> bool:
    return (path / CONFIG).is_file() or (path.is_dir() and bool(seeds_of(path)))


def names_in(folder: str | Path) -> list[str]:
    """Return the names of the runs, groups of sibling runs and exported agents in a folder."""
    folder = Path(folder)
    if not folder.is_dir():
        return []
    return sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith(".") and _holds(entry))


def find_runs(spec: str | Path, runs_folder: str | Path = "runs") -> list[RunFolder]:
    """Return the run that `spec` names (see `locate`), or the sibling runs where it names a folder of several seeds.

    Raises:
        RunError: If there is none, or it is an exported agent.
    """
    path = locate(spec, runs_folder)
    return [RunFolder(run) for run in ([path] if (path / CONFIG).is_file() else seeds_of(path))]


def find_run(spec: str | Path, runs_folder: str | Path = "runs") -> RunFolder:
    """As `find_runs`, where exactly one run is wanted.

    Raises:
        RunError: If there is none, or several seeds of it.
    """
    found = find_runs(spec, runs_folder)
    if len(found) > 1:
        names = ", ".join(str(run.path) for run in found)
        raise RunError(f"{spec} holds several runs. Name one of them: {names}.")
    return found[0]
