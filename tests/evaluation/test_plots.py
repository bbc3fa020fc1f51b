from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
from numpy.testing import assert_allclose

from plastic_rl.envs import distribution_for
from plastic_rl.errors import RunError
from plastic_rl.evaluation import Evaluation, evaluate, plot_adaptation, plot_learning_curves
from plastic_rl.evaluation.adaptation_plot import _other, _ranked
from plastic_rl.evaluation.plots import PALETTE, _log_ticks, _unit, new_figure, read_metric

REVERSAL = "plastic_rl/ReversalBandit-v0"


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    agent = distribution_for(REVERSAL, {}).reference_agents("test")["bayes"]
    return evaluate(agent, REVERSAL, splits=["test", "shift"], tasks=30, resamples=50)


def colour_share(path: Path, colour: str) -> float:
    """Share of the picture's pixels that have (nearly) this colour."""
    image = matplotlib.image.imread(path)[:, :, :3]
    wanted = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return float((np.abs(image - wanted).max(2) < 0.02).mean())


def test_the_adaptation_plot_shows_agent_limit_and_references(evaluation: Evaluation, tmp_path: Path) -> None:
    one = evaluation.model_copy(update={"splits": {"test": evaluation.splits["test"]}})
    path = plot_adaptation(one, tmp_path / "adaptation.png")
    image = matplotlib.image.imread(path)
    assert image.shape[:2] == (630, 1230)
    assert colour_share(path, PALETTE[0]) > 0.001  # the agent
    assert colour_share(path, "#000000") > 0.001  # the limit, and text
    assert colour_share(path, PALETTE[2]) > 0.0005  # the heuristic
    assert colour_share(path, PALETTE[1]) == 0  # no frozen twin here
    assert colour_share(path, "#ffffff") > 0.6


def test_no_two_agents_look_alike(evaluation: Evaluation, tmp_path: Path) -> None:
    result = evaluation.splits["test"]
    references = result.reference_agents | {f"agent {n}": result.reference_agents["oracle"] for n in range(20)}
    many = result.model_copy(update={"reference_agents": references})
    looks = [(style.color, style.line, style.marker) for _, style in _ranked(evaluation, many).values()]
    assert len(looks) == len(set(looks)) == 1 + len(references)
    assert len({(style.color, style.line, style.marker) for style in map(_other, range(140))}) == 140
    crowded = evaluation.model_copy(update={"splits": {"test": many}})
    height = matplotlib.image.imread(plot_adaptation(crowded, tmp_path / "crowded.png")).shape[0]
    assert height > 630  # room for the legend


def test_lifetimes_of_a_single_trial_are_drawn_as_bars(tmp_path: Path) -> None:
    agent = distribution_for("CartPole-v1").reference_agents("test")["random"]
    evaluation = evaluate(agent, "CartPole-v1", tasks=5, resamples=10)
    path = plot_adaptation(evaluation, tmp_path / "bars.png")
    assert matplotlib.image.imread(path).shape[:2] == (405, 1080)  # two bars: the agent and random
    assert colour_share(path, PALETTE[0]) > 0.05
    assert colour_share(path, "#999999") > 0.1
    longer = evaluate(agent, "CartPole-v1", tasks=5, resamples=10, trials=3)
    assert matplotlib.image.imread(plot_adaptation(longer, tmp_path / "curve.png")).shape[:2] == (630, 1230)


def test_one_panel_for_each_split(evaluation: Evaluation, tmp_path: Path) -> None:
    path = plot_adaptation(evaluation, tmp_path / "both.png")
    assert matplotlib.image.imread(path).shape[1] == 2070


def test_pyplot_is_never_imported(evaluation: Evaluation, tmp_path: Path) -> None:
    evaluation.save(tmp_path / "evaluation.json")
    # In a process of its own: other tests use packages that import pyplot themselves.
    program = (
        "import sys\n"
        "from plastic_rl.evaluation import Evaluation, plot_adaptation\n"
        "plot_adaptation(Evaluation.load('evaluation.json'), 'adaptation.png')\n"
        "sys.exit('matplotlib.pyplot' in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)
    assert (tmp_path / "adaptation.png").exists()


def write_metrics(path: Path, steps: Any, scores: Any) -> Path:
    rows = [f"{step},{score},{score}" for step, score in zip(steps, scores, strict=True)]
    path.write_text("\n".join(["time/total_timesteps,rollout/score,train/loss", *rows]) + "\n")
    return path


def test_reading_metrics_skips_empty_cells(tmp_path: Path) -> None:
    path = write_metrics(tmp_path / "metrics.csv", [10, 20, 30, 40], [1.0, "", 4.0, 7.0])
    x, y = read_metric(path, "rollout/score")
    assert_allclose(x, [10, 30, 40])
    assert_allclose(y, [1, 4, 7])


def test_learning_curves_of_seeds_that_logged_at_different_steps(tmp_path: Path) -> None:
    files = [
        write_metrics(tmp_path / f"{seed}.csv", np.arange(1, 50) * (100 + seed), np.arange(1, 50) + seed)
        for seed in range(3)
    ]
    path = plot_learning_curves(
        {"plastic": files, "alpha = 0": files[:1]}, tmp_path / "curves.png", levels={"limit": 60.0, "random": 0.0}
    )
    assert matplotlib.image.imread(path).shape[:2] == (660, 1380)
    assert colour_share(path, PALETTE[0]) > 0.001
    assert colour_share(path, PALETTE[1]) > 0.0005


def test_scores_on_valid_stand_beside_those_of_training(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    rows = [f"{step},{step / 100},{step / 50 if step % 200 == 0 else ''}" for step in range(100, 1100, 100)]
    path.write_text("\n".join(["step,rollout/score,valid/score", *rows]) + "\n")
    alone = plot_learning_curves({"run": [path]}, tmp_path / "alone.png")
    both = plot_learning_curves({"run": [path]}, tmp_path / "both.png", also="valid/score")
    assert colour_share(alone, PALETTE[1]) == 0
    assert colour_share(both, PALETTE[1]) > 0.0005
    bare = write_metrics(tmp_path / "bare.csv", [1, 2], [1.0, 2.0])
    without = plot_learning_curves({"run": [bare]}, tmp_path / "without.png", also="valid/score")
    assert colour_share(without, PALETTE[1]) == 0


def test_metrics_that_cannot_be_drawn(tmp_path: Path) -> None:
    good = write_metrics(tmp_path / "metrics.csv", [1], [1.0])
    with pytest.raises(RunError, match="Did you mean 'rollout/score'"):
        plot_learning_curves({"a": [good]}, tmp_path / "x.png", column="rollout/scores")
    with pytest.raises(RunError, match="cannot read"):
        plot_learning_curves({"a": [tmp_path / "none.csv"]}, tmp_path / "x.png")
    with pytest.raises(RunError, match="no rows with rollout/score"):
        plot_learning_curves({"a": [write_metrics(tmp_path / "empty.csv", [], [])]}, tmp_path / "x.png")
    with pytest.raises(ValueError, match="at least one"):
        plot_learning_curves({"a": []}, tmp_path / "x.png")


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        ((180, 600), {"200", "300", "400", "500", "600"}),
        ((40_000, 8_000_000), {"50k", "100k", "200k", "500k", "1M", "2M", "5M"}),
        ((1000, 10_000_000), {"1k", "10k", "100k", "1M", "10M"}),
    ],
)
def test_ticks_of_samples_are_few_and_readable(ends: tuple[int, int], expected: set[str]) -> None:
    figure = new_figure(4, 4)
    axis = figure.subplots()
    axis.plot(ends, (0, 1))
    axis.set_xscale("log")
    axis.set_xlim(ends)
    _log_ticks(axis)
    figure.canvas.draw()
    low, high = axis.get_xlim()
    shown = zip(axis.get_xticks(), axis.get_xticklabels(), strict=True)
    assert {label.get_text() for tick, label in shown if low <= tick <= high} == expected
    assert not any(label.get_text() for label in axis.get_xticklabels(minor=True))


def test_clock_readings_are_drawn_in_a_unit_that_reads_well() -> None:
    assert [_unit(seconds) for seconds in (0.5, 600, 20_000)] == [
        ("seconds", 1),
        ("minutes", 60),
        ("hours", 3600),
    ]
