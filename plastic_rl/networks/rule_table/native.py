"""Rule-table networks on the native core: their arrays, and who acts by them in place.

Data flow: a network's prepared parameters -> a plan of the core, which they are bound to; the state before the first
step -> the core's private layout (units rounded up to sixteen, weights onto hidden units in tiles of sixteen); steps
take no arrays, and the state is there as a mapping whose entries are read out when they are asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from plastic_rl._native import extension
from plastic_rl.arrays import Array, BoolArray, IntArray
from plastic_rl.feedback import FeedbackLayout
from plastic_rl.networks.acting import ActsInPlace
from plastic_rl.networks.base import Params
from plastic_rl.networks.native import LANES, OUTPUTS, padded
from plastic_rl.networks.rule_table.config import LAYERS, Normalise, RuleTableConfig
from plastic_rl.networks.rule_table.update import TableUpdate

ACTIVATIONS = ("linear", "relu", "sigmoid", "tanh")
OUTPUT_TABLES = ("label_free", "supervised", "supervised_chosen")
"""As the core counts them; see `rule_table.h`."""

Born = Callable[[dict[str, Tensor], Tensor], dict[str, Tensor]]


def tiled(weights: Tensor) -> Tensor:
    """Weights `(R, O, I)` in tiles of sixteen units that they reach, `(R, S / 16, I, 16)`, a copy."""
    rows, units, pre = weights.shape
    tiles = -(-units // LANES)
    whole = weights.new_zeros(rows, tiles * LANES, pre)
    whole[:, :units] = weights
    return whole.view(rows, tiles, LANES, pre).mT.contiguous()


def untiled(tiles: Tensor, units: int) -> Tensor:
    """Weights `(R, O, I)` of `tiled`, a copy.

    >>> bool((untiled(tiled(torch.ones(2, 17, 3)), 17) == 1).all())
    True
    """
    return tiles.mT.flatten(1, 2)[:, :units].contiguous()


class TableActing(ActsInPlace):
    """A rule-table network that acts on the native core, in place; as a mapping it is its state after the last step.

    Args:
        level: Of instructions.
        config: The network's.
        update: The network's.
        ready: Its prepared parameters, with a leading `P` where there is a population.
        feedback: Where the observation tells what.
        columns: Of observations.
        shapes: Layer to the shape `(O, I)` of its weights.
        entries: Names of the state.
        shape: `(B,)` or `(P, B)`.
        state: Before the first step, entries `(.., B, ...)`.
        born: From the state and where lifetimes start, `(.., B)`, to their key and weights.
        readout: From outputs `(.., B, K)` to the action distribution's parameters.
        frozen: Whether synapses keep the state they have.

    Attributes:
        has_head: That it computes the action distribution's parameters.
    """

    has_head = True

    def __init__(
        self,
        level: str,
        config: RuleTableConfig,
        update: TableUpdate,
        ready: Params,
        feedback: FeedbackLayout,
        columns: int,
        shapes: Mapping[str, tuple[int, int]],
        entries: tuple[str, ...],
        shape: tuple[int, ...],
        state: Mapping[str, Tensor],
        born: Born,
        readout: Callable[[Tensor], Tensor],
        *,
        frozen: bool,
    ) -> None:
        core = extension()
        assert core is not None, "a level comes with the extension"
        self._shape, self._shapes, self._entries, self._born, self._readout = shape, shapes, entries, born, readout
        self._before: Mapping[str, Tensor] | None = state
        self._layers = update.layers
        units, inputs = shapes["input"]
        outputs = shapes["output"][0]
        self._units, self._lanes, self._rows = units, -(-units // LANES) * LANES, math.prod(shape)
        self._individuals = shape[0] if len(shape) == 2 else 1
        normalisations = get_args(Normalise)
        layers = {
            f"{layer}_{name}": int(value)
            for layer in LAYERS
            for name, value in {
                "plastic": layer in update.layers,
                "presynaptic": getattr(config.presynaptic, layer),
                "gated": layer != "output" and getattr(config.gated, layer),
                "normalise": normalisations.index(getattr(config.normalise, layer)),
                "shared": False,
            }.items()
        }
        self._plan = core.RuleTablePlan(
            level,
            **layers,
            cap=units if config.cap is None else config.cap,
            rounds=config.rounds,
            joosten=int(config.recurrence == "joosten"),
            activation=ACTIVATIONS.index(config.activation),
            with_one=int(config.inputs == "all"),
            output_table=OUTPUT_TABLES.index(config.output_table),
            zero_is_none=int(config.no_outcome == "zero_reward"),
            without_outcome=int(config.update_without_outcome),
            multiplicative=int(config.update == "multiplicative"),
            errors=int(config.when == "errors"),
            surprise=int(config.surprise),
            reads_reward=int(update.reads_reward),
            argmax=int(config.selection == "argmax"),
            explores=int(config.exploration > 0),
            frozen=int(frozen or not update.layers),
            reward_average_rate=config.reward_average_rate,
            individuals=self._individuals,
            lifetimes=shape[-1],
            columns=columns,
            inputs=inputs,
            units=units,
            outputs=outputs,
            action=feedback.action[0],
            reward=feedback.reward[0],
            label=feedback.label[0] if feedback.label is not None else 0,
        )
        self._observation = np.zeros((self._rows, columns), dtype=np.float32)
        self._starts = np.zeros(self._rows, dtype=np.uint8)
        self._noise = np.zeros(self._rows, dtype=np.float32)
        self._actions = np.zeros(self._rows, dtype=np.int64)
        self._held = {
            "code": torch.zeros(self._rows, self._lanes, dtype=torch.float32),
            "preference": torch.zeros(self._rows, outputs, dtype=torch.float32),
            "average": torch.zeros(self._rows, dtype=torch.float32),
        }
        for name, layer, size in (("seen", "input", inputs), ("arriving", "hidden", 0), ("kept", "output", 0)):
            if layer in update.layers and getattr(config.presynaptic, layer):
                self._held[name] = torch.zeros(self._rows, size or self._lanes, dtype=torch.float32)
        self._weights: dict[str, Tensor] = {}
        self._shared: set[str] = set()
        self._plan.bind(
            observation=self._observation, starts=self._starts, noise=self._noise, action=self._actions, **self._held
        )
        self._plan.bind(**self._parameters(ready, update))
        self._exported: dict[str, Tensor] = {}
        self._time = 0

    def _parameters(self, ready: Params, update: TableUpdate) -> dict[str, Tensor]:
        """What of the parameters the core reads, as it takes them."""
        P, C, found = self._individuals, update.codes, {}
        for layer in update.layers:
            tail = (-1, C, C) if layer == "hidden" else (-1, C)
            found[f"{layer}_rows"] = (
                ready[f"{layer}_rows"].detach().reshape(P, *tail).clone(memory_format=torch.contiguous_format)
            )
        for name in ("beta", "uniform", "guided"):
            if name in ready:
                found[name] = ready[name].detach().reshape(P).clone()
        return found

    # --- steps -----------------------------------------------------------------------------------------------------

    def step(self, observation: Array, starts: BoolArray, choice: int = OUTPUTS, noise: Array | None = None) -> bool:
        """Take a step; see `plastic_rl.networks.native.Acting`. `False` also where an output is infinite."""
        if self._before is not None:
            self._load(self._before, starts)
            self._before = None
        elif np.count_nonzero(starts):
            self._begin(starts)
        self._observation[:] = observation
        self._starts[:] = starts
        if noise is not None:
            self._noise[:] = noise
        self._exported = {}
        well: bool = self._plan.step(choice)
        self._time += 1
        return well

    @property
    def features(self) -> Tensor:
        """Outputs of the last step, `(.., B, K)`."""
        return self._by_lifetime(self._held["preference"]).clone()

    @property
    def outputs(self) -> Tensor:
        """Parameters of the action distribution, `(.., B, K)`."""
        return self._readout(self.features)

    @property
    def actions(self) -> IntArray:
        """What was chosen, `(P B,)`."""
        return self._actions

    @property
    def steps_done(self) -> int:
        """How many steps it has taken."""
        return self._time

    # --- state -----------------------------------------------------------------------------------------------------

    def _load(self, state: Mapping[str, Tensor], starts: BoolArray) -> None:
        entries = {name: state[name].detach() for name in self._entries}
        if np.count_nonzero(starts):
            entries |= self._born(entries, torch.from_numpy(starts).reshape(self._shape))
        self._key = entries["key"].clone()
        shared = {
            layer
            for layer in LAYERS
            if layer != "output" and layer not in self._layers and _is_shared(entries.get(f"{layer}_weight"))
        }
        self._share(shared)
        for layer in LAYERS:
            name = f"{layer}_weight"
            if name in entries:
                own = entries[name][0] if layer in shared else entries[name].reshape(-1, *self._shapes[layer])
                self._weights[name] = padded(own, self._lanes).clone() if layer == "output" else tiled(own)
        self._plan.bind(**self._weights)
        known = {
            "code": "code",
            "preference": "preference",
            "seen": "presynaptic.input",
            "arriving": "presynaptic.hidden",
            "kept": "presynaptic.output",
            "average": "reward_average",
        }
        for name, held in self._held.items():
            if known[name] in entries:
                value = entries[known[name]].reshape(self._rows, *held.shape[1:-1], -1).to(held.dtype)
                held.reshape(self._rows, -1)[:, : value.shape[-1]] = value

    def _begin(self, starts: BoolArray) -> None:
        """New weights in some rows."""
        if self._shared:
            for layer in self._shared:
                own = self._weights[f"{layer}_weight"]
                self._weights[f"{layer}_weight"] = own.repeat(self._individuals, 1, 1, 1)
            self._share(set())
            self._plan.bind(**self._weights)
        rows = torch.from_numpy(np.flatnonzero(starts))
        some = {"key": self._key.reshape(-1)[rows]}
        for name in self._weights:
            some[name] = torch.empty(len(rows), *self._shapes[name.removesuffix("_weight")], dtype=torch.float32)
        born = self._born(some, torch.ones(len(rows), dtype=torch.bool))
        self._key.view(-1)[rows] = born["key"]
        for name, held in self._weights.items():
            held[rows] = padded(born[name], self._lanes) if name == "output_weight" else tiled(born[name])

    def _share(self, layers: set[str]) -> None:
        self._shared = layers
        self._plan.share("input" in layers, "hidden" in layers)

    def _by_lifetime(self, values: Tensor) -> Tensor:
        return values.view(*self._shape, *values.shape[1:])

    def _export(self, name: str) -> Tensor:
        """An entry of the state, in a tensor of its own."""
        if name == "key":
            return self._key.clone()
        layer = name.removesuffix("_weight")
        if layer in LAYERS:
            own = self._weights[name]
            found = own[..., : self._units].clone() if layer == "output" else untiled(own, self._units)
            if layer in self._shared:
                return found.expand(*self._shape, *self._shapes[layer])
            return self._by_lifetime(found)
        if name == "code":
            return self._by_lifetime(self._held["code"][:, : self._units].to(torch.uint8))
        if name == "reward_average":
            return self._by_lifetime(self._held["average"].clone())
        if name == "preference":
            return self.features
        part, size = {
            "presynaptic.input": ("seen", self._shapes["input"][1]),
            "presynaptic.hidden": ("arriving", self._units),
            "presynaptic.output": ("kept", self._units),
        }[name]
        return self._by_lifetime(self._held[part][:, :size].clone())

    def __getitem__(self, name: str) -> Tensor:
        if self._before is not None:
            return self._before[name]
        if name not in self._entries:
            raise KeyError(name)
        if name not in self._exported:
            self._exported[name] = self._export(name)
        return self._exported[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def _is_shared(weights: Tensor | None) -> bool:
    """Whether all individuals have the same, `(P, B, O, I)`."""
    return weights is not None and weights.dim() == 4 and weights.shape[0] > 1 and weights.stride(0) == 0
