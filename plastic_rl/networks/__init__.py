"""Networks: observation and state in, features and state out.

Data flows from the policy, which cuts the feedback out of the observation, through `step` (acting) or `unroll`
(learning) to the features that action and value heads read. `NETWORKS` lists the kinds; `make_network` builds one.
"""

from __future__ import annotations

from plastic_rl.networks.base import Feedback, Params, PlasticNetwork, Recording, State, StateEntry
from plastic_rl.networks.feed_forward import PlasticFeedForward, PlasticFeedForwardConfig
from plastic_rl.networks.plastic_rnn import PlasticRNN, PlasticRNNConfig
from plastic_rl.networks.recurrent import GRU, LSTM, GRUConfig, LSTMConfig, PlainRNN, RNNConfig
from plastic_rl.networks.registry import NETWORKS, make_network

__all__ = [
    "GRU",
    "LSTM",
    "NETWORKS",
    "Feedback",
    "GRUConfig",
    "LSTMConfig",
    "Params",
    "PlainRNN",
    "PlasticFeedForward",
    "PlasticFeedForwardConfig",
    "PlasticNetwork",
    "PlasticRNN",
    "PlasticRNNConfig",
    "RNNConfig",
    "Recording",
    "State",
    "StateEntry",
    "make_network",
]
