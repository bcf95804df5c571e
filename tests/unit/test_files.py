"""Files that take the place of others once they are whole."""

import os
from pathlib import Path
from threading import Thread

import pytest

from worker.errors import DeviceopsError
from worker.files import replaced


def test_a_file_is_replaced_when_it_is_whole(tmp_path: Path) -> None:
    path, link = tmp_path / "file", tmp_path / "link"
    path.write_text("before")
    link.symlink_to(path)
    with replaced(str(link)) as stream:
        stream.write(b"after")
        stream.flush()
        assert path.read_text() == "before"
    assert (path.read_text(), link.is_symlink()) == ("after", True)
    assert {each.name for each in tmp_path.iterdir()} == {"file", "link"}


@pytest.mark.parametrize("error", [DeviceopsError("lost"), KeyboardInterrupt()])
@pytest.mark.parametrize("before", [None, "before"])
def test_a_file_stays_as_it_was_if_the_new_one_is_not_whole(
    tmp_path: Path, error: BaseException, before: str | None
) -> None:
    path = tmp_path / "file"
    if before is not None:
        path.write_text(before)

    def write_some() -> None:
        with replaced(str(path)) as stream:
            stream.write(b"after")
            raise error

    with pytest.raises(type(error)):
        write_some()
    assert [each.name for each in tmp_path.iterdir()] == ([] if before is None else ["file"])
    assert before is None or path.read_text() == before


def test_a_pipe_is_written_and_stays_a_pipe(tmp_path: Path) -> None:
    path, read = tmp_path / "pipe", list[str]()
    os.mkfifo(path)
    reader = Thread(target=lambda: read.append(path.read_text()))
    reader.start()
    with replaced(str(path)) as stream:
        stream.write(b"after")
    reader.join(10)
    assert read == ["after"]
    assert path.is_fifo()


def test_a_folder_that_is_missing_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "file"
    with pytest.raises(DeviceopsError, match=f"{path}: No such file"), replaced(str(path)):
        pass
