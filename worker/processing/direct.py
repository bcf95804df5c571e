"""Synchronous processing for HTTP: the same rules, the verdict is returned.

Fails fast: a database that is unavailable is not waited for; clients retry.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID, uuid4, uuid5

from statemachine import SETTLED, State
from worker.config.reporters import Denial, Reporters
from worker.model.contract import Report
from worker.model.dead_letter import DeadLetter
from worker.model.identity import NAMESPACE, device_operation_id
from worker.model.messages import Incoming, Message, Origin, Rejected
from worker.model.outcomes import Tally
from worker.model.parsing import parse
from worker.processing.batch_log import log_aborts
from worker.processing.decisions import Answer
from worker.processing.splitting import WriteTransactions, process_items
from worker.processing.together import process_together
from worker.store import documents, queries
from worker.store.database import Database

TOGETHER = 1_000
"""Device operations of a cancellation that are processed in one batch."""


async def process_message(
    database: Database,
    message: Message,
    reporters: Reporters | None = None,
    *,
    unless_settled: bool = False,
    note: Callable[[Tally], object] = id,
) -> Answer:
    """Process one report or announcement; a rejected one is answered, not kept.

    `unless_settled` is as for `Incoming`; `note` receives the tally. Raises the database's errors; then nothing
    has happened.
    """
    [item] = parse(replace(message, is_awaited=True))
    if isinstance(item, Rejected):
        return Answer(DeadLetter(item.reason, item.detail, item.message, None))
    if isinstance(item, Incoming):
        item = replace(item, unless_settled=unless_settled)
    answers: list[Answer] = []
    tally = await process_items(WriteTransactions(database, reporters, answers=answers), [item])
    log_aborts(tally)
    note(tally)
    return answers[-1]


async def cancel_operation(
    database: Database,
    operation: documents.Operation,
    origin: Origin,
    *,
    service_id: str,
    reason: str | None,
    key: str | None = None,
    reporters: Reporters | None = None,
    note: Callable[[Tally], object] = id,
) -> Denial | Tally:
    """Cancel every device operation of an operation that is not settled, in one transaction.

    `service_id` is the reporter named in the history, `key` the identity of the cancellation: a second one of the
    operation with the same key changes nothing, whatever was announced since. Returns the tally, which `note`
    receives too, or the denial if the reporter may not cancel; then, and if the database's error is raised,
    nothing has happened.
    """
    now = datetime.now(UTC)
    # An id of its own kind: a report of one of the devices may have the same key.
    report_id = str(uuid5(NAMESPACE, f"cancellation {key or uuid4()}"))
    message = Message(b"", now, report_id, origin=lambda: origin, is_awaited=True)

    def cancellation(device_id: UUID) -> Incoming:
        report = Report(
            operation_id=operation.id,
            device_id=device_id,
            state=State.CANCELLED,
            service_id=service_id,
            reason=reason,
        )
        return Incoming(
            report, (device_operation_id(operation.id, device_id), report_id), now, message, unless_settled=True
        )

    if reporters is not None:
        any_report = cancellation(UUID(int=0)).report
        if denial := reporters.check_report(any_report, message, operation.operation or None, is_known=True):
            return denial
    async with database.read() as connection:
        devices = await queries.devices_in(connection, operation.id, set(State) - SETTLED)
    # In the order of their device operations' ids, in which all transactions lock them.
    devices.sort(key=lambda device_id: device_operation_id(operation.id, device_id).bytes)
    starts = range(0, len(devices), TOGETHER)
    tally = await process_together(
        database,
        ([cancellation(device) for device in devices[start : start + TOGETHER]] for start in starts),
        once=(operation.id, report_id) if key else None,
    )
    log_aborts(tally)
    note(tally)
    return tally
