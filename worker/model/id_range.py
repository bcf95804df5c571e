"""An id, or how it begins, as people type it."""

import re
from typing import NamedTuple
from uuid import UUID

SHORTEST = 4
"""Minimum of hexadecimal digits of a prefix."""
_UUID = re.compile(r"\{?([0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})\}?", re.IGNORECASE | re.ASCII)


class IdRange(NamedTuple):
    """An id, or the range of ids that begin with some digits."""

    text: str
    first: UUID
    last: UUID


def parsed_uuid(text: str) -> UUID:
    """Parse 32 hexadecimal digits, with or without hyphens and braces; `UUID` takes more. Raises ValueError."""
    if not re.fullmatch(_UUID, text):
        raise ValueError(f"{text!r} is not a UUID")
    return UUID(text)


def id_range(text: str) -> IdRange:
    """Parse a UUID, or the beginning of one. Raises ValueError."""
    digits = text.replace("-", "").lower()
    try:
        whole = parsed_uuid(text)
    except ValueError:
        if not re.fullmatch(rf"[0-9a-f]{{{SHORTEST},31}}", digits):
            raise ValueError(f"{text!r} is not a UUID, nor the first {SHORTEST} digits or more of one") from None
        return IdRange(text, UUID(digits.ljust(32, "0")), UUID(digits.ljust(32, "f")))
    return IdRange(str(whole), whole, whole)
