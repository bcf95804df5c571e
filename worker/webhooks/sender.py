"""Sends what is due: leases it, attempts it, and writes down what came of it.

Attempts run beside each other, each webhook's within bounds of its own, so that none waits for another one's. What
they need of the database is done in turn, with one connection: batches need the others.
"""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple
from uuid import uuid4

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from worker.config.webhooks import Webhook
from worker.store import webhook_deliveries
from worker.store.database import Database
from worker.store.webhook_deliveries import Condition, Delivery
from worker.store.webhooks import spare_the_disk
from worker.webhooks import message, schedule
from worker.webhooks.answer import Answer, Outcome

if TYPE_CHECKING:
    from worker.webhooks.client import Client

AT_ONCE = 10
"""Attempts of a webhook at a time, by all workers together."""
LEASE = 30_000
"""Milliseconds after which another worker makes an attempt: more than any takes, and its outcome to be written."""
SETTLED = 100
"""Attempts of which the outcome is written in one transaction."""
POLL = 1
"""Seconds between two looks at what has become due."""

_log = structlog.get_logger()


class _Attempt(NamedTuple):
    delivery: Delivery
    answer: Answer | None
    """None if it was broken off."""


class _Record(NamedTuple):
    """What was written down."""

    failures: int
    """Of the webhook, before."""
    was_switched_off: bool = False
    is_given_up: bool = False


class Sender:
    """Sends to some webhooks; `on_finished` is called when an attempt is over."""

    def __init__(
        self,
        database: Database,
        webhooks: Mapping[str, Webhook],
        outcomes: Counter[tuple[str, str]],
        on_finished: Callable[[], object],
    ) -> None:
        self._database = database
        self._webhooks = webhooks
        self._outcomes = outcomes
        self._on_finished = on_finished
        self._client: Client | None = None
        self._running: defaultdict[str, set[asyncio.Task[None]]] = defaultdict(set)
        self._finished: list[_Attempt] = []
        self._looked_at = 0.0
        self.is_woken = True
        """Whether something may be due before the next look."""

    def open(self) -> "Client":
        """Make the client, unless there is one; the first takes a moment, and may be made in a thread."""
        if self._client is None:
            from worker.webhooks.client import Client  # late: only what sends pays for it

            self._client = Client()
        return self._client

    async def turn(self) -> None:
        """Write down what attempts have come to, and begin new ones. Raises the database's errors."""
        await self._settle()
        if not self.is_woken and time.monotonic() - self._looked_at < POLL:
            return
        self._looked_at, self.is_woken = time.monotonic(), False
        free = {name: AT_ONCE - len(self._running[name]) for name in self._webhooks}
        names = [name for name, number in free.items() if number]
        if not names:
            return
        async with self._database.read() as connection:
            due = await webhook_deliveries.due(connection, names)
        for name in due:
            async with self._database.write(is_counted=False) as connection:
                await spare_the_disk(connection)
                leased = await webhook_deliveries.lease(connection, name, uuid4(), LEASE, free[name], AT_ONCE)
            for delivery in leased:
                self._begin(delivery)

    async def finish(self, seconds: float) -> None:
        """Wait for attempts, break off those that take longer, and write down what came of all."""
        tasks = {task for running in self._running.values() for task in running}
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=seconds)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)
        await self._settle()

    def _begin(self, delivery: Delivery) -> None:
        task = asyncio.create_task(self._attempt(delivery))
        self._running[delivery.webhook].add(task)
        task.add_done_callback(self._running[delivery.webhook].discard)

    async def _attempt(self, delivery: Delivery) -> None:
        answer = None
        try:
            sent = message.of_change(delivery.id, delivery.type, delivery.recorded_at, delivery.payload)
            answer = await self.open().send(self._webhooks[delivery.webhook], sent)
        except Exception as error:  # a mistake of ours must not end the worker  # noqa: BLE001
            _log.error("webhook not attempted", webhook=delivery.webhook, exc_info=error)
            answer = Answer(None, "not attempted: an error of deviceops, which is logged")
        finally:
            self._finished.append(_Attempt(delivery, answer))
            self.is_woken = True
            self._on_finished()

    async def _settle(self) -> None:
        """Write down what came of attempts; if that fails, they are kept until it does not."""
        while finished := sorted(self._finished, key=_webhook)[:SETTLED]:
            records: list[tuple[_Attempt, _Record]] = []
            async with self._database.write(is_counted=False) as connection:
                await spare_the_disk(connection)
                for name, attempts in groupby(finished, _webhook):
                    records += await _record(connection, name, list(attempts))
            self._finished = [each for each in self._finished if each not in finished]
            for attempt, record in records:
                self._tell(attempt.delivery, attempt.answer, record)

    def _tell(self, delivery: Delivery, answer: Answer | None, record: _Record) -> None:
        """Count and log what came of an attempt, once that is committed."""
        assert answer is not None
        name, failure = delivery.webhook, {"status": answer.status, "error": answer.reason}
        self._outcomes[name, Outcome.DELIVERED if answer.is_success else Outcome.FAILED] += 1
        if record.was_switched_off:
            _log.warning("webhook switched off: its receiver asks for it (410)", webhook=name)
        elif answer.is_success and record.failures:
            _log.info("webhook delivers again", webhook=name)
        elif not answer.is_success and not record.failures:
            _log.warning("webhook fails, retrying", webhook=name, **failure)
        if record.is_given_up:
            self._outcomes[name, Outcome.GIVEN_UP] += 1
            _log.warning("webhook: message given up", webhook=name, webhook_id=str(delivery.id), **failure)


def _webhook(attempt: _Attempt) -> str:
    return attempt.delivery.webhook


async def _record(
    connection: AsyncConnection, name: str, attempts: Sequence[_Attempt]
) -> list[tuple[_Attempt, _Record]]:
    """Write down what came of attempts of a webhook; returns those that count."""
    before = await webhook_deliveries.lock(connection, name)
    records = []
    taken = [each for each in attempts if each.answer is not None and each.answer.is_success]
    if taken:
        status = taken[-1].answer.status if taken[-1].answer is not None else None
        found = await webhook_deliveries.delivered(connection, name, [each.delivery for each in taken], status)
        counting = [each for each in taken if each.delivery.position in found]
        records += [(each, _Record(0 if number else before.failures)) for number, each in enumerate(counting)]
        before = Condition(0, is_resting=False) if counting else before
    for attempt in attempts:
        if attempt not in taken and (record := await _record_failure(connection, attempt, before)) is not None:
            records.append((attempt, record))
            before = Condition(before.failures + (not before.is_resting), is_resting=True)
    return records


async def _record_failure(connection: AsyncConnection, attempt: _Attempt, before: Condition) -> _Record | None:
    """Write down what came of an attempt that has not succeeded; None if it counts for nothing."""
    delivery, answer = attempt
    if answer is None:
        await webhook_deliveries.release(connection, delivery)
        return None
    status, reason, asked = answer
    if status is not None and answer.switches_off:
        is_off = await webhook_deliveries.switched_off(connection, delivery, status, reason)
        return _Record(before.failures + 1, was_switched_off=is_off)
    pause = schedule.pause(delivery.attempts + 1, asked)
    rest = schedule.rest(before.failures + (not before.is_resting), asked)
    is_leased = await webhook_deliveries.failed(connection, delivery, status, reason, pause, rest)
    return _Record(before.failures, is_given_up=pause is None) if is_leased else None
