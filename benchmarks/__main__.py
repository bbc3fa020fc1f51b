"""`python -m benchmarks`: measures, prints tables and what was promised, and writes all numbers to bench.json."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks import measure, report
from benchmarks.generation import generation, rule_table
from benchmarks.measure import Rows
from benchmarks.peak import share
from benchmarks.settings import Setting, Sizes
from benchmarks.training import environment, iteration, libraries, memory, memory_here, sweep

GROUPS: dict[str, Callable[[Sizes, int], Iterator[Rows]]] = {
    "iteration": iteration,
    "memory": memory,
    "libraries": libraries,
    "generation": generation,
    "rule_table": rule_table,
    "environment": environment,
    "share": share,
    "sweep": sweep,
}


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmarks; return the exit code: 0 whatever the speed, which the last lines judge."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=GROUPS, metavar="GROUP", help=f"some of {', '.join(GROUPS)}")
    parser.add_argument("--sweep", action="store_true", help="also lay 18 sizes beside the loop (minutes)")
    parser.add_argument("--rounds", type=int, default=7, help="measurements of each, in turn; fewer of what takes long")
    parser.add_argument("--json", type=Path, default=Path("bench.json"), metavar="FILE", help="default %(default)s")
    parser.add_argument(
        "--load", type=Path, metavar="FILE", help="add to rows measured before; without --only: show them"
    )
    parser.add_argument("--markdown", action="store_true", help="print tables for a document")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw speed and memory")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.memory_of:
        version, rule, setting = json.loads(options.memory_of)
        print(json.dumps(memory_here(version, rule, Setting(**setting))))
        return 0
    if options.rounds < 1:
        parser.error("--rounds: at least 1")
    torch.set_num_threads(1)
    result: dict[str, Any] = {"machines": {}, "rows": {}}
    groups = options.only or [name for name in GROUPS if name != "sweep" or options.sweep]
    if options.load:
        result = json.loads(options.load.read_text(encoding="utf-8"))
        groups = options.only or []
    for group in groups:
        result["machines"][group] = measure.machine()
        measured: Rows = {}
        for rows in GROUPS[group](Sizes(), options.rounds):
            measured |= rows
            print(*rows, file=sys.stderr, flush=True)
        result["rows"] = {name: row for name, row in result["rows"].items() if name.split("/")[0] != group} | measured
        if not options.markdown:
            print(f"{report.table(measured)}\n", flush=True)
    order = list(GROUPS)
    rows = dict(sorted(result["rows"].items(), key=lambda item: order.index(item[0].split("/")[0])))
    if options.markdown or not groups:
        print(f"{report.table(rows, markdown=options.markdown)}\n")
    machines, verdicts = report.described(result["machines"]), report.verdicts(rows)
    if options.markdown:
        print("\n".join([f"{machines}\n", *(f"- {verdict}" for verdict in verdicts)]))
    else:
        print("\n".join([f"{machines}\n\n{report.LEGEND}\n", *verdicts]))
    if groups:
        options.json.write_text(json.dumps(result | {"rows": rows}, indent=1) + "\n", encoding="utf-8")
    if options.plot:
        report.plot(rows, options.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
