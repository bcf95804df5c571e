"""A name that looks like a setting and is none ends every command: the setting that was meant has its default."""

import re
from pathlib import Path

import pytest

from worker.config import secret_files
from worker.config.settings import Settings
from worker.errors import SettingsError

SERVICE_LINKS = {
    "DEVICEOPS_SERVICE_HOST": "10.0.0.7",
    "DEVICEOPS_SERVICE_PORT": "8080",
    "DEVICEOPS_SERVICE_PORT_HTTP": "8080",
    "DEVICEOPS_PORT": "tcp://10.0.0.7:8080",
    "DEVICEOPS_PORT_8080_TCP": "tcp://10.0.0.7:8080",
    "DEVICEOPS_PORT_8080_TCP_PROTO": "tcp",
    "DEVICEOPS_PORT_8080_TCP_PORT": "8080",
    "DEVICEOPS_PORT_8080_TCP_ADDR": "10.0.0.7",
    "DEVICEOPS_API_SERVICE_HOST": "10.0.0.8",
    "DEVICEOPS_API_PORT": "tcp://10.0.0.8:80",
    "DEVICEOPS_API_PORT_80_TCP_ADDR": "10.0.0.8",
}
"""What Kubernetes tells the pods of a namespace that has Services named deviceops and deviceops-api."""
OF_OTHERS = {
    "DEVICEOPSX": "1",
    "MY_DEVICEOPS_QQQ": "1",
    "OLD_DEVICEOPS_AMQP_URL": "1",
    "DEVICEOPS2_AMQP_URL": "1",
    "DEVICES_AMQP_URL": "1",
    "DEVICE_OPS_LOG": "1",
    "APP_HTTP_PORT": "1",
    "DEVICE_OPS_HTTP_PORT": "tcp://10.0.0.8:80",
}
"""Names that are near to settings, and need not be meant as such."""


@pytest.fixture(autouse=True)
def places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A working directory with directories for credentials and for a container's secrets."""
    monkeypatch.chdir(tmp_path)
    for directory in ("credentials", "container"):
        (tmp_path / directory).mkdir()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "credentials"))
    monkeypatch.setattr(secret_files, "CONTAINER_SECRETS", tmp_path / "container")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("DEVICEOPS_AMPQ_URL", "DEVICEOPS_AMQP_URL"),
        ("deviceops_batchsize", "DEVICEOPS_BATCH_SIZE"),
        ("DEVICEOPS_AMQP_URL_FIL", "DEVICEOPS_AMQP_URL_FILE"),
        ("DEVICEOPS_HTTP_PROT", "DEVICEOPS_HTTP_PORT"),
        ("DEVICEOPS_PROB_PORT", "DEVICEOPS_PROBE_PORT"),
        ("DEVICEOPS_SERVICE", "DEVICEOPS_SERVICES"),
        ("DEVICE_OPS_DATABASE_URL", "DEVICEOPS_DATABASE_URL"),
        ("DEVCEOPS_AMQP_URL_FILE", "DEVICEOPS_AMQP_URL_FILE"),
        ("DEVICEPOS_DATABASE_URL", "DEVICEOPS_DATABASE_URL"),
        ("DEVICE_OP_HTTP_PROBE_PORT", "DEVICEOPS_HTTP_PROBE_PORT"),
        ("DEVICEOPS_QQQ", None),
        ("DEVICEOPS_", None),
    ],
)
@pytest.mark.parametrize("place", ["environment", "dotenv"])
def test_a_variable_that_is_no_setting_is_named_with_the_nearest_one(
    monkeypatch: pytest.MonkeyPatch, name: str, meant: str | None, place: str
) -> None:
    if place == "environment":
        monkeypatch.setenv(name, "8085")
    else:
        Path(".env").write_text(f"{name}=8085\n")
    hint = f": did you mean {meant}\\?" if meant else ""
    with pytest.raises(SettingsError, match=f"^{name} is not a setting{hint}$"):
        Settings.load()


@pytest.mark.parametrize("place", ["credentials", "container"])
@pytest.mark.parametrize("name", ["deviceops_databse_url", "DEVICEOPS_DATABASE_URL"])
def test_so_is_a_secret_that_no_setting_is_read_from(places: Path, place: str, name: str) -> None:
    path = places / place / name
    path.write_text("postgresql://127.0.0.1/prod\n")
    with pytest.raises(SettingsError, match=f"^{path} is not a setting: did you mean deviceops_database_url"):
        Settings.load()


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("TOPOLOGY_PREFIX", "fleet one", "expected 1 to 200 of the characters A-Z a-z 0-9 . _ -"),
        ("LOG_LEVEL", "loud", "Input should be 'DEBUG', 'INFO', 'WARNING' or 'ERROR'"),
        ("LOG_FORMAT", "xml", "Input should be 'auto', 'json' or 'text'"),
        ("API_TOKENS", '{"me": {"scopes": [], "hash": "me"}}', "expected 64 hexadecimal digits"),
    ],
)
def test_what_is_expected_of_a_value_is_said_in_words(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, expected: str
) -> None:
    monkeypatch.setenv(f"DEVICEOPS_{name}", value)
    with pytest.raises(SettingsError, match=re.escape(expected)):
        Settings.load()


def test_all_that_are_wrong_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEVICEOPS_QQQ", "")
    Path(".env").write_text("DEVICEOPS_ZZZ=1\n")
    with pytest.raises(SettingsError, match=r"^DEVICEOPS_QQQ is not a setting; DEVICEOPS_ZZZ is not a setting$"):
        Settings.load()


def test_what_others_call_by_our_name_is_left_alone(monkeypatch: pytest.MonkeyPatch, places: Path) -> None:
    for name, value in {**SERVICE_LINKS, **OF_OTHERS}.items():
        monkeypatch.setenv(name, value)
    for name in ("amqp_url", "deviceops_amqp_url.bak", "deviceops_amqp_url~", "..data", "rabbitmq_conf"):
        (places / "container" / name).write_text("x")
    ca = places / "container" / "deviceops_ca"
    ca.write_text("x")
    monkeypatch.setenv("DEVICEOPS_SERVICES_FILE", str(ca))
    with pytest.raises(SettingsError, match=r"^DEVICEOPS_SERVICES: Invalid JSON"):  # and of nothing else
        Settings.load()


def test_a_byte_order_mark_hides_no_name_of_the_env_file() -> None:
    Path(".env").write_bytes("\ufeffDEVICEOPS_BATCH_SIZE=7\n".encode())
    assert Settings.load().batch_size == 7
    Path(".env").write_bytes("\ufeffDEVICEOPS_BATCHSIZE=7\n".encode())
    with pytest.raises(SettingsError, match=r"^DEVICEOPS_BATCHSIZE is not a setting"):
        Settings.load()
