"""A session with RabbitMQ: one connection, from the declaration of the topology to its end.

It consumes the reports and the abandoned messages, each with its own channel and batcher. A session ends as a
whole, so that a delivery tag is never used on another channel; unacknowledged messages are redelivered, and those
that were committed are duplicates.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial

import structlog
from aiormq.channel import Channel
from pamqp.commands import Queue

from worker.amqp.connection import CONNECT_TIMEOUT, BrokerLost, Connection, describe_error, is_broker_error
from worker.amqp.delivery import Delivery
from worker.amqp.partitions import Partitions
from worker.amqp.reading import as_abandoned, as_message
from worker.amqp.subscription import ReadDelivery, Subscription
from worker.amqp.topology import DeclaredState, Topology
from worker.amqp.watermarks import ProgressStore, Watermarks
from worker.config.settings import Settings
from worker.dependency import Dependency
from worker.errors import DeviceopsError
from worker.model.messages import Message

AT_ONCE = 2
"""Batches of different partitions that are processed at a time: one while the other waits for the database."""
MAX_PREFETCH = 2_000
"""The maximum for quorum queues."""
REPLY_TIMEOUT = 10
"""Maximum seconds for an answer or an acknowledgement before the broker counts as lost."""
INSPECTION_INTERVAL = 10
"""Maximum seconds between two checks of the queues."""
CONSUMER_CHECK_INTERVAL = 1
"""Seconds between two checks of the channel's consumer."""
CLOSE_RESERVE = 3
"""Seconds of the drain timeout that are reserved for closing connections."""

_log = structlog.get_logger()

ProcessBatch = Callable[[Sequence[Message]], Awaitable[object]]


class Stalled(DeviceopsError):
    """Consumption stalls without a known reason: the process must end, so that the supervisor starts a new one."""


class Session:
    """Consumes over one connection, until it is stopped, idle or lost."""

    def __init__(
        self,
        settings: Settings,
        process_batch: ProcessBatch,
        stop: asyncio.Event,
        broker: Dependency,
        partitions: Partitions,
        delivered: Counter[str],
        database: Dependency | None = None,
        progress: ProgressStore | None = None,
    ) -> None:
        self.watermarks = (
            None
            if progress is None
            else Watermarks(
                progress,
                partitions.queues,
                self._subscriptions_of_reports,
                self._inspect_after_deliveries,
                settings.timeout_grace,
                database,
            )
        )
        self._settings = settings
        self._partitions = partitions
        self._delivered = delivered
        self._process_batch = process_batch
        self._stop = stop
        self._broker = broker
        self._database = database
        self._subscriptions: list[Subscription] = []
        self.found = DeclaredState()
        self._ended: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        """Done when the session has to end, with an exception unless it was stopped."""
        # A check of the queues and its answer take half of the stall timeout.
        self._reply_timeout = min(REPLY_TIMEOUT, settings.stall_timeout / 4)
        self.unfinished: list[asyncio.Future[object]] = []
        """Batches whose messages were returned while processing goes on; the caller has to wait for them."""
        self._consuming: set[asyncio.Task[None]] = set()
        """For each subscription."""
        self._is_running = False
        self._until_idle: float | None = None
        """As for `run`."""
        self._last_acknowledged = 0.0
        """When a batch was last acknowledged, by the loop's clock."""

    @property
    def has_acknowledged(self) -> bool:
        """Whether any batch was acknowledged."""
        return any(subscription.acknowledged for subscription in self._subscriptions)

    @property
    def queues(self) -> Sequence[Subscription]:
        """The consumed queues."""
        return [subscription for subscription in self._subscriptions if not subscription.is_released]

    @property
    def reports(self) -> str:
        """The queues of reports that are consumed, in a log line."""
        return ", ".join(subscription.queue for _, subscription in sorted(self._partitions.held.items()))

    @property
    def queues_held(self) -> int:
        """How many queues of reports are consumed."""
        return len(self._partitions.held)

    async def open(self, connection: Connection, topology: Topology) -> None:
        """Declare the topology and start consuming. Raises BrokerLost, or DeviceopsError on other arguments."""
        turns = asyncio.Semaphore(AT_ONCE)
        with broker_errors_as_lost():
            async with asyncio.timeout(CONNECT_TIMEOUT + topology.partitions):
                self.found = await topology.establish(connection)
                inspector = await (await connection.channel(publisher_confirms=False)).get_underlay_channel()
                assert isinstance(inspector, Channel)
                self._inspector = inspector
                await self._partitions.open(
                    connection, partial(self._subscribe, connection, as_message, turns), self.found.former
                )
                for queue in self.found.dead_letters:
                    await self._subscribe(connection, as_abandoned, asyncio.Semaphore(), queue)

    async def run(self, until_idle: float | None) -> None:
        """Consume until `stop` is set, or until nothing has been delivered for `until_idle` seconds.

        Raises BrokerLost, or Stalled.
        """
        loop = asyncio.get_running_loop()
        self._last_acknowledged = loop.time()
        self._until_idle = until_idle
        stopping = asyncio.create_task(self._ending_session(self._stopped()))
        parts = (self._watch(), self._share(), self._measure())
        others = [asyncio.create_task(self._ending_session(part)) for part in parts]
        self._is_running = True
        for subscription in self._subscriptions:
            self._begin(subscription)
        try:
            await asyncio.wait({self._ended})
            for task in others:  # which may begin to consume
                task.cancel()
            await asyncio.gather(*self._consuming)
        finally:
            for task in (stopping, *others, *self._consuming):
                task.cancel()
        self._ended.result()
        with broker_errors_as_lost():
            async with asyncio.timeout(CLOSE_RESERVE):
                for subscription in self.queues:
                    await subscription.release()

    def _finish(self, reason: Exception | None = None) -> None:
        """End every part of the session, after its current batch."""
        if not self._ended.done():
            if reason is None:
                self._ended.set_result(None)
            else:
                self._ended.set_exception(reason)
                self._ended.exception()  # else it is logged as never retrieved if the session was not run
            if isinstance(reason, BrokerLost):
                self._broker.mark_down(str(reason))
        for subscription in self._subscriptions:
            subscription.batcher.wake()

    def _note_closing(self, subscription: Subscription, closing: asyncio.Future[object]) -> None:
        if subscription.is_done:
            return
        error = None if closing.cancelled() else closing.exception()
        if isinstance(error, asyncio.CancelledError):  # raised by the client without a heartbeat
            reason = "nothing was heard from the broker, not even a heartbeat"
        else:
            reason = "no reason was given" if error is None else describe_error(error)
        self._finish(BrokerLost(f"the channel was closed: {reason}"))

    async def _ending_session(self, part: Awaitable[None]) -> None:
        try:
            await part
        except Exception as error:  # noqa: BLE001  # raised again at the end of the session
            self._finish(error)

    async def _subscribe(
        self, connection: Connection, read: ReadDelivery, turns: asyncio.Semaphore, queue: str
    ) -> Subscription:
        prefetch = min(2 * self._settings.batch_size, MAX_PREFETCH)
        subscription = await Subscription.open(connection, queue, read, prefetch, turns)
        subscription.channel.closing.add_done_callback(partial(self._note_closing, subscription))
        self._subscriptions.append(subscription)
        if self._is_running:
            self._begin(subscription)
        return subscription

    def _begin(self, subscription: Subscription) -> None:
        consuming = asyncio.create_task(self._ending_session(self._consume(subscription)))
        self._consuming.add(consuming)
        consuming.add_done_callback(self._consuming.discard)

    async def _stopped(self) -> None:
        await self._stop.wait()
        self._finish()

    async def _share(self) -> None:
        with broker_errors_as_lost():
            await self._partitions.keep()

    async def _measure(self) -> None:
        if self.watermarks is not None:
            await self.watermarks.keep()

    def _subscriptions_of_reports(self) -> Sequence[Subscription]:
        queues = self._partitions.queues()
        return [each for each in self._subscriptions if each.queue in queues]

    async def _inspect(self, queue: str) -> Queue.DeclareOk:
        with broker_errors_as_lost():
            async with asyncio.timeout(self._reply_timeout):
                return await self._inspector.queue_declare(queue, passive=True)

    async def _inspect_after_deliveries(self, subscription: Subscription) -> Queue.DeclareOk | None:
        """Ask the broker for a queue; returns once what it had delivered from it by then is here.

        Its answers on one channel overtake deliveries on another one, for minutes where the link is slow: so it is
        asked for a second answer, on the channel of the deliveries. None if the queue was released meanwhile.
        """
        try:
            found = await self._inspect(subscription.queue)
            if not subscription.is_released:
                with broker_errors_as_lost():
                    await subscription.channel.flow(active=True)  # however long: `_watch` notices a dead broker
        except BrokerLost:
            if not subscription.is_released:
                raise
        return None if subscription.is_released else found

    async def _consume(self, subscription: Subscription) -> None:
        """Process what comes from a queue, until the session ends, or the queue is released."""
        size, wait = self._settings.batch_size, self._settings.batch_wait / 1_000
        while not self._ended.done() and not subscription.is_done:
            timeout: float = CONSUMER_CHECK_INTERVAL
            if self._until_idle is not None:
                timeout = min(CONSUMER_CHECK_INTERVAL, max(self._until_idle - self._idle_for(), 0))
            if await subscription.batcher.has_any(timeout):
                async with subscription.turns:
                    if not self._ended.done():
                        await self._process(subscription, await subscription.batcher.batch(size, wait))
            elif subscription.is_cancelled:
                raise BrokerLost(f"the consumer of {subscription.queue} was cancelled; was the queue deleted?")
            elif self._until_idle is not None and self._idle_for() >= self._until_idle:
                # After a pause of the process, deliveries of that time are read before this answer.
                await self._messages_waiting()
                if self._idle_for() >= self._until_idle:
                    self._finish()
        if subscription.is_done:
            self._subscriptions.remove(subscription)
            with broker_errors_as_lost():
                async with asyncio.timeout(self._reply_timeout):
                    await subscription.channel.close()

    def _idle_for(self) -> float:
        """Seconds since any queue had a message."""
        if any(subscription.unacknowledged for subscription in self._subscriptions):
            return 0
        return asyncio.get_running_loop().time() - self._last_acknowledged

    async def _process(self, subscription: Subscription, deliveries: Sequence[Delivery]) -> None:
        """Process a batch, then acknowledge it; return its messages to the broker if that takes too long."""
        now = datetime.now(UTC)
        subscription.in_progress = len(deliveries)
        self._delivered[subscription.queue] += len(deliveries)
        processing: asyncio.Future[object] = asyncio.ensure_future(
            self._process_batch([subscription.read(delivery, now) for delivery in deliveries])
        )
        try:
            hold = self._settings.hold_timeout
            await asyncio.wait([processing, self._ended], return_when=asyncio.FIRST_COMPLETED, timeout=hold)
            if self._ended.done() and not processing.done():
                await asyncio.wait({processing}, timeout=self._remaining_time())
            if not processing.done():
                messages = len(deliveries)
                self.unfinished.append(processing)
                _log.warning(
                    "messages returned to the broker before the commit, to be redelivered", messages=messages
                )
                if not self._ended.done():
                    raise BrokerLost(f"{messages} messages were held for {hold:g} s, so they were returned")
                return
            processing.result()
            with broker_errors_as_lost():
                async with asyncio.timeout(self._reply_timeout):
                    await subscription.acknowledge(deliveries)
            subscription.acknowledged += len(deliveries)
        finally:
            if processing not in self.unfinished:
                processing.cancel()
            subscription.in_progress = 0
            self._last_acknowledged = asyncio.get_running_loop().time()

    def _remaining_time(self) -> float:
        """Seconds that a batch still has when the session ends."""
        if isinstance(self._ended.exception(), Stalled):
            return 0
        if not self._stop.is_set():
            return self._settings.hold_timeout
        drain = self._settings.drain_timeout
        return drain - min(CLOSE_RESERVE, drain / 2)

    async def _watch(self) -> None:
        """Check that the broker answers, that this worker is a consumer, and that consumption makes progress."""
        loop = asyncio.get_running_loop()
        stall = self._settings.stall_timeout
        state: list[tuple[int, int]] = []
        changed_at = loop.time()
        while True:
            await asyncio.sleep(min(INSPECTION_INTERVAL, stall / 4))
            waiting = await self._messages_waiting()
            before, state = state, [(s.batcher.received, s.acknowledged) for s in self._subscriptions]
            unacknowledged = sum(subscription.unacknowledged for subscription in self._subscriptions)
            is_excused = self._database is not None and self._database.error is not None
            if state != before or is_excused or not (waiting or unacknowledged):
                changed_at = loop.time()
            elif loop.time() - changed_at >= stall:
                raise Stalled(
                    f"no progress for {stall:g} s, with {waiting:,} messages in the queues and {unacknowledged:,} "
                    "unacknowledged: exiting, so that a new worker can take over"
                )

    async def _messages_waiting(self) -> int:
        """The number of undelivered messages. Raises BrokerLost if the broker does not list this consumer."""
        waiting = 0
        for subscription in self.queues:
            if subscription.is_released:  # meanwhile
                continue
            found = await self._inspect(subscription.queue)
            if not found.consumer_count and not subscription.is_released:
                raise BrokerLost(f"the broker knows no consumer of {subscription.queue}")
            subscription.waiting, subscription.consumers = found.message_count, found.consumer_count
            waiting += found.message_count or 0
        return waiting


@contextmanager
def broker_errors_as_lost() -> Iterator[None]:
    """In the block, failures of the broker or the connection are raised as BrokerLost."""
    try:
        yield
    except (Exception, asyncio.CancelledError) as error:
        if not is_broker_error(error):
            raise
        raise BrokerLost(describe_error(error)) from error
