"""The verbs that look at attractor memories."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from plastic_rl.cli.options import Plugins, folded, key_values, load_plugins, refuse_existing
from plastic_rl.errors import RunError

memories_app = typer.Typer(help="Attractor memories: list them, show one.", no_args_is_help=True, rich_markup_mode=None)


@memories_app.command("list")
def list_memories(plugin: Plugins = None) -> None:
    """List the attractor memories.

    \b
    Example:
      plastic-rl memories list
    """  # noqa: D301 - click's \b keeps the lines of a paragraph
    from plastic_rl.evaluation.memory_view import memories_text

    load_plugins(plugin)
    typer.echo(folded(memories_text()))


@memories_app.command("show")
def show_memory(
    memory: Annotated[str, typer.Argument(metavar="MEMORY", help="One of `plastic-rl memories list`.")],
    options: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Options of the memory, e.g. storage=delta.")
    ] = None,
    units: Annotated[int, typer.Option(min=1, metavar="N", help="Number of units.")] = 1000,
    load: Annotated[float, typer.Option(metavar="SHARE", help="Patterns stored, as a share of the units.")] = 0.1,
    zeroed: Annotated[
        float, typer.Option(min=0, max=1, metavar="SHARE", help="Share of a cue's units that are unknown.")
    ] = 0.5,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Of patterns, cues and updates.")] = 0,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="The picture: .png, .svg or .pdf.")] = None,
    plugin: Plugins = None,
) -> None:
    """Fill a memory with random patterns, recall some of them, and lay it beside theory.

    Overlap and energy along the recall, what the first step gets wrong, and the overlap that is left by load. All is
    measured when it is asked for; a thousand units take a few seconds.

    \b
    Examples:
      plastic-rl memories show hopfield --units 1000 --load .1 --plot hopfield.png
      plastic-rl memories show hopfield storage=pseudo_inverse --load .5
      plastic-rl memories show low_activity activity=.05 --load .4
    """  # noqa: D301 - click's \b keeps the lines of a paragraph
    from plastic_rl.evaluation.memory_view import memory_text, plot_memory, view_memory

    if plot is not None:
        if plot.suffix not in {".png", ".svg", ".pdf"}:
            raise RunError(f"a picture ends in .png, .svg or .pdf; got {plot}")
        refuse_existing(plot)
    load_plugins(plugin)
    view = view_memory(
        memory,
        units=units,
        load=load,
        zeroed=zeroed,
        options=key_values(options or [], "an option of a memory"),
        seed=seed,
    )
    typer.echo(memory_text(view))
    if plot is not None:
        typer.echo(f"\nwritten: {plot_memory(view, plot)}")
