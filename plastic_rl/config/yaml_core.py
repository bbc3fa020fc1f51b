"""Safe YAML, read and written by the core schema of YAML 1.2.

PyYAML follows YAML 1.1, where `5e-3` and `1e6` are strings, `no` is false, `1:30` is ninety and `017` is fifteen.
Here `5e-3` is a number and `no` a string. Duplicate keys, aliases, tags and deep nesting are refused: the first hides
typing errors, the second lets a small file grow without bounds, the third has no use in a config, the fourth would end
somewhere in Python's limit of recursion.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any

import yaml

MOST_LEVELS = 32
"""Lists and mappings that may lie in one another; configs need about six."""
MOST_BITS = 1024
"""Of a whole number; Python writes out no more than some 14,000, so that no message could name a longer one."""
_NULL = re.compile(r"^(?:~|null|Null|NULL|)$")
_BOOL = re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")
_INT = re.compile(r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$")
_FLOAT = re.compile(
    r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
)
_RESOLVERS = (
    ("tag:yaml.org,2002:null", _NULL, ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:bool", _BOOL, list("tTfF")),
    ("tag:yaml.org,2002:int", _INT, list("-+0123456789")),
    ("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789")),
)


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML's interface

    levels = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not supported; write the value out")
        if self.levels == MOST_LEVELS and not self.check_event(yaml.ScalarEvent):
            raise yaml.YAMLError(f"lists and mappings lie in one another more than {MOST_LEVELS} deep")
        self.levels += 1
        node = super().compose_node(parent, index)
        self.levels -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        mapping: dict[Hashable, Any] = {}
        for key_node, value_node in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a name", key_node.start_mark)
            if key in mapping:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands here twice", key_node.start_mark
                )
            mapping[key] = self.construct_object(value_node, deep=deep)
        return mapping

    def construct_core_int(self, node: yaml.ScalarNode) -> int:
        text = str(node.value)
        value = int(text, 0) if text.startswith(("0o", "0x")) else int(text)
        if value.bit_length() > MOST_BITS:
            raise ValueError(f"a whole number has {MOST_BITS} bits at the most, got {value.bit_length():,}")
        return value

    def construct_core_float(self, node: yaml.ScalarNode) -> float:
        return float(str(node.value).lower().replace(".inf", "inf").replace(".nan", "nan"))


class _Dumper(yaml.SafeDumper):
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML's interface

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_core_float(self, value: float) -> yaml.ScalarNode:
        text = repr(value)
        text = {"inf": ".inf", "-inf": "-.inf", "nan": ".nan"}.get(text, text)
        return self.represent_scalar("tag:yaml.org,2002:float", text)


for _tag, _pattern, _first in _RESOLVERS:
    _Loader.add_implicit_resolver(_tag, _pattern, _first)
    _Dumper.add_implicit_resolver(_tag, _pattern, _first)
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_core_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_core_float)
_Dumper.add_representer(float, _Dumper.represent_core_float)


def parse(text: str) -> Any:
    r"""Read one YAML document.

    Raises:
        yaml.YAMLError: If the text is not YAML, or uses aliases, tags of Python objects, or a key twice.

    >>> parse("rate: 5e-3\nname: no")
    {'rate': 0.005, 'name': 'no'}
    """
    return yaml.load(text, Loader=_Loader)  # noqa: S506 - _Loader derives from SafeLoader


def dump(value: Any) -> str:
    r"""Write plain Python data as YAML that `parse` reads back as equal data.

    >>> dump({"rate": 5e-3, "name": "5e-3"})
    "rate: 0.005\nname: '5e-3'\n"
    """
    return str(yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120))
