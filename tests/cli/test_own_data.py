"""The user's own data from the command line: a file that works, and files that do not."""

from __future__ import annotations

import json

import numpy as np
import pytest

CONFIG = """
description: Points above or below a line, from a file.
environment: {{id: plastic_rl/Classification-v0, kwargs: {{steps: 20, data: {data}}}}}
network: {{kind: plastic_rnn, rule: oja, hidden_size: 6}}
algorithm: {{name: a2c, total_timesteps: 480, n_envs: 4, learning_rate: 5e-3}}
evaluation: {{tasks: 10, valid_tasks: 4}}
logging: {{tensorboard: false}}
"""


def test_a_file_is_trained_and_evaluated_on(call, workplace):
    points = np.random.default_rng(0).standard_normal((200, 2))
    lines = [f"{x:.3f},{y:.3f},{'above' if y > x else 'below'}" for x, y in points]
    (workplace / "points.csv").write_text("\n".join(["x,y,side", *lines]))
    (workplace / "own.yaml").write_text(CONFIG.format(data="{file: points.csv, label: side}"))
    outcome = call("train", "own.yaml")
    assert outcome.code == 0, outcome.err
    stored = json.loads((workplace / "runs/own/evaluation.json").read_text())
    split = stored["splits"]["test"]
    (point,) = split["accuracy_after"]
    assert point["samples"] == 20
    assert 0.0 <= point["accuracy_interval"][0] <= point["accuracy"] <= point["accuracy_interval"][1] <= 1.0
    assert split["reference_agents"]["oracle"]["accuracy_after"][0]["accuracy"] == 1.0
    assert "accuracy after 20" in outcome.out


@pytest.mark.parametrize(
    ("content", "data", "message"),
    [
        (None, "{file: points.csv}", "cannot read the data file points.csv: No such file or directory"),
        ("", "{file: points.csv}", "the data file points.csv is empty"),
        ("x,y,k\n1,2,a\n1,b\n", "{file: points.csv}", "points.csv, line 3: 2 columns, but 3 in line 1"),
        ("1,2,a\n1,nan,b\n", "{file: points.csv}", "points.csv, line 2: column '1' must hold a number, got 'nan'"),
        ("1,2,a\n1,3,a\n", "{file: points.csv}", "all 2 samples have the label 'a'"),
        ("a,b,k\n1,2,a\n1,3,b\n", "{file: points.csv, label: c}", "unknown label column of points.csv 'c'"),
        ("1,2,a\n1,3,b\n", "{file: points.csv, shres: [1]}", "Did you mean 'shares'?"),
        (None, "{file: 3}", "file: must be a valid string"),
        (None, "digit", "unknown data set 'digit'. Did you mean 'digits'?"),
    ],
)
def test_bad_data_are_one_message_and_exit_code_2(call, workplace, content, data, message):
    if content is not None:
        (workplace / "points.csv").write_text(content)
    (workplace / "own.yaml").write_text(CONFIG.format(data=data))
    outcome = call("train", "own.yaml")
    assert outcome.code == 2
    assert message in " ".join(outcome.err.split())
    assert "Traceback" not in outcome.err
    assert not (workplace / "runs").exists()
