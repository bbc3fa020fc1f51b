"""Experiments: what one run is, and how it is trained, resumed, evaluated and exported.

Data flows from a YAML file into an `ExperimentConfig`, from there into a run folder, whose checkpoints training writes
and evaluation reads. The command line is a thin layer over these functions.

config = load_experiment("configs/default.yaml", ["seed=3"])
[run] = create_runs(Path("runs"), "mine", {"": config})
train(run)
print(score_run(run, plugins=[]).table())
"""

from __future__ import annotations

from plastic_rl.experiment.agents import (
    TrainedAgent,
    agent_names,
    export_agent,
    find_agent,
    find_agents,
    load_agent,
    needs_plugins,
)
from plastic_rl.experiment.comparing import ComparisonConfig, compare, load_comparison
from plastic_rl.experiment.config import ExperimentConfig, load_experiment, parse_experiment
from plastic_rl.experiment.folder import RunFolder, create_runs, find_run, find_runs
from plastic_rl.experiment.pipeline import check_experiment, resume, start
from plastic_rl.experiment.scoring import draw_curves, score_agent, score_run, seeds_table, write_seeds_table
from plastic_rl.experiment.studies import StudyConfig, load_study, study
from plastic_rl.experiment.training import make_algorithm, train

__all__ = [
    "ComparisonConfig",
    "ExperimentConfig",
    "RunFolder",
    "StudyConfig",
    "TrainedAgent",
    "agent_names",
    "check_experiment",
    "compare",
    "create_runs",
    "draw_curves",
    "export_agent",
    "find_agent",
    "find_agents",
    "find_run",
    "find_runs",
    "load_agent",
    "load_comparison",
    "load_experiment",
    "load_study",
    "make_algorithm",
    "needs_plugins",
    "parse_experiment",
    "resume",
    "score_agent",
    "score_run",
    "seeds_table",
    "start",
    "study",
    "train",
    "write_seeds_table",
]
