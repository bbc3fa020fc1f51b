"""The compiled core: its levels, and that no processor is given instructions which it may not have."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from plastic_rl import _native

ROOT = Path(__file__).parents[2]
X86_64 = platform.machine().lower() in {"x86_64", "amd64"}
LEVELS = ["baseline", "avx2", "avx512"] if X86_64 else ["baseline"]

needs_core = pytest.mark.skipif(
    _native.extension() is None, reason="the package is installed without its compiled core"
)
needs_objdump = pytest.mark.skipif(not X86_64 or shutil.which("objdump") is None, reason="needs x86-64 and objdump")


def test_the_core_is_there_where_it_is_required() -> None:
    """So that continuous integration does not skip what follows."""
    required = os.environ.get("PLASTIC_RL_REQUIRE_NATIVE", "").lower() not in {"", "0", "false", "off", "no", "n", "f"}
    assert _native.extension() is not None or not required


def test_what_builds_the_package_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    pinned = {line.split("==")[0].replace("_", "-") for line in (ROOT / "constraints.txt").read_text().split()}
    assert {"cmake", "ninja"} <= pinned
    assert {requirement.split(">=")[0] for requirement in project["build-system"]["requires"]} <= pinned


def test_pythonpath_goes_before_an_editable_install(tmp_path: Path) -> None:
    """So that the tests of another working tree test that tree."""
    (tmp_path / "plastic_rl").mkdir()
    (tmp_path / "plastic_rl" / "__init__.py").touch()
    command = [sys.executable, "-c", "import plastic_rl; print(plastic_rl.__file__)"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    output = subprocess.run(command, cwd=tmp_path.parent, env=environment, capture_output=True, text=True, check=True)
    assert Path(output.stdout.strip()) == tmp_path / "plastic_rl" / "__init__.py"


@needs_core
def test_levels_are_named_from_the_slowest_to_the_fastest() -> None:
    levels = _native.levels()
    assert levels[0] == "baseline"
    assert levels == [level for level in LEVELS if level in levels]


@needs_core
@pytest.mark.skipif(not Path("/proc/cpuinfo").exists() or not X86_64, reason="needs Linux on x86-64")
def test_levels_are_what_the_processor_has() -> None:
    flags = set(re.findall(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)[0].split())
    needed = {"baseline": set(), "avx2": {"avx2"}, "avx512": {"avx512f", "avx512dq", "avx512bw", "avx512vl"}}
    assert _native.levels() == [level for level in LEVELS if needed[level] <= flags]


@dataclass
class Function:
    """What a function of the core uses, by its disassembly."""

    name: str
    mnemonics: set[str] = field(default_factory=set)
    registers: set[str] = field(default_factory=set)

    @property
    def level(self) -> str | None:
        """The level of its namespace, that of its own name or, for a template, of a parameter; or none."""
        found = set(re.findall(r"\bplastic::(\w+)::", self.name)) & set(LEVELS)
        assert len(found) < 2, self.name
        return found.pop() if found else None

    @property
    def avx(self) -> bool:
        """Whether it has an instruction of AVX or later: those begin with v, or use a wide or a mask register."""
        return any(name.startswith("v") for name in self.mnemonics) or bool(self.registers & {"ymm", "zmm", "k"})


def disassembled(extension: str) -> Iterator[Function]:
    command = ["objdump", "--disassemble", "--demangle", "--no-show-raw-insn", extension]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for block in re.split(r"^[0-9a-f]{8,} ", output, flags=re.MULTILINE)[1:]:
        title, *lines = block.splitlines()
        function = Function(title.removesuffix(":").strip("<>"))
        for line in lines:
            instruction = re.match(r"\s+[0-9a-f]+:\s+(.*)", line)
            if instruction:
                code = instruction.group(1).split("#")[0]
                words = code.split()
                prefixes = {"rep", "repz", "repnz", "lock", "bnd", "notrack", "data16", "cs", "{vex}", "{evex}"}
                function.mnemonics.update([word for word in words if word not in prefixes][:1])
                function.registers.update(re.findall(r"%([xyz]mm|k)\d", code))
        yield function


@needs_core
@needs_objdump
def test_wide_instructions_stay_within_their_level() -> None:
    """Also where the linker keeps one of several same inline functions, of whichever level.

    No multiplication is fused with an addition: levels would round differently.
    """
    core = _native.extension()
    assert core is not None
    assert core.__file__
    functions = list(disassembled(core.__file__))
    of = {level: [function for function in functions if function.level == level] for level in [None, *LEVELS]}
    assert len(of[None]) > 100
    assert any("PyInit" in function.name for function in of[None])

    assert [function.name for function in [*of[None], *of["baseline"]] if function.avx] == []
    assert [function.name for function in of["avx2"] if function.registers & {"zmm", "k"}] == []
    assert [f.name for f in functions if any(re.match("vf(n)?m(add|sub)", name) for name in f.mnemonics)] == []

    assert any("xmm" in function.registers for function in of["baseline"])
    assert any("ymm" in function.registers for function in of["avx2"])
    assert any("zmm" in function.registers for function in of["avx512"])
