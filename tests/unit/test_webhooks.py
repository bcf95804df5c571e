"""Webhooks without a network: settings, signatures, pauses, and which addresses are public."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import standardwebhooks
from pydantic import SecretStr

from tests.support.receiving import SECRET
from worker.config.public_addresses import is_public
from worker.config.settings import Settings
from worker.errors import SettingsError
from worker.webhooks import message, schedule

OTHER = message.new_secret()
SHORT = "whsec_c2hvcnQ="
NOW = datetime(2026, 2, 7, 6, tzinfo=UTC)
ID = UUID("497f6eca-6276-4993-bfeb-53cbbbba6f08")


def valid(**more: Any) -> dict[str, Any]:
    return {"url": "https://example.com/hooks/t0ken?key=k3y", "secret": SECRET, **more}


def load(monkeypatch: pytest.MonkeyPatch, directory: Path, value: object, **others: str) -> Settings:
    monkeypatch.chdir(directory)
    monkeypatch.setenv("DEVICEOPS_WEBHOOKS", value if isinstance(value, str) else json.dumps(value))
    for name, text in others.items():
        monkeypatch.setenv(f"DEVICEOPS_{name.upper()}", text)
    return Settings.load()


def test_receivers_verify_a_message_with_the_secret_and_with_each_of_two() -> None:
    sent = message.of_change(ID, "operation.changed", 1_770_000_000_123, '{"reason":"größer"}')
    headers = dict(message.headers(sent, [SecretStr(SECRET), SecretStr(OTHER)], datetime.now(UTC).timestamp()))
    for secret in (SECRET, OTHER):
        assert standardwebhooks.Webhook(secret).verify(sent.body, headers) == {
            "type": "operation.changed",
            "timestamp": "2026-02-02T02:40:00.123Z",
            "data": {"reason": "größer"},
        }
    assert headers["webhook-id"] == str(ID)
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        standardwebhooks.Webhook(message.new_secret()).verify(sent.body, headers)
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        standardwebhooks.Webhook(SECRET).verify(sent.body + b" ", headers)


def test_ten_attempts_are_made_over_some_75_hours() -> None:
    pauses = [schedule.pause(failures) for failures in range(1, 11)]
    assert pauses[9] is None
    total = timedelta(milliseconds=sum(pause for pause in pauses if pause is not None))
    assert timedelta(hours=75) < total < timedelta(hours=84)
    for failures, seconds in enumerate([5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400], 1):
        drawn = {schedule.pause(failures) for _ in range(50)}
        assert all(pause is not None and seconds <= pause / 1_000 <= 1.1 * seconds for pause in drawn)
        assert len(drawn) > 10


def test_a_webhook_rests_longer_with_each_failure_up_to_a_minute() -> None:
    assert [schedule.rest(failures) for failures in (1, 2, 3, 7, 1_000)] == [1_000, 2_000, 4_000, 60_000, 60_000]
    assert schedule.rest(1, asked=90_000) == 90_000


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, 0),
        ("", 0),
        ("120", 120),
        ("9" * 400, 86_400),
        ("-5", 0),
        ("soon", 0),
        ("Sat, 07 Feb 2026 06:01:00 GMT", 60),
        ("Sat, 07 Feb 2026 05:00:00 GMT", 0),
        ("Sat, 07 Feb 2099 05:00:00 GMT", 86_400),
        ("Sat, 99 Feb 2099 05:00:00 GMT", 0),
    ],
)
def test_a_pause_that_a_receiver_asks_for_is_respected_up_to_a_day(text: str | None, seconds: int) -> None:
    assert schedule.asked_pause(text, NOW) == 1_000 * seconds
    pause = schedule.pause(1, schedule.asked_pause(text, NOW))
    assert pause is not None
    assert max(seconds, 5) * 1_000 <= pause <= max(1_000 * seconds, 5_500)


@pytest.mark.parametrize("text", ["93.184.215.14", "8.8.8.8", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"])
def test_public_addresses_are_public(text: str) -> None:
    assert is_public(text)


@pytest.mark.parametrize("text", ["::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"])
def test_a_public_address_within_ipv6_is_public(text: str) -> None:
    assert is_public(text)


@pytest.mark.parametrize(
    "text",
    [
        *("127.0.0.1", "127.8.8.8", "0.0.0.0", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1"),  # noqa: S104
        *("169.254.169.254", "100.64.0.1", "192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.1"),
        *("224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255", "0.1.2.3"),
        *("::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1", "2001:db8::1"),
        *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a00:1"),
        *("64:ff9b:1::808:808", "2002:7f00:1::", "2002:a00:1::1", "2001:0:1::1", "4000::1", "100::1"),
        *("", "localhost", "127.1", "2130706433", "example.com"),
    ],
)
def test_all_other_addresses_are_not(text: str) -> None:
    assert not is_public(text)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("{", "DEVICEOPS_WEBHOOKS: Invalid JSON"),
        ({"a b": valid()}, "DEVICEOPS_WEBHOOKS a b [key]: a name has 1 to 64 of the characters"),
        ({"ops": {"secret": SECRET}}, "DEVICEOPS_WEBHOOKS ops url: is missing"),
        ({"ops": valid(url="example.com/t0ken")}, "DEVICEOPS_WEBHOOKS ops url: is not a URL such as"),
        ({"ops": valid(url="https://example.com:0/")}, "DEVICEOPS_WEBHOOKS ops url: is not a URL such as"),
        ({"ops": valid(url="https://example.com/a b")}, "DEVICEOPS_WEBHOOKS ops url: is not a URL such as"),
        ('{"ops": {}, "ops": {}}', "DEVICEOPS_WEBHOOKS: duplicate name 'ops'"),
        ({"ops": valid(url="ftp://example.com/")}, "DEVICEOPS_WEBHOOKS ops url: is not a URL such as"),
        ({"ops": valid(url="http://example.com/")}, "DEVICEOPS_WEBHOOKS ops: url: begins with https://"),
        ({"ops": valid(url="https://[::1]/")}, "DEVICEOPS_WEBHOOKS ops: url: the address is not public"),
        ({"ops": valid(url="https://10.0.0.1:8443/")}, "DEVICEOPS_WEBHOOKS ops: url: the address is not public"),
        ({"ops": valid(secret=SHORT)}, "DEVICEOPS_WEBHOOKS ops secret 0: expected whsec_ and base64"),
        ({"ops": valid(secret=SECRET[6:])}, "DEVICEOPS_WEBHOOKS ops secret 0: expected whsec_ and base64"),
        ({"ops": valid(secret=[])}, "DEVICEOPS_WEBHOOKS ops secret: "),
        ({"ops": valid(types=["operation.change"])}, "DEVICEOPS_WEBHOOKS ops types 0: Input should be"),
        ({"ops": valid(types=[])}, "DEVICEOPS_WEBHOOKS ops types: "),
        ({"ops": valid(typos=[])}, "DEVICEOPS_WEBHOOKS ops typos: is not a known field"),
        (
            {"ops": valid(types=["device-operations.changed"])},
            "DEVICEOPS_WEBHOOKS ops types: device-operations.changed is not told",
        ),
    ],
)
def test_a_wrong_setting_names_its_place_and_no_secret(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, value: object, words: str
) -> None:
    with pytest.raises(SettingsError) as raised:
        load(monkeypatch, tmp_path, value)
    assert words in str(raised.value)
    assert raised.value.exit_code == 2
    for secret in (SECRET[6:], "t0ken", "k3y", "c2hvcnQ"):
        assert secret not in str(raised.value)


def test_webhooks_need_changes_that_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="nothing is told with DEVICEOPS_CHANGES=none"):
        load(monkeypatch, tmp_path, {"ops": valid()}, changes="none")


def test_secrets_and_paths_of_urls_are_hidden(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    url = "https://us3r:passw0rd@example.com:8443/hooks/t0ken?key=k3y"
    settings = load(monkeypatch, tmp_path, {"ops": valid(url=url, secret=[SECRET, OTHER]), "b": valid()})
    shown = settings.shown()["DEVICEOPS_WEBHOOKS"]
    assert json.loads(shown)["ops"] == {
        "url": "https://example.com:8443/***",
        "secret": "***",
        "allow_private": False,
    }
    for text in (shown, repr(settings), str(settings.webhooks)):
        for secret in ("us3r", "passw0rd", "t0ken", "k3y", SECRET[6:], OTHER[6:]):
            assert secret not in text


def test_the_setting_may_come_from_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "webhooks.json").write_text(json.dumps({"ops": valid()}) + "\n")
    monkeypatch.setenv("DEVICEOPS_WEBHOOKS_FILE", str(tmp_path / "webhooks.json"))
    assert list(Settings.load().webhooks or {}) == ["ops"]
