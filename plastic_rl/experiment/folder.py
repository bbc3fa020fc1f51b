"""The run folder: what is where, made whole or not at all, and owned by one process at a time.

    runs/NAME/config.yaml      the resolved config          runs/NAME/evaluation.json   scores on held-out tasks
    runs/NAME/metrics.csv      what the run computed        runs/NAME/curves.png        learning curve
    runs/NAME/timing.csv       clock readings               runs/NAME/adaptation.png    learning within a lifetime
    runs/NAME/checkpoints/     the newest and the best      runs/NAME/tb/               TensorBoard

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

from plastic_rl.checkpoint import latest, read_checkpoint, remove_unfinished, saved_steps
from plastic_rl.checkpoint.files import sync_folder, temporary_beside, write_synced
from plastic_rl.config import read_mapping
from plastic_rl.errors import CheckpointError, ConfigError, RunError, nearest
from plastic_rl.experiment.config import ExperimentConfig, parse_experiment
from plastic_rl.experiment.document import RUN_DOCUMENT, RunDocument

if os.name == "posix":
    import fcntl

CONFIG = "config.yaml"
_STALE = 3600.0
"""Seconds after which a folder of runs that is still unfinished belongs to a killed process."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
_SEED = re.compile(r"seed-[0-9]+")


class RunFolder:
    """Paths of a run.

    Args:
        path: An existing run folder.

    Raises:
        RunError: If there is no run at `path`.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        if not (self.path / CONFIG).is_file():
            raise RunError(f"{self.path} is not a run: it has no {CONFIG}.")
        self.checkpoints = self.path / "checkpoints"
        self.metrics = self.path / "metrics.csv"
        self.evaluation = self.path / "evaluation.json"
        self.curves = self.path / "curves.png"
        self.adaptation = self.path / "adaptation.png"
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
        """Keep the rows of an attempt that ended before its first checkpoint, as `metrics.csv.old-N`.

        Returns:
            Where they are now; None if there are none.
        """
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
        newest = self.latest()
        if newest is None:
            return None
        best = RunDocument.of(read_checkpoint(newest, only=[RUN_DOCUMENT]), newest).best
        return best.step if best is not None and best.step in saved_steps(self.checkpoints) else None

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
            remove_unfinished(self.path)
            if self.checkpoints.is_dir():
                remove_unfinished(self.checkpoints)
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


def create_runs(parent: Path, name: str, configs: Mapping[str, ExperimentConfig]) -> list[RunFolder]:
    """Make the folder of a run, or of sibling runs.

    Args:
        parent: Where runs live (`runs`).
        name: Name of the run.
        configs: Config by sub-folder: `{"": config}` for one run, `{"seed-0": ...}` for siblings.

    Raises:
        RunError: If the name is taken, or no good as a folder's name.
    """
    if not all(_NAME.fullmatch(part) for part in name.split("/")):
        raise RunError(f"{name!r} is no good as the name of a run: use letters, digits, '.', '_', '+' and '-'.")
    path = Path(parent) / name
    if path.exists():
        raise RunError(
            f"{path} exists already, and nothing is overwritten. Go on with it: plastic-rl resume {path}; "
            "or start another run with --name NAME."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_unfinished(path.parent, older_than=_STALE)
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


def seeds_of(path: Path) -> list[Path]:
    """Return the sibling runs `seed-0`, `seed-1`, ... in a folder, by seed."""
    found = [entry for entry in path.iterdir() if _SEED.fullmatch(entry.name) and (entry / CONFIG).is_file()]
    return sorted(found, key=lambda entry: int(entry.name.removeprefix("seed-")))


def find_runs(spec: str | Path, runs_folder: str | Path = "runs") -> list[RunFolder]:
    """Return the run that `spec` names, or the sibling runs where it names a folder of several seeds.

    Args:
        spec: A path, or a name in `runs_folder`.
        runs_folder: Where runs live.

    Raises:
        RunError: If there is none; the message suggests the nearest name.
    """
    found = _named(spec, runs_folder)
    if found:
        return found
    names = run_names(runs_folder)
    match = nearest(Path(spec).name, names)
    hint = f" Did you mean {str(Path(runs_folder) / match)!r}?" if match else ""
    what = f"{spec} is not a run (it has no {CONFIG})." if Path(spec).exists() else f"no such run: {spec}."
    raise RunError(f"{what}{hint} Runs in {runs_folder}: {', '.join(names) or 'none'}.")


def sibling_runs(spec: str | Path, runs_folder: str | Path = "runs") -> list[RunFolder]:
    """Return the runs of several seeds in the folder that `spec` names, by seed; none where it names anything else."""
    return [run for run in _named(spec, runs_folder) if run.path not in _places(spec, runs_folder)]


def _places(spec: str | Path, runs_folder: str | Path) -> tuple[Path, Path]:
    """Where a run of that name may be, in order."""
    return Path(spec), Path(runs_folder) / str(spec)


def _named(spec: str | Path, runs_folder: str | Path) -> list[RunFolder]:
    """The run, or the sibling runs, at the first of the places that holds any."""
    for path in _places(spec, runs_folder):
        if (path / CONFIG).is_file():
            return [RunFolder(path)]
        if path.is_dir() and (siblings := seeds_of(path)):
            return [RunFolder(sibling) for sibling in siblings]
    return []


def run_names(runs_folder: str | Path) -> list[str]:
    """Return the names of the runs in a folder."""
    folder = Path(runs_folder)
    if not folder.is_dir():
        return []
    entries = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    return [entry.name for entry in entries if (entry / CONFIG).is_file() or seeds_of(entry)]


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
