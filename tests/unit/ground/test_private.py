"""What is for one user stays so under the usual umask, and what exists keeps its mode."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ktrdr.private import private_file, private_folder


@pytest.fixture(autouse=True)
def usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_every_folder_that_is_made_is_for_its_user_and_what_was_there_stays(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir(mode=0o755)
    made = private_folder(tmp_path / "open" / "home" / "logs")
    assert [mode(folder) for folder in (made, made.parent, made.parent.parent)] == [0o700, 0o700, 0o755]
    assert private_folder(tmp_path / "open") == tmp_path / "open"
    assert mode(tmp_path / "open") == 0o755


def test_a_file_in_the_way_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        private_folder(tmp_path / "file")
    with pytest.raises(NotADirectoryError):
        private_folder(tmp_path / "file" / "below")


def test_a_file_is_for_its_user_from_the_first_byte(tmp_path: Path) -> None:
    with open(tmp_path / "log", "ab", opener=private_file) as file:
        assert mode(tmp_path / "log") == 0o600
        file.write(b"x")
    (tmp_path / "log").chmod(0o640)
    with open(tmp_path / "log", "ab", opener=private_file):
        assert mode(tmp_path / "log") == 0o640
