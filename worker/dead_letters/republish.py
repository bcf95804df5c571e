"""Publishes dead letters again: the same bytes, with a header that identifies the dead letter.

A worker that receives one updates the dead letter in the transaction that processes the message, so correctness
does not depend on the status that is set here. It is set only after the broker's confirm, and the message is not a
duplicate of its own dead letter: otherwise a report could be lost.
"""

from dataclasses import replace
from typing import Any

from sqlalchemy import Row

from worker.amqp.publisher import Destination, publish
from worker.dead_letters.paging import OnProgress, pages
from worker.dead_letters.status import set_status
from worker.model.messages import REPLAY_OF, REPLAYS, Message, Origin
from worker.model.outcomes import Action, Status
from worker.store.database import Database
from worker.store.dead_letters import stored_message
from worker.store.selection import Selection

_STRIPPED_HEADERS = ("x-death", "x-first-death-", "x-last-death-", "x-delivery-count", "x-acquired-count")
"""Prefixes of headers about dead-lettering and deliveries of the original message."""


async def republish(
    database: Database,
    selection: Selection,
    destination: Destination,
    *,
    actor: str,
    limit: int | None = None,
    rate: float | None = None,
    progress: OnProgress = id,
) -> int:
    """Publish the selected dead letters to an exchange; returns the number of confirmed messages.

    Raises DeviceopsError if the broker rejects one; messages confirmed before it are processed by a worker.
    """
    sent = 0
    async for rows in pages(database.read, selection, limit, rate):
        await publish(destination, [_republished(row) for row in rows])
        confirmed = "confirmed by the broker"
        await set_status(database, rows, Status.RESOLVED, Action.REPUBLISHED, confirmed, actor, is_done=True)
        sent += len(rows)
        progress(len(rows))
    return sent


def _republished(row: Row[Any]) -> Message:
    message = stored_message(row)
    kept = {name: value for name, value in row.headers.items() if not name.startswith(_STRIPPED_HEADERS)}
    headers = {**kept, REPLAY_OF: str(row.fingerprint), REPLAYS: row.attempts}
    origin = Origin(row.exchange, row.routing_key, row.properties, headers)
    return replace(message, origin=lambda: origin)
