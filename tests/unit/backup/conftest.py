"""One backup for the tests that tear it, and a place that must stay empty."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ktrdr.backup.create import create_backup
from support.homes import fill

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    asyncio.run(fill(folder / "home", None))
    return create_backup(folder / "home", None, folder / "b.tar", version="1", now=NOW)[0]


@pytest.fixture
def nowhere(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "new"
    assert not (tmp_path / "new").exists(), "something was written"
