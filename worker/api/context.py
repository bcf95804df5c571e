"""What the calls share."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from worker.api.subscriptions import Changes
from worker.config.api_tokens import Caller
from worker.config.reporters import Trust
from worker.store.database import Database


@dataclass(frozen=True, slots=True)
class Context:
    """The database, who may report (None for anybody), and what has changed.

    Who writes has connections of their own: however long writers wait for one another, readers do not.
    """

    database: Database
    writing: Database
    trust: Trust | None
    changes: Changes


def _context(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


def _caller(request: Request) -> Caller:
    caller: Caller = request.user
    return caller


Shared = Annotated[Context, Depends(_context)]
CalledBy = Annotated[Caller, Depends(_caller)]
