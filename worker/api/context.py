"""Dependencies shared by the endpoints."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from worker.api.subscriptions import Subscriptions
from worker.config.api_tokens import Caller
from worker.config.reporters import Reporters
from worker.store.database import Database


@dataclass(frozen=True, slots=True)
class Context:
    """Databases, reporters that may report (None: any), and subscriptions to changes.

    `writing` is the same database with a pool of its own: writers that wait for locks do not block readers.
    """

    database: Database
    writing: Database
    reporters: Reporters | None
    subscriptions: Subscriptions


def _context(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


def _caller(request: Request) -> Caller:
    caller: Caller = request.user
    return caller


Shared = Annotated[Context, Depends(_context)]
CalledBy = Annotated[Caller, Depends(_caller)]
