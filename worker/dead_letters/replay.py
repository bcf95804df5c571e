"""Dead letters through the same processing again, marked in the transaction that does it.

So a replay that is killed at any point, or runs twice at once, has one effect: what it did is marked, and
what is not marked was not done.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

from statemachine import Verdict
from worker.config.reporters import Trust
from worker.dead_letters.paging import PATIENCE, Progress, pages
from worker.model.messages import Item
from worker.model.outcomes import Tally
from worker.processing.batches import process_messages, split_by_weight
from worker.processing.decisions import Outcome
from worker.processing.dry_run import DryRun
from worker.store.database import Database
from worker.store.dead_letters import stored_message
from worker.store.selection import Selection


@dataclass(slots=True)
class Summary:
    """How many dead letters were replayed, and what became of them.

    The tally counts reports: a bulk message that the broker had given up brings several.
    """

    selected: int = 0
    tally: Tally = field(default_factory=Tally)

    def document(self) -> Mapping[str, object]:
        """What `dead-letters replay --json` prints. An announcement that is taken counts as applied."""
        tally = self.tally
        return {
            "selected": self.selected,
            "applied": tally.verdicts[Verdict.APPLIED] + tally.announced,
            "late": tally.verdicts[Verdict.LATE],
            "repeated": tally.verdicts[Verdict.REPEATED],
            "duplicate": tally.duplicate,
            "released": tally.released,
            "still_dead": tally.dead_letter_counts(),
        }


async def replay(
    database: Database,
    selection: Selection,
    *,
    actor: str,
    trust: Trust | None = None,
    limit: int | None = None,
    rate: float | None = None,
    progress: Progress = id,
) -> Summary:
    """Process the selected dead letters again, `limit` at most, `rate` of them a second at most.

    Raises the database's error if it stays away; then everything up to there is done, and the rest is not.
    """
    summary = Summary()
    async for rows in pages(database.read, selection, limit, rate):
        messages = [stored_message(row) for row in rows]
        summary.tally.add(await process_messages(database, messages, trust=trust, actor=actor, patience=PATIENCE))
        summary.selected += len(rows)
        progress(len(rows))
    return summary


async def foretell(
    database: Database,
    selection: Selection,
    *,
    trust: Trust | None = None,
    limit: int | None = None,
    progress: Progress = id,
) -> tuple[Summary, dict[int, Outcome]]:
    """What a replay would do, and with each dead letter: decided for real in one snapshot, nothing changed."""
    selected = 0
    async with database.read() as connection:
        dry_run = DryRun(connection, trust)

        async def batches() -> AsyncIterator[Sequence[Item]]:
            nonlocal selected
            async for rows in pages(lambda: nullcontext(connection), selection, limit):
                # What an earlier page has released is resolved by now: a replay would not select it.
                still_open = [row for row in rows if not isinstance(dry_run.outcomes.get(row.id), str)]
                selected += len(still_open)
                async for items in split_by_weight(map(stored_message, still_open)):
                    yield items
                progress(len(rows))

        await dry_run.run(batches())
    outcomes = {id_: outcome for id_, outcome in dry_run.outcomes.items() if id_ in dry_run.selected}
    return Summary(selected, dry_run.tally), outcomes


def outcome_documents(found: Mapping[int, Outcome]) -> list[dict[str, str | int]]:
    """What became, or would become, of each dead letter, as documents."""
    told = {id_: (of, "") if isinstance(of, str) else (of.reason.value, of.detail) for id_, of in found.items()}
    return [{"id": id_, "outcome": outcome, "detail": detail} for id_, (outcome, detail) in told.items()]
