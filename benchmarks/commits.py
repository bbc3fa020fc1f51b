"""`python -m benchmarks.commits COMMIT`: does training give the same bytes as at COMMIT, and does it take as long?

Every config of this checkout that COMMIT also has is trained for a few updates by both, each with its own code and its
own config, and the parameters of every checkpoint are compared. Then the same work is done in turn by two processes,
one for each, and its CPU time laid side by side.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import yaml

HERE = Path(__file__).parents[1]
UPDATES = 20


# --- the same bytes ---------------------------------------------------------------------------------------------------


def shortened(path: Path) -> dict[str, Any] | None:
    """A config with `UPDATES` updates, two tasks to score on and four candidates at most; None for a comparison."""
    config: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    config.pop("plugins", None)
    algorithm, candidates = config.get("algorithm"), config.get("candidates")
    if candidates and "grid" in candidates:
        candidates["grid"] = dict(list(candidates["grid"].items())[:2])
    elif algorithm and "generations" in algorithm:
        few = {"generations": UPDATES, "population_size": 8, "lifetimes": min(2, algorithm.get("lifetimes", 4))}
        config["algorithm"] = algorithm | few
    elif algorithm and "total_timesteps" in algorithm:
        steps = algorithm.get("n_steps") or 200
        config["algorithm"] = algorithm | {"total_timesteps": UPDATES * algorithm.get("n_envs", 16) * steps}
    else:
        return None
    config["evaluation"] = {"tasks": 2, "valid_tasks": 2, "splits": ["test"], "final": False}
    config["checkpoint"] = {"interval": UPDATES // 2} if algorithm else {"interval": 1}
    return config


def trained(tree: Path, name: str, folder: Path) -> dict[str, str] | str:
    """Hash of the parameters of each checkpoint of a config's short run, by its place; or what went wrong."""
    folder.mkdir(parents=True)
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(shortened(tree / "configs" / file.name)), encoding="utf-8")
    plugins = [word for plugin in sorted((tree / "envs").glob("*.py")) for word in ("--plugin", str(plugin))]
    command = [sys.executable, "-m", "plastic_rl", "train", file.name, *plugins]
    finished = subprocess.run(command, cwd=folder, env=environment(tree), capture_output=True, text=True, check=False)
    if finished.returncode:
        return (finished.stderr.strip().splitlines() or [f"ended with {finished.returncode}"])[-1]
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted((folder / "runs").rglob("params.safetensors"))
    }


def compare_training(other: Path, folder: Path, only: list[str]) -> list[str]:
    """Train in both, print a line for each config, return the names of those that differ."""
    differing = []
    for path in sorted((HERE / "configs").glob("*.yaml")):
        name, before = path.stem, other / "configs" / path.name
        if only and name not in only:
            continue
        if not before.exists() or shortened(path) is None or shortened(before) is None:
            print(f"{name:<40} skipped: {'no training' if before.exists() else 'not at that commit'}")
            continue
        now, then = (trained(tree, name, folder / str(i) / name) for i, tree in enumerate((HERE, other)))
        if isinstance(now, str) or isinstance(then, str) or now != then or not now:
            differing.append(name)
            print(f"{name:<40} DIFFERENT  {now if isinstance(now, str) else then if isinstance(then, str) else ''}")
        else:
            print(f"{name:<40} equal in {len(now)} checkpoints", flush=True)
    return differing


# --- the same time ----------------------------------------------------------------------------------------------------


def work(name: str) -> Callable[[], object]:
    """What is timed, prepared: run in a process whose `plastic_rl` is that of either checkout."""
    import torch

    from plastic_rl.algorithms import CMAES, PlasticA2C
    from plastic_rl.evaluation import evaluate
    from plastic_rl.experiment import load_agent

    torch.set_num_threads(1)
    bandit, maze = "plastic_rl/ReversalBandit-v0", "plastic_rl/GridMaze-v0"

    def network(**config: Any) -> dict[str, Any]:
        return {"policy_kwargs": {"network": config}, "seed": 0}

    if name == "evaluate, reversal bandit":
        policy = load_agent("agents/reversal_bandit")
        return lambda: evaluate(policy, bandit, tasks=500, references=False, resamples=2)
    if name == "a2c, reversal bandit":
        rule = network(kind="plastic_rnn", rule="backpropamine_fan_out", hidden_size=40)
        learner = PlasticA2C("PlasticPolicy", bandit, n_envs=64, **rule)
        return lambda: learner.learn(8 * 64 * 100, reset_num_timesteps=False)
    if name == "a2c, grid maze":
        rule = network(kind="plastic_rnn", rule="backpropamine_simple", hidden_size=100)
        learner = PlasticA2C("PlasticPolicy", maze, n_envs=30, **rule)
        return lambda: learner.learn(3 * 30 * 200, reset_num_timesteps=False)
    if name == "cma_es, rule table":
        table = network(kind="rule_table", hidden_size=20, cap=5, rounds=1, inputs="all", gated={"hidden": True})
        search = CMAES("PlasticPolicy", bandit, lifetimes=16, **table)
        return lambda: search.learn(generations=8, reset_num_timesteps=False)
    rule = network(kind="plastic_rnn", rule="abcd", hidden_size=20)
    search = CMAES("PlasticPolicy", maze, lifetimes=4, population_size=16, **rule)
    return lambda: search.learn(generations=4, reset_num_timesteps=False)


WORK = (
    "evaluate, reversal bandit",
    "a2c, reversal bandit",
    "a2c, grid maze",
    "cma_es, rule table",
    "cma_es, 20 hidden units of abcd",
)


def serve(name: str) -> None:
    """Do the work once for each line of the input, and print the CPU seconds that it took."""
    run = work(name)
    for _ in sys.stdin:
        begun = time.process_time()
        run()
        print(time.process_time() - begun, flush=True)


def compare_times(other: Path, rounds: int) -> None:
    """Print the CPU time of each piece of work in both, and the median of the rounds' ratios."""
    for name in WORK:
        command = [sys.executable, str(Path(__file__).resolve()), "--serve", name]
        both = [
            subprocess.Popen(
                command, cwd=tree, env=environment(tree), text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            for tree in (HERE, other)
        ]
        seconds: list[list[float]] = [[], []]
        for turn in range(rounds + 1):  # the first warms up
            for which in (0, 1) if turn % 2 else (1, 0):
                own = both[which]
                assert own.stdin is not None
                assert own.stdout is not None
                own.stdin.write("again\n")
                own.stdin.flush()
                line = own.stdout.readline()
                if not line:
                    raise SystemExit(f"{name}: the process of {(HERE, other)[which]} ended; see its error above")
                seconds[which].append(float(line))
        for own in both:
            own.communicate()
        now, then = (own[1:] for own in seconds)
        ratios = sorted(a / b for a, b in zip(now, then, strict=True))
        spread = f"[{ratios[0]:.2f}, {ratios[-1]:.2f}]"
        print(
            f"{name:<40} {median(then):.3f} s then, {median(now):.3f} s now: {median(ratios):.2f} {spread}", flush=True
        )


def environment(tree: Path) -> dict[str, str]:
    """That of a process whose `plastic_rl` is `tree`'s."""
    return {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


@contextlib.contextmanager
def checked_out(commit: str, folder: Path) -> Iterator[Path]:
    """Check `commit` out into `folder / "then"`, for as long as it is needed."""
    tree = folder / "then"
    subprocess.run(["git", "worktree", "add", "--detach", str(tree), commit], cwd=HERE, check=True, capture_output=True)
    try:
        yield tree
    finally:
        subprocess.run(["git", "worktree", "remove", "--force", str(tree)], cwd=HERE, check=True, capture_output=True)


def main() -> int:
    """Run it; return the exit code: 1 where bytes differ, whatever the times."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.commits", description=__doc__)
    parser.add_argument("commit", nargs="?", help="to compare this checkout with")
    parser.add_argument("--rounds", type=int, default=11, help="measurements of each, in turn (median reported)")
    parser.add_argument("--only", nargs="*", default=[], metavar="CONFIG", help="train these alone")
    parser.add_argument("--skip-training", action="store_true", help="compare times only")
    parser.add_argument("--skip-times", action="store_true", help="compare bytes only")
    parser.add_argument("--serve", choices=WORK, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
        return 0
    if options.commit is None:
        parser.error("name the commit to compare with")
    names = {path.stem for path in (HERE / "configs").glob("*.yaml")}
    if unknown := sorted(set(options.only) - names):
        parser.error(f"no such config: {', '.join(unknown)}")
    differing: list[str] = []
    with tempfile.TemporaryDirectory() as folder, checked_out(options.commit, Path(folder)) as then:
        if not options.skip_training:
            differing = compare_training(then, Path(folder), options.only)
            print(f"\n{len(differing)} differ{': ' * bool(differing)}{', '.join(differing)}\n")
        if not options.skip_times:
            compare_times(then, options.rounds)
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
