"""The native core beside what one thread can do at all: arithmetic, and reading from the second cache.

Operations that are counted, of each synapse and step (N^2 synapses, without the padding of rows): multiplications and
additions of `kernels.cpp` and `synapse.h`, not the comparisons of the clip, nor what is done once for each unit.

    update          x g + F: 2                                  traced: F + G E: 2, (1 - r) E + x (r y): 3
    forward         update, alpha F + W0: 2, its product with x: 2
    backward        update twice (up to the checkpoints, and again between them) and once for the gradient at the clip,
                    product: x dz: 1, by alpha: 2, by x: 2 + 2, by F: 2
                    update: by G y: 2, by x: 2                  traced: by G, by E, by x, by y and by r: 11
                    by W0, a matrix product over all steps: 2

Bytes that pass between the caches: trace (and eligibility) of a lifetime, read and written in the forward pass; in the
backward pass written once and read once, its gradient and that of alpha read and written, W0 and alpha read.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks.loop_baseline import Rule
from benchmarks.measure import Rows, Run, timed
from benchmarks.settings import Setting, Sizes
from benchmarks.training import plastic_a2c
from plastic_rl._native import levels
from plastic_rl.networks.native import NativeRule, Resets, native_unroll

RULES: tuple[Rule, ...] = ("simple", "retroactive")
OPERATIONS = {"simple": {"forward": 6, "backward": 21}, "retroactive": {"forward": 9, "backward": 37}}
BYTES = {"simple": {"forward": 8, "backward": 32}, "retroactive": {"forward": 16, "backward": 48}}
FLAGS = {"baseline": [], "avx2": ["-mavx2"], "avx512": ["-mavx512f", "-mprefer-vector-width=512"]}
NO_COMPILER = "no C++ compiler (c++, or that of CXX)"


def share(sizes: Sizes, rounds: int) -> Iterator[Rows]:
    """`share/peak/LEVEL`, and `share/RULE_PASS/LEVEL` of the native core at the usual size."""
    setting = sizes.usual
    peaks = {level: peak_of(level) for level in levels()}
    if not peaks:
        yield {"share/peak": {"note": "the package was installed without its native core"}}
        return
    yield {
        f"share/peak/{level}": {"gflop_s": peak[0], "gbyte_s": peak[1]} if peak else {"note": NO_COMPILER}
        for level, peak in peaks.items()
    }
    work = setting.steps * setting.batch * setting.hidden**2
    for rule in RULES:
        both = {level: passes(level, rule, setting) for level in levels()}
        for name in ("forward", "backward"):
            rows = timed(f"share/{rule}_{name}", {level: own[name] for level, own in both.items()}, rounds)
            for level, row in zip(both, rows.values(), strict=True):
                seconds = 1e9 * row["cpu_ms"] / 1e3
                row["gflop_s"] = OPERATIONS[rule][name] * work / seconds
                row["gbyte_s"] = BYTES[rule][name] * work / seconds
                if peak := peaks[level]:
                    row["of_peak"] = row["gflop_s"] / peak[0]
                    row["of_second_cache"] = row["gbyte_s"] / peak[1]
            yield rows


def peak_of(level: str) -> tuple[float, float] | None:
    """GFLOP/s, and GB/s from the second cache, of one thread; None without a compiler."""
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        program = str(Path(folder) / "peak")
        source = str(Path(__file__).with_name("peak.cpp"))
        options = ["-std=c++17", "-O3", "-ffp-contract=off", "-Wno-psabi", *FLAGS[level]]
        try:
            subprocess.run([compiler, *options, source, "-o", program], check=True, capture_output=True)
            found = subprocess.run([program, str(half_second_cache())], check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError):
            return None
    flops, read = map(float, found.stdout.split())
    return flops / 1e9, read / 1e9


def half_second_cache() -> int:
    """Bytes that the second cache holds and the first does not."""
    try:
        size = os.sysconf("SC_LEVEL2_CACHE_SIZE")
    except (ValueError, OSError):
        size = 0
    return max(size // 2, 1 << 17)


def passes(level: str, rule: Rule, setting: Setting) -> dict[str, Run]:
    """Both passes of a whole lifetime, as autograd calls them."""
    network: Any = plastic_a2c(setting, rule).policy.network
    native = NativeRule.of(network.synapse)
    assert native is not None, "the native core knows this rule"
    params = dict(network.named_parameters())
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(setting.steps, setting.batch, network.input_size, generator=generator)
    state = network.initial_state(setting.batch)
    starts = torch.zeros(setting.steps, setting.batch, dtype=torch.bool)
    starts[0] = True
    resets = Resets(starts, starts, starts)
    updates = torch.ones(setting.steps + 1, setting.batch, dtype=torch.bool)
    updates[0] = False

    def forward(params: Mapping[str, torch.Tensor] = params) -> torch.Tensor:
        return native_unroll(level, native, params, inputs, state, resets, updates)[0]

    features = forward()
    by_features = torch.randn(features.shape, generator=generator)

    def backward() -> None:
        torch.autograd.grad(features, list(params.values()), by_features, retain_graph=True, allow_unused=True)

    detached = {name: own.detach() for name, own in params.items()}
    return {"forward": lambda: forward(detached), "backward": backward}
