"""Acts on many dead letters, done in portions in the background: with progress, and a way to stop.

A job is in the memory of its process. Closing a page ends nothing. When the server stops, a job ends after its
portion, as if it was stopped; if the process is killed, the transaction that runs is rolled back. Each portion is
whole either way, and the audit log has what was begun.
"""

import asyncio
import time
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any
from uuid import uuid4

import structlog

from worker.store.errors import is_database_error, one_line_error
from worker.store.selection import Selection

PORTION = 250
"""Dead letters of a portion: the most that is done after a stop."""
MAX_RUNNING = 2
"""Jobs that run at a time: each takes a connection for writing, and calls of the API take the others."""
REMEMBERED = 50
"""Jobs that are remembered after their end."""
PAUSE = 0.2
"""Pause after a portion, as a fraction of its duration: others poll an SQLite file for its lock."""
CLOSING = 8
"""Seconds that the portions which run get when the server stops."""

_log = structlog.get_logger()

Work = Callable[[Sequence[int]], Awaitable[Counter[str]]]
"""Does a portion, given the ids of its dead letters; returns what came of it, in numbers by outcome."""
Recording = AbstractAsyncContextManager[dict[str, Any]]
"""Records the job: see `audit.acting`."""


class JobKind(StrEnum):
    """What a job does."""

    DRY_RUN = "dry run"
    REPLAY = "replay"
    DISCARD = "discard"
    RESTORE = "restore"


class JobState(StrEnum):
    """How far a job is."""

    RUNNING = "running"
    STOPPING = "stopping"
    DONE = "done"
    STOPPED = "stopped"
    FAILED = "failed"

    @property
    def is_over(self) -> bool:
        """Whether nothing more is done."""
        return self not in (JobState.RUNNING, JobState.STOPPING)


@dataclass(slots=True)
class Job:
    """A job and what has come of it so far."""

    kind: JobKind
    selection: Selection
    """Which dead letters."""
    filter: str
    """The same as a query string."""
    who: str
    total: int
    """Dead letters that were selected at its beginning."""
    because: str = ""
    """Why they are discarded."""
    id: str = field(default_factory=lambda: uuid4().hex)
    state: JobState = JobState.RUNNING
    done: int = 0
    """Dead letters of the portions that have ended."""
    outcomes: Counter[str] = field(default_factory=Counter)
    error: str = ""
    began_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    ended_at: datetime | None = None
    began: float = field(default_factory=time.monotonic)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def seconds_left(self) -> float | None:
        """How long the rest will take at this rate; None before the first portion has ended."""
        if not self.done or self.state.is_over:
            return None
        return (time.monotonic() - self.began) / self.done * (self.total - self.done)

    def document(self) -> Mapping[str, Any]:
        """What the audit log has of its outcome."""
        return {"outcome": self.state, "done": self.done, "outcomes": dict(self.outcomes)} | (
            {"error": self.error} if self.error else {}
        )


class Jobs:
    """The jobs of a process: those that run, and the last ones that ended."""

    def __init__(self) -> None:
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_closing = False

    def find(self, id_: str) -> Job | None:
        """A job, None if this process does not remember it."""
        return self._jobs.get(id_)

    def running(self, filter_: str | None = None) -> Sequence[Job]:
        """The jobs that run, those of one filter if it is given; the latest first."""
        jobs = [job for job in reversed(self._jobs.values()) if not job.state.is_over]
        return [job for job in jobs if filter_ is None or job.filter == filter_]

    def latest(self, number: int) -> Sequence[Job]:
        """The latest jobs, the latest first."""
        return list(reversed(self._jobs.values()))[:number]

    def is_full(self) -> bool:
        """Whether no other job may begin."""
        return self._is_closing or len(self.running()) >= MAX_RUNNING

    def begin(
        self, job: Job, ids: Sequence[int], work: Work, recording: Recording, publish: Callable[[], object]
    ) -> None:
        """Begin a job; `publish` is called after each portion. One of a filter may run, `MAX_RUNNING` in all."""
        assert not self.is_full()
        self._jobs[job.id] = job
        over = [id_ for id_, each in self._jobs.items() if each.state.is_over]
        for id_ in over[: max(0, len(over) - REMEMBERED)]:
            del self._jobs[id_]
        task = asyncio.create_task(_run(job, ids, work, recording, publish))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def stop(self, job: Job) -> None:
        """End a job after the portion that runs."""
        if job.state is JobState.RUNNING:
            job.state = JobState.STOPPING

    async def close(self) -> None:
        """End all jobs after the portions that run; what takes too long is rolled back."""
        self._is_closing = True
        for job in self.running():
            self.stop(job)
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=CLOSING)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)


async def _run(
    job: Job, ids: Sequence[int], work: Work, recording: Recording, publish: Callable[[], object]
) -> None:
    try:
        async with recording as outcome:
            try:
                await _portions(job, ids, work, publish)
                job.state = JobState.STOPPED if job.done < len(ids) else JobState.DONE
            except Exception as error:
                job.state, job.error = JobState.FAILED, _described(error)
                raise
            finally:
                if not job.state.is_over:
                    job.state = JobState.STOPPED
                outcome.update(job.document())
    except Exception as error:  # the page shows it  # noqa: BLE001
        job.state, job.error = JobState.FAILED, job.error or _described(error)
        if not is_database_error(error):
            _log.error("unhandled error", job=job.id, exc_info=error)
    finally:
        job.ended_at = datetime.now(UTC)
        job.ended.set()
        publish()


async def _portions(job: Job, ids: Sequence[int], work: Work, publish: Callable[[], object]) -> None:
    for start in range(0, len(ids), PORTION):
        if job.state is not JobState.RUNNING:
            return
        portion, began = ids[start : start + PORTION], time.perf_counter()
        job.outcomes.update(await work(portion))
        job.done += len(portion)
        publish()
        await asyncio.sleep(PAUSE * (time.perf_counter() - began))


def _described(error: Exception) -> str:
    return one_line_error(error) if is_database_error(error) else "internal error; the server's log has it"
