"""The demo's offer, at a terminal, to serve the web page of its roll-out."""

import os
import re
import signal

import httpx
import pytest

from tests.support.command import Deviceops

QUESTION, ADDRESS = r"until Ctrl-C\?", r"http://127\.0\.0\.1:\d+"


def drawn_until(terminal: int, pattern: str, drawn: str = "") -> str:
    """What a terminal shows, once it has the pattern."""
    while not re.search(pattern, drawn):
        chunk = os.read(terminal, 65_536)
        drawn += chunk.decode(errors="replace")
    return drawn


@pytest.mark.parametrize("answer", ["y", "n"])
def test_the_demo_ends_by_offering_to_serve_the_page(deviceops_on_sqlite: Deviceops, answer: str) -> None:
    settings = {"amqp_url": "amqp://guest:guest@127.0.0.1:1/", "http_port": "0", "http_probe_port": "0"}
    ours, theirs = os.openpty()
    command = deviceops_on_sqlite.with_settings(**settings).with_environment(TERM="xterm-256color")
    with command.start("demo", "--devices", "20", stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        shown = drawn_until(ours, QUESTION)
        os.write(ours, f"{answer}\n".encode())
        if answer == "y":
            [operation] = set(re.findall(r" status ([0-9a-f-]{36})", shown))
            [url, *_] = re.findall(ADDRESS, drawn_until(ours, rf"listening.*{ADDRESS}"))
            page = httpx.get(url, trust_env=False)
            assert page.status_code == httpx.codes.OK
            assert f'href="/operations/{operation}"' in page.text
            process.send_signal(signal.SIGINT)
            drawn_until(ours, "stop")
        assert process.wait(timeout=30) == 0
    os.close(ours)
