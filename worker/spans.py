"""Spans of what goes on within a batch, for whoever traces it; where nobody does, they are nothing."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

Opening = Callable[[str], AbstractContextManager[object]]

_NO_SPAN: AbstractContextManager[object] = nullcontext()


def _none(_name: str) -> AbstractContextManager[object]:
    return _NO_SPAN


class _Tracer:
    opening: Opening = staticmethod(_none)


def span(name: str) -> AbstractContextManager[object]:
    """A span of that name for the length of a block."""
    return _Tracer.opening(name)


def let_open(opening: Opening | None) -> None:
    """Have this make the spans; None for nobody."""
    _Tracer.opening = staticmethod(opening or _none)
