"""The package as a whole: light to import, of one version, with the licence and the files that it promises."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from graphlib import TopologicalSorter
from pathlib import Path

import grimp
import pytest

import plastic_rl

ROOT = Path(__file__).parents[1]
HEAVY = ["torch", "stable_baselines3", "matplotlib", "scipy", "pandas", "tensorboard", "pygame", "typer", "pydantic"]


@pytest.mark.parametrize("module", ["plastic_rl", "plastic_rl.envs", "plastic_rl.families", "plastic_rl.errors"])
def test_importing_loads_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print([name for name in {HEAVY!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.strip() == "[]"


def test_an_agent_acts_without_torchs_compiler() -> None:
    """Whose import, a second of CPU time, some functions of the meta device ask for."""
    code = (
        "import sys; from plastic_rl.experiment import load_agent\n"
        "for agent in ('default', 'rule_table_d1', 'cue_association_lstm'): load_agent('agents/' + agent)\n"
        "print([name for name in ('torch._dynamo', 'sympy') if name in sys.modules])"
    )
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.strip() == "[]"


def test_the_version_is_one() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == plastic_rl.__version__
    assert project["scripts"] == {"plastic-rl": "plastic_rl.__main__:main"}


def test_constraints_pin_every_direct_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split())
    assert pinned["torch"] == "2.13.0"
    names = {name.lower().replace("_", "-") for name in pinned}
    for requirement in [*project["dependencies"], *project["optional-dependencies"]["dev"]]:
        name, bound = requirement.split(">=")
        assert name.lower() in names, name
        assert bound


def test_every_module_says_what_it_is_for() -> None:
    silent = [
        path
        for path in (ROOT / "plastic_rl").rglob("*.py")
        if not path.read_text().lstrip().startswith(('"""', 'r"""'))
    ]
    assert silent == []


def test_no_imports_go_in_a_circle() -> None:
    """Of single modules; the contracts in `pyproject.toml` hold packages to it."""
    graph = grimp.build_graph("plastic_rl", exclude_type_checking_imports=True, cache_dir=None)
    TopologicalSorter({module: graph.find_modules_directly_imported_by(module) for module in graph.modules}).prepare()


def test_no_module_runs_code_from_data() -> None:
    """Nothing is unpickled or evaluated: reading a config or a checkpoint must never run code.

    Workers do unpickle what the process that started them has pickled; no file is ever read that way.
    """
    forbidden = {"eval", "exec", "torch.load", "pickle.load", "pickle.loads", "yaml.unsafe_load", "yaml.full_load"}
    calls = {
        (path.name, ast.unparse(node.func))
        for path in (ROOT / "plastic_rl").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
    }
    assert {call for call in calls if call[1] in forbidden} == {("process.py", "pickle.loads")}


def test_the_licence_is_mit() -> None:
    assert (ROOT / "LICENSE").read_text().startswith("MIT License\n\nCopyright (c) 2026 plastic_rl authors\n")
