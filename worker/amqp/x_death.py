"""Why the broker abandoned a message, in words, from RabbitMQ's header `x-death`."""

from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from worker.amqp.topology import DELIVERY_LIMIT
from worker.model.text import one_line, shown

MAX_SHOWN = 3
"""Number of entries that are described, the latest first."""
LIMIT_MULTIPLE = 5
"""Delivery limits that people choose are multiples of this."""

LIMIT_REACHED = "delivery_limit"
_WORDS = {
    LIMIT_REACHED: "it was delivered more often than the queue's delivery limit allows, and nobody settled it "
    f"(deviceops asks for {DELIVERY_LIMIT}, of which a policy may make less)",
    "expired": "its time to live ran out",
    "maxlen": "the queue was full",
    "rejected": "a consumer rejected it",
}
"""RabbitMQ's reasons (its guide "Dead Letter Exchanges")."""


class DeathEntry(BaseModel):
    """One entry of `x-death`: a message was dead-lettered from a queue, for a reason, `count` times."""

    reason: str
    queue: str
    exchange: str = ""
    count: int = 1
    time: datetime | None = None
    routing_keys: list[str] = Field(default=[], alias="routing-keys")


_death = TypeAdapter(DeathEntry)


def parse_x_death(headers: Mapping[str, Any]) -> list[DeathEntry]:
    """The valid entries, the latest first; empty without the header."""
    entries = headers.get("x-death")
    deaths = []
    for entry in entries if isinstance(entries, list) else []:
        with suppress(ValidationError):
            deaths.append(_death.validate_python(entry))
    return deaths


def redeliveries(headers: Mapping[str, Any]) -> int:
    """The number of earlier deliveries from the queue that the message now comes from."""
    count = headers.get("x-delivery-count")
    return count if isinstance(count, int) and not limit_reached(headers) else 0


def limit_reached(headers: Mapping[str, Any]) -> int | None:
    """The delivery limit that the message exceeded, None if unknown.

    Since version 4, RabbitMQ keeps the number of deliveries from the queue that dead-lettered the message until it
    is delivered again. It cannot be told from a number of the present queue, so only multiples of five are taken
    for a limit: the other kind of number is the next one at the next delivery.
    """
    count, reason = headers.get("x-delivery-count"), headers.get("x-last-death-reason")
    if reason != LIMIT_REACHED or not isinstance(count, int) or count <= 1 or (count - 1) % LIMIT_MULTIPLE:
        return None
    return count - 1


def describe(deaths: list[DeathEntry], limit: int | None = None) -> str:
    """The entries in one line; `limit` is the delivery limit that was exceeded, if known."""
    if not deaths:
        return "it was published to the dead letters directly, or with an x-death header that is not the broker's"
    limits = [limit, *[None] * MAX_SHOWN]
    described = "; before that, ".join(map(_describe_entry, deaths[:MAX_SHOWN], limits))
    more = f"; and {len(deaths) - MAX_SHOWN} more deaths" if len(deaths) > MAX_SHOWN else ""
    return one_line(f"the broker gave it up: {described}{more}")


def _describe_entry(death: DeathEntry, limit: int | None) -> str:
    words = _WORDS.get(death.reason, f"for the reason {shown(death.reason)}")
    if limit is not None and death.reason == LIMIT_REACHED:
        words = f"it was delivered more than {limit} times, which was the queue's limit, and nobody settled it"
    when = f" at {death.time:%Y-%m-%d %H:%M:%S}Z" if death.time else ""
    often = f", {death.count:,} times in all" if death.count > 1 else ""
    return f"{words}, in queue {shown(death.queue)}{when}{often}"
