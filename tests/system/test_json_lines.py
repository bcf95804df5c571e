"""JSON lines as they come: what is an envelope and what is not, and what editors and shells make of files."""

import gzip
import json
import subprocess
from pathlib import Path
from uuid import uuid4

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel
from aiormq.exceptions import ChannelNotFoundEntity

from tests.support.brokering import declared, eventually, messages_in, report
from tests.support.command import Deviceops


async def test_a_report_with_a_field_named_body_is_a_report_everywhere(
    deviceops_on_broker: Deviceops, channel: AbstractChannel
) -> None:
    await declared(deviceops_on_broker, channel)
    lines = [json.dumps({**report(), "body": {"battery": 80}}) for _ in range(2)]

    assert deviceops_on_broker.document("ingest", "-", lines=lines[0] + "\r\n")["applied"] == 1
    deviceops_on_broker.out("publish", "-", lines=lines[1] + "\r\n")

    queue = await channel.get_queue(deviceops_on_broker.settings["topology_prefix"] + ".reports")
    sent = await queue.get(no_ack=True)
    assert isinstance(sent, aio_pika.IncomingMessage)
    assert sent.body.decode() == lines[1]


def test_a_byte_order_mark_is_no_part_of_the_first_line(deviceops_on_sqlite: Deviceops, tmp_path: Path) -> None:
    created = report()
    lines = [{"type": "device-operation.report", "body": created}, {**created, "state": "SUCCESS"}]
    for number, first in enumerate([lines, lines[::-1]]):
        # The second as of two such files, one after the other.
        text = "\ufeff" + "\n\ufeff".join(map(json.dumps, first)) + "\n"
        (tmp_path / f"{number}.jsonl").write_text(text, encoding="utf-8")

    first = deviceops_on_sqlite.document("ingest", str(tmp_path / "0.jsonl"))
    second = deviceops_on_sqlite.document("ingest", str(tmp_path / "1.jsonl"))

    assert (first["received"], second["received"], second["duplicate"]) == (2, 2, 2)


FOREIGN = {
    "UTF-16": ["utf-16", "utf-16-le", "utf-16-be"],
    "UTF-32": ["utf-32", "utf-32-le", "utf-32-be"],
    "compressed (gzip)": ["gzip"],
}


@pytest.mark.parametrize(("name", "encoding"), [(name, each) for name, some in FOREIGN.items() for each in some])
def test_a_file_that_is_no_utf8_is_named_once_and_nothing_of_it_is_taken(
    deviceops_on_sqlite: Deviceops, tmp_path: Path, name: str, encoding: str
) -> None:
    text = "".join(json.dumps(report()) + "\n" for _ in range(20))
    data = gzip.compress(text.encode()) if encoding == "gzip" else text.encode(encoding)
    path = tmp_path / "reports.jsonl"
    path.write_bytes(data)
    deviceops_on_sqlite.out("ingest", "-", lines="{}\n")

    others = [["dead-letters", "import"], ["dead-letters", "edit", "1", "--body"]]
    for command in [["ingest"], *(others if encoding == "utf-16" else [])]:
        done = deviceops_on_sqlite(*command, str(path))
        expected = f"deviceops: {path}: is {name}, expected plain text in UTF-8\n"
        assert (done.returncode, done.stdout, done.stderr.splitlines(keepends=True)[-1]) == (1, "", expected)

    assert len(deviceops_on_sqlite.document("dead-letters", "list", "--status", "all")) == 1
    assert deviceops_on_sqlite.document("status") == []


async def test_nothing_of_a_file_that_is_no_utf8_is_published(
    deviceops_on_broker: Deviceops, channel: AbstractChannel, tmp_path: Path
) -> None:
    await declared(deviceops_on_broker, channel)
    (tmp_path / "reports.jsonl").write_text(json.dumps(report()), encoding="utf-16")

    done = deviceops_on_broker("publish", str(tmp_path / "reports.jsonl"))

    assert (done.returncode, "is UTF-16" in done.stderr) == (1, True)
    assert await messages_in(channel, deviceops_on_broker.settings["topology_prefix"] + ".reports") == 0


def test_a_mark_of_an_editor_does_not_spoil_a_correction(deviceops_on_sqlite: Deviceops, tmp_path: Path) -> None:
    deviceops_on_sqlite.out("ingest", "-", lines="{}\n")
    (tmp_path / "body.json").write_text("\ufeff" + json.dumps(report()), encoding="utf-8")

    done = deviceops_on_sqlite.document("dead-letters", "edit", "1", "--body", str(tmp_path / "body.json"))

    assert done["applied"] == 1


def test_import_reads_what_an_editor_has_saved(deviceops_on_sqlite: Deviceops) -> None:
    deviceops_on_sqlite.out("ingest", "-", lines=json.dumps(report("SUCCESS", operation=str(uuid4()))) + "\n")
    exported = deviceops_on_sqlite.out("dead-letters", "export")
    elsewhere = deviceops_on_sqlite.with_settings(database_url="sqlite:///elsewhere.db")

    done = elsewhere.document("dead-letters", "import", "-", lines=f"\ufeff{exported}".replace("\n", "\r\n"))

    assert done == {"read": 1, "imported": 1}


ANNOUNCEMENT = {"id": str(uuid4()), "operation_type": "CONVERGE", "device_ids": [str(uuid4()) for _ in range(3)]}


async def test_a_document_over_several_lines_and_an_array_are_published_as_messages_of_the_type_that_is_named(
    deviceops_on_broker: Deviceops, channel: AbstractChannel, tmp_path: Path
) -> None:
    await declared(deviceops_on_broker, channel)
    path = tmp_path / "announcement.json"
    path.write_text(json.dumps(ANNOUNCEMENT, indent=2))
    type_ = ("--type", "operation.announced")
    assert deviceops_on_broker.out("publish", str(path), *type_).startswith("1 message published")
    reports = [
        {**report("CREATED", device), "operation_id": ANNOUNCEMENT["id"]}
        for device in map(str, (uuid4(), uuid4()))
    ]
    text = json.dumps(reports, indent=2)
    assert deviceops_on_broker.out("publish", "-", lines=text).startswith("2 messages published")
    announced = deviceops_on_broker.document(
        "announce",
        *("CONVERGE", "--device", str(uuid4()), "--reason", "a trial"),
        *("--timeout", "step=15m", "--timeout", "total=2h", "--deadline", "2099-01-01T00:00:00Z"),
        *("--abort-percent", "25"),
    )
    summary = deviceops_on_broker.document("run", "--until-idle", "0.5")
    assert (summary["announced"], summary["applied"], summary["dead_lettered"]) == (2, 2, {})
    found = deviceops_on_broker.document("status", announced["operation_id"])
    assert (found["operation"], found["reason"]) == ("CONVERGE", "a trial")
    shown = deviceops_on_broker.out("status", announced["operation_id"])
    for said in ("15 min", "2 h", "2099", "25"):
        assert said in shown


async def test_an_array_is_split_with_unchecked_too(
    deviceops_on_broker: Deviceops, channel: AbstractChannel
) -> None:
    await declared(deviceops_on_broker, channel)
    for text in (json.dumps([report(), {"a": 1}]), json.dumps([report(), {"a": 1}], indent=2)):
        done = deviceops_on_broker.out("publish", "-", "--unchecked", lines=text)
        assert done.startswith("2 messages published")
    assert deviceops_on_broker.out("publish", "-", "--unchecked", lines="[]").startswith("1 message published")


async def test_an_error_names_the_option_for_the_type(
    deviceops_on_broker: Deviceops, channel: AbstractChannel
) -> None:
    await declared(deviceops_on_broker, channel)
    done = deviceops_on_broker("publish", "-", lines=json.dumps(ANNOUNCEMENT))
    assert "was it to be of type operation.announced? Then give --type operation.announced; " in done.stderr


@pytest.mark.parametrize("indent", [1, 4])
def test_ingest_takes_a_document_over_several_lines_and_an_array(
    deviceops_on_sqlite: Deviceops, tmp_path: Path, indent: int
) -> None:
    path = tmp_path / "announcement.json"
    path.write_text(json.dumps({"type": "operation.announced", "body": ANNOUNCEMENT}, indent=indent))
    assert deviceops_on_sqlite.document("ingest", str(path))["announced"] == 1
    reports = json.dumps([report(), {**report(), "state": "DONE"}, report()], indent=indent)
    summary = deviceops_on_sqlite.document("ingest", "-", lines=reports)
    assert (summary["received"], summary["applied"], summary["dead_lettered"]) == (3, 2, {"malformed": 1})


def test_what_is_no_document_is_read_by_ingest_as_lines(deviceops_on_sqlite: Deviceops) -> None:
    good = json.dumps(report())
    for lines, received in (
        (["{", good], 2),
        (["[", good], 2),
        (["no JSON", good], 2),
        (["[", good, "]", good], 4),
        (["{", '"a": 1'], 2),
        (["[]"], 1),
        ([f"[{good}, {good}]"], 1),
        (["", "[", "", "]"], 2),
    ):
        summary = deviceops_on_sqlite.document("ingest", "-", lines="\n".join(lines))
        assert summary["received"] == received, lines


def test_a_live_pipe_whose_first_line_is_no_json_is_processed_before_it_ends(
    deviceops_on_sqlite: Deviceops,
) -> None:
    deviceops_on_sqlite.out("migrate")
    with deviceops_on_sqlite.running("ingest", "-", stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(f'{{"operation_id": "cut\n{json.dumps(report())}\n')
        process.stdin.flush()
        eventually(lambda: len(deviceops_on_sqlite.document("status")) == 1)
        process.communicate(timeout=60)


async def test_what_the_contract_does_not_allow_is_an_error_with_its_line_and_nothing_is_sent(
    deviceops_on_broker: Deviceops, channel: AbstractChannel, tmp_path: Path
) -> None:
    await declared(deviceops_on_broker, channel)
    queue = deviceops_on_broker.settings["topology_prefix"] + ".reports"
    path = tmp_path / "reports.jsonl"
    good = [json.dumps(report()) for _ in range(2)]
    for lines, expected in (
        ([*good, json.dumps({**report(), "state": "DONE"})], f"{path}, line 3: state: "),
        ([*good, "{"], f"{path}, line 3: "),
        ([json.dumps(ANNOUNCEMENT, indent=2)], f"{path}, line 1: "),
        ([json.dumps([report(), {**report(), "state": "DONE"}], indent=2)], f"{path}, element 2: state: "),
        (["no JSON", *good], f"{path}: is neither JSON lines nor one JSON document: "),
    ):
        path.write_text("\n".join(lines))
        done = deviceops_on_broker("publish", str(path))
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1), done.stderr
        assert done.stderr.startswith(f"deviceops: {expected}")
        assert "nothing was sent" in done.stderr
    assert await messages_in(channel, queue) == 0
    assert deviceops_on_broker.out("publish", str(path), "--unchecked").startswith("3 messages published")
    assert await messages_in(channel, queue) == 3


async def test_what_is_on_the_broker_is_removed_unless_queues_have_messages(
    deviceops_on_broker: Deviceops, channel: AbstractChannel
) -> None:
    await declared(deviceops_on_broker, channel)
    queue = deviceops_on_broker.settings["topology_prefix"] + ".reports"
    deviceops_on_broker.out("publish", "-", lines=json.dumps(report()))
    eventually(
        lambda: f"{queue} has 1; nothing was removed" in deviceops_on_broker("broker", "remove", "--yes").stderr
    )
    assert await messages_in(channel, queue) == 1
    deviceops_on_broker.out("broker", "remove", "--yes", "--force")
    again = deviceops_on_broker.out("broker", "remove", "--yes")
    assert again.startswith("nothing to remove: ")
    assert "not declared yet" in deviceops_on_broker.out("check")
    changes = deviceops_on_broker.settings["topology_prefix"] + ".changes"
    await channel.declare_exchange(changes, "topic", durable=True)
    assert deviceops_on_broker.out("broker", "remove", "--yes").startswith("removed from the broker")
    with pytest.raises(ChannelNotFoundEntity):
        await channel.declare_exchange(changes, passive=True)


async def test_a_worker_that_stops_says_so_and_draws_no_table_among_its_lines(
    deviceops_on_broker: Deviceops,
) -> None:
    with deviceops_on_broker.running("run") as worker:
        assert worker.stderr is not None
        lines: list[str] = []
        while not lines or '"consuming"' not in lines[-1]:
            lines.append(worker.stderr.readline())
        worker.terminate()
        out, rest = worker.communicate(timeout=60)
    events = [json.loads(line)["event"] for line in (*lines, *rest.splitlines())]
    assert any(event.startswith("starting: ") for event in events[: events.index("consuming")])
    assert events[-2].startswith("stopping: ")
    assert (events[-1], out) == ("stopped", "")
