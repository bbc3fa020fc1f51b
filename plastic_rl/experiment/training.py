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
from typing_extensions import override

from plastic_rl.algorithms import PlasticAlgorithm
from plastic_rl.algorithms.saved_policy import at_stage_start
from plastic_rl.checkpoint import Checkpoint, prune, read_checkpoint, saved_steps, write_checkpoint
from plastic_rl.config import differences
from plastic_rl.config.signatures import arguments_of
from plastic_rl.envs.task import TASKS_PER_SEED
from plastic_rl.errors import (
    CheckpointError,
    ConfigError,
    FinishedError,
    NonFiniteError,
    PlasticRLError,
    TrainingInterrupted,
    damage_is_refused,
)
from plastic_rl.evaluation import run_lifetimes
from plastic_rl.experiment.candidates import Candidates
from plastic_rl.experiment.config import ExperimentConfig, parse_experiment
from plastic_rl.experiment.folder import RUN_DOCUMENT, Best, RunDocument, RunFolder
from plastic_rl.experiment.metrics import MetricsWriter, TensorBoardWriter
from plastic_rl.experiment.progress import GAP, Progress, make_progress
from plastic_rl.policies import PlasticPolicy


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


def make_algorithm(config: ExperimentConfig, *, n_envs: int | None = None, stage: int = 0) -> PlasticAlgorithm:
    """Build the algorithm of an experiment, as it was drawn, in its environment or that of a stage.

    `n_envs` goes before the config's, where the algorithm has rows of its own.

    Raises:
        ConfigError: If the arguments of the environment or the network are no good.
        SpaceError: If the environment's spaces are not supported.
        UnknownNameError: If there is no such environment.
    """
    check_device(config.device)
    config = config.in_stage(stage)
    cls, environment = config.algorithm_class, config.environment
    # Not dumped: schedules and the like stay what they are.
    own = {name: getattr(config.algorithm, name) for name in type(config.algorithm).model_fields}
    own = {name: value for name, value in own.items() if name not in {"name", cls.budget}}
    if n_envs is not None and "n_envs" in own:
        own["n_envs"] = n_envs
    with built(config):
        algorithm = cls(
            config.policy,
            environment.id,
            policy_kwargs={"network": config.network},
            seed=config.seed,
            task_offset=stage * (TASKS_PER_SEED // len(config.ends)),
            device=config.device,
            **environment.options,
            **own,
        )
    if config.stages and algorithm.counter == "num_timesteps":
        algorithm.span = (0, *config.ends)[stage], config.ends[stage]
    return algorithm


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
        present = stack.enter_context(ExitStack())
        newest = run.latest()
        run.check_record()
        stored, document = (None, None) if newest is None else _read_own(run, newest, config)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            algorithm = None if config.candidates else present.enter_context(_going_on(config, stored, document))
        old_metrics = run.set_metrics_aside() if stored is None else None
        writer = RunWriter(run, config, document)
        stack.callback(writer.logger.close)
        shown = stack.enter_context(progress or make_progress())
        writer.logger.output_formats.append(SpokenLog(shown.say))
        if algorithm is not None:
            shown.say(core_line(algorithm.policy))
        if old_metrics is not None:
            shown.say(f"starting anew from step 0: there is no checkpoint yet; earlier metrics are in {old_metrics}")
        for warning in caught:
            shown.say(f"warning: {warning.message}")
        stop = StopRequest()
        stack.enter_context(stop.listening(shown))
        try:
            if algorithm is None:
                return _try_candidates(writer, shown, stop)
            shown.start(_done(algorithm), algorithm.planned(config.total), config.unit)
            _train_stage(algorithm, writer, shown, stop)
            while not stop.made and _done(algorithm) < config.total:
                newest = run.latest()
                assert newest is not None, "a stage that has ended is saved"
                ended = read_checkpoint(newest)
                present.close()
                algorithm = present.enter_context(_going_on(config, ended, RunDocument.of(ended, newest)))
                _train_stage(algorithm, writer, shown, stop)
        except KeyboardInterrupt:
            raise TrainingInterrupted(run.path, run.latest()) from None
        if stop.made:
            # Asked to stop in the last update: everything is saved, and the evaluation is left for later.
            raise TrainingInterrupted(run.path, run.latest())
        return algorithm


def core_line(policy: PlasticPolicy) -> str:
    """Tell which core computes a policy, and why."""
    return f"core: {policy.network.core_in_use}"


def _done(algorithm: PlasticAlgorithm) -> int:
    return int(getattr(algorithm, algorithm.counter))


@contextmanager
def _going_on(
    config: ExperimentConfig, stored: Checkpoint | None, document: RunDocument | None
) -> Iterator[PlasticAlgorithm]:
    """The algorithm in the stage that is to be trained next: as a checkpoint has it, or as it was drawn."""
    if stored is None or document is None:
        algorithm = make_algorithm(config)
    else:
        stage = config.stage_at(config.done(stored.documents["algorithm"]))
        algorithm = make_algorithm(config, stage=stage)
        if document.ends_before(stage):
            stored = at_stage_start(stored, reset_optimizer=config.stages[stage].reset_optimizer)
        algorithm.set_checkpoint(stored)
    try:
        yield algorithm
    finally:
        algorithm.close()


def _train_stage(algorithm: PlasticAlgorithm, writer: RunWriter, progress: Progress, stop: StopRequest) -> None:
    """Train to the end of the present stage, or of training where there are no stages."""
    config, done = writer.config, _done(algorithm)
    algorithm.set_logger(writer.logger)
    if hasattr(algorithm, "engine"):
        algorithm.engine.say = progress.say
    stage = config.stage_at(done)
    writer.enter_stage(stage)
    if config.stages:
        progress.say(f"stage {stage + 1} of {len(config.stages)}: {config.stages[stage].name}")
    if done < config.ends[stage]:
        learn: Callable[..., Any] = algorithm.learn
        learn(
            **{algorithm.budget: config.ends[stage] - done},
            callback=CheckpointCallback(algorithm, writer, progress, stop),
            log_interval=config.logging.interval,
            reset_num_timesteps=writer.saved_at is None,
        )


def _try_candidates(writer: RunWriter, progress: Progress, stop: StopRequest) -> PlasticPolicy:
    """Score each candidate that is left on `valid`, and save it."""
    candidates = Candidates(writer.config)
    first = 0 if writer.document is None else writer.document.step
    progress.start(first, len(candidates), "candidates")
    policy = candidates.policy(max(first - 1, 0))
    progress.say(core_line(policy))
    for number in range(first, len(candidates)):
        policy = candidates.policy(number)
        for name, value in candidates.settings(number).items():
            if isinstance(value, int | float):
                writer.logger.record(f"candidates/{name}", float(value))
        writer.score(policy, number + 1)
        writer.save(candidates.checkpoint(number, policy), number + 1)
        progress.update(number + 1, None, writer.note())
        if stop.made:
            raise TrainingInterrupted(writer.run.path, writer.run.latest())
    return policy


def _read_own(run: RunFolder, newest: Path, config: ExperimentConfig) -> tuple[Checkpoint, RunDocument]:
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
        document = RunDocument.of(checkpoint, newest)
        changes = differences(_with_defaults(document.config), own_config(config))
        changed = [f"{path}: {old!r} became {new!r}" for path, old, new in changes]
    if changed:
        raise CheckpointError(
            f"{run.path}/config.yaml was changed since {newest} was written ({', '.join(changed)}), so the run cannot "
            "go on as it began. Undo the change, or start another run with: plastic-rl train CONFIG --name NAME"
        )
    return checkpoint, document


def own_config(config: ExperimentConfig) -> dict[str, Any]:
    """The part of the config that the bytes of a run depend on."""
    own = {name: value for name, value in config.to_mapping().items() if name not in {"description", "plugins"}}
    if config.algorithm is None:
        return own
    # Results do not depend on where the work is done.
    declared = arguments_of(config.algorithm_class, PlasticAlgorithm)
    left_out = {name for name, argument in declared.items() if not argument.is_stored}
    return own | {"algorithm": {name: value for name, value in own["algorithm"].items() if name not in left_out}}


def _with_defaults(stored: Mapping[str, Any]) -> Mapping[str, Any]:
    """The config that a checkpoint holds, with the defaults of keys that came into being after it was written."""
    try:
        return own_config(parse_experiment(stored))
    except ConfigError:
        return stored


class RunWriter:
    """What a run writes while it is trained: metrics, scores on `valid`, checkpoints. It remembers the best one.

    `document` is the run's part of the checkpoint to go on from; None to begin.
    """

    def __init__(self, run: RunFolder, config: ExperimentConfig, document: RunDocument | None) -> None:
        self.run, self.config, self.document = run, config, document
        self.tables = MetricsWriter(run.path, None if document is None else document.metrics)
        self.best = None if document is None else document.best
        self.stage_ends = () if document is None else document.stage_ends
        self.saved_at = None if document is None else document.step
        self.stage = ""
        writers: list[KVWriter] = [self.tables]
        if config.logging.tensorboard:
            # From step 0 where there is no checkpoint: an attempt that died before its first one may have left records.
            purge = 0 if document is None else document.step + 1
            writers.append(TensorBoardWriter(run.tensorboard, purge))
        self.logger = Logger(str(run.path), writers)
        self.present = config

    def note(self) -> str:
        """What a person may want to know of the best checkpoint."""
        said = [f"stage {self.stage}"] if self.stage else []
        return GAP.join(said if self.best is None else [*said, f"best on valid {self.best.valid_score:.4g}"])

    def enter_stage(self, number: int) -> None:
        """Write of a stage from now on; checkpoints of the stages before it are no longer the best."""
        if not self.config.stages:
            return
        self.stage, self.present = self.config.stages[number].name, self.config.in_stage(number)
        if self.stage_ends and self.stage_ends[-1] == self.saved_at:
            self.best = None

    def log_stage(self) -> None:
        """Let the next row of metrics name the stage."""
        if self.stage:
            self.logger.record("stage", self.stage, exclude="tensorboard")

    def score(self, policy: PlasticPolicy, step: int) -> None:
        """Score a policy on the stage's `valid`, where the config asks for that, and remember it if it is the best."""
        evaluation, environment = self.present.evaluation, self.present.environment
        if evaluation.valid_tasks < 1 or "valid" not in environment.distribution().splits:
            return
        try:
            score = valid_score(policy, self.present)
        except NonFiniteError as error:
            self.logger.warn(f"no score on valid at step {step:,}: {error}")
            return
        # A tie goes to the later checkpoint, which has seen more.
        if self.best is None or score >= self.best.valid_score:
            self.best = Best(step=step, valid_score=score)
        self.log_stage()
        self.logger.record("valid/score", score)
        self.logger.dump(step)

    def save(self, checkpoint: Checkpoint, step: int) -> None:
        """Write a checkpoint, and remove those that are needed no more."""
        own = RunDocument(
            step=step,
            config=own_config(self.config),
            metrics=self.tables.state(),
            best=self.best,
            stage_ends=self.stage_ends,
        )
        checkpoint = replace(checkpoint, documents={**checkpoint.documents, RUN_DOCUMENT: own.document()})
        # Scores taken in mid-training are not those of the run that ends here. Gone before the checkpoint appears, so
        # that a run which is killed before its final evaluation never counts as evaluated.
        self.run.evaluation.unlink(missing_ok=True)
        write_checkpoint(self.run.checkpoints / str(step), checkpoint)
        self.run.saved.touch()
        self.saved_at = step
        best = [] if self.best is None else [self.best.step]
        prune(self.run.checkpoints, self.config.checkpoint.keep, [*best, *self.stage_ends])


class SpokenLog(SeqWriter, KVWriter):
    """Where lines of the log that are no metrics go: to the person who watches.

    Metrics are shown by the progress line.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say

    @override
    def write_sequence(self, sequence: list[str]) -> None:
        self.say(" ".join(sequence))

    @override
    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        pass

    @override
    def close(self) -> None:
        pass


class CheckpointCallback(BaseCallback):
    """Writes checkpoints between updates, scores them on `valid`, shows progress, and heeds requests to stop."""

    def __init__(self, algorithm: PlasticAlgorithm, writer: RunWriter, progress: Progress, stop: StopRequest) -> None:
        super().__init__()
        self.algorithm, self.writer, self.progress, self.stop = algorithm, writer, progress, stop

    def _on_rollout_start(self) -> None:
        self._show()
        updates = self.algorithm.iterations
        due = updates and updates % self.writer.config.checkpoint.interval == 0
        if due and self.writer.saved_at != self.num_timesteps:
            self._score_and_save()
        if self.stop.made:
            if self.writer.saved_at != self.num_timesteps:
                self._save()
            raise TrainingInterrupted(self.writer.run.path, self.writer.run.latest())
        self.writer.log_stage()

    def _on_step(self) -> bool:
        return True

    def _on_training_end(self) -> None:
        self._show()
        if self.writer.saved_at == self.num_timesteps:
            return
        stages = self.writer.config.stages
        if stages:
            self.writer.stage_ends += (self.num_timesteps,)
        if len(self.writer.stage_ends) < len(stages):
            self.algorithm.end_stage()
        self._score_and_save()

    def _show(self) -> None:
        scores = self.algorithm.score_buffer
        score = float(np.mean(scores)) if scores else None
        self.progress.update(_done(self.algorithm), score, self.writer.note())

    def _score_and_save(self) -> None:
        self.writer.score(self.algorithm.policy, self.algorithm.num_timesteps)
        self._save()

    def _save(self) -> None:
        self.writer.save(self.algorithm.get_checkpoint(), self.algorithm.num_timesteps)


def valid_score(policy: PlasticPolicy, config: ExperimentConfig) -> float:
    """Return the mean score on the first tasks of `valid`; training's own random streams are not touched.

    Raises:
        NonFiniteError: If the policy's network becomes NaN or infinite.
    """
    environment = config.environment
    lifetimes = run_lifetimes(
        policy,
        environment.id,
        environment.distribution().tasks("valid", 0, config.evaluation.valid_tasks),
        **environment.options,
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
        return config.done(counters) >= config.total


def check_unfinished(run: RunFolder, config: ExperimentConfig) -> None:
    """Refuse to resume a run that has nothing left to do, or nothing left to go on from.

    Raises:
        RunError: If it has lost its checkpoints.
        FinishedError: If it is trained, and evaluated where its config asks for that.
    """
    run.check_record()
    if is_trained(run, config) and (run.evaluation.exists() or not config.evaluation.final):
        raise FinishedError(
            f"{run.path} is finished ({config.total:,} {config.unit}): there is nothing to resume. "
            f"Score it with: plastic-rl evaluate {run.path}"
        )
