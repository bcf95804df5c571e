"""The file `.env` in the working directory."""

from collections.abc import Mapping
from pathlib import Path

from dotenv import dotenv_values
from dotenv.parser import parse_stream

from worker.errors import SettingsError
from worker.model.encodings import foreign

PATH = Path(".env")
ENCODING = "utf-8-sig"  # skips a byte order mark


def read() -> Mapping[str, str | None]:
    """Its variables; empty without the file."""
    return dotenv_values(PATH, encoding=ENCODING) if PATH.exists() else {}


def check() -> None:
    """Raise SettingsError if the file cannot be read completely: python-dotenv only logs an invalid line."""
    if not PATH.exists():
        return
    try:
        if (found := foreign(PATH.read_bytes())) is not None:
            raise SettingsError(f"{PATH}: is {found}, expected plain text in UTF-8")
        with PATH.open(encoding=ENCODING) as stream:
            invalid = next((binding for binding in parse_stream(stream) if binding.error), None)
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{PATH}: cannot be read: {error}") from None
    if invalid is not None:
        raise SettingsError(f"{PATH}, line {invalid.original.line}: is not NAME=value")
