"""The decisions of one transaction: what it writes. Pure data, filled by `worker.processing.decider`."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from statemachine import (
    SETTLED,
    AbortAction,
    Counters,
    State,
    Timeouts,
    Times,
    contribution,
    expiry,
    failed,
    operation_state,
)
from worker.model.causes import GROUPED, LEFT, Group, GroupKey
from worker.model.contract import Announcement
from worker.model.dead_letter import DeadLetter
from worker.model.messages import Key
from worker.model.operation import StoredOperation, Task
from worker.model.outcomes import DUPLICATE, OF_DISCARDED, REJECTED, Action, Reason, Tally
from worker.model.timing import Tripped, effective, threshold
from worker.processing.known import Known, TrackedDeviceOperation

ANNOUNCED = "announced"
TAKEN_APART = "taken apart"
"""Outcomes of a stored dead letter that is resolved, in addition to the verdicts and DUPLICATE."""

Outcome = str | DeadLetter
"""Of a stored dead letter: a verdict or a word above if it is resolved, else the dead letter that it now is."""


class Answer(NamedTuple):
    """The result for a sender who waits: a verdict or a word above, else why the message is rejected."""

    outcome: Outcome
    state: State | None = None
    """Of the device operation that the message is about, if it is registered."""


@dataclass(slots=True)
class Decisions:
    """What a transaction writes, and what it reports."""

    known: Known = field(default_factory=Known)
    tally: Tally = field(default_factory=Tally)
    activity: list[tuple[UUID, str, State, str, datetime, str, str, int, str | None, str | None]] = field(
        default_factory=list
    )
    """Accepted reports, as rows of the table."""
    changed: list[tuple[UUID, TrackedDeviceOperation]] = field(default_factory=list)
    """Device operations whose rows are to be written, once `finish` has found them."""
    regrouped: list[TrackedDeviceOperation] = field(default_factory=list)
    """Those of them that have, or had, a cause."""
    dead_letters: list[DeadLetter] = field(default_factory=list)
    """New ones, in the order of arrival."""
    outcomes: dict[int, Outcome] = field(default_factory=dict)
    """The final outcome of each stored dead letter, by id."""
    history: list[tuple[int, Action, Outcome]] = field(default_factory=list)
    """Each action on stored dead letters, in order."""
    fingerprints: set[UUID] = field(default_factory=set)
    """Of the new dead letters that have no report's identity."""
    announced: defaultdict[UUID, list[Announcement]] = field(default_factory=lambda: defaultdict(list))
    """Announcements whose fields are written, by operation."""
    beginning: set[Key] = field(default_factory=set)
    """Beginning keys of announcements that are begun and not ended."""
    ended: set[Key] = field(default_factory=set)
    """Beginning keys of announcements that were begun before and are ended."""
    named: set[UUID] = field(default_factory=set)
    """Operations whose type became known."""
    answers: list[Answer] = field(default_factory=list)
    """One for each message whose sender waits."""

    def finish(self) -> None:
        """Find when each device operation expires, and which have changed, now that everything is decided."""
        known, changed = self.known, self.changed
        of_operations: dict[UUID, Timeouts | None] = {}
        for item in known.registered.items():
            tracked = item[1]
            operation_id = tracked.operation_id
            try:
                timeouts = of_operations[operation_id]
            except KeyError:
                timeouts = of_operations[operation_id] = known.timeouts(operation_id)
            expires = None if timeouts is None else expires_at(tracked, timeouts)
            tracked.expires_at = expires
            if (tracked.state, tracked.dispatched, tracked.state_times, expires) == tracked.stored:
                # Of one with `step`, when it was reported is needed though nothing else has changed.
                has_step = expires is not None and timeouts is not None and timeouts.step is not None
                if tracked.reason is None and not (has_step and tracked.is_reported and not tracked.is_new):
                    continue
            changed.append(item)
            if tracked.cause is not None or tracked.stored_cause is not None:
                self.regrouped.append(tracked)

    def armed_with(
        self, operations: Mapping[UUID, StoredOperation], outdated: Collection[UUID]
    ) -> list[tuple[UUID, int | None, int]]:
        """When those of `outdated` expire (id, expires at, reported at), with the operations' own timeouts."""
        timeouts = {id_: effective(operations[id_].timing, operations[id_].operation_type) for id_ in outdated}
        return [
            (id_, expires_at(tracked, timeouts[tracked.operation_id]), tracked.reported_at)
            for id_, tracked in self.known.registered.items()
            if tracked.operation_id in outdated
        ]

    def counter_changes(self) -> Mapping[UUID, Counters]:
        """What to add to operations' counters, without operations that do not change."""
        moves = Counter(
            (
                tracked.operation_id,
                None if tracked.is_new else tracked.stored[:2],
                (tracked.state, tracked.dispatched),
            )
            for _, tracked in self._counted()
        )
        changes: defaultdict[UUID, Counters] = defaultdict(Counters)
        for (operation_id, before, after), times in moves.items():
            change = changes[operation_id].plus(contribution(*after), times)
            changes[operation_id] = change.plus(contribution(*before), -times) if before else change
        return {operation_id: change for operation_id, change in changes.items() if any(change)}

    def group_changes(self) -> dict[GroupKey, Group]:
        """What to add to groups: the numbers that enter less those that leave them."""
        changes: dict[GroupKey, Group] = {}
        for tracked in self.regrouped:
            before, at = None if tracked.is_new else tracked.stored[0], tracked.at
            if tracked.state is before or at is None:
                continue
            # Without a cause it is as a worker of an older version leaves it, in no group.
            if before in GROUPED and tracked.stored_cause is not None:
                key = GroupKey(tracked.operation_id, before, tracked.stored_cause)
                found = changes.get(key)
                changes[key] = LEFT if found is None else found.plus(LEFT)
            if tracked.state in GROUPED and tracked.cause is not None:
                key = GroupKey(tracked.operation_id, tracked.state, tracked.cause)
                found, entering = changes.get(key), Group.of(tracked.code, tracked.reason or "", at)
                changes[key] = entering if found is None else found.plus(entering)
        return changes

    def moved(self) -> Iterator[tuple[UUID, TrackedDeviceOperation]]:
        """The device operations that are new or in another state than before, with their devices."""
        for id_, tracked in self._counted():
            if tracked.is_new or tracked.state is not tracked.stored[0]:
                yield self.known.claims[id_][1], tracked

    def _counted(self) -> Iterator[tuple[UUID, TrackedDeviceOperation]]:
        """The device operations that counters may not include as they are now, by id."""
        for id_, tracked in self.changed:
            if not tracked.is_new:
                yield id_, tracked
        for id_ in self.known.inserted & self.known.registered.keys():
            yield id_, self.known.registered[id_]

    def unused_device_operations(self) -> set[UUID]:
        """Rows that loading inserted and no decision registered."""
        return self.known.inserted - self.known.registered.keys()

    def unused_operations(self) -> set[UUID]:
        """Rows that loading created and no decision uses."""
        registered = self.known.registered
        used = {registered[id_].operation_id for id_ in self.known.inserted & registered.keys()}
        return self.known.created_operations - used - self.announced.keys()

    def count_unidentified(
        self, kept: Collection[UUID], discarded: Collection[UUID], services: Mapping[UUID, str]
    ) -> None:
        """Count the dead letters without a report's identity: only the insert shows whether they are new.

        Of two with one fingerprint, as when a report comes again that its release has refused, one is inserted.
        `kept` has the fingerprints of those that were inserted, `discarded` of those that exist and are discarded,
        `services` what each names as its service, which counts for a reporter that is not denied.
        """
        new = set(kept)
        for letter in self.dead_letters:
            if letter.report is None:
                fingerprint = letter.fingerprint
                service = "" if letter.reason.traits.is_untrusted else services.get(fingerprint, "")
                if fingerprint in new:
                    new.remove(fingerprint)
                    self.count_rejected(letter.reason, service)
                else:
                    self.tally.by_service[service, OF_DISCARDED] += fingerprint in discarded
                    self.count_duplicate(service)

    def count_duplicate(self, service_id: str = "") -> None:
        """Count a message that was processed before."""
        self.tally.duplicate += 1
        self.tally.by_service[service_id, DUPLICATE] += 1

    def count_rejected(self, reason: Reason, service_id: str = "") -> None:
        """Count a dead letter."""
        self.tally.dead_lettered[reason] += 1
        self.tally.by_service[service_id, REJECTED] += 1


def expires_at(tracked: TrackedDeviceOperation, timeouts: Timeouts | None) -> int | None:
    """When a device operation has to be looked at; None if it is settled or has no timeout."""
    if timeouts is None or tracked.state in SETTLED:
        return None
    found = expiry(timeouts, Times(tracked.registered_at, tracked.dispatched_at, tracked.reported_at))
    return None if found is None else found.at


def operation_after(
    before: StoredOperation, batch_type: str | None, announcements: Sequence[Announcement], at: datetime
) -> StoredOperation:
    """An operation's row after a transaction that has counted, at a moment by the database's clock.

    An announcement's type replaces the stored one; a report's type is taken where none is stored. An abort
    threshold that is crossed trips once; another one that is announced can trip again.
    """
    expected, timing, abort, tripped = before.expected, before.timing, before.abort, before.tripped
    for announcement in announcements:
        if announcement.device_count is not None:
            expected = announcement.device_count
        elif expected is None and announcement.device_ids is not None:
            expected = len(set(announcement.device_ids))
        timing = timing.updated(announcement.timing)
        if announcement.abort is not None and announcement.abort.text != abort:
            abort, tripped = announcement.abort.text, None
    reason = None
    if abort is not None and tripped is None and threshold(abort).is_crossed(before.counters):
        found = Tripped(at=at, settled=before.counters.settled_device_count, failed=failed(before.counters))
        tripped, reason = found.model_dump_json(), found.in_words(threshold(abort))
    return before._replace(
        timing=timing,
        abort=abort,
        tripped=tripped,
        reason=reason,
        operation_type=batch_type if announcements else before.operation_type or batch_type,
        state=operation_state(before.counters, expected),
        expected=expected,
    )


def tasks_after(before: StoredOperation, after: StoredOperation, *, is_created: bool) -> Iterator[Task]:
    """What is left to do for an operation; `is_created` is whether all of its rows are of this transaction."""
    if after.counters.settled_device_count == after.counters.resolved_device_count:
        return
    before_, after_ = (effective(each.timing, each.operation_type) for each in (before, after))
    if before_ != after_ and not is_created:
        yield Task.ARM
    has_tripped = after.tripped not in (None, before.tripped)
    if has_tripped and after.abort is not None and threshold(after.abort).action is AbortAction.CANCEL:
        yield Task.CANCEL
