"""Arguments and options that several commands have, and what they look up."""

from collections.abc import Sequence
from difflib import get_close_matches
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
    """A state by its name or its code. Raises BadParameter, which names the states and the nearest one."""
    found = SPELLINGS.get(int(text) if text.isdecimal() else text.upper())
    if found is None:
        names = [state.name for state in State]
        nearest = get_close_matches(text.upper(), names, 1)
        hint = f" Did you mean {nearest[0]}?" if nearest else ""
        raise typer.BadParameter(f"{text!r} is not a state: {', '.join(names)}, or a code such as 50.{hint}")
    return found
