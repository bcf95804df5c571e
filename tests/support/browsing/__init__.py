"""Debian's Chromium for the tests of web pages.

| file | holds |
|---|---|
| `chromium.py` | how Chromium and its driver are found, started and ended |
| `browser.py` | `Browser`: what a test does with a page |
| `network.py` | the requests that a page made: where to, what came, how many bytes |
| `axe.py` | axe-core, and what it finds, as text |
| `appearance.py` | widths and colour schemes, and what may not be wider than the screen |
| `hostile.py` | text from outside that tries to run or to break the layout, and how to find out |
| `rows.py` | the numbers on the page of operations, beside those of the database |
| `visitors.py` | many open pages, without a browser |

tests/README.md says how to write a test with them.
"""
