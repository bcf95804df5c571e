#!/usr/bin/env python3
"""Writes the parts of the pages that are made from the code: settings, commands, changes, pictures of a terminal.

`python deploy/pages.py` writes them; `--check` writes nothing, prints each file that is out of date, and exits
with 1 if there is one. It needs deviceops and nothing else: no broker, no database server.

Generated text stands between two comments of a page; what is written around them by hand is left as it is.
"""

import argparse
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import typer
from pydantic import SecretStr
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

from worker.cli import app
from worker.config.secret_files import variable
from worker.config.settings import Settings
from worker.model.changes import KINDS

DEPLOY = Path(__file__).parent
BEGIN, END = "<!-- begin: made by deploy/pages.py -->", "<!-- end -->"
BAR = r"\|"
"""A vertical bar within a cell of a table."""
COLUMNS = 80
SHOWN = "status", "dead-letters list --limit 4"
"""Commands of the picture."""
AGE = timedelta(minutes=5, seconds=10)
"""How long ago the dead letters of a picture were received; ages are rounded to minutes."""


def settings() -> str:
    """A table of all settings: variable, default, meaning with the range that is allowed."""
    rows = [
        (f"`{variable(name)}`", _code(_default(field.default)), f"{field.description}{_range(field.metadata)}")
        for name, field in Settings.model_fields.items()
    ]
    return _table(("variable", "default", "meaning"), rows)


def _default(value: object) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return "" if value is None else str(value).lower() if isinstance(value, bool) else f"{value}"


def _range(metadata: Iterable[Any]) -> str:
    limits = {name: getattr(each, name) for each in metadata for name in ("ge", "gt", "le") if hasattr(each, name)}
    return _between(limits.get("ge"), limits.get("le"), limits.get("gt"))


def _between(least: float | None, most: float | None, more_than: float | None = None) -> str:
    if least is not None and most is not None:
        return f" ({least:,} to {most:,})"
    limits = {"at least": least, "more than": more_than, "at most": most}
    said = ", ".join(f"{words} {limit:,}" for words, limit in limits.items() if limit is not None)
    return f" ({said})" if said else ""


def changes() -> str:
    """A table of the types of changes."""
    rows = [(f"`{kind.name}`", f"`{kind.routing_key}`", _code(kind.told), kind.summary) for kind in KINDS.values()]
    return _table(("type", "routing key", "`DEVICEOPS_CHANGES` at least", "tells"), rows)


def commands() -> str:
    """Every command: its usage, what it does, its arguments and options."""
    root = typer.main.get_command(app)
    return "\n\n".join(_commands(root, root.make_context("deviceops", [], resilient_parsing=True)))


def _commands(command: Any, context: Any) -> Iterator[str]:
    name = context.command_path
    if hasattr(command, "list_commands"):
        if context.parent is not None:
            yield f"## `{name}`\n\n{_prose(command.help)}"
        for each in command.list_commands(context):
            _, found, _ = command.resolve_command(context, [each])  # which also imports it
            if not found.hidden:
                yield from _commands(found, type(context)(found, info_name=each, parent=context))
        return
    level = "##" if context.parent.parent is None else "###"
    parameters = [each for each in command.params if not getattr(each, "hidden", False)]
    usage = " ".join([name, *map(_usage, _sorted(parameters))])
    rows = [
        (_code(_spelled(each)), _code(_shown_default(each)), f"{each.help or ''}{_allowed(each)}")
        for each in _sorted(parameters)
    ]
    parts = [f"{level} `{name}`", _prose(command.help), f"`{usage}`"]
    if rows:
        parts.append(_table(("argument or option", "default", "meaning"), rows))
    yield "\n\n".join(parts)


def _sorted(parameters: Iterable[Any]) -> Sequence[Any]:
    return sorted(parameters, key=lambda each: each.param_type_name != "argument")


def _usage(parameter: Any) -> str:
    spelled = _spelled(parameter)
    if parameter.nargs == -1 or getattr(parameter, "multiple", False):
        spelled += "…"
    return spelled if parameter.required else f"[{spelled}]"


def _spelled(parameter: Any) -> str:
    value = parameter.metavar or _kind(parameter)
    if parameter.param_type_name == "argument":
        return str(parameter.metavar or parameter.name.upper())
    return parameter.opts[0] if parameter.is_flag else f"{parameter.opts[0]} {value}"


def _kind(parameter: Any) -> str:
    if choices := getattr(parameter.type, "choices", None):
        return "|".join(map(str, choices))
    return {"uuid": "UUID", "str": "TEXT"}.get(parameter.type.name, "N")


def _shown_default(parameter: Any) -> str:
    default = parameter.default
    if default is None or isinstance(default, bool) or callable(default):
        return ""
    return f"{getattr(default, 'value', default)}"


def _allowed(parameter: Any) -> str:
    if "range" not in parameter.type.name or parameter.metavar == "ID" or "--id" in parameter.opts:
        return ""
    most = parameter.type.max
    return _between(parameter.type.min, None if most is None or most > 10**9 else most)


def _prose(text: str | None) -> str:
    return "\n\n".join(" ".join(part.split()) for part in (text or "").split("\n\n"))


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(map(_row, [head, ["---"] * len(head), *rows]))


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(' '.join(cell.replace('|', BAR).split()) for cell in cells)} |"


def terminal() -> str:
    """A picture of `status` and of `dead-letters list`, as a terminal of 80 columns shows them."""
    with TemporaryDirectory() as folder:
        deviceops = _Deviceops(Path(folder))
        deviceops("ingest", "-", lines="".join(_fleet(deviceops)))
        deviceops.settle_clock()
        return _picture([(command, deviceops(*command.split())) for command in SHOWN])


def _fleet(deviceops: "_Deviceops") -> Iterator[str]:
    """Messages about three operations: one that is over, one at work, and one that is not announced yet."""
    done, at_work = ["--devices=250", "--seed=4"], ["--devices=120", "--seed=12"]
    yield from deviceops("simulate", *done, "--conflicts=0.008", "--malformed=0.003").splitlines(True)
    yield from deviceops("simulate", *at_work, "--malformed=0.002").splitlines(True)[:380]
    yield from deviceops("simulate", "--devices=40", "--seed=3").splitlines(True)[1:30]


class _Deviceops:
    """The command as a terminal has it, on an SQLite file of its own."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "deviceops.db"
        ours = {"DEVICEOPS_DATABASE_URL": f"sqlite:///{self._file}", "COLUMNS": f"{COLUMNS}", "FORCE_COLOR": "1"}
        kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        self._environment = {**kept, **ours, "TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8"}
        self._folder = folder

    def __call__(self, *words: str, lines: str = "") -> str:
        done = subprocess.run(  # noqa: S603  # our own command
            [sys.executable, "-m", "worker", *words],
            cwd=self._folder,
            env={**self._environment, "PYTHONPATH": os.pathsep.join([str(DEPLOY.parent), *sys.path[1:]])},
            input=lines,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    def settle_clock(self) -> None:
        """Have all dead letters be of the same age, whenever the picture is made."""
        received = (datetime.now(UTC) - AGE).strftime("%Y-%m-%d %H:%M:%S.%f")
        with closing(sqlite3.connect(self._file)) as connection, connection:
            connection.execute("UPDATE dead_letters SET received_at = ?", [received])


def _picture(outputs: Iterable[tuple[str, str]]) -> str:
    console = Console(record=True, width=COLUMNS, file=StringIO(), force_terminal=True, color_system="truecolor")
    for command, output in outputs:
        console.print(Text(f"$ deviceops {command}", style="bold"))
        console.print(Text.from_ansi(output))
    # The fonts that rich names are fetched from elsewhere: a reader's own will do.
    drawn = re.sub(r"@font-face \{\{.*?\}\}\n", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    drawn = drawn.replace("Fira Code, monospace", "ui-monospace, DejaVu Sans Mono, monospace")
    svg = console.export_svg(title="deviceops", code_format=drawn, unique_id="deviceops")
    return "\n".join(line.rstrip() for line in svg.splitlines()) + "\n"


GENERATED: Mapping[str, Callable[[], str]] = {
    "changes.md": changes,
    "settings.md": settings,
    "cli.md": commands,
    "pictures/terminal.svg": terminal,
}


def made(name: str) -> str:
    """A file as it has to be."""
    text = GENERATED[name]()
    if not name.endswith(".md"):
        return text
    before, _, rest = (DEPLOY / name).read_text().partition(BEGIN)
    return f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.partition(END)[2]}"


def main() -> int:
    """Write the files, or compare them; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a file is out of date")
    is_check = parser.parse_args().check
    stale = []
    for name in GENERATED:
        path, text = DEPLOY / name, made(name)
        if not path.exists() or path.read_text() != text:
            stale.append(name)
            if not is_check:
                path.parent.mkdir(exist_ok=True)
                path.write_text(text)
    for name in stale:
        sys.stdout.write(f"deploy/{name}: {'out of date' if is_check else 'written'}\n")
    if is_check and stale:
        sys.stdout.write("run: python deploy/pages.py\n")
    return int(is_check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
