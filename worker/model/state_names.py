"""The error text for a value that is not a device-operation state."""

from statemachine import SPELLINGS, State
from worker.model.text import shown

_LONGEST = 30
"""Characters of a text that is compared with the names of the states."""


def unknown_state(value: object) -> str:
    """Name the value and the states, and suggest the state that was probably meant.

    For example `'SUCESS' is not a device-operation state (CREATED, INITIATED, …): did you mean SUCCESS?`.
    """
    return f"{shown(value)} is not a device-operation state ({', '.join(State.__members__)}){_suggestion(value)}"


def _suggestion(value: object) -> str:
    from difflib import get_close_matches  # here: few processes need it, and every command would pay for it

    if not isinstance(value, str) or len(value) > _LONGEST:
        return ""
    names = [name for name in map(str, SPELLINGS) if name.isupper()]
    nearest = get_close_matches(value.strip().upper(), names, n=1)
    return f": did you mean {SPELLINGS[nearest[0]].name}?" if nearest else ""
