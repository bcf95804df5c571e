"""Process dead letters again: replay."""

from typing import Annotated

import typer

from worker.amqp.connection import connected
from worker.amqp.publisher import Destination
from worker.amqp.topology import Topology
from worker.cli.common import Json, actor, configure_logging, print_json, run_async, screen
from worker.cli.dead_letters import tables
from worker.cli.dead_letters.options import Limit, selected, selecting
from worker.cli.options import finite
from worker.config.settings import Settings
from worker.dead_letters.replay import Summary, outcome_documents, preview
from worker.dead_letters.replay import replay as replay_selected
from worker.dead_letters.republish import republish
from worker.errors import SettingsError
from worker.model.outcomes import Status
from worker.processing.decisions import Outcome
from worker.store.selection import Selection

app = typer.Typer(add_completion=False)


@app.command()
@selecting(changing=Status.OPEN)
def replay(
    selection: Selection,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would happen to each; change nothing.")
    ] = False,
    to_broker: Annotated[
        bool, typer.Option("--to-broker", help="Send the original bytes to the exchange again, for a worker.")
    ] = False,
    rate: Annotated[
        float | None, typer.Option(min=0.01, max=1e6, callback=finite, help="Maximum number per second.")
    ] = None,
    limit: Limit = None,
    json: Json = False,
) -> None:
    """Process open dead letters again, and mark them in the same transaction; safe to repeat or interrupt."""
    if to_broker and dry_run:
        raise SettingsError("--dry-run decides here what would happen; with --to-broker a worker decides")
    settings = Settings.load()
    configure_logging(settings)
    if dry_run:
        summary, outcomes = run_async(_preview(settings, selection, limit, rate))
        if json:
            print_json({**summary.document(), "dead_letters": outcome_documents(outcomes)})
        else:
            screen.print(
                tables.outcomes(outcomes),
                tables.replayed(summary.document(), selection.ids),
                "nothing was changed",
            )
        return
    if to_broker:
        count = run_async(_republish(settings, selection, limit, rate))
        if json:
            print_json({"republished": count})
        else:
            screen.print(f"dead letters sent to {settings.topology_prefix} again and confirmed: {count:,}")
        return
    summary = run_async(_replay(settings, selection, limit, rate))
    if json:
        print_json(summary.document())
    else:
        screen.print(tables.replayed(summary.document(), selection.ids))


async def _replay(settings: Settings, selection: Selection, limit: int | None, rate: float | None) -> Summary:
    async with selected(settings, selection, limit, "replaying") as (database, progress):
        return await replay_selected(
            database,
            selection,
            actor=actor(),
            reporters=settings.reporters,
            limit=limit,
            rate=rate,
            progress=progress,
        )


async def _preview(
    settings: Settings, selection: Selection, limit: int | None, rate: float | None
) -> tuple[Summary, dict[int, Outcome]]:
    async with selected(settings, selection, limit, "deciding") as (database, progress):
        return await preview(
            database, selection, reporters=settings.reporters, limit=limit, rate=rate, progress=progress
        )


async def _republish(settings: Settings, selection: Selection, limit: int | None, rate: float | None) -> int:
    async with connected(settings) as connection:
        destination = await Destination.at(connection, Topology(settings.topology_prefix).exchange)
        async with selected(settings, selection, limit, "publishing") as (database, progress):
            return await republish(
                database, selection, destination, actor=actor(), limit=limit, rate=rate, progress=progress
            )
