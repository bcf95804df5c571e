"""TLS settings that make no sense are one line that names the variable."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from tests.support.certificates import Trust
from worker.config.settings import Settings
from worker.errors import SettingsError

ADDRESS = "127.0.0.1"


@pytest.fixture(scope="module")
def trust(tmp_path_factory: pytest.TempPathFactory) -> Trust:
    return Trust.of(ADDRESS, tmp_path_factory.mktemp("trust"))


SENSELESS = {
    "an authority without TLS": ({"amqp_ca_file": "CA"}, "AMQP_CA_FILE: is for amqps://"),
    "no file": ({"amqp_url": "amqps://h/", "amqp_ca_file": "none"}, "AMQP_CA_FILE: none cannot be read"),
    "a directory": ({"amqp_url": "amqps://h/", "amqp_ca_file": "."}, "AMQP_CA_FILE: . cannot be read"),
    "no certificate": ({"amqp_url": "amqps://h/", "amqp_ca_file": "KEY"}, "AMQP_CA_FILE: .* holds no certificate"),
    "endless": ({"amqp_url": "amqps://h/", "amqp_ca_file": "/dev/zero"}, "AMQP_CA_FILE: .* more than 1,000,000"),
    "no key": ({"amqp_url": "amqps://h/", "amqp_cert_file": "CERT"}, "AMQP_KEY_FILE: is required with .*_CERT_"),
    "only a key": ({"amqp_url": "amqps://h/", "amqp_key_file": "KEY"}, "AMQP_CERT_FILE: is required with .*_KEY_"),
    "another's key": (
        {"amqp_url": "amqps://h/", "amqp_cert_file": "CERT", "amqp_key_file": "OTHER"},
        "AMQP_KEY_FILE: .* does not fit the certificate",
    ),
    "a certificate as key": (
        {"amqp_url": "amqps://h/", "amqp_cert_file": "CERT", "amqp_key_file": "CERT"},
        "AMQP_KEY_FILE: .* holds no private key",
    ),
    "a key with a passphrase": (
        {"amqp_url": "amqps://h/", "amqp_cert_file": "CERT", "amqp_key_file": "LOCKED"},
        "AMQP_KEY_FILE: .* is encrypted",
    ),
    "a parameter that turns verification off": (
        {"amqp_url": "amqps://h/?no_verify_ssl=1"},
        "AMQP_URL: has a parameter that is not supported: no_verify_ssl",
    ),
    "TLS to a file": ({"database_ca_file": "CA"}, "DATABASE_CA_FILE: is for PostgreSQL"),
    "an authority that nobody asks": (
        {"database_url": "postgresql://h/x?sslmode=prefer", "database_ca_file": "CA"},
        "DATABASE_CA_FILE: is for TLS, .* sslmode=prefer",
    ),
    "no authority": (
        {"database_url": "postgresql://h/x", "database_cert_file": "CERT", "database_key_file": "KEY"},
        "DATABASE_CA_FILE: is required to verify the server",
    ),
    "no mode": ({"database_url": "postgresql://h/x?sslmode=on"}, "DATABASE_URL: sslmode is one of disable, "),
}


@pytest.mark.parametrize("case", SENSELESS)
def test_settings_that_make_no_sense_are_one_line_that_names_the_variable(
    trust: Trust, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, case: str
) -> None:
    monkeypatch.chdir(tmp_path)
    locked = tmp_path / "locked"
    locked.write_bytes(encrypted(trust.client.key.read_bytes()))
    paths = {"CA": trust.authority.file, "LOCKED": locked, "OTHER": trust.server.key}
    paths |= {"CERT": trust.client.cert, "KEY": trust.client.key}
    given, expected = SENSELESS[case]
    for name, value in given.items():
        monkeypatch.setenv(f"DEVICEOPS_{name.upper()}", str(paths.get(value, value)))

    with pytest.raises(SettingsError, match=f"^DEVICEOPS_{expected}") as raised:
        Settings.load()

    assert len(str(raised.value).splitlines()) == 1


def encrypted(key: bytes) -> bytes:
    """A key in PEM with a passphrase."""
    return serialization.load_pem_private_key(key, None).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"passphrase"),
    )
