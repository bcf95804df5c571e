"""Arguments and options that several commands have, and what they look up."""

import math
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Annotated
from uuid import UUID

import typer
from sqlalchemy import ColumnElement, select
from sqlalchemy.ext.asyncio import AsyncConnection

from statemachine import SPELLINGS, State
from worker.errors import DeviceopsError
from worker.model.id_range import IdRange, id_range
from worker.store import documents
from worker.store.tables import operations


def finite(number: float | None) -> float | None:
    """Refuse what is in no range and below no limit. For the callback of an option."""
    if number is not None and not math.isfinite(number):
        raise typer.BadParameter(f"{number} is not a finite number")
    return number


def uuid(text: str) -> IdRange:
    """A UUID, or the beginning of one. Raises BadParameter."""
    try:
        return id_range(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


async def one_id(connection: AsyncConnection, column: ColumnElement[UUID], wanted: IdRange, what: str) -> UUID:
    """The only id with a prefix; a whole id unchanged. Raises DeviceopsError if there is none, or several."""
    if wanted.first == wanted.last:
        return wanted.first
    query = select(column).where(column.between(wanted.first, wanted.last)).distinct().order_by(column).limit(3)
    found = list((await connection.execute(query)).scalars())
    if not found:
        raise DeviceopsError(f"no {what} has an id that begins with {wanted.text}")
    if len(found) > 1:
        raise DeviceopsError(
            f"more than one {what} has an id that begins with {wanted.text}: {found[0]}, {found[1]}"
        )
    return found[0]


async def one_operation(connection: AsyncConnection, wanted: IdRange) -> UUID:
    """The id of the only operation with a prefix. Raises DeviceopsError."""
    return await one_id(connection, operations.c.id, wanted, "operation")


OperationId = Annotated[
    IdRange, typer.Argument(parser=uuid, metavar="OPERATION_ID", help="The operation's id, or how it begins.")
]
Seed = Annotated[int, typer.Option(help="The same seed gives the same fleet.")]


def known(
    found: tuple[documents.Operation, documents.Progress] | None,
    operation_id: UUID,
    parked: Sequence[documents.Parked] = (),
) -> tuple[documents.Operation, documents.Progress]:
    """An operation that was found. Raises DeviceopsError if there is none."""
    if found is None:
        waiting = f"; reports that wait for its registration: {parked[0].count:,}" if parked else ""
        raise DeviceopsError(f"operation {operation_id} is unknown{waiting}")
    return found


def state(text: str) -> State:
    """A state by its name or its code. Raises BadParameter, which names the states and the nearest one."""
    found = SPELLINGS.get(int(text) if text.isdecimal() else text.upper())
    if found is None:
        names = [state.name for state in State]
        nearest = get_close_matches(text.upper(), names, 1)
        hint = f" Did you mean {nearest[0]}?" if nearest else ""
        raise typer.BadParameter(f"{text!r} is not a state: {', '.join(names)}, or a code such as 50.{hint}")
    return found
