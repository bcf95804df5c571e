"""A worker's part in webhooks: what was committed is owed, what is owed is sent."""

import asyncio
from collections import Counter
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

import structlog

from worker.config.webhooks import Webhook
from worker.store.change_reader import ChangeReader
from worker.store.database import Database
from worker.waiting import first_of
from worker.webhooks.fan_out import FanOut
from worker.webhooks.sender import Sender
from worker.webhooks.upkeep import INTERVAL, Upkeep

GATHERED = 0.1
"""Seconds between two turns, in which outcomes gather."""
FINISH = 3
"""Seconds at the end for attempts that are made already."""
RETRY = 1
"""Seconds before the next turn after an error."""

Result = TypeVar("Result")

_log = structlog.get_logger()


class Dispatcher:
    """One loop does in turn what needs the database, with one connection at a time; attempts run beside it."""

    def __init__(
        self, database: Database, webhooks: Mapping[str, Webhook], limit: int, reader: ChangeReader
    ) -> None:
        self._webhooks = webhooks
        self._database = database
        self._woken = asyncio.Event()
        self.outcomes: Counter[tuple[str, str]] = Counter()
        """What came of deliveries, by webhook and outcome."""
        self.upkeep = Upkeep(database, webhooks, limit, self.outcomes)
        self._sender = Sender(database, webhooks, self.outcomes, self._woken.set)
        self._fan_out = FanOut(database, reader, self._on_owed)

    @property
    def names(self) -> list[str]:
        """The webhooks in the settings."""
        return sorted(self._webhooks)

    async def run(self, stop: asyncio.Event) -> None:
        """Send until `stop` is set."""
        is_failing, is_open = False, not self._webhooks
        while not stop.is_set():
            pause: float = GATHERED
            try:
                if not is_open:
                    await asyncio.to_thread(self._sender.open)
                    is_open = True
                await self.turn(stop)
                is_failing = False
            except Exception as error:  # the next turn goes on where this one was  # noqa: BLE001
                if not is_failing and not self._database.is_retryable(error):
                    _log.error("webhooks pause, retrying", exc_info=error)
                pause, is_failing = RETRY, True
            await first_of(stop.wait(), asyncio.sleep(pause))
        await self._finish()

    async def turn(self, stop: asyncio.Event) -> None:
        """Do what there is to do, or wait for it. Raises the database's errors."""
        await self._in_time(self.upkeep.turn())
        if not self._webhooks:
            await first_of(stop.wait(), asyncio.sleep(INTERVAL))
            return
        has_more = await self._in_time(self._fan_out.portion())
        await self._in_time(self._sender.turn())
        if not has_more and not self._sender.is_woken:
            await first_of(stop.wait(), self._woken.wait(), self._fan_out.wait())
        self._woken.clear()

    async def _in_time(self, work: Coroutine[Any, Any, Result]) -> Result:
        """The result of `work`; raises TimeoutError if the database does not answer."""
        return await self._database.run_with_timeout(work, self._database.answer_timeout)

    async def _finish(self) -> None:
        """Let others go on with what this worker had begun."""
        try:
            await self._sender.finish(FINISH)
            await self._fan_out.release()
        except Exception as error:  # others go on when leases end  # noqa: BLE001
            if not self._database.is_retryable(error):
                _log.error("webhooks not finished", exc_info=error)
        self._fan_out.close()

    def _on_owed(self) -> None:
        self._sender.is_woken = True
