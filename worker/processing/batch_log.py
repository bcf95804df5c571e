"""Log lines for committed transactions, without anything that was sent but ids."""

import logging
from collections.abc import Iterable, Sequence
from itertools import islice

import structlog

from worker.model.messages import Item
from worker.model.outcomes import Tally
from worker.model.text import one_line
from worker.processing.batch_keys import BatchKeys

NAMED = 3
"""Messages and operations of a batch that are named, at most."""

_log = structlog.get_logger()


def log_batch(items: Sequence[Item], keys: BatchKeys, tally: Tally, seconds: float) -> None:
    """Log the size, the duration and the results of one transaction."""
    if not _log.is_enabled_for(logging.DEBUG):
        return
    operations = keys.operations | {id_ for id_, _ in keys.announcements}
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


def log_aborts(tally: Tally) -> None:
    """Log each abort threshold that was crossed."""
    for operation_id, why in tally.aborted:
        _log.warning("abort threshold crossed", operation_id=str(operation_id), detail=why)


def _first(ids: Iterable[object]) -> list[str]:
    return [str(id_) for id_ in islice(ids, NAMED)]
