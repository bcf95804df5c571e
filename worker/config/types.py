"""The types of settings. Their errors say in words what is expected, and never quote the value."""

import json
import re
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, BeforeValidator, Field

from worker.model.parsing import TYPES
from worker.model.text import shown

EMPTY_IS_NONE = BeforeValidator(lambda value: None if value == "" else value)


def _distinct(pairs: list[tuple[str, Any]]) -> None:
    for name, number in Counter(name for name, _ in pairs).most_common(1):
        if number > 1:
            raise ValueError(f"duplicate name {shown(name)}")


def _json_or_none(value: object) -> object:
    """JSON without duplicate names, of which the parser would keep the last one only."""
    if isinstance(value, str):
        with suppress(json.JSONDecodeError, RecursionError):  # of which pydantic says what is wrong
            json.loads(value, object_pairs_hook=_distinct)
    return None if value == "" else value


JSON_OR_NONE = BeforeValidator(_json_or_none)
OptionalFile = Annotated[Path | None, EMPTY_IS_NONE]
Days = Annotated[Annotated[float, Field(ge=0, le=100_000)] | None, EMPTY_IS_NONE]

LogLevel = Annotated[
    Literal["DEBUG", "INFO", "WARNING", "ERROR"],
    BeforeValidator(lambda level: level.upper() if isinstance(level, str) else level),
]
LogFormat = Literal["auto", "json", "text"]


class Address(NamedTuple):
    """An address to listen on; `is_explicit` if the port is configured, so that no other port may replace it."""

    host: str
    port: int
    is_explicit: bool


def _message_type(name: str) -> str:
    if name not in TYPES:
        raise ValueError(f"{shown(name)} is not a message type (expected {', '.join(TYPES)})")
    return name


def _prefix(text: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9._-]{1,200}", text) is None:
        raise ValueError("expected 1 to 200 of the characters A-Z a-z 0-9 . _ -")
    return text


TypeOrAny = Annotated[str, Field(min_length=1, max_length=255)]
MessageType = Annotated[str, AfterValidator(_message_type)]
TopologyPrefix = Annotated[str, AfterValidator(_prefix)]
