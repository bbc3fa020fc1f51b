"""The program: its verbs, and what becomes of errors."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Sequence
from typing import Annotated

import typer

from plastic_rl._native import chosen_core
from plastic_rl.cli import inspecting, memories, neurons, scoring, training
from plastic_rl.errors import PlasticRLError, TrainingInterrupted

INTERRUPTED = 130
BAD_INPUT = 2

app = typer.Typer(
    name="plastic-rl",
    help=(
        "Train agents whose synapses change while they act, and measure how fast they learn within a lifetime.\n\n\b\n"
        "  plastic-rl train configs/default.yaml\n"
        "  plastic-rl evaluate agents/default --split test\n"
        "  plastic-rl envs list\n\n"
        "`plastic-rl VERB --help` explains each verb with an example."
    ),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


@app.callback()
def program(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error comes from.")] = False,
) -> None:
    """Take the program's own options; refuse a core that is not here, which every verb may need."""
    context.obj["debug"] = debug
    chosen_core()


for verb in (
    training.train,
    training.resume,
    training.compare,
    training.study,
    scoring.evaluate,
    scoring.export,
    scoring.plot,
    scoring.video,
    inspecting.config,
    inspecting.inspect,
    inspecting.doctor,
):
    app.command()(verb)
app.add_typer(scoring.agents_app, name="agents")
app.add_typer(inspecting.envs_app, name="envs")
app.add_typer(memories.memories_app, name="memories")
app.add_typer(neurons.neurons_app, name="neurons")
app.add_typer(neurons.rules_app, name="rules")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: Words after the program's name; by default those of the process.

    Returns:
        The exit code: 0, 2 after a message about bad input, 130 after Ctrl-C.
    """
    options: dict[str, bool] = {}
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    try:
        app(args=None if arguments is None else list(arguments), obj=options)
    except SystemExit as end:
        # The parser turns Ctrl-C into its own Abort and exit code 1, or, as later versions do, into its Exit.
        parsed = end.__context__
        if isinstance(parsed, typer.Abort) or (parsed and isinstance(parsed.__cause__, KeyboardInterrupt)):
            return _fail("stopped.", INTERRUPTED)
        return end.code if isinstance(end.code, int) else 0
    except KeyboardInterrupt:
        return _fail("stopped.", INTERRUPTED)
    except TrainingInterrupted as stop:
        return _fail(str(stop), INTERRUPTED)
    except (PlasticRLError, OSError) as error:
        if options.get("debug"):
            traceback.print_exception(error)
        return _fail(f"error: {error}", BAD_INPUT)
    return 0


def _fail(message: str, code: int) -> int:
    typer.echo(message, err=True)
    return code
