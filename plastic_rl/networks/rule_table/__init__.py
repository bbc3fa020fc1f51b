"""Rule-table networks: the network, its config, its tables, how they change weights, and hand-written ones.

Data flow: config -> network -> `TableUpdate`, which looks entries of the tables up by firing codes.
"""

from __future__ import annotations

from plastic_rl.networks.rule_table.config import RuleTableConfig
from plastic_rl.networks.rule_table.network import RuleTableNetwork

__all__ = ["RuleTableConfig", "RuleTableNetwork"]
