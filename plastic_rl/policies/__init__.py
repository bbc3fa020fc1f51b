"""What acts in an environment: a network, an action distribution and a value, with stable-baselines3's `predict`."""

from plastic_rl.policies.policy import (
    BackpropaminePolicy,
    Evaluation,
    GRUPolicy,
    LSTMPolicy,
    PlasticPolicy,
    RNNPolicy,
)
from plastic_rl.registry import Registry

POLICIES: Registry[type[PlasticPolicy]] = Registry("policy")
for _policy in (PlasticPolicy, BackpropaminePolicy, RNNPolicy, GRUPolicy, LSTMPolicy):
    POLICIES.register(_policy.__name__, _policy)

__all__ = [
    "POLICIES",
    "BackpropaminePolicy",
    "Evaluation",
    "GRUPolicy",
    "LSTMPolicy",
    "PlasticPolicy",
    "RNNPolicy",
]
