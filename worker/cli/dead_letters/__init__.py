"""Commands about dead letters: `deviceops dead-letters`, a file for each.

- `options`: the options that select dead letters, the same for every command
- `marking`: changes of their status, for discard and restore
- `tables`: how people see them
"""

from typing import ClassVar

import typer

from worker.cli.lazy import LazyGroup, Place


class DeadLetterCommands(LazyGroup):
    """The commands, by name."""

    places: ClassVar = {
        "list": Place(
            "worker.cli.dead_letters.list",
            "List dead letters, the oldest first; open ones by default.",
        ),
        "show": Place(
            "worker.cli.dead_letters.show",
            "Show one dead letter: why, every attempt, the body, the AMQP properties and headers, where it came "
            "from.",
        ),
        "replay": Place(
            "worker.cli.dead_letters.replay",
            "Process open dead letters again, and mark them in the same transaction; safe to repeat or interrupt.",
        ),
        "edit": Place(
            "worker.cli.dead_letters.edit",
            "Replace an open dead letter by a corrected copy, linked to it, and process the copy at once.",
        ),
        "discard": Place(
            "worker.cli.dead_letters.discard",
            "Discard open dead letters, with a reason; they stay readable, and `restore` takes it back.",
        ),
        "restore": Place(
            "worker.cli.dead_letters.restore",
            "Make discarded dead letters open again; a parked one is processed if its registration has come "
            "meanwhile.",
        ),
        "export": Place(
            "worker.cli.dead_letters.export",
            "Write dead letters as JSON lines with everything that was kept of them, the body's bytes exactly.",
        ),
        "import": Place(
            "worker.cli.dead_letters.import_",
            "Bring in exported dead letters; one that is here already is left as it is.",
        ),
        "prune": Place(
            "worker.cli.dead_letters.prune",
            "Remove resolved and discarded dead letters for good, in small transactions; workers may run.",
        ),
    }
    aliases: ClassVar = {"retry": "replay"}


app = typer.Typer(
    cls=DeadLetterCommands,
    help="List, inspect, correct and replay rejected messages.",
    no_args_is_help=True,
    add_completion=False,
)


@app.callback()
def dead_letters() -> None:
    """Typer makes a group of an app that has a callback."""
