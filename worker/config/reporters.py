"""Which services may report what, and whether the broker has to verify their names."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict

from statemachine import State
from worker.model.contract import Name, Report, as_state
from worker.model.messages import Announced, Message
from worker.model.outcomes import Reason
from worker.model.text import shown

Denial = tuple[Reason, str]
"""The reason and the detail of the dead letter of a message that is not allowed."""


class Service(BaseModel):
    """What one service may report; an absent field is no restriction."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    operation_types: frozenset[Name] | None = None
    states: frozenset[Annotated[State, BeforeValidator(as_state)]] | None = None


@dataclass(frozen=True, slots=True)
class Reporters:
    """The services that may report, None for any, and whether AMQP's user_id has to be the service's name."""

    services: dict[str, Service] | None = None
    verify_user_id: bool = False

    def check_report(
        self, report: Report, message: Message, operation_type: str | None, *, is_known: bool
    ) -> Denial | None:
        """Why a report is not allowed; None if it is.

        `operation_type` is the operation's or, while that has none, the report's own. `is_known` says whether the
        device operation is registered, or is registered by this report: then a missing type is denied, while a
        parked report is checked again when it is released.
        """
        if self.verify_user_id and (denial := _check_user_id(report.service_id, message)):
            return denial
        return self._check(report.service_id, report.state, operation_type, is_known)

    def check_announcement(self, announced: Announced) -> Denial | None:
        """Why an announcement is not allowed; None if it is. It names no service: the sender is its user_id."""
        origin = announced.message.origin()
        if self.services is None or not self.verify_user_id or not origin.has_senders:
            return None
        if origin.user_id is None:
            return _no_user_id()
        return self._check(origin.user_id, State.CREATED, announced.announcement.operation_type, True)

    def _check(self, service_id: str, state: State, operation_type: str | None, is_known: bool) -> Denial | None:
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


def _check_user_id(service_id: str, message: Message) -> Denial | None:
    origin = message.origin()
    if not origin.has_senders or origin.user_id == service_id:
        return None  # a message from a file: its sender has the database's password anyway
    if origin.user_id is None:
        return _no_user_id()
    sender = "API token" if origin.is_http else "user_id"
    detail = f"the report's service_id is {shown(service_id)}, its {sender} is {shown(origin.user_id)}"
    return Reason.UNKNOWN_SERVICE, detail


def _no_user_id() -> Denial:
    return Reason.UNKNOWN_SERVICE, "the message has no user_id, so its sender is not verified"
