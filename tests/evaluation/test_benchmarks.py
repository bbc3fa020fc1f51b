from __future__ import annotations

from typing import Any

import gymnasium
import pytest
import torch

from benchmarks import generation, measure
from benchmarks.__main__ import main, table
from benchmarks.generation import GenerationSetting, Individual, evolution, live
from benchmarks.loop_baseline import PlasticNet, Rule
from benchmarks.training import Setting, plastic_a2c, trainer
from plastic_rl.algorithms.evolution.fitness import GenerationSpec, PopulationChunk
from plastic_rl.envs import distribution_for
from plastic_rl.networks import Feedback
from tests.networks.cases import make_network


@pytest.mark.parametrize("rule", ["simple", "retroactive"])
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
    with torch.no_grad():
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


def test_the_report_says_whether_the_promise_holds() -> None:
    def numbers(seconds: float) -> dict[str, float]:
        return {
            "seconds": seconds,
            "cpu_seconds": seconds,
            "episodes_per_second": 30 / seconds,
            "times_bare_loop": 0.5 / seconds,
            "times_bare_loop_cpu": 0.5 / seconds,
        }

    result = {
        "setting": {"side": 11, "steps": 200, "batch": 30, "hidden": 100},
        "training": {"simple": {"loop, bare environments": numbers(0.5), "plastic_rl": numbers(0.2)}},
        "around_network_cpu_seconds": 0.02,
        "environment_steps_per_second": {"scalar": 100.0, "vectorised": 1000.0},
        "memory": {},
    }
    text = table(result)
    assert "what is around the network (it costs nothing): 20 CPU ms" in text
    assert "simple: 2.50 times the loop version on bare environments; 2: reached" in text
    assert "10.0x" in text
    assert text.splitlines()[-1] == "Target of 2 times the loop version: met (lowest 2.50)"
    result["training"] = {"simple": {"plastic_rl": numbers(0.4)}}
    assert "1.25 times the loop version on bare environments; 2: NOT reached" in table(result)
    assert table(result).splitlines()[-1] == "Target of 2 times the loop version: NOT met (simple 1.25)"


def test_ratios_are_taken_within_rounds() -> None:
    assert measure.ratio([2.0, 20.0, 3.0], [1.0, 10.0, 1.0]) == 2.0


def test_the_loop_over_individuals_lives_the_same_lifetimes() -> None:
    """Same tasks, noise and genes: the same rewards, one at a time or all at once."""
    setting = GenerationSetting(population=5, lifetimes=3, steps=40, hidden=6)
    algorithm = evolution(setting, "full")
    assert algorithm.evaluator is not None
    exam = GenerationSpec(0, 2, setting.lifetimes)
    genes = algorithm.search.ask()
    returns = algorithm.evaluator(PopulationChunk(exam, 0, genes))
    distribution = distribution_for(generation.BANDIT, algorithm.env_kwargs)
    tasks = [distribution.task("train", index) for index in exam.tasks]
    # The stream begins with nothing for the network, which has no start weights of its own to draw.
    noise = torch.rand((setting.steps, setting.lifetimes, 1), generator=exam.agent_generator())[:, :, 0].T.tolist()
    env = gymnasium.make(generation.BANDIT, steps=setting.steps).unwrapped
    lives = list(zip(tasks, exam.environment_seeds(), noise, strict=True))
    for own, earned in zip(genes, returns.reward, strict=True):
        individual = Individual(algorithm.genome, own)
        assert [live(individual, env, *life) for life in lives] == earned.tolist()


def test_the_table_of_generations_says_whether_the_target_is_met() -> None:
    setting = GenerationSetting(population=4, lifetimes=1, steps=5, hidden=3)
    result = generation.speeds(setting, 1)
    assert set(result) == {"full", "separable"}
    assert result["full"]["genes"] == 3 * 5 + 3 + 9 + 9 + 3 + 1 + 2 * 3 + 2
    # The target is for what `auto` takes, which for so few genes is the full covariance.
    assert (result["full"]["auto"], result["separable"]["auto"]) == (True, False)
    for ratio, verdict in ((19.5, "NOT met (19.5)"), (20.0, "met (20.0)")):
        result["full"]["times_loop"], result["separable"]["times_loop"] = ratio, 19.0
        shown = generation.table(setting, result, 20.0).splitlines()
        assert shown[-1] == f"Target of 20 times the loop over individuals and a scalar environment: {verdict}"
        assert [line.split()[:2] for line in shown if line.startswith("full")] == [["full", "*"]]


@pytest.mark.slow
def test_the_benchmark_runs(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--only", "training", "--side", "5", "--steps", "20", "--batch", "2", "--hidden", "8", "--rounds", "1"]
    assert main([*small, "--json", str(tmp_path / "bench.json")]) == 0
    assert "Environment steps per second" in capsys.readouterr().out
    assert (tmp_path / "bench.json").read_text().startswith("{")
