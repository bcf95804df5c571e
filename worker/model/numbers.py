"""Numbers as senders write them: JSON has one kind, so that 5.0 is the integer 5."""

from pydantic import BeforeValidator


def integral(value: object) -> object:
    """An integer that is written as a float; anything else as it is."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Integral = BeforeValidator(integral)
