"""Several workers on one machine, as processes under one: its signals, probes and metrics are those of all."""

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPException
from urllib.error import HTTPError
from urllib.request import urlopen

import structlog
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from worker.config.secret_files import variable
from worker.config.settings import Settings
from worker.dependency import Dependency
from worker.errors import DeviceopsError
from worker.listener import listen
from worker.model.outcomes import Tally
from worker.watch import probes, watchdog
from worker.watch.health import Health

LOOK = 1
"""Seconds between two looks at whether a worker is ready."""
ANSWER_TIMEOUT = 2
"""Seconds that a worker's probe may take to answer."""
LONGEST_PAUSE = 30
"""Seconds before a worker that ended by itself is started again: 1 at first, twice as many each time."""
OF_SYSTEMD = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
"""Variables of systemd, which this process notifies for all."""

_log = structlog.get_logger()


class WorkerFailed(DeviceopsError):
    """A worker ended before any was ready: it would end again."""


@dataclass(slots=True, eq=False)
class _Worker:
    number: int
    dependency: Dependency
    process: Process | None = None
    url: str = ""
    """Of its probes."""


class Supervisor:
    """Keeps so many workers running until `stop` is set, or until each is idle for `until_idle` seconds."""

    def __init__(self, settings: Settings, workers: int, stop: asyncio.Event, until_idle: float | None) -> None:
        self._settings = settings
        self._stop = stop
        self._until_idle = until_idle
        self._workers = [_Worker(number, _dependency(number)) for number in range(1, workers + 1)]
        self._was_ready = False
        """Whether any worker ever was."""
        self._restarts = 0
        self._failure: WorkerFailed | None = None
        self._tally = Tally()

    async def run(self) -> Tally:
        """Return, once all workers have ended, what they have done together.

        Raises WorkerFailed if one ends before any was ready, or if one that was told to stop ends with a failure.
        """
        settings = self._settings
        health = Health([worker.dependency for worker in self._workers], self._stop)
        async with (
            watchdog.supervised(health, settings.stall_timeout, settings.drain_timeout),
            probes.serving(settings.worker_probes, health, self._metrics),
        ):
            passing_on = asyncio.create_task(self._pass_on())
            try:
                await asyncio.gather(*map(self._keep, self._workers))
            finally:
                passing_on.cancel()
        if self._failure is not None:
            raise self._failure
        return self._tally

    async def _keep(self, worker: _Worker) -> None:
        """Start a worker, again each time that it ends by itself."""
        pause = 1
        while not self._stop.is_set():
            began = asyncio.get_running_loop().time()
            try:
                code = await self._live(worker)
            except (OSError, ValueError) as error:  # no room for a process, or no summary of what it did
                _log.warning("worker could not be run", number=worker.number, error=str(error))
                code = 1
            if self._stop.is_set() and code == -signal.SIGTERM:  # before it could react to it
                return
            if self._stop.is_set() or (code == 0 and self._until_idle is not None):
                if code and self._failure is None:
                    self._failure = WorkerFailed(f"worker {worker.number} ended with {code}")
                return
            if not self._was_ready:
                self._failure = WorkerFailed(f"worker {worker.number} ended with {code}, before any was ready")
                self._stop.set()
                return
            self._restarts += 1
            worker.dependency.mark_down(f"ended with {code}")
            if asyncio.get_running_loop().time() - began > LONGEST_PAUSE:
                pause = 1
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._stop.wait()
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _live(self, worker: _Worker) -> int:
        """The exit code of one life of a worker, which is negative for a signal."""
        with listen("127.0.0.1", 0) as listener:  # a port that is free now
            port = listener.getsockname()[1]
        worker.url = f"http://127.0.0.1:{port}"
        idle = [] if self._until_idle is None else ["--until-idle", str(self._until_idle)]
        inherited = {name: value for name, value in os.environ.items() if name not in OF_SYSTEMD}
        process = worker.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "worker", "run", "--json", "--number", str(worker.number), *idle),
            env={**inherited, variable("probe_host"): "127.0.0.1", variable("probe_port"): str(port)},
            stdin=PIPE,  # which ends with this process, and the worker with it
            stdout=PIPE,
            start_new_session=True,  # Ctrl-C is for this process to pass on
        )
        if self._stop.is_set():  # meanwhile
            with suppress(ProcessLookupError):
                process.terminate()
        looking = asyncio.create_task(self._look(worker))
        try:
            assert process.stdout is not None
            printed = await process.stdout.read()
            code = await process.wait()
        finally:
            looking.cancel()
            worker.process = None
            if process.returncode is None:
                process.kill()
        if code == 0:
            self._tally.add(Tally.from_document(json.loads(printed)))
        return code

    async def _pass_on(self) -> None:
        """Have all workers stop once that is asked for."""
        await self._stop.wait()
        for worker in self._workers:
            if worker.process is not None:
                with suppress(ProcessLookupError):
                    worker.process.terminate()

    async def _look(self, worker: _Worker) -> None:
        """Note again and again whether a worker is ready."""
        while True:
            status, answer = await asyncio.to_thread(_ask, f"{worker.url}/readyz")
            if status == HTTPStatus.OK:
                self._was_ready = True
                worker.dependency.mark_up()
            elif worker.dependency.error is None or status:
                worker.dependency.error = answer or "does not answer"
            await asyncio.sleep(LOOK)

    async def _metrics(self) -> bytes:
        """The metrics of all workers, each with its number as a label."""
        numbers = [worker.number for worker in self._workers]
        answers = await asyncio.gather(
            *(asyncio.to_thread(_ask, f"{worker.url}/metrics") for worker in self._workers)
        )
        texts = {number: text for number, (status, text) in zip(numbers, answers, strict=True) if status}
        registry = CollectorRegistry()
        registry.register(_Merged(texts, self._restarts))
        return generate_latest(registry)


class _Merged(Collector):
    def __init__(self, texts: Mapping[int, str], restarts: int) -> None:
        self._texts = texts
        self._restarts = restarts

    def collect(self) -> Iterator[Metric]:
        """The metrics of all workers, and how often one was started again."""
        merged: dict[str, Metric] = {}
        for number, text in self._texts.items():
            for family in text_string_to_metric_families(text):
                whole = merged.setdefault(
                    family.name, Metric(family.name, family.documentation, family.type, family.unit)
                )
                for sample in family.samples:
                    labels = {**sample.labels, "worker": str(number)}
                    whole.add_sample(sample.name, labels, sample.value)
        yield from merged.values()
        yield CounterMetricFamily(
            "deviceops_worker_restarts", "Workers that ended by themselves and were started again.", self._restarts
        )


def _dependency(number: int) -> Dependency:
    name = f"worker {number}"
    return Dependency(name, f"{name} ended, starting it again", f"{name} ready", error="is starting")


def _ask(url: str) -> tuple[int, str]:
    """The status and the text of an answer; 0 without one."""
    try:
        with urlopen(url, timeout=ANSWER_TIMEOUT) as answer:  # noqa: S310  # of this machine
            return answer.status, answer.read().decode()
    except HTTPError as error:
        return error.code, _reasons(error.read())
    except (OSError, ValueError, HTTPException):
        return 0, ""


def _reasons(body: bytes) -> str:
    """Why a worker is not ready, in one line."""
    reasons: Mapping[str, str] = json.loads(body).get("reasons", {})
    return "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
