"""Why the broker gave a message up, in words: the story that RabbitMQ tells in the header `x-death`."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from worker.contract import one_line, shown
from worker.intake.topology import DELIVERY_LIMIT

TOLD = 3
"""Deaths that are told, the latest ones."""

_WORDS = {
    "delivery_limit": f"it was delivered more than {DELIVERY_LIMIT} times and nobody settled it",
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


_deaths = TypeAdapter(list[Death])


def read_deaths(headers: Mapping[str, Any]) -> list[Death]:
    """A message's deaths, the latest first; none if the header is missing, or is not RabbitMQ's."""
    try:
        return _deaths.validate_python(headers.get("x-death") or [])
    except ValidationError:
        return []


def told(deaths: list[Death]) -> str:
    """The story in one line."""
    if not deaths:
        return "it was published to the dead letters directly, or with an x-death header that is not the broker's"
    story = "; before that, ".join(map(_told, deaths[:TOLD]))
    more = f"; and {len(deaths) - TOLD} more deaths" if len(deaths) > TOLD else ""
    return one_line(f"the broker gave it up: {story}{more}")


def _told(death: Death) -> str:
    words = _WORDS.get(death.reason, f"for the reason {shown(death.reason)}")
    when = f" at {death.time:%Y-%m-%d %H:%M:%S}Z" if death.time else ""
    often = f", {death.count:,} times in all" if death.count > 1 else ""
    return f"{words}, in queue {shown(death.queue)}{when}{often}"
