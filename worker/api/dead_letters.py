"""Endpoints of dead letters: list, show, replay, discard."""

from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Body, Path, Request
from pydantic import BaseModel, StrictBool, StringConstraints

from worker.api import pagination
from worker.api.auth import requires
from worker.api.context import CalledBy, Shared
from worker.api.filters import LARGEST_ID, DeadLetterSelection, Selected
from worker.api.responses import TAKES_BODY, ApiError, Content, errors
from worker.api.routing import Route
from worker.config.api_tokens import Scope
from worker.dead_letters import discard
from worker.dead_letters.replay import outcome_documents, preview, replay
from worker.model.contract import MAX_REASON
from worker.model.text import clean
from worker.store import dead_letters as letters
from worker.store import documents
from worker.store.pagination import LIMIT, PageResult, neighbours
from worker.store.selection import Selection

router = APIRouter(
    route_class=Route,
    prefix="/v0/dead-letters",
    tags=["dead letters"],
    dependencies=[requires(Scope.ADMIN_DEAD_LETTERS)],
)

DeadLetterId = Annotated[int, Path(ge=1, le=LARGEST_ID, description="Id of the dead letter.")]


class DeadLetterPage(documents.Page[documents.DeadLetterSummary]):
    """A page of dead letters."""


class ReplayRequest(DeadLetterSelection):
    """Open dead letters to process again; with `dry_run`, nothing is changed and the outcomes are returned."""

    dry_run: StrictBool = False


_VISIBLE = r"[^\s\x1c-\x1f\x85\ufeff]"
"""A character that is not blank; regular expression engines disagree on the last three."""


class DiscardRequest(DeadLetterSelection):
    """Open dead letters to discard, and the reason."""

    because: Annotated[str, StringConstraints(min_length=1, max_length=MAX_REASON, pattern=_VISIBLE)]


class PreviewedOutcome(BaseModel):
    """Outcome for one dead letter: a verdict, `duplicate`, `announced`, or the reason of the rejection."""

    id: int
    outcome: str
    detail: str


class ReplayResult(BaseModel):
    """Counts by outcome; for a dry run `dead_letters` has the outcome of each."""

    selected: int
    applied: int
    late: int
    repeated: int
    duplicate: int
    released: int
    still_dead: dict[str, int]
    dead_letters: list[PreviewedOutcome] | None = None


class DiscardResult(BaseModel):
    """Number of discarded dead letters."""

    discarded: int


class DeadLetterPageContent(Content[DeadLetterPage]):
    """A page of dead letters."""


class DeadLetterContent(Content[documents.DeadLetterDetails]):
    """One dead letter with its history and original message."""


class ReplayResultContent(Content[ReplayResult]):
    """Result of a replay."""


class DiscardResultContent(Content[DiscardResult]):
    """Result of a discard."""


@router.get("/", responses=errors())
async def list_dead_letters(
    shared: Shared,
    request: Request,
    selection: Selected,
    limit: pagination.Limit = LIMIT,
    offset: pagination.Offset = 0,
) -> DeadLetterPageContent:
    """List dead letters, oldest first; by default the open ones."""
    async with shared.database.read() as connection:
        count = await letters.count(connection, selection)
        found = await letters.find(connection, selection, limit, offset)
    page = PageResult(count, found, *neighbours(limit, offset, count))
    return DeadLetterPageContent(content=pagination.document(DeadLetterPage, page, request))


@router.get("/{dead_letter_id:id}/", responses=errors(HTTPStatus.NOT_FOUND))
async def get_dead_letter(dead_letter_id: DeadLetterId, shared: Shared) -> DeadLetterContent:
    """One dead letter: the reason, its history, the original message, and the states that are allowed now."""
    async with shared.database.read() as connection:
        found = await letters.get(connection, dead_letter_id)
    if found is None:
        raise ApiError(HTTPStatus.NOT_FOUND, f"dead letter {dead_letter_id} is unknown")
    return DeadLetterContent(content=found)


@router.post("/replay/", responses=errors(HTTPStatus.NOT_FOUND, *TAKES_BODY))
async def replay_dead_letters(
    replaying: Annotated[ReplayRequest, Body()], shared: Shared, caller: CalledBy
) -> ReplayResultContent:
    """Process open dead letters again, oldest first; their status changes in the same transaction."""
    selection = await _known(shared, replaying)
    if replaying.dry_run:
        summary, outcomes = await preview(
            shared.database, selection, reporters=shared.reporters, limit=replaying.limit
        )
        previewed: list[dict[str, Any]] | None = outcome_documents(outcomes)
    else:
        summary = await replay(
            shared.writing, selection, actor=caller.name, reporters=shared.reporters, limit=replaying.limit
        )
        shared.note(summary.tally)
        previewed = None
    return ReplayResultContent(
        content=ReplayResult.model_validate({**summary.document(), "dead_letters": previewed})
    )


@router.post("/discard/", responses=errors(HTTPStatus.NOT_FOUND, *TAKES_BODY))
async def discard_dead_letters(
    discarding: Annotated[DiscardRequest, Body()], shared: Shared, caller: CalledBy
) -> DiscardResultContent:
    """Discard open dead letters, with a reason. `deviceops dead-letters restore` reopens them."""
    selection = await _known(shared, discarding)
    discarded = await discard.discard(
        shared.writing, selection, clean(discarding.because), actor=caller.name, limit=discarding.limit
    )
    return DiscardResultContent(content=DiscardResult(discarded=discarded))


async def _known(shared: Shared, selecting: DeadLetterSelection) -> Selection:
    """The selection of a body. Raises ApiError (404) on unknown ids."""
    selection = selecting.selection()
    if selection.ids is not None:
        async with shared.database.read() as connection:
            known = set(await letters.ids_of(connection, Selection(selection.ids, status=None)))
        if unknown := [id_ for id_ in selection.ids if id_ not in known]:
            raise ApiError(HTTPStatus.NOT_FOUND, f"dead letter {unknown[0]} is unknown")
    return selection
