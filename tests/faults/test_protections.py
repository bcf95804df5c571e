"""The list of protections is true to the source: what it takes out is there, and so are the tests."""

import pytest

from tests.faults.protections import PROTECTIONS
from tests.faults.protections.protection import Protection
from tests.faults.without import ROOT


@pytest.mark.parametrize("protection", PROTECTIONS, ids=lambda protection: protection.name)
def test_what_is_to_be_taken_out_stands_in_the_source_once(protection: Protection) -> None:
    for file, old, _ in protection.edits:
        assert (ROOT / file).read_text().count(old) == 1, old


@pytest.mark.parametrize("protection", PROTECTIONS, ids=lambda protection: protection.name)
def test_the_test_that_guards_it_exists(protection: Protection) -> None:
    file, _, name = protection.test.partition("::")
    defined = f"def {name.partition('[')[0]}(" if name else "def test_"
    assert defined in (ROOT / "tests/faults" / file).read_text()


def test_the_page_has_a_row_for_each() -> None:
    page = (ROOT / "tests/faults/PROTECTIONS.md").read_text()
    rows = [line.split(" | ")[:2] for line in page.splitlines() if line.startswith("| ")]
    assert rows[1:] == [[f"| {each.name}", f"`{each.test}`"] for each in PROTECTIONS]
