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

from plastic_rl.algorithms.base import PlasticAlgorithm
from plastic_rl.checkpoint import Checkpoint, prune, read_checkpoint, saved_steps, write_checkpoint
from plastic_rl.config import differences
from plastic_rl.envs import distribution_for
from plastic_rl.errors import CheckpointError, ConfigError, FinishedError, PlasticRLError, damage_is_refused
from plastic_rl.experiment.config import ExperimentConfig, parse_experiment
from plastic_rl.experiment.document import RUN_DOCUMENT, Best, RunDocument
from plastic_rl.experiment.folder import RunFolder
from plastic_rl.experiment.metrics import MetricsWriter, TensorBoardWriter
from plastic_rl.experiment.outer_loops import OuterLoop, outer_loop
from plastic_rl.experiment.progress import Progress, make_progress


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
    try:
        return outer_loop(config).make(n_envs=n_envs)
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


def train(run: RunFolder, *, progress: Progress | None = None) -> PlasticAlgorithm:
    """Train a new run, or go on with one that was stopped, to its end.

    Args:
        run: Its folder, as `create_runs` made it.
        progress: What a person sees; by default what suits standard error.

    Returns:
        The trained algorithm, as after its last update.

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
        algorithm = make_algorithm(config)
        stack.callback(algorithm.close)
        document = None if stored is None else RunDocument.of(stored, newest)
        if stored is not None:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                algorithm.set_checkpoint(stored)
        else:
            caught = []
        old_metrics = run.set_metrics_aside() if stored is None else None
        recorder = Recorder(run, config, document)
        stack.callback(recorder.logger.close)
        algorithm.set_logger(recorder.logger)
        shown = stack.enter_context(progress or make_progress())
        if old_metrics is not None:
            shown.say(f"starting anew from step 0: there is no checkpoint yet; earlier metrics are in {old_metrics}")
        recorder.logger.output_formats.append(SpokenLog(shown.say))
        for warning in caught:
            shown.say(f"warning: {warning.message}")
        stop = StopRequest()
        stack.enter_context(stop.listening(shown))
        keeper = Keeper(run, config, recorder, shown, stop, None if stored is None else algorithm.num_timesteps)
        loop = keeper.loop
        loop.listen(algorithm, shown.say)
        shown.start(*loop.progress(algorithm), loop.unit)
        try:
            loop.learn(algorithm, keeper, resumed=stored is not None)
        except KeyboardInterrupt:
            raise TrainingInterrupted(run, run.latest()) from None
        if stop.made:
            # Asked to stop in the last update: everything is saved, and the evaluation is left for later.
            raise TrainingInterrupted(run, run.latest())
        return algorithm


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
    # Results do not depend on where the work is done.
    return own | {"algorithm": {name: value for name, value in own["algorithm"].items() if name != "engine"}}


def _with_defaults(stored: Mapping[str, Any]) -> Mapping[str, Any]:
    """The config that a checkpoint holds, with the defaults of keys that came into being after it was written."""
    try:
        return _own_config(parse_experiment(stored))
    except ConfigError:
        return stored


class Recorder:
    """The logger of a run, and where its tables stand.

    Args:
        run: The folder.
        config: The experiment.
        document: The run's part of the checkpoint to go on from; None to begin.
    """

    def __init__(self, run: RunFolder, config: ExperimentConfig, document: RunDocument | None) -> None:
        self.tables = MetricsWriter(run.path, None if document is None else document.metrics.model_dump())
        self.best = None if document is None else document.best
        writers: list[KVWriter] = [self.tables]
        if config.logging.tensorboard:
            # From step 0 where there is no checkpoint: an attempt that died before its first one may have left records.
            purge = 0 if document is None else document.step + 1
            writers.append(TensorBoardWriter(run.tensorboard, purge))
        self.logger = Logger(str(run.path), writers)


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


class Keeper(BaseCallback):
    """Writes checkpoints between updates, scores them on `valid`, shows progress, and heeds requests to stop.

    Args:
        run: The folder.
        config: The experiment.
        recorder: Its logger.
        progress: What a person sees.
        stop: The request to stop.
        resumed_at: Steps done when training goes on from a checkpoint; None at the very beginning.
    """

    def __init__(
        self,
        run: RunFolder,
        config: ExperimentConfig,
        recorder: Recorder,
        progress: Progress,
        stop: StopRequest,
        resumed_at: int | None,
    ) -> None:
        super().__init__()
        self.run, self.config, self.recorder = run, config, recorder
        self.progress, self.stop = progress, stop
        self.saved_at = resumed_at
        self.loop: OuterLoop = outer_loop(config)
        self.scores_valid = config.evaluation.valid_tasks > 0 and _has_split(config, "valid")

    @property
    def algorithm(self) -> PlasticAlgorithm:
        """The algorithm that this callback watches."""
        assert isinstance(self.model, PlasticAlgorithm)
        return self.model

    def _on_rollout_start(self) -> None:
        self._show()
        updates = self.algorithm.iterations
        if self.saved_at != self.num_timesteps and updates and updates % self.config.checkpoint.interval == 0:
            self._score_and_save()
        if self.stop.made:
            if self.saved_at != self.num_timesteps:
                self._save()
            raise TrainingInterrupted(self.run, self.run.latest())

    def _on_step(self) -> bool:
        return True

    def _on_training_end(self) -> None:
        self._show()
        if self.saved_at != self.num_timesteps:
            self._score_and_save()

    def _show(self) -> None:
        scores = self.algorithm.score_buffer
        best = self.recorder.best
        note = "" if best is None else f"best on valid {best.valid_score:.4g}"
        done, _ = self.loop.progress(self.algorithm)
        self.progress.update(done, float(np.mean(scores)) if scores else None, note)

    def _score_and_save(self) -> None:
        if self.scores_valid:
            score = valid_score(self.algorithm, self.config)
            # A tie goes to the later checkpoint, which has seen more.
            if self.recorder.best is None or score >= self.recorder.best.valid_score:
                self.recorder.best = Best(step=self.algorithm.num_timesteps, valid_score=score)
            self.logger.record("valid/score", score)
            self.logger.dump(self.algorithm.num_timesteps)
        self._save()

    def _save(self) -> None:
        step, best = self.algorithm.num_timesteps, self.recorder.best
        checkpoint = self.algorithm.get_checkpoint()
        document = {
            "step": step,
            "config": _own_config(self.config),
            "metrics": self.recorder.tables.state(),
            "best": None if best is None else {"step": best.step, "valid_score": best.valid_score},
        }
        checkpoint = replace(checkpoint, documents={**checkpoint.documents, RUN_DOCUMENT: document})
        # Scores taken in mid-training are not those of the run that ends here. Gone before the checkpoint appears, so
        # that a run which is killed before its final evaluation never counts as evaluated.
        self.run.evaluation.unlink(missing_ok=True)
        write_checkpoint(self.run.checkpoints / str(step), checkpoint)
        self.run.saved.touch()
        self.saved_at = step
        prune(self.run.checkpoints, self.config.checkpoint.keep, [] if best is None else [best.step])


def _has_split(config: ExperimentConfig, split: str) -> bool:
    return split in distribution_for(config.environment.id, config.environment.kwargs).splits


def valid_score(algorithm: PlasticAlgorithm, config: ExperimentConfig) -> float:
    """Return the mean score on the first tasks of `valid`; training's own random streams are not touched."""
    from plastic_rl.evaluation import run_lifetimes

    distribution = distribution_for(config.environment.id, config.environment.kwargs)
    predicting = algorithm.policy.sampling.get_state()
    lifetimes = run_lifetimes(
        algorithm,
        config.environment.id,
        distribution.tasks("valid", 0, config.evaluation.valid_tasks),
        env_kwargs=config.environment.kwargs,
        trials=config.environment.trials,
        same_task_each_trial=config.environment.same_task_each_trial,
        deterministic=False,
        seed=config.evaluation.seed,
        batch_size=config.evaluation.batch_size,
    )
    algorithm.policy.sampling.set_state(predicting)
    return float(lifetimes.totals.mean())


def is_trained(run: RunFolder, config: ExperimentConfig) -> bool:
    """Return whether the run is trained to its end."""
    newest = run.latest()
    if newest is None:
        return False
    loop = outer_loop(config)
    counters = read_checkpoint(newest, only=["algorithm"]).documents["algorithm"]
    with damage_is_refused(f"{newest} is damaged"):
        return loop.done(counters) >= loop.total


def check_unfinished(run: RunFolder, config: ExperimentConfig) -> None:
    """Refuse to resume a run that has nothing left to do, or nothing left to go on from.

    Raises:
        RunError: If it has lost its checkpoints.
        FinishedError: If it is trained, and evaluated where its config asks for that.
    """
    run.check_record()
    loop = outer_loop(config)
    if is_trained(run, config) and (run.evaluation.exists() or not config.evaluation.final):
        raise FinishedError(
            f"{run.path} is finished ({loop.total:,} {loop.unit}): there is nothing to resume. "
            f"Score it with: plastic-rl evaluate {run.path}"
        )
