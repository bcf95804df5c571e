"""Dead letters: the same as on the command line."""

from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Body, Path, Request
from pydantic import BaseModel, StrictBool, StringConstraints

from worker.api import pagination
from worker.api.auth import needs
from worker.api.context import CalledBy, Shared
from worker.api.filters import LARGEST_ID, DeadLetterSelection, Selected
from worker.api.responses import TAKES_BODY, Content, Refusal, errors
from worker.api.routing import Route
from worker.config.api_tokens import Scope
from worker.dead_letters import discard
from worker.dead_letters.replay import foretell, outcome_documents, replay
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
    dependencies=[needs(Scope.ADMIN_DEAD_LETTERS)],
)

DeadLetterId = Annotated[int, Path(ge=1, le=LARGEST_ID, description="The dead letter's id.")]


class DeadLetterPage(documents.Page[documents.DeadLetter]):
    """A page of dead letters."""


class ReplayRequest(DeadLetterSelection):
    """Which open dead letters are to be processed again, or with `dry_run`, what would come of that."""

    dry_run: StrictBool = False


_VISIBLE = r"[^\s\x1c-\x1f\x85\ufeff]"
"""What is not blank; the last three are blank to some readers of patterns, and not to others."""


class DiscardRequest(DeadLetterSelection):
    """Which open dead letters nobody needs, and why."""

    because: Annotated[str, StringConstraints(min_length=1, max_length=MAX_REASON, pattern=_VISIBLE)]


class Foretold(BaseModel):
    """What would become of a dead letter: a verdict or the like, or why it is still dead."""

    id: int
    outcome: str
    detail: str


class Replayed(BaseModel):
    """What became of the selected dead letters; `dead_letters` tells it of each, for a dry run."""

    selected: int
    applied: int
    late: int
    repeated: int
    duplicate: int
    released: int
    still_dead: dict[str, int]
    dead_letters: list[Foretold] | None = None


class Discarded(BaseModel):
    """How many dead letters were discarded."""

    discarded: int


class DeadLetterPageContent(Content[DeadLetterPage]):
    """A page of dead letters."""


class DeadLetterContent(Content[documents.DeadLetterDetails]):
    """Everything about a dead letter."""


class ReplayedContent(Content[Replayed]):
    """What became of the selected dead letters."""


class DiscardedContent(Content[Discarded]):
    """How many were discarded."""


@router.get("/", responses=errors())
async def list_dead_letters(
    shared: Shared,
    request: Request,
    selection: Selected,
    limit: pagination.Limit = LIMIT,
    offset: pagination.Offset = 0,
) -> DeadLetterPageContent:
    """Dead letters, the oldest first; the open ones unless told otherwise."""
    async with shared.database.read() as connection:
        count = await letters.count(connection, selection)
        found = await letters.find(connection, selection, limit, offset)
    page = PageResult(count, found, *neighbours(limit, offset, count))
    return DeadLetterPageContent(content=pagination.document(DeadLetterPage, page, request))


@router.get("/{dead_letter_id:id}/", responses=errors(HTTPStatus.NOT_FOUND))
async def get_dead_letter(dead_letter_id: DeadLetterId, shared: Shared) -> DeadLetterContent:
    """Everything about one dead letter: why, every attempt, its bytes, what would be allowed now."""
    async with shared.database.read() as connection:
        found = await letters.get(connection, dead_letter_id)
    if found is None:
        raise Refusal(HTTPStatus.NOT_FOUND, f"dead letter {dead_letter_id} is unknown")
    return DeadLetterContent(content=found)


@router.post("/replay/", responses=errors(HTTPStatus.NOT_FOUND, *TAKES_BODY))
async def replay_dead_letters(
    replaying: Annotated[ReplayRequest, Body()], shared: Shared, caller: CalledBy
) -> ReplayedContent:
    """Process open dead letters again, the oldest first, and mark them in the same transaction."""
    selection = await _known(shared, replaying)
    if replaying.dry_run:
        summary, outcomes = await foretell(shared.database, selection, trust=shared.trust, limit=replaying.limit)
        told: list[dict[str, Any]] | None = outcome_documents(outcomes)
    else:
        summary = await replay(
            shared.writing, selection, actor=caller.name, trust=shared.trust, limit=replaying.limit
        )
        told = None
    return ReplayedContent(content=Replayed.model_validate({**summary.document(), "dead_letters": told}))


@router.post("/discard/", responses=errors(HTTPStatus.NOT_FOUND, *TAKES_BODY))
async def discard_dead_letters(
    discarding: Annotated[DiscardRequest, Body()], shared: Shared, caller: CalledBy
) -> DiscardedContent:
    """Discard open dead letters, with a reason; they stay readable, and the command line can restore them."""
    selection = await _known(shared, discarding)
    discarded = await discard.discard(
        shared.writing, selection, clean(discarding.because), actor=caller.name, limit=discarding.limit
    )
    return DiscardedContent(content=Discarded(discarded=discarded))


async def _known(shared: Shared, selecting: DeadLetterSelection) -> Selection:
    """What is selected. Raises Refusal if that is nothing, or has ids that are unknown."""
    selection = selecting.selection()
    if selection.ids is not None:
        async with shared.database.read() as connection:
            known = set(await letters.ids_of(connection, Selection(selection.ids, status=None)))
        if unknown := [id_ for id_ in selection.ids if id_ not in known]:
            raise Refusal(HTTPStatus.NOT_FOUND, f"dead letter {unknown[0]} is unknown")
    return selection
