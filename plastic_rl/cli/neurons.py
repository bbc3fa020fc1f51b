"""The verbs that show the pieces of a network: neurons, rules and their parts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from plastic_rl.cli.options import Plugins, check_picture, key_values, load_plugins, refuse_existing

neurons_app = typer.Typer(help="Neurons: list them, show one.", no_args_is_help=True, rich_markup_mode=None)
rules_app = typer.Typer(
    help="Rules of plasticity and their parts: list them, show one.", no_args_is_help=True, rich_markup_mode=None
)
Picture = Annotated[Path | None, typer.Option("--plot", metavar="FILE", help="Draw it too: a .png, .svg or .pdf file.")]


@neurons_app.command("list")
def list_neurons(plugin: Plugins = None) -> None:
    """List the neurons that a network can be made of.

    \b
    Example:
      plastic-rl neurons list
    """  # noqa: D301 - click's \b keeps the lines of a paragraph
    load_plugins(plugin)
    from plastic_rl.cli.parts import neurons_listing

    typer.echo(neurons_listing())


@neurons_app.command("show")
def show_neuron(
    name: Annotated[str, typer.Argument(metavar="NAME", help="As `neurons list` has it.")],
    options: Annotated[
        list[str] | None, typer.Argument(metavar="OPTION=VALUE", help="Options of the neuron, e.g. tau=20.")
    ] = None,
    current: Annotated[
        float, typer.Option(metavar="I", help="Current that it is driven with, in the model's unit.")
    ] = 10.0,
    duration: Annotated[float, typer.Option(metavar="MS", help="How long each run takes.")] = 300.0,
    step: Annotated[float, typer.Option(metavar="MS", help="Length of a step.")] = 0.1,
    plot: Picture = None,
    plugin: Plugins = None,
) -> None:
    """Show a neuron: its equations, options and what it does.

    Its rest, its rheobase and its rate at a current; the picture has the run, the rate against the current and, of a
    model of two variables, the phase plane with its nullclines.

    \b
    Examples:
      plastic-rl neurons show hodgkin_huxley --current 10 --plot axon.png
      plastic-rl neurons show izhikevich a=0.1 d=2
    """  # noqa: D301 - click's \b keeps the lines of a paragraph
    if plot is not None:
        check_picture(plot)
        refuse_existing(plot, option="--plot")
    load_plugins(plugin)
    from plastic_rl.cli.parts import neuron_text
    from plastic_rl.evaluation.neuron_view import plot_neuron, view_neuron

    given = key_values(options or [], "neurons show", "tau=20")
    view = view_neuron(name, current, given, duration=duration, step_size=step)
    typer.echo(neuron_text(view))
    if plot is not None:
        typer.echo(f"\nwritten: {plot_neuron(view, plot)}")


@rules_app.command("list")
def list_rules(plugin: Plugins = None) -> None:
    """List the rules, and the parts of every kind that they are made of.

    \b
    Example:
      plastic-rl rules list --plugin my_rules.py
    """  # noqa: D301 - click's \b keeps the lines of a paragraph
    load_plugins(plugin)
    from plastic_rl.cli.parts import rules_listing

    typer.echo(rules_listing())


@rules_app.command("show")
def show_rule(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of a rule or a part, as `rules list` has it.")],
    plot: Picture = None,
    plugin: Plugins = None,
) -> None:
    """Show the equation, parameters and source of a rule or a part.

    \b
    Examples:
      plastic-rl rules show backpropamine_retroactive
      plastic-rl rules show bcm --plot bcm.png
    """  # noqa: D301 - click's \b keeps the lines of a paragraph
    if plot is not None:
        check_picture(plot)
        refuse_existing(plot, option="--plot")
    load_plugins(plugin)
    from plastic_rl.cli.parts import rule_curves, rule_text
    from plastic_rl.evaluation.plots import plot_curves

    curves = None if plot is None else rule_curves(name)
    typer.echo(rule_text(name))
    if plot is not None and curves is not None:
        typer.echo(f"\nwritten: {plot_curves(curves, plot)}")
