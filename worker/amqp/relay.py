"""The relay: publishes the changes of the log, in their order, and forgets each once the broker has confirmed it.

Any worker can do it, and one at a time does. What is not confirmed is published again, with the same id: also by
the next worker, after one has died.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Protocol
from uuid import UUID

import structlog
from aiormq.channel import Channel
from aiormq.exceptions import DeliveryError
from pamqp.commands import Basic
from pamqp.common import FieldTable

from worker.amqp.confirmed import Outgoing, publish_confirmed
from worker.amqp.connection import CONNECT_TIMEOUT, BrokerLost, BrokerUnavailable, connected
from worker.amqp.session import broker_errors_as_lost
from worker.amqp.topology import Topology
from worker.config.settings import Settings
from worker.dependency import Dependency
from worker.errors import DeviceopsError
from worker.failover import Failures
from worker.model.changes import SPECVERSION
from worker.waiting import a_while_after, first_of

CONFIRM_TIMEOUT = 10
"""Seconds for the confirmations of a portion, before the broker counts as lost."""
GATHERED = 0.01
"""Seconds between two portions, in which commits gather."""
PAUSE = 2
"""The same as a multiple of the time that a portion took, which is longer while the worker has much to do."""
MAX_GATHERED = 0.04
"""Maximum of both, in seconds."""
CHUNK = 1_000_000
"""Bytes of bodies that are written at a time, about, and confirmed before the next."""
HOLDING = 2
"""Seconds of publishing after which the cursor is advanced, and held on."""
TIDIED = 60
"""Seconds between two removals of old changes."""
FINISH = 3
"""Maximum seconds after `stop` in which the last changes are published, also where the broker does not answer."""
RELEASE = 1
"""Maximum seconds to release the cursor at the end; without that, the next worker waits until it expires."""
RETRY = 1
"""Seconds between two attempts to connect, or to read."""
MAX_RETRY = 5
"""Maximum of them, after several failures."""

_FIRST = datetime(1970, 1, 1, tzinfo=UTC)
_log = structlog.get_logger()


class LoggedChange(Protocol):
    """A change in the log; see `worker.store.change_log.LoggedChange`."""

    @property
    def position(self) -> int: ...
    @property
    def id(self) -> UUID: ...
    @property
    def type(self) -> str: ...
    @property
    def aggregateid(self) -> str: ...
    @property
    def payload(self) -> str: ...
    @property
    def routing_key(self) -> str: ...
    @property
    def recorded_at(self) -> int: ...


class Reader(Protocol):
    """Reads the log on; see `worker.store.change_reader.ChangeReader`."""

    async def next(self, read: int) -> tuple[int, Sequence[LoggedChange]] | None: ...
    async def release(self, read: int) -> None: ...
    async def tidy(self) -> None: ...
    async def register(self) -> None: ...
    async def wait(self) -> None: ...
    def close(self) -> None: ...


class Relay:
    """Publishes changes until it is stopped.

    `is_retryable` says which errors of the reader may pass; `broker` is the dependency that consuming tracks.
    """

    def __init__(
        self,
        settings: Settings,
        reader: Reader,
        is_retryable: Callable[[BaseException], bool],
        broker: Dependency,
    ) -> None:
        self._settings = settings
        self._broker = broker
        self._reader = reader
        self._is_retryable = is_retryable
        self._topology = Topology(settings.topology_prefix)
        self._source = f"/deviceops/{settings.topology_prefix}"
        self._failures = Failures()
        self._dependency = Dependency(
            "relay", "changes are not published, retrying", "changes are published again"
        )
        self._confirmed = 0
        """The position up to which everything is confirmed, as far as this worker has published."""
        self._is_refused = False
        """Whether a queue has refused a change: then each is published alone, lest the next overtakes it."""
        self.published = 0
        """Changes that the broker has confirmed."""

    async def run(self, stop: asyncio.Event) -> None:
        """Publish until `stop` is set, and what is left then; remove old changes meanwhile."""
        tidying = asyncio.create_task(self._tidy())
        try:
            await first_of(self._publish_on(stop), a_while_after(stop, FINISH))
        finally:
            tidying.cancel()
            with suppress(Exception):
                async with asyncio.timeout(RELEASE):
                    await self._reader.release(self._confirmed)
            await asyncio.wait([tidying], timeout=RELEASE)
            self._reader.close()

    async def _publish_on(self, stop: asyncio.Event) -> None:
        """Publish over one connection after another."""
        pause = RETRY / 2
        while not stop.is_set():
            began = time.monotonic()
            try:
                await self._publish_until(stop)
            except (BrokerLost, DeviceopsError) as error:
                if not isinstance(error, BrokerUnavailable) or self._broker.error is None:  # else it is logged
                    self._dependency.mark_down(str(error))
            except Exception as error:  # the next attempt goes on where this one was  # noqa: BLE001
                self._note(error)
            if stop.is_set():
                break
            pause = RETRY if time.monotonic() - began > MAX_RETRY else min(2 * pause, MAX_RETRY)
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await stop.wait()

    async def _publish_until(self, stop: asyncio.Event) -> None:
        async with connected(self._settings, self._failures) as connection:
            with broker_errors_as_lost():
                async with asyncio.timeout(CONNECT_TIMEOUT):
                    channel = await connection.channel()
                    await self._topology.declare_changes(channel)
                    underlay = await channel.get_underlay_channel()
            assert isinstance(underlay, Channel)
            while not stop.is_set():
                await self._publish_next(underlay, stop)
            while await self._publish_portion(underlay):
                pass

    async def _publish_next(self, channel: Channel, stop: asyncio.Event) -> None:
        began = time.monotonic()
        has_published = await self._publish_portion(channel)
        self._dependency.mark_up()
        if has_published:
            took = time.monotonic() - began
            await asyncio.sleep(min(max(GATHERED, PAUSE * took), MAX_GATHERED))
            return
        if channel.is_closed:
            raise BrokerLost("the channel was closed")
        await first_of(self._reader.wait(), stop.wait())

    async def _publish_portion(self, channel: Channel) -> bool:
        """Publish the next changes; returns whether there were any."""
        portion = await self._reader.next(self._confirmed)
        if portion is None:
            return False
        # Below what was confirmed, if the database has lost its last transactions in a failover.
        self._confirmed, found = portion
        began = time.monotonic()
        for chunk in _chunks(found, 0 if self._is_refused else CHUNK):
            await self._publish(channel, chunk)
            if time.monotonic() - began > HOLDING:  # the cursor is not held for much longer
                return True
        self._is_refused = False
        return bool(found)

    async def _publish(self, channel: Channel, found: Sequence[LoggedChange]) -> None:
        """Publish changes that are small enough for one write, and wait until all are confirmed."""
        results: Sequence[object] = ()
        with broker_errors_as_lost():
            async with asyncio.timeout(CONFIRM_TIMEOUT):
                results = await publish_confirmed(channel, [self._message(change) for change in found])
            for change, result in zip(found, results, strict=True):
                if isinstance(result, DeliveryError):
                    self._is_refused = True
                    raise BrokerLost(
                        f"a queue refuses a change ({change.routing_key}): is one of a listener full?"
                    )
                if isinstance(result, BaseException):
                    raise result
                self._confirmed = change.position
                self.published += 1

    def _message(self, change: LoggedChange) -> Outgoing:
        at = _FIRST + timedelta(milliseconds=change.recorded_at)
        id_ = str(change.id)
        headers: FieldTable = {
            "cloudEvents:specversion": SPECVERSION,
            "cloudEvents:id": id_,
            "cloudEvents:source": self._source,
            "cloudEvents:type": change.type,
            "cloudEvents:subject": change.aggregateid,
            "cloudEvents:time": at.isoformat().replace("+00:00", "Z"),
        }
        properties = Basic.Properties(
            content_type="application/json",
            delivery_mode=2,
            message_id=id_,
            message_type=change.type,
            timestamp=at,
            headers=headers,
        )
        where = Basic.Publish(exchange=self._topology.changes, routing_key=change.routing_key)
        return where, properties, change.payload.encode()

    async def _tidy(self) -> None:
        """Remove old changes from time to time, until cancelled; failures are retried the next time."""
        is_first = True
        while True:
            try:
                await self._reader.register()
                if not is_first:
                    await self._reader.tidy()
                is_first = False
            except Exception as error:  # noqa: BLE001
                self._note(error)
            await asyncio.sleep(TIDIED)

    def _note(self, error: Exception) -> None:
        """Log an error of our own; the processing of batches logs an unavailable database."""
        if not self._is_retryable(error):
            _log.error("unhandled error", exc_info=error)


def _chunks(found: Sequence[LoggedChange], size: int) -> Iterator[Sequence[LoggedChange]]:
    """Parts of a portion of about `size` bytes, with at least one change each."""
    chunk: list[LoggedChange] = []
    taken = 0
    for change in found:
        if chunk and taken + len(change.payload) > size:
            yield chunk
            chunk, taken = [], 0
        chunk.append(change)
        taken += len(change.payload)
    if chunk:
        yield chunk
