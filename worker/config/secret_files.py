"""Settings from files: named by DEVICEOPS_…_FILE, systemd's credentials, a container's secrets.

pydantic-settings reads a directory of secrets too, but ignores files that it cannot read; an existing secret that
cannot be read must be an error.
"""

import os
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from worker.errors import SettingsError
from worker.model.encodings import BOM, foreign

PREFIX = "DEVICEOPS_"
SUFFIX = "_FILE"
MIN_SIMILARITY = 0.88
"""Minimum similarity of a misspelt prefix: one transposed letter of nine."""
MAX_FILE = 1_000_000
"""Maximum bytes of a setting in a file."""
CONTAINER_SECRETS = Path("/run/secrets")
"""The directory in which Docker, Podman and Kubernetes mount secrets."""

_SERVICE_LINK = re.compile(
    rf"{PREFIX}(\w+_)?(SERVICE_(HOST|PORT(_\w+)?)|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)", re.ASCII
)
"""Variables that Kubernetes sets for a Service whose name starts with deviceops, as Docker's links did."""
_ADDRESS_OF_LINK = re.compile(r"(tcp|udp|sctp)://")
"""Start of the value of their `…_PORT`, whose name alone could be a misspelt setting."""


def variable(field: str) -> str:
    """The environment variable of a setting."""
    return f"{PREFIX}{field.upper()}"


class FilesSource(PydanticBaseSettingsSource):
    """A source of settings: the contents of files."""

    def __init__(self, settings: type[BaseSettings], files: Mapping[str, Path]) -> None:
        super().__init__(settings)
        self._files = files

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002
        """The content of the setting's file, None without one. Raises SettingsError."""
        path = self._files.get(field_name)
        return None if path is None else content(variable(field_name), path), field_name, False

    def __call__(self) -> dict[str, Any]:
        """Every setting that has a file."""
        found = {name: self.get_field_value(field, name)[0] for name, field in self._fields()}
        return {name: value for name, value in found.items() if value is not None}

    def _fields(self) -> Iterable[tuple[str, FieldInfo]]:
        return self.settings_cls.model_fields.items()


def named_by(variables: Mapping[str, str | None], fields: Iterable[str]) -> dict[str, Path]:
    """The files named by DEVICEOPS_…_FILE. Raises SettingsError if the value is set as well."""
    given = {name.upper(): value for name, value in variables.items()}
    found = {}
    for field in fields:
        value, file = variable(field), variable(field) + SUFFIX
        if path := given.get(file):
            if value in given:
                raise SettingsError(f"{value} and {file} are both set: unset one of them")
            found[field] = Path(path)
    return found


def credentials(fields: Iterable[str]) -> dict[str, Path]:
    """The credentials that systemd passes to a service (LoadCredential=deviceops_amqp_url:…)."""
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    return _in(Path(directory), fields) if directory else {}


def container_secrets(fields: Iterable[str]) -> dict[str, Path]:
    """The secrets mounted into a container."""
    return _in(CONTAINER_SECRETS, fields)


def unknown(variables: Mapping[str, str | None], fields: Iterable[str]) -> list[str]:
    """Names that look like a misspelt setting: one line each, with the nearest setting."""
    values = [variable(field) for field in fields]
    names = {*values, *(name + SUFFIX for name in values)}
    ours = (
        (name, _meant(name.upper(), names))
        for name, value in variables.items()
        if not _is_service_link(name, value)
    )
    wrong = [
        _unknown(name, meant, names) for name, meant in ours if meant is not None and name.upper() not in names
    ]
    named = {Path(value) for value in variables.values() if value}
    files = {name.lower() for name in values}
    for directory in (os.environ.get("CREDENTIALS_DIRECTORY"), CONTAINER_SECRETS):
        for path in _secrets(Path(directory)) if directory else ():
            if path.name not in files and path not in named:
                wrong.append(_unknown(str(path), path.name.lower(), files))
    return sorted(wrong)


def _meant(name: str, known: Collection[str]) -> str | None:
    """The name, with the right prefix, that a variable may stand for; None if it is another program's.

    If the prefix is misspelt, the rest has to be the name of a setting.
    """
    if name.startswith(PREFIX):
        return name
    for each in known:
        ending = each[len(PREFIX) - 1 :]
        if name.replace("-", "_").endswith(ending) and _resembles_prefix(name[: -len(ending)]):
            return each
    return None


def _resembles_prefix(text: str) -> bool:
    """Whether a text is the prefix with one letter added, missing or transposed, or with separators."""
    import difflib  # imported late, as in _unknown()

    letters, right = re.sub("[-_.]", "", text), PREFIX[:-1]
    # With a digit it may be another instance's.
    is_close = letters.isalpha() and abs(len(letters) - len(right)) <= 1
    return is_close and difflib.SequenceMatcher(None, letters, right).ratio() >= MIN_SIMILARITY


def _is_service_link(name: str, value: str | None) -> bool:
    """Whether a variable is set by Kubernetes."""
    is_port = name.endswith("_PORT") and _ADDRESS_OF_LINK.match(value or "")
    return bool(is_port or _SERVICE_LINK.fullmatch(name))


def _secrets(directory: Path) -> list[Path]:
    """The files named like settings, without those with an extension, such as an editor's copy."""
    try:
        paths = list(directory.iterdir())
    except OSError:  # most often it does not exist
        return []
    return [path for path in paths if re.fullmatch(rf"{PREFIX}\w+", path.name, re.ASCII | re.IGNORECASE)]


def _unknown(what: str, name: str, known: Iterable[str]) -> str:
    import difflib  # imported late: every command would pay for it

    # Without the common prefix, which would make any two similar.
    endings = {each[len(PREFIX) :]: each for each in known}
    nearest = difflib.get_close_matches(name[len(PREFIX) :], endings, n=1)
    return f"{what} is not a setting" + (f": did you mean {endings[nearest[0]]}?" if nearest else "")


def _in(directory: Path, fields: Iterable[str]) -> dict[str, Path]:
    paths = {field: directory / variable(field).lower() for field in fields}
    return {field: path for field, path in paths.items() if os.path.lexists(path)}


def content(name: str, path: Path) -> str:
    """The content of a setting's file. Raises SettingsError, which names the setting's variable."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
    except (OSError, ValueError) as error:  # ValueError: not a path, such as one with a NUL
        raise SettingsError(f"{name}: {path} cannot be read: {getattr(error, 'strerror', error)}") from None
    if len(data) > MAX_FILE:
        raise SettingsError(f"{name}: {path} has more than {MAX_FILE:,} bytes")
    if (found := foreign(data)) is not None:
        raise SettingsError(f"{name}: {path} is {found}, expected plain text in UTF-8")
    try:
        return data.removeprefix(BOM).decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise SettingsError(f"{name}: {path} is not UTF-8") from None
