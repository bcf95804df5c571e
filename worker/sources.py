"""Settings that are kept in files: named by DEVICEOPS_…_FILE, systemd's credentials, a container's secrets.

pydantic-settings reads a directory of secrets too, but passes over what it cannot read; a secret that is there and
cannot be used must be an error.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from worker.encodings import BOM, foreign
from worker.errors import SettingsError

PREFIX = "DEVICEOPS_"
SUFFIX = "_FILE"
MAX_FILE = 1_000_000
"""Bytes of a setting that is kept in a file."""
CONTAINER_SECRETS = Path("/run/secrets")
"""Where Docker, Podman and Kubernetes put the secrets of a container."""


def variable(field: str) -> str:
    """The environment's name for a setting."""
    return f"{PREFIX}{field.upper()}"


class FilesSource(PydanticBaseSettingsSource):
    """Settings that are the content of files."""

    def __init__(self, settings: type[BaseSettings], files: Mapping[str, Path]) -> None:
        super().__init__(settings)
        self._files = files

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002
        """The content of the setting's file, None if it has none. Raises SettingsError."""
        path = self._files.get(field_name)
        return None if path is None else content(variable(field_name), path), field_name, False

    def __call__(self) -> dict[str, Any]:
        """Every setting that has a file."""
        found = {name: self.get_field_value(field, name)[0] for name, field in self._fields()}
        return {name: value for name, value in found.items() if value is not None}

    def _fields(self) -> Iterable[tuple[str, FieldInfo]]:
        return self.settings_cls.model_fields.items()


def named_by(variables: Mapping[str, str | None], fields: Iterable[str]) -> dict[str, Path]:
    """The files that variables DEVICEOPS_…_FILE name. Raises SettingsError where a value is given as well."""
    given = {name.upper(): value for name, value in variables.items()}
    found = {}
    for field in fields:
        value, file = variable(field), variable(field) + SUFFIX
        if path := given.get(file):
            if value in given:
                raise SettingsError(f"{value} and {file} are both given: which of them counts?")
            found[field] = Path(path)
    return found


def credentials(fields: Iterable[str]) -> dict[str, Path]:
    """The credentials that systemd hands to a service (LoadCredential=deviceops_amqp_url:…)."""
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    return _in(Path(directory), fields) if directory else {}


def container_secrets(fields: Iterable[str]) -> dict[str, Path]:
    """The secrets that a container is given."""
    return _in(CONTAINER_SECRETS, fields)


def _in(directory: Path, fields: Iterable[str]) -> dict[str, Path]:
    paths = {field: directory / variable(field).lower() for field in fields}
    return {field: path for field, path in paths.items() if os.path.lexists(path)}


def content(name: str, path: Path) -> str:
    """What a file that holds a setting says. Raises SettingsError, which names the setting's variable."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
    except (OSError, ValueError) as error:  # ValueError: no path at all, such as one with a NUL
        raise SettingsError(f"{name}: {path} cannot be read: {getattr(error, 'strerror', error)}") from None
    if len(data) > MAX_FILE:
        raise SettingsError(f"{name}: {path} has more than {MAX_FILE:,} bytes")
    if (found := foreign(data)) is not None:
        raise SettingsError(f"{name}: {path} is {found}, and has to be plain text in UTF-8")
    try:
        return data.removeprefix(BOM).decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise SettingsError(f"{name}: {path} is not UTF-8") from None
