"""`python -m benchmarks [--rounds N] [--json FILE]`: prints the table, writes the numbers."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import generation, training
from benchmarks.generation import GenerationSetting
from benchmarks.training import Setting

REQUIRED_RATIO = 2.0
"""What the project promises against the loop version."""
REQUIRED_GENERATION_RATIO = 20.0
"""What the project promises against a loop over individuals."""


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmarks; return the exit code: 0 whatever the speed, which the last line judges."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    defaults = Setting()
    for name, value in asdict(defaults).items():
        parser.add_argument(f"--{name}", type=int, default=value, help=f"default {value}")
    parser.add_argument("--rounds", type=int, default=7, help="measurements of each, taken in turn (median reported)")
    parser.add_argument("--json", type=Path, help="also write all numbers to this file")
    parser.add_argument("--skip-memory", action="store_true", help="do not measure memory (8 short processes)")
    parser.add_argument("--only", choices=["training", "generation"], help="one of the two tables")
    parser.add_argument("--memory-of", choices=training.VERSIONS, help="measure the memory of one version, print JSON")
    parser.add_argument("--rule", choices=training.RULES, default="retroactive", help="for --memory-of")
    options = parser.parse_args(arguments)
    setting = Setting(**{name: getattr(options, name) for name in asdict(defaults)})
    if options.memory_of:
        print(json.dumps(training.memory_here(options.memory_of, setting, options.rule)))
        return 0
    result: dict[str, Any] = {"setting": asdict(setting), "made_with": training.description()}
    if options.only != "generation":
        result["training"] = training.speeds(setting, options.rounds)
        result["around_network_cpu_seconds"] = training.around_network(setting, options.rounds)
        result["environment_steps_per_second"] = training.environment_speeds(setting, options.rounds)
        result["memory"] = {} if options.skip_memory else training.memory(setting)
        print(table(result))
    if options.only != "training":
        evolved = GenerationSetting()
        # The loop takes seconds a round.
        result["generation"] = generation.speeds(evolved, max(options.rounds // 2, 1))
        print(f"\n{generation.table(evolved, result['generation'], REQUIRED_GENERATION_RATIO)}")
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0


def table(result: dict[str, Any]) -> str:
    """The numbers for a reader."""
    setting = result["setting"]
    size = f"side {setting['side']}, {setting['steps']} steps, {setting['batch']} lifetimes"
    title = f"Training iteration on the grid maze: {size}, {setting['hidden']} hidden units, one thread"
    header = f"{'rule':<12} {'version':<24} {'ms':>7} {'CPU ms':>7} {'lifetimes/s':>12} {'ratio':>6} {'CPU':>6}"
    lines = [title, "", f"{header} {'MB':>7} {'MB/step':>8} {'further':>8}"]
    for rule, versions in result["training"].items():
        for version, numbers in versions.items():
            line = (
                f"{rule:<12} {version:<24} {1e3 * numbers['seconds']:7.0f} {1e3 * numbers['cpu_seconds']:7.0f} "
                f"{numbers['episodes_per_second']:12.1f} {numbers['times_bare_loop']:6.2f} "
                f"{numbers['times_bare_loop_cpu']:6.2f}"
            )
            memory = result["memory"].get(rule, {}).get(version)
            if memory:
                line += f" {memory['megabytes']:7.0f} {memory['megabytes_per_step']:8.3f}"
                line += f" {memory['megabytes_per_further_step']:8.3f}"
            lines.append(line)
    around = 1e3 * result["around_network_cpu_seconds"]
    lines += ["", f"Of an iteration, what is around the network (it costs nothing): {around:.0f} CPU ms"]
    lines += ["", "Environment steps per second of CPU time (random actions)"]
    steps = result["environment_steps_per_second"]
    lines += [f"{name:<24} {speed:12,.0f} {speed / steps['scalar']:8.1f}x" for name, speed in steps.items()]
    lines.append("")
    for rule, versions in result["training"].items():
        ratio = versions["plastic_rl"]["times_bare_loop"]
        verdict = "reached" if ratio >= REQUIRED_RATIO else "NOT reached"
        lines.append(f"{rule}: {ratio:.2f} times the loop version on bare environments; {REQUIRED_RATIO:g}: {verdict}")
    lines.append(
        "ms: medians. ratio, CPU: how many times as fast as the loop on bare environments, by wall clock and by CPU "
        "time,\nmedian over rounds that ran in turn."
    )
    lines.append(
        "MB: peak resident memory less that before training, in a fresh process each; /step: over the steps of a "
        "lifetime;\nfurther: what each step adds when a lifetime takes twice as many."
    )
    ratios = {rule: versions["plastic_rl"]["times_bare_loop"] for rule, versions in result["training"].items()}
    missed = [f"{rule} {ratio:.2f}" for rule, ratio in ratios.items() if ratio < REQUIRED_RATIO]
    verdict = f"NOT met ({', '.join(missed)})" if missed else f"met (lowest {min(ratios.values()):.2f})"
    lines += ["", f"Target of {REQUIRED_RATIO:g} times the loop version: {verdict}"]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
