"""Plugins, and the worked examples of `envs/` that are loaded as such."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import gymnasium
import matplotlib.image
import numpy as np
import pytest

from plastic_rl.envs import distribution_for, load_entry_point_plugins, load_plugin, make_vector, plugins
from plastic_rl.errors import PluginError
from plastic_rl.evaluation import Evaluation, evaluate, plot_adaptation

EXAMPLES = Path(__file__).resolve().parents[2] / "envs"


@pytest.fixture(autouse=True)
def forgotten_afterwards(monkeypatch):
    """Worker processes that other tests start could not import what only these tests can."""
    monkeypatch.setattr(plugins, "_LOADED", list(plugins._LOADED))


@pytest.fixture(params=["patch_leaving", "prism_throw"])
def example(request):
    return load_plugin(str(EXAMPLES / f"{request.param}.py"))


def scores(env_id: str, split: str, number: int = 600) -> dict[str, float]:
    distribution = distribution_for(env_id)
    tasks = distribution.tasks(split, 0, number)
    means = {}
    for name, agent in distribution.reference_agents(split).items():
        env = make_vector(env_id, number, split=split)
        agent.begin(tasks, seed=0)
        observations, _ = env.reset(seed=0, options={"tasks": tasks})
        state, start, total = None, np.ones(number, dtype=bool), np.zeros(number)
        for _ in range(env.metadata["lifetime_steps"]):
            actions, state = agent.predict(observations, state, start)
            start = np.zeros(number, dtype=bool)
            observations, _, terminated, _, info = env.step(actions)
            total += info["expected_reward"]
        assert terminated.all()
        means[name] = float(total.mean())
    return means


def test_reference_agents_of_the_vectorised_example():
    module = load_plugin(str(EXAMPLES / "patch_leaving.py"))
    means = scores(module.ENV_ID, "test")
    assert means["random"] == pytest.approx(18.9, abs=1.6)
    assert means["five_picks"] == pytest.approx(37.4, abs=2.0)
    assert means["oracle"] == pytest.approx(40.1, abs=2.0)
    assert means["oracle"] > means["five_picks"] + 1.5
    assert scores(module.ENV_ID, "shift")["oracle"] == pytest.approx(23.3, abs=1.2)


def test_the_oracle_of_the_vectorised_example_is_exact():
    module = load_plugin(str(EXAMPLES / "patch_leaving.py"))
    task = module.PatchTasks(steps=6).task("test", 0)
    keep, walk = task.params["keep"], task.params["walk"]

    def value(left: int, picks: int) -> float:
        if left == 0:
            return 0.0
        return max(keep**picks + value(left - 1, picks + 1), value(max(left - walk, 0), 0))

    env = make_vector(module.ENV_ID, 1, env_kwargs={"steps": 6})
    agent = module.MarginalValueAgent(6)
    agent.begin([task], seed=0)
    observations, _ = env.reset(seed=0, options={"tasks": [task]})
    state, start, total = None, np.ones(1, dtype=bool), 0.0
    for _ in range(6):
        actions, state = agent.predict(observations, state, start)
        start = np.zeros(1, dtype=bool)
        observations, _, _, _, info = env.step(actions)
        total += float(info["expected_reward"][0])
    assert total == pytest.approx(value(6, 0), abs=1e-12)


def test_reference_agents_of_the_scalar_example():
    module = load_plugin(str(EXAMPLES / "prism_throw.py"))
    means = scores(module.ENV_ID, "test")
    # Aiming straight misses by the rotation: 40 E[cos U(-1, 1)] exp(-.1^2 / 2) = 33.49; the oracle 39.80.
    noise = np.exp(-(0.1**2) / 2)
    assert means["straight"] == pytest.approx(40 * np.sin(1.0) * noise, abs=4 * 5.5 / 600**0.5)
    assert means["oracle"] == pytest.approx(40 * noise, abs=1e-3)
    assert means["averaging"] == pytest.approx(39.63, abs=0.05)
    assert means["random"] == pytest.approx(0.0, abs=4 * 4.5 / 600**0.5)
    shifted = scores(module.ENV_ID, "shift", 300)
    assert shifted["averaging"] > shifted["straight"] + 20


def test_measures_of_the_scalar_example_reach_table_curves_and_json(tmp_path):
    module = load_plugin(str(EXAMPLES / "prism_throw.py"))
    agent = distribution_for(module.ENV_ID).reference_agents("test")["straight"]
    evaluation = evaluate(agent, module.ENV_ID, tasks=400, resamples=200)
    miss = evaluation.splits["test"].measures["miss"]
    # The oracle misses by the motor noise alone; aiming straight misses by the rotation and the noise on top.
    best = evaluation.splits["test"].reference_agents["oracle"].measures["miss"]
    assert best.mean == pytest.approx(np.degrees(0.1 * np.sqrt(2 / np.pi)), abs=0.15)
    angles = np.abs(
        np.random.default_rng(0).uniform(-1, 1, 200_000) + 0.1 * np.random.default_rng(1).normal(size=200_000)
    )
    assert miss.mean == pytest.approx(np.degrees(angles.mean()), abs=4 * 16.5 / 400**0.5)
    assert best.difference == pytest.approx(best.mean - miss.mean, abs=1e-9)
    assert best.difference_interval[0] < best.difference < best.difference_interval[1] < 0
    assert miss.interval[0] < miss.mean < miss.interval[1]
    assert len(best.curve.mean) == 40
    assert np.mean(best.curve.mean) == pytest.approx(best.mean, abs=1e-9)
    table = evaluation.table(rich=False)
    assert f"{miss.mean:.2f} [{miss.interval[0]:.2f}, {miss.interval[1]:.2f}]" in table
    assert "miss: angle by which a dart misses its target, in degrees." in table
    assert Evaluation.load(evaluation.save(tmp_path / "evaluation.json")) == evaluation
    shown = (evaluation, evaluation.model_copy(update={"measures": {}}))
    both, one = (matplotlib.image.imread(plot_adaptation(each, tmp_path / "curve.png")).shape[0] for each in shown)
    assert both > one + 300  # a panel more


def test_a_measure_that_no_lifetime_has_is_left_out():
    module = load_plugin(str(EXAMPLES / "prism_throw.py"))
    env = make_vector(module.ENV_ID, 2)
    env.metadata["measures"]["never"] = "what is never measured"
    try:
        agent = distribution_for(module.ENV_ID).reference_agents("test")["straight"]
        evaluation = evaluate(agent, module.ENV_ID, tasks=5, resamples=20)
    finally:
        del env.metadata["measures"]["never"]
    assert list(evaluation.splits["test"].measures) == ["miss"]
    assert "never: what is never measured." in evaluation.table(rich=False)


def test_an_example_registers_an_environment_and_its_tasks(example):
    distribution = distribution_for(example.ENV_ID)
    assert distribution.limit_of("test") == "oracle"
    assert {"random", "oracle"} < set(distribution.reference_agents("test"))
    env = make_vector(example.ENV_ID, 4, split="test", task_start=7)
    _, info = env.reset(seed=0)
    assert [task.index for task in info["task"]] == [7, 8, 9, 10]
    assert info["task"][0] == distribution.task("test", 7)
    assert env.metadata["lifetime_steps"] == {"PatchLeaving": 100, "PrismThrow": 40}[distribution.family]
    assert gymnasium.make(example.ENV_ID).reset(seed=0)[0].dtype == np.float32


def test_the_scalar_example_draws_its_prism_from_the_task():
    module = load_plugin(str(EXAMPLES / "prism_throw.py"))
    env = make_vector(module.ENV_ID, 3)
    _, info = env.reset(seed=0)
    rotations = [wrapped.unwrapped._rotation for wrapped in env.envs]
    assert rotations == [task.params["rotation"] for task in info["task"]]
    text = gymnasium.make(module.ENV_ID, render_mode="ansi")
    text.reset(seed=0)
    text.step(np.array([1.0, 0.0], dtype=np.float32))
    assert text.render().startswith("throw 1/40  prism ")


def test_loading_twice_is_loading_once(example):
    assert load_plugin(example.__file__) is example


def test_a_plugin_by_module_name(tmp_path, monkeypatch):
    (tmp_path / "module_of_a_user.py").write_text("VALUE = 3\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert load_plugin("module_of_a_user").VALUE == 3
    assert plugins.loaded_plugins()[-1] == "module_of_a_user"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("raises.py", "raise RuntimeError('no luck')", "RuntimeError: no luck"),
        ("syntax.py", "def broken(:\n", "SyntaxError"),
        ("imports.py", "import no_such_package_anywhere", "needs the module 'no_such_package_anywhere'"),
    ],
)
def test_a_broken_plugin_is_one_clear_error(tmp_path, name, text, message):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(PluginError, match=message):
        load_plugin(str(path))
    assert not [module for module in sys.modules if module.startswith(f"plastic_rl_plugin_{path.stem}_")]


@pytest.mark.parametrize("spec", ["no/such/file.py", "no_such.module", "nothing.py"])
def test_a_missing_plugin_is_one_clear_error(spec):
    with pytest.raises(PluginError, match="no plugin"):
        load_plugin(spec)


def test_plugins_of_installed_packages(tmp_path, monkeypatch):
    package = tmp_path / "user_package-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: user-package\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text("[plastic_rl.plugins]\nmine = module_by_entry_point\n")
    (tmp_path / "module_by_entry_point.py").write_text("LOADED = True\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "mine" in load_entry_point_plugins()
    assert sys.modules["module_by_entry_point"].LOADED
    (tmp_path / "module_by_entry_point.py").write_text("raise ValueError('broken')\n")
    monkeypatch.delitem(sys.modules, "module_by_entry_point")
    with pytest.raises(PluginError, match="installed plugin 'mine'"):
        load_entry_point_plugins()


def test_importing_the_package_is_light_and_registers_the_ids():
    code = (
        "import sys, plastic_rl, gymnasium\n"
        "heavy = {'torch', 'stable_baselines3', 'matplotlib', 'scipy', 'plastic_rl.envs', 'plastic_rl.families'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "assert 'plastic_rl/GridMaze-v0' in gymnasium.registry\n"
        "assert 'make_vector' in dir(plastic_rl) and plastic_rl.make_vector\n"
        "assert not {'torch', 'stable_baselines3', 'matplotlib', 'scipy'} & set(sys.modules)\n"
    )
    root = Path(__file__).resolve().parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)
