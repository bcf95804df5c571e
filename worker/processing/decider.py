"""Decides a transaction's items one after another, by the rules of `statemachine`.

Pure: no SQL, no driver, no clock, no waiting. `worker.processing.transaction` loads what is known before, and
writes the decisions after.
"""

from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache
from uuid import UUID, uuid5

from statemachine import SETTLED, State, Times, Verdict, decide, expiry, shows_dispatch
from worker.config.reporters import Reporters
from worker.model.causes import GROUPED, cause
from worker.model.dead_letter import DeadLetter
from worker.model.identity import NAMESPACE, device_operation_id
from worker.model.messages import Announced, Incoming, Item, Message, Overdue, plausible
from worker.model.outcomes import (
    CONTRADICTING,
    DUPLICATE,
    EXAMPLES,
    LEFT_OUT,
    OF_DISCARDED,
    Action,
    Contradiction,
    Reason,
    Rejection,
    Status,
)
from worker.model.state_times import entry, noted
from worker.model.text import shown
from worker.model.timing import SERVICE, Timing, moment, reason_of
from worker.processing.decisions import ANNOUNCED, TAKEN_APART, Answer, Decisions, Outcome
from worker.processing.known import CREATED, Known, TrackedDeviceOperation

# Members looked up in their class cost more than most of what is done for a report.
APPLIED, CONFLICT = Verdict.APPLIED, Verdict.CONFLICT

_NO_CLAIM = None, None, None, "", None


@dataclass(slots=True)
class Decider:
    """Fills `decisions` from items, and keeps `known` up to date for the items that follow."""

    known: Known = field(default_factory=Known)
    reporters: Reporters | None = None
    """Who may report; None for everyone."""
    now: int = 0
    """When this transaction is recorded, by the worker's clock, in seconds since 1970."""
    releases_parked: bool = True
    """Whether a registration releases the parked reports of its device operation; if not, a later one does."""
    decisions: Decisions = field(init=False)

    def __post_init__(self) -> None:
        self.decisions = Decisions(self.known)

    def take(self, item: Item) -> None:
        """Decide one item."""
        message = item.message
        if (id_ := message.dead_letter_id or message.part_of) is not None:
            if message.is_republished and id_ not in self.known.stored:
                item = _detached(item)  # its dead letter is gone: a message like any other
                message = item.message
            elif not message.is_republished and self.known.stored.get(id_) is not Status.OPEN:
                self.decisions.tally.received += 1
                self.decisions.count_duplicate()  # resolved or discarded meanwhile
                return
        if isinstance(item, Incoming):
            self.decisions.tally.received += 1
            self._take_report(item)
        elif isinstance(item, Overdue):
            self._time_out(item)
        elif isinstance(item, Announced):
            self._take_announcement(item)
        else:
            self.decisions.tally.received += 1
            self._keep_unidentified(Rejection(item.reason, item.detail), message)
        if message.part_of is not None and message.is_last_part:
            self._note(message.part_of, Action.REPLAYED, TAKEN_APART)

    def release(self, letter: DeadLetter) -> None:
        """Decide a parked report whose device operation is registered."""
        self.decisions.tally.released += 1
        self._note_release(letter, self._released(letter))

    def refuse(self, letter: DeadLetter, detail: str) -> None:
        """Keep a parked report that the database does not store, as malformed."""
        decisions = self.decisions
        decisions.tally.released += 1
        assert letter.report is not None
        decisions.count_rejected(Reason.MALFORMED, letter.report.report.service_id)
        self._note_release(letter, DeadLetter(Reason.MALFORMED, detail, letter.message, letter.report))

    def _take_report(self, incoming: Incoming) -> None:
        known, message, key = self.known, incoming.message, incoming.key
        if key in known.accepted or known.kept.get(key, message.dead_letter_id) != message.dead_letter_id:
            self._count_repeated(incoming)
            if incoming.report.state is CREATED:
                self._release_parked(key[0])  # the worker that registered it may have died before it did
            self._resolve(message, DUPLICATE, key[0])
            return
        outcome = self._decide(incoming)
        if isinstance(outcome, Verdict):
            self._resolve(message, outcome, key[0])
        elif message.is_awaited:
            self._answer(DeadLetter(outcome.reason, outcome.detail, message, incoming), key[0])
        elif outcome.reason.traits.is_untrusted:
            known.kept.pop(key, None)
            self._keep_unidentified(outcome, message)
        else:
            self._keep(incoming, outcome)

    def _decide(self, incoming: Incoming) -> Verdict | Rejection:
        """Apply a report that was not accepted before, or say why it is rejected."""
        known, report, tally = self.known, incoming.report, self.decisions.tally
        id_ = incoming.key[0]
        tracked = known.registered.get(id_)
        is_known = tracked is not None or report.state is CREATED
        known_type = known.operation_types.get(report.operation_id)
        if self.reporters is not None:
            type_ = known_type or report.operation_type or None
            if denial := self.reporters.check_report(report, incoming.message, type_, is_known=is_known):
                return Rejection(*denial)
        if not is_known:
            detail = f"{report.state.name} of a device operation that is not registered; parked until it is"
            return Rejection(Reason.UNKNOWN_DEVICE_OPERATION, detail)
        if report.operation_type and known_type and report.operation_type != known_type:
            detail = f"the report says {shown(report.operation_type)}, the operation is {shown(known_type)}"
            return Rejection(Reason.OPERATION_TYPE_MISMATCH, detail)
        if incoming.unless_settled and tracked is not None and tracked.state in SETTLED - {report.state}:
            return Rejection(Reason.CONFLICT, f"the device operation is {tracked.state.name}, which is settled")
        verdict = APPLIED if tracked is None else decide(tracked.state, report.state)
        if tracked is not None and verdict is CONFLICT:
            return Rejection(Reason.CONFLICT, f"{report.state.name} after {tracked.state.name} contradicts it")
        if report.operation_type and not known_type:
            known.operation_types[report.operation_id] = report.operation_type
            self.decisions.named.add(report.operation_id)
        tally.by_service[report.service_id, verdict] += 1
        if incoming.note is not None:
            tally.by_service[report.service_id, LEFT_OUT] += 1
        code = report.code
        if code is not None and not isinstance(code, str):
            code = None  # left out
        key, reason, note = incoming.key, report.reason or "", incoming.note
        known.accepted[key] = report.state
        self.decisions.activity.append(
            (id_, key[1], report.state, verdict, incoming.at, report.service_id, reason, self.now, note, code)
        )
        if tracked is None:
            self._register(id_, report.operation_id, report.reason, incoming.at, code, report.service_id)
        else:
            tracked.reported_at, tracked.is_reported = known.clock, True
            if verdict is APPLIED:
                tracked.state, tracked.reason, tracked.code = report.state, reason, code
                tracked.service_id, tracked.at = report.service_id, incoming.at
                is_grouped = code is not None or report.state in GROUPED
                tracked.cause = cause(report.state, code, reason) if is_grouped else None
                tracked.state_times += entry(report.state, incoming.at)
            else:
                tracked.state_times = noted(tracked.state_times, report.state, incoming.at)
            if not tracked.dispatched and shows_dispatch(verdict, report.state):
                tracked.dispatched, tracked.dispatched_at = True, known.clock
        if report.state is CREATED:
            self._release_parked(id_)
        return verdict

    def _register(
        self,
        id_: UUID,
        operation_id: UUID,
        reason: str | None,
        at: datetime,
        code: str | None = None,
        service_id: str | None = None,
    ) -> None:
        known = self.known
        _, _, since, claimed, service = known.claims.get(id_, _NO_CLAIM)
        created = claimed if since is at else entry(CREATED, at)
        has_more = code is not None or service_id != service
        stored = CREATED, False, claimed, known.expiries.get(id_)
        known.registered[id_] = TrackedDeviceOperation(
            operation_id,
            CREATED,
            False,
            created,
            stored,
            reason=reason or ("" if has_more else None),
            code=code,
            service_id=service_id,
            cause=code,
            registered_at=known.clock,
            reported_at=known.clock,
        )

    def _time_out(self, item: Overdue) -> None:
        """Apply the timeout of a device operation, if it is over: it may have moved meanwhile."""
        tracked = self.known.registered.get(item.id)
        timeouts = self.known.timeouts(item.operation_id)
        if tracked is None or timeouts is None or tracked.state in SETTLED:
            return
        over = expiry(timeouts, Times(tracked.registered_at, tracked.dispatched_at, tracked.reported_at))
        if over is None or over.at > item.until or over.at != tracked.expires_at:
            # Its row gets the later moment. Or an earlier one, if the timeouts have just changed: when it was last
            # reported may not be known before it is armed with them.
            return
        # As `_decide` applies a report, without one: TIMEOUT is above every state that is not settled.
        decisions, kind, at = self.decisions, over.kind.value, moment(over.at)
        reason = reason_of(over.kind, timeouts)
        tracked.state, tracked.reason, tracked.code = State.TIMEOUT, reason, kind
        tracked.service_id, tracked.cause, tracked.at = SERVICE, kind, at
        tracked.state_times += entry(State.TIMEOUT, at)
        tracked.reported_at, tracked.is_reported = self.known.clock, True
        decisions.activity.append(
            (item.id, _timeout_id(over.at), State.TIMEOUT, APPLIED, at, SERVICE, reason, self.now, None, kind)
        )
        decisions.tally.by_service[SERVICE, APPLIED] += 1
        self.decisions.tally.received += 1
        self.decisions.tally.timeouts[over.kind] += 1

    def _release_parked(self, id_: UUID) -> None:
        """Release the parked reports of a registered device operation, the oldest first."""
        if self.releases_parked and id_ in self.known.registered:
            for letter in sorted(self.known.parked.pop(id_, ()), key=_age):
                self.release(letter)

    def _released(self, letter: DeadLetter) -> Outcome:
        incoming = letter.report
        assert incoming is not None
        if incoming.key in self.known.accepted:
            self.decisions.count_duplicate(incoming.report.service_id)
            return DUPLICATE
        outcome = self._decide(incoming)
        if isinstance(outcome, Verdict):
            return outcome
        reason, detail = outcome
        if not reason.traits.is_untrusted:
            self.decisions.count_rejected(reason, incoming.report.service_id)
            return DeadLetter(reason, detail, letter.message, incoming)
        if letter.message.dead_letter_id is not None:  # a new one is counted when it is inserted
            self.decisions.count_rejected(reason)
        self.known.kept.pop(incoming.key, None)
        return DeadLetter(reason, detail, letter.message, None)

    def _note_release(self, letter: DeadLetter, outcome: Outcome) -> None:
        if letter.message.dead_letter_id is not None:
            self._note(letter.message.dead_letter_id, Action.RELEASED, outcome)
        elif isinstance(outcome, DeadLetter):
            letter.reason, letter.detail, letter.report = outcome.reason, outcome.detail, outcome.report
        else:
            letter.status = Status.RESOLVED

    def _keep(self, incoming: Incoming, rejection: Rejection) -> None:
        """Keep a rejected report with its identity."""
        message, key = incoming.message, incoming.key
        self.decisions.count_rejected(rejection.reason, incoming.report.service_id)
        letter = DeadLetter(rejection.reason, rejection.detail, message, incoming)
        self.known.kept[key] = message.dead_letter_id or 0
        if message.dead_letter_id is None:
            self.decisions.dead_letters.append(letter)
        else:
            self._note(message.dead_letter_id, Action.REPLAYED, letter)
        if rejection.reason.traits.is_parked:
            self.known.parked[key[0]].append(letter)

    def _keep_unidentified(self, rejection: Rejection, message: Message) -> None:
        """Keep a message that has no report's identity, or must not use it.

        A new one is counted when it is inserted: see `Decisions.count_unidentified`.
        """
        decisions = self.decisions
        letter = DeadLetter(rejection.reason, rejection.detail, message, None)
        if message.is_awaited:
            self._answer(letter)
        elif message.dead_letter_id is not None:
            self._note(message.dead_letter_id, Action.REPLAYED, letter)
            decisions.count_rejected(rejection.reason)
        elif letter.fingerprint in decisions.fingerprints:
            decisions.count_duplicate()
        else:
            decisions.fingerprints.add(letter.fingerprint)
            decisions.dead_letters.append(letter)

    def _take_announcement(self, announced: Announced) -> None:
        known, decisions, message = self.known, self.decisions, announced.message
        announcement = announced.announcement
        denial = self.reporters.check_announcement(announced) if self.reporters and announced.begins else None
        if denial is not None:
            decisions.tally.received += 1
            self._keep_unidentified(Rejection(*denial), message)
            return
        is_looked_up = announced.key is not None and (announced.begins or announced.ends)
        if is_looked_up and announced.key not in known.new_announcements:
            decisions.tally.received += 1
            decisions.tally.announced += 1
            self._resolve(message, DUPLICATE)
            return  # delivered again: it must not overwrite later announcements
        beginning = announced.beginning
        if announced.begins and beginning not in known.begun:
            known.operation_types[announcement.id] = announcement.operation_type
            before = known.timing.get(announcement.id, Timing())
            known.timing[announcement.id] = before.updated(announcement.timing)
            claimed = announcement.created_at
            if claimed is not None and plausible(claimed, message.received_at) is not claimed:
                announcement = announcement.model_copy(update={"created_at": None})
            decisions.announced[announcement.id].append(announcement)
        self._register_devices(announced)
        if not announced.ends:
            if announced.begins and beginning is not None:
                decisions.beginning.add(beginning)
            return  # its last portion counts it
        if announced.key is not None and beginning is not None:
            known.new_announcements.discard(announced.key)
            if announced.portion is not None or beginning in known.begun:
                decisions.ended.add(beginning)
        if announced.note is not None:
            decisions.tally.by_service["", LEFT_OUT] += 1
        decisions.tally.received += 1
        decisions.tally.announced += 1
        self._resolve(message, ANNOUNCED)

    def _register_devices(self, announced: Announced) -> None:
        operation_id, service = announced.announcement.id, str(announced.announcement.created_by or "")
        for device_id in announced.devices:
            id_ = device_operation_id(operation_id, device_id)
            if (tracked := self.known.registered.get(id_)) is not None:
                tracked.state_times = noted(tracked.state_times, CREATED, announced.at)  # as if it had come first
            else:
                key = id_, announced.report_id
                self.known.accepted[key] = CREATED
                self.decisions.activity.append(
                    (*key, CREATED, APPLIED, announced.at, service, "", self.now, announced.note, None)
                )
                self._register(id_, operation_id, None, announced.at)
            self._release_parked(id_)

    def _count_repeated(self, incoming: Incoming) -> None:
        """Count a report that was processed before, and whether it names another state or was discarded."""
        report, tally = incoming.report, self.decisions.tally
        accepted = self.known.accepted.get(incoming.key, report.state)
        if accepted is not report.state:
            tally.by_service[report.service_id, CONTRADICTING] += 1
            if len(tally.contradictions) < EXAMPLES:
                found = Contradiction(
                    report.service_id,
                    report.operation_id,
                    report.device_id,
                    incoming.key[1],
                    accepted.name,
                    report.state.name,
                )
                tally.contradictions.append(found)
        elif incoming.key in self.known.discarded:
            tally.by_service[report.service_id, OF_DISCARDED] += 1
        self.decisions.count_duplicate(report.service_id)

    def _resolve(self, message: Message, outcome: str, device_operation: UUID | None = None) -> None:
        """Note the end of a stored dead letter, and answer a sender who waits."""
        if message.is_awaited:
            self._answer(outcome, device_operation)
        id_ = message.dead_letter_id
        if id_ is None or (outcome == DUPLICATE and isinstance(self.decisions.outcomes.get(id_), str)):
            return  # republished twice, it is its own duplicate
        self._note(id_, Action.REPLAYED, outcome)

    def _answer(self, outcome: Outcome, device_operation: UUID | None = None) -> None:
        tracked = self.known.registered.get(device_operation) if device_operation else None
        self.decisions.answers.append(Answer(outcome, tracked.state if tracked else None))

    def _note(self, id_: int, action: Action, outcome: Outcome) -> None:
        self.decisions.outcomes[id_] = outcome
        self.decisions.history.append((id_, action, outcome))


@lru_cache(maxsize=1_024)
def _timeout_id(at: int) -> str:
    """The id of the report of a timeout: a function of its moment, and with its key of the device operation."""
    return str(uuid5(NAMESPACE, f"timeout {at}"))


def _detached(item: Item) -> Item:
    """The item of a message that is no stored dead letter."""
    return replace(item, message=replace(item.message, dead_letter_id=None, part_of=None))


def _age(letter: DeadLetter) -> float:
    """Ids follow arrival; new dead letters, without one, are younger than all stored ones."""
    return letter.message.dead_letter_id or float("inf")
