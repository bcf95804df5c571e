"""Names, one a line, the Debian packages without which the tests cannot have their services and tools here."""

import logging
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.support.services import PrivatePostgreSQL, PrivateRabbitMQ, ServiceError

TOOLS: dict[str, str] = {
    "chromedriver": "chromium-driver",
    "chromium": "chromium",
    "curl": "curl",
    "ip": "iproute2",
    "mmdebstrap": "mmdebstrap",
    "npm": "npm",
    "nsenter": "util-linux",
    "pg_dump": "postgresql-client",
    "pg_restore": "postgresql-client",
    "pgbouncer": "pgbouncer",
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "podman": "podman",
    "psql": "postgresql-client",
    "rabbitmqadmin": "rabbitmq-server",
    "runc": "runc",
    "sqlite3": "sqlite3",
    "systemd-analyze": "systemd",
    "systemd-nspawn": "systemd-container",
}
"""The Debian package of each program that tests call."""

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
"""What Debian 13 is known by."""
FONT = Path("/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf")
"""What pages are drawn with: Chromium's package brings no font."""


def missing() -> Iterator[str]:
    """The packages of what is not there."""
    for private in (PrivateRabbitMQ, PrivatePostgreSQL):
        if private.find_url() is None:
            try:
                private.find_program()
            except ServiceError:
                yield private.package
    for program, package in TOOLS.items():
        if shutil.which(program) is None:
            yield package
    if not KEYRING.exists():
        yield "debian-archive-keyring"
    if not FONT.exists():
        yield "fonts-dejavu-core"


if __name__ == "__main__":
    logging.disable()  # that a server is away is an answer here, and no error
    sys.stdout.writelines(f"{package}\n" for package in dict.fromkeys(missing()))
