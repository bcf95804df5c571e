"""Arguments and options that several commands have, and what they look up."""

from collections.abc import Sequence
from typing import Annotated
from uuid import UUID

import typer

from statemachine import SPELLINGS, State
from worker.errors import DeviceopsError
from worker.store import documents

OperationId = Annotated[UUID, typer.Argument(help="The operation's id.")]
Seed = Annotated[int, typer.Option(help="The same seed gives the same fleet.")]


def known(
    found: tuple[documents.Operation, documents.Progress] | None,
    operation_id: UUID,
    parked: Sequence[documents.Parked] = (),
) -> tuple[documents.Operation, documents.Progress]:
    """What was found of an operation. Raises DeviceopsError if that is nothing."""
    if found is None:
        waiting = f"; reports that wait for its registration: {parked[0].count:,}" if parked else ""
        raise DeviceopsError(f"operation {operation_id} is unknown{waiting}")
    return found


def state(text: str) -> State:
    """A state by its name or its code. Raises BadParameter."""
    found = SPELLINGS.get(int(text) if text.isdecimal() else text)
    if found is None:
        raise typer.BadParameter(f"{text!r} is not a state: use a name such as SUCCESS, or a code such as 50")
    return found
