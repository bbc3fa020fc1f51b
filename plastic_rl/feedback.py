"""What the observation says about the step before, and where an agent finds it there.

Every environment that plastic_rl trains on emits a flat Box
`[family features, previous action, previous reward, trial_start, t/T]` and declares the columns of the last four in
`metadata["feedback"]`, as `FeedbackLayout.to_dict()`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

Columns = tuple[int, int]


@dataclass(frozen=True)
class FeedbackLayout:
    """Half-open column ranges `(start, stop)` of the feedback inside the observation.

    Attributes:
        action: Previous action: one-hot (Discrete), concatenated one-hots (MultiDiscrete), bits or vector.
        reward: Previous reward (one column).
        trial_start: 1 where this step starts a trial (one column).
        time: Share of the lifetime that has passed, t/T (one column).
        label: Label of the previous sample, in supervised environments: one-hot, or +1 or -1 for each bit that was
            asked for (0 for the others); else None.
    """

    action: Columns
    reward: Columns
    trial_start: Columns
    time: Columns
    label: Columns | None = None

    @classmethod
    def after(cls, features: int, action_size: int, label_size: int = 0) -> FeedbackLayout:
        """The layout behind `features` leading columns; the label, where there is one, comes last.

        >>> FeedbackLayout.after(9, 4).reward
        (13, 14)
        """
        end = features + action_size
        label = (end + 3, end + 3 + label_size) if label_size else None
        return cls((features, end), (end, end + 1), (end + 1, end + 2), (end + 2, end + 3), label)

    @classmethod
    def from_dict(cls, mapping: Mapping[str, Any]) -> FeedbackLayout:
        """Read what `to_dict` wrote (lists, as JSON gives them, are fine)."""
        return cls(**{name: (int(columns[0]), int(columns[1])) for name, columns in mapping.items() if columns})

    def to_dict(self) -> dict[str, Columns]:
        """Return a plain mapping, as it stands in `metadata["feedback"]`."""
        return {name: columns for name, columns in asdict(self).items() if columns is not None}

    @property
    def action_size(self) -> int:
        """Number of columns of the action, `A`."""
        return self.action[1] - self.action[0]

    @property
    def start(self) -> int:
        """First feedback column: the number of family features before it."""
        return self.action[0]

    @property
    def stop(self) -> int:
        """One past the last feedback column."""
        return (self.label or self.time)[1]


class Feedback(NamedTuple):
    """What the observation says about the step before: cut out of it by the policy.

    With a population, or in `unroll`, the leading axes `P` or `T` come before `B`.

    Attributes:
        action: Previous action, one-hot (discrete) or as a vector, `(.., B, A)`; zero where not `valid`.
        reward: Previous reward, `(.., B)`; zero where not `valid`.
        trial_start: True where this step starts a trial, `(.., B)` bool.
        valid: True where there was a step before in this lifetime, `(.., B)` bool (false at `episode_start`).
        label: The previous sample's label, one-hot or bits `(.., B, A)`, from supervised environments; None from all
            others.
    """

    action: Tensor
    reward: Tensor
    trial_start: Tensor
    valid: Tensor
    label: Tensor | None = None

    def at(self, step: int) -> Feedback:
        """Return the feedback of one step of `T`."""
        label = None if self.label is None else self.label[step]
        return Feedback(self.action[step], self.reward[step], self.trial_start[step], self.valid[step], label)


class CutFeedback:
    """The attributes of `Feedback`, each cut out of an observation when it is first read.

    Few networks read more than one or two in a step, and each costs several calls into torch.

    Args:
        layout: Where.
        observation: `(.., B, I)`.
        episode_start: Where nothing is valid, `(.., B)` bool.
    """

    def __init__(self, layout: FeedbackLayout, observation: Tensor, episode_start: Tensor) -> None:
        self._layout, self._observation, self._episode_start = layout, observation, episode_start

    @cached_property
    def action(self) -> Tensor:
        """See `Feedback`."""
        return self._columns(self._layout.action)

    @cached_property
    def reward(self) -> Tensor:
        """See `Feedback`."""
        return self._observation.select(-1, self._layout.reward[0])

    @cached_property
    def trial_start(self) -> Tensor:
        """See `Feedback`."""
        return self._observation.select(-1, self._layout.trial_start[0]) > 0.5

    @cached_property
    def valid(self) -> Tensor:
        """See `Feedback`."""
        return ~self._episode_start

    @cached_property
    def label(self) -> Tensor | None:
        """See `Feedback`."""
        return None if self._layout.label is None else self._columns(self._layout.label)

    def whole(self) -> Feedback:
        """All of it."""
        return Feedback(self.action, self.reward, self.trial_start, self.valid, self.label)

    def _replace(self, **changes: Any) -> Feedback:
        """As `Feedback`, a named tuple, has it."""
        return self.whole()._replace(**changes)

    def _columns(self, between: Columns) -> Tensor:
        return self._observation.narrow(-1, between[0], between[1] - between[0])
