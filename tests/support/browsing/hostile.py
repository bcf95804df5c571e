"""Text from outside that tries to run in a page, or to break its layout.

Whatever runs sets `window.ran`, or opens a dialog.
"""

import json
from collections.abc import Iterator
from random import Random
from typing import Any
from uuid import UUID

from tests.support.sending import announcement_body, report_body

RUN = "window.ran=1"
SCRIPTS = (
    f"<script>{RUN}</script>",
    f"</td></table></script><script>{RUN}</script>",
    f'"><img src=x onerror={RUN}>',
    f"'><svg onload={RUN}>",
    f"<iframe srcdoc='<script>parent.{RUN}</script>'></iframe>",
    f'<a href="javascript:{RUN}" autofocus onfocus={RUN}>x</a>',
    f"<details open ontoggle={RUN}>",
    f"<style>@import 'http://elsewhere.example/x.css';</style><body onload={RUN}>",
    "<base href='http://elsewhere.example/'><meta http-equiv=refresh content='0;url=http://elsewhere.example/'>",
    "<form action='http://elsewhere.example/'><input name=token></form><plaintext>",
    f"<div hx-get='/' hx-trigger='load' hx-on::load='{RUN}' data-hx-get='http://elsewhere.example/'>",
    f"{{{{ 7*7 }}}} {{% raw %}} ${{{RUN}}} #{{7*7}} <%= 7*7 %>",
    f"javascript:{RUN}//",
    f"--><!--<script>{RUN}//--></script>]]><![CDATA[",
    f"&lt;script&gt;{RUN}&lt;/script&gt; &#60;script&#62; &amp;amp; %3Cscript%3E",
    f"\\u003cscript\\u003e{RUN} \\x3c/script\\x3e",
    f"event: x\ndata: <script>{RUN}</script>\n\n",
    f"\r\nSet-Cookie: a=b\r\n\r\n<script>{RUN}</script>",
)
"""What runs, or asks another host, if it is taken for markup, a script, a template, a header or an event."""
DEFORMERS = (
    "\u202etxet tfel ot thgir\u202c",
    "\u2067\u202e\u2066isolates that are not closed",
    "\u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627 (1,000)",
    "a\u0335\u0336\u0337\u0338\u0489" * 12,
    "\u200b\u200d\ufeff\u2060",
    "\U0001f469\u200d\U0001f680\U0001f1e9\U0001f1ea",
    "\u1b5c\ufdfd\u2e3b" * 20,
    "x" * 10_000,
    "word " * 2_000,
    "W\u00a0" * 5_000,
    "\n" * 500,
    "\t\x1b[2J\x1b[31m\x07\x7f\x85\u2028\u2029",
    *("", " ", "0", "-1", "null", "undefined", "NaN", "../../..", "?a=b&c=d#e"),
)
"""What is longer, taller or of another direction than text that is expected."""
REPORT_FIELDS = ("service_id", "reason", "code", "report_id", "operation_type", "occurred_at", "state", "unknown")
ANNOUNCEMENT_FIELDS = ("operation_type", "reason", "created_by", "operation_device_query", "unknown")
PROPERTIES = ("message_id", "type", "headers")
_OPERATION, _DEVICE = 0xA000_0000, 0xD000_0000
INTRUDERS = """
const base = location.protocol.startsWith('http') ? location.href : 'http://own.example/', found = [];
const { origin } = new URL(base);
const note = (what, element) => found.push(`${what}: ${element.outerHTML.slice(0, 200)}`);
if (window.ran) found.push('a script from outside has run');
for (const each of document.querySelectorAll('base, iframe, object, embed, plaintext, style, [style], [srcdoc]'))
    note('an element that no page of ours has', each);
for (const each of document.querySelectorAll('script'))
    if (!each.src.startsWith(`${origin}/static/`)) note('a script', each);
for (const each of document.querySelectorAll('*'))
    for (const { name } of each.attributes) if (/^(data-)?(on|hx-on)/.test(name)) note('a handler', each);
for (const each of document.querySelectorAll('[href], [action], [src], [hx-get], [hx-post]'))
    for (const name of ['href', 'action', 'src', 'hx-get', 'hx-post']) {
        const value = each.getAttribute(name);
        if (value !== null && new URL(value, base).origin !== origin) note('an outer address', each);
    }
return found;
"""
"""A script: what is on a page and not of its own making, also what Content-Security-Policy kept from running."""
DEFORMED = """
const found = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
    const text = walker.currentNode.data.trim();
    if (!/[\\u0590-\\u08ff\\u202a-\\u202e\\u2066-\\u2069]/.test(text)) continue;
    let element = walker.currentNode.parentElement;
    if (element.localName === 'textarea') continue;
    while (!/isolate|plaintext/.test(getComputedStyle(element).unicodeBidi)) element = element.parentElement;
    // Blocks isolate too: then nothing else may stand in it.
    if (element.localName !== 'bdi' && element.textContent.trim() !== text)
        found.push(`changes the direction of its neighbours: ${text.slice(0, 80)}`);
}
for (const row of document.querySelectorAll('tr')) {
    const height = row.getBoundingClientRect().height;
    const text = row.textContent.trim().slice(0, 80);
    if (height > 2 * innerHeight) found.push(`a row of ${Math.round(height)} pixels: ${text}`);
}
return found;
"""
"""A script: text that writes over its neighbours, and rows of tables that are taller than two screens."""


def texts(number: int, seed: int = 7) -> Iterator[str]:
    """So many different texts: each of the list, then parts of them put together."""
    random = Random(seed)  # noqa: S311  # the same for the same seed
    pieces = [*SCRIPTS, *DEFORMERS]
    for index in range(number):
        if index < len(pieces):
            yield pieces[index]
        else:
            yield "".join([random.choice(pieces)[:200], f" {index} ", random.choice(SCRIPTS)])


def messages(number: int, operation: UUID) -> Iterator[dict[str, Any]]:
    """Messages of which each has one of so many texts, in turn in each field and property.

    Some are accepted, cut or without the field; others are dead letters, with the text in their body or detail.
    """
    places = [
        *((_announcement, name) for name in ANNOUNCEMENT_FIELDS),
        *((_report, name) for name in REPORT_FIELDS),
        *((_envelope, name) for name in PROPERTIES),
    ]
    yield {"type": "operation.announced", "body": announcement_body(operation)}
    for index, text in enumerate(texts(number)):
        make, name = places[index % len(places)]
        yield report_body(operation, _id(_DEVICE, index), "CREATED")
        yield make(operation, index, name, text)


def _id(begin: int, index: int) -> UUID:
    """An id whose first digits tell it from all others."""
    return UUID(int=begin + index << 96)


def _announcement(_operation: UUID, index: int, name: str, text: str) -> dict[str, Any]:
    fitting = text[:255] if index % 3 else text
    body = announcement_body(_id(_OPERATION, index), [_id(_DEVICE, index)], **{name: fitting})
    return {"type": "operation.announced", "body": body}


def _report(operation: UUID, index: int, name: str, text: str) -> dict[str, Any]:
    fitting = text[:255] if index % 3 and name != "reason" else text
    return {**report_body(operation, _id(_DEVICE, index), "FAILURE"), name: fitting}


def _envelope(operation: UUID, index: int, name: str, text: str) -> dict[str, Any]:
    value = {text[:100]: text} if name == "headers" else text
    return {"body": report_body(operation, _id(_DEVICE, index), "NO SUCH STATE"), name: value}


def lines(number: int, operation: UUID) -> str:
    """The messages as JSON lines."""
    return "".join(f"{json.dumps(each)}\n" for each in messages(number, operation))
