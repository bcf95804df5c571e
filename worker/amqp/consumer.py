"""Consuming from RabbitMQ, one session after another, until it is stopped."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace

import structlog
from tenacity import AsyncRetrying, retry_if_exception, stop_when_event_set, wait_random_exponential

from worker.amqp import policies
from worker.amqp.connection import (
    CONNECT_TIMEOUT,
    BrokerLost,
    BrokerMissing,
    BrokerRefused,
    BrokerUnavailable,
    connected,
)
from worker.amqp.keepalive import Keepalive
from worker.amqp.partitions import Alone, Partitions, Peers
from worker.amqp.session import ProcessBatch, Session, broker_errors_as_lost
from worker.amqp.subscription import Subscription
from worker.amqp.topology import ENABLE_PARTITIONS, DeclaredState, Topology
from worker.amqp.watermarks import ProgressStore
from worker.config.settings import Settings
from worker.dependency import Dependency
from worker.failover import Failures
from worker.waiting import first_of

MAX_PAUSE = 5
"""Maximum seconds between two attempts to connect."""


_log = structlog.get_logger()


async def _always_ready() -> None:
    """Return when messages can be processed."""


def _ignore_topology(_topology: Topology) -> None:
    """Do nothing."""


class Consumer:
    """Consumes batches until it is stopped, or idle, and reconnects after each loss of the broker.

    `ready` returns when messages can be processed; `database` is the dependency for which a batch may have to
    wait. `use` is called before each session with the topology that it consumes: the broker may not support
    partitions.
    """

    def __init__(
        self,
        settings: Settings,
        process_batch: ProcessBatch,
        stop: asyncio.Event,
        *,
        ready: Callable[[], Awaitable[None]] = _always_ready,
        database: Dependency | None = None,
        peers: Peers | None = None,
        progress: ProgressStore | None = None,
        use: Callable[[Topology], None] = _ignore_topology,
    ) -> None:
        self._progress = progress
        self.dependency = Dependency(
            "broker", "broker connection lost, reconnecting", "consuming", error="not connected yet"
        )
        self._settings = settings
        self._process_batch = process_batch
        self._stop = stop
        self._ready = ready
        self._database = database
        self._peers = peers or Alone()
        self._use = use
        self._failures = Failures()
        self._was_connected = False
        self._refused_since: float | None = None
        self._session: Session | None = None
        self._unfinished: list[asyncio.Future[object]] = []
        """Batches whose messages were returned because they took too long."""
        self._policy_check: asyncio.Task[None] | None = None
        """The check of the broker's policies, made once."""
        self._can_partition = False
        """Whether the broker is known to have the plugin for partitions."""
        self._is_unsupported_logged = False
        self._has_acknowledged = False
        """Whether the last session acknowledged any batch."""
        self.redeclared = 0
        """Queues and exchanges that were deleted by others and declared again."""
        self.delivered: Counter[str] = Counter()
        """Deliveries that came into a batch, by queue."""

    @property
    def queues(self) -> Sequence[Subscription]:
        """The state of the consumed queues; empty without a connection."""
        return () if self._session is None else self._session.queues

    @property
    def queues_held(self) -> int:
        """How many queues of reports are consumed."""
        return 0 if self._session is None else self._session.queues_held

    async def timeout_limit(self, clock: int) -> int | None:
        """The moment up to which timeouts may be taken, in milliseconds since 1970; None if none may at present.

        Everything published before it is processed, and this worker has consumed long enough.
        """
        if self._session is None or self._session.watermarks is None:
            return None
        return self._session.watermarks.limit(clock)

    async def run(self, until_idle: float | None = None) -> None:
        """Consume until `stop` is set, or until nothing has been delivered for `until_idle` seconds.

        Waits without limit for a broker that does not answer, but with `until_idle` no longer than that for the
        first answer. Raises DeviceopsError if the broker refuses the first connection, or later ones for the
        settings' `refusal_timeout`; if the topology differs; or if consumption stalls.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()

        def is_worth_another_try(error: BaseException) -> bool:
            if isinstance(error, BrokerLost) or self._was_connected:
                return isinstance(error, BrokerLost | BrokerUnavailable) and not self._is_refused_for_good(error)
            is_time_up = until_idle is not None and loop.time() - began >= until_idle
            return isinstance(error, BrokerUnavailable) and not isinstance(error, BrokerRefused) and not is_time_up

        reconnecting = AsyncRetrying(
            retry=retry_if_exception(is_worth_another_try),
            wait=wait_random_exponential(multiplier=0.5, max=MAX_PAUSE),
            stop=stop_when_event_set(self._stop),  # type: ignore[arg-type]  # it calls is_set() only
            sleep=self._pause,
            retry_error_callback=lambda _: None,
        )
        try:
            async for attempt in reconnecting:
                with attempt:
                    try:
                        await self._consume(until_idle)
                    except BrokerUnavailable as error:
                        if is_worth_another_try(error):
                            self.dependency.mark_down(str(error), is_refusal=isinstance(error, BrokerRefused))
                        raise
                    except BrokerLost:
                        if self._has_acknowledged:  # a new failure starts with short pauses
                            attempt.retry_state.attempt_number = 1
                        raise
        finally:
            for batch in self._unfinished:
                batch.cancel()

    def _is_refused_for_good(self, error: Exception) -> bool:
        """Whether a broker that accepted connections before has refused them for `refusal_timeout`."""
        if not isinstance(error, BrokerRefused) or isinstance(error, BrokerMissing):
            self._refused_since = None
            return False
        now = asyncio.get_running_loop().time()
        self._refused_since = self._refused_since or now
        return now - self._refused_since >= self._settings.refusal_timeout

    async def _consume(self, until_idle: float | None) -> None:
        """Consume for one session, with this worker's share of the partitions."""
        self._has_acknowledged = False
        await self._unless_stopped(self._until_ready())
        if self._stop.is_set():
            return
        topology = await self._supported_topology()
        self._use(topology)
        partitions = Partitions(topology, self._peers)
        session = Session(
            self._settings,
            self._process_batch,
            self._stop,
            self.dependency,
            partitions,
            self.delivered,
            self._database,
            self._progress,
        )
        try:
            await self._run(session, topology, partitions, until_idle)
        finally:
            self._unfinished += session.unfinished
            self._has_acknowledged = session.has_acknowledged
            await partitions.leave()
            if session.watermarks is not None:
                await session.watermarks.leave()

    async def _supported_topology(self) -> Topology:
        """The topology of the settings; without partitions where the broker cannot have them."""
        topology = Topology(self._settings.topology_prefix, self._settings.partitions)
        if topology.partitions > 1 and not self._can_partition:
            async with connected(self._settings, self._failures) as connection:
                with broker_errors_as_lost():
                    async with asyncio.timeout(CONNECT_TIMEOUT):
                        self._can_partition = await topology.can_partition(connection)
            if not self._can_partition:
                if not self._is_unsupported_logged:
                    self._is_unsupported_logged = True
                    _log.warning("partitions are not supported, using one queue", fix=ENABLE_PARTITIONS)
                return replace(topology, partitions=1)
        return topology

    async def _run(
        self, session: Session, topology: Topology, partitions: Partitions, until_idle: float | None
    ) -> None:
        async with connected(self._settings, self._failures) as connection:
            try:
                await partitions.announce()
                await session.open(connection, topology)
                self._note(session.found)
                self._was_connected, self._refused_since = True, None
                self._session = session
                self.dependency.mark_up(queue=session.reports, broker=connection.shown)
                if self._policy_check is None:
                    self._policy_check = asyncio.create_task(self._warn_of_policies())
                await session.run(until_idle)
            except BrokerLost as error:
                # Before the connection is closed, which a dead network delays.
                self.dependency.mark_down(str(error))
                raise
            finally:
                self._session = None

    async def _finish_returned_batches(self) -> None:
        """Wait until the batches that took too long are committed.

        Nothing else proves that the database accepts them: a small write may fit onto a nearly full disk.
        Otherwise they would be delivered and returned again and again, each time closer to the broker's delivery
        limit. Once committed, they are redelivered once, as duplicates.
        """
        await asyncio.gather(*self._unfinished)
        self._unfinished.clear()

    async def _until_ready(self) -> None:
        keeping = asyncio.create_task(Keepalive(self._settings, self._supported_topology, self._note).run())
        try:
            await self._finish_returned_batches()
            await self._ready()
        finally:
            keeping.cancel()
            await asyncio.wait([keeping])  # its messages are returned before anything is consumed

    def _note(self, found: DeclaredState) -> None:
        if found.redeclared:
            self.redeclared += len(found.redeclared)
            _log.warning(
                "queue or exchange was deleted and is declared again, its messages are lost",
                names=found.redeclared,
            )

    async def _warn_of_policies(self) -> None:
        with suppress(policies.PoliciesUnavailable):  # few users have the permission; `check` reports it
            for risk in await asyncio.to_thread(policies.find_risks, self._settings):
                _log.warning("broker policy endangers messages", risk=risk)

    async def _pause(self, seconds: float) -> None:
        await self._unless_stopped(asyncio.sleep(seconds))

    async def _unless_stopped(self, waiting: Awaitable[None]) -> None:
        """Wait, at most until `stop` is set."""
        await first_of(waiting, self._stop.wait())
