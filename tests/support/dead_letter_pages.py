"""How tests read the pages of dead letters, and act on them as a person does."""

import re
import time
from html import unescape
from http import HTTPStatus

import httpx

from tests.support.paging import Visitor, text_of
from tests.support.rejecting import rows

PAGE = "/dead-letters"
MOMENT = 30
"""Seconds that a job of a test may take."""

_LINK = re.compile(r'<a id="([a-z]+)-\d+" href="([^"]*)">(.*?)</a>(.*?)</(?:li|tr)>', re.DOTALL)
_NUMBER = re.compile(r'<data class="number" value="(\d+)"')


def statuses(url: str) -> dict[str, int]:
    """Numbers of dead letters by status, from the database."""
    return dict(rows(url, "SELECT status, count(*) FROM dead_letters GROUP BY status"))


def opened(url: str, column: str) -> dict[object, int]:
    """Numbers of open dead letters by a column, from the database."""
    return dict(rows(url, f"SELECT {column}, count(*) FROM dead_letters WHERE status = 'open' GROUP BY {column}"))  # noqa: S608  # ours


def page(visitor: Visitor, address: str = PAGE, status: int = HTTPStatus.OK) -> httpx.Response:
    response = visitor.get(address, headers={"Accept": "text/html"})
    assert response.status_code == status, response.text
    return response


def groups(response: httpx.Response, kind: str) -> dict[str, tuple[int, str]]:
    """The groups of a summary: their numbers and addresses by name."""
    found = {}
    for name, address, shown, rest in _LINK.findall(response.text):
        if name == kind:
            number = _NUMBER.search(rest)
            assert number is not None
            text = unescape(re.sub(r"<[^>]*>", "", shown)).strip()
            found[text] = int(number[1]), unescape(address)
    return found


def count_of(response: httpx.Response) -> int:
    """How many dead letters the list says it has."""
    found = re.search(r'<p class="count"><data class="number" value="(\d+)"', response.text)
    assert found is not None, response.text
    return int(found[1])


def ids_of(response: httpx.Response) -> list[int]:
    """Ids of the rows of a list."""
    return [int(id_) for id_ in re.findall(r'<a id="letter-(\d+)"', response.text)]


def follow(visitor: Visitor, response: httpx.Response) -> httpx.Response:
    """The page that an act leads to."""
    assert response.status_code == HTTPStatus.SEE_OTHER, response.text
    return page(visitor, response.headers["location"])


def submit(visitor: Visitor, response: httpx.Response, does: str, **typed: str) -> httpx.Response:
    """Send the form whose button has these words, with its hidden fields and what a person types."""
    forms = re.findall(r'<form method="post" action="([^"]*)"[^>]*>(.*?)</form>', response.text, re.DOTALL)
    [(action, inner)] = [form for form in forms if does in unescape(form[1])]
    hidden = dict(re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)"', inner))
    return visitor.act(unescape(action), **hidden, **typed)


def ended(visitor: Visitor, response: httpx.Response) -> str:
    """What the page of a job says once it has ended: reloaded, as browsers without scripts do."""
    deadline = time.monotonic() + MOMENT
    address = response.headers["location"]
    while 'http-equiv="refresh"' in (shown := page(visitor, address)).text:
        assert time.monotonic() < deadline, text_of(shown)
        time.sleep(0.1)
    return text_of(shown)


def replay_all(visitor: Visitor, address: str, number: int) -> str:
    """Dry run, confirm, wait."""
    dry_run = page(visitor, address.replace(PAGE, f"{PAGE}/dry-run", 1))
    return ended(visitor, submit(visitor, dry_run, f"Replay {number:,} dead letter"))


def discard_all(visitor: Visitor, address: str, number: int, because: str) -> str:
    form = page(visitor, address.replace(PAGE, f"{PAGE}/discard", 1))
    return ended(visitor, submit(visitor, form, f"Discard {number:,} dead letter", because=because))
