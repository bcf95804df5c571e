"""Acts on many dead letters on the web page: an evening is mended to zero, jobs are stopped."""

import json
import time
from http import HTTPStatus

import httpx
import pytest

from tests.support.command import Deviceops
from tests.support.dead_letter_pages import (
    PAGE,
    count_of,
    discard_all,
    ended,
    follow,
    groups,
    ids_of,
    opened,
    page,
    replay_all,
    statuses,
    submit,
)
from tests.support.paging import Visitor, signed_in, text_of
from tests.support.rejecting import an_evening, rows
from tests.support.serving import serving


@pytest.mark.alone
def test_an_evening_with_ten_thousand_dead_letters_is_mended_to_zero(visitor: Visitor, url: str) -> None:
    an_evening(url, parked=4_000, untrusted=3_000, conflicts=2_000, malformed=999)
    began = time.monotonic()

    def look(**expected: int) -> httpx.Response:
        """What the page shows; its numbers are the database's, of each group and of the list that it links to."""
        shown = page(visitor)
        assert count_of(shown) == statuses(url).get("open", 0) == sum(expected.values())
        by_reason = groups(shown, "reason")
        assert {name: number for name, (number, _) in by_reason.items()} == expected == opened(url, "reason")
        for kind in ("reason", "detail", "service"):
            for number, address in groups(shown, kind).values():
                assert count_of(page(visitor, address)) == number, (kind, address)
        by_service = {name: number for name, (number, _) in groups(shown, "service").items()}
        assert by_service == {name: n for name, n in opened(url, "service_id").items() if name is not None}
        return shown

    shown = look(unknown_device_operation=4_000, unknown_service=3_000, conflict=2_000, malformed=1_000)
    details = groups(shown, "detail")
    assert sum(number for number, _ in details.values()) == 10_000, details

    # The service is allowed by now: a dry run says so of a portion, then of all, and the replay does it.
    number, address = groups(shown, "reason")["unknown_service"]
    dry_run = page(visitor, address.replace(PAGE, f"{PAGE}/dry-run", 1))
    assert "What would happen to 200 of them" in text_of(dry_run)
    assert "3,000" in ended(visitor, submit(visitor, dry_run, "Dry run of 3,000 dead letters"))
    assert statuses(url) == {"open": 10_000}, "dry runs change nothing"
    assert "done 3,000 of 3,000" in replay_all(visitor, address, number)
    shown = look(unknown_device_operation=4_000, conflict=2_000, malformed=1_000)

    number, address = groups(shown, "reason")["conflict"]
    assert "2,000 discarded" in discard_all(visitor, address, number, "the devices were reset by hand")
    shown = look(unknown_device_operation=4_000, malformed=1_000)

    [(number, address)] = [each for each in groups(shown, "detail").values() if each[0] == 999]
    assert "999 discarded" in discard_all(visitor, address, number, "states of a test")
    shown = look(unknown_device_operation=4_000, malformed=1)

    # The announcement is corrected, upon which all reports about its devices are processed.
    [id_] = ids_of(page(visitor, groups(shown, "reason")["malformed"][1]))
    assert f"/dead-letters/{id_}/edit" in page(visitor, f"{PAGE}/{id_}").text
    body = json.loads(rows(url, "SELECT body FROM dead_letters WHERE id = :id", id=id_)[0][0])
    corrected = json.dumps(body | {"timeouts": {"total": 3_600}}, indent=2).replace("\n", "\r\n")
    kind = rows(url, "SELECT type FROM dead_letters WHERE id = :id", id=id_)[0][0]
    assert "announced" in text_of(follow(visitor, visitor.act(f"{PAGE}/{id_}/edit", body=corrected, type=kind)))

    shown = page(visitor)
    assert "No open dead letters" in text_of(shown)
    assert statuses(url) == {"resolved": 3_000 + 4_000 + 2, "discarded": 2_999}
    assert count_of(page(visitor, f"{PAGE}?status=all")) == 10_001, "with the corrected copy"
    [(succeeded,)] = rows(url, "SELECT count(*) FROM device_operations WHERE state = 50 AND reason = ''")
    assert succeeded == 4_000
    print(f"\nmended in {time.monotonic() - began:.0f} s")  # noqa: T201


def test_of_a_filter_one_job_runs_that_stops_after_its_portion(visitor: Visitor, url: str) -> None:
    an_evening(url, parked=0, untrusted=0, conflicts=3_000, malformed=0)
    number = statuses(url)["open"]
    job = visitor.act(f"{PAGE}/replay?reason=conflict", limit="3000")
    address = job.headers["location"]
    running = page(visitor, address)
    assert '<meta http-equiv="refresh"' in running.text, "3,000 in half a second"
    assert address in page(visitor).text
    second = visitor.act(f"{PAGE}/replay?reason=conflict", limit="3000")
    assert second.headers["location"] == address
    assert "runs already" in text_of(follow(visitor, second))
    stopped = ended(visitor, visitor.act(f"{address}/stop"))
    assert "stopped" in stopped
    [(attempted,)] = rows(url, "SELECT count(*) FROM dead_letters WHERE attempts > 1")
    assert 0 < attempted < 3_000
    assert attempted % 250 == 0, "portions are whole"
    assert f"stopped {attempted:,} of 3,000" in stopped
    assert statuses(url)["open"] == number
    assert "had ended already" in text_of(follow(visitor, visitor.act(f"{address}/stop")))

    fewer = ended(
        visitor, visitor.act(f"{PAGE}/discard?reason=conflict", limit="10", because="no more than these")
    )
    assert "10 discarded" in fewer, "no more than was confirmed"
    assert statuses(url)["discarded"] == 10
    restored = ended(visitor, visitor.act(f"{PAGE}/restore?reason=conflict", limit="10"))
    assert "10 restored" in restored
    assert statuses(url) == {"open": number}
    nothing = follow(visitor, visitor.act(f"{PAGE}/restore?reason=conflict", limit="10"))
    assert "nothing was done" in text_of(nothing)


def test_a_job_ends_after_its_portion_when_the_server_stops(deviceops: Deviceops) -> None:
    url = deviceops.settings["database_url"]
    an_evening(url, parked=0, untrusted=0, conflicts=3_000, malformed=0)
    with serving(deviceops) as server:
        with signed_in(server) as visitor:
            address = visitor.act(f"{PAGE}/replay?reason=conflict", limit="3000").headers["location"]
            assert '<meta http-equiv="refresh"' in page(visitor, address).text
        assert server.stop() == 0
        assert not [line for line in server.log if line["level"] in ("error", "critical")]
    [(attempted,)] = rows(url, "SELECT count(*) FROM dead_letters WHERE attempts > 1")
    assert 0 < attempted < 3_000
    assert attempted % 250 == 0
    [(detail,)] = rows(url, "SELECT detail FROM audit_log WHERE action = 'dead-letters.replay'")
    document = json.loads(detail) if isinstance(detail, str) else detail
    assert (document["outcome"], document["done"]) == ("stopped", attempted)
    with serving(deviceops) as server, signed_in(server) as visitor:
        assert "This server does not know the job" in text_of(page(visitor, address, HTTPStatus.NOT_FOUND))
