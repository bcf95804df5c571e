"""Certificates of an authority that a test makes up, as the PEM files that servers and settings want."""

from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import trustme


class Certificate(NamedTuple):
    """A certificate and its key."""

    cert: Path
    key: Path


class Authority:
    """A certificate authority that keeps its files in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self._directory = directory
        self._authority = trustme.CA()
        self._issued = 0
        self.file = directory / "ca.pem"
        self._authority.cert_pem.write_to_path(self.file)

    def issue(self, name: str, not_after: datetime | None = None) -> Certificate:
        """A certificate for a host, an address or a client."""
        issued = self._authority.issue_cert(name, not_after=not_after)
        self._issued += 1
        made = Certificate(*(self._directory / f"{self._issued}.{end}" for end in ("pem", "key")))
        issued.cert_chain_pems[0].write_to_path(made.cert)
        issued.private_key_pem.write_to_path(made.key)
        return made
