"""Text from outside, made safe for a log line, a terminal and a database."""

from reprlib import Repr

_repr = Repr()
_repr.maxstring = _repr.maxother = 60
_REPLACED_NUL = "\N{REPLACEMENT CHARACTER}"


def shown(value: object) -> str:
    """A value as a short literal for a one-line message: at most some 60 characters, all printable."""
    return _repr.repr(value)


def one_line(text: str) -> str:
    """Text on one line: unprintable characters are escaped, control sequences of terminals included."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def counted(number: int, noun: str) -> str:
    """A number with its noun, which takes an s in the plural."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def clean(text: str) -> str:
    """Text without NUL characters, which PostgreSQL cannot store; each becomes U+FFFD."""
    return text.replace("\0", _REPLACED_NUL) if "\0" in text else text
