"""Values that the system page looks for in the background: never waited for longer than the page's patience."""

import asyncio
import time

from worker.pages.cached import Cached


class Looking:
    """Looks for a value, as slowly as it is told to."""

    def __init__(self, takes: float = 0) -> None:
        self.takes = takes
        self.looks = 0
        self.error: Exception | None = None

    async def look(self) -> int:
        self.looks += 1
        number = self.looks
        await asyncio.sleep(self.takes)
        if self.error is not None:
            raise self.error
        return number


async def test_what_takes_long_is_not_waited_for_and_known_later() -> None:
    looking = Looking(0.2)
    cached = Cached(looking.look, 10)
    began = time.monotonic()
    first = await asyncio.gather(*(cached.get(0.02) for _ in range(10)))
    assert time.monotonic() - began < 0.15
    assert {each.value for each in first} == {None}
    await asyncio.sleep(0.3)
    found = await cached.get(0.02)
    assert (found.value, found.problem, looking.looks) == (1, "", 1)
    assert 0 < found.age < 1


async def test_it_looks_again_only_after_its_time_and_shows_the_former_value_meanwhile() -> None:
    looking = Looking()
    cached = Cached(looking.look, 0.05)
    assert (await cached.get(1)).value == 1
    assert (await cached.get(1)).value == 1
    await asyncio.sleep(0.06)
    looking.takes = 0.02
    assert (await cached.get(1)).value == 1
    await asyncio.sleep(0.05)
    assert (await cached.get(1)).value == 2
    await asyncio.sleep(0.1)  # less than twenty times what the look took
    await cached.get(0)
    assert looking.looks == 2


async def test_a_failure_is_shown_beside_the_former_value() -> None:
    looking = Looking()
    cached = Cached(looking.look, 0)
    assert (await cached.get(1)).value == 1
    looking.error = ConnectionError("the network\nis down")
    await _settled(cached)
    found = await cached.get(0)
    assert found.value == 1
    assert "the network" in found.problem
    assert "\n" not in found.problem
    looking.error = None
    await _settled(cached)
    assert (await cached.get(0)).problem == ""


async def _settled(cached: Cached[int]) -> None:
    """Let a look begin, whose time comes after twenty times what the former one took, and end."""
    for _ in range(50):
        await cached.get(0)
        await asyncio.sleep(0.01)
