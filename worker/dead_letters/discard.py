"""Dead letters that nobody needs any more: discarded, with a reason, and taken back."""

from worker.config.reporters import Trust
from worker.dead_letters.paging import Progress, pages
from worker.dead_letters.replay import replay
from worker.dead_letters.status import mark
from worker.model.outcomes import Action, Reason, Status
from worker.store.database import Database
from worker.store.selection import Selection


async def discard(
    database: Database,
    selection: Selection,
    because: str,
    *,
    actor: str,
    limit: int | None = None,
    progress: Progress = id,
) -> int:
    """Discard the selected open dead letters; returns how many. They stay readable, and can be restored."""
    discarded = 0
    async for rows in pages(database.read, selection, limit):
        discarded += len(await mark(database, rows, Status.DISCARDED, Action.DISCARDED, because, actor))
        progress(len(rows))
    return discarded


async def restore(
    database: Database,
    selection: Selection,
    *,
    actor: str,
    trust: Trust | None = None,
    limit: int | None = None,
    progress: Progress = id,
) -> int:
    """Make the selected discarded dead letters open again; returns how many.

    A parked report is replayed at once, since its registration may have come meanwhile. One whose body retention
    has removed stays as it is: there is nothing left to process.
    """
    restored = 0
    async for rows in pages(database.read, selection, limit):
        usable = [row for row in rows if row.body_removed_at is None]
        changed = set(await mark(database, usable, Status.OPEN, Action.RESTORED, "", actor))
        parked = [row.id for row in usable if row.id in changed and row.reason == Reason.UNKNOWN_DEVICE_OPERATION]
        await replay(database, Selection(parked), actor=actor, trust=trust)
        restored += len(changed)
        progress(len(rows))
    return restored
