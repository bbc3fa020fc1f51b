"""`PlasticPolicy`: a plastic network with an action head and a value head, as a stable-baselines3 policy.

Data flow: observation `(B, I)` -> the network's features `(B, O)` and next state -> action head -> action. Learning
runs the same network over stored observations `(T, B, I)` and the heads once on `(T, B, O)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import torch
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from plastic_rl.arrays import IntArray, SingleArray
from plastic_rl.errors import PlasticRLError, SpaceError
from plastic_rl.feedback import CutFeedback, Feedback, FeedbackLayout
from plastic_rl.networks import Inside, make_network
from plastic_rl.networks.acting import ActsInPlace
from plastic_rl.networks.base import Params, State
from plastic_rl.networks.hidden_layers import HiddenLayer, UnitAxis
from plastic_rl.networks.recurrent import affine
from plastic_rl.plasticity import Range
from plastic_rl.policies.distributions import Categorical, IndependentBits, make_distribution

Before = Mapping[str, Tensor]
"""A state that is only read: tensors by name, or what acts on the native core, as the mapping that it is."""


class Evaluation(NamedTuple):
    """What learning needs to know of a rollout; each `(T, B)`, the hidden units' outputs `(T, B, H)` if asked for."""

    values: Tensor
    log_probability: Tensor
    entropy: Tensor
    sum_p2: Tensor
    activity: Tensor | None = None


class PreparedParams(dict[str, Tensor]):
    """A policy's parameters by dotted name, made ready for many steps of acting.

    Attributes:
        network: Those of its network, by the names that it gives them, and what it computed from them.
    """

    def __init__(self, params: Params, network: Params) -> None:
        super().__init__(params)
        self.network = network


SMALL_HEAD = 2**17
"""Products of an action head over all rows up to which NumPy is quicker than a call into torch, cold caches counted."""


class ArrayHead:
    """Action head and choice of a categorical policy in NumPy: on few rows a call costs less than one into torch.

    Args:
        weight: `(n, O)`.
        bias: `(n,)`.
        distribution: The choice.
    """

    def __init__(self, weight: Tensor, bias: Tensor, distribution: Categorical) -> None:
        self._weight: SingleArray = np.ascontiguousarray(weight.detach().numpy().T)
        self._bias: SingleArray = bias.detach().numpy()
        self._distribution = distribution

    def __call__(self, features: Tensor) -> SingleArray:
        """Logits `(B, n)` of features `(B, O)`."""
        shown = features.detach() if features.requires_grad else features
        return np.asarray(shown.numpy() @ self._weight + self._bias)

    def choose(self, logits: SingleArray, noise: Tensor | None) -> IntArray:
        """Actions `(B,)`, as `PlasticPolicy.choose` has them up to rounding."""
        return self._distribution.choose_rows(logits, None if noise is None else noise.numpy())


class PlasticPolicy(BasePolicy):
    """Network + action distribution + value: what acts in an environment.

    Args:
        observation_space: Flat Box, feedback included.
        action_space: Discrete, MultiDiscrete, MultiBinary or bounded Box.
        feedback: Columns of the feedback in the observation.
        network: Configuration of the network, e.g. `{"kind": "plastic_rnn", "rule": "oja", "hidden_size": 40}`; what
            is missing comes from the class's `default_network`.
        steps_per_trial: Steps of a trial where fixed (1 for bandits), else None.
        generator: Draws the initial parameters; its next draws seed the sampling stream.
        action_head_scale: Initial standard deviation of action head weights is this over sqrt(O); small values start
            with nearly uniform actions.
        initial_log_std: Start of the learned log standard deviation (Box actions only).

    Raises:
        SpaceError: If a space is not supported or does not hold the feedback columns.
        ConfigError: If the network configuration does not validate.
    """

    default_network: ClassVar[Mapping[str, Any]] = {"kind": "plastic_rnn"}

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        *,
        feedback: FeedbackLayout,
        network: Mapping[str, Any] | None = None,
        steps_per_trial: int | None = None,
        generator: torch.Generator | None = None,
        action_head_scale: float = 0.1,
        initial_log_std: float = 0.0,
    ) -> None:
        super().__init__(observation_space, action_space)
        if not isinstance(observation_space, spaces.Box) or len(observation_space.shape) != 1:
            raise SpaceError(
                f"observations must be a flat Box, got {observation_space}. Dict and image observations are not "
                "supported yet; other environments become flat through plastic_rl.envs.Lifetime"
            )
        self.input_size = int(observation_space.shape[0])
        if feedback.stop > self.input_size:
            raise SpaceError(f"the feedback columns end at {feedback.stop}, but observations have {self.input_size}")
        self.feedback_layout = feedback
        self.distribution = make_distribution(action_space)
        generator = generator if generator is not None else torch.Generator().manual_seed(0)
        self.network_config = _completed(network or {}, self.default_network)
        self.network = make_network(
            self.network_config,
            input_size=self.input_size,
            feedback=feedback,
            generator=generator,
            steps_per_trial=steps_per_trial,
        )
        features = self.network.output_size
        if self.network.discrete_only and not isinstance(self.distribution, Categorical):
            raise SpaceError(
                f"a {self.network_config['kind']} network chooses among the actions of one Discrete space, got "
                f"{action_space}"
            )
        if self.network.bits_only and not isinstance(self.distribution, IndependentBits):
            raise SpaceError(
                f"readout: units of {self.network_config['kind']} networks answers with bits (MultiBinary), got the "
                f"actions {action_space}; use readout: head"
            )
        if not self.network.has_readout:
            self.action_head = _linear(features, self.distribution.head_size, action_head_scale, generator)
        elif features != self.distribution.head_size:
            raise SpaceError(
                f"a {self.network_config['kind']} network chooses among {features} outputs of its own, but the actions "
                f"{action_space} need {self.distribution.head_size}"
            )
        self.value_head = _linear(features, 1, 1.0, generator)
        if self.distribution.has_scale:
            self.log_std = nn.Parameter(
                torch.full((self.distribution.head_size,), float(initial_log_std), dtype=torch.float32)
            )
        seed = torch.randint(2**62, (1,), generator=generator, device="cpu")
        self.sampling = torch.Generator().manual_seed(int(seed.item()))

    # --- pure functions of parameters, observation and state -------------------------------------------------------

    def parameters_by_name(self) -> dict[str, Tensor]:
        """Return every parameter under its dotted name: what `features` and `evaluate` take."""
        return dict(self.named_parameters())

    def prepared(self, params: Params) -> PreparedParams:
        """`params`, together with what each step would compute from them alone; `features` takes either."""
        return PreparedParams(params, self.network.prepared(_network(params)))

    def plasticity_parameters(self) -> list[str]:
        """Dotted names of the gains and rates of plasticity (alpha, eta, ...)."""
        return [f"network.{name}" for name in self.network.plasticity_parameters()]

    def hidden_layers(self) -> list[HiddenLayer]:
        """The network's layers of hidden units, with the heads that hear them; parameters by the policy's names."""
        heads = [f"{name}.weight" for name in ("action_head", "value_head")]
        layers = []
        for layer in self.network.hidden_layers():
            own, outgoing = (
                tuple(replace(one, parameter=f"network.{one.parameter}") for one in axes)
                for axes in (layer.own, layer.outgoing)
            )
            if layer.is_features:
                outgoing += tuple(UnitAxis(name, 1, tuple(range(layer.size))) for name in heads)
            layers.append(replace(layer, own=own, outgoing=outgoing))
        return layers

    def valid_ranges(self) -> dict[str, Range]:
        """Lowest and highest value of the parameters that have a range, by dotted name."""
        return {f"network.{name}": valid for name, valid in self.network.valid_ranges.items()}

    def feedback(self, observations: Tensor, episode_starts: Tensor) -> Feedback:
        """Cut the feedback out of observations `(.., B, I)`; nothing is valid where `episode_starts` is true."""
        return CutFeedback(self.feedback_layout, observations, episode_starts).whole()

    def head(self, params: Params, features: Tensor) -> Tensor:
        """Parameters `(.., B, H)` of the action distribution, from features `(.., B, O)`."""
        if self.network.has_readout:
            return self.network.readout(_network(params), features)
        return _apply(params, "action_head", features)

    def array_head(self, params: Params, rows: int) -> ArrayHead | None:
        """`head` and `choose` in NumPy, for so many rows and no population; None where torch is the better choice."""
        if self.network.has_readout or not isinstance(self.distribution, Categorical) or self.device.type != "cpu":
            return None
        weight, bias = params["action_head.weight"], params["action_head.bias"]
        small = rows * weight.numel() <= SMALL_HEAD and weight.dtype == torch.float32
        return ArrayHead(weight, bias, self.distribution) if small else None

    def acting_parameters(self) -> list[str]:
        """Dotted names of the trainable parameters that actions depend on: all but those of the value head."""
        return [
            name
            for name, parameter in self.named_parameters()
            if parameter.requires_grad and not name.startswith("value_head.")
        ]

    def features(
        self, params: Params, observation: Tensor, state: Before, episode_start: Tensor
    ) -> tuple[Tensor, State]:
        """One step of the network: features `(.., B, O)` and the next state.

        `params`, the observation `(.., B, I)` and its starts `(.., B)` may have a leading population axis `P`.
        """
        feedback: Any = CutFeedback(self.feedback_layout, observation, episode_start)
        return self.network.step(_network(params), observation, feedback, cast("State", state), episode_start)

    def acting(self, params: Params, state: Before, shape: tuple[int, ...], steps: int) -> ActsInPlace | None:
        """Who acts in place on the native core, where it computes the network; see `PlasticNetwork.acting`."""
        head = None if self.network.has_readout else (params["action_head.weight"], params["action_head.bias"])
        return self.network.acting(_network(params), state, shape, steps, head)

    def inside(self, params: Params, observation: Tensor, state: Before, episode_start: Tensor) -> Inside:
        """What `features` with the same arguments (no population axis) does within the network."""
        feedback = self.feedback(observation, episode_start)
        return self.network.inside(_network(params), observation, feedback, cast("State", state), episode_start)

    def choose(self, params: Params, head: Tensor, noise: Tensor | None) -> Tensor:
        """Choose actions by the action distribution's parameters `(.., B, H)`.

        `noise (.., B, noise_size)` is from `distribution.draw_noise`; None: take the most probable ones.
        """
        if noise is None:
            return self.distribution.mode(head)
        log_std = params.get("log_std")
        if log_std is not None and log_std.dim() > 1:
            log_std = log_std.unsqueeze(-2)  # (P, 1, K): one for all environments of an individual
        return self.distribution.sample(head, log_std, noise)

    def value(self, params: Params, observation: Tensor, state: Before, episode_start: Tensor) -> Tensor:
        """Value `(.., B)` of an observation, given the plastic state before it (the state is not advanced)."""
        features, _ = self.features(params, observation, state, episode_start)
        return self._value(params, features, self.head(params, features))

    def evaluate(
        self,
        params: Params,
        observations: Tensor,
        actions: Tensor,
        state: Before,
        episode_starts: Tensor,
        recorded: ActsInPlace | None = None,
        *,
        with_activity: bool = False,
    ) -> Evaluation:
        """Values, log probabilities, entropies of a rollout, differentiable in `params`.

        Args:
            params: From `parameters_by_name`.
            observations: `(T, B, I)`.
            actions: `(T, B)` or `(T, B, A)`, as sampled (not clipped).
            state: State before the first step.
            episode_starts: `(T, B)` bool.
            recorded: Who acted these steps with these same parameters on the native core; spares `unroll` its forward
                pass.
            with_activity: Whether the hidden units' outputs are told, by a network that `tells_activity`.
        """
        features, activity = self._unrolled(params, observations, state, episode_starts, recorded, with_activity)
        if self.network.has_readout:
            head = self.head(params, features)
            values = self._value(params, features, head)
        else:
            heads = [params[f"{name}_head.{part}"] for name in ("action", "value") for part in ("weight", "bias")]
            head, values = _Heads.apply(features, *heads)  # type: ignore[no-untyped-call]
        return Evaluation(values, *self.distribution.evaluate(head, params.get("log_std"), actions), activity)

    def _value(self, params: Params, features: Tensor, head: Tensor) -> Tensor:
        """Value `(.., B)` by features `(.., B, O)` and the action distribution's parameters `(.., B, H)`."""
        if self.network.has_readout:
            # The features are the preferences among actions: of any size, and not for the value loss to bend.
            features = self.distribution.certainty(head).detach()
        return _apply(params, "value_head", features).squeeze(-1)

    def outputs(
        self, params: Params, observations: Tensor, state: Before, episode_starts: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What a rollout's observations `(T, B, I)` were answered with, differentiable in `params`.

        Returns:
            Outputs `(T, B, H)` as numbers without bounds (the features of a network with a readout of its own, else
            the action head's), and the parameters `(T, B, H)` of the action distribution.
        """
        outputs, head, _ = self.outputs_and_activity(params, observations, state, episode_starts, with_activity=False)
        return outputs, head

    def outputs_and_activity(
        self, params: Params, observations: Tensor, state: Before, episode_starts: Tensor, *, with_activity: bool = True
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """What `outputs` returns, and the hidden units' outputs `(T, B, H)`, if asked for."""
        features, activity = self._unrolled(params, observations, state, episode_starts, None, with_activity)
        head = self.head(params, features)
        return features if self.network.has_readout else head, head, activity

    def _unrolled(
        self,
        params: Params,
        observations: Tensor,
        state: Before,
        episode_starts: Tensor,
        recorded: ActsInPlace | None,
        with_activity: bool,
    ) -> tuple[Tensor, Tensor | None]:
        feedback, before = self.feedback(observations, episode_starts), cast("State", state)
        run = _network(params), observations, feedback, before, episode_starts
        if with_activity:
            features, activity, _ = self.network.unroll_with_activity(*run, recorded=recorded)
            return features, activity
        features, _ = self.network.unroll(*run, recorded=recorded)
        return features, None

    # --- stable-baselines3's interface -----------------------------------------------------------------------------

    def predict(
        self,
        observation: npt.NDArray[Any] | dict[str, npt.NDArray[Any]],
        state: Any = None,
        episode_start: npt.NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[npt.NDArray[Any], Any]:
        """Choose actions, carrying the plastic state as stable-baselines3's opaque `state`.

        Args:
            observation: `(B, I)`, or `(I,)` for one environment.
            state: None at first, then what the last call returned.
            episode_start: `(B,)`; true where a new lifetime starts. Defaults to all true without a state, else false.
            deterministic: Take the most probable action instead of sampling.

        Returns:
            Actions `(B, ..)` (without `B` for one environment) and the next state.

        Raises:
            SpaceError: If the observation is not of the space that the agent was trained on, or the state or
                `episode_start` is of another number of environments.
        """
        batched, single = self._check_observation(observation)
        batch = batched.shape[0]
        _check_batch(batch, state, episode_start)
        device = self.device
        if episode_start is None:
            episode_start = np.full(batch, state is None)
        # A copy: evaluate_policy goes on writing into the array that it passes.
        starts = torch.from_numpy(np.array(episode_start, dtype=bool).reshape(batch))
        if state is None:
            state = self.network.initial_state(batch, self.sampling)
            state = {name: entry.to(device) for name, entry in state.items()}
        noise = None if deterministic else self.distribution.draw_noise((batch,), self.sampling).to(device)
        with torch.no_grad():
            params = self.parameters_by_name()
            features, state = self.features(params, batched.to(device), state, starts.to(device))
            actions = self.choose(params, self.head(params, features), noise)
            chosen = self.distribution.to_environment(actions).cpu().numpy()
        return (chosen[0] if single else chosen), state

    def _check_observation(self, observation: object) -> tuple[Tensor, bool]:
        if isinstance(observation, Mapping):
            raise SpaceError("Dict observations are not supported; wrap the environment in plastic_rl.envs.Lifetime")
        array = np.asarray(observation, dtype=np.float32)
        single = array.ndim == 1
        if array.ndim not in (1, 2) or array.shape[-1] != self.input_size:
            hint = ""
            if array.ndim in (1, 2) and array.shape[-1] == self.feedback_layout.start:
                hint = (
                    ". These look like observations without the previous action and reward, which the agent needs: "
                    "wrap the environment in plastic_rl.envs.Lifetime(env)"
                )
            raise SpaceError(f"expected observations (B, {self.input_size}), got shape {array.shape}{hint}")
        return torch.from_numpy(np.atleast_2d(array).copy()), single

    def _predict(self, observation: Any, deterministic: bool = False) -> Tensor:
        """One memoryless step; stable-baselines3 asks every policy for it. Use `predict`, which carries state."""
        actions, _ = self.predict(observation.cpu().numpy(), deterministic=deterministic)
        return torch.as_tensor(actions)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Not a stateless function: use `predict`, which takes and returns the plastic state."""
        raise PlasticRLError("a plastic policy has state; call predict, features or evaluate instead of forward")

    def save(self, path: str) -> None:
        """Refused: `BasePolicy.save` would pickle. Save the algorithm, whose zip holds no code."""
        raise PlasticRLError(f"cannot save a policy alone to {path}; use PlasticA2C.save, whose file runs no code")

    @classmethod
    def load(cls, path: str, device: Any = "auto") -> Any:
        """Refused: `BasePolicy.load` would unpickle. Load the algorithm and take its `policy`."""
        raise PlasticRLError(f"cannot load a policy alone from {path}; use PlasticA2C.load(path).policy")

    @property
    def is_plastic(self) -> bool:
        """False where there is nothing that `freeze_plasticity` could hold (an LSTM, alpha = 0)."""
        return self.network.is_plastic

    def freeze_plasticity(self) -> AbstractContextManager[None]:
        """Within this context synapses keep the state they have; activity goes on."""
        return self.network.freeze_plasticity()


class BackpropaminePolicy(PlasticPolicy):
    """Neuromodulated plasticity in a recurrent network (Miconi et al. 2019, eq. 3 with fan-out).

    Other rules of that paper: `policy_kwargs={"network": {"rule": "backpropamine_retroactive"}}`, or `_simple`.
    """

    default_network: ClassVar[Mapping[str, Any]] = {"kind": "plastic_rnn", "rule": "backpropamine_fan_out"}


class RNNPolicy(PlasticPolicy):
    """Control: a plain recurrent network."""

    default_network: ClassVar[Mapping[str, Any]] = {"kind": "rnn"}


class GRUPolicy(PlasticPolicy):
    """Control: a gated recurrent unit network."""

    default_network: ClassVar[Mapping[str, Any]] = {"kind": "gru"}


class LSTMPolicy(PlasticPolicy):
    """Control: a long short-term memory network (as in RL2; Wang et al. 2016, Duan et al. 2016)."""

    default_network: ClassVar[Mapping[str, Any]] = {"kind": "lstm"}


def _completed(network: Mapping[str, Any], default: Mapping[str, Any]) -> dict[str, Any]:
    """Fill in what `network` leaves out; a network of another kind than the default's shares none of its keys."""
    return {**default, **network} if network.get("kind", default["kind"]) == default["kind"] else dict(network)


def _check_batch(batch: int, state: Any, episode_start: Any) -> None:
    """Refuse a state or starts of another batch than that of the observations."""
    if state is not None:
        if not isinstance(state, Mapping) or not all(isinstance(entry, Tensor) for entry in state.values()):
            raise SpaceError(f"the state must be None or what the last predict returned, got {state!r:.80}")
        sizes = {entry.shape[0] if entry.dim() else 0 for entry in state.values()}
        if sizes - {batch}:
            raise SpaceError(
                f"the state is of {max(sizes)} environments, the observations of {batch}; give the state that the "
                "last predict returned for these environments, or None to begin new lifetimes"
            )
    if episode_start is not None and np.size(episode_start) != batch:
        raise SpaceError(
            f"episode_start must have {batch} entries, one for each observation, got {episode_start!r:.80}"
        )


class _Undrawn(nn.Linear):
    """Without numbers at first: nothing is drawn from torch's global stream."""

    def reset_parameters(self) -> None:
        pass


def _linear(inputs: int, outputs: int, scale: float, generator: torch.Generator) -> nn.Linear:
    layer = _Undrawn(inputs, outputs, dtype=torch.float32)
    with torch.no_grad():
        layer.weight.normal_(0.0, scale / inputs**0.5, generator=generator)
        layer.bias.zero_()
    return layer


def _apply(params: Params, name: str, features: Tensor) -> Tensor:
    return affine(features, params[f"{name}.weight"], params[f"{name}.bias"])


class _Heads(torch.autograd.Function):
    """Outputs `(T, B, H)` and values `(T, B)` of two linear heads on the same features `(T, B, O)`.

    Beside a network with a quick backward pass, the two gradients of that many features and their sum are not small:
    here they are one matrix product.
    """

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, weight: Tensor, bias: Tensor, value_weight: Tensor, value_bias: Tensor
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(features, weight, value_weight)
        return affine(features, weight, bias), affine(features, value_weight, value_bias).squeeze(-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_outputs: Tensor, of_values: Tensor) -> tuple[Tensor | None, ...]:
        features, weight, value_weight = ctx.saved_tensors
        both = torch.cat([of_outputs.movedim(-1, 0), of_values.unsqueeze(0)]).flatten(1)  # (H + 1, T B)
        weights = both @ features.flatten(0, -2)
        biases = both.sum(1)
        of_features = None
        if ctx.needs_input_grad[0]:
            of_features = (both.mT @ torch.cat([weight, value_weight])).view(features.shape)
        return of_features, weights[:-1], biases[:-1], weights[-1:], biases[-1:]


def _network(params: Params) -> Params:
    """The network's parameters, by the names that it gives them."""
    if isinstance(params, PreparedParams):
        return params.network
    return {name.removeprefix("network."): value for name, value in params.items() if name.startswith("network.")}
