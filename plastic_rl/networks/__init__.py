"""Networks: observation and state in, features and state out.

Data flows from the policy, which cuts the feedback out of the observation, through `step` (acting) or `unroll`
(learning) to the features that action and value heads read. `NETWORKS` lists the kinds; `make_network` builds one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from plastic_rl.config import ConfigModel, validate
from plastic_rl.errors import ConfigError
from plastic_rl.feedback import Feedback, FeedbackLayout
from plastic_rl.networks.attractor import AttractorNetwork
from plastic_rl.networks.base import Inside, Params, PlasticNetwork, State
from plastic_rl.networks.feed_forward import PlasticFeedForward
from plastic_rl.networks.fine_tuning import FineTuningNetwork
from plastic_rl.networks.phases import PhasesConfig, phased
from plastic_rl.networks.plastic_rnn import PlasticRNN
from plastic_rl.networks.plastic_units import PlasticUnits
from plastic_rl.networks.recurrent import GRU, LSTM, PlainRNN
from plastic_rl.networks.rule_table import RuleTableNetwork
from plastic_rl.plasticity import StateEntry
from plastic_rl.registry import Registry

__all__ = [
    "GRU",
    "LSTM",
    "NETWORKS",
    "AttractorNetwork",
    "Feedback",
    "FineTuningNetwork",
    "Inside",
    "Params",
    "PlainRNN",
    "PlasticFeedForward",
    "PlasticNetwork",
    "PlasticRNN",
    "PlasticUnits",
    "State",
    "StateEntry",
    "make_network",
]


def _check(network: Any) -> None:
    model = getattr(network, "config_model", None)
    if not (isinstance(model, type) and issubclass(model, ConfigModel) and "kind" in model.model_fields):
        raise ConfigError(
            f"a network is a class whose config_model is a ConfigModel with a field `kind`; {network!r} has {model!r}"
        )


NETWORKS: Registry[type[PlasticNetwork]] = Registry("network", _check)
NETWORKS.register("plastic_rnn", PlasticRNN)
NETWORKS.register("plastic_units", PlasticUnits)
NETWORKS.register("plastic_feed_forward", PlasticFeedForward)
NETWORKS.register("rnn", PlainRNN)
NETWORKS.register("gru", GRU)
NETWORKS.register("lstm", LSTM)
NETWORKS.register("rule_table", RuleTableNetwork)
NETWORKS.register("attractor", AttractorNetwork)
NETWORKS.register("fine_tuning", FineTuningNetwork)


def make_network(
    config: Mapping[str, Any] | ConfigModel,
    input_size: int,
    feedback: FeedbackLayout,
    generator: torch.Generator | None = None,
    steps_per_trial: int | None = None,
) -> PlasticNetwork:
    """Build the network that `config` names: a mapping with `kind` and that kind's keys, or a config model.

    The other arguments are those of `PlasticNetwork`.

    Raises:
        ConfigError: If the config does not validate, naming every problem.
        UnknownNameError: If there is no network of this kind.

    >>> make_network({"kind": "gru", "hidden_size": 8}, 5, FeedbackLayout.after(0, 2)).output_size
    8
    """
    if isinstance(config, ConfigModel):
        config = config.model_dump()
    if "kind" not in config:
        raise ConfigError(f"network.kind is missing: name one of {', '.join(sorted(NETWORKS))}.")
    network = NETWORKS[config["kind"]]
    validated = validate(network.config_model, config, "network")
    if isinstance(validated, PhasesConfig) and (validated.development or validated.sleep):
        network = phased(network)
    return network(validated, input_size, feedback, generator, steps_per_trial)
