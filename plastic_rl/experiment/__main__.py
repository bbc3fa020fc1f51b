"""Re-runs recorded experiments: `python -m plastic_rl.experiment configs --seeds 0,1,2`.

Each config becomes the run `runs/experiments/NAME/seed-S`. Finished runs are skipped and broken ones go on where they
were, so it can be stopped and started at will. Scores over several seeds are pooled in `NAME/seeds.txt`. Comparisons
(configs with `variants`) have seeds of their own, and become `runs/experiments/NAME`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from plastic_rl.config import read_mapping
from plastic_rl.envs import load_plugin
from plastic_rl.errors import FinishedError, PlasticRLError
from plastic_rl.experiment import TrainingInterrupted, compare, resume, start
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
    failures = 0
    try:
        for plugin in options.plugin:
            load_plugin(plugin)
        for file in files:
            if _is_comparison(file):
                failures += not _compare(file, options.runs_folder, options.plugin)
                continue
            seeds = [int(seed) for seed in options.seeds.split(",")]
            for seed in seeds:
                failures += not _run(file, seed, options.runs_folder, options.plugin)
            paths = [options.runs_folder / file.stem / f"seed-{seed}" for seed in seeds]
            scored = [RunFolder(path) for path in paths if (path / "evaluation.json").exists()]
            if len(scored) > 1:
                _say(write_seeds_table(scored))
    except (TrainingInterrupted, KeyboardInterrupt) as stop:
        _say(str(stop))
        return 130
    except (PlasticRLError, ValueError) as error:
        _say(f"error: {error}")
        return 2
    return 1 if failures else 0


def _run(file: Path, seed: int, runs_folder: Path, plugins: list[str]) -> bool:
    name = f"{file.stem}/seed-{seed}"
    folder = runs_folder / name
    try:
        needed = plugins_in(file)
        given = [plugin for plugin in plugins if plugin in needed]
        if folder.exists():
            _say(f"--- {folder}: going on")
            resume(folder, plugins=given)
        else:
            _say(f"--- {folder}: starting")
            start(file, [f"seed={seed}"], name=name, plugins=given, runs_folder=runs_folder)
    except FinishedError as error:
        _say(str(error))
    except PlasticRLError as error:
        _say(f"error in {file}: {error}")
        return False
    return True


def _is_comparison(file: Path) -> bool:
    try:
        return is_comparison(read_mapping(file))
    except PlasticRLError:
        return False  # the attempt to run it says what is wrong


def _compare(file: Path, runs_folder: Path, plugins: list[str]) -> bool:
    _say(f"--- {runs_folder / file.stem}: comparison")
    try:
        compare(file, plugins=plugins, runs_folder=runs_folder, say=_say)
    except PlasticRLError as error:
        _say(f"error in {file}: {error}")
        return False
    return True


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - a command-line program


if __name__ == "__main__":
    sys.exit(main())
