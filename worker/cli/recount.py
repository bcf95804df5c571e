"""The command that compares counters with a recount: recount."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated

import typer
from sqlalchemy.exc import DBAPIError

from worker.cli.common import Json, notices, print_json, ready_database, run_async, screen
from worker.config.settings import Settings
from worker.store import errors
from worker.store.recount import Drift, find_drift, fix_drift, keep_recount

DRIFT = 3
"""Exit code: counters differ from the rows."""

app = typer.Typer(add_completion=False)


@app.command()
def recount(
    fix: Annotated[bool, typer.Option("--fix", help="Correct what drifted.")] = False,
    json: Json = False,
) -> None:
    """Recount every operation's device operations, and look for rows that belong to nothing; exit 3 on drift.

    Histories are compared with the reports that they are of, as far as those were not pruned.
    """
    count, drifted = run_async(_recount(Settings.load(), fix))
    if json:
        print_json({"operations": count, "drifted": [asdict(drift) for drift in drifted]})
    else:
        for drift in drifted:
            for line in _told(drift):
                screen.print(line)
        verdict = f"{len(drifted):,} drifted{', now fixed' if fix else ''}" if drifted else "all counters agree"
        screen.print(f"operations recounted: {count:,}; {verdict}")
    if drifted and not fix:
        raise typer.Exit(DRIFT)


async def _recount(settings: Settings, fix: bool) -> tuple[int, list[Drift]]:
    async with ready_database(settings) as opened:
        count, drifted = await find_drift(opened)
        if fix:
            await fix_drift(opened, drifted)
        try:
            await keep_recount(opened, 0 if fix else len(drifted))
        except DBAPIError as error:  # a standby can be recounted, but stores nothing
            notices.print(f"metrics will not tell of this recount: {errors.one_line_error(error)}", style="yellow")
    return count, drifted


def _told(drift: Drift) -> Iterator[str]:
    if drift.stored is None:
        number = drift.actual["resolved_device_count"]
        yield f"operation {drift.operation_id}: is missing, and has {number:,} device operations"
        return
    whose = "" if drift.operation_id is None else f"operation {drift.operation_id}: "
    for name, stored in drift.stored.items():
        if stored != drift.actual[name]:
            yield f"{whose}{name} is {_number(stored)}, a recount gives {_number(drift.actual[name])}"


def _number(value: int | str) -> str:
    return value if isinstance(value, str) else f"{value:,}"
