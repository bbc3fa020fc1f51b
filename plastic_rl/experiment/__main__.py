"""Re-runs recorded experiments: `python -m plastic_rl.experiment configs --seeds 0,1,2`.

Each config becomes the run `runs/experiments/NAME/seed-S`. Finished runs are skipped and broken ones go on where they
were, so it can be stopped and started at will. Scores over several seeds are pooled in `NAME/seeds.txt`. Comparisons
(configs with `variants`) have seeds of their own, and become `runs/experiments/NAME`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from plastic_rl.config import read_mapping
from plastic_rl.envs import load_plugin
from plastic_rl.errors import FinishedError, PlasticRLError, TrainingInterrupted
from plastic_rl.experiment import compare, resume, start
from plastic_rl.experiment.config import is_comparison
from plastic_rl.experiment.folder import RunFolder, plugins_in
from plastic_rl.experiment.scoring import write_seeds_table


def main(arguments: list[str] | None = None) -> int:
    """Run; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m plastic_rl.experiment", description=__doc__)
    parser.add_argument("configs", type=Path, nargs="+", help="config files, or folders of them")
    parser.add_argument("--seeds", default="0", help="seeds, separated by commas (default 0)")
    parser.add_argument("--plugin", action="append", default=[], help="plugin that the configs may use")
    parser.add_argument("--runs-folder", type=Path, default=Path("runs/experiments"))
    options = parser.parse_args(arguments)
    files = [file for path in options.configs for file in (sorted(path.glob("*.yaml")) if path.is_dir() else [path])]
    try:
        seeds = [int(seed) for seed in options.seeds.split(",")]
        for plugin in options.plugin:
            load_plugin(plugin)
        failures = sum(_failures(file, seeds, options.runs_folder, options.plugin) for file in files)
    except (TrainingInterrupted, KeyboardInterrupt) as stop:
        _say(str(stop))
        return 130
    except (PlasticRLError, ValueError) as error:
        _say(f"error: {error}")
        return 2
    return 1 if failures else 0


def _failures(file: Path, seeds: list[int], runs_folder: Path, plugins: list[str]) -> int:
    """Train what a config file describes; return how many of its runs could not be trained."""
    try:
        comparison = is_comparison(read_mapping(file))
        given = [plugin for plugin in plugins if plugin in plugins_in(file)]
    except PlasticRLError as error:
        _say(f"error in {file}: {error}")
        return 1
    if comparison:
        return _fails(file, runs_folder / file.stem, compare, file, plugins=plugins, runs_folder=runs_folder, say=_say)
    failures = 0
    scored = []
    for seed in seeds:
        name = f"{file.stem}/seed-{seed}"
        folder = runs_folder / name
        if folder.exists():
            failures += _fails(file, folder, resume, folder, plugins=given)
        else:
            overrides = [f"seed={seed}"]
            failures += _fails(file, folder, start, file, overrides, name=name, plugins=given, runs_folder=runs_folder)
        if (folder / "evaluation.json").exists():
            scored.append(RunFolder(folder))
    if len(scored) > 1:
        _say(write_seeds_table(scored))
    return failures


def _fails(file: Path, folder: Path, act: Callable[..., Any], *arguments: Any, **options: Any) -> bool:
    _say(f"--- {folder}: {act.__name__}")
    try:
        act(*arguments, **options)
    except FinishedError as error:
        _say(str(error))
    except PlasticRLError as error:
        _say(f"error in {file}: {error}")
        return True
    return False


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - a command-line program


if __name__ == "__main__":
    sys.exit(main())
