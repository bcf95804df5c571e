"""Causes: the reasons of many devices become few groups, and masking is done once for all."""

import random
import time
from collections.abc import Callable
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statemachine import State
from worker.model.causes import GROUPED, MAX_LENGTH, cause, masked

REASONS = (
    "no answer from {address} in {number} s",
    "connection to {address} refused after {number} attempts",
    "disk {path} is full: {number}% of {number} GB",
    "cannot open '{word} {number}': permission denied",
    "checksum 0x{hex} of the image differs from 0x{hex}",
    "package {word}-{number}.{number}.{number} not found at https://{word}.example/{path}?id={uuid}",
    "device {uuid} is not in inventory",
    "step {number} of {number} failed with exit code {number}",
    "lock held by {word}@{word}.example since {time}",
    "certificate of {address} expired at {time}",
    "battery at {number}%, at least {number}% needed",
    'unexpected value "{word}" of key "{word}"',
    "serial SN-{serial} does not match",
    "firmware {hex} rejected by bootloader",
    "fan {number} stopped, {number} rpm",
    "no route to [2001:db8::{hex4}]:443",
    "rolled back at {time}: health check {uuid} failed",
    "interface eth{number} is down (mac {mac})",
    "timeout of {number}ms exceeded in job {number}",
    "temperature -{number}.{number} C out of range",
)


def filled(template: str, draw: random.Random) -> str:
    def hexadecimal(length: int) -> str:
        return (
            "".join(draw.choice("0123456789abcdef") for _ in range(length - 2)) + draw.choice("0123456789") + "a"
        )

    parts: dict[str, Callable[[], str]] = {
        "address": lambda: ".".join(str(draw.randrange(256)) for _ in range(4)) + f":{draw.randrange(1, 65536)}",
        "number": lambda: str(draw.randrange(10 ** draw.randrange(1, 7))),
        "path": lambda: "/" + "/".join(f"{draw.choice(['var', 'dev', 'opt'])}{draw.randrange(99)}" for _ in "12"),
        "word": lambda: "".join(draw.choices("abcdefghij", k=draw.randrange(3, 9))),
        "hex": lambda: hexadecimal(16),
        "hex4": lambda: f"{draw.randrange(65536):x}",
        "uuid": lambda: str(UUID(int=draw.getrandbits(128))),
        "time": lambda: (
            f"2026-{draw.randrange(1, 13):02}-{draw.randrange(1, 29):02}T{draw.randrange(24):02}:11:12Z"
        ),
        "serial": lambda: f"{draw.randrange(1, 9)}F{draw.randrange(10, 99)}K{draw.randrange(10, 99)}",
        "mac": lambda: ":".join(f"{draw.randrange(256):02x}" for _ in range(6)),
    }
    for name, make in parts.items():
        while f"{{{name}}}" in template:
            template = template.replace(f"{{{name}}}", make(), 1)
    return template


def test_reasons_with_20_causes_become_at_most_25_groups(full: bool) -> None:
    draw = random.Random(22)  # noqa: S311
    templates = [each.replace("{word}-", "tool-").replace("{word}.example", "host.example") for each in REASONS]
    groups = {masked(filled(draw.choice(templates), draw)) for _ in range(100_000 if full else 10_000)}
    assert len(REASONS) <= len(groups) <= 25, sorted(groups)


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("no answer from 10.1.2.3:8080 in 30 s", "no answer from <address> in <number> s"),
        ("can't do what you don't want", "can't do what you don't want"),
        ("and/or 10 KB/s, java.lang.NullPointerException", "and/or <number> KB/s, java.lang.NullPointerException"),
        ("GET https://x.example/z?a=1 gave 503", "GET <address> gave <number>"),
        ("C:\\Users\\x and /dev/sda1 and ./y", "<path> and <path> and <path>"),
        ("took 12:34:56 on 2026-11-30", "took <time> on <time>"),
        ("commit a3f9c2d1e4 of 0xbeef", "commit <hex> of <hex>"),
        ("  two\n\nlines ", "two lines"),
        ("", ""),
    ],
)
def test_what_differs_between_devices_is_masked(reason: str, expected: str) -> None:
    assert masked(reason) == expected


@given(st.text(st.sampled_from("ab 09.:/-'\"`<>@[]\\\n(%é٣") | st.characters(codec="utf-8"), max_size=60))
def test_masking_what_is_masked_changes_nothing(reason: str) -> None:
    once = masked(reason)
    assert masked(once) == once
    assert len(once) <= MAX_LENGTH


def test_a_long_reason_is_masked_in_bounded_time_and_length() -> None:
    for unit in ("1", "a1", "'", "a:", "0:", "/a", "a@", "-1", "1.", "[::", "é", "<number>"):
        once = masked(unit * 4_096)
        assert len(once) <= MAX_LENGTH
        assert masked(once) == once


@pytest.mark.parametrize("unit", ["_", "1f_", "a1", "x", "ab-", "+", "\u201c", "[1:", "é.", "0-1f__"])
def test_masking_a_reason_that_almost_matches_everywhere_takes_little_more_than_any_other(unit: str) -> None:
    def took(reason: str) -> float:
        began = time.process_time()
        masked.__wrapped__(reason)
        return time.process_time() - began

    usual, hostile = ("no answer from 10.1.2.3 in 30 s; " * 200)[:4_096], ("1" + unit * 4_096)[:4_096]
    assert min(took(hostile) for _ in range(5)) < 25 * min(took(usual) for _ in range(5))


def test_a_code_is_its_own_cause_and_others_have_one_if_they_did_not_succeed() -> None:
    for state in State:
        assert cause(state, "disk_full", "no room") == "disk_full"
        assert (cause(state, None, "no room") is not None) == (state in GROUPED)
    assert cause(State.FAILURE, None, "exit 1") == cause(State.TIMEOUT, None, "exit 23")
    assert cause(State.FAILURE, None, "exit 1") != cause(State.FAILURE, None, "exit of 1")
