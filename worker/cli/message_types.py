"""The option that names a message type."""

from collections.abc import Sequence

import typer

from worker.model.parsing import TYPES

CHOICES = "|".join(TYPES)


def message_type(text: str, others: Sequence[str] = ()) -> str:
    """Parse the name of a message type, or of another one that the option takes. Raises BadParameter."""
    if text not in (choices := [*TYPES, *others]):
        raise typer.BadParameter(f"{text!r} is not one of {', '.join(f'{each!r}' for each in choices)}.")
    return text
