"""Renderings that many open pages share: the same fragment is made once for all who ask at a time."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Hashable, Iterable
from typing import Any, NamedTuple, TypeVar

LIFETIME = 0.5
"""Seconds from its beginning for which a rendering is used, if nothing has changed."""
_HELD = 200
"""Renderings that are held, at most."""

Versions = Callable[[Iterable[str]], tuple[int, ...]]
Rendered = TypeVar("Rendered", str, bytes)


class _Rendering(NamedTuple):
    began: float
    version: tuple[int, ...]
    task: asyncio.Task[Any]


class Renderings:
    """Renderings by key. `versions` counts how often each of some topics has changed."""

    def __init__(self, versions: Versions) -> None:
        self._versions = versions
        self._held: OrderedDict[Hashable, _Rendering] = OrderedDict()

    async def get(
        self, key: Hashable, topics: Iterable[str], render: Callable[[], Coroutine[Any, Any, Rendered]]
    ) -> Rendered:
        """What `render` returns, or has returned to another caller since the topics changed last.

        A failure is raised for all who wait for it, and not held. A caller that goes away cancels nothing.
        """
        version, held = self._versions(topics), self._held.get(key)
        if held is None or held.version != version or not _is_fresh(held):
            task = asyncio.create_task(render())
            task.add_done_callback(_retrieve)
            held = self._held[key] = _Rendering(time.monotonic(), version, task)
            self._held.move_to_end(key)
            while len(self._held) > _HELD:
                self._held.popitem(last=False)
            asyncio.get_running_loop().call_later(2 * LIFETIME, self._forget_old)
        rendered: Rendered = await asyncio.shield(held.task)
        return rendered

    def __len__(self) -> int:
        return len(self._held)

    def _forget_old(self) -> None:
        """Hold no longer what is not used any more: each may be megabytes."""
        for key in [key for key, held in self._held.items() if not _is_fresh(held)]:
            del self._held[key]

    def clear(self) -> None:
        """Hold nothing that was begun before: something was changed by this process."""
        self._held.clear()


def _is_fresh(held: _Rendering) -> bool:
    if not held.task.done():
        return True
    is_well = not held.task.cancelled() and held.task.exception() is None
    return is_well and time.monotonic() - held.began < LIFETIME


def _retrieve(task: asyncio.Task[Any]) -> None:
    """Mark the exception as seen: whoever waited may have gone."""
    if not task.cancelled():
        task.exception()
