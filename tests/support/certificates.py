"""Certificates of an authority that a test makes up, as the PEM files that servers and settings want."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
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


@dataclass(frozen=True)
class Trust:
    """Two authorities, and what the one that counts has issued."""

    authority: Authority
    stranger: Authority
    server: Certificate
    client: Certificate
    strangers_client: Certificate
    expired: Certificate

    @classmethod
    def of(cls, address: str, directory: Path) -> "Trust":
        """Issue certificates for the server at an address, and for clients."""
        authority, stranger = Authority(directory / "ours"), Authority(directory / "theirs")
        yesterday = datetime.now(UTC) - timedelta(days=1)
        return cls(
            authority,
            stranger,
            authority.issue(address),
            authority.issue("worker.example"),
            stranger.issue("worker.example"),
            authority.issue(address, not_after=yesterday),
        )
