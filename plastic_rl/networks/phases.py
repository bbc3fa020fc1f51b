"""Phases of a lifetime, for any kind of plastic network: `development` before its first step, and `sleep`.

`phased(kind)` is that kind of network with these phases around its `step`. In a step: lifetimes that start are born,
and live their spontaneous phase; where a trial has ended, what waited for its last reward is done, and past trials are
replayed; this step is stored; the kind's own step. Lifetimes that are in no phase are computed along, at unchanged
shape, and keep what they have; phases that nobody is in are skipped.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from typing_extensions import override

from plastic_rl.config import ConfigModel
from plastic_rl.errors import ConfigError
from plastic_rl.feedback import Feedback, FeedbackLayout
from plastic_rl.networks.base import Params, PlasticNetwork, State, reset_entry
from plastic_rl.networks.development import CRITICAL_PERIOD, PROCESS, Development, DevelopmentConfig, openness
from plastic_rl.networks.sleep import REWARD, SleepConfig, StoredTrials
from plastic_rl.networks.structure import CLOCK


class PhasesConfig(ConfigModel):
    """What a network's lifetime has beside its observations."""

    development: DevelopmentConfig | None = Field(
        None, description="Spontaneous activity before the first observation, and a critical period; null: none."
    )
    sleep: SleepConfig | None = Field(None, description="Replay of past trials at the end of a trial; null: none.")


class Phased(PlasticNetwork):
    """A kind of network whose lifetimes have phases; made by `phased`.

    State entries beside the kind's own: `key` and `age`, the steps lived since birth; with sleep those of
    `StoredTrials`. Parameters: `development.process.NAME` and `development.critical_period.NAME`.

    Attributes:
        kind: What it is without phases.

    Raises:
        ConfigError: If nothing is plastic, or as `Development` and `StoredTrials` say.
    """

    kind: ClassVar[type[PlasticNetwork]]
    config: Any

    # Two underscores, for this stands before kinds that it knows nothing of, with private names of their own.

    @override
    def build(self, feedback: FeedbackLayout, generator: torch.Generator | None, steps_per_trial: int | None) -> None:
        self.kind.build(self, feedback, generator, steps_per_trial)
        development, sleep = self.config.development, self.config.sleep
        if not self.is_plastic:
            named = [name for name in PhasesConfig.model_fields if getattr(self.config, name) is not None]
            raise ConfigError(
                f"nothing in this network is plastic, so network.{' and network.'.join(named)} would do nothing; leave "
                "it out, or name a rule that changes synapses"
            )
        own = self._entries | CLOCK
        self.__action_size = feedback.action_size
        self.__developing: Development | None = None
        self.__trials: StoredTrials | None = None
        self.__phase_names: dict[str, dict[str, str]] = {}
        if development is not None:
            self.__developing = Development(development, self.input_size, feedback.start)
            self.development = nn.ModuleDict()
            for owner, parameters in self.__developing.parameters(generator).items():
                self.development[owner] = held = nn.ParameterDict()
                self.__phase_names[owner] = {name: f"development.{owner}.{name}" for name in parameters}
                for name, parameter in parameters.items():
                    self.adopt(self.__phase_names[owner][name], parameter, held)
        if sleep is not None:
            momentary = {name: entry for name, entry in own.items() if entry.momentary}
            self.__learned = [name for name, entry in own.items() if not entry.momentary]
            self.__trials = StoredTrials(sleep, steps_per_trial, self.input_size, feedback.action_size, momentary)
            own = own | self.__trials.entries
        self._entries = own

    @override
    def step(
        self, params: Params, x: Tensor, feedback: Feedback, state: State, episode_start: Tensor
    ) -> tuple[Tensor, State]:
        own, stored = self.__parted(self.begun(params, state, episode_start))
        feedback = feedback._replace(valid=feedback.valid & ~episode_start)
        if self.__developing is not None and self.__developing.steps and bool(episode_start.any()):
            # All are born, so that those of whom nothing is kept cannot come to numbers that are not finite either.
            born, _ = self.__parted(self.begun(params, state, torch.ones_like(episode_start)))
            developed = self.developed(params, born)
            own = {name: reset_entry(episode_start, own[name], entry) for name, entry in developed.items()}
        if self.__trials is not None:
            stored = self.__trials.told(stored, feedback)
            asleep = feedback.trial_start & ~episode_start
            if not self.plasticity_frozen and bool(asleep.any()):
                own = self.rewarded(params, own, feedback, feedback.valid)
                feedback = feedback._replace(valid=torch.zeros_like(episode_start))
                _, own = self.replayed(params, own | stored, asleep)
                own, stored = self.__parted(own)
            stored = self.__trials.noted(stored, x, own, feedback.trial_start | episode_start)
        features, following = self.__lived(params, x, feedback, own)
        return features, following | stored

    def developed(self, params: Params, state: State) -> State:
        """The `state` of newborn lifetimes after their spontaneous phase."""
        developing = self.__developing
        assert developing is not None, "there is a spontaneous phase"

        def step(params: Params, _: Params, state: State) -> tuple[State, State]:
            inputs = developing.inputs(self.__own_numbers(PROCESS, params), state)
            feedback = self.__untold(inputs, trial_start=torch.zeros_like(state["age"], dtype=torch.bool))
            return {}, self.__lived(params, inputs, feedback, state)[1]

        return self.looped(step, params, {}, state, developing.steps)[1]

    def replayed(self, params: Params, state: State, asleep: Tensor) -> tuple[list[Tensor], State]:
        """The stored trials, lived through again.

        Args:
            params: As in `step`.
            state: With the stored trials; never modified.
            asleep: In which lifetimes, `(.., B)` bool.

        Returns:
            The features `(.., B, O)` of each replayed step, and the state: what was learned is as the replay left it,
            what is momentary as it was. Lifetimes that are awake keep what they have. Synapses and units neither come
            nor go, since no time is lived.
        """
        trials = self.__trials
        assert trials is not None, "there is sleep"
        own, stored = self.__parted(state)
        features = []
        for _ in range(self.config.sleep.times):
            for trial in range(trials.trials):
                count = trials.count(stored, trial) * asleep
                current = self.recalled(params, own | trials.start(stored, trial))
                feedback = self.__untold(stored[REWARD], trial_start=torch.ones_like(asleep))
                for index in range(int(count.max())):
                    told, here = trials.at(stored, trial, index), index < count
                    with self.hold_structure():
                        feature, moved = self.__lived(params, told.inputs, feedback, current)
                    features.append(feature)
                    current = {name: reset_entry(here, current[name], entry) for name, entry in moved.items()}
                    action = reset_entry(here, feedback.action, told.action)
                    reward = reset_entry(here, feedback.reward, told.reward)
                    feedback = Feedback(action, reward, torch.zeros_like(asleep), torch.ones_like(asleep))
                if not self.plasticity_frozen:
                    last = feedback._replace(trial_start=torch.ones_like(asleep))  # nothing is expected beyond it
                    current = self.rewarded(params, current, last, count > 0)
                own = own | {name: current[name] for name in self.__learned}
        return features, own | stored

    def __untold(self, numbers: Tensor, trial_start: Tensor) -> Feedback:
        """Feedback that says nothing of a step before, of the type of `numbers`."""
        action = numbers.new_zeros(*trial_start.shape, self.__action_size)
        return Feedback(action, action[..., 0], trial_start, torch.zeros_like(trial_start))

    def __lived(self, params: Params, x: Tensor, feedback: Feedback, own: State) -> tuple[Tensor, State]:
        """A step of the kind, in which no lifetime starts."""
        features, following = self.kind.step(self, params, x, feedback, own, torch.zeros_like(feedback.valid))
        return features, {**following, "age": own["age"] + 1}

    def __parted(self, state: State) -> tuple[State, State]:
        """The state without what is stored of trials, and that."""
        stored = self.__trials.entries if self.__trials is not None else {}
        own = {name: entry for name, entry in state.items() if name not in stored}
        return own, {name: state[name] for name in stored}

    @override
    def openness(self, params: Params, state: State) -> Tensor | None:
        if CRITICAL_PERIOD not in self.__phase_names:
            return None
        return openness(self.__own_numbers(CRITICAL_PERIOD, params), state["age"]).unsqueeze(-1).unsqueeze(-1)

    def __own_numbers(self, owner: str, params: Params) -> Params:
        """The parameters of the process or of the critical period, under their own names."""
        return {name: params[whole] for name, whole in self.__phase_names[owner].items()}

    # Step by step: a kind's own faster ways know of no phases.
    unroll = PlasticNetwork.unroll
    acting = PlasticNetwork.acting


def phased(kind: type[PlasticNetwork]) -> type[Phased]:
    """That kind of network, with phases."""
    return type(f"Phased{kind.__name__}", (Phased, kind), {"kind": kind})
