"""What a transaction tells others, made from its decisions. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from worker.model import changes
from worker.model.changes import Change, DeadLettersAdded, Moved, OperationAborted, Told
from worker.model.operation import StoredOperation
from worker.model.state_times import read
from worker.model.timing import Tripped, threshold
from worker.processing.decisions import Decisions

MovedByOperation = Mapping[UUID, Sequence[Moved]]


def moved_devices(decisions: Decisions) -> MovedByOperation:
    """The device operations that are in another state after a transaction, if they are told."""
    moved: defaultdict[UUID, list[Moved]] = defaultdict(list)
    if changes.told() is Told.ALL:
        for device_id, tracked in decisions.moved():
            at = read(tracked.state_times)[tracked.state]
            before = None if tracked.is_new else tracked.stored[0]
            moved[tracked.operation_id].append(
                Moved(device_id, tracked.state, before, tracked.reason or "", tracked.code, at)
            )
    return moved


def of_operations(
    before: Mapping[UUID, StoredOperation],
    after: Mapping[UUID, StoredOperation],
    moved: MovedByOperation,
    at: datetime,
) -> Iterator[Change]:
    """The changes of operations, in the order in which they are told."""
    told = changes.told()
    if told is Told.NONE:
        return
    for id_, new in after.items():
        type_ = new.operation_type
        yield changes.operation_changed(id_, type_, new.sequence, new.state, before[id_].state, new.counters, at)
        if new.reason is not None:
            yield changes.operation_aborted(_aborted(id_, new, at))
        if told is Told.ALL:
            yield from changes.device_operations_changed(id_, type_, new.sequence, moved.get(id_, ()))


def of_dead_letters(rows: Iterable[tuple[int, Mapping[str, Any]]], at: datetime) -> list[Change]:
    """The changes of new dead letters, given with their ids."""
    if changes.told() is Told.NONE:
        return []
    groups: defaultdict[tuple[Any, Any, Any], list[int]] = defaultdict(list)
    for id_, row in rows:
        groups[row["reason"], row["operation_id"], row["service_id"]].append(id_)
    return [
        changes.dead_letters_added(
            DeadLettersAdded(
                reason=reason,
                operation_id=operation_id,
                service_id=service_id,
                count=len(ids),
                ids=sorted(ids)[: changes.FIRST_IDS],
                at=at,
            )
        )
        for (reason, operation_id, service_id), ids in groups.items()
    ]


def _aborted(id_: UUID, operation: StoredOperation, at: datetime) -> OperationAborted:
    assert operation.abort is not None
    assert operation.tripped is not None
    assert operation.reason is not None
    crossed, found = threshold(operation.abort), Tripped.read(operation.tripped)
    return OperationAborted(
        operation_id=id_,
        operation_type=operation.operation_type,
        sequence=operation.sequence,
        action=crossed.action,
        failed_percent=crossed.failed_percent,
        min_settled=crossed.min_settled,
        settled=found.settled,
        failed=found.failed,
        reason=operation.reason,
        at=at,
    )
