"""Studies: questions with two sides, run as a whole, killed and gone on with, tested and told."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import plastic_rl.experiment.studies.running as running
from plastic_rl.checkpoint import read_checkpoint
from plastic_rl.cli.app import main
from plastic_rl.config import dump
from plastic_rl.errors import ConfigError, NonFiniteError, RunError, UnknownNameError
from plastic_rl.evaluation.statistics import crossed_difference
from plastic_rl.experiment import RunFolder, find_agent, load_experiment, load_study, score_agent, study
from plastic_rl.experiment.stages import score_stages
from plastic_rl.experiment.studies.findings import NOT_RUN, UNDECIDED, find, labelled, study_table, verdict_of
from plastic_rl.experiment.studies.running import MEASURED
from tests.experiment.watching import Pressing

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "configs" / "studies" / "example"

BANDIT: dict[str, Any] = {
    "environment": {"id": "plastic_rl/ReversalBandit-v0", "kwargs": {"steps": 10}},
    "network": {"kind": "plastic_rnn", "rule": "oja", "hidden_size": 4},
    "algorithm": {"name": "a2c", "total_timesteps": 160, "n_envs": 4, "learning_rate": 5e-3},
    "evaluation": {"tasks": 30, "valid_tasks": 6},
    "checkpoint": {"interval": 2},
    "logging": {"tensorboard": False},
}
QUESTION: dict[str, Any] = {
    "claim": "Oja's rule helps.",
    "with": "bandit.yaml",
    "without": {"network": {"rule": "fixed"}},
    "measure": "score",
}


def write(folder: Path, questions: dict[str, Any], base: dict[str, Any] = BANDIT, **keys: Any) -> Path:
    """A study `folder/small` of some questions, about changes of `bandit.yaml`."""
    place = folder / "small"
    place.mkdir(exist_ok=True)
    (place / "bandit.yaml").write_text(dump(base))
    (place / "study.yaml").write_text(dump({"seeds": [0, 1], "questions": questions, **keys}))
    return place


def asked(**changes: Any) -> dict[str, Any]:
    return {**QUESTION, **changes}


def values(folder: Path, question: str, side: str, seeds: tuple[int, ...] = (0, 1)) -> np.ndarray:
    files = [folder / question / side / f"seed-{seed}" / "measured.json" for seed in seeds]
    return np.array([json.loads(file.read_text())["values"] for file in files])


def run_quietly(*arguments: Any, **options: Any) -> None:
    study(*arguments, say=lambda _: None, processes=1, **options)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of two questions that share a side, run in one process."""
    folder = tmp_path_factory.mktemp("finished")
    questions = {
        "oja": asked(),
        "late": asked(direction="less", measure={"name": "trials", "first": 6}, without={"network": {"rule": "bcm"}}),
    }
    path = write(folder, questions, description="Two rules.")
    run_quietly(path, runs_folder=folder / "runs")
    return folder


def test_a_study_is_run_measured_and_tested(finished: Path) -> None:
    folder = finished / "runs" / "small"
    document = json.loads((folder / "study.json").read_text())
    assert list(document["questions"]) == ["oja", "late"]
    p_values = []
    for name, found in document["questions"].items():
        one, other = values(folder, name, "with"), values(folder, name, "without")
        assert one.shape == (2, 30)
        expected = crossed_difference(one, other)
        assert list(found["difference"].values()) == pytest.approx(list(expected), rel=1e-12)
        assert found["sides"]["with"]["mean"] == pytest.approx(one.mean(), rel=1e-12)
        assert [run["mean"] for run in found["sides"]["without"]["runs"]] == pytest.approx(list(other.mean(1)))
        assert [run["seed"] for run in found["sides"]["with"]["runs"]] == [0, 1]
        assert len(found["sides"]["with"]["config_hash"]) == 64
        assert found["verdict"] == verdict_of(
            expected.mean, found["p_corrected"], "less" if name == "late" else "greater"
        )
        assert all(run["steps"] == 160 and run["cpu_seconds"] > 0 for run in found["sides"]["with"]["runs"])
        p_values.append(expected.p)
    least, most = sorted(p_values)
    corrected = sorted(found["p_corrected"] for found in document["questions"].values())
    assert corrected == pytest.approx([min(2 * least, 1.0), max(most, min(2 * least, 1.0))])
    assert document["versions"]["torch"]
    assert (folder / "study.png").read_bytes().startswith(b"\x89PNG")
    table = (folder / "study.txt").read_text()
    assert max(map(len, table.splitlines())) <= 80
    assert "Oja's rule helps." in " ".join(table.split())


def test_scores_and_frozen_twins_are_those_of_evaluate(finished: Path) -> None:
    folder = finished / "runs" / "small"
    run = folder / "oja" / "with" / "seed-1"
    split = score_agent(find_agent(run)).splits["test"]
    measured = json.loads((run / "measured.json").read_text())
    assert np.mean(measured["values"]) == pytest.approx(split.raw_score, rel=1e-12)
    assert split.frozen is not None
    assert np.mean(measured["frozen"]) == pytest.approx(split.frozen.raw_score, rel=1e-12)
    levels = json.loads((folder / "oja" / "levels.json").read_text())
    assert levels["random"] == pytest.approx(split.reference_agents["random"].raw_score, rel=1e-12)
    assert levels["limit"] == pytest.approx(split.reference_agents["bayes"].raw_score, rel=1e-12)
    # Nothing is plastic in the other side.
    assert json.loads((folder / "oja" / "without" / "seed-0" / "measured.json").read_text())["frozen"] is None


def test_sides_of_the_same_config_and_seed_are_one_run(finished: Path) -> None:
    folder = finished / "runs" / "small"
    runs = sorted(file.parent.relative_to(folder).as_posix() for file in folder.rglob("config.yaml"))
    shared = [f"{place}/seed-{seed}" for place in ("late/without", "oja/with", "oja/without") for seed in (0, 1)]
    assert runs == shared
    assert json.loads((folder / "late" / "with" / "seed-1" / "measured.json").read_text())["run"] == "oja/with/seed-1"
    assert load_experiment(folder / "late" / "without" / "seed-1" / "config.yaml").network["rule"] == "bcm"


def test_the_same_call_does_nothing_twice_and_makes_what_is_missing(finished: Path) -> None:
    folder = finished / "runs" / "small"
    document, table = (json.loads((folder / "study.json").read_text()), (folder / "study.txt").read_text())
    (folder / "late" / "with" / "seed-0" / "measured.json").unlink()
    (folder / "oja" / "levels.json").unlink()
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("metrics.csv")}
    notes: list[str] = []
    run_quietly(finished / "small", runs_folder=finished / "runs", note=notes.append)
    assert notes == ["2 of 6 to do: oja/with/seed-0 to oja/levels.json"] or notes[0].startswith("2 of")
    assert json.loads((folder / "study.json").read_text()) == document
    assert (folder / "study.txt").read_text() == table
    assert {file: file.stat().st_mtime_ns for file in folder.rglob("metrics.csv")} == before


def test_what_was_fixed_before_the_first_run_stays(finished: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"runs_folder": finished / "runs", "say": lambda _: None}
    with pytest.raises(RunError, match=r"(?s)holds another study.*questions.oja.tasks: None became 20.*--name NAME"):
        study(finished / "small", ["questions.oja.tasks=20"], **options)
    with pytest.raises(RunError, match=r"questions.oja.with.network.hidden_size: 4 became 5"):
        study(finished / "small", ["questions.oja.with={base: bandit.yaml, network: {hidden_size: 5}}"], **options)
    with pytest.raises(RunError, match=r"questions.late is gone"):
        study(write(tmp_path, {"oja": asked()}), **options)
    (tmp_path / "runs" / "small").mkdir(parents=True)
    (tmp_path / "runs" / "small" / "config.yaml").write_text(dump(BANDIT))
    with pytest.raises(RunError, match="is no study, and nothing is overwritten"):
        study(tmp_path / "small", runs_folder=tmp_path / "runs")


def test_questions_may_be_added_and_are_run_alone(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    run_quietly(write(tmp_path, {"oja": asked()}), runs_folder=runs)
    before = json.loads((runs / "small" / "study.json").read_text())["questions"]["oja"]
    both = write(tmp_path, {"oja": asked(), "new": asked(without={"network": {"rule": "bcm"}})})
    run_quietly(both, runs_folder=runs, only=["oja"])
    document = json.loads((runs / "small" / "study.json").read_text())["questions"]
    assert document["new"]["verdict"] == NOT_RUN
    assert document["new"]["sides"] == {}
    # A test that was not made yet counts.
    assert document["oja"]["p_corrected"] == pytest.approx(min(1.0, 2 * before["difference"]["p"]))
    assert (document["oja"]["sides"], before["p_corrected"]) == (before["sides"], before["difference"]["p"])
    with pytest.raises(UnknownNameError, match=r"unknown question 'nwe'. Did you mean 'new'"):
        run_quietly(both, runs_folder=runs, only=["nwe"])


def test_a_side_that_fails_is_named_and_not_averaged_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = running.finish

    def failing(runs: Any, **options: Any) -> None:
        if runs[0].path.as_posix().endswith("oja/with/seed-1"):
            raise NonFiniteError("the network became NaN after 7 steps")
        honest(runs, **options)

    monkeypatch.setattr(running, "finish", failing)
    path = write(
        tmp_path, {"oja": asked(), "bcm": asked(**{"with": {"base": "bandit.yaml", "network": {"rule": "bcm"}}})}
    )
    run_quietly(path, runs_folder=tmp_path / "runs")
    folder = tmp_path / "runs" / "small"
    found = json.loads((folder / "study.json").read_text())["questions"]
    assert found["oja"]["verdict"] == UNDECIDED
    assert (found["oja"]["difference"]["mean"], found["oja"]["p_corrected"]) == (None, None)
    assert found["oja"]["sides"]["with"]["mean"] is None
    assert found["oja"]["sides"]["with"]["runs"][1]["failed"] == "the network became NaN after 7 steps"
    assert found["oja"]["sides"]["with"]["runs"][1]["mean"] is None
    table = " ".join((folder / "study.txt").read_text().split())
    assert "with failed, seed 1: the network became NaN after 7 steps" in table
    assert "undecided: a side failed" in table
    # It is one of the family all the same, and is not tried again.
    assert found["bcm"]["p_corrected"] == pytest.approx(min(1.0, 2 * found["bcm"]["difference"]["p"]))
    monkeypatch.setattr(running, "finish", pytest.fail)
    run_quietly(path, runs_folder=tmp_path / "runs")


def test_both_sides_are_tuned_alike_on_valid_with_other_seeds(tmp_path: Path) -> None:
    tune = {"grid": {"algorithm.learning_rate": [2e-2], "network.hidden_size": [4, 5]}, "seeds": [7, 8]}
    path = write(tmp_path, {"oja": asked(tune=tune, direction="less")})
    run_quietly(path, runs_folder=tmp_path / "runs")
    folder = tmp_path / "runs" / "small"
    found = json.loads((folder / "study.json").read_text())["questions"]["oja"]
    for side in ("with", "without"):
        scores = {}
        for number, (rate, size) in enumerate([(2e-2, 4), (2e-2, 5)]):
            runs = [RunFolder(folder / "oja" / side / f"tune-{number}" / f"seed-{seed}") for seed in (7, 8)]
            assert [run.config().seed for run in runs] == [7, 8]
            assert runs[0].config().algorithm.learning_rate.start == rate
            assert runs[0].config().network["hidden_size"] == size
            best = [read_checkpoint(run.latest() or Path(), only=["run"]).documents["run"]["best"] for run in runs]
            settings = f"algorithm.learning_rate={json.dumps(rate)} network.hidden_size={size}"
            scores[settings] = np.mean([one["valid_score"] for one in best])
        assert found["sides"][side]["tuning"] == pytest.approx(scores)
        chosen = max(scores, key=lambda settings: scores[settings])
        assert " ".join(found["sides"][side]["settings"]) == chosen
        final = load_experiment(folder / "oja" / side / "seed-1" / "config.yaml")
        assert f"network.hidden_size={final.network['hidden_size']}" == chosen.split()[1]
    assert "chosen of 2 on valid" in " ".join((folder / "study.txt").read_text().split())


def test_steps_to_reach_a_score_are_read_from_the_runs(tmp_path: Path) -> None:
    fast = {"name": "steps_to_reach", "score": -1.0}
    never = {"name": "steps_to_reach", "score": 99.0}
    questions = {"fast": asked(measure=fast, direction="less"), "never": asked(measure=never, direction="less")}
    run_quietly(write(tmp_path, questions), runs_folder=tmp_path / "runs")
    found = json.loads((tmp_path / "runs" / "small" / "study.json").read_text())["questions"]
    assert [run["mean"] for run in found["fast"]["sides"]["with"]["runs"]] == [80.0, 80.0]
    assert [run["mean"] for run in found["never"]["sides"]["with"]["runs"]] == [160.0, 160.0]
    assert all(run["censored"] for run in found["never"]["sides"]["without"]["runs"])
    assert (found["fast"]["difference"]["mean"], found["fast"]["verdict"]) == (0.0, "no difference shown")
    assert found["fast"]["sides"]["with"]["frozen"] is None
    table = " ".join((tmp_path / "runs" / "small" / "study.txt").read_text().split())
    assert "with: not reached by seed 0, 1, which counts with all its steps" in table


STAGED: dict[str, Any] = {
    **BANDIT,
    "network": {"kind": "gru", "hidden_size": 4},
    "algorithm": {"name": "a2c", "n_envs": 4, "learning_rate": 1e-2, "regulariser": {"name": "ewc", "samples": 4}},
    "stages": [
        {"name": "A", "budget": 120},
        {"name": "B", "budget": 80, "environment": {"kwargs": {"hazard": 0.9}}},
    ],
}
AFTER_B: dict[str, Any] = {"name": "stage_score", "tested": "A", "trained": "B"}
ALL_AFTER_B: dict[str, Any] = {"name": "stage_score", "trained": "B"}
UNHELD: dict[str, Any] = {"algorithm": {"regulariser": "none"}}


def test_scores_of_stages_are_those_of_evaluate_stages(tmp_path: Path) -> None:
    questions = {"held": asked(measure=AFTER_B, without=UNHELD)}
    run_quietly(write(tmp_path, questions, STAGED), runs_folder=tmp_path / "runs")
    folder = tmp_path / "runs" / "small"
    for side in ("with", "without"):
        for seed, found in zip((0, 1), values(folder, "held", side), strict=True):
            run = RunFolder(folder / "held" / side / f"seed-{seed}")
            scores = score_stages(run)
            assert scores.to_json() == run.stages.read_bytes()
            assert found == [scores.scores[2][0]]
    document = json.loads((folder / "study.json").read_text())["questions"]["held"]
    assert document["sides"]["with"]["frozen"] is None
    told = " ".join((folder / "study.txt").read_text().split())
    assert "stage_score (tested A, trained B), claimed greater; training runs" in told


def test_normalised_scores_and_the_common_scale(tmp_path: Path) -> None:
    questions = {"share": asked(measure="normalised_score"), "raw": asked(direction="less")}
    path = write(tmp_path, questions)
    run_quietly(path, runs_folder=tmp_path / "runs")
    folder = tmp_path / "runs" / "small"
    levels = json.loads((folder / "share" / "levels.json").read_text())
    way = levels["limit"] - levels["random"]
    share, raw = find(folder, load_study(path))
    assert share.sides["with"].mean == pytest.approx((raw.sides["with"].mean - levels["random"]) / way)
    assert share.sides["with"].frozen == pytest.approx((raw.sides["with"].frozen - levels["random"]) / way)
    assert share.difference.mean == pytest.approx(raw.difference.mean / way)
    assert share.difference.p == pytest.approx(raw.difference.p)
    rows = labelled([share, raw])
    # Towards the claim: the other way round where `with` is claimed to have less.
    assert (rows[1].mean, rows[1].low, rows[1].high) == pytest.approx((-rows[0].mean, -rows[0].high, -rows[0].low))


# --- processes, and being killed -------------------------------------------------------------------------------------

LONG = {**BANDIT, "algorithm": {**BANDIT["algorithm"], "total_timesteps": 2400}}


def launch(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "plastic_rl", "study", "small", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def alive(process: subprocess.Popen[str]) -> list[int]:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(child) for child in children.read_text().split()] if children.exists() else []


def rows(file: Path) -> int:
    return file.read_bytes().count(b"\n") if file.exists() else 0


def assert_same_bytes(folder: Path, whole: Path) -> None:
    files = sorted(file.relative_to(whole) for file in whole.rglob("measured.json"))
    assert len(files) == 4
    for file in files:
        assert (folder / file).read_bytes() == (whole / file).read_bytes()
        computed = file.parent / "metrics.csv"
        assert (folder / computed).read_bytes() == (whole / computed).read_bytes()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    run_quietly(write(folder, {"oja": asked()}, base=LONG), runs_folder=folder / "runs")
    return folder / "runs" / "small"


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the workers in /proc")
@pytest.mark.slow
def test_a_study_in_two_processes_that_is_killed_goes_on_to_the_same_bytes(tmp_path: Path, undisturbed: Path) -> None:
    path = write(tmp_path, {"oja": asked()}, base=LONG)
    folder = tmp_path / "runs" / "small"
    process = launch(tmp_path, "--processes", "2")
    metrics = [folder / "oja" / "without" / f"seed-{seed}" / "metrics.csv" for seed in (0, 1)]
    while max(map(rows, metrics)) < 8:  # the runs of the first side are finished
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.002)
    workers = alive(process)
    assert len(workers) >= 2
    process.kill()
    process.communicate(timeout=300)
    assert not all(file.exists() for file in (folder / "study.json", *(each.parent / MEASURED for each in metrics)))
    while any(Path(f"/proc/{worker}").exists() for worker in workers):  # they end with the one that started them
        time.sleep(0.01)
    finished = [folder / "oja" / "with" / f"seed-{seed}" / MEASURED for seed in (0, 1)]
    before = [file.stat().st_mtime_ns for file in finished if file.exists()]
    assert before
    run_quietly(path, runs_folder=tmp_path / "runs")
    assert [file.stat().st_mtime_ns for file in finished][: len(before)] == before
    assert_same_bytes(folder, undisturbed)


def test_ctrl_c_stops_a_study_which_goes_on_to_the_same_bytes(
    tmp_path: Path, undisturbed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, {"oja": asked()}, base=LONG)
    arguments = ["study", str(path), "--processes", "1", "--runs-folder", str(tmp_path / "runs")]
    with monkeypatch.context() as pressed:
        pressed.setattr(running, "PlainProgress", lambda **_: Pressing(1200))
        assert main(arguments) == 130
    assert capsys.readouterr().err.splitlines() == [
        "5 of 5 to do: oja/with/seed-0 to oja/levels.json",
        "stopped; the same command goes on where it was.",
        "stopped.",
    ]
    folder = tmp_path / "runs" / "small"
    assert RunFolder(folder / "oja" / "with" / "seed-0").latest() is not None
    assert not (folder / "oja" / "with" / "seed-0" / MEASURED).exists()
    assert main(arguments) == 0
    assert_same_bytes(folder, undisturbed)


# --- what is refused -------------------------------------------------------------------------------------------------


def test_every_problem_of_all_files_is_told_before_anything_is_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    questions = {
        "misspelt": asked(without={"network": {"rule": "ojja", "hidden_sise": 3}}),
        "nowhere": asked(**{"with": "bandti.yaml"}),
        "same": asked(without={}),
        "split": asked(split="valid"),
        "kinds": asked(measure={"name": "environment", "of": "latency"}),
        "tuned": asked(tune={"grid": {"algorithm.learning_rat": [1e-3]}, "seeds": [1, 9]}),
        "apart": asked(without={"environment": {"kwargs": {"steps": 12}}}),
    }
    assert main(["study", str(write(tmp_path, questions))]) == 2
    said = capsys.readouterr().err
    for problem in (
        "questions.misspelt.without: network.hidden_sise: unknown key. Did you mean 'hidden_size'",
        "questions.misspelt.without: network.rule: unknown rule 'ojja'. Did you mean 'oja'",
        "questions.nowhere.with: no such config file: small/bandti.yaml. Did you mean 'small/bandit.yaml'",
        "questions.same.without: is the same experiment as `with`",
        "questions.split.split: training and its choices look at valid",
        "questions.kinds.measure: unknown measure of the environment 'latency'",
        "questions.tuned.tune.seeds: the answer is made of other seeds than those that chose; both have 1",
        "questions.tuned.with: algorithm.learning_rat: unknown key. Did you mean 'learning_rate'",
        "questions.apart.environment: the sides live in different environments",
    ):
        assert problem in said.replace(f"{tmp_path}/", ""), problem
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"measure": {**AFTER_B, "trained": "C"}}, "questions.a.measure: unknown stage 'C'"),
        ({"measure": AFTER_B, "without": {**UNHELD, "evaluation": {"splits": ["shift"]}}}, "split test of `with`, got"),
        (
            {"measure": AFTER_B, "without": {"environment": {"kwargs": {"steps": 12}}}},
            "stage A is in another environment in `without` than in `with`",
        ),
        (
            {
                "measure": ALL_AFTER_B,
                "without": {**UNHELD, "stages": [STAGED["stages"][0], {"name": "B", "budget": 80}]},
            },
            "stage B is in another environment in `without` than in `with`",
        ),
        (
            {"measure": ALL_AFTER_B, "without": {**UNHELD, "stages": STAGED["stages"][::-1]}},
            "the stages of `without` are B, A, of `with` A, B",
        ),
        (
            {"measure": AFTER_B, "with": {**STAGED, "evaluation": {"valid_tasks": 6, "splits": ["valid"]}}},
            "training and its choices look at valid",
        ),
        (
            {"measure": AFTER_B, "with": BANDIT, "without": {"network": {"rule": "bcm"}}},
            "is of the stages of training, and there are none",
        ),
    ],
)
def test_scores_of_stages_that_make_no_sense_are_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = write(tmp_path, {"a": {**asked(without=UNHELD), **changes}}, STAGED)
    with pytest.raises(ConfigError, match=message):
        load_study(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"questions": {"a": asked(seeds=[3])}}, "questions.a.seeds: one training says nothing about another"),
        ({"questions": {"a": asked(seeds=[3, 3])}}, "each seed may stand once, got 3, 3"),
        ({"questions": {"a b": asked()}}, "a question's name is that of a folder"),
        ({"questions": {"a": asked(with_="bandit.yaml")}}, r"questions.a.with_: unknown key.*Did you mean 'with'"),
        ({"questions": {"a": asked(direction="more")}}, "questions.a.direction: must be 'greater' or 'less'"),
        ({"questions": {"a": asked(measure="scoer")}}, "questions.a.measure: unknown measure 'scoer'"),
        ({"questions": {"a": asked(without=3)}}, "questions.a.without: must be a config file, or a mapping"),
        ({"questions": {}}, "questions"),
        (
            {"questions": {"a": asked(measure={"name": "steps_to_reach", "score": 1.0}, split="test")}},
            "questions.a.split: steps_to_reach is read from the training runs: leave it out",
        ),
        (
            {"questions": {"a": asked(without={"evaluation": {"valid_tasks": 7}})}},
            "evaluation.valid_tasks must be that of `with`, 6, got 7",
        ),
        (
            {"questions": {"a": asked(environment={"wrappers": [{"name": "leison"}]})}},
            "questions.a.environment.*unknown wrapper 'leison'",
        ),
    ],
)
def test_studies_that_make_no_sense_are_refused(content: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = write(tmp_path, {})
    (path / "study.yaml").write_text(dump({"seeds": [0, 1], **content}))
    with pytest.raises(ConfigError, match=message):
        load_study(path)


def test_each_verb_knows_the_files_of_the_others(tmp_path: Path) -> None:
    path = write(tmp_path, {"oja": asked()})
    with pytest.raises(ConfigError, match="is a study; run it with: plastic-rl study"):
        load_experiment(path / "study.yaml")
    with pytest.raises(ConfigError, match="is no study; run it with: plastic-rl train"):
        load_study(path / "bandit.yaml")
    with pytest.raises(ConfigError, match="is no study; run it with: plastic-rl compare"):
        load_study(ROOT / "configs" / "gradient_versus_evolution.yaml")


def test_a_measurement_elsewhere_changes_the_environment_of_both_sides(tmp_path: Path) -> None:
    lesion = {"wrappers": [{"name": "observation_gain", "factor": 0.5}], "kwargs": {"steps": 12}}
    loaded = load_study(write(tmp_path, {"oja": asked(environment=lesion, split="shift", tasks=5)}))
    question = loaded.questions["oja"]
    assert question.environment is not None
    assert question.environment.kwargs == {"steps": 12}
    assert question.environment.wrappers[0]["factor"] == 0.5
    assert question.sides["with"][0].environment.kwargs == {"steps": 10}
    run_quietly(tmp_path / "small", runs_folder=tmp_path / "runs")
    assert values(tmp_path / "runs" / "small", "oja", "with").shape == (2, 5)
    told = " ".join((tmp_path / "runs" / "small" / "study.txt").read_text().split())
    assert "ReversalBandit-v0 (steps=12, observation_gain(factor=0.5)), shift, 5 tasks, 2 seeds" in told


def test_dry_run_lists_runs_and_how_far_they_are(finished: Path, tmp_path: Path) -> None:
    said: list[str] = []
    study(finished / "small", dry_run=True, runs_folder=finished / "runs", say=said.append)
    assert said[0] == "oja/with/seed-0  160 steps  done"
    assert said[4] == "late/with/seed-0  160 steps  as oja/with/seed-0"
    assert len(said) == 8
    tune = {"grid": {"network.hidden_size": [4, 5]}}
    path = write(tmp_path, {"oja": asked(tune=tune)})
    said.clear()
    study(path, dry_run=True, runs_folder=tmp_path / "runs", say=said.append)
    assert said[0] == "oja/with/tune-0/seed-1000  160 steps  to do"
    assert said[-1] == "oja/without/seed-1  160 steps, with the settings that are best on valid  to do"
    assert len(said) == 8
    assert not (tmp_path / "runs").exists()


# --- the example -----------------------------------------------------------------------------------------------------


def test_the_example_runs_from_end_to_end(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    shorter = ["seeds=[0,1]"]
    for name in ("cue_association", "reversal_bandit"):
        settings = "algorithm: {total_timesteps: 1000}, evaluation: {tasks: 20, valid_tasks: 10}"
        shorter.append(f"questions.{name}.with={{base: {name}.yaml, {settings}}}")
    arguments = ["study", str(EXAMPLE), *shorter, "--processes", "1", "--runs-folder", str(tmp_path), "--name", "mine"]
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert (tmp_path / "mine" / "study.txt").read_text() in said
    found = json.loads((tmp_path / "mine" / "study.json").read_text())["questions"]
    assert [finding["asked"]["kind"] for finding in found.values()] == ["neuromodulation"] * 2
    for finding in found.values():
        assert not math.isnan(finding["difference"]["p"])
        assert finding["scale"]["of"] == "limit"
    loaded = load_study(EXAMPLE)
    table = study_table(loaded, find(tmp_path / "nothing", loaded))
    assert table.count(NOT_RUN) >= 2
