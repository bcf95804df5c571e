"""The checks of the tests in the browser find what they are there to find, on pages that are wrong on purpose."""

import html
from pathlib import Path
from urllib.parse import quote

import pytest
from selenium.common.exceptions import UnexpectedAlertPresentException

from tests.support.browsing import hostile
from tests.support.browsing.appearance import APPEARANCES, Appearance
from tests.support.browsing.browser import Browser
from tests.support.serving import Server

SOUND = """<!doctype html><html lang="en"><title>Sound</title><meta name="color-scheme" content="light dark">
<main><h1>Sound</h1><p>This page is as it should be.</p>{}</main></html>"""


def page(more: str = "") -> str:
    """The address of a sound page, and of what is added to it."""
    return f"data:text/html;charset=utf-8,{quote(SOUND.format(more))}"


def test_a_sound_page_passes(browser: Browser) -> None:
    browser.open(page())
    assert "as it should be" in browser.text
    browser.assert_presentable()


@pytest.mark.parametrize(
    ("wrong", "rule"),
    [
        ("<img src='data:,'>", "image-alt"),
        ("<p style='color: #777; background: #666'>pale</p>", "color-contrast"),
        ("<input>", "label"),
    ],
)
def test_axe_names_the_rule_and_the_element(browser: Browser, wrong: str, rule: str) -> None:
    browser.open(page(wrong))
    found = browser.axe()
    assert found.startswith(rule)
    assert wrong.strip("<").split(maxsplit=1)[0].rstrip(">") in found
    with pytest.raises(AssertionError, match=rule):
        browser.assert_presentable()


def test_what_is_wider_than_a_telephone_is_named_unless_its_box_scrolls(browser: Browser) -> None:
    wide = "<div id=wide style='width: 400px'>wide</div>"
    browser.open(page(wide))
    assert browser.too_wide() == []
    browser.look(Appearance(320, 640, "dark"))
    assert [line for line in browser.too_wide() if line.startswith("div#wide")]
    browser.open(page(f"<div tabindex=0 style='overflow-x: auto'>{wide}</div>"))
    assert browser.too_wide() == []


@pytest.mark.parametrize("text", hostile.SCRIPTS[:8])
def test_text_that_is_taken_for_markup_is_found(browser: Browser, text: str) -> None:
    browser.open(page(text))
    assert browser.run(hostile.INTRUDERS) != []
    browser.console.clear()
    browser.open(page(html.escape(text)))
    assert browser.run(hostile.INTRUDERS) == []


def test_text_that_deforms_a_page_is_found(browser: Browser) -> None:
    backwards, long = hostile.DEFORMERS[0], "<br>".join("x" * 200)
    browser.open(page(f"<p>{backwards} <b>1</b></p><table><tr><td>{long}</table>"))
    found = browser.run(hostile.DEFORMED)
    assert ["direction" in each for each in found] == [True, False]
    assert "a row of" in found[1]
    browser.open(page(f"<p><bdi>{backwards}</bdi> <b>1</b></p><p>{backwards}</p>"))
    assert browser.run(hostile.DEFORMED) == []


def test_a_dialog_fails_a_test(browser: Browser) -> None:
    browser.open(page("<img src='data:,' alt='' onerror='setTimeout(() => alert(1))'>"))
    with pytest.raises(UnexpectedAlertPresentException):
        browser.until(lambda: browser.text and None, "nothing", 5)


def test_requests_to_other_hosts_are_seen_and_go_nowhere(browser: Browser) -> None:
    browser.open(page("<img alt='' src='http://elsewhere.example/x.png'>"))
    [asked] = browser.network.elsewhere("http://127.0.0.1:1")
    assert "elsewhere.example" in asked
    assert "ERR_NAME_NOT_RESOLVED" in asked
    assert any("elsewhere.example" in line for line in browser.console)
    browser.console.clear()


def test_errors_of_scripts_are_in_the_console(browser: Browser) -> None:
    browser.open(page("<script>nowhere.to.be.found()</script>"))
    [line] = browser.console
    assert "nowhere is not defined" in line
    browser.console.clear()


def test_scripts_can_be_off(browser: Browser) -> None:
    scripted = page("<p id=said>none</p><noscript>off</noscript><script>said.textContent = 'some'</script>")
    with browser.without_javascript():
        browser.open(scripted)
        assert browser.find("#said").text == "none"
        assert "off" in browser.text
    browser.open(scripted)
    assert browser.find("#said").text == "some"
    assert "off" not in browser.text


def test_screens_time_zones_and_languages_are_those_of_a_test(browser: Browser) -> None:
    for appearance in APPEARANCES:
        browser.look(appearance)
        browser.open(page())
        seen = browser.run("return [innerWidth, innerHeight, matchMedia('(prefers-color-scheme: dark)').matches]")
        assert seen == [appearance.width, appearance.height, appearance.scheme == "dark"]
    shown = "return [new Date(0).toLocaleString(), (1234.5).toLocaleString(), navigator.language]"
    browser.live_in("Europe/Berlin", "de-DE")
    browser.open(page())
    assert browser.run(shown) == ["1.1.1970, 01:00:00", "1.234,5", "de-DE"]


def test_a_test_begins_as_a_new_visitor(browser: Browser, server: Server, tmp_path: Path) -> None:
    kept = "return [document.cookie, localStorage.length, new Date(0).getHours(), innerWidth]"
    browser.live_in("Europe/Berlin", "de-DE")
    browser.look(Appearance(320, 640, "dark"))
    browser.open(f"{server.url}/sign-in")
    browser.run("document.cookie = 'a=b'; localStorage.c = 'd'")
    assert browser.run(kept) == ["a=b", 1, 1, 320]
    new = Browser(browser.driver, tmp_path)
    assert new.network.requests == []
    new.open(f"{server.url}/sign-in")
    assert new.run(kept) == ["", 0, 0, 1280]
    requests = new.ended_requests()
    assert {request.status for request in requests} == {200}  # and none was cached
    assert all(request.bytes > 0 for request in requests)
