"""The `deviceops` command: a file for each command, imported when it is called.

- `lazy`: the groups that do so; a command's name and its line of help are in the table below
- `common`: settings, the database and the event loop of a command
- `log_format`: how the log is written; `failures`: the line that ends a process
- `stdout`: standard output, for what reads it
- `options`: options that several commands have; `feed`: JSON lines or a document of a source
- `tables`: tables and progress bars
- `dead_letters`: the commands about rejected messages, `webhooks`: those about webhooks
- `token`: those about tokens of the HTTP API
"""

import re
import sys
from typing import Annotated, ClassVar

import typer
from typer.exceptions import TyperException

from worker.cli import failures, stdout
from worker.cli.lazy import LazyGroup, Place
from worker.errors import DeviceopsError
from worker.files import OutputClosed
from worker.log_writer import writer

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it: 128 and the signal's number."""


class Commands(LazyGroup):
    """Every command; a test compares names and help with those of the modules."""

    places: ClassVar = {
        "run": Place("worker.cli.run", "Consume reports from RabbitMQ until SIGTERM or Ctrl-C, or until idle."),
        "ingest": Place(
            "worker.cli.ingest",
            "Process JSON lines or documents without a broker: reports, or envelopes.",
        ),
        "publish": Place(
            "worker.cli.publish",
            "Send JSON lines or documents to the exchange; each counts once the broker has confirmed it.",
        ),
        "announce": Place(
            "worker.cli.announce", "Send an announcement: an operation, and the devices that it is for."
        ),
        "cancel": Place(
            "worker.cli.cancel",
            "Cancel every device operation of an operation that is not settled; asks first on a terminal.",
        ),
        "retry": Place(
            "worker.cli.retry",
            "Create an operation for those device operations of another that failed; asks first on a terminal.",
        ),
        "status": Place("worker.cli.status", "Show operations and their progress."),
        "operations": Place("worker.cli.operations", "List operations and their progress, the latest first."),
        "devices": Place(
            "worker.cli.devices", "Show a page of an operation's device operations, or export all of them."
        ),
        "device": Place(
            "worker.cli.device",
            "Show one device operation and the reports about it; with --json when it reached its states.",
        ),
        "reasons": Place(
            "worker.cli.reasons",
            "Show why an operation's devices failed, timed out or were cancelled: by code or reason, the largest "
            "first.",
        ),
        "changes": Place(
            "worker.cli.changes",
            "Print the changes that are kept, a line each: as JSON, or on a terminal for people.",
        ),
        "serve": Place(
            "worker.cli.serve",
            "Serve the web page and the HTTP API until SIGTERM or Ctrl-C; the API's documentation is at /docs.",
        ),
        "migrate": Place(
            "worker.cli.migrate", "Bring the database's schema to the version that this deviceops needs."
        ),
        "check": Place(
            "worker.cli.check", "List every setting, and check that the database and the broker can be used."
        ),
        "recount": Place(
            "worker.cli.recount",
            "Recount every operation's device operations, and look for rows that belong to nothing; exit 3 on "
            "drift.",
        ),
        "expire": Place(
            "worker.cli.expire",
            "Time out what is over, once, and cancel what was aborted; `run` does it by itself.",
        ),
        "prune": Place(
            "worker.cli.prune",
            "Remove what the settings DEVICEOPS_KEEP_… no longer keep, in small transactions; workers may run.",
        ),
        "diagram": Place("worker.cli.diagram", "Print the state machine as a Mermaid diagram."),
        "contract": Place(
            "worker.cli.contract",
            "Print, as JSON, what producers may send and listeners get: for generators and validators.",
        ),
        "simulate": Place("worker.cli.simulate", "Print a fleet's life as JSON lines for ingest and publish."),
        "demo": Place(
            "worker.cli.demo",
            "Watch a roll-out over 500 simulated devices, through RabbitMQ where it answers.",
        ),
        "dead-letters": Place("worker.cli.dead_letters", "List, inspect, correct and replay rejected messages."),
        "broker": Place("worker.cli.broker", "The exchanges and queues on the broker."),
        "webhooks": Place("worker.cli.webhooks", "Webhooks: how they do, and trying them out."),
        "token": Place("worker.cli.token", "Tokens of the HTTP API."),
    }


app = typer.Typer(
    cls=Commands,
    name="deviceops",
    help="Exact, order-independent tracking of device operations reported over AMQP.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        from importlib.metadata import version

        print(f"deviceops {version('deviceops')}")  # noqa: T201
        raise typer.Exit


@app.callback()
def deviceops(
    version: Annotated[  # its callback prints it
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Typer makes a group of an app that has a callback."""


def main() -> None:
    """Run the command line; every failure is one clear line on standard error and an exit code."""
    stdout.prepare()
    try:
        code = app(standalone_mode=False)
        sys.stdout.flush()
        if code == INTERRUPTED:  # Typer's own way to say so is to say nothing
            _fail("interrupted", code)
    except OutputClosed:  # not an error
        code = 0
    except DeviceopsError as error:
        code = _fail(str(error), error.exit_code)
    except TyperException as error:
        message = _in_words(error.format_message())
        # Called without arguments, Typer prints the help and raises with nothing more to say.
        code = _fail(f"{message} ({_hint(message)})", error.exit_code) if message else error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        code = _fail("interrupted", INTERRUPTED)
    except OSError as error:
        code = _fail(str(error), 1)
    stdout.finish()
    writer.flush()
    sys.exit(code)


LIBRARY_WORDS = {
    "Value error, ": "",  # pydantic's way to begin ours
    "is not a valid int range": "is not an integer",
    "is not a valid float range": "is not a number",
}


def _in_words(message: str) -> str:
    for theirs, ours in LIBRARY_WORDS.items():
        message = message.replace(theirs, ours)
    return message


def _hint(message: str) -> str:
    """What to try after a usage error: the variable of a setting that was given as an option, else --help."""
    if unknown := re.match(r"No such option: --([a-z-]+)", message):
        from worker.config.secret_files import variable
        from worker.config.settings import Settings

        if (name := unknown[1].replace("-", "_")) in Settings.model_fields:
            return f"set {variable(name)} in the environment or in .env"
    return "try --help"


def _fail(message: str, code: int) -> int:
    failures.report(" ".join(message.split()), code)
    return code
