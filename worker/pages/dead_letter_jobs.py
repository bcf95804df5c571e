"""Acts on all dead letters of a filter: a dry run, then jobs that replay, discard or restore them in portions."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Form, Query
from fastapi.responses import HTMLResponse, Response
from sqlalchemy.ext.asyncio import AsyncConnection

from worker.api.filters import LARGEST_ID
from worker.dead_letters.discard import discard, restore
from worker.dead_letters.replay import replay
from worker.model.contract import MAX_REASON
from worker.model.outcomes import Status
from worker.model.text import clean, counted
from worker.pages import audit, live
from worker.pages.access import pages_of
from worker.pages.dead_letter import fault_of_reason
from worker.pages.dead_letter_filters import ChosenLetters, in_words, query_of
from worker.pages.dead_letter_outcomes import is_dead, numbers, numbers_of
from worker.pages.dead_letters import COUNTED, PATH, TOPICS, Admin, address, predict
from worker.pages.jobs import MAX_RUNNING, PORTION, Job, JobKind, Work
from worker.pages.page import Page
from worker.pages.routing import PageRoute
from worker.store import dead_letters as letters
from worker.store.selection import Selection

router = APIRouter(route_class=PageRoute, include_in_schema=False)

JOBS = f"{PATH}/jobs"
SHOWN = 200
"""Dead letters of a dry run of which a page has the outcome of each."""
WAIT = 0.5
"""Seconds that the answer waits for a job to end, so that a short one is over on the page that follows."""

_Limit = Annotated[int, Form(ge=1, le=COUNTED)]


@router.get(f"{PATH}/dry-run", response_class=HTMLResponse)
async def show_dry_run(
    page: Admin, chosen: ChosenLetters, after: Annotated[int, Query(ge=0, le=LARGEST_ID)] = 0
) -> HTMLResponse:
    """What a replay of the open ones would do, to each of a portion; and the forms that begin the jobs."""
    selection = chosen.must_be(Status.OPEN)
    async with page.reading() as connection:
        ids = await letters.ids_of(connection, selection, SHOWN + 1, after)
    portion = list(ids[:SHOWN])
    _, found = await predict(page, portion)
    query = query_of(selection)
    more = address(f"{query}{'&' if query else ''}after={portion[-1]}", f"{PATH}/dry-run") if portion else None

    async def make(connection: AsyncConnection) -> Mapping[str, Any]:
        return {
            **await _about(connection, selection),
            "found": found,
            "numbers": numbers_of(found),
            "is_dead": is_dead,
            "more": more if len(ids) > SHOWN else None,
            "is_first": after == 0,
            "portion": PORTION,
        }

    return await page.whole("dead_letters_dry_run.html", make)


async def _about(connection: AsyncConnection, selection: Selection) -> Mapping[str, Any]:
    """What a form says of the dead letters that it acts on."""
    count = await letters.count(connection, selection, COUNTED)
    return {
        "count": count,
        "is_at_most": count == COUNTED,
        "filter_words": in_words(selection),
        "filter_query": query_of(selection),
    }


@router.post(f"{PATH}/dry-run", response_class=HTMLResponse)
async def begin_dry_run(page: Admin, chosen: ChosenLetters, limit: _Limit) -> Response:
    """Begin a dry run of all."""

    async def work(ids: Sequence[int]) -> Counter[str]:
        return numbers_of((await predict(page, ids))[1])

    return await _begin(page, JobKind.DRY_RUN, chosen.must_be(Status.OPEN), limit, work)


@router.post(f"{PATH}/replay", response_class=HTMLResponse)
async def begin_replay(page: Admin, chosen: ChosenLetters, limit: _Limit) -> Response:
    """Begin a replay of all."""
    shared, actor = page.shared, page.caller.name

    async def work(ids: Sequence[int]) -> Counter[str]:
        summary = await replay(shared.writing, Selection(ids), actor=actor, reporters=shared.reporters)
        shared.note(summary.tally)
        return numbers(summary)

    return await _begin(page, JobKind.REPLAY, chosen.must_be(Status.OPEN), limit, work)


@router.get(f"{PATH}/discard", response_class=HTMLResponse)
async def ask_to_discard(page: Admin, chosen: ChosenLetters) -> HTMLResponse:
    """The form with the reason, which names the number."""
    return await _form(page, "dead_letters_discard.html", chosen.must_be(Status.OPEN))


@router.post(f"{PATH}/discard", response_class=HTMLResponse)
async def begin_discard(
    page: Admin, chosen: ChosenLetters, limit: _Limit, because: Annotated[str, Form()] = ""
) -> Response:
    """Begin to discard all, with a reason."""
    selection, shared, actor = chosen.must_be(Status.OPEN), page.shared, page.caller.name
    if fault := fault_of_reason(because):
        return await _form(page, "dead_letters_discard.html", selection, because, fault)
    because = clean(because.strip())

    async def work(ids: Sequence[int]) -> Counter[str]:
        number = await discard(shared.writing, Selection(ids), because, actor=actor)
        return Counter({"discarded": number}) + Counter({"not open any more": len(ids) - number})

    return await _begin(page, JobKind.DISCARD, selection, limit, work, because)


@router.get(f"{PATH}/restore", response_class=HTMLResponse)
async def ask_to_restore(page: Admin, chosen: ChosenLetters) -> HTMLResponse:
    """The form that names the number."""
    return await _form(page, "dead_letters_restore.html", chosen.must_be(Status.DISCARDED))


@router.post(f"{PATH}/restore", response_class=HTMLResponse)
async def begin_restore(page: Admin, chosen: ChosenLetters, limit: _Limit) -> Response:
    """Begin to restore all that are discarded."""
    shared, actor = page.shared, page.caller.name

    async def work(ids: Sequence[int]) -> Counter[str]:
        chosen_ids = Selection(ids, status=Status.DISCARDED)
        number = await restore(shared.writing, chosen_ids, actor=actor, reporters=shared.reporters)
        return Counter({"restored": number}) + Counter({"left alone": len(ids) - number})

    return await _begin(page, JobKind.RESTORE, chosen.must_be(Status.DISCARDED), limit, work)


async def _form(
    page: Page, template: str, selection: Selection, because: str = "", fault: str = ""
) -> HTMLResponse:
    async def make(connection: AsyncConnection) -> Mapping[str, Any]:
        about = await _about(connection, selection)
        return {**about, "because": because, "fault": fault, "longest": MAX_REASON, "portion": PORTION}

    status = HTTPStatus.BAD_REQUEST if fault else HTTPStatus.OK
    return await page.whole(template, make, status=status)


async def _begin(
    page: Page, kind: JobKind, selection: Selection, limit: int, work: Work, because: str = ""
) -> Response:
    """Begin a job on the oldest `limit` of the selected ones, no more than the person has confirmed."""
    jobs, query = pages_of(page.request).jobs, query_of(selection)
    async with page.reading() as connection:
        ids = await letters.ids_of(connection, selection, limit)
    if not ids:
        return await page.go(address(query), "No dead letter matches these filters any more; nothing was done.")
    # From here to `begin` nothing is awaited, so that no other job comes between.
    if running := jobs.running(query):
        message = f"A {running[0].kind} of these dead letters runs already: this is it."
        return await page.go(f"{JOBS}/{running[0].id}", message, is_error=True)
    if jobs.is_full():
        message = f"{counted(MAX_RUNNING, 'job')} run already: wait until one has ended, or stop it."
        return await page.go(address(query), message, is_error=True)
    job = Job(kind, selection, query, page.caller.name, len(ids), because)
    detail = {"job": job.id, "filter": query, "selected": len(ids)} | ({"because": because} if because else {})
    recording = audit.acting(page.shared, page.request, f"dead-letters.{kind.replace(' ', '-')}", query, detail)
    found = page.live
    jobs.begin(job, ids, work, recording, lambda: found.publish(live.DEAD_LETTERS))
    with suppress(TimeoutError):
        await asyncio.wait_for(job.ended.wait(), WAIT)
    return await page.go(f"{JOBS}/{job.id}")


@router.get(f"{JOBS}/{{job_id}}", response_class=HTMLResponse)
async def show_job(page: Admin, job_id: str) -> HTMLResponse:
    """How far a job is."""
    job = pages_of(page.request).jobs.find(job_id)

    async def make(connection: AsyncConnection) -> Mapping[str, Any]:
        return await _job_values(connection, job)

    if job is None:
        return await page.whole("job_unknown.html", make, status=HTTPStatus.NOT_FOUND)
    return await page.whole("job.html", make, topics=TOPICS)


@router.get(f"{JOBS}/{{job_id}}/progress", response_class=HTMLResponse)
async def show_progress(page: Admin, job_id: str) -> HTMLResponse:
    """The same as a part of the page that is open."""
    job = pages_of(page.request).jobs.find(job_id)

    async def make(connection: AsyncConnection) -> Mapping[str, Any]:
        return await _job_values(connection, job)

    return await page.fragment("job_progress.html" if job else "job_lost.html", make, topics=TOPICS)


@router.post(f"{JOBS}/{{job_id}}/stop", response_class=HTMLResponse)
async def stop(page: Admin, job_id: str) -> Response:
    """End a job after the portion that runs."""
    jobs = pages_of(page.request).jobs
    job = jobs.find(job_id)
    if job is None or job.state.is_over:
        return await page.go(f"{JOBS}/{job_id}", "The job had ended already.")
    async with page.shared.writing.write(is_counted=False) as connection:
        await audit.record(connection, page.request, "dead-letters.stop", job.filter, {"job": job_id})
    jobs.stop(job)
    page.live.publish(live.DEAD_LETTERS)
    with suppress(TimeoutError):
        await asyncio.wait_for(job.ended.wait(), WAIT)
    return await page.go(f"{JOBS}/{job_id}")


async def _job_values(connection: AsyncConnection, job: Job | None) -> Mapping[str, Any]:
    if job is None:
        return {"job": None}
    return {
        "job": job,
        "filter_words": in_words(job.selection),
        "left": await letters.count(connection, job.selection, COUNTED),
        "is_dead": is_dead,
        "portion": PORTION,
    }
