"""Networks by kind: what a config's `network: {kind: ...}` may name, and how it is built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from plastic_rl.config import ConfigModel, validate
from plastic_rl.errors import ConfigError
from plastic_rl.networks.base import PlasticNetwork
from plastic_rl.networks.feed_forward import PlasticFeedForward, PlasticFeedForwardConfig
from plastic_rl.networks.plastic_rnn import PlasticRNN, PlasticRNNConfig
from plastic_rl.networks.recurrent import GRU, LSTM, GRUConfig, LSTMConfig, PlainRNN, RNNConfig
from plastic_rl.networks.rule_table import RuleTableNetwork
from plastic_rl.networks.rule_table_config import RuleTableConfig
from plastic_rl.registry import Registry


class BuildNetwork(Protocol):
    """Makes a network from its validated config."""

    def __call__(
        self,
        config: Any,
        input_size: int,
        action_size: int,
        generator: torch.Generator | None,
        steps_per_trial: int | None,
    ) -> PlasticNetwork:
        """Build.

        Args:
            config: An instance of the entry's config model.
            input_size: `I`, the whole observation, feedback included.
            action_size: `A`, columns of the action in the feedback.
            generator: Draws the start weights; None: torch's global one.
            steps_per_trial: Length of a trial where it is fixed (1 for bandits), else None.
        """


@dataclass(frozen=True)
class NetworkEntry:
    """The config model of a kind of network, and how to build one."""

    config: type[ConfigModel]
    build: BuildNetwork


NETWORKS: Registry[NetworkEntry] = Registry("network")


def _plain(network: Any) -> BuildNetwork:
    """How to build a network that has no use for the size of the action."""

    def build(
        config: Any,
        input_size: int,
        action_size: int,
        generator: torch.Generator | None,
        steps_per_trial: int | None,
    ) -> PlasticNetwork:
        built: PlasticNetwork = network(config, input_size, generator, steps_per_trial)
        return built

    return build


NETWORKS.register("plastic_rnn", NetworkEntry(PlasticRNNConfig, _plain(PlasticRNN)))
NETWORKS.register("plastic_feed_forward", NetworkEntry(PlasticFeedForwardConfig, PlasticFeedForward))
NETWORKS.register("rnn", NetworkEntry(RNNConfig, _plain(PlainRNN)))
NETWORKS.register("gru", NetworkEntry(GRUConfig, _plain(GRU)))
NETWORKS.register("lstm", NetworkEntry(LSTMConfig, _plain(LSTM)))


def _rule_table(
    config: Any,
    input_size: int,
    action_size: int,
    generator: torch.Generator | None,
    steps_per_trial: int | None,
) -> PlasticNetwork:
    return RuleTableNetwork(config, input_size, action_size, generator)


NETWORKS.register("rule_table", NetworkEntry(RuleTableConfig, _rule_table))


def make_network(
    config: Mapping[str, Any] | ConfigModel,
    input_size: int,
    action_size: int,
    generator: torch.Generator | None = None,
    steps_per_trial: int | None = None,
) -> PlasticNetwork:
    """Build the network that `config` names.

    Args:
        config: A mapping with `kind` and that kind's keys, or a config model.
        input_size: `I`, the whole observation, feedback included.
        action_size: `A`, columns of the action in the feedback.
        generator: Draws the start weights; None: torch's global one.
        steps_per_trial: Length of a trial where it is fixed (1 for bandits), else None.

    Raises:
        ConfigError: If the config does not validate, naming every problem.
        UnknownNameError: If there is no network of this kind.

    >>> make_network({"kind": "gru", "hidden_size": 8}, input_size=5, action_size=2).output_size
    8
    """
    if isinstance(config, ConfigModel):
        config = config.model_dump()
    if "kind" not in config:
        raise ConfigError(f"network.kind is missing: name one of {', '.join(sorted(NETWORKS))}.")
    entry = NETWORKS[config["kind"]]
    validated = validate(entry.config, config, "network")
    return entry.build(validated, input_size, action_size, generator, steps_per_trial)
