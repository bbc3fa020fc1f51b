"""Bad input: one clear message, exit code 2, no traceback, nothing overwritten."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from plastic_rl.checkpoint import read_checkpoint, write_checkpoint

ROOT = Path(__file__).parents[2]
PLUGIN = """
import gymnasium
import numpy as np


class Constant(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(0.0, 1.0, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.time += 1
        return np.zeros(2, np.float32), float(action), self.time == 5, False, {}


class Pictures(Constant):
    observation_space = gymnasium.spaces.Dict(a=gymnasium.spaces.Discrete(2))


gymnasium.register("cli_tests/Constant-v0", Constant)
gymnasium.register("cli_tests/Pictures-v0", Pictures)
gymnasium.register("cli_tests/Missing-v0", "no_such_package_anywhere:Env")
"""


NAN_REWARD = """
import gymnasium

class NaNReward(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1, 1, (2,))
    action_space = gymnasium.spaces.Discrete(2)
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.low, {}
    def step(self, action):
        return self.observation_space.low, float("nan"), False, False, {}

gymnasium.register("cli_tests/NaNReward-v0", NaNReward, max_episode_steps=10)
"""


def snapshot(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in folder.rglob("*")
        if file.is_file()
    }


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["train", "smal.yaml"], ["no such config file: smal.yaml", "Did you mean 'small.yaml'?"]),
        (["train", "empty.yaml"], ["empty.yaml is empty"]),
        (["train", "binary.yaml"], ["binary.yaml is not a text file"]),
        (["train", "list.yaml"], ["list.yaml must hold a mapping"]),
        (["train", "nested.yaml"], ["nested.yaml is not valid YAML", "in one another more than 32 deep"]),
        (["train", "small.yaml", f"network.rule={'[' * 100_000}"], ["in one another more than 32 deep"]),
        (["train", "small.yaml", f"network.rule={'[' * 30}{']' * 30}"], ["1 problem in small.yaml", "network.rule"]),
        (["train", "small.yaml", f"network{'.a' * 5000}=1"], ["has 5,001 keys, and configs 32 levels"]),
        (["train", "small.yaml", f"network{'.a' * 31}=1"], ["network.a: unknown key"]),
        (["train", "small.yaml", "algorithm.n_envs=200000000"], ["algorithm.n_envs", "1000000"]),
        (["train", "."], ["is a folder, not a config file"]),
        (
            ["train", "small.yaml", "network.hidden_sise=3", "algorithm.gama=1", "sead=3", "algorithm.n_envs=many"],
            [
                "4 problems in small.yaml",
                "network.hidden_sise: unknown key. Did you mean 'hidden_size'?",
                "algorithm.gama: unknown key. Did you mean 'gamma'?",
                "sead: unknown key. Did you mean 'seed'?",
                "algorithm.n_envs: must be a number, got 'many'",
            ],
        ),
        (["train", "small.yaml", "network.rule=ojja"], ["network", "'ojja'", "oja"]),
        (
            ["train", "small.yaml", "network.kind=lstmm"],
            ["network.kind: unknown network 'lstmm'. Did you mean 'lstm'?"],
        ),
        (["train", "small.yaml", "policy=PlasticPolice"], ["Did you mean 'PlasticPolicy'?"]),
        (["train", "small.yaml", "algorithm.name=a3c"], ["algorithm.name", "'a2c'"]),
        (["train", "small.yaml", "n_envs"], ["an override is written key.path=value"]),
        (["train", "small.yaml", "seed.x=3"], ["seed"]),
        (
            ["train", "small.yaml", "environment.id=plastic_rl/ReversalBandt-v0"],
            ["unknown environment 'plastic_rl/ReversalBandt-v0'. Did you mean 'plastic_rl/ReversalBandit-v0'?"],
        ),
        (["train", "small.yaml", "environment.kwargs.stepz=3"], ["'stepz' (did you mean 'steps'?)"]),
        (["train", "small.yaml", "environment.kwargs.steps=-3"], ["steps"]),
        (["train", "small.yaml", "environment.kwargs.steps=1000000000"], ["steps = 1,000,000,000", "up to 100,000"]),
        (
            ["train", "small.yaml", "environment.kwargs.steps=100000", "algorithm.n_envs=10000"],
            ["in each of 10,000 rows"],
        ),
        (
            ["train", "small.yaml", "environment={id: plastic_rl/GridMaze-v0, kwargs: {steps: 1000000000}}"],
            ["steps = 1,000,000,000", "up to 100,000"],
        ),
        (
            ["train", "small.yaml", "environment.kwargs.steps=many"],
            ["plastic_rl/ReversalBandit-v0", "steps must be a whole number, got 'many'"],
        ),
        (
            ["train", "small.yaml", "environment={id: plastic_rl/GridMaze-v0, kwargs: {side: 9.5}}"],
            ["plastic_rl/GridMaze-v0", "side must be a whole number, got 9.5"],
        ),
        (
            ["train", "small.yaml", "environment={id: FrozenLake-v1, kwargs: {map_name: 9x9}}"],
            ["FrozenLake-v1 cannot be made with {'map_name': '9x9'}"],
        ),
        (
            ["train", "small.yaml", "--plugin", "plugin.py", "environment={id: cli_tests/Missing-v0}"],
            ["cli_tests/Missing-v0 needs a package that is not installed"],
        ),
        (["train", "small.yaml", "environment.trials=3"], ["trials"]),
        (["train", "small.yaml", "evaluation.splits=[tst]"], ["unknown split of ReversalBandit 'tst'", "'test'"]),
        (["train", "small.yaml", "device=cuda:77"], ["cuda"]),
        (["train", "small.yaml", "plugins=[their.py]"], ["their.py", "add: --plugin their.py"]),
        (["train", "small.yaml", "--plugin", "nowhere.py"], ["no plugin file 'nowhere.py'"]),
        (["train", "small.yaml", "--plugin", "no_such_module"], ["no plugin module 'no_such_module'"]),
        (["train", "small.yaml", "--plugin", "broken.py"], ["broken.py", "ZeroDivisionError"]),
        (
            ["train", "small.yaml", "--plugin", "~nouser/x.py"],
            ["no plugin file '~nouser/x.py': the user after ~ has no home directory here"],
        ),
        (
            [
                "train",
                "small.yaml",
                "environment={id: plastic_rl/Classification-v0, kwargs: {data: {file: ~nouser/x.csv}}}",
            ],
            ["cannot read the data file ~nouser/x.csv: the user after ~ has no home directory here"],
        ),
        (["train", "small.yaml", "--name", "../outside"], ["is no good as the name of a run"]),
        (["train", "small.yaml", "--name", "line\n"], ["is no good as the name of a run"]),
        (["train", "small.yaml", "--seeds", "0,one"], ["whole numbers separated by commas"]),
        (["train", "small.yaml", "--seeds", "0,0"], ["each seed may be given once"]),
        (["train", "small.yaml", "--seeds", "0,4294967296"], ["seed: must be less than 4294967296"]),
        (
            ["train", "small.yaml", "--plugin", "plugin.py", "environment={id: cli_tests/Pictures-v0}"],
            ["observations must be Box", "got Dict"],
        ),
        (["resume", "nothing"], ["no such run: nothing"]),
        (["evaluate", "nothing"], ["no such run or agent: nothing"]),
        (["evaluate", "."], ["is not a run"]),
        (["export", "nothing", "agents/x"], ["no such run: nothing"]),
        (["plot", "nothing"], ["no such run: nothing"]),
        (["video", "nothing"], ["no such run or agent: nothing"]),
        (["envs", "show", "CartPol-v1"], ["unknown environment 'CartPol-v1'", "CartPole-v1"]),
        (["envs", "check", "plastic_rl/GridMase-v0"], ["plastic_rl/GridMaze-v0"]),
        (["config", "algoritm"], ["Did you mean 'algorithm'?"]),
        (["trian", "small.yaml"], ["No such command 'trian'"]),
        (["evaluate"], ["Missing argument"]),
    ],
    ids=lambda value: " ".join(value)[:80] if value and value[0] in {"train", "resume", "evaluate"} else None,
)
def test_bad_input_is_named(workplace: Path, call: Any, arguments: list[str], parts: list[str]) -> None:
    (workplace / "empty.yaml").write_text("")
    (workplace / "nested.yaml").write_text(f"network: {'{a: ' * 496}1{'}' * 496}\n")
    (workplace / "binary.yaml").write_bytes(bytes(range(256)))
    (workplace / "list.yaml").write_text("- 1\n")
    (workplace / "plugin.py").write_text(PLUGIN)
    (workplace / "broken.py").write_text("1 / 0\n")
    before = snapshot(workplace)
    code, out, err = call(*arguments)
    assert code == 2, err
    assert out == ""
    assert "Traceback" not in err
    for part in parts:
        assert part in " ".join(err.split()), err
    assert {name: digest for name, digest in snapshot(workplace).items() if ".pyc" not in name} == before


@pytest.fixture
def copied(trained: Path, tmp_path: Path) -> Path:
    """A copy of the trained run, free to be damaged."""
    shutil.copytree(trained / "runs" / "small", tmp_path / "runs" / "small")
    shutil.copyfile(trained / "small.yaml", tmp_path / "small.yaml")
    return tmp_path / "runs" / "small"


def test_an_existing_run_is_left_alone(copied: Path, call: Any) -> None:
    before = snapshot(copied)
    code, _, err = call("train", copied.parent.parent / "small.yaml", "--runs-folder", copied.parent)
    assert (code, "small exists already" in err) == (2, True)
    code, _, err = call("resume", copied)
    assert (code, "is finished (480 steps)" in err) == (2, True)
    assert snapshot(copied) == before


def newest(run: Path) -> Path:
    return max((run / "checkpoints").iterdir(), key=lambda folder: int(folder.name))


@pytest.mark.parametrize("verb", ["resume", "evaluate", "video"])
@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing", "manifest"])
def test_damaged_checkpoints_are_refused(copied: Path, call: Any, verb: str, damage: str) -> None:
    (copied / "evaluation.json").unlink()  # so that resume has something left to do
    for checkpoint in (copied / "checkpoints").iterdir():
        file = checkpoint / ("manifest.json" if damage == "manifest" else "params.safetensors")
        data = file.read_bytes()
        if damage == "missing":
            file.unlink()
        elif damage == "truncated":
            file.write_bytes(data[:-5])
        else:
            file.write_bytes(
                data.replace(b"480", b"481").replace(b"sha", b"sah") if damage == "manifest" else data[:-1] + b"~"
            )
    before = snapshot(copied)
    code, out, err = call(verb, copied)
    assert code == 2, err
    assert out == ""
    assert str(copied / "checkpoints") in err
    assert "Traceback" not in err
    after = snapshot(copied)
    assert {name: after[name] for name in before} == before


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("config", "environment", "kwargs", "steps"), np.zeros((1, 2)), "is no checkpoint of this run"),
        (("config", "checkpoint", "keep"), np.zeros((1, 2)), "is no checkpoint of this run"),
        (("metrics", "timing", "rows"), 10**30, "is not a checkpoint of a run (metrics.timing.rows: "),
    ],
)
def test_a_run_document_that_is_none_is_refused(
    copied: Path, call: Any, path: tuple[str, ...], value: Any, message: str
) -> None:
    (copied / "evaluation.json").unlink()
    checkpoint = read_checkpoint(newest(copied))
    holder = checkpoint.documents["run"]
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    write_checkpoint(newest(copied), checkpoint)
    code, out, err = call("resume", copied)
    assert (code, out) == (2, "")
    assert f"{newest(copied)} {message}" in err


def rewrite(run: Path, part: str, name: str, change: Any) -> None:
    """Change a tensor of every checkpoint of a run (None takes it away), and write them anew with fresh checksums."""
    for folder in (run / "checkpoints").iterdir():
        checkpoint = read_checkpoint(folder)
        tensor = checkpoint.tensors[part].pop(name)
        if change is not None:
            checkpoint.tensors[part][name] = change(tensor)
        write_checkpoint(folder, checkpoint)


def not_a_number(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.index_fill(-1, torch.tensor([1]), float("nan"))


@pytest.mark.parametrize("verb", ["resume", "evaluate", "video", "inspect", "export"])
def test_parameters_that_are_not_finite_are_refused(copied: Path, call: Any, verb: str) -> None:
    if verb == "resume":
        (copied / "evaluation.json").unlink()
    rewrite(copied, "params", "network.alpha", not_a_number)
    before = snapshot(copied.parent)
    code, out, err = call(verb, copied, *([copied.parent / "agent"] if verb == "export" else []))
    assert (code, out) == (2, ""), err
    assert f"error: {newest(copied).parent}" in err
    assert "'network.alpha' in params.safetensors is nan at [0, 1] (6 of its 36 numbers are NaN or infinite)" in err
    assert "use an earlier checkpoint, or train anew" in err
    assert "Traceback" not in err
    assert snapshot(copied.parent) == before


@pytest.mark.parametrize("verb", ["evaluate", "video"])
def test_an_agent_that_becomes_nan_while_it_lives_is_refused(copied: Path, call: Any, verb: str) -> None:
    rewrite(copied, "params", "network.eta", lambda eta: torch.full_like(eta, 1e30))
    before = snapshot(copied.parent)
    code, out, err = call(verb, copied)
    assert (code, out) == (2, ""), err
    assert "the agent became NaN or infinite after" in err
    assert "Traceback" not in err
    assert snapshot(copied.parent) == before


def test_an_exported_agent_whose_parameters_are_not_finite_is_refused(copied: Path, call: Any) -> None:
    agent = copied.parent.parent / "agents" / "mine"
    assert call("export", copied, agent)[0] == 0
    checkpoint = read_checkpoint(agent / "checkpoint")
    checkpoint.tensors["params"]["value_head.bias"][0] = float("inf")
    write_checkpoint(agent / "checkpoint", checkpoint)
    code, out, err = call("evaluate", agent, "--tasks", "3")
    assert (code, out) == (2, "")
    assert f"{agent / 'checkpoint'}: 'value_head.bias' in params.safetensors is inf at [0] (1 of its 1 numbers" in err


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("exp_avg_sq/network.alpha", None, "missing ['exp_avg_sq/network.alpha'], unknown []"),
        ("step/network.alpha", None, "missing ['step/network.alpha'], unknown []"),
        (
            "exp_avg/network.alpha",
            torch.Tensor.bfloat16,
            "'exp_avg/network.alpha' must be torch.float32 of shape (6, 6), got torch.bfloat16 of shape (6, 6)",
        ),
        ("exp_avg/network.alpha", torch.Tensor.mean, "of shape (6, 6), got torch.float32 of shape ()"),
        ("exp_avg/network.alpha", not_a_number, "'exp_avg/network.alpha' in optimizer.safetensors is nan at [0, 1]"),
        ("exp_avg_sq/network.alpha", torch.neg, "must be 0 or more, being averages of squares, got -"),
        ("step/network.alpha", torch.neg, "must be a whole number of 1 or more, got -"),
    ],
)
def test_optimizers_that_cannot_go_on_are_refused(
    copied: Path, call: Any, name: str, change: Any, message: str
) -> None:
    (copied / "evaluation.json").unlink()
    rewrite(copied, "optimizer", name, change)
    before = snapshot(copied)
    code, out, err = call("resume", copied)
    assert (code, out) == (2, ""), err
    assert f"{newest(copied)}: " in err
    assert message in err
    assert {path: digest for path, digest in snapshot(copied).items() if path in before} == before


def test_a_run_that_lost_its_checkpoints_keeps_its_record(copied: Path, call: Any) -> None:
    (copied / "evaluation.json").unlink()
    shutil.rmtree(copied / "checkpoints")
    before = snapshot(copied)
    code, out, err = call("resume", copied)
    assert (code, out) == (2, "")
    assert "has no checkpoint left" in err
    assert "start another run" in err
    assert snapshot(copied) == before


def test_a_run_without_a_first_checkpoint_begins_anew_and_keeps_what_it_had(copied: Path, call: Any) -> None:
    rows = (copied / "metrics.csv").read_bytes()
    shutil.rmtree(copied / "checkpoints")
    for name in ("evaluation.json", ".saved"):
        (copied / name).unlink()
    code, _, err = call("resume", copied)
    assert code == 0, err
    assert "starting anew from step 0" in err
    assert (copied / "metrics.csv.old-1").read_bytes() == rows
    assert (copied / "metrics.csv").read_bytes() == rows


def test_a_damaged_checkpoint_names_the_one_before_only_where_there_is_one(copied: Path, call: Any) -> None:
    (copied / "evaluation.json").unlink()
    (newest(copied) / "params.safetensors").write_bytes(b"")
    assert "To go on from the checkpoint before it" in call("resume", copied)[2]
    for checkpoint in (copied / "checkpoints").iterdir():
        if checkpoint != newest(copied):
            shutil.rmtree(checkpoint)
    code, _, err = call("resume", copied)
    assert code == 2
    assert "before it" not in err
    assert "no other checkpoint to go on from" in err


def test_scores_of_other_tasks_do_not_become_those_of_a_run(copied: Path, call: Any) -> None:
    for name in ("evaluation.json", "adaptation.png"):
        (copied / name).unlink()
    code, out, err = call("evaluate", copied, "--split", "shift", "--output", copied / "evaluation.json")
    assert (code, out, "is the run's own" in err) == (2, "", True)
    assert not (copied / "evaluation.json").exists()


def test_an_edited_config_is_noticed(copied: Path, call: Any) -> None:
    (copied / "evaluation.json").unlink()
    config = copied / "config.yaml"
    config.write_text(config.read_text().replace("gamma: 0.9\n", "gamma: 0.8\n"))
    code, _, err = call("resume", copied)
    assert code == 2
    assert "config.yaml was changed since" in err
    assert "algorithm.gamma: 0.9 became 0.8" in err


def test_environments_that_do_not_fit_the_agent(copied: Path, call: Any) -> None:
    code, out, err = call("evaluate", copied, "--env", "CartPole-v1", "--tasks", "5")
    assert (code, out) == (2, "")
    assert "CartPole-v1" in err
    assert "does not fit" in err


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ("steps", "--env-kwargs takes KEY=VALUE, e.g. side=11; got 'steps'"),
        ("=3", "--env-kwargs takes KEY=VALUE"),
        ("a..b=3", "--env-kwargs takes KEY=VALUE"),
        ("stepz.deep=3", "'stepz' (did you mean 'steps'?)"),
        ("steps=[3", "not valid YAML"),
        ("stepz=3", "'stepz' (did you mean 'steps'?)"),
        ("steps=many", "steps must be a whole number, got 'many'"),
        ("steps=-3", "steps"),
    ],
)
def test_environment_arguments_that_are_no_good(copied: Path, call: Any, words: str, part: str) -> None:
    code, out, err = call("evaluate", copied, "--env-kwargs", words, "--tasks", "5")
    assert (code, out) == (2, "")
    assert part in " ".join(err.replace("\u2502", " ").split())
    assert "Traceback" not in err


@pytest.mark.parametrize("verb", ["resume", "evaluate"])
def test_plugins_that_are_no_list_are_named(copied: Path, call: Any, verb: str) -> None:
    config = copied / "config.yaml"
    config.write_text(config.read_text().replace("plugins: []", "plugins: 3"))
    code, _, err = call(verb, copied)
    assert (code, "plugins must be a list, got 3" in err) == (2, True)


def test_an_agent_with_a_strange_config_is_listed(tmp_path: Path, call: Any) -> None:
    (tmp_path / "odd" / "checkpoint").mkdir(parents=True)
    (tmp_path / "odd" / "config.yaml").write_text("environment: null\n")
    assert call("agents", "list", "--agents-folder", tmp_path)[:2] == (0, f"odd  {'?':<32}  \n")


def test_exports_overwrite_nothing(copied: Path, tmp_path: Path, call: Any) -> None:
    (tmp_path / "agents" / "mine").mkdir(parents=True)
    code, _, err = call("export", copied, tmp_path / "agents" / "mine")
    assert (code, "exists already" in err) == (2, True)
    (copied / "evaluation.json").unlink()
    code, _, err = call("export", copied, tmp_path / "agents" / "other")
    assert (code, "has no scores yet" in err) == (2, True)


def test_a_plugin_is_named_but_never_imported_by_itself(workplace: Path, call: Any) -> None:
    marker = workplace / "imported"
    (workplace / "marking.py").write_text(
        f"{PLUGIN}\nopen({str(marker)!r}, 'a').write('x')\n".replace("cli_tests", "cli_mark")
    )
    arguments = ["train", "small.yaml", "environment={id: cli_mark/Constant-v0}", "evaluation.tasks=5"]
    assert call(*arguments)[0] == 2  # unknown without the plugin
    assert not marker.exists()
    code, out, err = call(*arguments, "--plugin", "marking.py")
    assert code == 0, err
    assert "cli_mark/Constant-v0" in out
    assert marker.read_text() == "x"
    Path("runs/small/evaluation.json").unlink()  # what is missing is named after the plugin that is
    for words in (["evaluate"], ["resume"], ["video"], ["plot"], ["export", "agents/small"], ["inspect"]):
        code, _, err = call(words[0], "small", *words[1:])
        assert (code, "If you trust them, add: --plugin marking.py" in err) == (2, True), (words, err)
    assert marker.read_text() == "x"
    assert call("evaluate", "small", "--plugin", "./marking.py")[0] == 0
    assert call("plot", "small", "--plugin", "./marking.py")[0] == 0
    code, out, err = call("export", "small", "agents/small", "--plugin", "./marking.py")
    assert code == 0, err
    assert out.endswith("try it with  plastic-rl evaluate agents/small --plugin marking.py\n")


@pytest.mark.parametrize("words", [[], ["--seeds", "0,1"]])
def test_a_training_that_fails_before_its_first_checkpoint_leaves_its_name_free(
    workplace: Path, call: Any, words: list[str]
) -> None:
    (workplace / "nan_reward.py").write_text(NAN_REWARD)
    changes = ["environment={id: cli_tests/NaNReward-v0}", "algorithm.n_steps=10", "--plugin", "nan_reward.py"]
    code, out, err = call("train", "small.yaml", *changes, *words)
    assert (code, out) == (2, "")
    assert "error: reward of environment 0 at step 0 of the rollout is nan" in err
    assert "removed runs/small: nothing was saved in it" in err
    assert not (workplace / "runs" / "small").exists()


@pytest.fixture
def both(copied: Path, call: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory in which `small` is a run and an exported agent."""
    monkeypatch.chdir(copied.parent.parent)
    assert call("export", "runs/small", "agents/small")[0] == 0
    return copied.parent.parent


@pytest.mark.parametrize("verb", ["evaluate", "inspect", "video"])
def test_a_name_that_a_run_and_an_agent_have_is_refused(both: Path, call: Any, verb: str) -> None:
    before = snapshot(both)
    message = "error: 'small' can mean several folders. Write runs/small or agents/small.\n"
    assert call(verb, "small") == (2, "", message)
    assert snapshot(both) == before


def test_written_out_paths_and_verbs_of_runs_mean_one_of_the_two(both: Path, call: Any) -> None:
    agent = snapshot(both / "agents")
    for path, line in (("runs/small", "(best on valid)"), ("agents/small", "(exported)")):
        code, out, err = call("evaluate", path, "--tasks", "5")
        assert (code, line in out.splitlines()[0]) == (0, True), err
    (both / "runs" / "small" / "evaluation.json").unlink()
    code, out, err = call("resume", "small")
    assert (code, "in runs/small: " in out) == (0, True), err
    assert call("plot", "small")[:2] == (0, "written: runs/small/curves.png\n")
    assert call("export", "small", "agents/other")[0] == 0
    assert {name: digest for name, digest in snapshot(both / "agents").items() if name.startswith("small/")} == agent


@pytest.mark.parametrize("words", [["resume"], ["plot"], ["export", "agents/other"]])
def test_nothing_is_trained_or_drawn_in_the_folder_of_an_agent(both: Path, call: Any, words: list[str]) -> None:
    before = snapshot(both)
    code, out, err = call(words[0], "agents/small", *words[1:])
    assert (code, out) == (2, "")
    assert "agents/small is an exported agent, not a run" in err
    assert "plastic-rl train agents/small/config.yaml --name NAME" in err
    assert snapshot(both) == before


def test_agents_are_evaluated_and_filmed_without_writing_into_their_folder(both: Path, call: Any) -> None:
    before = snapshot(both)
    assert call("evaluate", "agents/small", "--tasks", "5")[0] == 0
    assert snapshot(both) == before
    assert call("video", "agents/small")[:2] == (0, "written: lifetime.gif (21 frames)\n")
    after = snapshot(both)
    assert {name: digest for name, digest in after.items() if name != "lifetime.gif"} == before
    code, out, err = call("video", "agents/small")
    assert (code, out, "lifetime.gif exists already" in err) == (2, "", True)
    assert snapshot(both) == after


def test_a_baseline_that_a_run_and_an_agent_have_is_refused(both: Path, call: Any) -> None:
    message = "evaluation.baselines: 'small' can mean several folders. Write runs/small or agents/small.\n"
    code, out, err = call("train", "small.yaml", "--name", "other", "evaluation.baselines=[small]")
    assert (code, out, err) == (2, "", f"error: {message}")
    assert not (both / "runs" / "other").exists()
    config = both / "runs" / "small" / "config.yaml"
    config.write_text(config.read_text().replace("baselines: []", "baselines: [small]"))
    assert call("evaluate", "runs/small") == (2, "", f"error: {message}")
    code, out, err = call("train", "small.yaml", "--name", "other", "evaluation.baselines=[agents/small]")
    assert (code, "\n  small " in out) == (0, True), err


NETWORK = """
from plastic_rl.networks import NETWORKS
from plastic_rl.networks.plastic_rnn import PlasticRNN, PlasticRNNConfig
from plastic_rl.plasticity import RULES, SynapseConfig

RULES.register("cli_tests_rule", SynapseConfig(term="oja", bound="soft_clip"))


class MyNetworkConfig(PlasticRNNConfig):
    \"\"\"A network from a plugin.\"\"\"

    kind: str = "cli_tests_network"
    mine: int = 7
    \"\"\"A key of its own.\"\"\"


class MyNetwork(PlasticRNN):
    config_model = CONFIG


NETWORKS.register("cli_tests_network", MyNetwork)
"""


@pytest.mark.parametrize("model", ["MyNetworkConfig", "dict"])
def test_the_networks_and_rules_of_a_plugin_are_in_the_reference_of_keys(
    workplace: Path, call: Any, model: str
) -> None:
    assert "cli_tests_" not in call("config", "network")[1]
    (workplace / "mine.py").write_text(NETWORK.replace("CONFIG", model))
    # In a process of its own: what it registers stays there.
    words = [sys.executable, "-m", "plastic_rl", "config", "network", "--plugin", "mine.py"]
    found = subprocess.run(
        words, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False, capture_output=True, text=True, timeout=60
    )
    if model == "dict":
        assert (found.returncode, found.stdout) == (2, "")
        assert "config_model is a ConfigModel with a field `kind`" in found.stderr
        assert "has <class 'dict'>" in found.stderr
        assert "Traceback" not in found.stderr
        return
    assert found.returncode == 0, found.stderr
    assert "\nnetwork, kind cli_tests_network: A network from a plugin.\n" in found.stdout
    assert "\nnetwork.mine: whole number  (default 7)\n    A key of its own.\n" in found.stdout
    assert found.stdout.count("cli_tests_rule") == 3  # plastic_rnn, plastic_feed_forward, the plugin's own


ALGORITHM = '''
from typing import Annotated, Any

from pydantic import Field

from plastic_rl.algorithms import ALGORITHMS, PlasticA2C
from plastic_rl.config.signatures import handed_on


class Patient(PlasticA2C):
    """A2C that waits before it learns.

    Args:
        policy: As in `PlasticA2C`.
        env: As in `PlasticA2C`.
        patience: Updates without learning.
        **shared: As in `PlasticA2C`.
    """

    def __init__(
        self,
        policy: Any,
        env: Any,
        *,
        patience: Annotated[int, Field(ge=1, le=9)] = 2,
        **shared: Any,
    ) -> None:
        super().__init__(policy, env, **handed_on(locals()))

    def train(self) -> None:
        if self.iterations >= self.settings.patience:
            super().train()


ALGORITHMS.register("patient", Patient)
'''


def test_the_algorithm_of_a_plugin_is_named_in_a_config(workplace: Path) -> None:
    (workplace / "mine.py").write_text(ALGORITHM)

    def plastic_rl(*words: str) -> subprocess.CompletedProcess[str]:
        # In a process of its own: what it registers stays there.
        command = [sys.executable, "-m", "plastic_rl", *words]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.run(command, env=environment, check=False, capture_output=True, text=True, timeout=120)

    named = ("train", "small.yaml", "algorithm.name=patient", "algorithm.patience=3")
    alone = plastic_rl(*named)
    assert alone.returncode == 2
    assert "algorithm.name: unknown name 'patient'" in alone.stderr
    wrong = plastic_rl(*named, "algorithm.patience=10", "algorithm.patince=1", "--plugin", "mine.py")
    assert wrong.returncode == 2
    assert "algorithm.patience: must be less than or equal to 9, got 10" in wrong.stderr
    assert "algorithm.patince: unknown key. Did you mean 'patience'?" in wrong.stderr
    trained = plastic_rl(*named, "--plugin", "mine.py")
    assert trained.returncode == 0, trained.stderr
    config = (workplace / "runs" / "small" / "config.yaml").read_text()
    assert "  name: patient\n" in config
    assert "  patience: 3\n" in config
    stored = read_checkpoint(newest(workplace / "runs" / "small")).config
    assert (stored["algorithm"], stored["arguments"]["patience"]) == ("Patient", 3)
    assert plastic_rl("evaluate", "runs/small", "--tasks", "3", "--plugin", "mine.py").returncode == 0
    reference = plastic_rl("config", "algorithm", "--plugin", "mine.py").stdout
    assert "\nalgorithm, name patient: A2C that waits before it learns.\n" in reference
    assert "\nalgorithm.patience: whole number, from 1 to 9  (default 2)\n    Updates without" in reference
    assert "\nalgorithm.gae_lambda: number, from 0 to 1  (default 0.95)\n" in reference
