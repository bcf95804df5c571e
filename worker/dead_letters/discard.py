"""Discards dead letters with a reason, and restores discarded ones."""

from worker.config.reporters import Reporters
from worker.dead_letters.paging import OnProgress, pages
from worker.dead_letters.replay import replay
from worker.dead_letters.status import set_status
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
    progress: OnProgress = id,
) -> int:
    """Discard the selected open dead letters; returns their number. They stay readable and can be restored."""
    discarded = 0
    async for rows in pages(database.read, selection, limit):
        discarded += len(await set_status(database, rows, Status.DISCARDED, Action.DISCARDED, because, actor))
        progress(len(rows))
    return discarded


async def restore(
    database: Database,
    selection: Selection,
    *,
    actor: str,
    reporters: Reporters | None = None,
    limit: int | None = None,
    progress: OnProgress = id,
) -> int:
    """Reopen the selected discarded dead letters; returns their number.

    Parked reports are replayed at once, since the registration may have arrived. Dead letters whose body was
    removed by retention are skipped: there is nothing left to process.
    """
    restored = 0
    async for rows in pages(database.read, selection, limit):
        usable = [row for row in rows if row.body_removed_at is None]
        changed = set(await set_status(database, usable, Status.OPEN, Action.RESTORED, "", actor))
        parked = [row.id for row in usable if row.id in changed and row.reason == Reason.UNKNOWN_DEVICE_OPERATION]
        await replay(database, Selection(parked), actor=actor, reporters=reporters)
        restored += len(changed)
        progress(len(rows))
    return restored
