"""A running worker: puts consumer, processing, metrics, probes and watchdog together."""

import asyncio
import gc
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, nullcontext
from typing import TYPE_CHECKING

import structlog

from worker.amqp.consumer import Consumer
from worker.amqp.relay import Relay
from worker.amqp.topology import Topology
from worker.config.settings import Settings
from worker.model.changes import Told
from worker.model.messages import Message
from worker.model.outcomes import Tally
from worker.processing import backlog_sweeper
from worker.processing.batch_log import log_aborts
from worker.processing.batches import process_messages, retry_transient
from worker.processing.expiry import Expirer
from worker.processing.write_probe import probe_write
from worker.store import database, schema
from worker.store.batch_lock import BatchLock
from worker.store.change_log import RELAY
from worker.store.change_reader import ChangeReader
from worker.store.database import Database
from worker.store.progress import ProgressStore
from worker.store.webhooks import CURSOR
from worker.store.workers import Peers
from worker.tracing import tracing
from worker.waiting import first_of
from worker.watch import probes, watchdog
from worker.watch.batch_metrics import BatchMetrics
from worker.watch.database_metrics import DatabaseMetrics
from worker.watch.health import Health
from worker.watch.metrics import WorkerMetrics
from worker.watch.process_metrics import registry_of_process
from worker.watch.rejection_log import ContradictionLog, DeadLetterLog
from worker.watch.webhook_metrics import WebhookMetrics
from worker.webhooks.dispatcher import Dispatcher

if TYPE_CHECKING:
    from worker.tracing.messaging import Tracer

_log = structlog.get_logger()

DAY = 86_400_000
"""Milliseconds."""
RELAY_END = 3
"""Maximum seconds after the last batch to wait for the last changes to be published, and for what is being sent to
webhooks; they have been at it since `stop` was set."""
CANCEL_END = 2
"""Maximum seconds to wait for what was cancelled at the end. With RELAY_END, the closing of the connection and the
drain timeout, it is less than the watchdog allows."""
SQLITE_LOCK_TIMEOUT = 5
"""Seconds that a batch waits for another process's transaction before it is retried: a waiting driver thread
cannot be stopped."""


async def run(settings: Settings, stop: asyncio.Event, until_idle: float | None = None) -> Tally:
    """Consume until `stop` is set, or until idle for `until_idle` seconds; returns the tally."""
    is_sqlite = settings.sqlalchemy_url.get_backend_name() == "sqlite"
    async with (
        tracing(settings, stop) as tracer,
        database.opened(
            settings,
            lock_timeout=SQLITE_LOCK_TIMEOUT if is_sqlite else None,
            answer_timeout=settings.database_timeout,
            for_batches=True,
        ) as store,
    ):
        worker = Worker(settings, store, tracer, stop)
        await worker.run(until_idle)
    return worker.metrics.tally


class Worker:
    """A consumer with its metrics, probes and watchdog."""

    def __init__(self, settings: Settings, store: Database, tracer: "Tracer | None", stop: asyncio.Event) -> None:
        self._settings = settings
        self._store = store
        self._tracer = tracer
        self._stop = stop
        self._notices = DeadLetterLog(), ContradictionLog()
        self._is_ready = asyncio.Event()
        self._registry = registry_of_process({"batches": store})
        self.metrics = BatchMetrics(self._registry, settings.services)
        store.on_commit = self.metrics.on_commit
        self._batch_lock = None if store.is_sqlite else BatchLock(settings.topology_prefix)

    async def run(self, until_idle: float | None) -> None:
        """Consume until `stop` is set, or until idle for `until_idle` seconds."""

        async def ready() -> None:
            if not self._is_ready.is_set():
                _log.info("starting: trying a write to the database, then connecting to the broker")
            await retry_transient(self._store, until_idle, _try_out, self._store)
            self._is_ready.set()

        settings, store = self._settings, self._store
        consumer = Consumer(
            settings,
            self._process,
            self._stop,
            ready=ready,
            database=store.dependency,
            peers=Peers(store, settings.topology_prefix),
            progress=ProgressStore(store, settings.topology_prefix),
            use=self._use,
        )
        health = Health((consumer.dependency, store.dependency), self._stop)
        database_metrics = DatabaseMetrics(store, settings.stale_after, RELAY + settings.topology_prefix)
        expirer = Expirer(store, consumer.timeout_limit, self._note_counted)
        relay = self._relay(consumer)
        telling = [part for part in (relay, self._dispatcher()) if part is not None]
        self._registry.register(
            WorkerMetrics(self.metrics.tally, health, database_metrics, consumer, self._batch_lock, expirer, relay)
        )
        async with (
            watchdog.supervised(health, settings.stall_timeout, settings.drain_timeout),
            probes.serving(settings.worker_probes, health, probes.metrics_of(self._registry)),
        ):
            gc.freeze()  # existing objects stay: the garbage collector need not scan them with every batch
            async with self._telling(telling), self._in_background(database_metrics, expirer):
                await consumer.run(until_idle)

    def _relay(self, consumer: Consumer) -> Relay | None:
        """What publishes changes; None if none are told."""
        settings = self._settings
        if settings.changes is Told.NONE:
            return None
        keep, name = int(settings.keep_changes * DAY), RELAY + settings.topology_prefix
        reader = ChangeReader(self._store, name, keep, settings.changes_limit)
        return Relay(settings, reader, self._store.is_retryable, consumer.dependency)

    def _dispatcher(self) -> Dispatcher:
        """What sends changes to webhooks; without any, it removes what earlier ones have left."""
        settings = self._settings
        reader = ChangeReader(self._store, CURSOR, int(settings.keep_changes * DAY), settings.changes_limit)
        dispatcher = Dispatcher(self._store, settings.webhooks or {}, settings.webhooks_limit, reader)
        self._registry.register(WebhookMetrics(dispatcher))
        return dispatcher

    @asynccontextmanager
    async def _telling(self, parts: Sequence[Relay | Dispatcher]) -> AsyncIterator[None]:
        """Tell others of changes during a block, and at its end of the last ones; sets `stop` at its end."""
        tasks = [asyncio.create_task(self._tell(part)) for part in parts]
        try:
            yield
        finally:
            self._stop.set()
            await asyncio.wait(tasks, timeout=RELAY_END)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=CANCEL_END)

    async def _tell(self, part: Relay | Dispatcher) -> None:
        """Tell others of changes, once batches can be written."""
        await first_of(self._is_ready.wait(), self._stop.wait())
        if self._is_ready.is_set():
            await part.run(self._stop)

    def _use(self, topology: Topology) -> None:
        """Have batches of one queue committed one after another, those of partitions side by side."""
        self._store.batch_lock = self._batch_lock if topology.partitions == 1 else None

    async def _process(self, messages: Sequence[Message]) -> None:
        """Process a batch, measured and traced."""
        tally = Tally()
        traced = nullcontext() if self._tracer is None else self._tracer.processing(messages, tally)
        with self.metrics.measuring(messages, tally), traced:
            tally.add(await process_messages(self._store, messages, reporters=self._settings.reporters))
        self._note(tally)

    def _note(self, tally: Tally) -> None:
        log_aborts(tally)
        for notice in self._notices:
            notice.note(tally)

    def _note_counted(self, tally: Tally) -> None:
        self.metrics.count(tally)
        self._note(tally)

    async def _release(self) -> None:
        """Release parked reports whose registration has come, once batches can be written."""
        await self._is_ready.wait()
        await backlog_sweeper.sweep_periodically(
            self._store, self._settings.reporters, self._stop, self._note_counted
        )

    async def _act(self, expirer: Expirer) -> None:
        """Time out what is over, and abort, once batches can be written."""
        await self._is_ready.wait()
        await expirer.run(self._stop)

    @asynccontextmanager
    async def _in_background(self, database_metrics: DatabaseMetrics, expirer: Expirer) -> AsyncIterator[None]:
        """Measure the database, release parked reports and time out during a block; sets `stop` at its end."""
        parts = database_metrics.watch(self._stop), self._release(), self._act(expirer)
        tasks = [asyncio.create_task(part) for part in parts]
        try:
            yield
        finally:
            self._stop.set()
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=CANCEL_END)  # a statement may wait on a line that died
            for notice in self._notices:
                notice.close()


async def _try_out(store: Database) -> None:
    """Check the schema, and that a batch can be written."""
    await schema.require_current_schema(store)
    await probe_write(store)
