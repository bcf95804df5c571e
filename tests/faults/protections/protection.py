"""What a fault test guards, and how to take it out."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Protection:
    """A protection, the test that guards it, and the edits of the source that take it out: (file, old, new)."""

    name: str
    test: str
    edits: tuple[tuple[str, str, str], ...]
    tries: int = 1
    """How often the test tries its fault, where one try may miss the moment."""
