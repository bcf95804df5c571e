"""Replays dead letters: processes their messages again, and updates their status in the same transaction.

So a replay is idempotent: killed at any point, or run twice at once, it has one effect.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

from statemachine import Verdict
from worker.config.reporters import Reporters
from worker.dead_letters.paging import RETRY_TIMEOUT, OnProgress, pages
from worker.model.messages import Item
from worker.model.outcomes import Tally
from worker.processing.batch_log import log_aborts
from worker.processing.batches import process_messages, split_by_weight
from worker.processing.decisions import Outcome
from worker.processing.dry_run import DryRun
from worker.store.database import Database
from worker.store.dead_letters import stored_message
from worker.store.selection import Selection


@dataclass(slots=True)
class Summary:
    """Number of replayed dead letters, and the tally of their reports.

    The tally may be larger than the number: an undeliverable bulk message has several reports.
    """

    selected: int = 0
    tally: Tally = field(default_factory=Tally)

    def document(self) -> Mapping[str, object]:
        """The document of `dead-letters replay --json`. An accepted announcement counts as applied."""
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
    reporters: Reporters | None = None,
    limit: int | None = None,
    rate: float | None = None,
    progress: OnProgress = id,
) -> Summary:
    """Process the selected dead letters again, at most `limit` in all and `rate` per second.

    Raises the database's error if it does not recover within `RETRY_TIMEOUT`; pages before that are committed.
    """
    summary = Summary()
    async for rows in pages(database.read, selection, limit, rate):
        messages = [stored_message(row) for row in rows]
        tally = await process_messages(
            database, messages, reporters=reporters, actor=actor, patience=RETRY_TIMEOUT
        )
        log_aborts(tally)
        summary.tally.add(tally)
        summary.selected += len(rows)
        progress(len(rows))
    return summary


async def preview(
    database: Database,
    selection: Selection,
    *,
    reporters: Reporters | None = None,
    limit: int | None = None,
    rate: float | None = None,
    progress: OnProgress = id,
) -> tuple[Summary, dict[int, Outcome]]:
    """Dry run of a replay in one snapshot: the summary, and the outcome of each dead letter by id.

    `rate` is that of the replay; the dry run itself does not wait.
    """
    selected = 0
    async with database.read() as connection:
        dry_run = DryRun(connection, reporters)

        async def batches() -> AsyncIterator[Sequence[Item]]:
            nonlocal selected
            async for rows in pages(lambda: nullcontext(connection), selection, limit, rate, is_dry_run=True):
                # A replay would not select what an earlier page has released.
                still_open = [row for row in rows if not isinstance(dry_run.outcomes.get(row.id), str)]
                selected += len(still_open)
                async for items in split_by_weight(map(stored_message, still_open)):
                    yield items
                progress(len(rows))

        await dry_run.run(batches())
    outcomes = {id_: outcome for id_, outcome in dry_run.outcomes.items() if id_ in dry_run.selected}
    return Summary(selected, dry_run.tally), outcomes


def outcome_documents(found: Mapping[int, Outcome]) -> list[dict[str, str | int]]:
    """Outcomes of dead letters by id, as documents."""
    pairs = {id_: (of, "") if isinstance(of, str) else (of.reason.value, of.detail) for id_, of in found.items()}
    return [{"id": id_, "outcome": outcome, "detail": detail} for id_, (outcome, detail) in pairs.items()]
