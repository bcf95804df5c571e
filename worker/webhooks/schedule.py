"""When a message is attempted again: after growing pauses, over some 75 hours."""

import random
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

SECOND, HOUR = 1_000, 3_600_000
"""Milliseconds."""
PAUSES = [
    *(5 * SECOND, 300 * SECOND, 1_800 * SECOND),
    *(2 * HOUR, 5 * HOUR, 10 * HOUR, 14 * HOUR, 20 * HOUR, 24 * HOUR),
]
"""Milliseconds before the second attempt, the third, and so on; the first is made at once."""
ATTEMPTS = len(PAUSES) + 1
JITTER = 0.1
"""By what part of itself a pause may be longer: not all that failed together is attempted together."""
OLDEST = 90 * HOUR
"""Age at which what has waited for a failing receiver is given up, however few attempts there were."""
LONGEST_REST = 60 * SECOND
"""Maximum pause of a webhook as a whole: what is owed to a dead receiver must not be attempted without one."""
LONGEST_ASKED = 24 * HOUR
"""Maximum pause that a receiver may ask for."""


def pause(failures: int, asked: int = 0) -> int | None:
    """Milliseconds until a message is attempted again that has failed so often; None if it is given up.

    `asked` is what the receiver asks for at least.
    """
    if failures >= ATTEMPTS:
        return None
    regular = PAUSES[failures - 1] * random.uniform(1, 1 + JITTER)  # noqa: S311  # no secret
    return max(int(regular), min(asked, LONGEST_ASKED))


def rest(failures: int, asked: int = 0) -> int:
    """Milliseconds without an attempt of a webhook whose last attempts have failed."""
    return max(min(SECOND << min(failures - 1, 10), LONGEST_REST), min(asked, LONGEST_ASKED))


def asked_pause(retry_after: str | None, now: datetime | None = None) -> int:
    """Milliseconds that a header Retry-After asks for, which has seconds or a date; 0 if it asks for none."""
    text = (retry_after or "").strip()
    if text.isascii() and text.isdigit():
        return min(int(text[:10]) * SECOND, LONGEST_ASKED)
    try:
        until = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return 0
    until = until if until.tzinfo is not None else until.replace(tzinfo=UTC)
    wanted = (until - (now or datetime.now(UTC))).total_seconds() * SECOND
    return min(max(round(wanted), 0), LONGEST_ASKED)
