"""The `deviceops` command: thin entry points, one file for each kind of work.

- `wiring`: settings, the database and the event loop of a command
- `logs`: how the log is written
- `output`: standard output, for whatever reads it
- `render`: tables and progress bars
- `running`: run
- `feeding`: ingest, publish
- `reading`: status, devices, device
- `dead_letters`: everything about what was rejected
- `serving`: serve, token
- `upkeep`: migrate, check, recount, prune
- `describing`: diagram, contract
- `trying`: simulate, demo
"""

import sys

import typer
from typer.exceptions import TyperException

from worker.cli import dead_letters, describing, feeding, log_format, reading, run, serving, stdout, trying, upkeep
from worker.errors import DeviceopsError
from worker.files import ReaderGone
from worker.log_writer import writer

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it: 128 and the signal's number."""

app = typer.Typer(
    name="deviceops",
    help="Exact, order-independent tracking of device operations reported over AMQP.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for commands in (run, feeding, reading, serving, upkeep, describing, trying):
    app.add_typer(commands.app)
app.add_typer(dead_letters.app, name="dead-letters")
app.add_typer(serving.token_app, name="token")


def main() -> None:
    """Run the command line; every failure is one clear line on standard error and an exit code."""
    stdout.prepare()
    try:
        code = app(standalone_mode=False)
        sys.stdout.flush()
        if code == INTERRUPTED:  # Typer's own way to say so is to say nothing
            _fail("interrupted", code)
    except ReaderGone:  # not worth an error
        code = 0
    except DeviceopsError as error:
        code = _fail(str(error), error.exit_code)
    except TyperException as error:
        message = error.format_message().replace("Value error, ", "")  # pydantic's way to begin ours
        # Called without arguments, Typer prints the help and raises with nothing more to say.
        code = _fail(f"{message} (try --help)", error.exit_code) if message else error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        code = _fail("interrupted", INTERRUPTED)
    except OSError as error:
        code = _fail(str(error), 1)
    stdout.finish()
    writer.flush()
    sys.exit(code)


def _fail(message: str, code: int) -> int:
    log_format.tell_failure(" ".join(message.split()), code)
    return code
