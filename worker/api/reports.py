"""What the calls share that report something: where it comes from, and what is refused."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Annotated, NoReturn

from fastapi import Header

from worker.api.auth import ANYBODY
from worker.api.responses import Refusal, Standing
from worker.config.api_tokens import Caller
from worker.model.dead_letter import DeadLetter
from worker.model.identity import MAX_ID
from worker.model.messages import Origin

IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=MAX_ID,
        description="The report's id: sent again with the same key, it has no effect. Without one, the same body "
        "counts as the same report.",
    ),
]


def origin(caller: Caller) -> Callable[[], Origin]:
    """Where a message of a caller comes from; where there are no tokens, nobody vouches for its sender."""
    properties = {} if caller is ANYBODY else {"user_id": caller.name}
    return lambda: Origin(is_http=True, properties=properties)


def refuse(letter: DeadLetter, standing: Standing | None = None) -> NoReturn:
    """Answer what was rejected."""
    status = letter.reason.traits.http_status
    message = "the device operation is not registered" if status is HTTPStatus.NOT_FOUND else letter.detail
    raise Refusal(status, message, standing, {"X-Verdict": letter.reason})
