"""The Dockerfile: by hadolint, and by what it has to agree with."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.containers.files import CONTAINER, TOOLS, TOP, commands, dockerfile, project, settings
from tests.support.services.machine import free_port

HEALTHCHECK = CONTAINER / "healthcheck.py"


def values(instruction: str) -> list[str]:
    return [step["value"] for step in dockerfile().structure if step["instruction"] == instruction]


def test_hadolint_has_nothing_to_say() -> None:
    done = subprocess.run(
        [TOOLS / "hadolint", CONTAINER / "Dockerfile"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_both_stages_begin_with_the_same_slim_python_pinned_to_its_patch() -> None:
    base, *others = dockerfile().parent_images
    assert re.fullmatch(r"python:\d+\.\d+\.\d+-slim-[a-z]+", base)
    assert others == [base]


def test_the_labels_say_what_the_project_says() -> None:
    labels = {name.rpartition(".")[2]: value for name, value in dockerfile().labels.items()}
    described = project()
    assert labels == {
        "title": described["name"],
        "description": described["description"],
        "version": described["version"],
        "licenses": described["license"],
        "revision": "unknown",
    }


def test_it_runs_as_a_numbered_user_without_a_shell_that_would_keep_signals_to_itself() -> None:
    [user], [entrypoint], [command] = values("USER"), values("ENTRYPOINT"), values("CMD")
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    assert json.loads(entrypoint) == ["deviceops"]
    [word] = json.loads(command)
    assert word in commands()


def test_it_sets_no_setting_that_an_operator_may_want_to_keep_in_a_file() -> None:
    ours = {name for name in dockerfile().envs if name.startswith("DEVICEOPS_")}
    assert ours == {"DEVICEOPS_PROBE_HOST", "DEVICEOPS_HTTP_HOST"}
    assert ours <= settings()


def test_nothing_but_what_is_copied_is_sent_to_the_builder() -> None:
    first, *lines = [
        line for line in (TOP / ".dockerignore").read_text().splitlines() if not line.startswith(("#", "**"))
    ]
    copied = {source for value in values("COPY") if "--from" not in value for source in words(value)[:-1]}
    assert first == "*"
    assert {line.removeprefix("!") for line in lines} == copied
    assert all((TOP / source).exists() for source in copied)


def words(value: str) -> list[str]:
    return [word for word in value.split() if not word.startswith("--")]


@contextmanager
def answering(status: int) -> Iterator[int]:
    """A port on which every path but /livez is forbidden, and that has this status."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/livez" else 403)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def check(*arguments: str, **variables: str) -> int:
    """The exit code of the health check, in the way in which the image calls it."""
    proxies = {"http_proxy": "http://127.0.0.1:1", "HTTP_PROXY": "http://127.0.0.1:1"}
    command: list[str | Path] = [sys.executable, "-IS", HEALTHCHECK, *arguments]
    return subprocess.run(command, env={**proxies, **variables}, capture_output=True, check=False).returncode


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1)])
def test_the_health_check_passes_on_what_the_probe_says_past_any_proxy(status: int, code: int) -> None:
    with answering(status) as port:
        assert check(DEVICEOPS_PROBE_PORT=str(port)) == code
        assert check(str(port)) == code


def test_the_health_check_fails_where_nobody_answers() -> None:
    assert check(str(free_port())) == 1
