"""The decisions of one batch, in memory: what is known of each device operation, and what the batch changes.

No SQL here and no waiting: the processor fills a ledger from the database, lets it take every item in
order, and writes what it then holds.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from statemachine import Counters, State, Verdict, contribution, decide, shows_dispatch
from worker.contract import Announcement, shown
from worker.dead_letters import DeadLetter
from worker.messages import Announced, Incoming, Item, Key, Unreadable, device_operation_id
from worker.outcomes import Reason, Status, Tally


@dataclass(slots=True)
class DeviceOperation:
    """A registered device operation in the hands of a batch."""

    operation_id: UUID
    state: State = State.CREATED
    dispatched: bool = False
    stored: tuple[State, bool] = (State.CREATED, False)
    """State and flag as the database has them."""
    is_new: bool = True
    """Whether this batch registers it: then no counter knows it yet."""
    reason: str | None = None
    """The reason to write; None leaves it as it is."""

    @property
    def is_changed(self) -> bool:
        """Whether its row differs from what the database has."""
        return (self.state, self.dispatched) != self.stored or self.reason is not None


@dataclass(slots=True)
class Ledger:
    """What a batch knows (the first five fields) and what it decided (the rest)."""

    operation_types: dict[UUID, str | None]
    """Of every operation that exists."""
    new_announcements: set[Key]
    """Those of this batch's announcements with an id that did not come before."""
    held: dict[UUID, DeviceOperation]
    """The registered device operations, by id."""
    seen: set[Key]
    """The reports of this batch that came before."""
    waiting: defaultdict[UUID, list[DeadLetter]]
    """The parked reports, by device operation."""

    tally: Tally = field(default_factory=Tally)
    activity: list[tuple[UUID, str, State, str, datetime, str, str]] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    """New ones, and stored ones that a registration released."""
    unreadable: set[UUID] = field(default_factory=set)
    """Fingerprints of the unreadable messages."""
    announced: defaultdict[UUID, list[Announcement]] = field(default_factory=lambda: defaultdict(list))
    named: set[UUID] = field(default_factory=set)
    """Operations whose type became known in this batch."""

    def take(self, item: Item) -> None:
        """Decide one item."""
        if isinstance(item, Incoming):
            self._take_report(item)
        elif isinstance(item, Announced):
            self._take_announcement(item)
        else:
            self._take_unreadable(item)

    def deltas(self) -> Mapping[UUID, Counters]:
        """What the batch adds to operations' counters; an operation without a change is left out."""
        moves = Counter(
            (held.operation_id, None if held.is_new else held.stored, (held.state, held.dispatched))
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

    def _take_report(self, incoming: Incoming) -> None:
        self.tally.received += 1
        if incoming.key in self.seen:
            self.tally.duplicate += 1
            return
        self.seen.add(incoming.key)
        rejection = self._judge(incoming)
        if rejection is None:
            return
        letter = DeadLetter(*rejection, incoming.message, incoming)
        self.dead_letters.append(letter)
        if letter.reason is Reason.UNKNOWN_DEVICE_OPERATION:
            self.waiting[incoming.key[0]].append(letter)

    def _judge(self, incoming: Incoming) -> tuple[Reason, str] | None:
        """Apply a report that was not seen before, or say why it is rejected."""
        report = incoming.report
        id_, report_id = incoming.key
        held = self.held.get(id_)
        if held is None and report.state is not State.CREATED:
            return self._count_rejection(
                Reason.UNKNOWN_DEVICE_OPERATION,
                f"{report.state.name} of a device operation that is not registered; it waits for the registration",
            )
        known_type = self.operation_types.get(report.operation_id)
        if report.operation_type and known_type and report.operation_type != known_type:
            return self._count_rejection(
                Reason.OPERATION_TYPE_MISMATCH,
                f"the report says {shown(report.operation_type)}, the operation is {shown(known_type)}",
            )
        verdict = Verdict.APPLIED if held is None else decide(held.state, report.state)
        if held is not None and verdict is Verdict.CONFLICT:
            return self._count_rejection(
                Reason.CONFLICT, f"{report.state.name} after {held.state.name} contradicts it"
            )
        if report.operation_type and not known_type:
            self.operation_types[report.operation_id] = report.operation_type
            self.named.add(report.operation_id)
        self.tally.verdicts[verdict] += 1
        self.activity.append(
            (id_, report_id, report.state, verdict, incoming.at, report.service_id, report.reason or "")
        )
        if held is None:
            self._register(id_, report.operation_id, report.reason)
        else:
            if verdict is Verdict.APPLIED:
                held.state, held.reason = report.state, report.reason or ""
            held.dispatched = held.dispatched or shows_dispatch(verdict, report.state)
        return None

    def _count_rejection(self, reason: Reason, detail: str) -> tuple[Reason, str]:
        self.tally.dead_lettered[reason] += 1
        return reason, detail

    def _register(self, id_: UUID, operation_id: UUID, reason: str | None) -> None:
        """Register a device operation, and take up the reports that waited for it."""
        self.held[id_] = DeviceOperation(operation_id, reason=reason or None)
        for letter in self.waiting.pop(id_, ()):
            assert letter.report is not None
            self.tally.released += 1
            rejection = self._judge(letter.report)
            if rejection is None:
                letter.status = Status.RESOLVED
            else:
                letter.reason, letter.detail = rejection
            if letter.message.dead_letter_id is not None:
                self.dead_letters.append(letter)

    def _take_announcement(self, announced: Announced) -> None:
        self.tally.received += 1
        self.tally.announced += 1
        if announced.key is not None:
            if announced.key not in self.new_announcements:
                return  # delivered again: it must not undo what was announced since
            self.new_announcements.discard(announced.key)
        announcement = announced.announcement
        self.operation_types[announcement.id] = announcement.operation_type
        self.announced[announcement.id].append(announcement)
        for device_id in dict.fromkeys(announcement.device_ids or ()):
            id_ = device_operation_id(announcement.id, device_id)
            if id_ not in self.held:
                service = str(announcement.created_by or "")
                self.activity.append(
                    (id_, announced.report_id, State.CREATED, Verdict.APPLIED, announced.at, service, "")
                )
                self._register(id_, announcement.id, None)

    def _take_unreadable(self, unreadable: Unreadable) -> None:
        self.tally.received += 1
        letter = DeadLetter(Reason.MALFORMED, unreadable.detail, unreadable.message, None)
        if letter.fingerprint in self.unreadable:
            self.tally.duplicate += 1
            return
        self.unreadable.add(letter.fingerprint)
        self.tally.dead_lettered[Reason.MALFORMED] += 1
        self.dead_letters.append(letter)

    def count_as_duplicates(self, kept: Collection[UUID]) -> None:
        """Correct the tally for new dead letters that the database did not keep, having them already.

        Only unreadable messages come here: a readable report that came before is in `seen`.
        """
        for letter in self.dead_letters:
            if letter.message.dead_letter_id is None and letter.fingerprint not in kept:
                self.tally.dead_lettered[letter.reason] -= 1
                self.tally.duplicate += 1
