"""Shared by the endpoints that report a state: idempotency key, origin, responses to rejections."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Annotated, NoReturn

from fastapi import Header

from worker.api.auth import ANONYMOUS
from worker.api.responses import ApiError, StateConflict
from worker.config.api_tokens import Caller
from worker.model.dead_letter import DeadLetter
from worker.model.identity import MAX_ID
from worker.model.messages import Origin

IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=MAX_ID,
        description="Id of the report: a second request with the same key has no effect. Without a key, requests "
        "with the same body are the same report.",
    ),
]


def origin(caller: Caller) -> Callable[[], Origin]:
    """Origin of a caller's message; without tokens its `user_id` is not set, so it counts as unverified."""
    properties = {} if caller is ANONYMOUS else {"user_id": caller.name}
    return lambda: Origin(is_http=True, properties=properties)


def refuse(letter: DeadLetter, conflict: StateConflict | None = None) -> NoReturn:
    """Raise the ApiError for a rejected report."""
    status = letter.reason.traits.http_status
    message = "the device operation is not registered" if status is HTTPStatus.NOT_FOUND else letter.detail
    raise ApiError(status, message, conflict, {"X-Verdict": letter.reason})
