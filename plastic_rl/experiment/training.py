"""Training a run, and going on with it to the same bytes as if it had never stopped.

Everything that the future of a run depends on is in its newest checkpoint, written between updates: the algorithm's own
state, how far the tables of metrics reach, and which checkpoint is the best on `valid` so far.
"""

from __future__ import annotations

import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import KVWriter, Logger, SeqWriter

from plastic_rl.algorithms import PlasticAlgorithm
from plastic_rl.checkpoint import Checkpoint, prune, read_checkpoint, saved_steps, write_checkpoint
from plastic_rl.config import differences
from plastic_rl.config.signatures import arguments_of
from plastic_rl.envs import distribution_for
from plastic_rl.errors import (
    CheckpointError,
    ConfigError,
    FinishedError,
    NonFiniteError,
    PlasticRLError,
    damage_is_refused,
)
from plastic_rl.evaluation import run_lifetimes
from plastic_rl.experiment import trainers
from plastic_rl.experiment.candidates import Candidates
from plastic_rl.experiment.config import ExperimentConfig, parse_experiment
from plastic_rl.experiment.folder import RUN_DOCUMENT, Best, RunDocument, RunFolder
from plastic_rl.experiment.metrics import MetricsWriter, TensorBoardWriter
from plastic_rl.experiment.progress import Progress, make_progress
from plastic_rl.policies import PlasticPolicy


class TrainingInterrupted(Exception):  # noqa: N818 - an event, not an error
    """Training was asked to stop, and saved where it stood.

    Attributes:
        checkpoint: The checkpoint that was written, or the newest there is; None if there is none.
    """

    def __init__(self, run: RunFolder, checkpoint: Path | None) -> None:
        self.run, self.checkpoint = run, checkpoint
        where = f"saved in {checkpoint}" if checkpoint else "nothing was saved yet"
        super().__init__(f"stopped: {where}. Go on with: plastic-rl resume {run.path}")


class StopRequest:
    """Turns the first SIGINT or SIGTERM into a request that training heeds between updates; a second stops at once."""

    def __init__(self) -> None:
        self.made = False

    @contextmanager
    def listening(self, progress: Progress) -> Iterator[None]:
        """Listen within this context (in the main thread; elsewhere signals don't arrive)."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def ask(number: int, frame: FrameType | None) -> None:
            if self.made:
                raise KeyboardInterrupt
            self.made = True
            progress.say("Stopping after this update; a checkpoint follows. (Once more to stop at once.)")

        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def make_algorithm(config: ExperimentConfig, *, n_envs: int | None = None) -> PlasticAlgorithm:
    """Build the algorithm of an experiment, in its environment, at its start.

    Raises:
        ConfigError: If the arguments of the environment or the network are no good.
        SpaceError: If the environment's spaces are not supported.
        UnknownNameError: If there is no such environment.
    """
    check_device(config.device)
    with built(config):
        return trainers.make(config, n_envs=n_envs)


@contextmanager
def built(config: ExperimentConfig) -> Iterator[None]:
    """Within this context what goes wrong in building parts of an experiment is a `ConfigError`."""
    try:
        yield
    except PlasticRLError:
        raise
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        raise ConfigError(
            f"cannot build the experiment in {config.environment.id} with kwargs {config.environment.kwargs} on "
            f"{config.device}: {error}"
        ) from error


def check_device(device: str) -> None:
    """Refuse a device that this machine does not have; the algorithm would silently use the CPU instead.

    Raises:
        ConfigError: Naming the devices there are.
    """
    valid = ["auto", "cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    valid += ["cuda"] * torch.cuda.is_available() + ["mps"] * torch.backends.mps.is_available()
    if device not in valid:
        raise ConfigError(f"this machine has no device {device!r}. Valid: {', '.join(valid)}.")


def train(run: RunFolder, *, progress: Progress | None = None) -> PlasticAlgorithm | PlasticPolicy:
    """Train a new run, or go on with one that was stopped, to its end.

    Args:
        run: Its folder, as `create_runs` made it.
        progress: What a person sees; by default what suits standard error.

    Returns:
        The trained algorithm, as after its last update; the last policy tried, where there are candidates.

    Raises:
        TrainingInterrupted: If SIGINT or SIGTERM asked to stop.
        CheckpointError: If the newest checkpoint is damaged or belongs to another config.
        RunError: If another process is training the run, or it has lost its checkpoints.
    """
    config = run.config()
    torch.set_num_threads(config.torch_threads)
    with ExitStack() as stack:
        stack.enter_context(run.owned())
        newest = run.latest()
        run.check_record()
        stored = None if newest is None else _read_own(run, newest, config)
        document = None if stored is None else RunDocument.of(stored, newest)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            algorithm = None if config.candidates else make_algorithm(config)
            if algorithm is not None:
                stack.callback(algorithm.close)
                if stored is not None:
                    algorithm.set_checkpoint(stored)
        old_metrics = run.set_metrics_aside() if stored is None else None
        writer = RunWriter(run, config, document)
        stack.callback(writer.logger.close)
        shown = stack.enter_context(progress or make_progress())
        writer.logger.output_formats.append(SpokenLog(shown.say))
        if old_metrics is not None:
            shown.say(f"starting anew from step 0: there is no checkpoint yet; earlier metrics are in {old_metrics}")
        for warning in caught:
            shown.say(f"warning: {warning.message}")
        stop = StopRequest()
        stack.enter_context(stop.listening(shown))
        try:
            if algorithm is None:
                return _try_candidates(writer, shown, stop)
            callback = CheckpointCallback(writer, shown, stop, None if stored is None else algorithm.num_timesteps)
            algorithm.set_logger(writer.logger)
            trainers.listen(algorithm, shown.say)
            shown.start(*callback.reached(algorithm), algorithm.unit)
            trainers.learn(config, algorithm, callback, resumed=stored is not None)
        except KeyboardInterrupt:
            raise TrainingInterrupted(run, run.latest()) from None
        if stop.made:
            # Asked to stop in the last update: everything is saved, and the evaluation is left for later.
            raise TrainingInterrupted(run, run.latest())
        return algorithm


def _try_candidates(writer: RunWriter, progress: Progress, stop: StopRequest) -> PlasticPolicy:
    """Score each candidate that is left on `valid`, and save it."""
    candidates = Candidates.of(writer.config)
    first = 0 if writer.document is None else writer.document.step
    progress.start(first, len(candidates), "candidates")
    policy = candidates.policy(max(first - 1, 0))
    for number in range(first, len(candidates)):
        policy = candidates.policy(number)
        for name, value in candidates.settings(number).items():
            if isinstance(value, int | float):
                writer.logger.record(f"candidates/{name}", float(value))
        writer.score(policy, number + 1)
        writer.save(candidates.checkpoint(number, policy), number + 1)
        progress.update(number + 1, None, writer.note())
        if stop.made:
            raise TrainingInterrupted(writer.run, writer.run.latest())
    return policy


def _read_own(run: RunFolder, newest: Path, config: ExperimentConfig) -> Checkpoint:
    try:
        checkpoint = read_checkpoint(newest)
    except CheckpointError as error:
        advice = (
            f"To go on from the checkpoint before it, move {newest} away and resume again."
            if len(saved_steps(run.checkpoints)) > 1
            else "There is no other checkpoint to go on from: start another run with: "
            "plastic-rl train CONFIG --name NAME"
        )
        raise CheckpointError(f"{error} {advice}") from None
    with damage_is_refused(f"{newest} is no checkpoint of this run"):
        changes = differences(_with_defaults(RunDocument.of(checkpoint, newest).config), _own_config(config))
        changed = [f"{path}: {old!r} became {new!r}" for path, old, new in changes]
    if changed:
        raise CheckpointError(
            f"{run.path}/config.yaml was changed since {newest} was written ({', '.join(changed)}), so the run cannot "
            "go on as it began. Undo the change, or start another run with: plastic-rl train CONFIG --name NAME"
        )
    return checkpoint


def _own_config(config: ExperimentConfig) -> dict[str, Any]:
    """The part of the config that the bytes of a run depend on."""
    own = {name: value for name, value in config.to_mapping().items() if name not in {"description", "plugins"}}
    if config.algorithm is None:
        return own
    # Results do not depend on where the work is done.
    declared = arguments_of(trainers.class_of(config), PlasticAlgorithm)
    left_out = {name for name, argument in declared.items() if not argument.is_stored}
    return own | {"algorithm": {name: value for name, value in own["algorithm"].items() if name not in left_out}}


def _with_defaults(stored: Mapping[str, Any]) -> Mapping[str, Any]:
    """The config that a checkpoint holds, with the defaults of keys that came into being after it was written."""
    try:
        return _own_config(parse_experiment(stored))
    except ConfigError:
        return stored


class RunWriter:
    """What a run writes while it is trained: metrics, scores on `valid`, checkpoints. It remembers the best one.

    Args:
        run: The folder.
        config: The experiment.
        document: The run's part of the checkpoint to go on from; None to begin.

    Attributes:
        logger: The metrics logger, in stable-baselines3's form.
        best: The best checkpoint on `valid` so far.
    """

    def __init__(self, run: RunFolder, config: ExperimentConfig, document: RunDocument | None) -> None:
        self.run, self.config, self.document = run, config, document
        self.tables = MetricsWriter(run.path, None if document is None else document.metrics.model_dump())
        self.best = None if document is None else document.best
        writers: list[KVWriter] = [self.tables]
        if config.logging.tensorboard:
            # From step 0 where there is no checkpoint: an attempt that died before its first one may have left records.
            purge = 0 if document is None else document.step + 1
            writers.append(TensorBoardWriter(run.tensorboard, purge))
        self.logger = Logger(str(run.path), writers)
        self.scores_valid = config.evaluation.valid_tasks > 0 and _has_split(config, "valid")

    def note(self) -> str:
        """What a person may want to know of the best checkpoint."""
        return "" if self.best is None else f"best on valid {self.best.valid_score:.4g}"

    def score(self, policy: PlasticPolicy, step: int) -> None:
        """Score a policy on `valid`, where the config asks for that, and remember it if it is the best."""
        if not self.scores_valid:
            return
        try:
            score = valid_score(policy, self.config)
        except NonFiniteError as error:
            self.logger.warn(f"no score on valid at step {step:,}: {error}")
            return
        # A tie goes to the later checkpoint, which has seen more.
        if self.best is None or score >= self.best.valid_score:
            self.best = Best(step=step, valid_score=score)
        self.logger.record("valid/score", score)
        self.logger.dump(step)

    def save(self, checkpoint: Checkpoint, step: int) -> None:
        """Write a checkpoint, and remove those that are needed no more."""
        document = {
            "step": step,
            "config": _own_config(self.config),
            "metrics": self.tables.state(),
            "best": None if self.best is None else {"step": self.best.step, "valid_score": self.best.valid_score},
        }
        checkpoint = replace(checkpoint, documents={**checkpoint.documents, RUN_DOCUMENT: document})
        # Scores taken in mid-training are not those of the run that ends here. Gone before the checkpoint appears, so
        # that a run which is killed before its final evaluation never counts as evaluated.
        self.run.evaluation.unlink(missing_ok=True)
        write_checkpoint(self.run.checkpoints / str(step), checkpoint)
        self.run.saved.touch()
        prune(self.run.checkpoints, self.config.checkpoint.keep, [] if self.best is None else [self.best.step])


class SpokenLog(SeqWriter, KVWriter):
    """Where lines of the log that are no metrics go: to the person who watches.

    Args:
        say: Shows a line.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say

    def write_sequence(self, sequence: list[str]) -> None:
        """Show a line."""
        self.say(" ".join(sequence))

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        """Metrics are shown by the progress line."""

    def close(self) -> None:
        """Nothing is held open."""


class CheckpointCallback(BaseCallback):
    """Writes checkpoints between updates, scores them on `valid`, shows progress, and heeds requests to stop.

    Args:
        writer: Writes them.
        progress: What a person sees.
        stop: The request to stop.
        resumed_at: Steps done when training goes on from a checkpoint; None at the very beginning.
    """

    def __init__(self, writer: RunWriter, progress: Progress, stop: StopRequest, resumed_at: int | None) -> None:
        super().__init__()
        self.writer, self.progress, self.stop = writer, progress, stop
        self.saved_at = resumed_at

    @property
    def algorithm(self) -> PlasticAlgorithm:
        """The algorithm that this callback watches."""
        assert isinstance(self.model, PlasticAlgorithm)
        return self.model

    def reached(self, algorithm: PlasticAlgorithm) -> tuple[int, int]:
        """How far training is, and where it ends, in the algorithm's units."""
        return int(getattr(algorithm, algorithm.counter)), algorithm.planned(trainers.total(self.writer.config))

    def _on_rollout_start(self) -> None:
        self._show()
        updates = self.algorithm.iterations
        due = updates and updates % self.writer.config.checkpoint.interval == 0
        if due and self.saved_at != self.num_timesteps:
            self._score_and_save()
        if self.stop.made:
            if self.saved_at != self.num_timesteps:
                self._save()
            raise TrainingInterrupted(self.writer.run, self.writer.run.latest())

    def _on_step(self) -> bool:
        return True

    def _on_training_end(self) -> None:
        self._show()
        if self.saved_at != self.num_timesteps:
            self._score_and_save()

    def _show(self) -> None:
        scores = self.algorithm.score_buffer
        done, _ = self.reached(self.algorithm)
        self.progress.update(done, float(np.mean(scores)) if scores else None, self.writer.note())

    def _score_and_save(self) -> None:
        self.writer.score(self.algorithm.policy, self.algorithm.num_timesteps)
        self._save()

    def _save(self) -> None:
        self.saved_at = self.algorithm.num_timesteps
        self.writer.save(self.algorithm.get_checkpoint(), self.saved_at)


def _has_split(config: ExperimentConfig, split: str) -> bool:
    return split in distribution_for(config.environment.id, config.environment.kwargs).splits


def valid_score(policy: PlasticPolicy, config: ExperimentConfig) -> float:
    """Return the mean score on the first tasks of `valid`; training's own random streams are not touched.

    Raises:
        NonFiniteError: If the policy's network becomes NaN or infinite.
    """
    environment = config.environment
    lifetimes = run_lifetimes(
        policy,
        environment.id,
        distribution_for(environment.id, environment.kwargs).tasks("valid", 0, config.evaluation.valid_tasks),
        env_kwargs=environment.kwargs,
        trials=environment.trials,
        same_task_each_trial=environment.same_task_each_trial,
        deterministic=False,
        seed=config.evaluation.seed,
        batch_size=config.evaluation.batch_size,
    )
    return float(lifetimes.totals.mean())


def is_trained(run: RunFolder, config: ExperimentConfig) -> bool:
    """Return whether the run is trained to its end."""
    newest = run.latest()
    if newest is None:
        return False
    counters = read_checkpoint(newest, only=["algorithm"]).documents["algorithm"]
    with damage_is_refused(f"{newest} is damaged"):
        return trainers.done(config, counters) >= trainers.total(config)


def check_unfinished(run: RunFolder, config: ExperimentConfig) -> None:
    """Refuse to resume a run that has nothing left to do, or nothing left to go on from.

    Raises:
        RunError: If it has lost its checkpoints.
        FinishedError: If it is trained, and evaluated where its config asks for that.
    """
    run.check_record()
    if is_trained(run, config) and (run.evaluation.exists() or not config.evaluation.final):
        raise FinishedError(
            f"{run.path} is finished ({trainers.total(config):,} {trainers.unit(config)}): there is nothing to resume. "
            f"Score it with: plastic-rl evaluate {run.path}"
        )
