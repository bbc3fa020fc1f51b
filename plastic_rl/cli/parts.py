"""What `plastic-rl neurons` and `plastic-rl rules` print: the documentation of what has a name in a registry."""

from __future__ import annotations

import inspect
import math
import re
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch

from plastic_rl.cli.reference import field_lines
from plastic_rl.config.signatures import arguments_of
from plastic_rl.errors import ConfigError, UnknownNameError
from plastic_rl.evaluation.neuron_view import LARGEST, NeuronView
from plastic_rl.networks.spontaneous import PROCESSES
from plastic_rl.neurons import COMPETITIONS, DENDRITES, INTRINSICS, NEURONS
from plastic_rl.plasticity import PARTS, RULES, Curves, Part, Synapse, SynapseConfig
from plastic_rl.plasticity import synapse as synapse_module
from plastic_rl.plasticity.parts import PartOptions, named_part, options_model
from plastic_rl.registry import Registry

WIDTH = 80
CHOSEN = tuple(kind for kind in PARTS if kind in SynapseConfig.model_fields)
"""Keys of a rule that name its parts."""


def _kinds() -> dict[str, Registry[Any]]:
    """Every kind of part that is no neuron, by the key that names one in a config."""
    return {
        **PARTS,
        "intrinsic": INTRINSICS,
        "dendrites": DENDRITES,
        "competition": COMPETITIONS,
        "process": PROCESSES,
    }


def neurons_listing() -> str:
    """Neurons, with a line each."""
    return "\n".join(_group("neurons", NEURONS))


def rules_listing() -> str:
    """Rules, and every kind of part, with a line each."""
    rules = [*_rows("rules", {name: _parts_of(rule) for name, rule in RULES.items()})]
    groups = [line for kind, registry in _kinds().items() for line in ("", *_group(kind, registry))]
    return "\n".join([*rules, *groups])


def _group(heading: str, registry: Registry[Any]) -> Iterator[str]:
    return _rows(heading, {name: _first_line(entry) for name, entry in registry.items()})


def _rows(heading: str, rows: Mapping[str, str]) -> Iterator[str]:
    """A heading, and below it names with what they are, broken where they are too long."""
    yield f"{heading}:"
    width = max(map(len, rows))
    for name, line in rows.items():
        indent = " " * (width + 4)
        yield textwrap.fill(
            line, WIDTH, initial_indent=f"  {name:<{width}}  ", subsequent_indent=indent, break_on_hyphens=False
        )


def _first_line(entry: Any) -> str:
    return _documentation(entry).split("\n")[0]


def _documentation(entry: Any) -> str:
    """The docstring of a class or function of its own, up to its arguments."""
    text = inspect.cleandoc((vars(entry) if inspect.isclass(entry) else {"__doc__": entry.__doc__})["__doc__"] or "")
    return re.split(r"\n(?:Args|Attributes|Raises|Returns):\n", text)[0].rstrip() or "(no documentation)"


def _folded(text: str) -> str:
    """Paragraphs broken to the width; indented blocks and lines stay."""
    blocks = re.split(r"\n\s*\n", text)
    return "\n\n".join(
        block if block.startswith(" ") else textwrap.fill(" ".join(block.split()), WIDTH, break_on_hyphens=False)
        for block in blocks
    )


def _source(entry: Any) -> str | None:
    """The paragraph of its module's docstring that names the source."""
    module = sys.modules.get(entry.__module__)
    paragraphs = re.split(r"\n\s*\n", inspect.cleandoc((module and module.__doc__) or ""))
    return next((one for one in paragraphs if one.startswith("Source:")), None)


def _options(part: type[Part]) -> list[str]:
    fields, owners = options_model(part).model_fields, arguments_of(part, Part)
    classes = [*part.__mro__, PartOptions]
    lines = [
        textwrap.fill(line, WIDTH, initial_indent="  ", subsequent_indent="      ", break_on_hyphens=False)
        for name in sorted(
            fields, key=lambda name: classes.index(owners[name].owner if name in owners else PartOptions)
        )
        for line in field_lines(name, fields[name])
    ]
    return ["Options, in a config `{name: NAME, OPTION: VALUE}`:", *lines]


def neuron_text(view: NeuronView) -> str:
    """What a neuron is, its options, and what was measured of it."""
    neuron = type(view.neuron)
    source = _source(neuron)
    blocks = [view.name, _folded(_documentation(neuron))]
    if source is not None:
        blocks.append(_folded(source))
    blocks += ["\n".join(_options(neuron)), "\n".join(_measured(view))]
    return "\n\n".join(blocks)


def _measured(view: NeuronView) -> Iterator[str]:
    steps, duration = len(view.times), view.times[-1]
    yield f"Measured in runs of {duration:g} ms, {steps:,} steps of {view.neuron.step_size:g} ms:"
    if view.rest is None:
        yield "  rest      none: it spikes without a drive"
    elif view.rest:
        yield f"  rest      {', '.join(f'{name} {value:.4g}' for name, value in view.rest.items())}"
    if (since := view.unbounded_from) is not None:
        yield (
            f"  output    grows without bound: after {since:g} ms it is beyond {LARGEST:g}, at a current of "
            f"{view.current:g}"
        )
        return
    if not view.neuron.spiking:
        yield f"  output    {view.response:.4g} at a current of {view.current:g}, at the end"
        return
    if view.rheobase is not None:
        yield f"  rheobase  {view.rheobase:.4g}, the lowest held current with a spike"
    elif view.rest is not None:
        yield "  rheobase  none found"
    count = int(view.output.sum())
    again = f"{view.response:.1f} a second" if view.response else "none that go on to the end"
    yield f"  spikes    {again} at a current of {view.current:g} ({count} in the run)"


def rule_text(name: str) -> str:
    """What a rule of this name is, and every part of this name.

    Raises:
        UnknownNameError: If there is neither.
    """
    blocks = [_rule(name, RULES[name])] if name in RULES else []
    blocks += [_part(kind, name, registry[name]) for kind, registry in _having(name)]
    return "\n\n\n".join(blocks)


def _having(name: str) -> list[tuple[str, Registry[Any]]]:
    """The kinds of parts that have one of this name.

    Raises:
        UnknownNameError: If there are none, and no rule either.
    """
    found = [(kind, registry) for kind, registry in _kinds().items() if name in registry]
    if not found and name not in RULES:
        raise UnknownNameError(
            "rule or part", name, {*RULES, *(one for registry in _kinds().values() for one in registry)}
        )
    return found


def _chosen(rule: SynapseConfig) -> dict[str, str]:
    """Names of its parts, by kind."""
    return {kind: value if isinstance(value := getattr(rule, kind), str) else str(value["name"]) for kind in CHOSEN}


def _parts_of(rule: SynapseConfig) -> str:
    said = [f"{kind} {name}" for kind, name in _chosen(rule).items() if name not in {"none", "constant"}]
    if rule.alpha.is_zero:
        return "No plasticity."
    return ", ".join(said + ["decay"] * rule.decay) + "."


def _rule(name: str, rule: SynapseConfig) -> str:
    equations = next(
        block for block in re.split(r"\n\s*\n", synapse_module.__doc__ or "") if block.startswith("    W_t")
    )
    heading = textwrap.fill(f"rule {name}: {_parts_of(rule)}", WIDTH, break_on_hyphens=False)
    if _chosen(rule)["eligibility"] != "trace":  # a part of its own says what E is, if there is one
        equations = "\n".join(line for line in equations.split("\n") if not line.startswith("    E_t+1"))
    lines = [heading, "", re.sub(r"(?<=\S) {4,}", "    ", equations)]
    for kind, part in _chosen(rule).items():
        if part != "none":
            lines += ["", f"{kind} {part}", _folded(_documentation(_kinds()[kind][part]).split("\n\n")[0])]
    parameters = Synapse(rule, 1, 1).parameters(torch.Generator().manual_seed(0))
    again = Synapse(rule, 1, 1).parameters(torch.Generator().manual_seed(1))
    lines += ["", "Parameters:"]
    for key, parameter in parameters.items():
        value, other = parameter.value.flatten(), again[key].value.flatten()
        start = f"starts at {value[0].item():g}" if bool((value == other).all()) else "starts at random"
        learned = "learned" if parameter.trainable else "not learned"
        lines.append(f"  {key}: {_range(*parameter.valid)}, {start}, {learned}")
    return "\n".join(lines)


def _range(low: float, high: float) -> str:
    if math.isinf(low) and math.isinf(high):
        return "any number"
    return f"{low:g} or more" if math.isinf(high) else f"from {low:g} to {high:g}"


def _part(kind: str, name: str, part: Any) -> str:
    blocks = [f"{kind} {name}", _folded(_documentation(part))]
    source = _source(part)
    if source is not None:
        blocks.append(_folded(source))
    if inspect.isclass(part) and issubclass(part, Part):
        blocks.append("\n".join(_options(part)))
    users = [rule for rule, config in RULES.items() if kind in CHOSEN and _chosen(config)[kind] == name]
    if users and name != "none":
        blocks.append(textwrap.fill(f"In the rules: {', '.join(users)}.", WIDTH, break_on_hyphens=False))
    return "\n\n".join(blocks)


def rule_curves(name: str) -> dict[str, Curves]:
    """What the parts of a rule of this name, and the parts of this name, show in a picture, by title.

    Raises:
        UnknownNameError: If there is neither.
        ConfigError: If none of them has something to show.
    """
    parts = [(kind, name) for kind, _ in _having(name)]
    if name in RULES:
        parts += [one for one in _chosen(RULES[name]).items() if one not in parts]
    found = dict(_curves(parts))
    if not found:
        drawn = sorted({one for kind, registry in _kinds().items() for one in registry if dict(_curves([(kind, one)]))})
        raise ConfigError(f"nothing of {name} can be drawn; these have a picture: {', '.join(drawn)}")
    return found


def _curves(parts: Iterable[tuple[str, str]]) -> Iterator[tuple[str, Curves]]:
    for kind, name in parts:
        part = named_part(_kinds()[kind], name)
        curves = part().curves() if inspect.isclass(part) and issubclass(part, Part) else None
        if curves is not None:
            yield f"{kind} {name}", curves
