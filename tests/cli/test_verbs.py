"""The verbs, called as a user would."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from plastic_rl import _native
from plastic_rl.checkpoint import read_checkpoint
from plastic_rl.cli.app import app, main
from plastic_rl.config import read_mapping
from plastic_rl.envs import distribution_for
from plastic_rl.evaluation import evaluate
from plastic_rl.evaluation.measures import MEASURES
from plastic_rl.evaluation.network_view import WIDTH
from plastic_rl.evaluation.protocol import TASKS_BY_DEFAULT
from plastic_rl.experiment import RunFolder, load_agent

ROOT = Path(__file__).parents[2]
VERBS = ["train", "resume", "study", "evaluate", "export", "plot", "video", "config", "doctor"]
VERBS += ["agents list", "envs list", "envs show", "envs check"]
VERBS += ["neurons list", "neurons show", "rules list", "rules show"]


def test_help_is_quick_and_lists_every_verb() -> None:
    code = "import sys, plastic_rl.cli.app as a; c = a.main(['--help']); sys.exit(c or 'torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    for verb in VERBS:
        assert f"\n  {verb.split()[0]} " in result.stdout


@pytest.mark.parametrize("verb", VERBS)
def test_each_help_has_a_copyable_example(call: Any, verb: str) -> None:
    code, out, _ = call(*verb.split(), "--help")
    assert code == 0
    assert f"\n    plastic-rl {verb}" in out
    # What an example reads is here; what it writes is "mine".
    for agent in re.findall(r"agents/(\w+)", out):
        assert agent in {"mine", "NAME"} or (ROOT / "agents" / agent).is_dir(), agent


@pytest.mark.parametrize("verb", ["", *VERBS, "agents", "envs", "neurons", "rules", "compare", "inspect"])
def test_each_help_is_whole_at_80_columns(call: Any, verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = call(*verb.split(), "--help")[1].splitlines()
    assert max(map(len, lines)) <= 80
    assert [line for line in lines if line.endswith("...") and not line.startswith("Usage:")] == []


def in_terminal(columns: int, *arguments: str | Path, cwd: Path) -> tuple[int, list[str]]:
    """Run the program in a terminal, and return its exit code and what each line that was begun showed in the end."""
    import pty  # not on Windows
    import termios

    controller, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (40, columns))
    environment = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES", "NO_COLOR"}}
    process = subprocess.Popen(
        [sys.executable, "-m", "plastic_rl", *map(str, arguments)],
        cwd=cwd,
        env=environment | {"TERM": "xterm", "PYTHONPATH": str(ROOT)},
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
    )
    os.close(terminal)
    shown = b""
    while True:
        try:
            chunk = os.read(controller, 65536)
        except OSError:  # Linux: the other end was closed
            break
        if not chunk:
            break
        shown += chunk
    os.close(controller)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    return process.wait(timeout=60), re.split(r"[\r\n]+", text)


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_terminal_cuts_neither_progress_nor_scores(trained: Path, tmp_path: Path) -> None:
    config = trained / "small.yaml"
    name = "a-run-whose-name-has-forty-characters-ab"
    code, lines = in_terminal(80, "train", config, "--name", name, cwd=tmp_path)
    assert code == 0, lines
    begins = next(place for place, line in enumerate(lines) if "split test: 30" in line)
    ends = next(place for place, line in enumerate(lines) if line.startswith("in runs/"))
    table = lines[begins:ends]
    progress = [line for line in lines[:begins] if line[:1] == "\u2501"]
    assert max(map(len, [*progress, *table])) <= 80
    assert not any("\u2026" in line for line in lines)
    assert re.search(r"480/480 steps  score \d+\.?\d*", progress[-1])
    scores = json.loads((tmp_path / "runs" / name / "evaluation.json").read_text())["splits"]["test"]
    entries = [scores, scores["greedy"], scores["frozen"], *scores["reference_agents"].values()]
    largest = max(entry["raw_score"] for entry in entries)
    for entry in entries:
        assert any(f" {entry['raw_score']:.{2 if largest >= 10 else 3}f} " in line for line in table)
    code, lines = in_terminal(80, "agents", "list", "--agents-folder", ROOT / "agents", cwd=tmp_path)
    assert (code, max(map(len, lines)) <= 80) == (0, True)
    assert "    test 833.1 (normalised 0.463), shift 836.1 (normalised 0.458)" in lines


def test_ctrl_c_says_that_it_stopped() -> None:
    # Long enough that it cannot have ended when its first line is there.
    words = ["evaluate", "agents/grid_maze_backpropamine", "--tasks", "100000"]
    with subprocess.Popen(
        [sys.executable, "-m", "plastic_rl", *words],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stderr is not None
            process.stderr.readline()
            process.send_signal(signal.SIGINT)
            out, error = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130
    assert out == ""
    assert error.endswith("stopped.\n")
    assert "Traceback" not in error


def test_train_leaves_everything_in_the_run_folder(trained: Path) -> None:
    run = trained / "runs" / "small"
    names = {entry.name for entry in run.iterdir()}
    assert {"config.yaml", "metrics.csv", "timing.csv", "evaluation.json", "curves.png", "adaptation.png"} <= names
    header, *rows = (run / "metrics.csv").read_text().splitlines()
    assert header.startswith("step,")
    assert not any(column.startswith("time/") for column in header.split(","))
    steps = [int(row.split(",")[0]) for row in rows]
    # One row for each of 6 updates of 80 steps, one for each of 3 checkpoints.
    assert steps == [80, 160, 160, 240, 320, 320, 400, 480, 480]
    assert (run / "timing.csv").read_text().splitlines()[0].startswith("step,time/cpu,time/fps,")
    newest = read_checkpoint(run / "checkpoints" / "480")
    assert newest.documents["algorithm"]["num_timesteps"] == 480
    config = read_mapping(run / "config.yaml")
    assert config["algorithm"]["gamma"] == 0.9  # defaults are written out
    scores = json.loads((run / "evaluation.json").read_text())["splits"]["test"]
    assert scores["tasks"] == 30
    assert 0 < scores["raw_score"] < 20


def test_evaluate_shows_a_table_and_writes_where_told(trained: Path, tmp_path: Path, call: Any) -> None:
    run = trained / "runs" / "small"
    before = (run / "evaluation.json").read_bytes()
    output = tmp_path / "scores" / "shift.json"
    code, out, err = call("evaluate", run, "--split", "shift", "--tasks", "12", "--output", output)
    assert code == 0, err
    assert "split shift: 12 lifetimes" in out
    assert re.match(r"checkpoint (160|320|480) of 480 steps \(best on valid\)\n", out)
    assert "bayes (limit)" in out
    assert json.loads(output.read_text())["splits"]["shift"]["tasks"] == 12
    assert output.with_suffix(".png").stat().st_size > 1000
    assert (run / "evaluation.json").read_bytes() == before


def test_video_shows_the_network_beside_the_environment(trained: Path, tmp_path: Path, call: Any) -> None:
    run = trained / "runs" / "small"
    sizes = {}
    for name, words in (("plain", []), ("network", ["--network"])):
        output = tmp_path / f"{name}.gif"
        code, _, err = call("video", run, "--max-steps", "12", "--output", output, *words)
        assert code == 0, err
        with Image.open(output) as film:
            sizes[name] = film.size
            film.seek(6)
            half_way = np.asarray(film.convert("RGB"))
            film.seek(11)
            later = np.asarray(film.convert("RGB"))
    assert sizes["network"][0] == sizes["plain"][0] + WIDTH
    # Weights are in colour, and plastic: the panel changes.
    panel = (slice(None), slice(sizes["plain"][0], None))
    assert np.ptp(half_way[panel].astype(int), axis=-1).max() > 50
    assert (half_way[panel] != later[panel]).any()


def test_evaluate_with_other_arguments_of_the_environment(trained: Path, tmp_path: Path, call: Any) -> None:
    run = trained / "runs" / "small"
    before = (run / "evaluation.json").read_bytes()
    output = tmp_path / "longer.json"
    words = ["--env-kwargs", "steps=30", "--env-kwargs", "p_good=0.9", "--tasks", "5", "--output", output]
    code, _, err = call("evaluate", run, *words)
    assert code == 0, err
    document = json.loads(output.read_text())
    assert (document["env_kwargs"], document["lifetime_steps"]) == ({"steps": 30, "p_good": 0.9}, 30)
    # Another environment has its own defaults.
    output = tmp_path / "other.json"
    words = ["--env-kwargs", "arms=2", "--tasks", "5", "--output", output]
    code, _, err = call("evaluate", run, "--env", "plastic_rl/BernoulliBandit-v0", *words)
    assert code == 0, err
    document = json.loads(output.read_text())
    assert (document["env_kwargs"], document["lifetime_steps"]) == ({"arms": 2}, 100)
    assert (run / "evaluation.json").read_bytes() == before


def test_another_environment_is_not_given_the_trials_of_training(tmp_path: Path, call: Any) -> None:
    (tmp_path / "small.yaml").write_text(
        "environment: {id: FrozenLake-v1, trials: 2}\nnetwork: {kind: gru, hidden_size: 3}\n"
        "algorithm: {name: a2c, total_timesteps: 8, n_envs: 2, n_steps: 4}\n"
        "evaluation: {tasks: 3, valid_tasks: 0}\nlogging: {tensorboard: false}\n"
    )
    assert call("train", tmp_path / "small.yaml", "--runs-folder", tmp_path)[0] == 0
    # An environment of the same spaces under another id.
    gymnasium.register("verb_tests/Lake-v0", lambda: gymnasium.make("FrozenLake-v1").unwrapped)
    for words, trials in (([], 2), (["--env", "verb_tests/Lake-v0"], 1), (["--trials", "3"], 3)):
        output = tmp_path / f"scores-{trials}-{len(words)}.json"
        code, _, err = call("evaluate", tmp_path / "small", "--tasks", "3", "--output", output, *words)
        assert code == 0, err
        assert json.loads(output.read_text())["trials"] == trials


def test_trials_are_one_task_as_the_config_says(tmp_path: Path, call: Any, drawing: str) -> None:
    for same, score in (("null", 2.0), ("true", 2.0), ("false", 0.0)):
        (tmp_path / f"{same}.yaml").write_text(
            f"environment: {{id: {drawing}, trials: 3, same_task_each_trial: {same}}}\n"
            "network: {kind: gru, hidden_size: 3}\n"
            "algorithm: {name: a2c, total_timesteps: 24, n_envs: 2, n_steps: 6}\n"
            "evaluation: {tasks: 3, valid_tasks: 3}\nlogging: {tensorboard: false}\n"
        )
        run = tmp_path / same
        assert call("train", tmp_path / f"{same}.yaml", "--runs-folder", tmp_path)[0] == 0
        with (run / "metrics.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert {float(row["rollout/score"]) for row in rows if row["rollout/score"]} == {score}
        assert {float(row["valid/score"]) for row in rows if row["valid/score"]} == {score}
        document = json.loads((run / "evaluation.json").read_text())
        assert document["same_task_each_trial"] is json.loads(same)
        assert document["splits"]["test"]["raw_score"] == score
        assert call("video", run, "--output", run / "lives.gif")[0] == 0
        with Image.open(run / "lives.gif") as film:
            shown = [int(np.asarray(frame.convert("L")).mean()) for frame in ImageSequence.Iterator(film)]
        # One for each reset, and one for the last step; GIFs hold equal pictures as one.
        assert shown == ([0, 255] if score else [0])
        # A run's own files are left as they are where an option is given.
        before = (run / "evaluation.json").read_bytes()
        for words, other in (
            ([], score),
            (["--same-task-each-trial"], 2.0),
            (["--no-same-task-each-trial"], 0.0),
            (["--env", f"{drawing.removesuffix('-v0')}Again-v0", "--trials", "4"], 3.0),
        ):
            output = run / f"scores{len(list(run.iterdir()))}.json"
            code, _, err = call("evaluate", run, "--tasks", "3", *words, "--output", output)
            assert code == 0, err
            assert json.loads(output.read_text())["splits"]["test"]["raw_score"] == other
        assert call("evaluate", run, "--no-same-task-each-trial")[0] == 0
        assert (run / "evaluation.json").read_bytes() == before


def test_evaluating_again_gives_the_same_numbers(trained: Path, call: Any) -> None:
    run = trained / "runs" / "small"
    before = json.loads((run / "evaluation.json").read_text())
    code, _, err = call("evaluate", run)
    assert code == 0, err
    after = json.loads((run / "evaluation.json").read_text())
    assert {**after, "seconds": None} == {**before, "seconds": None}


def test_an_exported_agent_acts_as_its_run(trained: Path, tmp_path: Path, call: Any, monkeypatch: Any) -> None:
    code, _, err = call("export", trained / "runs" / "small", tmp_path / "agents" / "mini")
    assert code == 0, err
    agent_folder = tmp_path / "agents" / "mini"
    names = {entry.name for entry in agent_folder.iterdir()}
    assert {"config.yaml", "checkpoint", "evaluation.json", "README.md", "adaptation.png"} <= names
    card = (agent_folder / "README.md").read_text()
    assert "plastic_rl/ReversalBandit-v0" in card
    assert "rule `oja`" in card
    monkeypatch.chdir(tmp_path)
    code, out, err = call("evaluate", "mini")
    assert code == 0, err
    stored = json.loads((agent_folder / "evaluation.json").read_text())["splits"]["test"]["raw_score"]
    assert f"{stored:.2f}" in out or f"{stored:.3f}" in out
    assert "mini  plastic_rl/ReversalBandit-v0" in call("agents", "list")[1]
    observations = np.zeros((3, 5), dtype=np.float32)
    starts = np.ones(3, dtype=bool)
    actions = [
        load_agent(path).predict(observations, None, starts, deterministic=True)[0]
        for path in (agent_folder, trained / "runs" / "small")
    ]
    np.testing.assert_array_equal(*actions)


def test_seeds_make_sibling_runs_and_one_curve(workplace: Path, call: Any) -> None:
    code, out, err = call(
        "train", "small.yaml", "--seeds", "3,4", "algorithm.total_timesteps=160", "evaluation.tasks=5"
    )
    assert code == 0, err
    assert "split test: score (normalised) by seed" in out
    assert "95% interval over seeds" in out
    group = workplace / "runs" / "small"
    assert (group / "seeds.txt").read_text() in out
    assert {entry.name for entry in group.iterdir()} == {"seed-3", "seed-4", "curves.png", "seeds.txt"}
    first, second = (read_mapping(group / name / "config.yaml")["seed"] for name in ("seed-3", "seed-4"))
    assert (first, second) == (3, 4)
    assert (group / "seed-3" / "metrics.csv").read_bytes() != (group / "seed-4" / "metrics.csv").read_bytes()
    # Scored anew as in training, the pooled scores too.
    table = (group / "seeds.txt").read_text()
    (group / "seeds.txt").write_text("stale")
    code, out, err = call("evaluate", "small")
    assert code == 0, err
    assert (group / "seeds.txt").read_text() == table
    assert table in out
    # All of them on other tasks, and nothing written over.
    code, out, err = call("evaluate", "small", "--tasks", "7", "--output", "seven.json")
    assert code == 0, err
    scores = [json.loads(Path(f"seven-seed-{seed}.json").read_text())["splits"]["test"]["raw_score"] for seed in (3, 4)]
    pooled = out[out.index("split test: score (normalised) by seed") :]
    assert re.search(rf"mean +{np.mean(scores):.4g} ", pooled)
    code, _, err = call("evaluate", "small", "--tasks", "7", "--output", "seven.json")
    assert (code, "seven-seed-3.json" in err) == (2, True)
    code, _, err = call("export", "small", "agents/small")
    assert (code, "holds several runs" in err) == (2, True)
    # A killed group: one seed is finished, the other has to begin.
    kept = {file: file.read_bytes() for seed in (3, 4) for file in [group / f"seed-{seed}" / "metrics.csv"]}
    finished = (group / "seed-3" / "evaluation.json").stat().st_mtime_ns
    shutil.rmtree(group / "seed-4" / "checkpoints")
    for name in ("evaluation.json", "metrics.csv", "timing.csv", ".saved"):
        (group / "seed-4" / name).unlink()
    code, out, err = call("resume", "small")
    assert code == 0, err
    assert "split test: score (normalised) by seed" in out
    assert (group / "seed-3" / "evaluation.json").stat().st_mtime_ns == finished
    assert all(file.read_bytes() == before for file, before in kept.items())
    # Killed at the very end, before the pictures were drawn.
    for missing in (group / "seed-4" / "curves.png", group / "curves.png", group / "seeds.txt"):
        missing.unlink()
        assert call("resume", "small")[0] == 0
        assert missing.exists()
    code, _, err = call("resume", "small")
    assert (code, "is finished" in err) == (2, True)
    code, out, err = call("plot", "small", "--output", "together.png")
    assert code == 0, err
    with Image.open("together.png") as picture:
        assert picture.size[0] > 400


def test_video_draws_whole_lifetimes(trained: Path, tmp_path: Path, call: Any) -> None:
    output = tmp_path / "lives.gif"
    code, out, err = call("video", trained / "runs" / "small", "--lifetimes", "2", "--output", output)
    assert code == 0, err
    assert "42 frames" in out
    with Image.open(output) as picture:
        assert picture.n_frames > 20  # equal frames are merged
        assert max(picture.size) >= 320


def test_files_that_the_user_names_are_not_overwritten(trained: Path, tmp_path: Path, call: Any) -> None:
    run = trained / "runs" / "small"
    scores = (run / "evaluation.json").read_bytes()
    (tmp_path / "there.gif").write_text("mine")
    (tmp_path / "there.png").write_text("mine")
    for verb, output in (
        ("evaluate", run / "evaluation.json"),
        ("evaluate", tmp_path / "there.json"),
        ("plot", tmp_path / "there.png"),
        ("video", tmp_path / "there.gif"),
    ):
        code, out, err = call(verb, run, "--output", output)
        assert (code, out) == (2, "")
        assert "exists already, and nothing is overwritten" in err
    assert (run / "evaluation.json").read_bytes() == scores
    assert (tmp_path / "there.png").read_text() == "mine"


def test_plot_draws_into_the_run(trained: Path, tmp_path: Path, call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = shutil.copytree(trained / "runs" / "small", tmp_path / "small")
    (run / "curves.png").write_bytes(b"")
    assert call("plot", run)[0] == 0
    assert (run / "curves.png").stat().st_size > 1000
    assert call("plot", run, "--column", "train/loss")[0] == 0
    assert (run / "curves-train-loss.png").exists()
    assert [entry.name for entry in tmp_path.iterdir()] == ["small"]


def test_evaluate_says_which_checkpoint_of_an_unfinished_run_and_what_is_damaged(
    trained: Path, tmp_path: Path, call: Any
) -> None:
    run = shutil.copytree(trained / "runs" / "small", tmp_path / "small")
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("total_timesteps: 480", "total_timesteps: 960"))
    code, out, _ = call("evaluate", run, "--tasks", "5")
    assert (code, "of 960 steps (best on valid; the run is unfinished)" in out) == (0, True)
    best = RunFolder(run).best()
    newest = max(int(entry.name) for entry in (run / "checkpoints").iterdir())
    (run / "checkpoints" / str(newest) / "params.safetensors").write_bytes(b"")
    code, _, err = call("evaluate", run, "--tasks", "5")
    assert code == (2 if best == newest else 0)
    assert f"{newest}/params.safetensors was altered" in err


def test_config_reference_names_every_key(call: Any) -> None:
    code, out, _ = call("config")
    assert code == 0
    for key in ("algorithm.learning_rate", "environment.kwargs", "network.hidden_size", "evaluation.valid_tasks"):
        assert f"{key}: " in out
    assert "number or schedule, 0 or more  (default 0.001)" in out
    keys = [line.split(":")[0] for line in out.splitlines() if line and not line.startswith((" ", "network, kind"))]
    described = [line for line in out.splitlines() if line.startswith("    ")]
    assert len(described) >= len(keys)


def test_the_number_of_tasks_is_told_in_one_place(call: Any) -> None:
    """The reference of keys tells the numbers that `evaluate` takes."""
    told = (
        "100 where a lifetime is a data set (classification), 10,000 where every trial has one step (bandits), 1,000 "
        "otherwise"
    )
    assert told == TASKS_BY_DEFAULT
    assert f"Tasks of each split; null: {told}." in " ".join(call("config", "evaluation")[1].split())
    assert "by default as many as `TASKS_BY_DEFAULT` says." in (evaluate.__doc__ or "")
    counts = {"plastic_rl/Classification-v0": "100", "plastic_rl/ReversalBandit-v0": "10,000", "CartPole-v1": "1,000"}

    def stop(line: str) -> None:
        raise KeyError(line)

    for env_id, count in counts.items():
        agent = distribution_for(env_id).reference_agents("test")["random"]
        with pytest.raises(KeyError, match=f"sampled on {count} tasks"):
            evaluate(agent, env_id, progress=stop)


def test_config_reference_names_the_keys_of_a_comparison(call: Any) -> None:
    code, out, _ = call("config", "compare")
    assert code == 0
    for key in ("seeds", "common", "variants"):
        assert f"\n{key}: " in out
    assert out in call("config")[1]


def test_config_reference_names_the_keys_and_measures_of_a_study(call: Any) -> None:
    code, out, _ = call("config", "study")
    assert code == 0
    for key in ("seeds: list of whole numbers", "questions.KEY.with: ", "questions.KEY.tune.grid: "):
        assert f"\n{key}" in out
    for measure in MEASURES:
        assert f"\nquestions.KEY.measure, name {measure}: " in out
    assert out in call("config")[1]


def test_environments_can_be_listed_shown_and_checked(call: Any) -> None:
    code, out, _ = call("envs", "list")
    assert code == 0
    for name in ("BernoulliBandit", "ReversalBandit", "GridMaze"):
        assert f"plastic_rl/{name}-v0" in out
    code, out, _ = call("envs", "show", "plastic_rl/GridMaze-v0")
    assert "    side=9: Outer side of the maze, walls included: odd, 5 or more.\n" in out
    assert code == 0
    assert "side=" in out
    assert "reference agents" in out
    code, out, _ = call("envs", "check", "plastic_rl/BernoulliBandit-v0")
    assert (code, out.count("ok    ")) == (0, 6)


def test_check_names_what_a_foreign_environment_lacks(call: Any) -> None:
    code, out, _ = call("envs", "check", "CartPole-v1")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["ok", "ok", "ok", "ok", "note", "ok"]
    assert "no get_state and set_state" in out


def test_doctor_reports_versions(call: Any) -> None:
    code, out, _ = call("doctor")
    assert code == 0
    assert "torch              " in out
    assert "one update of a small agent works" in out
    assert f"core       {_native.chosen_core().name}" in out
    assert f"{torch.__version__}, {torch.backends.cpu.get_cpu_capability()} on the CPU" in out
    for name in ("numpy", "gymnasium", "stable-baselines3", "cma"):
        assert re.search(rf"^  {name} +\d+\.\d+", out, re.MULTILINE)
    assert max(len(line) for line in out.splitlines() if sys.executable not in line) <= 80


def test_doctor_tells_which_levels_there_are(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(_native.VARIABLE, "torch")
    monkeypatch.setattr(_native, "compiled_levels", lambda: ["baseline", "avx2", "avx512"])
    monkeypatch.setattr(_native, "levels", lambda: ["baseline", "avx2"])
    out = " ".join(call("doctor")[1].split())
    assert "core torch (PLASTIC_RL_CORE=torch) levels" in out
    assert "compiled baseline, avx2, avx512; this processor runs baseline, avx2 " in out
    monkeypatch.setattr(_native, "compiled_levels", list)
    assert "levels none: the package was installed without its compiled core" in " ".join(call("doctor")[1].split())


@pytest.mark.parametrize(
    ("asked", "here", "said"),
    [
        ("natvie", ["baseline"], "PLASTIC_RL_CORE: unknown core 'natvie'. Did you mean 'native'?"),
        (
            "native:avx512",
            ["baseline", "avx2"],
            "PLASTIC_RL_CORE=native:avx512, but this processor runs baseline, avx2 ",
        ),
        ("native", [], "PLASTIC_RL_CORE=native, but the package was installed without its compiled core; install it"),
    ],
)
@pytest.mark.parametrize(
    "words",
    [("doctor",), ("train", "small.yaml"), ("study", "nowhere"), ("evaluate", "nowhere"), ("envs", "list")],
    ids=" ".join,
)
def test_a_core_that_is_not_here_is_refused_by_every_verb(
    words: tuple[str, ...], asked: str, here: list[str], said: str, workplace: Path, call: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv(_native.VARIABLE, asked)
    monkeypatch.setattr(_native, "levels", lambda: here)
    code, out, err = call(*words)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {said}")
    assert not (workplace / "runs").exists()


@pytest.mark.parametrize(
    ("network", "line"),
    [
        ("{kind: plastic_rnn, rule: oja, hidden_size: 6}", None),
        ("{kind: plastic_rnn, rule: bcm, hidden_size: 6}", "torch (this rule is not on the native core)"),
        ("{kind: gru, hidden_size: 6}", "torch (this kind of network is not on the native core)"),
        ("{kind: plastic_rnn, rule: oja, unroll: reference, hidden_size: 6}", "torch (network.unroll: reference)"),
    ],
)
def test_the_first_line_of_a_run_says_which_core_computes(
    network: str, line: str | None, workplace: Path, call: Any
) -> None:
    core = _native.chosen_core()
    code, _, err = call(
        "train", "small.yaml", f"network={network}", "algorithm.total_timesteps=80", "evaluation.final=false",
        "evaluation.valid_tasks=0",
    )  # fmt: skip
    assert code == 0, err
    assert err.splitlines()[0] == f"core: {core if line is None or core.level is None else line}"


@pytest.mark.parametrize("plugin", sorted(path.name for path in (ROOT / "envs").glob("*.py")))
def test_worked_examples_train_from_the_command_line(workplace: Path, call: Any, plugin: str) -> None:
    path = ROOT / "envs" / plugin
    env_id = re.findall(r"\b[a-z_]+/[A-Za-z]+-v\d+\b", path.read_text())[0]
    assert env_id in call("envs", "list", "--plugin", path)[1]
    code, out, err = call(
        "train", "small.yaml", f"environment={{id: {env_id}}}", "algorithm.total_timesteps=200", "evaluation.tasks=5",
        "evaluation.valid_tasks=2", "algorithm.n_steps=10", "--plugin", path,
    )  # fmt: skip
    assert code == 0, err
    assert f"{env_id}, split test" in out.replace("\n", " ")
    assert read_mapping(workplace / "runs" / "small" / "config.yaml")["plugins"] == [str(path)]
    assert call("envs", "check", env_id, "--plugin", path)[0] == 0


def test_the_program_is_installed_under_both_names() -> None:
    assert app.info.name == "plastic-rl"
    assert callable(main)
    result = subprocess.run(
        [sys.executable, "-m", "plastic_rl", "envs", "lst"], check=False, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 2
    assert "No such command 'lst'" in result.stderr
