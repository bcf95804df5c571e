"""The command that consumes: run."""

import asyncio
import gc
import signal
from collections.abc import Sequence
from typing import Annotated

import typer

from worker.amqp.consumer import Consumer
from worker.cli import tables
from worker.cli.common import Json, configure_logging, log_database, run_async
from worker.config.settings import Settings
from worker.model.messages import Message
from worker.model.outcomes import Tally
from worker.processing.backlog_sweeper import watch
from worker.processing.batches import settle, waiting_out_failures
from worker.processing.write_probe import rehearse
from worker.store import database, schema
from worker.store.database import Database
from worker.tracing import tracing

SQLITE_LOCK_TIMEOUT = 5
"""Seconds that a batch waits for another process's transaction before it is tried again: waiting, the driver's
thread hears of no stop."""

app = typer.Typer()


@app.command()
def run(
    until_idle: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", min=0.1, help="Leave when nothing has come for so long."),
    ] = None,
    json: Json = False,
) -> None:
    """Consume reports from RabbitMQ until SIGTERM or Ctrl-C, or until idle."""
    settings = Settings.load()
    configure_logging(settings)
    tables.show_tally(run_async(_run(settings, until_idle)), json)


async def _run(settings: Settings, until_idle: float | None) -> Tally:
    from worker.watch import probes, watchdog  # here, because every command would pay for it
    from worker.watch.batch_metrics import Meter
    from worker.watch.database_metrics import Standing
    from worker.watch.health import Health
    from worker.watch.metrics import WorkerMetrics
    from worker.watch.process_metrics import registry_of_process
    from worker.watch.rejection_log import Contradictions, Rejections

    log_database(settings)
    notices = Rejections(), Contradictions()
    stop = _stop_on_signals()
    is_sqlite = settings.sqlalchemy_url.get_backend_name() == "sqlite"
    lock_timeout = SQLITE_LOCK_TIMEOUT if is_sqlite else None
    async with (
        tracing(settings, stop) as tracer,
        database.opened(
            settings,
            lock_timeout=lock_timeout,
            answer_timeout=settings.database_timeout,
            for_batches=True,
        ) as store,
    ):
        registry = registry_of_process({"batches": store})
        meter = Meter(registry, settings.services)
        store.on_commit = meter.on_commit

        def note(tally: Tally) -> None:
            for notice in notices:
                notice.note(tally)

        async def process(messages: Sequence[Message]) -> None:
            settling = settle(store, messages, trust=settings.trust)
            traced = settling if tracer is None else tracer.processing(messages, settling)
            note(await meter.measured(messages, traced))

        def note_released(tally: Tally) -> None:
            meter.count(tally)
            note(tally)

        is_ready = asyncio.Event()

        async def ready() -> None:
            await waiting_out_failures(store, until_idle, _try_out, store)
            is_ready.set()

        async def release() -> None:
            await is_ready.wait()
            await watch(store, settings.trust, stop, note_released)

        consumer = Consumer(settings, process, stop, ready=ready, database=store.condition)
        health = Health((consumer.condition, store.condition), stop)
        standing = Standing(store, settings.stale_after)
        registry.register(
            WorkerMetrics(meter.tally, health, standing, lambda: consumer.queues, lambda: consumer.remade)
        )
        async with (
            watchdog.supervised(health, settings.stall_timeout, settings.drain_timeout),
            probes.answering(settings.worker_probes, health, registry),
        ):
            gc.freeze()  # what there is by now stays: the collector need not look at it with every batch
            watching = asyncio.create_task(standing.watch(stop))
            releasing = asyncio.create_task(release())
            try:
                await consumer.run(until_idle)
            finally:
                stop.set()
                for task in (watching, releasing):
                    task.cancel()
                await asyncio.wait([watching, releasing])
                for notice in notices:
                    notice.close()
    return meter.tally


async def _try_out(store: Database) -> None:
    """See whether a batch can be written, before there is one."""
    await schema.require_current_schema(store)
    await rehearse(store)


def _stop_on_signals() -> asyncio.Event:
    """Set when a signal asks to stop. A second signal has its usual effect, and ends the process at once."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGTERM, signal.SIGINT)

    def begin_to_stop() -> None:
        stop.set()
        for number in numbers:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)

    for number in numbers:
        loop.add_signal_handler(number, begin_to_stop)
    return stop
