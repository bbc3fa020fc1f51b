"""Accuracy after n samples: what an agent has learned of a data set, asked on samples that it was not shown.

Data flow: `run_lifetimes` streams samples and calls `AccuracyQuestions` at every step; after n samples that asks the
agent about the task's held-out samples, from the state that it has then, and throws the states that come out away.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from plastic_rl.arrays import FloatArray
from plastic_rl.envs import distribution_for, make_vector
from plastic_rl.envs.task import Agent, Task, TaskDistribution
from plastic_rl.errors import ConfigError
from plastic_rl.evaluation.lifetimes import Lifetimes, StepContext, freezer, run_lifetimes
from plastic_rl.families.classification.data import DataSet
from plastic_rl.families.classification.environment import ClassificationTasks


@dataclass(frozen=True)
class AccuracyAfter:
    """Accuracies on `N` tasks after each of `n` numbers of samples.

    Attributes:
        samples: The numbers of samples, n of them, ascending.
        accuracy: Share of the held-out samples that were answered rightly, greedily, `(N, n)`.
        online: Share of the samples streamed so far that were answered rightly, as the agent acted, `(N, n)`.
        commonest: Share of the commonest answer among those to the held-out samples, `(N, n)`: 1 where an agent calls
            everything the same.
    """

    samples: tuple[int, ...]
    accuracy: FloatArray
    online: FloatArray
    commonest: FloatArray

    def columns(self) -> FloatArray:
        """Accuracy, online accuracy and share of the commonest answer beside each other, `(N, 3 n)`."""
        return np.concatenate([self.accuracy, self.online, self.commonest], axis=1)


def accuracy_after(
    agent: Agent,
    env_id: str,
    tasks: Sequence[Task],
    *,
    samples: Sequence[int] = (500, 1000, 4000),
    env_kwargs: Mapping[str, Any] | None = None,
    seed: int = 0,
    deterministic: bool = False,
    batch_size: int = 1000,
) -> AccuracyAfter:
    """Let an agent live on each task, and ask it after n samples about samples that it was not shown.

    The questions are the held-out samples of the task, at most 1,000, answered greedily. An agent with
    `freeze_plasticity` (and not `is_plastic = False`) takes in the outcome of its n-th sample, is frozen, and answers
    every question from the state that it then has. Any other agent (an LSTM) is asked each question in place of sample
    n + 1, with that outcome before it. In both cases no outcome of a question is ever shown and no question changes
    the state that the next is answered from, nor the lifetime, which goes on as if nothing had been asked.

    The arguments are those of `run_lifetimes`, and `samples`: after how many samples to ask. The environment's `steps`
    are raised to the largest of these; an agent that looks at t/T then sees another T.

    Raises:
        ConfigError: If the environment has no held-out samples, or `samples` are none.

    >>> distribution = distribution_for("plastic_rl/Classification-v0")
    >>> agent = distribution.reference_agents("test")["random"]
    >>> result = accuracy_after(agent, "plastic_rl/Classification-v0", distribution.tasks("test", 0, 4), samples=[20])
    >>> result.accuracy.shape, bool(abs(result.accuracy.mean() - 0.25) < 0.04)
    ((4, 1), True)
    """
    kwargs = dict(env_kwargs or {})
    if not samples or min(samples) < 1:
        raise ConfigError(f"samples must be numbers from 1, got {list(samples)}")
    declared = make_vector(env_id, 1, env_kwargs=kwargs)
    if "accuracy_after" not in declared.metadata:
        raise ConfigError(f"{env_id} has no held-out samples to ask about; use a classification environment")
    kwargs["steps"] = max(*samples, declared.metadata["lifetime_steps"] if "steps" in kwargs else 1)
    questions = AccuracyQuestions(distribution_for(env_id, kwargs), samples, len(tasks), declared.metadata["pays"])
    lived = run_lifetimes(
        agent,
        env_id,
        tasks,
        env_kwargs=kwargs,
        deterministic=deterministic,
        seed=seed,
        batch_size=batch_size,
        on_step=questions,
    )
    return questions.result(lived)


class AccuracyQuestions:
    """A callback for `run_lifetimes`: asks about held-out samples whenever the lifetimes have seen n samples.

    Args:
        distribution: Where the tasks come from; it must have `data_set`.
        samples: After how many samples to ask.
        tasks: Number of tasks, N.
        pays: What a wrong and a right answer earn in the environment.

    Raises:
        ConfigError: If the distribution has no data sets.
    """

    def __init__(
        self, distribution: TaskDistribution, samples: Sequence[int], tasks: int, pays: tuple[float, float]
    ) -> None:
        if not isinstance(distribution, ClassificationTasks):
            raise ConfigError(f"the tasks of {distribution.family} are no data sets, so that none has held-out samples")
        self.samples = tuple(sorted(set(samples)))
        self._distribution = distribution
        self._pays = pays
        self._accuracy = np.full((tasks, len(self.samples)), np.nan)
        self._commonest = np.full((tasks, len(self.samples)), np.nan)
        self._batch: tuple[int, list[DataSet]] | None = None

    def __call__(self, context: StepContext) -> None:
        """Ask, if it is time to."""
        if context.time not in self.samples:
            return
        place = self.samples.index(context.time)
        data = self._data(context)
        count = min(len(each.held_out) for each in data)
        labels = np.stack([each.held_out_labels[:count] for each in data], axis=1)
        rows = slice(context.first, context.first + len(context.tasks))
        answers = ask(context, _questions(data, count))
        classes = self._distribution.source.classes
        counts = (answers[:, :, None] == np.arange(classes)).sum(axis=0)
        self._accuracy[rows, place] = (answers == labels).mean(axis=0)
        self._commonest[rows, place] = counts.max(axis=1) / len(answers)

    def _data(self, context: StepContext) -> list[DataSet]:
        """The data of the tasks that are lived, made once for a batch."""
        if self._batch is None or self._batch[0] != context.first:
            self._batch = (context.first, [self._distribution.data_set(task) for task in context.tasks])
        return self._batch[1]

    def result(self, lived: Lifetimes) -> AccuracyAfter:
        """What was found, with the online accuracy of the same lifetimes."""
        wrong, right = self._pays
        sums = np.cumsum((lived.scores - wrong) / (right - wrong), axis=1)
        counts = np.asarray(self.samples)
        return AccuracyAfter(self.samples, self._accuracy, sums[:, counts - 1] / counts, self._commonest)


def _questions(data: Sequence[DataSet], count: int, at_once: int = 64) -> Iterator[npt.NDArray[np.float32]]:
    """The first `count` held-out samples of each data set, one of each at a time: `(B, F)`, some of them made ahead."""
    for start in range(0, count, at_once):
        stop = min(start + at_once, count)
        yield from np.stack([each.standardised(each.held_out[start:stop]) for each in data], axis=1)


def ask(context: StepContext, questions: Iterable[npt.NDArray[Any]]) -> npt.NDArray[np.int64]:
    """Greedy answers `(h, B)` to h questions `(B, F)`, all from the state of this step; see `accuracy_after`."""
    agent, state = context.agent, context.state
    no_start = np.zeros(len(context.tasks), dtype=np.bool_)
    seen = context.observation.copy()
    freeze = freezer(agent)
    if freeze is not None:
        state = agent.predict(context.view(seen), state, no_start.copy(), True)[1]
    answers = []
    with nullcontext() if freeze is None else freeze():
        for question in questions:
            seen[:, : question.shape[1]] = context.env.as_seen(question)
            answers.append(context.env.as_done(agent.predict(context.view(seen), state, no_start.copy(), True)[0]))
    return np.asarray(answers, dtype=np.int64)
