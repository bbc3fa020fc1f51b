from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium
import pytest
import torch
from benchmarks.settings import TINY, GenerationSetting, Setting

from benchmarks import measure, report, training
from benchmarks.__main__ import GROUPS, main
from benchmarks.generation import BANDIT, Individual, evolution, live
from benchmarks.loop_baseline import PlasticNet, Rule
from benchmarks.training import memory_here, memory_of, plastic_a2c, trainer
from plastic_rl._native import levels
from plastic_rl.algorithms.evolution.fitness import GenerationSpec, PopulationChunk
from plastic_rl.envs import distribution_for
from plastic_rl.networks import Feedback
from tests.networks.cases import make_network


@pytest.mark.parametrize("rule", ["simple", "retroactive", "fan_out"])
def test_both_versions_compute_the_same_network_and_gradients(rule: Rule) -> None:
    steps, batch, inputs, hidden = 12, 3, 5, 7
    generator = torch.Generator().manual_seed(0)
    ours = make_network(
        {"kind": "plastic_rnn", "rule": f"backpropamine_{rule}", "hidden_size": hidden}, inputs, 2, generator
    ).double()
    loop = PlasticNet(inputs, hidden, 2, rule).double()
    named = dict(ours.named_parameters())
    pairs: list[tuple[torch.nn.Parameter, str]] = [
        (loop.input.weight, "input_weight"),
        (loop.input.bias, "input_bias"),
        (loop.w, "recurrent_weight"),
        (loop.alpha, "alpha"),
        (loop.modulator.weight, "modulator_weight"),
        (loop.modulator.bias, "modulator_bias"),
    ]
    if rule == "retroactive":
        pairs.append((loop.eta, "eta_eligibility"))
    if rule == "fan_out":
        pairs += [(loop.fan_out, "modulator_fan_out"), (loop.offset, "modulator_offset")]
    with torch.no_grad():
        for _, name in pairs[6:]:
            named[name].uniform_(0.1, 0.9, generator=generator)
        named["alpha"].uniform_(-0.5, 0.5, generator=generator)
        for theirs, name in pairs:
            theirs.copy_(named[name].reshape(theirs.shape))
    xs = torch.randn(steps, batch, inputs, dtype=torch.float64, generator=generator)
    state: tuple[torch.Tensor, torch.Tensor, torch.Tensor] = tuple(entry.double() for entry in loop.start(batch))  # type: ignore[assignment]
    activities = []
    for x in xs:
        _, _, state = loop(x, state)
        activities.append(state[0])
    nothing = torch.zeros(steps, batch, dtype=torch.float64)
    feedback = Feedback(torch.zeros(steps, batch, 2, dtype=torch.float64), nothing, nothing > 0, nothing == 0)
    start = {name: entry.double() for name, entry in ours.initial_state(batch).items()}
    features, _ = ours.unroll(named, xs, feedback, start, nothing > 0)
    expected = torch.stack(activities)
    torch.testing.assert_close(features, expected, rtol=0, atol=1e-12)
    target = torch.randn(expected.shape, dtype=torch.float64, generator=generator)
    ((features - target) ** 2).sum().backward()
    ((expected - target) ** 2).sum().backward()
    for theirs, name in pairs:
        gradient = named[name].grad
        assert gradient is not None
        assert theirs.grad is not None
        torch.testing.assert_close(gradient.reshape(theirs.shape), theirs.grad, rtol=1e-9, atol=1e-10)


def test_both_versions_train_the_same_number_of_steps() -> None:
    setting = Setting(side=5, steps=10, batch=2, hidden=4)
    algorithm = plastic_a2c(setting, "simple")
    algorithm.learn(0)
    assert algorithm.n_steps * algorithm.n_envs == 20
    before = algorithm.num_timesteps
    algorithm.learn(20, reset_num_timesteps=False)
    assert algorithm.num_timesteps - before == 20
    assert algorithm._n_updates == 1
    loop = trainer("loop", setting, "simple")
    reward = loop()
    assert isinstance(reward, float)
    assert reward % 5 == 0  # mean of two lifetimes, +10 for each goal reached


def test_the_report_says_what_is_met() -> None:
    rows: measure.Rows = {
        "iteration/simple/loop": {"cpu_ms": 1500.0, "ratio": 1.0, "lowest": 1.0, "highest": 1.0},
        "iteration/simple/native:avx2": {"cpu_ms": 100.0, "ratio": 11.94, "lowest": 11.0, "highest": 15.0},
        "iteration/simple/torch": {"cpu_ms": 500.0, "ratio": 2.2, "lowest": 2.0, "highest": 4.0},
        "memory/simple_N100_B30_T200/native:avx2": {"mb": 30.0, "mb_a_further_step": 0.05},
        "memory/retroactive_N100_B30_T200/native:avx2": {"mb": 30.0, "mb_a_further_step": 0.125},
        "libraries/other": {"note": "not installed"},
    }
    assert report.verdicts(rows) == [
        "iteration/simple/native:avx2: ratio >= 12: NOT met (11.9)",
        "iteration/simple/torch: ratio >= 2.2: met (2.2)",
        "memory/*_N100_B30_T200/native:*: MB a further step <= 0.1: NOT met (0.125)",  # by the worst of them
    ]
    lines = report.table(rows).splitlines()
    assert lines[0].split() == ["iteration", "CPU", "ms", "ratio"]
    assert lines[2].split(maxsplit=2) == ["simple/native:avx2", "100.0", "11.9 [11.0, 15.0]"]
    assert lines[-1].split(maxsplit=1) == ["other", "not installed"]
    lines = report.table(rows, markdown=True).splitlines()
    assert lines[:2] == ["| iteration | CPU ms | ratio |", "|---|---:|---:|"]
    assert lines[3] == "| simple/native:avx2 | 100.0 | 11.9 [11.0, 15.0] |"


def test_ratios_are_taken_within_rounds() -> None:
    assert measure.ratios([2.0, 20.0, 3.0], [1.0, 10.0, 1.0]) == {"ratio": 2.0, "lowest": 2.0, "highest": 3.0}


def test_contestants_run_in_turn_on_their_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "ENOUGH", 0)
    monkeypatch.setenv("PLASTIC_RL_CORE", "torch")
    seen = []

    def make() -> measure.Run:
        return lambda: seen.append(measure.os.environ["PLASTIC_RL_CORE"])

    rows = measure.timed("group/what", {name: measure.on(name, make) for name in ("a", "b")}, 2, "a", {"a": 0.0})
    assert seen == ["a", "b", "a", "b", "a", "b"]
    assert measure.os.environ["PLASTIC_RL_CORE"] == "torch"
    assert list(rows) == ["group/what/a", "group/what/b"]
    assert (rows["group/what/a"]["cpu_ms"], rows["group/what/b"]["ratio"]) == (0.0, 0.0)


def test_trainers_compute_on_the_core_that_rows_name() -> None:
    for core in measure.cores():
        with measure.computing_on(core):
            network: Any = plastic_a2c(TINY.usual, "simple").policy.network
        assert network.core.level == (None if core == "torch" else core.removeprefix("native:"))


def test_the_loop_over_individuals_lives_the_same_lifetimes() -> None:
    """Same tasks, noise and genes: the same rewards, one at a time or all at once."""
    setting = GenerationSetting(population=5, lifetimes=3, steps=40, hidden=6)
    algorithm = evolution(setting)
    assert algorithm.evaluator is not None
    exam = GenerationSpec(0, 2, setting.lifetimes)
    genes = algorithm.search.ask()
    returns = algorithm.evaluator(PopulationChunk(exam, 0, genes))
    distribution = distribution_for(BANDIT, algorithm.env_kwargs)
    tasks = [distribution.task("train", index) for index in exam.tasks]
    # The stream begins with nothing for the network, which has no start weights of its own to draw.
    noise = torch.rand((setting.steps, setting.lifetimes, 1), generator=exam.agent_generator())[:, :, 0].T.tolist()
    env = gymnasium.make(BANDIT, steps=setting.steps).unwrapped
    lives = list(zip(tasks, exam.environment_seeds(), noise, strict=True))
    for own, earned in zip(genes, returns.reward, strict=True):
        individual = Individual(algorithm.genome, own)
        assert [live(individual, env, *life) for life in lives] == earned.tolist()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """One run for each measurement, and memory in this process."""
    monkeypatch.setattr(measure, "ENOUGH", 0)

    def here(version: str, rule: Rule, setting: Setting) -> dict[str, float]:
        return memory_here(version, rule, setting)

    monkeypatch.setattr(training, "memory_of", here)


def test_memory_is_measured_in_a_process_of_its_own() -> None:
    row = memory_of("loop", "simple", Setting(side=5, steps=40, batch=4, hidden=100))
    assert 40 * 4 * 100**2 * 4 / 1e6 < row["mb"] < row["whole_process_mb"]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("group", GROUPS)
def test_every_row_is_measured(group: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, picture = tmp_path / "bench.json", tmp_path / "picture.png"
    chosen = ["--only", group, "--rounds", "1", "--json", str(file)]
    assert main(["--tiny", *chosen]) == 0
    printed = capsys.readouterr().out
    rows = json.loads(file.read_text())["rows"]
    cores = ["torch", *(f"native:{level}" for level in levels())]
    two = list(dict.fromkeys((cores[0], cores[-1])))
    expected = {
        "iteration": [
            *(
                f"{what}/{version}"
                for what in ("simple", "retroactive", "fan_out", "N5_B2_T6", "default")
                for version in ("loop", *cores)
            ),
            f"around_network/{cores[-1]}",
        ],
        "memory": [
            *(
                f"{rule}_N4_B2_T6/{version}"
                for rule in ("simple", "retroactive")
                for version in ("loop", "reference", *two)
            ),
            *(
                f"{rule}_{size}/{core}"
                for rule in ("simple", "retroactive")
                for size in ("N5_B2_T6", "N4_B2_T9")
                for core in two
            ),
        ],
        "libraries": ["stable_baselines3_a2c", "sb3_contrib_recurrent_ppo", *two],
        "generation": ["loop", *cores, "ask_and_tell", "environment"],
        "rule_table": [f"{task}/{core}" for task in ("bandit", "digits") for core in two],
        "environment": ["scalar_bare", "scalar", "gymnasium_sync_vector", "vector"],
        "share": [
            f"{what}/{level}"
            for what in ("peak", "simple_forward", "simple_backward", "retroactive_forward", "retroactive_backward")
            for level in levels()
        ],
        "sweep": [f"N4_B2_T6/{version}" for version in ("loop", *two)],
    }
    assert sorted(rows) == sorted(f"{group}/{name}" for name in expected[group])
    assert all(name.partition("/")[2] in printed for name in rows)
    for row in rows.values():
        assert all(row[field] >= 0 for field in ("cpu_ms", "ratio", "mb") if field in row)
    # What is on file can be shown and drawn without measuring.
    before = file.read_bytes()
    assert main(["--load", str(file), "--markdown", "--plot", str(picture), "--json", str(file)]) == 0
    assert f"| {group} |" in capsys.readouterr().out
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert file.read_bytes() == before
