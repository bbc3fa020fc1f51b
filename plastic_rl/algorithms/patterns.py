"""Parameters by patterns of their names."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence

from plastic_rl.errors import ConfigError, unknown_name_message


def matching(pattern: str, names: Sequence[str], where: str) -> list[str]:
    """Return the `names` of parameters that match a pattern, in which `*` stands for anything.

    Raises:
        ConfigError: If there are none, with the key `where` the pattern stands.

    >>> matching("network.*", ["network.eta", "value_head.bias"], "algorithm.evolve")
    ['network.eta']
    """
    found = [name for name in names if fnmatch.fnmatchcase(name, pattern)]
    if not found:
        raise ConfigError(f"{unknown_name_message(f'parameter in {where}', pattern, names)} `*` stands for anything.")
    return found
