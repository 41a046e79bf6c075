"""A running control plane for each test, empty or with the bundled data and a model."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from ktrdr.artifacts import FileArtifactStore
from ktrdr.market.samples import install_samples
from ktrdr.market.store import MarketStore
from support.control_plane import ControlPlane


@pytest_asyncio.fixture
async def plane(tmp_path: Path) -> AsyncIterator[ControlPlane]:
    async with ControlPlane(tmp_path).running() as running:
        yield running


@pytest.fixture(scope="session")
def stocked_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("stocked")
    install_samples(MarketStore(home / "market", FileArtifactStore(home / "artifacts")))
    return home


@pytest_asyncio.fixture
async def stocked(tmp_path: Path, stocked_home: Path) -> AsyncIterator[ControlPlane]:
    """With the bundled data, and a worker of each type."""
    home = tmp_path / "home"
    shutil.copytree(stocked_home, home)
    async with ControlPlane(home).running() as running:
        await running.join("b1")
        await running.join("t1", "training")
        yield running
