"""Rule tables as a user reads them: `plastic-rl inspect`."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from plastic_rl.cli.app import main
from plastic_rl.envs import distribution_for, make_vector
from plastic_rl.errors import ConfigError
from plastic_rl.evaluation.rule_table_view import LISTED, TableView, plot_tables, tables_text, view_tables, write_tables
from plastic_rl.feedback import FeedbackLayout
from plastic_rl.networks import Feedback
from plastic_rl.networks.rule_table.network import RuleTableNetwork
from plastic_rl.policies import PlasticPolicy
from tests.networks.cases import make_network

ROOT = Path(__file__).parents[2]
BANDIT = "plastic_rl/ReversalBandit-v0"


def agent(env_id: str = BANDIT, **network: object) -> PlasticPolicy:
    env = make_vector(env_id, 1)
    layout = FeedbackLayout.from_dict(env.metadata["feedback"])
    config = {"kind": "rule_table", "hidden_size": 8, "cap": 3, "inputs": "all", **network}
    return PlasticPolicy(env.single_observation_space, env.single_action_space, feedback=layout, network=config)


def test_uses_equal_a_count_weight_by_weight() -> None:
    network = make_network(
        {"kind": "rule_table", "hidden_size": 5, "rounds": 1, "plastic": {"input": True}, "gated": {"hidden": True}},
        3 + 4 + 3,
        4,
    )
    assert isinstance(network, RuleTableNetwork)
    codes = torch.tensor([[0, 3, 1, 3, 2], [1, 1, 0, 0, 3], [2, 2, 2, 2, 2]], dtype=torch.uint8)
    state = network.initial_state(3, torch.Generator()) | {"code": codes}
    chosen, rewards, valid = [2, 0, 1], [1.0, 0.0, 1.0], [True, True, False]
    feedback = Feedback(
        torch.eye(4)[chosen], torch.tensor(rewards), torch.ones(3, dtype=torch.bool), torch.tensor(valid)
    )
    expected: Counter[tuple[object, ...]] = Counter()
    for row in range(2):
        gate = int(rewards[row] > 0)
        for post, code in enumerate(codes[row].tolist()):
            expected["input_table", 0, code] += 3
            expected.update(("hidden_table", gate, codes[row, pre].item(), code) for pre in range(5) if pre != post)
            expected.update(("output_table", code, gate + 2 * (output == chosen[row])) for output in range(4))
    got = network.update.uses(feedback, state, torch.zeros(3, dtype=torch.bool))
    for name, counts in got.items():
        for place in np.ndindex(*counts.shape):
            assert counts[place].item() == expected[(name, *place)], (name, place)
    assert sum(counts.sum().item() for counts in got.values()) == expected.total()
    assert network.update.uses(feedback, state, torch.ones(3, dtype=torch.bool)) == {}


def test_tables_are_used_in_trials_that_are_one_task_or_not(drawing: str) -> None:
    policy = agent(drawing, rounds=1, gated={"hidden": True})
    tasks = distribution_for(drawing).tasks("valid", 0, 10)
    for same, rewarded in ((None, 2 / 3), (True, 2 / 3), (False, 0.0)):
        views = view_tables(policy, drawing, tasks, trials=3, same_task_each_trial=same)
        # Of three steps the first never pays, the others do where the task is the same.
        assert views[1].title == "hidden -> hidden weights, rewarded"
        assert views[1].use.sum() == pytest.approx(rewarded)


def test_shares_of_use_in_a_bandit() -> None:
    policy = agent(rounds=1, gated={"hidden": True})
    tasks = distribution_for(BANDIT).tasks("valid", 0, 5)
    views = view_tables(policy, BANDIT, tasks, seed=3)
    assert [view.title for view in views] == [
        "hidden -> hidden weights, unrewarded",
        "hidden -> hidden weights, rewarded",
        "hidden -> output weights",
    ]
    unrewarded, rewarded, output = views
    assert output.rows == ("00", "10", "01", "11")
    assert output.columns == ("unrewarded", "rewarded", "unrewarded, chosen", "rewarded, chosen")
    # One of two outputs is chosen; nothing has been learned (all tables 0), so that half of the choices pay.
    assert output.use.sum() == pytest.approx(1)
    assert output.use[:, 2:].sum() == pytest.approx(0.5)
    assert output.use[:, 1].sum() == pytest.approx(output.use[:, 3].sum())
    assert 0.2 < output.use[:, 3].sum() < 0.3
    assert unrewarded.use.sum() + rewarded.use.sum() == pytest.approx(1)
    assert rewarded.use.sum() == pytest.approx(2 * output.use[:, 3].sum())
    assert not any(view.change.any() for view in views)


def test_changes_are_entries_times_steps() -> None:
    policy = agent(tables="label_free_hebb", plastic={"input": True})
    with torch.no_grad():
        policy.network.get_parameter("log_step").copy_(torch.tensor([0.0, np.log(2.0)]))
        policy.network.get_parameter("input_table").copy_(torch.tensor([[3.0, -4.0]]))
    inputs, output = view_tables(policy, BANDIT, distribution_for(BANDIT).tasks("valid", 0, 1))
    np.testing.assert_allclose(inputs.change, [[0.03], [-0.04]], rtol=1e-6)
    # Base step .1, doubled.
    np.testing.assert_allclose(output.change, [[0, 0, 0, 0], [0.2 / 3, 0, -0.4, 0.2]], rtol=1e-6, atol=1e-12)


def test_the_text_and_the_picture(tmp_path: Path) -> None:
    change, use = np.array([[0.0, 0.5], [-0.25, 0.125]]), np.array([[0.5, 0.25], [0.25, 0.0]])
    view = TableView("hidden -> output weights", "history", "output", ("0", "1"), ("wrong", "correct"), change, use)
    lines = tables_text([view]).splitlines()
    assert lines == [
        "hidden -> output weights",
        "  strengthens 25.0% of the weights that it meets, weakens 25.0%",
        "  most effect (change x use): 0 / correct +0.5; 1 / wrong -0.25",
        "  rows: history; columns: output",
        "             wrong       correct",
        "  0     +0 (50.0%)  +0.5 (25.0%)",
        "  1  -0.25 (25.0%)  +0.12 (0.0%)",
    ]
    assert plot_tables([view], tmp_path / "tables.png").stat().st_size > 5000
    assert write_tables([view], tmp_path / "tables.csv").read_text().splitlines() == [
        "table,row,column,change,use",
        "hidden -> output weights,0,wrong,0.0,0.5",
        "hidden -> output weights,0,correct,0.5,0.25",
        "hidden -> output weights,1,wrong,-0.25,0.25",
        "hidden -> output weights,1,correct,0.125,0.0",
    ]
    with Image.open(tmp_path / "tables.png") as picture:
        edges = np.asarray(picture.convert("L"))[:60][:, [0, 1, 2, -3, -2, -1]]
    assert edges.min() == 255  # the title of a narrow picture is not cut at its sides
    with pytest.raises(ConfigError, match="no tables to draw"):
        plot_tables([], tmp_path / "nothing.png")


def test_of_large_tables_the_strongest_entries_are_listed(tmp_path: Path) -> None:
    change, use = np.full((16, 16), 0.01), np.zeros((16, 16))
    change[1, 15], use[1, 15] = -0.0246, 0.25
    use[2, 3] = 0.75
    names = tuple(f"{code:04b}" for code in range(16))
    view = TableView("t", "pre unit's history", "post unit's history", names, names, change, use)
    assert tables_text([view]).splitlines()[2:] == [
        "  pre unit's history  post unit's history  change    use",
        "                0010                 0011   +0.01  75.0%",
        "                0001                 1111  -0.025  25.0%",
        "  2 of 256 entries: the greatest change x use; 2 were used",
    ]
    full = TableView("t", "pre", "post", names, names, change, np.full((16, 16), 1 / 256))
    lines = tables_text([full]).splitlines()
    assert len(lines) == 4 + LISTED
    assert max(map(len, lines)) <= 80
    assert plot_tables([view, full], tmp_path / "tables.png").stat().st_size > 5000


def test_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = f"""
environment: {{id: {BANDIT}, kwargs: {{steps: 20}}}}
network: {{kind: rule_table, hidden_size: 6, cap: 2, inputs: all}}
algorithm: {{name: cma_es, generations: 2, population_size: 4, lifetimes: 2}}
evaluation: {{tasks: 20, valid_tasks: 10}}
logging: {{tensorboard: false}}
"""
    (tmp_path / "small.yaml").write_text(config)
    runs = ["--runs-folder", str(tmp_path / "runs")]
    assert main(["train", str(tmp_path / "small.yaml"), *runs]) == 0
    capsys.readouterr()
    assert main(["inspect", "small", "--tasks", "3", *runs]) == 0
    shown = capsys.readouterr().out
    assert "hidden -> output weights" in shown
    assert "rewarded, chosen" in shown
    assert (tmp_path / "runs" / "small" / "tables.png").exists()
    # A header and two histories in four conditions.
    assert len((tmp_path / "runs" / "small" / "tables.csv").read_text().splitlines()) == 9


def test_an_exported_agent_is_inspected_without_writing_into_its_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = shutil.copytree(ROOT / "agents" / "hand_written_d_small", tmp_path / "agents" / "hand_written")
    before = {file: file.read_bytes() for file in agent.rglob("*") if file.is_file()}
    monkeypatch.chdir(tmp_path)
    assert main(["inspect", "hand_written", "--tasks", "1"]) == 0
    assert "for the picture and a file of all entries, give --output FILE" in capsys.readouterr().out
    assert {file: file.read_bytes() for file in agent.rglob("*") if file.is_file()} == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["agents"]
    assert main(["inspect", "agents/hand_written", "--tasks", "1", "--output", "tables.png"]) == 0
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["agents", "tables.csv", "tables.png"]


def test_other_networks_have_no_tables() -> None:
    env = make_vector(BANDIT, 1)
    layout = FeedbackLayout.from_dict(env.metadata["feedback"])
    policy = PlasticPolicy(env.single_observation_space, env.single_action_space, feedback=layout)
    with pytest.raises(ConfigError, match=r"\(plastic_rnn\) has no rule tables"):
        view_tables(policy, BANDIT, distribution_for(BANDIT).tasks("valid", 0, 1))
