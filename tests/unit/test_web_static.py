"""Files that browsers get: copies that are what their table says, all at addresses of this server."""

import re
from hashlib import sha256
from pathlib import Path

import pytest

import worker.pages
from worker.pages import static_files

FOLDER = Path(worker.pages.__file__).parent / "static"
TEMPLATES = FOLDER.parent / "templates"
OURS = {"again.js", "page.js", "page.css", "operation.css", "icon.svg"}
ROW = re.compile(r"^\| `(?P<file>[^`]+)` .* `(?P<hash>[0-9a-f]{64})` \|$", re.MULTILINE)


def test_the_copies_are_those_that_the_table_names_and_have_a_licence() -> None:
    table = {row["file"]: row["hash"] for row in ROW.finditer((FOLDER / "README.md").read_text())}
    copies = {path.name for path in FOLDER.iterdir()} - OURS - {"README.md"}
    assert copies == table.keys() | {name.replace(".min.js", ".LICENSE") for name in table}
    for name, digest in table.items():
        assert sha256((FOLDER / name).read_bytes()).hexdigest() == digest


def test_an_address_changes_with_the_content() -> None:
    digest = sha256((FOLDER / "page.css").read_bytes()).hexdigest()
    assert static_files.address("page.css") == f"/static/{digest[:16]}/page.css"
    with pytest.raises(KeyError):
        static_files.address("README.md")


def test_nothing_of_ours_names_another_host_or_needs_more_than_the_policy_allows() -> None:
    ours = [*TEMPLATES.iterdir(), *(FOLDER / name for name in OURS - {"icon.svg"})]
    assert len(ours) > 10
    for path in ours:
        text = path.read_text()
        assert re.findall(r"(?:https?:)?//[a-z]", re.sub(r"^\s*//.*$", "", text, flags=re.MULTILINE)) == [], path
        assert re.findall(r"<[^>]*\s(?:style|on\w+)=", text) == [], path
        assert re.findall(r"<style|<script(?! src=)|\|\s*safe|javascript:|eval\(|innerHTML\s*=", text) == [], path
