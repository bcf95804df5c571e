"""What would come of a replay: the same decisions as the processor's, without a lock and without a trace."""

from collections.abc import AsyncIterable, Sequence

from sqlalchemy.ext.asyncio import AsyncConnection

from worker.dead_letters import DeadLetter
from worker.ledger import Ledger
from worker.messages import Item, Key
from worker.outcomes import Status
from worker.scope import Scope, waiting_for
from worker.store import batch as store


async def foresee(connection: AsyncConnection, batches: AsyncIterable[Sequence[Item]], ledger: Ledger) -> None:
    """Take batches of stored dead letters into a ledger, one after another; nothing is written.

    The connection gives one snapshot. The ledger then has the tally, and the outcomes of the dead letters that it
    has as `stored`.
    """
    met: set[Key] = set()
    async for items in batches:
        scope = Scope.of(items)
        scope.announcements -= met
        met |= scope.announcements
        await _learn(ledger, connection, scope)
        for item in items:
            ledger.take(item)
        fingerprints = {letter.fingerprint for letter in ledger.dead_letters}
        ledger.count_as_duplicates(fingerprints - await store.kept_before(connection, fingerprints))
        for written in (ledger.activity, ledger.dead_letters, ledger.history):
            written.clear()


async def _learn(ledger: Ledger, connection: AsyncConnection, scope: Scope) -> None:
    """Read what a batch is about, but for what earlier batches know better."""
    ledger.held |= scope.held(await store.look(connection, scope.claims.keys() - ledger.held.keys()))
    ledger.new_announcements |= scope.announcements - await store.announced_before(connection, scope.announcements)
    known = await store.known(connection, scope.reports, scope.operations - ledger.operation_types.keys())
    ledger.operation_types |= known.operation_types
    ledger.seen |= known.accepted
    kept = {key: id_ for key, id_ in known.kept.items() if not _has_lost_identity(ledger, id_)}
    ledger.kept = kept | ledger.kept
    # What an earlier batch has released is resolved by now.
    is_done = {id_: isinstance(ledger.outcomes.get(id_), str) for id_ in scope.stored}
    ledger.stored |= {id_: Status.RESOLVED if done else Status.OPEN for id_, done in is_done.items()}
    for id_, letters in (await waiting_for(connection, scope.registering - ledger.held.keys())).items():
        met = ledger.stored.keys() | {letter.message.dead_letter_id for letter in ledger.waiting[id_]}
        ledger.waiting[id_] += [letter for letter in letters if letter.message.dead_letter_id not in met]
    # Who comes in its own turn now is not released, though an earlier batch has read that it waits.
    for id_ in scope.claims.keys() & ledger.waiting.keys():
        letters = ledger.waiting[id_]
        ledger.waiting[id_] = [letter for letter in letters if letter.message.dead_letter_id not in scope.stored]


def _has_lost_identity(ledger: Ledger, id_: int) -> bool:
    """Whether an earlier batch would have kept a dead letter without the identity that it is stored with."""
    outcome = ledger.outcomes.get(id_)
    return isinstance(outcome, DeadLetter) and outcome.report is None
