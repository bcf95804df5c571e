"""The command that consumes: run."""

import asyncio
import os
import signal
from functools import partial
from typing import Annotated

import structlog
import typer

from worker import service
from worker.cli import tables
from worker.cli.common import Json, configure_logging, log_database, run_async, screen
from worker.cli.options import finite
from worker.config.settings import Settings
from worker.model.outcomes import Tally
from worker.supervisor import Supervisor

_log = structlog.get_logger()

app = typer.Typer(add_completion=False)


@app.command()
def run(
    until_idle: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            min=0.1,
            callback=finite,
            help="Exit when nothing has been delivered for that many seconds.",
        ),
    ] = None,
    workers: Annotated[
        int,
        typer.Option(metavar="N", min=1, max=64, help="Worker processes, kept running by this one."),
    ] = 1,
    json: Json = False,
    number: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Consume reports from RabbitMQ until SIGTERM or Ctrl-C, or until idle."""
    settings = Settings.load()
    configure_logging(settings)
    if number is not None:
        structlog.contextvars.bind_contextvars(worker=number)
    run_ = _run if workers == 1 else partial(_supervise, workers)
    tally = run_async(run_(settings, until_idle, number))
    _log.info("stopped", **tally.document())
    if json or screen.is_terminal:
        tables.show_tally(tally, json)


async def _run(settings: Settings, until_idle: float | None, number: int | None) -> Tally:
    log_database(settings)
    stop = _stop_on_signals(is_supervised=number is not None)
    if number is not None:
        _stop_with_supervisor(stop)
    return await service.run(settings, stop, until_idle)


async def _supervise(workers: int, settings: Settings, until_idle: float | None, _: int | None) -> Tally:
    return await Supervisor(settings, workers, _stop_on_signals(), until_idle).run()


def _stop_with_supervisor(stop: asyncio.Event) -> None:
    """Set `stop` once standard input ends, which is the supervisor's."""
    loop = asyncio.get_running_loop()

    def read() -> None:
        if not os.read(0, 1):
            loop.remove_reader(0)
            stop.set()

    loop.add_reader(0, read)


def _stop_on_signals(*, is_supervised: bool = False) -> asyncio.Event:
    """Set when a signal asks to stop. A second signal has its usual effect, and ends the process at once.

    But not one that is supervised: systemd signals all processes of a unit, and the supervisor does so as well.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGTERM, signal.SIGINT)

    def begin_to_stop() -> None:
        if is_supervised:
            stop.set()
            return
        _log.info("stopping: a signal asks for it; a second one ends the process at once")
        stop.set()
        for number in numbers:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)

    for number in numbers:
        loop.add_signal_handler(number, begin_to_stop)
    return stop
