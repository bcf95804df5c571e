"""The sources of settings and their precedence: environment, secret files, `.env`."""

import os
from collections.abc import Collection, Mapping
from pathlib import Path

from worker.config import env_file, secret_files
from worker.config.secret_files import variable


def files(fields: Collection[str]) -> list[dict[str, Path]]:
    """The files that contain settings, by field, for each source; the first source has precedence."""
    return [
        secret_files.named_by(os.environ, fields),
        secret_files.credentials(fields),
        secret_files.container_secrets(fields),
        secret_files.named_by(env_file.read(), fields),
    ]


def origins(fields: Collection[str]) -> Mapping[str, Path | str]:
    """The file, or the name of the source, of each field that is set."""
    named, *provided, named_in_env_file = files(fields)
    environment, dotenv = ({name.upper() for name in given} for given in (os.environ, env_file.read()))
    sources: list[Mapping[str, Path | str]] = [
        {name: "the environment" for name in fields if variable(name) in environment},
        named,
        *provided,
        {name: str(env_file.PATH) for name in fields if variable(name) in dotenv},
        named_in_env_file,
    ]
    return {name: origin for source in reversed(sources) for name, origin in source.items()}
