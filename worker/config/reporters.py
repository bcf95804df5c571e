"""Who may report what: services by name, and the broker's word for who they are."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict

from statemachine import State
from worker.model.contract import Name, Report, as_state
from worker.model.messages import Announced, Message
from worker.model.outcomes import Reason
from worker.model.text import shown

Objection = tuple[Reason, str]
"""Why a message is not trusted: the reason for its dead letter, and the detail."""


class Service(BaseModel):
    """What one service may report; what is left out is not restricted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    operation_types: frozenset[Name] | None = None
    states: frozenset[Annotated[State, BeforeValidator(as_state)]] | None = None


@dataclass(frozen=True, slots=True)
class Trust:
    """The services that may report, None for any, and whether the broker has to vouch for their names."""

    services: dict[str, Service] | None = None
    verify_user_id: bool = False

    def objection(
        self, report: Report, message: Message, operation_type: str | None, *, is_known: bool
    ) -> Objection | None:
        """What stands against a report, if anything does.

        `operation_type` is the operation's or, before that has any, the report's own. `is_known` says whether the
        device operation is registered, or becomes so by this report: then a missing type is held against it,
        while a report that is parked is asked again when it is taken up.
        """
        if self.verify_user_id and (objection := _not_vouched_for(report.service_id, message)):
            return objection
        return self._objection(report.service_id, report.state, operation_type, is_known)

    def objection_to_announcement(self, announced: Announced) -> Objection | None:
        """What stands against an announcement. It names no service: only the broker can say who sent it."""
        origin = announced.message.origin()
        if self.services is None or not self.verify_user_id or not origin.has_senders:
            return None
        if origin.user_id is None:
            return _nobody_vouches()
        return self._objection(origin.user_id, State.CREATED, announced.announcement.operation_type, True)

    def _objection(
        self, service_id: str, state: State, operation_type: str | None, is_known: bool
    ) -> Objection | None:
        if self.services is None:
            return None
        service = self.services.get(service_id)
        if service is None:
            return Reason.UNKNOWN_SERVICE, f"{shown(service_id)} is not among the services that may report"
        if service.states is not None and state not in service.states:
            return Reason.NOT_ALLOWED, f"{shown(service_id)} may not report {state.name}"
        types = service.operation_types
        if types is None or operation_type in types:
            return None
        if operation_type is not None:
            return Reason.NOT_ALLOWED, f"{shown(service_id)} may not report on a {shown(operation_type)} operation"
        if is_known:
            return Reason.NOT_ALLOWED, f"{shown(service_id)} may not report on an operation of no known type"
        return None


def _not_vouched_for(service_id: str, message: Message) -> Objection | None:
    origin = message.origin()
    if not origin.has_senders or origin.user_id == service_id:
        return None  # what was read from a file was fed by who has the database's password anyway
    if origin.user_id is None:
        return _nobody_vouches()
    who = "token with which it came" if origin.is_http else "broker's user who sent it"
    detail = f"the report says {shown(service_id)}, the {who} is {shown(origin.user_id)}"
    return Reason.UNKNOWN_SERVICE, detail


def _nobody_vouches() -> Objection:
    return Reason.UNKNOWN_SERVICE, "the message has no user_id, so the broker does not vouch for its sender"
