"""TLS contexts from PEM files, and the classification of TLS errors."""

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from worker.errors import SettingsError

MAX_FILE = 1_000_000
"""Bytes; a system's list of certificate authorities has a quarter of that."""

_REASONS = {
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "it requires a client certificate",
    "WRONG_VERSION_NUMBER": "the server does not speak TLS",
}
"""Common reasons of OpenSSL, in words."""

_TRANSIENT = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)
"""The connection was closed during the handshake."""


@dataclass(frozen=True, slots=True)
class Files:
    """PEM files, the values of the variables PREFIX_CA_FILE, PREFIX_CERT_FILE and PREFIX_KEY_FILE."""

    prefix: str
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    @property
    def first(self) -> str | None:
        """The variable of the first file that is set, None if none is."""
        given = (("CA", self.ca), ("CERT", self.cert), ("KEY", self.key))
        return next((f"{self.prefix}_{name}_FILE" for name, path in given if path is not None), None)

    def context(self, *, verified: bool = True, host_checked: bool = True) -> ssl.SSLContext:
        """A client's context; without a CA file, with the system's certificate authorities.

        Raises SettingsError, which names the variable of the invalid file.
        """
        self._check_pair()
        context = ssl.create_default_context(cadata=self._authorities())
        context.check_hostname = verified and host_checked
        if not verified:
            context.verify_mode = ssl.CERT_NONE
        if self.cert is not None and self.key is not None:
            self._load_certificate(context, self.cert, self.key)
        return context

    def _check_pair(self) -> None:
        if (self.cert is None) != (self.key is None):
            missing = "KEY" if self.key is None else "CERT"
            raise SettingsError(f"{self.prefix}_{missing}_FILE: is required with {self._other(missing)}")

    def _other(self, missing: str) -> str:
        return f"{self.prefix}_{'CERT' if missing == 'KEY' else 'KEY'}_FILE"

    def _authorities(self) -> str | None:
        return None if self.ca is None else _certificates(f"{self.prefix}_CA_FILE", self.ca)

    def _load_certificate(self, context: ssl.SSLContext, cert: Path, key: Path) -> None:
        variable = f"{self.prefix}_KEY_FILE"
        _certificates(f"{self.prefix}_CERT_FILE", cert)
        _read(variable, key)

        def no_passphrase() -> NoReturn:
            raise SettingsError(f"{variable}: {key} is encrypted, expected a key without a passphrase")

        try:
            context.load_cert_chain(cert, key, no_passphrase)
        except ssl.SSLError as error:
            fits = error.reason != "KEY_VALUES_MISMATCH"
            wrong = "holds no private key in PEM format" if fits else f"does not fit the certificate in {cert}"
            raise SettingsError(f"{variable}: {key} {wrong}") from None


def _certificates(variable: str, path: Path) -> str:
    """The certificates of a file, which may contain other text too."""
    text = _read(variable, path).decode("ascii", errors="ignore")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=text)
    except (ssl.SSLError, ValueError):
        raise SettingsError(f"{variable}: {path} holds no certificate in PEM format") from None
    return text


def _read(variable: str, path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
    except (OSError, ValueError) as error:
        raise SettingsError(f"{variable}: {path} cannot be read: {getattr(error, 'strerror', error)}") from None
    if len(data) > MAX_FILE:
        raise SettingsError(f"{variable}: {path} has more than {MAX_FILE:,} bytes")
    return data


def find_error(error: BaseException | None) -> ssl.SSLError | None:
    """The TLS error that caused an error, None without one: clients wrap them."""
    while error is not None and not isinstance(error, ssl.SSLError):
        error = error.__cause__
    return error


def is_refusal(error: ssl.SSLError) -> bool:
    """Whether the handshake was refused, which is permanent, unlike a lost connection."""
    return not isinstance(error, _TRANSIENT)


def describe_error(error: ssl.SSLError) -> str:
    """A TLS error in one line."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate cannot be trusted: {error.verify_message}"
    reason = error.reason or str(error)
    return _REASONS.get(reason) or f"TLS fails: {reason.lower().replace('_', ' ')}"
