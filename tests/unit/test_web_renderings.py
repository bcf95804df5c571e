"""Renderings that open pages share: one for all who ask at a time, and never an old one after a change."""

import asyncio
from collections.abc import Iterable

import pytest

from worker.pages.renderings import LIFETIME, Renderings


class Counting:
    """Renders slowly, and counts how often."""

    def __init__(self) -> None:
        self.made = 0
        self.version = 0
        self.renderings = Renderings(self.versions)

    def versions(self, topics: Iterable[str]) -> tuple[int, ...]:
        return tuple(self.version for _ in topics)

    async def get(self, key: str = "rows") -> str:
        return await self.renderings.get(key, ("operations",), self._render)

    async def _render(self) -> str:
        self.made += 1
        made = self.made
        await asyncio.sleep(0.01)
        return f"{made}"


async def test_fifty_who_ask_at_a_time_get_one_rendering() -> None:
    counting = Counting()
    assert await asyncio.gather(*(counting.get() for _ in range(50))) == ["1"] * 50
    assert await counting.get() == "1"
    assert await counting.get("another") == "2"


async def test_after_a_change_nobody_gets_what_was_begun_before_it() -> None:
    counting = Counting()
    before = asyncio.create_task(counting.get())
    await asyncio.sleep(0)
    counting.version += 1
    assert await asyncio.gather(*(counting.get() for _ in range(5))) == ["2"] * 5
    assert await before == "1"
    counting.renderings.clear()
    assert await counting.get() == "3"


async def test_a_rendering_is_not_used_longer_than_its_lifetime() -> None:
    counting = Counting()
    assert await counting.get() == "1"
    await asyncio.sleep(LIFETIME + 0.05)
    assert await counting.get() == "2"


async def test_a_failure_is_raised_for_all_who_wait_and_not_held() -> None:
    renderings = Renderings(lambda topics: tuple(0 for _ in topics))
    calls = 0

    async def fail() -> str:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0.01)
        raise ConnectionError

    found = await asyncio.gather(*(renderings.get("rows", (), fail) for _ in range(3)), return_exceptions=True)
    assert [type(each) for each in found] == [ConnectionError] * 3
    assert calls == 1
    with pytest.raises(ConnectionError):
        await renderings.get("rows", (), fail)
    assert calls == 2


async def test_who_goes_away_takes_the_rendering_from_nobody() -> None:
    counting = Counting()
    first = asyncio.create_task(counting.get())
    await asyncio.sleep(0)
    second = asyncio.create_task(counting.get())
    await asyncio.sleep(0)
    first.cancel()
    assert await second == "1"


async def test_what_is_old_is_not_held() -> None:
    counting = Counting()
    for number in range(20):
        await counting.get(str(number))
    await asyncio.sleep(2.5 * LIFETIME)
    assert len(counting.renderings) == 0
