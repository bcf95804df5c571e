"""Replace a dead letter by a corrected copy: edit."""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Annotated

import typer

from worker import files, jsonl
from worker.cli.common import Json, actor, configure_logging, print_json, ready_database, run_async, screen, utf8
from worker.cli.dead_letters import tables
from worker.cli.dead_letters.options import Id
from worker.config.settings import Settings
from worker.dead_letters.correct import correct, get_open
from worker.dead_letters.readable import indented
from worker.dead_letters.replay import Summary
from worker.errors import DeviceopsError, SettingsError
from worker.model.unwrapping import as_far_as_readable
from worker.store.dead_letters import stored_message

app = typer.Typer(add_completion=False)


@app.command()
def edit(
    id_: Id,
    body: Annotated[
        str | None,
        typer.Option(metavar="FILE|-", help="The corrected body; without it, $EDITOR opens the present one."),
    ] = None,
    type_: Annotated[
        str | None, typer.Option("--type", parser=utf8, metavar="TEXT", help="The corrected message type.")
    ] = None,
    json: Json = False,
) -> None:
    """Replace an open dead letter by a corrected copy, linked to it, and process the copy at once."""
    settings = Settings.load()
    configure_logging(settings)
    copy, summary = run_async(_edit(settings, id_, body, type_))
    if json:
        print_json({"id": copy, "corrects": id_, **summary.document()})
    else:
        screen.print(f"dead letter {id_} is replaced by dead letter {copy}")
        screen.print(tables.replayed(summary.document(), [copy]))


async def _edit(settings: Settings, id_: int, source: str | None, type_: str | None) -> tuple[int, Summary]:
    async with ready_database(settings) as database:
        row = await get_open(database, id_)
        present = as_far_as_readable(stored_message(row))
        with _corrected(present.body, source, id_) as body:
            if body == present.body and (type_ or present.type) == present.type:
                raise DeviceopsError("nothing was changed")
            return await correct(
                database, row, body, type_ or present.type, actor=actor(), reporters=settings.reporters
            )


@contextmanager
def _corrected(body: bytes, source: str | None, id_: int) -> Iterator[bytes]:
    """The corrected body: from a file or standard input, or from the editor; then kept if it is invalid."""
    if source is not None:
        with files.readable(source) as stream:
            yield jsonl.text_of(stream.readall(), stream.label)
        return
    command = _editor()
    with NamedTemporaryFile(prefix=f"deviceops-{id_}-", suffix=".json", delete=False) as file:
        path = Path(file.name)
        file.write(before := indented(body))
    try:
        _open_editor(command, path)
        after = path.read_bytes()
        yield body if after == before else after
    except DeviceopsError as error:
        if path.read_bytes() != before:
            kept = f"{error}; your text is kept: deviceops dead-letters edit {id_} --body {path}"
            raise type(error)(kept) from error
        path.unlink()
        raise
    path.unlink()


def _editor() -> str:
    """The editor's command. Raises SettingsError if there is none, or no terminal for one that was not chosen."""
    chosen = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    if not chosen and not _is_terminal():
        raise SettingsError("no terminal for an editor: give the corrected body with --body")
    named = chosen or shutil.which("editor") or shutil.which("vi")
    if not named:
        raise SettingsError("no editor: set EDITOR, or give the corrected body with --body")
    return named


def _is_terminal() -> bool:
    return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout))


def _open_editor(named: str, path: Path) -> None:
    try:
        code = subprocess.run([*shlex.split(named), str(path)], check=False).returncode  # noqa: S603  # chosen by the user
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise SettingsError(f"the editor {named!r} cannot be started: {why}") from None
    if code != 0:
        raise DeviceopsError(f"the editor {named!r} ended with {code}; nothing was changed")
