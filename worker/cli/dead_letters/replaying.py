"""Process dead letters again: replay."""

from typing import Annotated

import typer

from worker.cli.dead_letters import render
from worker.cli.dead_letters.selecting import Limit, selected, selecting
from worker.cli.wiring import Json, actor, configure_logging, print_json, run_async, screen
from worker.errors import SettingsError
from worker.intake.connection import connected
from worker.intake.publisher import Destination
from worker.intake.topology import Topology
from worker.ledger import Outcome
from worker.mending.replay import Summary, foretell, outcome_documents
from worker.mending.replay import replay as replay_selected
from worker.mending.republish import republish
from worker.outcomes import Status
from worker.settings import Settings
from worker.store.letters import Selection

app = typer.Typer()


@app.command()
@selecting(changing=Status.OPEN)
def replay(
    selection: Selection,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would happen to each; change nothing.")
    ] = False,
    to_broker: Annotated[
        bool, typer.Option("--to-broker", help="Send the original bytes to the exchange again, for a worker.")
    ] = False,
    rate: Annotated[float | None, typer.Option(min=0.01, max=1e6, help="So many in a second, at most.")] = None,
    limit: Limit = None,
    json: Json = False,
) -> None:
    """Process open dead letters again, and mark them in the same transaction; safe to run twice, or at once."""
    if to_broker and dry_run:
        raise SettingsError("--dry-run decides here what would happen; with --to-broker a worker decides")
    settings = Settings.load()
    configure_logging(settings)
    if dry_run:
        summary, outcomes = run_async(_foretell(settings, selection, limit))
        if json:
            print_json({**summary.document(), "dead_letters": outcome_documents(outcomes)})
        else:
            screen.print(
                render.outcomes(outcomes),
                render.replayed(summary.document()),
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
        screen.print(render.replayed(summary.document()))


async def _replay(settings: Settings, selection: Selection, limit: int | None, rate: float | None) -> Summary:
    async with selected(settings, selection, limit, "replaying") as (database, progress):
        return await replay_selected(
            database,
            selection,
            actor=actor(),
            trust=settings.trust,
            limit=limit,
            rate=rate,
            progress=progress,
        )


async def _foretell(
    settings: Settings, selection: Selection, limit: int | None
) -> tuple[Summary, dict[int, Outcome]]:
    async with selected(settings, selection, limit, "deciding") as (database, progress):
        return await foretell(database, selection, trust=settings.trust, limit=limit, progress=progress)


async def _republish(settings: Settings, selection: Selection, limit: int | None, rate: float | None) -> int:
    async with connected(settings) as connection:
        destination = await Destination.at(connection, Topology(settings.topology_prefix).exchange)
        async with selected(settings, selection, limit, "publishing") as (database, progress):
            return await republish(
                database, selection, destination, actor=actor(), limit=limit, rate=rate, progress=progress
            )
