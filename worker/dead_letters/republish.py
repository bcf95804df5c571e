"""Dead letters sent to the broker again: the same bytes, with a header that says which dead letter it is.

A worker that receives one settles the dead letter in the transaction that processes it, so nothing hangs on
the mark that is made here after the broker's confirmation: were it made before, or were the message then taken
for a duplicate of its own dead letter, a report could be lost.
"""

from dataclasses import replace
from typing import Any

from sqlalchemy import Row

from worker.amqp.publisher import Destination, publish
from worker.dead_letters.paging import Progress, pages
from worker.dead_letters.status import mark
from worker.model.messages import REPLAY_OF, REPLAYS, Message, Origin
from worker.model.outcomes import Action, Status
from worker.store.database import Database
from worker.store.dead_letters import stored_message
from worker.store.selection import Selection

_STRIPPED_HEADERS = ("x-death", "x-first-death-", "x-last-death-", "x-delivery-count", "x-acquired-count")
"""How headers begin that tell of deaths and deliveries: they would be told of another message."""


async def republish(
    database: Database,
    selection: Selection,
    destination: Destination,
    *,
    actor: str,
    limit: int | None = None,
    rate: float | None = None,
    progress: Progress = id,
) -> int:
    """Send the selected dead letters to an exchange; returns how many the broker confirmed.

    Raises DeviceopsError if the broker does not take one; what was confirmed before it is settled by a worker.
    """
    sent = 0
    async for rows in pages(database.read, selection, limit, rate):
        await publish(destination, [_republished(row) for row in rows])
        confirmed = "confirmed by the broker"
        await mark(database, rows, Status.RESOLVED, Action.REPUBLISHED, confirmed, actor, is_done=True)
        sent += len(rows)
        progress(len(rows))
    return sent


def _republished(row: Row[Any]) -> Message:
    message = stored_message(row)
    kept = {name: value for name, value in row.headers.items() if not name.startswith(_STRIPPED_HEADERS)}
    headers = {**kept, REPLAY_OF: str(row.fingerprint), REPLAYS: row.attempts}
    origin = Origin(row.exchange, row.routing_key, row.properties, headers)
    return replace(message, origin=lambda: origin)
