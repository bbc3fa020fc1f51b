"""Accuracy after n samples: what is asked, from which state, and that asking leaves no trace."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from plastic_rl.algorithms import PlasticA2C
from plastic_rl.envs import distribution_for, make_vector
from plastic_rl.errors import ConfigError
from plastic_rl.evaluation import Evaluation, accuracy_after, evaluate, plot_adaptation, run_lifetimes
from plastic_rl.families.classification.learners import LogisticLearner

BANDIT = "plastic_rl/Classification-v0"
TAUGHT = "plastic_rl/SupervisedClassification-v0"


class Counting:
    """Answers 0; its state counts the observations that it was shown, and it writes down how it was asked."""

    def __init__(self, plastic: bool) -> None:
        self.frozen = False
        self.asked: list[tuple[bool, int, bool]] = []
        self.observations: list[np.ndarray] = []
        if plastic:
            self.freeze_plasticity = self._freeze

    @contextmanager
    def _freeze(self):
        self.frozen = True
        yield
        self.frozen = False

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        count = 0 if state is None else int(state[0])
        self.asked.append((self.frozen, count, deterministic))
        self.observations.append(observation.copy())
        return np.zeros(len(observation), np.int64), np.full(len(observation), count + 1)


KWARGS = {"data": "iris", "steps": 12}


@pytest.mark.parametrize("plastic", [True, False])
def test_every_question_is_answered_from_the_same_state(plastic):
    agent = Counting(plastic)
    tasks = distribution_for(BANDIT, KWARGS).tasks("test", 0, 5)
    result = accuracy_after(agent, BANDIT, tasks, samples=(4, 12), env_kwargs=KWARGS)
    assert result.samples == (4, 12)
    questions = 18  # iris: 30% of the 60 samples of the split
    stream = [(False, count, False) for count in range(12)]
    if plastic:
        # Takes in the outcome of sample n, is frozen, and then answers all questions from there.
        at_four = [(False, 4, True), *[(True, 5, True)] * questions]
        at_twelve = [(False, 12, True), *[(True, 13, True)] * questions]
    else:
        at_four, at_twelve = [(False, 4, True)] * questions, [(False, 12, True)] * questions
    assert agent.asked == [*stream[:4], *at_four, *stream[4:], *at_twelve]
    layout = make_vector(BANDIT, 1, env_kwargs=KWARGS).feedback
    place = len(stream[:4]) + plastic
    live = agent.observations[len(stream[:4]) + len(at_four)]  # what came next in the stream
    for number in range(questions):
        shown = agent.observations[place + number]
        np.testing.assert_array_equal(shown[:, layout.start :], live[:, layout.start :])
    for row, task in enumerate(tasks):
        data = distribution_for(BANDIT, KWARGS).data_set(task)
        asked = np.stack([agent.observations[place + number][row, :4] for number in range(questions)])
        np.testing.assert_array_equal(asked, data.standardised(data.held_out))
        assert result.accuracy[row, 0] == (data.held_out_labels == 0).mean()
        assert result.commonest[row].tolist() == [1.0, 1.0]
    # After the last step too the outcome is that of the last sample, not a new lifetime's zeros.
    end = agent.observations[-1]
    assert (end[:, layout.time[0]] == 1.0).all()
    assert end[:, slice(*layout.action)].any()


def test_online_accuracy_counts_right_answers_on_either_scale():
    tasks = distribution_for(BANDIT, KWARGS).tasks("test", 0, 6)
    found = [
        accuracy_after(Counting(True), BANDIT, tasks, samples=(3, 12), env_kwargs={**KWARGS, "reward": reward}).online
        for reward in ("01", "pm1")
    ]
    lived = run_lifetimes(Counting(True), BANDIT, tasks, env_kwargs=KWARGS)
    np.testing.assert_allclose(found[0], np.stack([lived.scores[:, :3].mean(1), lived.scores.mean(1)], 1))
    np.testing.assert_allclose(found[1], found[0])


def test_questions_leave_no_trace_in_the_lifetime():
    """A learner that answers without chance lives the same life whether it is asked or not."""
    agent = LogisticLearner(10, 4, exploration=0.0)
    tasks = distribution_for(BANDIT, {"steps": 60}).tasks("test", 0, 8)
    plain = run_lifetimes(agent, BANDIT, tasks, env_kwargs={"steps": 60}, deterministic=True)
    asked = accuracy_after(
        agent, BANDIT, tasks, samples=range(10, 61, 10), env_kwargs={"steps": 60}, deterministic=True
    )
    np.testing.assert_allclose(asked.online[:, -1], plain.scores.mean(1))
    assert asked.accuracy[:, -1].mean() > asked.accuracy[:, 0].mean() + 0.1


def test_batches_make_no_difference():
    agent = LogisticLearner(10, 4, labels=True)
    tasks = distribution_for(TAUGHT, {"steps": 50}).tasks("test", 0, 7)
    whole, parts = (
        accuracy_after(
            agent, TAUGHT, tasks, samples=(20, 50), env_kwargs={"steps": 50}, deterministic=True, batch_size=size
        )
        for size in (100, 3)
    )
    np.testing.assert_array_equal(whole.accuracy, parts.accuracy)
    np.testing.assert_array_equal(whole.commonest, parts.commonest)


@pytest.mark.parametrize("network", [{"kind": "plastic_rnn"}, {"kind": "lstm"}, {"kind": "rule_table"}])
def test_trained_agents_of_the_package_can_be_asked(network):
    env = make_vector(BANDIT, 2, env_kwargs=KWARGS)
    model = PlasticA2C("PlasticPolicy", env, seed=0, policy_kwargs={"network": {"hidden_size": 8, **network}})
    tasks = distribution_for(BANDIT, KWARGS).tasks("test", 0, 5)
    found = [accuracy_after(model, BANDIT, tasks, samples=(6, 12), env_kwargs=KWARGS, seed=3) for _ in range(2)]
    np.testing.assert_array_equal(found[0].accuracy, found[1].accuracy)
    assert ((found[0].accuracy >= 0.0) & (found[0].accuracy <= 1.0)).all()
    assert model.policy.network.plasticity_frozen is False


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    kwargs = {"data": "D", "steps": 300}
    agent = distribution_for(TAUGHT, kwargs).reference_agents("test")["logistic_labels"]
    more = {"mine": LogisticLearner(10, 4, rate=0.5)}
    return evaluate(agent, TAUGHT, tasks=10, env_kwargs=kwargs, resamples=200, extra_agents=more)


def test_an_evaluation_holds_the_accuracies_of_all(evaluation: Evaluation):
    split = evaluation.splits["test"]
    entries = split.entries()
    assert set(split.reference_agents) == {
        "random", "nearest_prototype", "logistic_bandit", "mlp_bandit", "nearest_prototype_labels", "logistic_labels",
        "mlp_labels", "oracle", "mine",
    }  # fmt: skip
    assert {point.samples for score in entries.values() for point in score.accuracy_after} == {300}
    found = {name: score.accuracy_after[0] for name, score in entries.items()}
    assert found["random"].accuracy == pytest.approx(0.25, abs=0.02)
    assert found["agent, sampled"].accuracy > 0.98
    assert found["agent, greedy"].accuracy == pytest.approx(found["agent, sampled"].accuracy, abs=0.01)
    assert found["agent, plasticity frozen"].accuracy < 0.4
    assert found["oracle"].accuracy == found["oracle"].online == 1.0
    assert found["agent, plasticity frozen"].commonest == 1.0
    assert 0.25 < found["oracle"].commonest < 0.29
    for name, point in found.items():
        assert point.accuracy_interval[0] <= point.accuracy <= point.accuracy_interval[1]
        assert point.difference == pytest.approx(point.accuracy - found["agent, sampled"].accuracy)
        assert point.online == pytest.approx(entries[name].raw_score / 300)
    # Paired on tasks: the two lose on the same tasks, so that their difference is known better than either.
    random = found["random"]
    assert random.difference_interval[1] < -0.6
    assert split.limit_kind == "oracle"
    assert split.normalised_score == pytest.approx(
        (split.raw_score - split.reference_agents["random"].raw_score)
        / (300 - split.reference_agents["random"].raw_score)
    )


def test_it_is_stored_shown_and_drawn(evaluation: Evaluation, tmp_path: Path):
    again = Evaluation.load(evaluation.save(tmp_path / "evaluation.json"))
    assert again == evaluation
    table = evaluation.table(rich=False)
    assert "accuracy after 300" in table
    point = evaluation.splits["test"].reference_agents["mine"].accuracy_after[0]
    line = next(line for line in table.splitlines() if line.strip().startswith("mine"))
    assert f"{point.accuracy:.3f} [{point.accuracy_interval[0]:.3f}" in line
    svg = plot_adaptation(evaluation, tmp_path / "adaptation.svg").read_text()
    plain = evaluation.model_copy(
        update={"splits": {"test": evaluation.splits["test"].model_copy(update={"accuracy_after": ()})}}
    )
    assert len(svg) > len(plot_adaptation(plain, tmp_path / "plain.svg").read_text())


def test_other_environments_have_none_and_misuse_is_told():
    bandit = "plastic_rl/BernoulliBandit-v0"
    distribution = distribution_for(bandit)
    agent = distribution.reference_agents("test")["random"]
    with pytest.raises(ConfigError, match="no held-out samples"):
        accuracy_after(agent, bandit, distribution.tasks("test", 0, 2))
    assert evaluate(agent, bandit, tasks=5, resamples=20).splits["test"].accuracy_after == ()
    with pytest.raises(ConfigError, match="samples must be numbers from 1"):
        accuracy_after(agent, BANDIT, distribution_for(BANDIT).tasks("test", 0, 2), samples=(0, 5))


def test_steps_are_raised_to_the_largest_number_of_samples():
    tasks = distribution_for(BANDIT, {"data": "iris"}).tasks("test", 0, 2)
    result = accuracy_after(Counting(True), BANDIT, tasks, samples=(5, 30), env_kwargs=KWARGS)
    assert result.samples == (5, 30)
    assert not np.isnan(result.accuracy).any()
