"""Dependencies shared by the endpoints."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request

from worker.api.feed import Feed
from worker.config.api_tokens import Caller
from worker.config.reporters import Reporters
from worker.model.outcomes import Tally
from worker.store.database import Database

MAX_EXPORTS = 2
"""Exports at a time: each holds a connection of the pool, and other calls have the rest."""


@dataclass(frozen=True, slots=True)
class Context:
    """Databases, reporters that may report (None: any), the feed of changes, and metrics.

    `writing` is the same database with a pool of its own: writers that wait for locks do not block readers.
    """

    database: Database
    writing: Database
    reporters: Reporters | None
    feed: Feed
    note: Callable[[Tally], object]
    """Counts what came of a call."""
    exports: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_EXPORTS))
    """Held by each export that is sent."""


def _context(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


def _caller(request: Request) -> Caller:
    caller: Caller = request.user
    return caller


Shared = Annotated[Context, Depends(_context)]
CalledBy = Annotated[Caller, Depends(_caller)]
