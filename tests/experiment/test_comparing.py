"""Comparisons: one file, several variants of training, one table; going on, and files that make no sense."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from plastic_rl.cli.app import main
from plastic_rl.config import differences, dump
from plastic_rl.errors import ConfigError, RunError
from plastic_rl.evaluation import Evaluation
from plastic_rl.evaluation.plots import Estimate
from plastic_rl.experiment import compare, load_comparison, load_experiment
from plastic_rl.experiment.comparing import Variant, comparison_table
from plastic_rl.experiment.metrics import clock

ROOT = Path(__file__).parents[2]

TABLES: dict[str, Any] = {
    "seeds": [0, 3],
    "common": {
        "environment": {"id": "plastic_rl/SupervisedClassification-v0", "kwargs": {"data": "D", "steps": 24}},
        "network": {"kind": "rule_table", "hidden_size": 10, "cap": 4, "output_table": "supervised"},
        "evaluation": {"tasks": 5, "valid_tasks": 4},
        "logging": {"tensorboard": False},
        "checkpoint": {"interval": 2},
    },
    "variants": {
        "gradient": {"algorithm": {"name": "supervised_gradient", "total_timesteps": 4 * 24 * 4, "n_envs": 4}},
        "evolution": {
            "network": {"step": {"output": 0.02}},
            "algorithm": {"name": "cma_es", "generations": 3, "population_size": 4, "lifetimes": 2},
        },
    },
}


def write(folder: Path, content: dict[str, Any]) -> Path:
    path = folder / "tables.yaml"
    path.write_text(dump(content))
    return path


def changed(**changes: Any) -> dict[str, Any]:
    return {**TABLES, **changes}


def test_variants_are_trained_scored_and_laid_side_by_side(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path, TABLES)
    assert main(["compare", str(path)]) == 0
    said = capsys.readouterr().out
    folder = tmp_path / "runs" / "tables"
    written = json.loads((folder / "comparison.json").read_text())
    assert list(written) == ["gradient", "evolution"]
    assert (written["gradient"]["samples"], written["evolution"]["samples"]) == (384, 576)
    assert (folder / "comparison.txt").read_text() in said
    assert (folder / "comparison.png").read_bytes().startswith(b"\x89PNG")

    found = {}
    for variant in ("gradient", "evolution"):
        splits = [Evaluation.load(folder / variant / f"seed-{s}" / "evaluation.json").splits["test"] for s in (0, 3)]
        found[variant] = np.array([split.accuracy_after[0].by_task for split in splits])
        outcome = written[variant]["outcomes"][1]
        assert outcome["label"] == "accuracy after 24"
        assert outcome["mean"] == pytest.approx(found[variant].mean(), abs=1e-12)
        assert outcome["low"] <= outcome["mean"] <= outcome["high"]
    behind = written["evolution"]["behind"][1]
    assert behind["mean"] == pytest.approx((found["gradient"] - found["evolution"]).mean(), abs=1e-12)
    assert written["gradient"]["behind"] == []

    # Variants are ordinary runs, with what is their own on top of what they share.
    networks = [load_experiment(folder / variant / "seed-3" / "config.yaml").network for variant in found]
    assert list(differences(*networks)) == [("step.output", 0.1, 0.02)]

    # The same call goes on: here with one evaluation that is missing.
    (folder / "evolution" / "seed-3" / "evaluation.json").unlink()
    before = (folder / "gradient" / "seed-0" / "metrics.csv").stat().st_mtime_ns
    assert main(["compare", str(path)]) == 0
    assert json.loads((folder / "comparison.json").read_text()) == written
    assert (folder / "gradient" / "seed-0" / "metrics.csv").stat().st_mtime_ns == before
    with pytest.raises(RunError, match=r"holds something else than this comparison \(gradient/seed-0 differs\)"):
        compare(path, ["common.network.hidden_size=9"], say=lambda _: None)


def test_the_table_fits_a_terminal() -> None:
    comparison = load_comparison(ROOT / "configs" / "gradient_versus_evolution.yaml")

    def outcomes(*means: float) -> list[Estimate]:
        labels = ("score", "accuracy after 500", "accuracy after 1,000")
        return [Estimate(label, mean, mean - 0.25, mean + 0.25) for label, mean in zip(labels, means, strict=True)]

    variants = {
        "gradient": Variant(320_000, 65, outcomes(895, 0.5, 0.5), []),
        "evolution": Variant(8_000_000, 95, outcomes(877, 0.25, 0.5), outcomes(18, 0.25, 0)),
    }
    assert comparison_table(comparison, variants, width=80).splitlines() == [
        "plastic_rl/SupervisedClassification-v0, split test, 3 seeds",
        "                        samples  seconds                 score",
        "gradient                320,000       65  895.0 [894.8, 895.2]",
        "evolution             8,000,000       95  877.0 [876.8, 877.2]",
        "gradient - evolution                      +18.0 [+17.8, +18.2]",
        "",
        "                           accuracy after 500     accuracy after 1,000",
        "gradient                 0.500 [0.250, 0.750]     0.500 [0.250, 0.750]",
        "evolution                0.250 [0.000, 0.500]     0.500 [0.250, 0.750]",
        "gradient - evolution  +0.250 [+0.000, +0.500]  +0.000 [-0.250, +0.250]",
        "samples, seconds: of training, mean over seeds, choice of checkpoints included.",
        "[95% bootstrap over seeds and tasks; scores: over seeds alone]",
    ]
    assert len(comparison_table(comparison, variants).splitlines()) == 6


def test_seconds_add_up_over_interruptions(tmp_path: Path) -> None:
    with (tmp_path / "timing.csv").open("w", newline="") as file:
        rows: list[list[Any]] = [
            ["step", "time/time_elapsed"],
            [10, 4],
            [20, 9],
            [30, 2],
            [40, 5],
        ]  # stopped at 20, then resumed
        csv.writer(file).writerows(rows)
    steps, seconds = clock(tmp_path / "timing.csv")
    assert steps.tolist() == [10, 20, 30, 40]
    assert seconds.tolist() == [4, 9, 11, 14]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (changed(variants={"gradient": TABLES["variants"]["gradient"]}), "variants"),
        (changed(seeds=[1, 1]), "each seed may stand once, got 1, 1"),
        (changed(seedz=[1]), "seedz.*[Dd]id you mean.*seeds"),
        (
            changed(common={**TABLES["common"], "evaluation": {"tasks": 5, "final": False}}),
            "evaluation.final is false",
        ),
        (
            changed(variants={**TABLES["variants"], "third": {"algorithm": {"name": "cma_es"}}}),
            r"variant third.*\n.*algorithm.generations",
        ),
        (changed(common={**TABLES["common"], "seed": 1}), "gradient.seed: the seeds of a comparison"),
    ],
)
def test_comparisons_that_make_no_sense_are_refused(content: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        load_comparison(write(tmp_path, content))


@pytest.mark.parametrize(
    ("own", "problem"),
    [
        ({"evaluation": {"tasks": 6}}, "evaluation.tasks: 5 in gradient, 6 in third"),
        ({"environment": {"kwargs": {"data": "D1"}}}, "environment.kwargs.data: 'D' in gradient, 'D1' in third"),
        ({"environment": {"kwargs": {"noise": 0.2}}}, "environment.kwargs.noise: None in gradient, 0.2 in third"),
        ({"network": {"hidden_size": 8}}, "network.hidden_size: 10 in gradient, 8 in third"),
        ({"network": {"cap": None}}, "network.cap: 4 in gradient, None in third"),
        ({"network": {"rounds": 2}}, "network.rounds: 0 in gradient, 2 in third"),
    ],
)
def test_variants_that_say_nothing_about_each_other_are_refused_before_anything_is_trained(
    own: dict[str, Any],
    problem: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path, changed(variants={**TABLES["variants"], "third": {**TABLES["variants"]["gradient"], **own}}))
    assert main(["compare", str(path)]) == 2
    said = capsys.readouterr().err
    assert f"1 problem in {path}:\n  {problem}\n" in said
    assert "Put these keys into `common`" in said
    assert not (tmp_path / "runs").exists()


def test_all_differences_are_told_at_once(tmp_path: Path) -> None:
    own = {"policy": "BackpropaminePolicy", "network": {"hidden_size": 8}, "evaluation": {"valid_tasks": 5}}
    content = changed(variants={**TABLES["variants"], "third": {**TABLES["variants"]["gradient"], **own}})
    with pytest.raises(ConfigError, match=r"(?s)3 problems.*policy: .*evaluation.valid_tasks: .*network.hidden_size: "):
        load_comparison(write(tmp_path, content))


def test_a_comparison_is_no_experiment(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="run it with: plastic-rl compare"):
        load_experiment(write(tmp_path, TABLES))
    experiment = tmp_path / "one.yaml"
    experiment.write_text(dump({**TABLES["common"], **TABLES["variants"]["gradient"]}))
    with pytest.raises(ConfigError, match="single experiment; run it with: plastic-rl train"):
        load_comparison(experiment)
