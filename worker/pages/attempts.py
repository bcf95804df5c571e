"""Bounds failed attempts to sign in, of one address and of all, so that guessing fills neither log nor processor.

A token has 256 random bits, so that no number of attempts finds one. A right token is therefore never refused:
otherwise one caller behind a proxy would lock out all others.
"""

import time
from collections import OrderedDict

PERIOD = 60
"""Seconds."""
OF_ONE = 10
"""Failed attempts of one address in a period."""
OF_ALL = 100
"""Failed attempts of all addresses in a period."""
_REMEMBERED = 10_000
"""Addresses, the latest."""


class Attempts:
    """Counts failed attempts by address."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._all = 0
        self._of: OrderedDict[str, int] = OrderedDict()

    def fail(self, address: str) -> bool:
        """Count a failed attempt; returns whether there are too many."""
        if time.monotonic() - self._began >= PERIOD:
            self._began, self._all = time.monotonic(), 0
            self._of.clear()
        self._all += 1
        self._of[address] = self._of.get(address, 0) + 1
        if len(self._of) > _REMEMBERED:
            self._of.popitem(last=False)
        return self._all > OF_ALL or self._of.get(address, 0) > OF_ONE
