"""Bodies as people read them: what is indented stays bounded, however deep it is nested."""

import json

import pytest

from worker.dead_letters.readable import LARGEST, indented
from worker.model.id_range import parsed_uuid
from worker.pages.dead_letter_bodies import EDITED, editable


def nested(depth: int, zeros: int) -> bytes:
    return b"[" * depth + b",".join([b"0"] * zeros) + b"]" * depth


def test_json_is_indented_as_far_as_that_is_bounded() -> None:
    reports = json.dumps(
        [{"state": "SUCCESS", "number": number, "at": [1, 2]} for number in range(2_000)]
    ).encode()
    assert json.loads(indented(reports)) == json.loads(reports)
    assert indented(reports).count(b"\n") > 10_000

    deep = nested(190, 490_000)
    assert indented(deep) == deep
    assert len(indented(nested(190, 10_000))) < LARGEST


@pytest.mark.parametrize("body", [nested(190, 20_000), b"x" * (EDITED + 1)], ids=["deep", "long"])
def test_what_is_too_large_as_a_text_is_not_edited(body: bytes) -> None:
    assert editable(body) is None


@pytest.mark.parametrize(
    "text", ["+" + 31 * "1", "1_" + 30 * "1", 32 * "\u0661", 31 * "1", " " + 32 * "1", "1-" + 31 * "1"]
)
def test_what_is_merely_like_a_uuid_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="is not a UUID"):
        parsed_uuid(text)
