"""The decisions of one batch, in memory: what is known of each device operation, and what the batch changes.

No SQL here and no waiting: the processor fills a ledger from the database, lets it take every item in
order, and writes what it then holds.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from statemachine import SETTLED, Counters, State, Verdict, contribution, decide, shows_dispatch
from worker.config.reporters import Trust
from worker.model.contract import Announcement
from worker.model.dead_letter import DeadLetter
from worker.model.messages import Announced, Incoming, Item, Key, Message, device_operation_id, plausible
from worker.model.outcomes import (
    CONTRADICTING,
    DUPLICATE,
    EXAMPLES,
    LEFT_OUT,
    OF_DISCARDED,
    REJECTED,
    Action,
    Contradiction,
    Reason,
    Status,
    Tally,
)
from worker.model.state_times import entry, noted
from worker.model.text import shown

ANNOUNCED = "announced"
TAKEN_APART = "taken apart"
"""Outcomes of a stored dead letter that is done with, beside the verdicts and DUPLICATE."""

# To find a member in its class takes longer than most of what a report takes here.
CREATED, APPLIED, CONFLICT = State.CREATED, Verdict.APPLIED, Verdict.CONFLICT

UNTRUSTED = (Reason.UNKNOWN_SERVICE, Reason.NOT_ALLOWED)
"""Reasons for which a report is kept without its identity."""

Claim = tuple[UUID, UUID, datetime, str]
"""What a device operation has if a batch registers it: operation, device, since when, and what it reached."""

Outcome = str | DeadLetter
"""What became of a stored dead letter: a verdict or a word above if it is done with, else what it now is."""


class Answer(NamedTuple):
    """What became of a message whose sender waits: a verdict or a word above, else why it is rejected."""

    outcome: Outcome
    state: State | None = None
    """Of the device operation that it is about, if that is registered."""


@dataclass(slots=True)
class DeviceOperation:
    """A registered device operation in the hands of a batch."""

    operation_id: UUID
    state: State = CREATED
    dispatched: bool = False
    reached: str = ""
    """The states that reports have named, with the earliest time of each (see `worker.model.state_times`)."""
    stored: tuple[State, bool, str] = (CREATED, False, "")
    """State, flag and what it reached, as the database has them."""
    is_new: bool = True
    """Whether this batch registers it: then no counter knows it yet."""
    reason: str | None = None
    """The reason to write; None leaves it as it is."""

    @property
    def is_changed(self) -> bool:
        """Whether its row differs from what the database has."""
        return self.reason is not None or (self.state, self.dispatched, self.reached) != self.stored


@dataclass(slots=True)
class Ledger:
    """What a batch knows (the fields before `tally`) and what it decided (the rest)."""

    operation_types: dict[UUID, str | None] = field(default_factory=dict)
    """Of every operation that exists."""
    new_announcements: set[Key] = field(default_factory=set)
    """Those of this batch's announcements with an id that did not come before; taking one removes it."""
    begun: set[Key] = field(default_factory=set)
    """The beginnings of those of which some portions are committed."""
    held: dict[UUID, DeviceOperation] = field(default_factory=dict)
    """The registered device operations, by id."""
    seen: dict[Key, State] = field(default_factory=dict)
    """The reports of this batch that were accepted, before or in it, and the states that they named."""
    kept: dict[Key, int] = field(default_factory=dict)
    """The reports of this batch that are kept as a dead letter, and its id; 0 if it is new."""
    discarded: set[Key] = field(default_factory=set)
    """Those of the reports kept as a dead letter that were discarded before."""
    waiting: defaultdict[UUID, list[DeadLetter]] = field(default_factory=lambda: defaultdict(list))
    """The parked reports, by device operation."""
    stored: dict[int, Status] = field(default_factory=dict)
    """Where the stored dead letters stand that this batch processes again."""
    trust: Trust | None = None
    claims: Mapping[UUID, Claim] = field(default_factory=dict)
    """The device operations that this batch may register, as they are inserted."""
    now: int = 0
    """When this batch is recorded, by our clock, in seconds since 1970."""
    takes_up: bool = True
    """Whether a registration takes up what waits for it; if not, that stays parked until it is released."""

    tally: Tally = field(default_factory=Tally)
    activity: list[tuple[UUID, str, State, str, datetime, str, str, int, str | None]] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    """New ones."""
    outcomes: dict[int, Outcome] = field(default_factory=dict)
    """What became of stored ones in the end, by id."""
    history: list[tuple[int, Action, Outcome]] = field(default_factory=list)
    """What was done with stored ones, one after another."""
    fingerprints: set[UUID] = field(default_factory=set)
    """Those of the new dead letters that are no report's."""
    announced: defaultdict[UUID, list[Announcement]] = field(default_factory=lambda: defaultdict(list))
    beginning: set[Key] = field(default_factory=set)
    """The beginnings of announcements that are begun and not done with."""
    ended: set[Key] = field(default_factory=set)
    """Those of announcements that were begun before, and are done with."""
    named: set[UUID] = field(default_factory=set)
    """Operations whose type became known in this batch."""
    answers: list[Answer] = field(default_factory=list)
    """What became of each message whose sender waits."""

    def take(self, item: Item) -> None:
        """Decide one item."""
        message = item.message
        self.tally.received += 1
        if not self._stands(message):
            self._count_duplicate()  # somebody was faster: settled it, or discarded it
            return
        if isinstance(item, Incoming):
            self._take_report(item)
        elif isinstance(item, Announced):
            self._take_announcement(item)
        else:
            self._keep(item.reason, item.detail, message)
        if message.part_of is not None and message.is_last_part:
            self._note(message.part_of, Action.REPLAYED, TAKEN_APART)

    def deltas(self) -> Mapping[UUID, Counters]:
        """What the batch adds to operations' counters; an operation without a change is left out."""
        moves = Counter(
            (held.operation_id, None if held.is_new else held.stored[:2], (held.state, held.dispatched))
            for held in self.held.values()
            if held.is_new or held.is_changed
        )
        deltas: defaultdict[UUID, Counters] = defaultdict(Counters)
        for (operation_id, before, after), times in moves.items():
            delta = deltas[operation_id].plus(contribution(*after), times)
            deltas[operation_id] = delta.plus(contribution(*before), -times) if before else delta
        return {operation_id: delta for operation_id, delta in deltas.items() if any(delta)}

    def moved(self) -> Iterator[tuple[UUID, DeviceOperation]]:
        """The device operations whose rows are to be written."""
        return ((id_, held) for id_, held in self.held.items() if held.is_changed)

    def count_as_duplicates(self, kept: Collection[UUID], discarded: Collection[UUID]) -> None:
        """Correct the tally for new dead letters that the database did not keep, having them already.

        `kept` has the fingerprints of those that it did keep, `discarded` of what it has discarded. Only what
        is no report comes here: a report that came before is in `seen` or `kept`.
        """
        for letter in self.dead_letters:
            if letter.fingerprint not in kept:
                self.tally.dead_lettered[letter.reason] -= 1
                self.tally.by_service["", REJECTED] -= 1
                self.tally.by_service["", OF_DISCARDED] += letter.fingerprint in discarded
                self._count_duplicate()

    def _count_duplicate(self, service_id: str = "") -> None:
        self.tally.duplicate += 1
        self.tally.by_service[service_id, DUPLICATE] += 1

    def _count_contradicting(self, incoming: Incoming, accepted: State) -> None:
        report = incoming.report
        self.tally.by_service[report.service_id, CONTRADICTING] += 1
        if len(self.tally.contradictions) < EXAMPLES:
            found = Contradiction(
                report.service_id,
                report.operation_id,
                report.device_id,
                incoming.key[1],
                accepted.name,
                report.state.name,
            )
            self.tally.contradictions.append(found)

    def _count_rejected(self, reason: Reason, service_id: str = "") -> None:
        self.tally.dead_lettered[reason] += 1
        self.tally.by_service[service_id, REJECTED] += 1

    def _stands(self, message: Message) -> bool:
        """Whether a message is still to be processed; one that is no stored dead letter always is.

        What was sent to the broker cannot be called back: it counts wherever its dead letter stands by now, and
        as a message like any other if that is gone.
        """
        id_ = message.dead_letter_id or message.part_of
        if id_ is None:
            return True
        if message.is_republished and id_ not in self.stored:
            message.dead_letter_id = message.part_of = None
            return True
        return message.is_republished or self.stored.get(id_) is Status.OPEN

    def _take_report(self, incoming: Incoming) -> None:
        message, key = incoming.message, incoming.key
        if key in self.seen or self.kept.get(key, message.dead_letter_id) != message.dead_letter_id:
            if (accepted := self.seen.get(key, incoming.report.state)) is not incoming.report.state:
                self._count_contradicting(incoming, accepted)
            elif key in self.discarded:
                self.tally.by_service[incoming.report.service_id, OF_DISCARDED] += 1
            self._count_duplicate(incoming.report.service_id)
            if incoming.report.state is CREATED:
                self._take_up(key[0])  # whoever had it before may have died on the way
            self._resolve(message, DUPLICATE, key[0])
            return
        judgement = self._judge(incoming)
        if isinstance(judgement, Verdict):
            self._resolve(message, judgement, key[0])
        elif message.is_awaited:
            self._answer(DeadLetter(*judgement, message, incoming), key[0])
        elif judgement[0] in UNTRUSTED:
            self.kept.pop(key, None)
            self._keep(*judgement, message)
        else:
            self._reject(incoming, *judgement)

    def _judge(self, incoming: Incoming) -> Verdict | tuple[Reason, str]:
        """Apply a report that was not seen before, or say why it is rejected."""
        report = incoming.report
        id_ = incoming.key[0]
        held = self.held.get(id_)
        is_known = held is not None or report.state is CREATED
        known_type = self.operation_types.get(report.operation_id)
        if self.trust is not None:
            type_ = known_type or report.operation_type or None
            if objection := self.trust.objection(report, incoming.message, type_, is_known=is_known):
                return objection
        if not is_known:
            return (
                Reason.UNKNOWN_DEVICE_OPERATION,
                f"{report.state.name} of a device operation that is not registered; it waits for the registration",
            )
        if report.operation_type and known_type and report.operation_type != known_type:
            return (
                Reason.OPERATION_TYPE_MISMATCH,
                f"the report says {shown(report.operation_type)}, the operation is {shown(known_type)}",
            )
        if incoming.unless_settled and held is not None and held.state in SETTLED - {report.state}:
            return Reason.CONFLICT, f"the device operation is {held.state.name}, which is settled"
        verdict = APPLIED if held is None else decide(held.state, report.state)
        if held is not None and verdict is CONFLICT:
            return Reason.CONFLICT, f"{report.state.name} after {held.state.name} contradicts it"
        if report.operation_type and not known_type:
            self.operation_types[report.operation_id] = report.operation_type
            self.named.add(report.operation_id)
        self.tally.by_service[report.service_id, verdict] += 1
        if incoming.note is not None:
            self.tally.by_service[report.service_id, LEFT_OUT] += 1
        self._record(
            incoming.key, report.state, verdict, incoming.at, report.service_id, report.reason or "", incoming.note
        )
        if held is None:
            self._register(id_, report.operation_id, report.reason, incoming.at)
        else:
            if verdict is APPLIED:
                held.state, held.reason = report.state, report.reason or ""
                held.reached += entry(report.state, incoming.at)
            else:
                held.reached = noted(held.reached, report.state, incoming.at)
            held.dispatched = held.dispatched or shows_dispatch(verdict, report.state)
        if report.state is CREATED:
            self._take_up(id_)
        return verdict

    def _record(
        self,
        key: Key,
        state: State,
        verdict: Verdict,
        at: datetime,
        service_id: str,
        reason: str,
        note: str | None,
    ) -> None:
        """Enter an accepted report into the history."""
        self.seen[key] = state
        id_, report_id = key
        self.activity.append((id_, report_id, state, verdict, at, service_id, reason, self.now, note))

    def release(self, letter: DeadLetter) -> None:
        """Take up a report that waited for a registration."""
        self.tally.released += 1
        self._note_release(letter, self._release(letter))

    def refuse(self, letter: DeadLetter, detail: str) -> None:
        """Keep a report that waited for a registration, and cannot be stored, for what it is."""
        self.tally.released += 1
        assert letter.report is not None
        self._count_rejected(Reason.MALFORMED, letter.report.report.service_id)
        self._note_release(letter, DeadLetter(Reason.MALFORMED, detail, letter.message, letter.report))

    def _register(self, id_: UUID, operation_id: UUID, reason: str | None, at: datetime) -> None:
        """Register a device operation."""
        _, _, since, claimed = self.claims.get(id_, _NO_CLAIM)
        created = claimed if since is at else entry(CREATED, at)
        stored = CREATED, False, claimed
        self.held[id_] = DeviceOperation(operation_id, CREATED, False, created, stored, reason=reason or None)

    def _take_up(self, id_: UUID) -> None:
        """Take up the reports that waited for a registration, the oldest first."""
        if self.takes_up and id_ in self.held:
            for letter in sorted(self.waiting.pop(id_, ()), key=_age):
                self.release(letter)

    def _note_release(self, letter: DeadLetter, outcome: Outcome) -> None:
        if letter.message.dead_letter_id is not None:
            self._note(letter.message.dead_letter_id, Action.RELEASED, outcome)
        elif isinstance(outcome, DeadLetter):
            letter.reason, letter.detail, letter.report = outcome.reason, outcome.detail, outcome.report
        else:
            letter.status = Status.RESOLVED

    def _release(self, letter: DeadLetter) -> Outcome:
        incoming = letter.report
        assert incoming is not None
        if incoming.key in self.seen:
            self._count_duplicate(incoming.report.service_id)
            return DUPLICATE
        judgement = self._judge(incoming)
        if isinstance(judgement, Verdict):
            return judgement
        reason, detail = judgement
        self._count_rejected(reason, "" if reason in UNTRUSTED else incoming.report.service_id)
        if reason in UNTRUSTED:  # as if it had not been parked: its id is free for who may use it
            self.kept.pop(incoming.key, None)
            return DeadLetter(reason, detail, letter.message, None)
        return DeadLetter(reason, detail, letter.message, incoming)

    def _reject(self, incoming: Incoming, reason: Reason, detail: str) -> None:
        """Keep a report that is readable, with its identity."""
        message, key = incoming.message, incoming.key
        self._count_rejected(reason, incoming.report.service_id)
        letter = DeadLetter(reason, detail, message, incoming)
        self.kept[key] = message.dead_letter_id or 0
        if message.dead_letter_id is None:
            self.dead_letters.append(letter)
        else:
            self._note(message.dead_letter_id, Action.REPLAYED, letter)
        if reason is Reason.UNKNOWN_DEVICE_OPERATION:
            self.waiting[key[0]].append(letter)

    def _take_announcement(self, announced: Announced) -> None:
        message, announcement = announced.message, announced.announcement
        objection = self.trust.objection_to_announcement(announced) if self.trust and announced.begins else None
        if objection is not None:
            self._keep(*objection, message)
            return
        is_looked_up = announced.key is not None and (announced.begins or announced.ends)
        if is_looked_up and announced.key not in self.new_announcements:
            self.tally.announced += 1
            self._resolve(message, DUPLICATE)
            return  # delivered again: it must not undo what was announced since
        beginning = announced.beginning
        if announced.begins and beginning not in self.begun:
            self.operation_types[announcement.id] = announcement.operation_type
            claimed = announcement.created_at
            if claimed is not None and plausible(claimed, message.received_at) is not claimed:
                announcement = announcement.model_copy(update={"created_at": None})
            self.announced[announcement.id].append(announcement)
        for device_id in announced.devices:
            id_ = device_operation_id(announcement.id, device_id)
            if (held := self.held.get(id_)) is not None:
                held.reached = noted(held.reached, CREATED, announced.at)  # as if it had come first
            else:
                service = str(announcement.created_by or "")
                key = id_, announced.report_id
                self._record(key, CREATED, APPLIED, announced.at, service, "", announced.note)
                self._register(id_, announcement.id, None, announced.at)
            self._take_up(id_)
        if not announced.ends:
            self.tally.received -= 1  # it counts once it is done with
            if announced.begins and beginning is not None:
                self.beginning.add(beginning)
            return
        if announced.key is not None and beginning is not None:
            self.new_announcements.discard(announced.key)
            if announced.portion is not None or beginning in self.begun:
                self.ended.add(beginning)
        if announced.note is not None:
            self.tally.by_service["", LEFT_OUT] += 1
        self.tally.announced += 1
        self._resolve(message, ANNOUNCED)

    def _keep(self, reason: Reason, detail: str, message: Message) -> None:
        """Keep a message that is no report's, or that must not take a report's place."""
        letter = DeadLetter(reason, detail, message, None)
        if message.is_awaited:
            self._answer(letter)
            return
        if message.dead_letter_id is not None:
            self._note(message.dead_letter_id, Action.REPLAYED, letter)
        elif letter.fingerprint in self.fingerprints:
            self._count_duplicate()
            return
        else:
            self.fingerprints.add(letter.fingerprint)
            self.dead_letters.append(letter)
        self._count_rejected(reason)

    def _resolve(self, message: Message, outcome: str, device_operation: UUID | None = None) -> None:
        """Note that a message is done with, if it is a stored dead letter, or if its sender waits."""
        if message.is_awaited:
            self._answer(outcome, device_operation)
        id_ = message.dead_letter_id
        if id_ is None or (outcome == DUPLICATE and isinstance(self.outcomes.get(id_), str)):
            return  # sent to the broker twice, it is the duplicate of itself
        self._note(id_, Action.REPLAYED, outcome)

    def _answer(self, outcome: Outcome, device_operation: UUID | None = None) -> None:
        held = self.held.get(device_operation) if device_operation else None
        self.answers.append(Answer(outcome, held.state if held else None))

    def _note(self, id_: int, action: Action, outcome: Outcome) -> None:
        self.outcomes[id_] = outcome
        self.history.append((id_, action, outcome))


_NO_CLAIM = None, None, None, ""


def _age(letter: DeadLetter) -> float:
    """Ids follow arrival; what has none yet is younger than all that have."""
    return letter.message.dead_letter_id or float("inf")
