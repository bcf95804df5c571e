"""The page for those who listen agrees with the contract, and its listener knows copies, gaps and parts."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.documents import ROOT, blocks
from worker.asyncapi.change_examples import EXAMPLES
from worker.model.changes import ChangeType
from worker.store.tables import outbox

PAGE = "deploy/changes.md"
TEXT = (ROOT / PAGE).read_text()
OPERATION = "497f6eca-6276-4993-bfeb-53cbbbba6f08"


def test_its_documents_are_examples_of_the_contract() -> None:
    operation, devices, _ = (json.loads(block.text) for block in blocks(PAGE, "json"))
    examples = [json.loads(json.dumps(example.body)) for example in EXAMPLES]
    assert operation in examples
    assert devices in examples


def test_each_binding_that_it_shows_gets_an_example_and_each_example_is_got() -> None:
    bindings = [
        found
        for found in re.findall(r"^\| `([\w.*#-]+)` \|", TEXT, re.MULTILINE)
        if re.search(r"\.(#|[\w*])", found)
    ]
    patterns = {
        binding: re.escape(binding).replace(r"\.\#", r"(\..*)?").replace(r"\*", r"[^.]*") for binding in bindings
    }
    keys = [*(example.routing_key for example in EXAMPLES), "operation.FAILED.CONVERGE"]
    named = {binding for binding in bindings if binding not in [*ChangeType]}
    assert len(named) == 8
    for binding in named:
        assert any(re.fullmatch(patterns[binding], key) for key in keys), binding
    for key in keys:
        assert any(re.fullmatch(patterns[binding], key) for binding in named if "#" in binding), key


def test_what_it_says_of_the_outbox_for_debezium_are_columns() -> None:
    *_, connector = (json.loads(block.text) for block in blocks(PAGE, "json"))
    columns = {column.name for column in outbox.c}
    fields = {
        value for key, value in connector.items() if ".table.field.event." in key or key.endswith("by.field")
    }
    added = connector["transforms.outbox.table.fields.additional.placement"]
    fields |= {entry.partition(":")[0] for entry in added.split(",")}
    assert fields <= columns
    assert columns - {"position"} <= set(
        re.findall(r"`(\w+)`", TEXT.partition("| column |")[2].partition("```")[0])
    )


class Listener:
    """The page's listener with an API that answers as it is told."""

    def __init__(self) -> None:
        [snippet] = [block for block in blocks(PAGE, "python") if block.name == "device_states.py"]
        names: dict[str, Any] = {}
        exec(compile(snippet.text, snippet.name, "exec"), names)  # noqa: S102  # the page's
        self.states = names["DeviceStates"](":memory:", "")
        self.states.read = self._read
        self.stored: dict[str, str] = {}
        self.readings = 0

    def _read(self, operation: str) -> Iterator[tuple[str, str]]:
        assert operation == OPERATION
        self.readings += 1
        return iter(self.stored.items())

    def get(self, id_: str, sequence: int, changes: dict[str, str], **part: int) -> dict[str, str]:
        """Apply a change, and give what the listener has."""
        told = [{"device_id": device, "state": state} for device, state in changes.items()]
        body = {"operation_id": OPERATION, "sequence": sequence, "changes": told, **part}
        self.states.apply(id_, json.dumps(body).encode())
        return dict(self.states.database.execute("SELECT device, state FROM devices"))


@pytest.fixture
def listener() -> Iterator[Listener]:
    made = Listener()
    yield made
    made.states.database.close()


def test_its_listener_applies_what_follows_and_forgets_copies(listener: Listener) -> None:
    listener.get("a", 1, {"1": "CREATED", "2": "CREATED"})
    listener.get("b", 2, {})
    assert listener.get("c", 3, {"1": "SUCCESS"}) == {"1": "SUCCESS", "2": "CREATED"}
    for id_, sequence in (("a", 1), ("b", 2), ("c", 3)):
        assert listener.get(id_, sequence, {"1": "CREATED"}) == {"1": "SUCCESS", "2": "CREATED"}
    assert listener.get("d", 4, {"2": "FAILURE"}) == {"1": "SUCCESS", "2": "FAILURE"}
    assert listener.readings == 0


def test_its_listener_reads_anew_after_a_gap_and_goes_on_from_there(listener: Listener) -> None:
    listener.get("a", 1, {"1": "CREATED"})
    listener.stored = {"1": "SUCCESS", "2": "PROCESSING"}
    assert listener.get("c", 3, {"1": "DISPATCHED"}) == listener.stored
    assert listener.get("d", 4, {"2": "SUCCESS"}) == {"1": "SUCCESS", "2": "SUCCESS"}
    assert listener.readings == 1


def test_its_listener_reads_anew_when_a_sequence_comes_again_with_another_id(listener: Listener) -> None:
    listener.get("a", 1, {"1": "CREATED"})
    listener.get("b", 2, {"1": "SUCCESS"})
    listener.stored = {"1": "FAILURE"}
    assert listener.get("c", 2, {"1": "FAILURE"}) == listener.stored
    assert listener.get("d", 3, {"2": "CREATED"}) == {"1": "FAILURE", "2": "CREATED"}
    assert listener.readings == 1


def test_its_listener_applies_parts_and_misses_none(listener: Listener) -> None:
    listener.get("a", 1, {"1": "CREATED"}, part=1, parts=3)
    listener.get("b", 1, {"2": "CREATED"}, part=2, parts=3)
    assert listener.get("c", 1, {"3": "CREATED"}, part=3, parts=3) == dict.fromkeys("123", "CREATED")
    assert listener.get("d", 2, {"3": "SUCCESS"})["3"] == "SUCCESS"
    assert listener.readings == 0
    listener.get("e", 3, {"1": "SUCCESS"}, part=1, parts=2)
    listener.get("f", 4, {})
    assert listener.readings == 1
