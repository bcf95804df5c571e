"""Why the broker gave a message up, in words: the story that RabbitMQ tells in the header `x-death`."""

from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from worker.amqp.topology import DELIVERY_LIMIT
from worker.model.text import one_line, shown

TOLD = 3
"""Deaths that are told, the latest ones."""
COMMON = 5
"""Of what delivery limits are multiples, where people choose them."""

LIMIT_REACHED = "delivery_limit"
_WORDS = {
    LIMIT_REACHED: "it was delivered more often than the queue's delivery limit allows, and nobody settled it "
    f"(deviceops asks for {DELIVERY_LIMIT}, of which a policy may make less)",
    "expired": "its time to live ran out",
    "maxlen": "the queue was full",
    "rejected": "a consumer rejected it",
}
"""The reasons that RabbitMQ has (its guide "Dead Letter Exchanges")."""


class Death(BaseModel):
    """One entry of `x-death`: a queue out of which a message died, for a reason, `count` times."""

    reason: str
    queue: str
    exchange: str = ""
    count: int = 1
    time: datetime | None = None
    routing_keys: list[str] = Field(default=[], alias="routing-keys")


_death = TypeAdapter(Death)


def read_deaths(headers: Mapping[str, Any]) -> list[Death]:
    """A message's deaths, the latest first, without what is not RabbitMQ's; none if the header is missing."""
    entries = headers.get("x-death")
    deaths = []
    for entry in entries if isinstance(entries, list) else []:
        with suppress(ValidationError):
            deaths.append(_death.validate_python(entry))
    return deaths


def redeliveries(headers: Mapping[str, Any]) -> int:
    """How often a message was delivered before, out of the queue that it now comes from."""
    count = headers.get("x-delivery-count")
    return count if isinstance(count, int) and not limit_reached(headers) else 0


def limit_reached(headers: Mapping[str, Any]) -> int | None:
    """The delivery limit that a message died of, where the broker says so; None if it does not.

    From version 4 on, RabbitMQ leaves the count of deliveries out of the queue that the message died in until it
    is delivered again. It looks like one of the queue that it came to, so only limits are told that people set:
    multiples of five. Was it that other one, it is the next number the next time.
    """
    count, reason = headers.get("x-delivery-count"), headers.get("x-last-death-reason")
    if reason != LIMIT_REACHED or not isinstance(count, int) or count <= 1 or (count - 1) % COMMON:
        return None
    return count - 1


def told(deaths: list[Death], limit: int | None = None) -> str:
    """The story in one line; `limit` is the delivery limit of the last death, if that is known."""
    if not deaths:
        return "it was published to the dead letters directly, or with an x-death header that is not the broker's"
    limits = [limit, *[None] * TOLD]
    story = "; before that, ".join(map(_told, deaths[:TOLD], limits))
    more = f"; and {len(deaths) - TOLD} more deaths" if len(deaths) > TOLD else ""
    return one_line(f"the broker gave it up: {story}{more}")


def _told(death: Death, limit: int | None) -> str:
    words = _WORDS.get(death.reason, f"for the reason {shown(death.reason)}")
    if limit is not None and death.reason == LIMIT_REACHED:
        words = f"it was delivered more than {limit} times, which was the queue's limit, and nobody settled it"
    when = f" at {death.time:%Y-%m-%d %H:%M:%S}Z" if death.time else ""
    often = f", {death.count:,} times in all" if death.count > 1 else ""
    return f"{words}, in queue {shown(death.queue)}{when}{often}"
