"""The option that names a message type."""

import typer

from worker.model.parsing import TYPES

CHOICES = "|".join(TYPES)


def message_type(text: str) -> str:
    """Parse the name of a message type. Raises BadParameter."""
    if text not in TYPES:
        raise typer.BadParameter(f"{text!r} is not one of {', '.join(map(repr, TYPES))}.")
    return text
