"""The commands about webhooks: `deviceops webhooks`."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from worker.cli import tables
from worker.cli.common import Json, configure_logging, print_json, ready_database, run_async, screen, utf8
from worker.config.settings import Settings
from worker.config.webhooks import Webhook
from worker.errors import DeviceopsError
from worker.model.text import shown
from worker.store import webhook_deliveries, webhooks
from worker.store.webhook_deliveries import Owed
from worker.store.webhooks import WebhookState
from worker.webhooks import message

Name = Annotated[str, typer.Argument(parser=utf8, metavar="NAME", help="Its name in DEVICEOPS_WEBHOOKS.")]

_FIRST = datetime(1970, 1, 1, tzinfo=UTC)

app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.callback()
def group() -> None:
    """Webhooks: how they do, and trying them out."""


@app.command("list")
def list_(json: Json = False) -> None:
    """List the webhooks of DEVICEOPS_WEBHOOKS: state, what is owed to each, its last success and failure."""
    settings = Settings.load()
    states, owed = run_async(_look(settings))
    known = settings.webhooks or {}
    names = sorted({*known, *states})
    found = [_document(name, known.get(name), states.get(name), owed.get(name)) for name in names]
    if json:
        print_json(found)
        return
    listing = tables.table("name", "url", "state", "owed", "oldest", "last success", "last failure")
    for each in found:
        listing.add_row(
            each["name"],
            tables.plain(each["url"] or ""),
            each["state"],
            f"{each['owed']:,}",
            tables.since(each["oldest"]) if each["oldest"] else "",
            _shown(each["last_success"]),
            _shown(each["last_failure"]),
        )
    screen.print(listing if found else "no webhooks: DEVICEOPS_WEBHOOKS is not set")


@app.command("test")
def try_out(name: Name, json: Json = False) -> None:
    """Send a signed message of type webhook.test now, and print the answer; exit 1 if it is not taken."""
    settings = Settings.load()
    webhook = _named(settings, name)
    sent = message.of_test(name)
    answer = run_async(_send(webhook, sent))
    if json:
        print_json({"webhook_id": sent.id, "status": answer.status, "error": answer.reason or None})
    elif answer.is_success:
        screen.print(f"{name}: answered {answer.status} (webhook-id {sent.id})")
    if not answer.is_success:
        raise DeviceopsError(f"webhook {name}: {answer.reason}")


@app.command()
def enable(name: Name) -> None:
    """Switch a webhook on that its receiver has switched off, and have all that is owed to it sent now."""
    settings = Settings.load()
    configure_logging(settings)
    if not run_async(_enable(settings, name)):
        if name in (settings.webhooks or {}):
            screen.print(f"{name}: is on; no worker has sent to it yet")
            return
        raise DeviceopsError(f"no webhook has the name {shown(name)}: `deviceops webhooks list` names them")
    screen.print(f"{name}: is on, and what is owed to it is sent now")


@app.command()
def secret() -> None:
    """Print a fresh secret, for DEVICEOPS_WEBHOOKS and for the receiver; it is stored nowhere."""
    print(message.new_secret())  # noqa: T201  # to be copied


async def _look(settings: Settings) -> tuple[Mapping[str, WebhookState], Mapping[str, Owed]]:
    async with ready_database(settings) as database, database.read() as connection:
        states = {state.name: state for state in await webhooks.states(connection)}
        return states, await webhook_deliveries.owed(connection)


async def _enable(settings: Settings, name: str) -> bool:
    async with ready_database(settings) as database, database.write() as connection:
        return await webhooks.enable(connection, name)


async def _send(webhook: Webhook, sent: message.Message) -> Any:
    from worker.webhooks.client import Client  # late: the other commands send nothing

    return await Client().send(webhook, sent)


def _named(settings: Settings, name: str) -> Webhook:
    webhook = (settings.webhooks or {}).get(name)
    if webhook is None:
        raise DeviceopsError(f"no webhook has the name {shown(name)}: `deviceops webhooks list` names them")
    return webhook


def _document(name: str, webhook: Webhook | None, state: WebhookState | None, owed: Owed | None) -> dict[str, Any]:
    return {
        "name": name,
        "url": None if webhook is None else webhook.shown_url,
        "types": None if webhook is None else sorted(webhook.sent),
        "state": _state(webhook, state),
        "owed": 0 if owed is None else owed.number,
        "oldest": None if owed is None else datetime.now(UTC) - timedelta(milliseconds=owed.age),
        "last_success": None if state is None else _event(state.succeeded_at, state.success_status),
        "last_failure": None if state is None else _event(state.failed_at, state.failure_status, state.failure),
        "given_up": 0 if state is None else state.given_up,
        "dropped": 0 if state is None else state.dropped,
    }


def _state(webhook: Webhook | None, state: WebhookState | None) -> str:
    if webhook is None:
        return "removed"
    return "new" if state is None else state.condition


def _event(at: int | None, status: int | None, error: str | None = None) -> dict[str, Any] | None:
    if at is None:
        return None
    event = {"at": _FIRST + timedelta(milliseconds=at), "status": status}
    return event if error is None else {**event, "error": error}


def _shown(event: dict[str, Any] | None) -> str:
    if event is None:
        return ""
    what = event.get("error") or event["status"]
    return f"{tables.time(event['at'])}: {what}"
