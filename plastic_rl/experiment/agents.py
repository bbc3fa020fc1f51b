"""Trained agents: found in a run or an agent folder, loaded to act, and exported with scores and a card.

agents/NAME/config.yaml       the experiment that trained it    agents/NAME/evaluation.json   its scores
agents/NAME/checkpoint/       weights, verified when read       agents/NAME/README.md         its card
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from plastic_rl.algorithms.saved_policy import acting_part, load_policy
from plastic_rl.checkpoint import read_checkpoint, write_checkpoint
from plastic_rl.checkpoint.files import sync_folder, temporary_beside, write_synced
from plastic_rl.config import read_mapping
from plastic_rl.envs.wrappers import made_with
from plastic_rl.errors import AmbiguousNameError, CheckpointError, ConfigError, PluginError, RunError
from plastic_rl.evaluation import Evaluation
from plastic_rl.evaluation.stage_scores import StageScores
from plastic_rl.experiment.config import ExperimentConfig, parse_experiment
from plastic_rl.experiment.folder import (
    AGENT_CHECKPOINT,
    CONFIG,
    RunFolder,
    find_run,
    find_runs,
    is_agent,
    locate,
    names_in,
    plugins_in,
)
from plastic_rl.experiment.training import check_device
from plastic_rl.policies import PlasticPolicy


@dataclass(frozen=True)
class TrainedAgent:
    """A trained agent on disk: that of a run, or an exported one; its name in tables, and where its weights are."""

    name: str
    folder: Path
    config: ExperimentConfig
    checkpoint: Path
    is_run: bool

    def load(self, device: str | None = None) -> PlasticPolicy:
        """Load what acts: the policy.

        Raises:
            CheckpointError: If its weights are damaged or missing.
        """
        if device is not None:
            check_device(device)
        return load_policy(read_checkpoint(self.checkpoint), device or self.config.device)


def find_agent(
    spec: str | Path,
    *,
    runs_folder: str | Path = "runs",
    agents_folder: str | Path = "agents",
    plugins: Sequence[str] = (),
) -> TrainedAgent:
    """Return the trained agent that `spec` names: a path, or a name that only one of the folders has (`locate`).

    Raises:
        RunError: If there is none, or several: runs and agents of this name, or seeds.
        PluginError: If it needs a plugin that was not given.
    """
    path = locate(spec, runs_folder, agents_folder)
    return _exported(path, plugins) if is_agent(path) else _trained(find_run(path), plugins)


def find_agents(
    spec: str | Path,
    *,
    runs_folder: str | Path = "runs",
    agents_folder: str | Path = "agents",
    plugins: Sequence[str] = (),
) -> list[TrainedAgent]:
    """As `find_agent`, where a folder of several seeds stands for the agents of all of them."""
    path = locate(spec, runs_folder, agents_folder)
    return [_exported(path, plugins)] if is_agent(path) else [_trained(run, plugins) for run in find_runs(path)]


def baseline_of(spec: str, config: ExperimentConfig) -> TrainedAgent:
    """Return an agent that `evaluation.baselines` of a config names.

    Raises:
        ConfigError: If the name is ambiguous, so that another agent than the one meant could be compared with.
        RunError: If it is not here.
    """
    try:
        return find_agent(spec, plugins=config.plugins)
    except AmbiguousNameError as error:
        raise ConfigError(f"evaluation.baselines: {error}") from None


def _exported(path: Path, plugins: Sequence[str]) -> TrainedAgent:
    needs_plugins(plugins_in(path / CONFIG), plugins, str(path))
    config = parse_experiment(read_mapping(path / CONFIG), str(path / CONFIG))
    return TrainedAgent(path.resolve().name, path, config, path / AGENT_CHECKPOINT, is_run=False)


def _trained(run: RunFolder, plugins: Sequence[str]) -> TrainedAgent:
    needs_plugins(run.plugins(), plugins, str(run.path))
    name = run.path.resolve()
    label = f"{name.parent.name}-{name.name}" if name.name.startswith("seed-") else name.name
    return TrainedAgent(label, run.path, run.config(), run.chosen(), is_run=True)


def checkpoint_line(trained: TrainedAgent) -> str:
    """Tell which checkpoint acts: how far it was trained, why it was chosen, and whether training has ended.

    Raises:
        CheckpointError: If it is damaged.
    """
    total, unit = trained.config.total, trained.config.unit

    def done_at(path: Path) -> int:
        return trained.config.done(read_checkpoint(path, only=["algorithm"]).documents["algorithm"])

    reached = done_at(trained.checkpoint)
    if not trained.is_run:
        return f"checkpoint {reached:,} of {max(total, reached):,} {unit} (exported)"
    run = RunFolder(trained.folder)
    newest = run.latest()
    done = reached if newest is None or newest == trained.checkpoint else done_at(newest)
    chosen = "best on valid" if str(run.best()) == trained.checkpoint.name else "the newest"
    unfinished = "; the run is unfinished" if done < total else ""
    # Whole rollouts: training ends at or beyond the steps asked for.
    return f"checkpoint {reached:,} of {max(total, done):,} {unit} ({chosen}{unfinished})"


def newest_damage(trained: TrainedAgent) -> str | None:
    """Return what is wrong with the newest checkpoint of a run; None where nothing is, or for an exported agent."""
    newest = RunFolder(trained.folder).latest() if trained.is_run else None
    if newest is None or newest == trained.checkpoint:
        return None
    try:
        read_checkpoint(newest)
    except CheckpointError as error:
        return str(error)
    return None


def load_agent(spec: str | Path, *, plugins: Sequence[str] = (), device: str | None = None) -> PlasticPolicy:
    """Load the agent of a run or of an agent folder; see `find_agent`."""
    return find_agent(spec, plugins=plugins).load(device)


def needs_plugins(needed: Sequence[str], given: Sequence[str], who: str) -> None:
    """Refuse to go on without a plugin that was recorded.

    Raises:
        PluginError: Naming the `--plugin` that is missing.
    """
    names = {Path(plugin).name for plugin in given}
    missing = [plugin for plugin in needed if Path(plugin).name not in names]
    if missing:
        raise PluginError(
            f"{who} was made with plugins, which are only imported when you ask for them. "
            f"If you trust them, add:{plugin_options(missing)}"
        )


def plugin_options(plugins: Sequence[str]) -> str:
    """Return what a command that needs plugins ends in, or nothing.

    >>> plugin_options(["mine.py", "theirs"])
    ' --plugin mine.py --plugin theirs'
    """
    return "".join(f" --plugin {plugin}" for plugin in plugins)


def agent_names(agents_folder: str | Path = "agents") -> list[str]:
    """Return the names of the exported agents in a folder."""
    return [name for name in names_in(agents_folder) if is_agent(Path(agents_folder) / name)]


def export_agent(run: RunFolder, target: str | Path, *, plugins: Sequence[str] = ()) -> TrainedAgent:
    """Copy what is needed to evaluate and reuse a run's agent to a folder of its own, with its scores and a card.

    Raises:
        PluginError: If the run needs a plugin that was not given.
        RunError: If the run has no scores yet, or `target` exists.
    """
    trained = _trained(run, plugins)
    target = Path(target)
    if target.exists():
        raise RunError(f"{target} exists already, and nothing is overwritten. Choose another name.")
    if not run.evaluation.exists():
        raise RunError(f"{run.path} has no scores yet. Score it first with: plastic-rl evaluate {run.path}")
    evaluation = Evaluation.load(run.evaluation)
    checkpoint = acting_part(read_checkpoint(trained.checkpoint))
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(target)
    temporary.mkdir()
    write_checkpoint(temporary / AGENT_CHECKPOINT, checkpoint)
    write_synced(temporary / CONFIG, trained.config.to_yaml().encode("utf-8"))
    write_synced(temporary / "evaluation.json", run.evaluation.read_bytes())
    stages = StageScores.load(run.stages) if run.stages.exists() else None
    if stages is not None:
        write_synced(temporary / run.stages.name, run.stages.read_bytes())
    pictures = [picture for picture in (run.adaptation, run.curves, run.stages_picture) if picture.exists()]
    for picture in pictures:
        shutil.copyfile(picture, temporary / picture.name)
    write_synced(temporary / "README.md", card(target, trained, evaluation, pictures, stages).encode("utf-8"))
    temporary.rename(target)
    sync_folder(target.parent)
    return TrainedAgent(target.name, target, trained.config, target / AGENT_CHECKPOINT, is_run=False)


def card(
    target: Path,
    trained: TrainedAgent,
    evaluation: Evaluation,
    pictures: Sequence[Path],
    stages: StageScores | None = None,
) -> str:
    """Write the card of an agent: what it is, how good it is and on what, how to use it."""
    config = trained.config
    trained_for = f"`{'candidates' if config.candidates else config.algorithm.name}`, {config.total:,} {config.unit}"
    parameters = sum(tensor.numel() for tensor in read_checkpoint(trained.checkpoint).tensors["params"].values())
    environment = config.environment
    place = environment.kwargs, environment.trials, environment.same_task_each_trial, environment.wrappers
    settings = made_with(*place, equals=" = ")
    rule = config.network.get("rule")
    size = f"hidden size {config.network.get('hidden_size', '-')}, {parameters:,} parameters"
    command = f"plastic-rl evaluate {target.as_posix()}{plugin_options(config.plugins)}"
    one_seed = f"seed {config.seed} (one training run: its scores say nothing about the spread between seeds)"
    if config.stages:
        named = ", ".join(f"{stage.name} ({stage.budget:,})" for stage in config.stages)
        trained_for += f" in the stages {named}"
    tables = [evaluation.table(rich=False)] + ([] if stages is None else [stages.table()])
    lines = [
        f"# {target.name}",
        "",
        config.description or f"An agent for {environment.id}.",
        "",
        f"- Environment: `{environment.id}` {settings}",
        f"- Network: `{config.network.get('kind')}`{f', rule `{rule}`' if rule else ''}, {size}",
        f"- Training: {trained_for}, {one_seed}",
        f"- Checkpoint: {trained.checkpoint.name} steps"
        + (", the best on the split `valid`" if config.evaluation.valid_tasks else ""),
        "",
        "```",
        "\n\n".join(table.rstrip() for table in tables),
        "```",
        "",
        *[f"![{picture.stem}]({picture.name})" for picture in pictures],
        "",
        "```sh",
        f"{command} --split {' --split '.join(evaluation.splits)}",
        "```",
        "",
        "```python",
        "from plastic_rl.experiment import load_agent",
        "",
        f'agent = load_agent("{target.as_posix()}")',
        "actions, state = agent.predict(observations, state, episode_start)",
        "```",
        "",
        "Loading runs no code from this folder: the weights are tensors, everything else is text.",
    ]
    return "\n".join(lines) + "\n"
