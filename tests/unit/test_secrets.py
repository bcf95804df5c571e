"""Settings that are kept in files: where they may be, which of them counts, and what is wrong with one."""

from pathlib import Path

import pytest

from worker.config import secret_files
from worker.config.settings import Settings
from worker.errors import SettingsError

NAME = "DEVICEOPS_AMQP_URL"


def url(host: str) -> str:
    return f"amqp://{host}/"


@pytest.fixture(autouse=True)
def places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A working directory with directories for credentials and for a container's secrets."""
    monkeypatch.chdir(tmp_path)
    for directory in ("credentials", "container"):
        (tmp_path / directory).mkdir()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "credentials"))
    monkeypatch.setattr(secret_files, "CONTAINER_SECRETS", tmp_path / "container")
    return tmp_path


def put(monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    """Give the broker's URL, with the place as its host, in one place."""
    match place:
        case "environment":
            monkeypatch.setenv(NAME, url(place))
        case "named":
            Path(place).write_text(url(place))
            monkeypatch.setenv(f"{NAME}_FILE", place)
        case "credentials" | "container":
            (Path(place) / NAME.lower()).write_text(url(place))
        case "dotenv":
            Path(".env").write_text(f"{NAME}={url(place)}\n")
        case _:
            Path(place).write_text(url(place))
            Path(".env").write_text(f"{NAME}_FILE={place}\n")


@pytest.mark.parametrize(
    ("places_given", "origin"),
    [
        (["environment", "credentials", "container", "dotenv"], "the environment"),
        (["named", "credentials", "container", "dotenv"], "named"),
        (["credentials", "container", "dotenv"], "{}/credentials/deviceops_amqp_url"),
        (["container", "dotenv"], "{}/container/deviceops_amqp_url"),
        (["dotenv"], ".env"),
        (["named-in-dotenv"], "named-in-dotenv"),
    ],
    ids=lambda given: given[0] if isinstance(given, list) else "",
)
def test_the_first_place_that_has_a_setting_counts(
    monkeypatch: pytest.MonkeyPatch, places: Path, places_given: list[str], origin: str
) -> None:
    for place in places_given:
        put(monkeypatch, place)

    assert Settings.load().amqp_url.get_secret_value() == url(places_given[0])
    assert Settings.origins() == {NAME: origin.format(places)}


def test_every_setting_can_be_kept_in_a_file_also_one_that_is_json(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"BATCH_SIZE": "7", "SERVICES": '{"drift-service": {}}', "VERIFY_USER_ID": "true"}.items():
        Path(name).write_text(f"{value}\n")
        monkeypatch.setenv(f"DEVICEOPS_{name}_FILE", name)

    settings = Settings.load()

    assert (settings.batch_size, list(settings.services or {}), settings.verify_user_id) == (
        7,
        ["drift-service"],
        True,
    )


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_what_an_editor_puts_around_a_value_is_no_part_of_it(
    monkeypatch: pytest.MonkeyPatch, end: str, mark: str
) -> None:
    Path("file").write_bytes(mark.encode() + b"amqp://u:%20p%0A@h/" + end.encode())
    monkeypatch.setenv(f"{NAME}_FILE", "file")
    assert Settings.load().amqp_url.get_secret_value() == "amqp://u:%20p%0A@h/"


def test_other_space_is_part_of_the_value(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("file").write_text("a\n\n")
    monkeypatch.setenv("DEVICEOPS_HTTP_HOST_FILE", "file")
    assert Settings.load().http_host == "a\n"


WRONG = {
    "missing": (None, "cannot be read: No such file or directory"),
    "a directory": ("directory", "cannot be read: Is a directory"),
    "not UTF-8": (b"amqp://\xff/", "is not UTF-8"),
    "UTF-16": ("amqp://h/".encode("utf-16"), "is UTF-16, expected plain text in UTF-8"),
    "UTF-16 without a mark": ("amqp://h/".encode("utf-16-le"), "is UTF-16"),
    "too large": (b"x" * 1_000_001, "has more than 1,000,000 bytes"),
    "no URL": (b"s3cr3t", "is not a broker URL"),
}


@pytest.mark.parametrize("place", ["named", "credentials", "container"])
@pytest.mark.parametrize("case", WRONG)
def test_a_file_that_is_of_no_use_is_an_error_that_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, place: str, case: str
) -> None:
    content, expected = WRONG[case]
    path = Path("file" if place == "named" else f"{place}/{NAME.lower()}")
    monkeypatch.setenv(f"{NAME}_FILE", "file" if place == "named" else "")
    if content == "directory":
        path.mkdir()
    elif isinstance(content, bytes):
        path.write_bytes(content)
    elif place != "named":
        path.symlink_to("nowhere")

    with pytest.raises(SettingsError, match=f"^{NAME}: .*{expected}") as raised:
        Settings.load()

    assert "s3cr3t" not in str(raised.value)


@pytest.mark.parametrize("in_env_file", [False, True])
def test_a_value_and_its_file_at_once_are_an_error_that_names_both(
    monkeypatch: pytest.MonkeyPatch, in_env_file: bool
) -> None:
    Path("file").write_text(url("h"))
    if in_env_file:
        Path(".env").write_text(f"{NAME}={url('h')}\n{NAME}_FILE=file\n")
    else:
        monkeypatch.setenv(NAME, url("h"))
        monkeypatch.setenv(f"{NAME}_FILE", "file")

    with pytest.raises(SettingsError, match=f"^{NAME} and {NAME}_FILE are both set"):
        Settings.load()


@pytest.mark.parametrize(
    "given",
    [
        "amqp://u:s3@cr3t@h/",
        "amqp://u:12/s3cr3t@h/",
        "amqp://u:12?s3cr3t@h/",
        "amqp://u:12#s3cr3t@h/",
        "amqp://h/?s3cr3t=1",
    ],
)
def test_a_broker_url_that_would_show_a_part_of_its_password_is_refused(
    monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    monkeypatch.setenv(NAME, given)
    with pytest.raises(SettingsError, match=NAME) as raised:
        Settings.load()
    assert ("cr3t" in str(raised.value)) == given.endswith("=1")  # a parameter's name is no secret


@pytest.mark.parametrize("given", ["u:s3@cr3t@h/d", "u:s3@cr3t/x@h/d", "u:s3@cr3t?x@h/d", "u:p@h:cr3t/d"])
def test_a_database_url_that_would_show_a_part_of_its_password_is_refused(
    monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    monkeypatch.setenv("DEVICEOPS_DATABASE_URL", f"postgresql://{given}")
    with pytest.raises(SettingsError, match="DEVICEOPS_DATABASE_URL") as raised:
        Settings.load()
    assert "cr3t" not in str(raised.value)
