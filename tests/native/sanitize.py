"""Build the kernels and `driver.cpp` with sanitizers of addresses and undefined behaviour, and run all cases.

    python tests/native/sanitize.py [FOLDER]

Without optimisation, as what is instrumented is the source, and compiling takes minutes with it.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SOURCES = ROOT / "plastic_rl" / "_native" / "src"
SANITIZERS = "-fsanitize=address,undefined"


class BuildError(Exception):
    """What the compiler said."""


def compiler() -> list[str] | None:
    """The command of a C++ compiler that has sanitizers, or None."""
    named = shlex.split(os.environ.get("CXX", "")) or [next(filter(shutil.which, ("g++", "clang++", "c++")), "")]
    if not shutil.which(named[0]):
        return None
    program = "int main() { return 0; }"
    command = [*named, SANITIZERS, "-x", "c++", "-", "-o", os.devnull]
    tried = subprocess.run(command, input=program, capture_output=True, text=True, check=False)
    return named if tried.returncode == 0 else None


def flags_of_levels() -> dict[str, list[str]]:
    """What each level is compiled with on x86-64, as `CMakeLists.txt` has it."""
    text = (ROOT / "CMakeLists.txt").read_text()
    found = {level: flags.split() for level, flags in re.findall(r"set\(flags_(\w+) (-march=[^)]*)\)", text)}
    assert {"-mavx2", "-mavx512f"} <= {flag for flags in found.values() for flag in flags}
    return found


def is_x86_64(command: list[str]) -> bool:
    """Whether the compiler makes code for x86-64."""
    macros = subprocess.run(
        [*command, "-dM", "-E", "-x", "c++", os.devnull], capture_output=True, text=True, check=True
    )
    return "__x86_64__" in macros.stdout


def build(command: list[str], folder: Path, *, quick: bool = False) -> Path:
    """Build the driver.

    Args:
        command: The compiler's.
        folder: Where its files go.
        quick: The baseline alone, without checks of the stack and of each pointer, which take most of the time.

    Raises:
        BuildError: If it cannot be built.
    """
    x86_64 = is_x86_64(command)
    levels = flags_of_levels() if x86_64 else {"baseline": []}
    if quick:
        levels = {"baseline": levels["baseline"]}
    checks = [SANITIZERS, "-fno-sanitize-recover=all", "-g1", "-O0"]
    if quick:
        checks.append("-fno-sanitize=null,object-size,pointer-overflow")
        version = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True).stdout
        if "Free Software Foundation" in version:
            checks += ["--param", "asan-stack=0", "--param", "asan-instrumentation-with-call-threshold=0"]
    common = [*command, "-std=c++17", "-ffp-contract=off", *checks, f"-I{SOURCES}", "-Wno-psabi"]
    common += ["-Wno-uninitialized", "-Wno-maybe-uninitialized"]  # see CMakeLists.txt
    several = [] if quick or not x86_64 else ["-DPLASTIC_X86_64"]
    objects = {
        "driver": [*several, str(HERE / "driver.cpp")],
        "dispatch": [*several, str(SOURCES / "dispatch.cpp")],
        **{
            f"{level}_{source}": [
                *flags,
                "-fno-exceptions",
                "-fno-rtti",
                f"-DPLASTIC_LEVEL={level}",
                str(SOURCES / f"{source}.cpp"),
            ]
            for level, flags in levels.items()
            for source in ("kernels", "rule_table")
        },
    }
    folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(2) as pool:
        for _ in pool.map(
            lambda one: _run([*common, *one[1], "-c", "-o", str(folder / f"{one[0]}.o")]), objects.items()
        ):
            pass
    driver = folder / "driver"
    # The baseline first, as the package is linked.
    _run([*common, *(str(folder / f"{name}.o") for name in objects), "-o", str(driver)])
    return driver


def _run(command: list[str]) -> None:
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise BuildError(f"{shlex.join(command)}\n{ended.stderr}")


def run(driver: Path) -> tuple[int, str]:
    """Run all cases: exit code, and what was said."""
    # Leaks are looked for by tracing the process, which containers do not allow.
    environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0", "UBSAN_OPTIONS": "print_stacktrace=1"}
    command = [str(driver), str(HERE / "cases.bin")]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return ended.returncode, ended.stdout + ended.stderr


def main(folder: Path) -> int:
    """Build and run all."""
    command = compiler()
    if command is None:
        print("there is no C++ compiler with -fsanitize=address,undefined here (CXX chooses one)", file=sys.stderr)
        return 1
    code, said = run(build(command, folder))
    print(said, end="")
    return code


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build" / "sanitize"))
