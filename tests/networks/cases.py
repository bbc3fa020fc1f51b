"""Networks, inputs and comparisons that several test modules use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from plastic_rl import networks
from plastic_rl.feedback import FeedbackLayout
from plastic_rl.networks import Feedback, PlasticNetwork, State
from plastic_rl.plasticity import RULES

INPUTS, ACTIONS = 8, 2

FEED_FORWARD: dict[str, dict[str, Any]] = {
    f"feed_forward_{rule}_{start}": {"kind": "plastic_feed_forward", "rule": rule, "start": start, "inputs": "all"}
    for rule in ("abcd", "general", "bcm", "oja", "reward_gated", "reward_gated_retroactive", "fixed")
    for start in ("random", "trained")
    if (rule, start) != ("fixed", "random")
}
_TABLES: dict[str, Any] = {"kind": "rule_table", "cap": 3, "rounds": 2, "inputs": "all", "tables": "normal"}
_ALL_LAYERS = {"input": True, "hidden": True, "output": True}
RULE_TABLES: dict[str, dict[str, Any]] = {
    "rule_table_label_free": _TABLES | {"plastic": _ALL_LAYERS, "gated": {"input": True, "hidden": True}},
    "rule_table_cristian": _TABLES
    | {
        "recurrence": "cristian",
        "activation": "tanh",
        "presynaptic": {"input": False, "hidden": True, "output": True},
        "normalise": {"input": "none", "hidden": "outgoing_l2", "output": "incoming_l2"},
        "plastic": _ALL_LAYERS,
        "no_outcome": "zero_reward",
        "update_without_outcome": True,
        "surprise": True,
    },
    "rule_table_multiplicative": _TABLES
    | {"update": "multiplicative", "when": "errors", "activation": "linear", "start_weights": {"output": "normal"}},
    "rule_table_supervised": _TABLES | {"output_table": "supervised_chosen", "rounds": 0, "plastic": _ALL_LAYERS},
    "rule_table_errors": _TABLES
    | {"output_table": "supervised", "when": "errors", "inputs": "features", "activation": "sigmoid"},
}
_REWIRE = {"name": "rewire", "density": 0.5, "every": 3, "share": 0.4}
_LIF = {"name": "lif", "threshold": 1.0, "tau": 3.0, "refractory": 1.0}
UNITS: dict[str, dict[str, Any]] = {
    "units_rate": {"kind": "plastic_units", "recurrent": {"rule": "backpropamine_fan_out"}},
    "units_rate_rewarded": {
        "kind": "plastic_units",
        "neuron": "sigmoid",
        "intrinsic": {"name": "triesch", "learned": ["mean"]},
        "input": {"rule": "reward_gated_retroactive"},
        "recurrent": {"rule": "reward_gated", "modulator": "reward_prediction_error"},
    },
    "units_spiking": {
        "kind": "plastic_units",
        "neuron": _LIF,
        "substeps": 4,
        "intrinsic": "adapting_threshold",
        "recurrent": {
            "rule": "stdp",
            "kinetics": "alpha",
            "short_term": {"name": "markram", "learned": ["utilisation"]},
        },
        "readout": {
            "rule": "r_stdp",
            "neuron": {**_LIF, "threshold": 0.2},
            "weight": {"granularity": "synapse", "low": 0.2, "high": 0.6},
            "population": 2,
            "inhibition": {"granularity": "scalar", "low": 0.5, "high": 0.5},
            "efference_copy": True,
        },
        "reset": {"eligibility.readout": "trial"},
    },
    "units_poisson": {
        "kind": "plastic_units",
        "dendrites": {"name": "sigmoid", "learned": ["branch_threshold"]},
        "branches": 3,
        "neuron": {**_LIF, "name": "adaptive_lif", "beta": 2.0, "learned": ["beta", "tau"]},
        "substeps": 3,
        "step_size": 2.0,
        "on_off": True,
        "coding": "poisson",
        "input": {
            "kinetics": "exponential",
            "rule": "stdp",
            "term": {"name": "stdp_pair", "pairing": "nearest", "centred": "both"},
            "eligibility": "trace",
        },
    },
}
UNITS |= {
    "units_competing": {
        "kind": "plastic_units",
        "neuron": "relu",
        "competition": {"name": "k_cap", "k": 3, "winner": "distance"},
        "intrinsic": "adapting_threshold",
        "substeps": 2,
        "layer_norm": 1.5,
        "input": {"rule": "instar", "trace_start": "weight", "consolidation": "benna_fusi"},
        "recurrent": {"rule": "oja", "trace_start": "weight", "structure": _REWIRE, "consolidation": "two_speeds"},
        "readout": {"rule": "reward_gated", "neuron": "linear", "competition": "winner_take_all"},
    },
    "units_map": {
        "kind": "plastic_units",
        "neuron": "linear",
        "competition": {
            "name": "neighbourhood",
            "winner": "distance",
            "columns": 2,
            "tau_width": 5.0,
            "learned": ["width", "final_width"],
        },
        "input": {"rule": "instar", "trace_start": "weight"},
    },
}
PARTS: dict[str, dict[str, Any]] = {
    "covariance_learned": {
        "kind": "plastic_rnn",
        "rule": "covariance",
        "term": {"name": "covariance", "threshold": "parameter", "learned": ["threshold_pre", "threshold_post"]},
        "bound": "soft_non_negative",
    },
    "covariance_from_learned_means": {
        "kind": "plastic_feed_forward",
        "start": "random",
        "rule": "covariance",
        "term": {"name": "covariance", "threshold_pre": 0.1, "learned": ["threshold_pre", "threshold_post"]},
    },
    "covariance_layer_mean": {
        "kind": "plastic_rnn",
        "rule": "covariance",
        "term": {"name": "covariance", "threshold": "layer_mean"},
        "bound": "non_negative",
    },
    "units_triplet_calcium_inhibitory": {
        "kind": "plastic_units",
        "neuron": _LIF,
        "substeps": 3,
        "step_size": 2.0,
        "input": {"rule": "triplet", "term": {"name": "stdp_triplet", "pairing": "nearest", "centred": "both"}},
        "recurrent": {"rule": "inhibitory_stdp"},
        "readout": {"rule": "calcium", "neuron": {**_LIF, "threshold": 0.2}, "term": {"name": "calcium", "delay": 5.0}},
    },
}
PARTS |= {
    "channels": {
        "kind": "plastic_rnn",
        "rule": "reward_gated",
        "modulator": {
            "name": "channels",
            "channels": ["reward", "reward_prediction_error", "novelty", "serotonin", "learned_signal"],
            "attention": True,
        },
    },
    "channels_without_reward": {
        "kind": "plastic_units",
        "recurrent": {
            "rule": "hard_clip",
            "modulator": {"name": "channels", "channels": ["novelty", "learned_signal"], "learned": ["novelty_rate"]},
        },
    },
}
_REWIRE = {"name": "rewire", "density": 0.5, "every": 3, "share": 0.4}
WIRING: dict[str, dict[str, Any]] = {
    "units_dale": {
        "kind": "plastic_units",
        "excitatory": 0.6,
        "input": {"rule": "oja", "sign": "inhibitory"},
        "recurrent": {"rule": "backpropamine_simple", "structure": _REWIRE, "homeostasis": "synaptic_scaling"},
        "readout": {"rule": "r_stdp", "neuron": "sigmoid", "consolidation": "two_speeds", "normalise": "outgoing_l2"},
    },
    "units_conducting": {
        "kind": "plastic_units",
        "neuron": {**_LIF, "rest": -1.0, "reset": -1.5},
        "intrinsic": "adapting_threshold",
        "excitatory": 0.8,
        "substeps": 3,
        "on_off": True,
        "input": {"conductance": {"excitatory": 6.0, "inhibitory": -3.0}, "rule": "stdp"},
        "recurrent": {"conductance": {"excitatory": 6.0, "inhibitory": -3.0}, "kinetics": "exponential"},
        "readout": {
            "rule": "r_stdp",
            "neuron": {**_LIF, "threshold": 0.2},
            "conductance": {"excitatory": 6.0, "inhibitory": -1.0},
            "short_term": "markram",
            "weight": {"granularity": "synapse", "low": 0.2, "high": 0.6},
        },
    },
}
PARTS |= {
    "scaling": {
        "kind": "plastic_rnn",
        "rule": "backpropamine_simple",
        "homeostasis": {"name": "synaptic_scaling", "learned": ["scaling_target", "scaling_rate"]},
    },
    "scaling_without_plasticity": {"kind": "plastic_rnn", "rule": "fixed", "homeostasis": "synaptic_scaling"},
    "heterosynaptic_two_speeds": {
        "kind": "plastic_feed_forward",
        "start": "trained",
        "rule": "reward_gated_retroactive",
        "homeostasis": {"name": "heterosynaptic", "learned": ["heterosynaptic_rate", "tau_heterosynaptic"]},
        "consolidation": {"name": "two_speeds", "learned": ["slow_rate", "slow_pull"]},
    },
    "benna_fusi_sparse": {
        "kind": "plastic_feed_forward",
        "start": "random",
        "rule": "abcd",
        "homeostasis": "heterosynaptic",
        "consolidation": {"name": "benna_fusi", "variables": 3, "chain_rate": 4.0, "learned": ["chain_rate"]},
        "structure": {"name": "sparse", "density": 0.4},
    },
    "importance": {
        "kind": "plastic_rnn",
        "rule": "differentiable_plasticity",
        "metaplasticity": {"name": "importance", "learned": ["importance_strength", "importance_forgetting"]},
    },
    "layer_norm": {"kind": "plastic_rnn", "rule": "backpropamine_retroactive", "layer_norm": 1.0},
    "layer_norm_fixed": {"kind": "plastic_rnn", "rule": "fixed", "layer_norm": 1.0},
    "sparse_fixed": {"kind": "plastic_rnn", "rule": "fixed", "structure": "sparse"},
    "sparse_by_lifetime": {
        "kind": "plastic_rnn",
        "rule": "delta",
        "normalise": "incoming_l2",
        "structure": {"name": "sparse", "density": 0.4, "drawn": "lifetime"},
    },
    "rewire": {"kind": "plastic_rnn", "rule": "hard_clip", "metaplasticity": "importance", "structure": _REWIRE},
    "rewire_by_eligibility": {
        "kind": "plastic_rnn",
        "rule": "reward_gated_retroactive",
        "structure": _REWIRE | {"grow": "eligibility", "drawn": "lifetime"},
    },
    "rewire_random_start": {
        "kind": "plastic_feed_forward",
        "start": "random",
        "rule": "oja",
        "consolidation": "two_speeds",
        "structure": _REWIRE | {"drawn": "lifetime"},
    },
    "units_held_and_rewired": {
        "kind": "plastic_units",
        "neuron": _LIF,
        "substeps": 3,
        "input": {"rule": "stdp", "structure": "sparse", "homeostasis": "synaptic_scaling"},
        "recurrent": {
            "rule": "r_stdp",
            "structure": _REWIRE | {"grow": "eligibility"},
            "homeostasis": "heterosynaptic",
        },
        "readout": {
            "rule": "r_stdp",
            "neuron": {**_LIF, "threshold": 0.2},
            "efference_copy": True,
            "metaplasticity": "importance",
            "homeostasis": "synaptic_scaling",
            "consolidation": "benna_fusi",
            "structure": _REWIRE | {"drawn": "lifetime"},
        },
    },
}
_DEVELOPMENT: dict[str, Any] = {"steps": 3, "critical_period": {"tau": 20.0, "learned": ["tau", "floor"]}}
PHASES: dict[str, dict[str, Any]] = {
    "developed_rnn": {
        "kind": "plastic_rnn",
        "rule": "oja",
        "development": _DEVELOPMENT | {"process": {"name": "white", "learned": ["amplitude"]}},
    },
    "sleeping_rnn": {
        "kind": "plastic_rnn",
        "rule": "reward_gated_retroactive",
        "sleep": {"steps": 3, "trials": 2, "times": 2},
    },
    "developed_sleeping_rnn": {
        "kind": "plastic_rnn",
        "rule": "differentiable_plasticity",
        "metaplasticity": "importance",
        "development": _DEVELOPMENT | {"process": {"name": "correlated", "sources": 2}},
        "sleep": {"steps": 4, "order": "reverse"},
        "reset": {"activity": "trial"},
    },
    "developed_feed_forward": {
        "kind": "plastic_feed_forward",
        "rule": "reward_gated",
        "start": "trained",
        "development": _DEVELOPMENT | {"process": "waves"},
        "sleep": {"steps": 4, "trials": 2},
    },
    "developed_units": {
        "kind": "plastic_units",
        "neuron": {**_LIF, "name": "adaptive_lif", "beta": 2.0},
        "substeps": 2,
        "on_off": True,
        "coding": "poisson",
        "intrinsic": "adapting_threshold",
        "input": {"rule": "stdp", "kinetics": "exponential"},
        "recurrent": {"rule": "r_stdp", "short_term": "markram", "homeostasis": "heterosynaptic"},
        "readout": {"rule": "r_stdp", "neuron": {**_LIF, "threshold": 0.2}, "efference_copy": True},
        "development": _DEVELOPMENT | {"process": "poisson"},
        "sleep": {"steps": 4, "trials": 2, "order": "reverse"},
    },
}
PHASES |= {
    "developed_sleeping_units_that_turn_over": {
        "kind": "plastic_units",
        "neuron": "relu",
        "competition": {"name": "k_cap", "k": 3},
        "layer_norm": 1.0,
        "input": {"rule": "instar"},
        "recurrent": {
            "rule": "reward_gated_retroactive",
            "structure": _REWIRE | {"every": 2},
            "consolidation": "two_speeds",
        },
        "readout": {"rule": "reward_gated_retroactive", "neuron": "linear", "competition": "winner_take_all"},
        "turnover": {"every": 3, "share": 0.3, "maturity": 1, "utility_rate": 0.3},
        "development": _DEVELOPMENT,
        "sleep": {"steps": 4, "trials": 2, "times": 2},
    },
    "developed_sleeping_units_of_either_sign": {
        "kind": "plastic_units",
        "excitatory": 0.6,
        "neuron": "linear",
        "competition": {"name": "neighbourhood", "columns": 2},
        "recurrent": {"rule": "oja", "trace_start": "weight", "structure": _REWIRE | {"every": 2}},
        "inhibitory": {"size": 3, "neuron": "sigmoid", "inhibition": {"rule": "inhibitory_stdp"}},
        "development": _DEVELOPMENT,
        "sleep": {"steps": 4},
    },
}
_STRENGTH = {"granularity": "synapse", "low": 0.0, "high": 1.0, "trainable": False}
SORN: dict[str, Any] = {
    "kind": "plastic_units",
    "hidden_size": 100,
    "excitatory": 1.0,
    "neuron": {"name": "binary", "threshold": 0.25, "threshold_spread": 0.25},
    "intrinsic": {"name": "adapting_threshold", "rate": 0.01, "target": 0.1},
    "input": {"weight": _STRENGTH},
    "recurrent": {
        "rule": "sorn",
        "weight": _STRENGTH,
        "trace_start": "weight",
        "structure": {"name": "sparse", "density": 0.1, "loops": False},
    },
    "inhibitory": {
        "size": 20,
        "neuron": {"name": "binary", "threshold": 0.5, "threshold_spread": 0.5},
        "excitation": {"weight": _STRENGTH, "normalise": "incoming_l1"},
        "inhibition": {"weight": _STRENGTH, "normalise": "incoming_l1"},
    },
}
"""The self-organising recurrent network of Lazar, Pipa & Triesch 2009, with a faster intrinsic plasticity."""
WIRING |= {
    "units_sorn": SORN | {"recurrent": SORN["recurrent"] | {"structure": {**_REWIRE, "loops": False}}},
    "units_inhibitory": {
        "kind": "plastic_units",
        "branches": 2,
        "dendrites": "rectified",
        "recurrent": {"rule": "oja", "trace_start": "weight", "consolidation": "benna_fusi"},
        "inhibitory": {
            "size": 3,
            "neuron": "sigmoid",
            "intrinsic": "triesch",
            "excitation": {"rule": "reward_gated_retroactive"},
            "inhibition": {"rule": "inhibitory_stdp"},
        },
        "readout": {"rule": "delta", "neuron": "linear"},
    },
}
PARTS["units_one_to_one"] = {
    "kind": "plastic_units",
    "neuron": _LIF,
    "bias": False,
    "substeps": 3,
    "input": {"one_to_one": True, "weight": {"granularity": "synapse", "low": 1.0, "high": 3.0, "trainable": False}},
    "recurrent": {"rule": "stdp", "kinetics": "exponential"},
}
_TURNOVER = {"every": 3, "share": 0.3, "maturity": 1, "utility_rate": 0.3}
PARTS |= {
    "units_turnover": {
        "kind": "plastic_units",
        "input": {"rule": "bcm", "homeostasis": "synaptic_scaling"},
        "recurrent": {
            "rule": "reward_gated_retroactive",
            "structure": _REWIRE | {"every": 4},
            "consolidation": "benna_fusi",
        },
        "readout": {"rule": "reward_gated", "neuron": "linear", "population": 2, "metaplasticity": "importance"},
        "turnover": _TURNOVER,
    },
    "units_turnover_spiking": {
        "kind": "plastic_units",
        "neuron": {**_LIF, "name": "adaptive_lif", "beta": 2.0},
        "intrinsic": "adapting_threshold",
        "branches": 2,
        "substeps": 3,
        "input": {"kinetics": "exponential"},
        "recurrent": {"rule": "stdp", "short_term": "markram", "kinetics": "alpha"},
        "readout": {
            "rule": "r_stdp",
            "neuron": {**_LIF, "threshold": 0.2},
            "weight": {"granularity": "neuron", "low": 0.2, "high": 0.6},
            "efference_copy": True,
        },
        "turnover": _TURNOVER,
    },
}
ATTRACTORS: dict[str, dict[str, Any]] = {
    "attractor_hebb_head": {"kind": "attractor", "beta": 1.5, "rounds": 2},
    "attractor_delta_units": {
        "kind": "attractor",
        "storage": "delta",
        "inputs": "all",
        "readout": "units",
        "beta": 0.7,
        "rate": 0.3,
    },
}
_META_SGD = {"granularity": "synapse", "low": 0.2, "high": 0.5}
FINE_TUNING: dict[str, dict[str, Any]] = {
    "fine_tuning": {"kind": "fine_tuning"},
    "fine_tuning_to_go": {
        "kind": "fine_tuning",
        "inputs": "all",
        "credit": "reward_to_go",
        "discount": 0.8,
        "segments": 2,
        "inner_rate": _META_SGD,
    },
    "fine_tuning_first_order": {
        "kind": "fine_tuning",
        "first_order": True,
        "segment_steps": 3,
        "discount": 0.9,
        "baseline": "none",
    },
    "fine_tuning_without": {
        "kind": "fine_tuning",
        "inner_rate": {"granularity": "scalar", "low": 0.0, "high": 0.0, "trainable": False},
    },
}
ONE_TO_ONE: dict[str, dict[str, Any]] = {
    f"one_to_one_{rule}": {
        "kind": "plastic_rnn",
        "rule": rule,
        "input_gain": {"granularity": granularity, "low": 2.0, "high": 2.0},
        "readout": "units",
        "reset": {"activity": "trial"},
    }
    for rule, granularity in (("differentiable_plasticity", "scalar"), ("reward_gated", "neuron"), ("fixed", "scalar"))
}
"""Three units see the features of `INPUTS` columns, the others nothing; two are the actions."""
ALL: dict[str, dict[str, Any]] = (
    {rule: {"kind": "plastic_rnn", "rule": rule} for rule in RULES}
    | {kind: {"kind": kind} for kind in ("rnn", "gru", "lstm")}
    | FEED_FORWARD
    | RULE_TABLES
    | UNITS
    | PARTS
    | PHASES
    | WIRING
    | ATTRACTORS
    | FINE_TUNING
    | ONE_TO_ONE
)


def make_network(
    config: Any, inputs: int, actions: int, *args: Any, labels: bool | None = None, **kwargs: Any
) -> PlasticNetwork:
    """A network for observations of `inputs` columns that end in the feedback (with labels where the config asks)."""
    if labels is None:
        labels = isinstance(config, Mapping) and str(config.get("output_table")).startswith("supervised")
    features = inputs - actions - 3 - labels * actions
    layout = FeedbackLayout.after(max(features, 0), actions, labels * actions)
    if isinstance(config, Mapping) and config.get("kind") == "attractor":
        # It has a unit for each column that it sees.
        config = {name: value for name, value in config.items() if name != "hidden_size"}
    return networks.make_network(config, inputs, layout, *args, **kwargs)


@dataclass
class Case:
    """A network, its parameters, and a sequence with starts in the middle."""

    network: PlasticNetwork
    params: dict[str, Tensor]
    xs: Tensor
    feedbacks: Feedback
    starts: Tensor
    state: State


def make_case(
    config: Mapping[str, Any],
    *,
    steps: int = 17,
    batch: int = 5,
    units: int = 6,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
    scale: float = 0.2,
    start_rate: float = 0.1,
) -> Case:
    """A random case; parameters are moved `scale` away from their start values, the state is not the newborn one."""
    generator = torch.Generator().manual_seed(seed)
    network = make_network({**config, "hidden_size": units}, INPUTS, ACTIONS, generator).to(dtype)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=dtype)

    params = {name: value.detach() + scale * normal(*value.shape) for name, value in network.named_parameters()}
    shares = {"eta_eligibility", "reward_average_rate", "bcm_rate", "value_rate", "discount", "rate", "mean"}
    shares |= {"mean_rate", "scaling_rate", "scaling_average", "slow_rate", "slow_pull"}
    shares |= {"importance_forgetting", "heterosynaptic_rate", "novelty_rate", "serotonin_rate"}
    params |= {name: value.abs().clamp_max(0.9) for name, value in params.items() if name.split(".")[-1] in shares}
    if config.get("rule") == "fixed":
        params |= {name: torch.zeros_like(params[name]) for name in params if name.split(".")[-1] == "alpha"}
    starts = torch.rand(steps, batch, generator=generator) < start_rate
    one_hot = torch.eye(ACTIONS, dtype=dtype)
    supervised = str(config.get("output_table")).startswith("supervised")
    feedbacks = Feedback(
        action=one_hot[torch.arange(steps * batch).view(steps, batch) * 7 % 5 % ACTIONS],
        reward=normal(steps, batch),
        trial_start=starts | (torch.rand(steps, batch, generator=generator) < 2 * start_rate),
        valid=~starts,
        label=one_hot[torch.arange(steps * batch).view(steps, batch) % 3 % ACTIONS] if supervised else None,
    )
    state = {
        name: 0.5 * normal(*entry.shape) if entry.is_floating_point() else entry
        for name, entry in network.initial_state(batch, generator).items()
    }
    return Case(network, params, normal(steps, batch, INPUTS), feedbacks, starts, state)


def at(feedbacks: Feedback, step: int) -> Feedback:
    return feedbacks.at(step)


def run_steps(case: Case) -> tuple[Tensor, State]:
    """All steps by `step`."""
    state, features = case.state, []
    for step in range(case.xs.shape[0]):
        feature, state = case.network.step(
            case.params, case.xs[step], at(case.feedbacks, step), state, case.starts[step]
        )
        features.append(feature)
    return torch.stack(features), state


def tracked(case: Case) -> tuple[Case, dict[str, Tensor]]:
    """The same case with fresh leaves for everything differentiable, and these by name."""
    params = {name: value.clone().requires_grad_() for name, value in case.params.items()}
    state = {name: value.clone().requires_grad_(value.is_floating_point()) for name, value in case.state.items()}
    xs = case.xs.clone().requires_grad_()
    initial = {f"initial {name}": value for name, value in state.items() if value.requires_grad}
    leaves = {**params, **initial, "xs": xs}
    return Case(case.network, params, xs, case.feedbacks, case.starts, state), leaves


def gradients(loss: Tensor, leaves: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    return {
        name: torch.zeros_like(leaf) if gradient is None else gradient
        for (name, leaf), gradient in zip(leaves.items(), found, strict=True)
    }


def weighted_sum(features: Tensor, state: State, seed: int = 1) -> Tensor:
    """A loss that weighs every feature, and every number of the final state, differently (keys are no numbers)."""
    generator = torch.Generator().manual_seed(seed)
    total = features.new_zeros(())
    for tensor in (features, *(state[name] for name in sorted(state) if state[name].is_floating_point())):
        # The same weights in every type.
        weights = torch.randn(tensor.shape, generator=generator, dtype=torch.float64).to(tensor.dtype)
        total = total + (tensor * weights).sum()
    return total


def largest_difference(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> float:
    """Largest absolute difference, as a share of the largest entry of `first`."""
    assert set(first) == set(second)
    largest = max(value.abs().max().item() for value in first.values())
    return max((first[name] - second[name]).abs().max().item() for name in first) / largest
