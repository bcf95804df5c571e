"""Spans within a batch; without tracing they do nothing."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

OpenSpan = Callable[[str], AbstractContextManager[object]]

_NO_SPAN: AbstractContextManager[object] = nullcontext()


def _none(_name: str) -> AbstractContextManager[object]:
    return _NO_SPAN


class _Tracer:
    open_span: OpenSpan = staticmethod(_none)


def span(name: str) -> AbstractContextManager[object]:
    """A span with this name for the duration of a block."""
    return _Tracer.open_span(name)


def set_opener(open_span: OpenSpan | None) -> None:
    """Set the function that opens spans; None for no tracing."""
    _Tracer.open_span = staticmethod(open_span or _none)
