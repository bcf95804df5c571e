"""The command that times out once: expire."""

from collections import Counter
from collections.abc import Mapping
from typing import Annotated
from uuid import UUID

import typer

from statemachine import Kind, Verdict
from worker.cli import tables
from worker.cli.common import (
    Json,
    configure_logging,
    log_database,
    print_json,
    ready_database,
    run_async,
    screen,
)
from worker.config.settings import Settings
from worker.errors import DeviceopsError
from worker.model.outcomes import Tally
from worker.model.text import counted
from worker.processing.batch_log import log_aborts
from worker.processing.expiry import Expirer, all_of_them, apply_settings, count_over

app = typer.Typer(add_completion=False)


@app.command()
def expire(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count what would be timed out.")] = False,
    json: Json = False,
) -> None:
    """Time out what is over, once, and cancel what was aborted; `run` does it by itself.

    For installations without a broker: a report that still waits in a queue is not waited for. Changed timeouts
    are applied first, but not by a dry run.
    """
    settings = Settings.load()
    configure_logging(settings)
    if dry_run:
        over = run_async(_count(settings))
        kinds = sum(over.values(), Counter[Kind]())
        show(kinds, {"operations": len(over)}, json=json, verb="would time out")
        return
    tally, refused = run_async(_expire(settings))
    cancelled = tally.verdicts[Verdict.APPLIED] - tally.timeouts.total()
    show(tally.timeouts, {"cancelled": cancelled, "aborted": tally.aborts}, json=json, verb="timed out")
    if refused:
        found = counted(refused, "device operation")
        raise DeviceopsError(f"the database refuses to change {found}: see the log")


def show(kinds: Counter[Kind], others: Mapping[str, int], *, json: bool, verb: str) -> None:
    """Print the numbers."""
    by_kind = {kind.value: kinds[kind] for kind in Kind if kinds[kind]}
    if json:
        print_json({"timed_out": kinds.total(), "kinds": by_kind, **others})
    else:
        screen.print(tables.numbers({verb: kinds.total(), **by_kind, **others}))


async def _count(settings: Settings) -> Mapping[UUID, Counter[Kind]]:
    log_database(settings)
    async with ready_database(settings) as database:
        return await count_over(database)


async def _expire(settings: Settings) -> tuple[Tally, int]:
    tally = Tally()
    log_database(settings)
    async with ready_database(settings, for_batches=True) as database:
        await apply_settings(database)

        def note(found: Tally) -> None:
            log_aborts(found)
            tally.add(found)

        expirer = Expirer(database, all_of_them, note)
        with tables.counting("timed out", None) as count:
            while await expirer.act():
                count(tally.timeouts.total())
    return tally, expirer.refused
