"""Names that try to be paths: no route, body, command or setting reads, writes or removes what lies outside."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click
import pytest
import pytest_asyncio

from ktrdr.artifacts import FileArtifactStore
from ktrdr.cli.options import a_name
from ktrdr.errors import InvalidSetting, KtrdrError
from ktrdr.operations.model import WorkerType
from ktrdr.strategies import StrategyLibrary, example_root
from ktrdr.workers.identity import claim_identity
from support.control_plane import ControlPlane
from support.hostile_paths import traversals

PATHS = traversals()
CANARY = "canary-6f1d"
ROUTES = [
    "GET /strategies/{}",
    "PUT /strategies/{}",
    "GET /models/{}",
    "GET /models/{}/signal",
    "GET /data/{}/1d",
    "GET /data/SP500/{}",
    "DELETE /data/{}/1d",
    "GET /artifacts/{}",
    "PUT /artifacts/{}",
    "GET /operations/{}",
    "GET /operations/{}/logs",
    "GET /operations/{}/results/{}",
    "DELETE /operations/{}",
    "DELETE /workers/{}",
    "DELETE /tokens/{}",
]
BODIES = [
    ("/trainings/start", "strategy_name"),
    ("/trainings/start", "strategy_config_path"),
    ("/backtests/start", "strategy_name"),
    ("/backtests/start", "strategy_config_path"),
    ("/backtests/start", "model_id"),
    ("/backtests/start", "model_path"),
    ("/tokens", "name"),
]


def secret(name: str = "secret") -> str:
    """A document that is a valid strategy and holds the canary."""
    text = (example_root() / "sp500_trend.yaml").read_text()
    return text.replace("sp500_trend", name).replace("description:", f"description: {CANARY}", 1)


@pytest_asyncio.fixture
async def plane(tmp_path: Path, stocked_home: Path) -> AsyncIterator[ControlPlane]:
    """A backend whose home lies among files that are none of its business."""
    home = tmp_path / "outer" / "home"
    shutil.copytree(stocked_home, home)
    (home / "strategies").mkdir()
    for folder in (tmp_path, tmp_path / "outer", home, home / "market", home / "artifacts"):
        for name in ("secret", "secret.yaml", "secret.log"):
            (folder / name).write_text(secret())
    (home / "strategies" / "link").symlink_to(tmp_path)
    (home / "strategies" / "linked.yaml").symlink_to(tmp_path / "secret.yaml")
    async with ControlPlane(home).running() as running:
        yield running


def outside(home: Path) -> dict[str, bytes]:
    """All files but those that a backend may write."""
    root = home.parent.parent
    own = [home / name for name in ("audit", "uploads", "job-logs", "strategies")]
    return {
        str(path): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and not any(path.is_relative_to(folder) for folder in own)
    }


def test_there_are_many_and_each_is_another() -> None:
    assert len(PATHS) >= 400
    assert len(set(PATHS)) == len(PATHS)


def requests() -> Iterator[tuple[str, str]]:
    for route in ROUTES:
        method, path = route.split()
        for text in PATHS:
            yield method, path.replace("{}", quote(text, safe=""))  # arrives as it stands
            if "%" in text and text.isascii() and text.isprintable() and not set(text) & set(" ?#"):
                yield method, path.replace("{}", text)  # one decoding more


async def test_no_route_leads_out(plane: ControlPlane) -> None:
    before, count = outside(plane.config.home), 0
    for method, path in requests():
        if method == "PUT" and path.startswith("/strategies"):
            body: Any = {"strategy": secret("x"), "overwrite": True}
        else:
            body = None
        answer = await plane.ask(method, f"/api/v1{path}", body)
        assert 400 <= answer.status < 500, (method, path, answer.status, answer.body[:200])
        assert CANARY.encode() not in answer.body, (method, path)
        assert answer.headers["content-type"] == "application/problem+json"
        count += 1
    assert count >= 15 * len(PATHS)
    assert outside(plane.config.home) == before
    assert sorted(path.name for path in (plane.config.home / "strategies").iterdir()) == [
        "link",
        "linked.yaml",
    ]
    assert (await plane.ask("GET", "/health")).status == 200


@pytest.mark.parametrize(("route", "field"), BODIES)
async def test_no_body_leads_out(plane: ControlPlane, route: str, field: str) -> None:
    before = outside(plane.config.home)
    for text in PATHS:
        body: dict[str, Any] = {field: text}
        if field.startswith("model"):
            body["strategy_name"] = "sp500_trend"
        if route == "/tokens":
            body["scopes"] = ["read"]
        answer = await plane.ask("POST", f"/api/v1{route}", body)
        assert 400 <= answer.status < 500, (text, answer.status, answer.body[:200])
        assert CANARY.encode() not in answer.body, text
    assert outside(plane.config.home) == before
    assert (await plane.api("GET", "/operations"))["total"] == 0


async def test_a_link_out_of_the_folder_is_not_followed(plane: ControlPlane) -> None:
    assert (await plane.ask("GET", "/api/v1/strategies/linked")).status == 404
    names = [item["name"] for item in (await plane.api("GET", "/strategies"))["items"]]
    assert "linked" not in names
    assert "secret" not in names


async def test_no_upload_is_written_elsewhere(plane: ControlPlane) -> None:
    before = outside(plane.config.home)
    for text in PATHS[::4]:
        for query in (
            f"symbol={quote(text)}&timeframe=1d&filename=x.csv",
            f"symbol=X&timeframe=1d&filename={quote(text)}",
        ):
            answer = await plane.ask(
                "POST", f"/api/v1/data/import?{query}", content_type="application/octet-stream"
            )
            assert 400 <= answer.status < 500, (query, answer.status)
    assert outside(plane.config.home) == before
    assert not list((plane.config.home / "uploads").glob("*"))


@pytest.mark.parametrize("text", [*PATHS[:: len(PATHS) // 60], ".", "..", "...."])
def test_the_command_line_puts_none_into_a_url(text: str) -> None:
    with pytest.raises(click.BadParameter):
        a_name(click.Context(click.Command("x")), click.Argument(["x"]), text)


def test_no_name_leads_out_of_libraries_stores_and_homes(tmp_path: Path) -> None:
    (tmp_path / "secret.yaml").write_text(secret())
    inner = tmp_path / "a" / "b"
    library, store = StrategyLibrary([inner / "strategies"]), FileArtifactStore(inner / "artifacts")
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    for text in PATHS:
        with pytest.raises(KtrdrError):
            library.text(text)
        with pytest.raises(KtrdrError):
            library.save(text, secret(text))
        with pytest.raises(KtrdrError):
            store.path(text)
        with pytest.raises(InvalidSetting):
            claim_identity(inner, WorkerType.TRAINING, text)
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == before
