"""What the log says of a batch at level debug, once it is committed: one line, and nothing of what was sent."""

import logging
from collections.abc import Iterable, Sequence
from itertools import islice

import structlog

from worker.model.messages import Item
from worker.model.outcomes import Tally
from worker.model.text import one_line
from worker.processing.loading import Scope

NAMED = 3
"""How many messages and operations of a batch are named, at most."""

_log = structlog.get_logger()


def tell(items: Sequence[Item], scope: Scope, tally: Tally, seconds: float) -> None:
    """Log one transaction: how much it was, how long it took, and what became of it."""
    if not _log.is_enabled_for(logging.DEBUG):
        return
    operations = scope.operations | {id_ for id_, _ in scope.announcements}
    ids = dict.fromkeys(item.message.message_id for item in items if item.message.message_id)
    _log.debug(
        "batch committed",
        seconds=round(seconds, 4),
        items=len(items),
        **tally.document(),
        operations=len(operations),
        operation_ids=_first(operations),
        message_ids=[one_line(text) for text in _first(ids)],
    )


def _first(ids: Iterable[object]) -> list[str]:
    return [str(id_) for id_ in islice(ids, NAMED)]
