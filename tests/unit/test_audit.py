"""The audit of the packages: what fails, and what is said when nothing could be looked up."""

import subprocess

import pytest

from tests.support import audit

SOUND = {"name": "sound", "version": "1", "vulns": []}
BROKEN = {"name": "broken", "version": "2", "vulns": [{"id": "PYSEC-1", "fix_versions": ["3"]}]}
UNKNOWN = {"name": "unknown", "skip_reason": "not found"}


def test_a_known_vulnerability_fails_and_is_named() -> None:
    code, lines = audit.judged({"dependencies": [SOUND, BROKEN]})
    assert code == 1
    assert lines == ["broken 2: PYSEC-1, fixed in 3", "2 packages audited, 1 known vulnerabilities"]


def test_what_could_not_be_looked_up_is_not_taken_for_sound() -> None:
    code, lines = audit.judged({"dependencies": [SOUND, UNKNOWN]})
    assert code == 0
    assert lines[-1] == "NOT AUDITED: 1 packages, such as: not found"


def test_a_service_that_is_away_is_said_and_fails_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    away = subprocess.CompletedProcess([], 1, stdout="", stderr="Traceback\nConnectionError: no way\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: away)
    assert audit.main() == 0
    assert capsys.readouterr().out == "NOT AUDITED: any package: ConnectionError: no way\n"
