"""Different bytes are different ids, on every way in; what is no id counts as none."""

from uuid import UUID, uuid5

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from tests.support.frames import delivered
from tests.support.sending import (
    DEVICES,
    OPERATIONS,
)
from worker.model.identity import MAX_ID, NAMESPACE, body_id, identity
from worker.model.outcomes import CONTRADICTING, Contradiction, Tally
from worker.watch.rejection_log import ContradictionLog

OPERATION, DEVICE = OPERATIONS[0], DEVICES[0]
NIL = str(UUID(int=0))
NO_IDS = ["", NIL, UUID(int=0).hex, f"{{{NIL}}}", f"({NIL})", f"urn:uuid:{NIL}", "\0" * 16]


@given(st.lists(st.binary(min_size=1, max_size=255), unique=True, max_size=20))
def test_message_ids_of_different_bytes_are_different_ids(ids: list[bytes]) -> None:
    found = [delivered(b"{}", id_).message_id for id_ in ids if id_ not in [text.encode() for text in NO_IDS]]

    assert len(set(found)) == len(found)
    assert None not in found


@given(st.lists(st.text(st.characters(exclude_categories=()), min_size=1), unique=True, max_size=20))
def test_ids_of_different_text_are_different_and_can_be_stored(ids: list[str]) -> None:
    found = [identity(id_) for id_ in ids if id_ not in NO_IDS]

    assert len(set(found)) == len(found)
    for id_ in found:
        assert id_ is not None
        assert len(id_) <= MAX_ID
        assert b"\0" not in id_.encode()


def test_an_id_that_cannot_be_kept_as_it_is_becomes_the_uuid_of_its_bytes() -> None:
    assert delivered(b"{}", b"\x80\x81").message_id == body_id(b"\x80\x81")
    assert identity("a\0b") == str(uuid5(NAMESPACE, "a\0b"))
    assert identity("ä" * 256) == str(uuid5(NAMESPACE, "ä" * 256))
    assert identity("ä" * 255) == "ä" * 255


@pytest.mark.parametrize("id_", [*NO_IDS, NIL.upper(), f"URN:UUID:{NIL}", None, 5, {}])
def test_an_empty_or_all_zero_id_is_none(id_: object) -> None:
    assert identity(id_) is None


@pytest.mark.parametrize("id_", ["0", "00", NIL[:-1], NIL[:-1] + "1", " ", "\0", "\0" * 15])
def test_what_is_almost_an_all_zero_id_is_one(id_: str) -> None:
    assert identity(id_) is not None


async def test_duplicates_that_name_another_state_are_one_warning_a_minute_with_what_they_say() -> None:
    found = Contradiction("drift-service", OPERATION, DEVICE, "one", "CREATED", "SUCCESS")
    batch = Tally(contradictions=[found])
    batch.by_service["drift-service", CONTRADICTING] = 2
    contradictions = ContradictionLog()
    with capture_logs() as logged:
        for tally in (Tally(), batch, batch, batch):
            contradictions.note(tally)
        assert [(line["log_level"], line["duplicates"]) for line in logged] == [("warning", 2)], (
            "the first at once"
        )
        assert logged[0]["first"] == [
            {
                "service_id": "drift-service",
                "operation_id": str(OPERATION),
                "device_id": str(DEVICE),
                "report_id": "one",
                "accepted": "CREATED",
                "named": "SUCCESS",
            }
        ]
        contradictions.close()
    assert [line["duplicates"] for line in logged] == [2, 4], "and the rest in one"
