"""Data, models, strategies, indicators and artifacts over HTTP."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path
from typing import Any

import pytest

from ktrdr.protocol.transports import Answer
from ktrdr.strategies import StrategyLibrary, example_root, starter
from support.control_plane import BACKEND, ControlPlane
from support.models import add_model

CSV = b"time,open,high,low,close,volume\n" + b"".join(
    f"2020-01-{day:02d},10,12,9,11,5\n".encode() for day in (2, 3, 6, 7, 8, 9, 10)
)
QUERY = "symbol=ABC&timeframe=1d&filename=abc.csv"


async def _send(
    plane: ControlPlane, method: str, path: str, body: bytes, pieces: int = 1, **headers: str
) -> Answer:
    """A request with raw bytes, in several pieces."""
    app = plane.apps[BACKEND]
    path, _, query = path.partition("?")
    sent = {
        "host": "127.0.0.1:8000",
        "content-type": "application/octet-stream",
        "content-length": str(len(body)),
    }
    sent |= {k.replace("_", "-"): v for k, v in headers.items()}
    scope = {
        "type": "http",
        "method": method,
        "path": f"/api/v1{path}",
        "raw_path": b"",
        "root_path": "",
        "scheme": "http",
        "http_version": "1.1",
        "query_string": query.encode(),
        "headers": [(k.encode(), v.encode()) for k, v in sent.items() if v],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8000),
    }
    step = max(1, -(-len(body) // pieces))
    inbox = [
        {"type": "http.request", "body": body[i : i + step], "more_body": i + step < len(body)}
        for i in range(0, max(len(body), 1), step)
    ]
    outbox: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return inbox.pop(0) if inbox else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        outbox.append(message)

    await app(scope, receive, send)
    found = {k.decode(): v.decode() for k, v in outbox[0]["headers"]}
    return Answer(outbox[0]["status"], found, b"".join(m.get("body", b"") for m in outbox[1:]))


# --- data -----------------------------------------------------------------------------------------------------------


async def test_import_list_show_delete(plane: ControlPlane) -> None:
    answer = await _send(plane, "POST", f"/data/import?{QUERY}", CSV, pieces=5)
    view = answer.json()
    assert (answer.status, view["symbol"], view["timeframe"], view["rows"]) == (200, "ABC", "1d", 7)
    assert view["source"] == "file abc.csv"
    assert "7 of 7 rows kept" in view["report"][0]
    listed = await plane.api("GET", "/data")
    assert (listed["total"], listed["items"][0]["symbol"]) == (1, "ABC")
    shown = await plane.api("GET", "/data/ABC/1d")
    assert shown == listed["items"][0]
    assert (await plane.ask("DELETE", "/api/v1/data/ABC/1d")).status == 204
    assert (await plane.ask("GET", "/api/v1/data/ABC/1d")).status == 404
    assert not list(plane.backend.scratch().iterdir())


async def test_compressed_files_and_calendars(plane: ControlPlane) -> None:
    path = "/data/import?symbol=ABC&timeframe=1d&filename=abc.csv.gz&calendar=24/7&policy=quarantine"
    answer = await _send(plane, "POST", path, gzip.compress(CSV))
    assert (answer.status, answer.json()["calendar"]) == (200, "24/7")


async def test_a_file_with_faults_is_refused_by_row_and_nothing_is_kept(plane: ControlPlane) -> None:
    bad = CSV.replace(b"2020-01-07,10,12", b"2020-01-07,10,8")
    answer = await _send(plane, "POST", f"/data/import?{QUERY}", bad)
    problem = answer.json()
    assert (answer.status, problem["type"]) == (422, "urn:ktrdr:problem:invalid-bars")
    assert any("row 5" in e["pointer"] for e in problem["errors"])
    assert problem["detail"].startswith(
        "abc.csv cannot be imported"
    )  # not the path where it was kept meanwhile
    assert (await plane.api("GET", "/data"))["total"] == 0
    assert not list(plane.backend.scratch().iterdir())


@pytest.mark.parametrize(
    ("query", "body", "words"),
    [
        ("symbol=ABC&timeframe=7d&filename=a.csv", CSV, "Unknown timeframe"),
        ("symbol=../x&timeframe=1d&filename=a.csv", CSV, "../x"),
        ("symbol=ABC&timeframe=1d&filename=/", CSV, "not the name of a file"),
        ("symbol=ABC&timeframe=1d&filename=..", CSV, "not the name of a file"),
        ("symbol=ABC&timeframe=1d&filename=a%00.csv", CSV, "not the name of a file"),
        ("symbol=ABC&timeframe=1d&filename=" + "%C3%A9" * 200, CSV, "not the name of a file"),
        ("symbol=ABC&timeframe=1d&filename=a.csv&policy=hope", CSV, "policy"),
        (QUERY, b"", "no body"),
        ("symbol=ABC&filename=a.csv", CSV, "timeframe"),
    ],
)
async def test_imports_that_are_refused(plane: ControlPlane, query: str, body: bytes, words: str) -> None:
    answer = await _send(plane, "POST", f"/data/import?{query}", body)
    assert answer.status == 422
    assert words in answer.body.decode()


async def test_a_file_name_leads_nowhere(plane: ControlPlane, tmp_path: Path) -> None:
    query = "symbol=ABC&timeframe=1d&filename=../../../evil.csv"
    answer = await _send(plane, "POST", f"/data/import?{query}", CSV)
    assert answer.json()["source"] == "file evil.csv"
    assert _found(tmp_path, "evil.csv") == []


def _found(root: Path, name: str) -> list[Path]:
    return list(root.rglob(name))


async def test_an_upload_that_breaks_off_imports_nothing(plane: ControlPlane) -> None:
    answer = await _send(plane, "POST", f"/data/import?{QUERY}", b"", content_length="100")
    assert answer.status == 422
    assert (await plane.api("GET", "/data"))["total"] == 0


async def test_samples(plane: ControlPlane) -> None:
    first = await plane.api("POST", "/data/samples")
    assert [(i["symbol"], i["timeframe"]) for i in first["items"]] == [
        ("SP500", "1d"),
        ("NASDAQ", "1d"),
        ("EURUSD", "1h"),
    ]
    assert await plane.api("POST", "/data/samples") == first
    problem = (await plane.ask("GET", "/api/v1/data/SP50/1d")).json()
    assert "ktrdr data import" in problem["detail"]


# --- artifacts ------------------------------------------------------------------------------------------------------


def _sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


async def test_an_artifact_goes_in_and_comes_out(plane: ControlPlane) -> None:
    content = bytes(range(256)) * 20_000
    path = f"/artifacts/{_sha(content)}"
    assert (await plane.ask("HEAD", f"/api/v1{path}")).status == 404
    assert (await _send(plane, "PUT", path, content, pieces=40)).status == 201
    assert (await _send(plane, "PUT", path, content)).status == 200
    answer = await plane.ask("GET", f"/api/v1{path}")
    assert answer.body == content
    assert answer.headers["etag"] == f'"{_sha(content)}"'
    head = await plane.ask("HEAD", f"/api/v1{path}")
    assert (head.status, head.headers["content-length"], head.body) == (200, str(len(content)), b"")
    part = await plane.ask("GET", f"/api/v1{path}", range="bytes=10-19")
    assert (part.status, part.body) == (206, content[10:20])
    same = await plane.ask("GET", f"/api/v1{path}", if_none_match=f'"{_sha(content)}"')
    assert same.status == 304


async def test_an_empty_artifact(plane: ControlPlane) -> None:
    assert (await _send(plane, "PUT", f"/artifacts/{_sha(b'')}", b"")).status == 201
    assert (await plane.ask("GET", f"/api/v1/artifacts/{_sha(b'')}")).body == b""


async def test_bytes_of_another_digest_are_refused(plane: ControlPlane) -> None:
    answer = await _send(plane, "PUT", f"/artifacts/{'a' * 64}", b"something")
    assert answer.status == 422
    assert not list(plane.backend.artifacts.digests())


async def test_a_body_shorter_than_declared_is_refused(plane: ControlPlane) -> None:
    answer = await _send(plane, "PUT", f"/artifacts/{_sha(b'some')}", b"some", content_length="400")
    assert answer.status == 422
    assert "400 bytes were declared" in answer.json()["detail"]
    assert not list(plane.backend.artifacts.digests())


async def test_the_size_must_be_declared_and_within_the_limit(plane: ControlPlane) -> None:
    answer = await _send(
        plane, "PUT", f"/artifacts/{'a' * 64}", b"x", content_length="", transfer_encoding="chunked"
    )
    assert answer.status == 411
    answer = await _send(plane, "PUT", f"/artifacts/{'a' * 64}", b"x", content_length=str(1 << 40))
    assert answer.status == 413


@pytest.mark.parametrize("name", ["A" * 64, "abc", "a" * 63 + "/", "..%2f..%2fetc"])
async def test_what_is_no_digest_is_refused(plane: ControlPlane, name: str) -> None:
    assert (await plane.ask("GET", f"/api/v1/artifacts/{name}")).status in (404, 422)


async def test_damaged_bytes_are_not_sent(plane: ControlPlane) -> None:
    digest = plane.put(b"good")
    plane.backend.artifacts.location(digest).write_bytes(b"bad!")
    answer = await plane.ask("GET", f"/api/v1/artifacts/{digest}")
    assert (answer.status, answer.json()["type"]) == (500, "urn:ktrdr:problem:corrupt-artifact")
    assert (await plane.ask("HEAD", f"/api/v1/artifacts/{digest}")).status == 500
    assert (await _send(plane, "PUT", f"/artifacts/{digest}", b"good")).status == 201
    assert (await plane.ask("GET", f"/api/v1/artifacts/{digest}")).body == b"good"


# --- strategies and indicators --------------------------------------------------------------------------------------


async def test_strategies_list_show_and_save(plane: ControlPlane) -> None:
    names = [s["name"] for s in (await plane.api("GET", "/strategies"))["items"]]
    assert names == sorted(StrategyLibrary([example_root()]).names())
    text = starter("mine")
    saved = await plane.api("PUT", "/strategies/mine", {"strategy": text})
    assert (saved["name"], saved["text"]) == ("mine", text)
    assert (await plane.api("GET", "/strategies/mine"))["text"] == text
    assert (await plane.ask("PUT", "/api/v1/strategies/mine", {"strategy": text})).status == 409
    await plane.api("PUT", "/strategies/mine", {"strategy": text, "overwrite": True})
    assert (await plane.ask("PUT", "/api/v1/strategies/other", {"strategy": text})).status == 422
    assert (await plane.ask("GET", "/api/v1/strategies/mime")).status == 404


async def test_a_stored_strategy_with_faults_says_so(plane: ControlPlane) -> None:
    root = plane.config.strategy_roots[0]
    root.mkdir(parents=True)
    (root / "broken.yaml").write_text("name: broken\n")
    items = {s["name"]: s for s in (await plane.api("GET", "/strategies"))["items"]}
    assert "fault" in items["broken"]["error"]
    assert items["sp500_trend"]["error"] is None
    shown = await plane.api("GET", "/strategies/broken")
    assert shown["text"] == "name: broken\n"


async def test_validating(plane: ControlPlane) -> None:
    text = StrategyLibrary([example_root()]).text("eurusd_two_timeframes")
    check = await plane.api("POST", "/strategies/validate", {"strategy": text})
    assert (check["valid"], check["timeframes"]) == (True, ["1h", "1d"])
    assert set(check["warmup"]) == {"1h", "1d"}
    assert check["features"]
    answer = await plane.ask("POST", "/api/v1/strategies/validate", {"strategy": "name: x\nnam: y\n"})
    assert (answer.status, answer.json()["type"]) == (422, "urn:ktrdr:problem:invalid-strategy")
    assert any(e.get("line") == 2 for e in answer.json()["errors"])


async def test_indicators(plane: ControlPlane) -> None:
    items = {i["name"]: i for i in (await plane.api("GET", "/indicators"))["items"]}
    assert {"rsi", "ema", "macd", "bollinger", "obv"} <= set(items)
    assert items["rsi"]["bounds"] == [0.0, 100.0]
    (period,) = [p for p in items["rsi"]["parameters"] if p["name"] == "period"]
    assert (period["default"], period["kind"]) == (14, "int")


# --- models ---------------------------------------------------------------------------------------------------------


async def test_models_list_and_show(plane: ControlPlane) -> None:
    assert (await plane.api("GET", "/models"))["items"] == []
    model = await add_model(plane)
    (item,) = (await plane.api("GET", "/models?strategy_name=sp500_trend"))["items"]
    assert item == await plane.api("GET", f"/models/{model.model_id}")
    assert (item["model_id"], item["bundle"]) == (model.model_id, model.bundle_digest)
    assert (await plane.api("GET", "/models?strategy_name=other"))["total"] == 0
    problem = (await plane.ask("GET", "/api/v1/models/sp500_trend-1")).json()
    assert problem["status"] == 404


async def test_a_signal_needs_data_and_a_model(stocked: ControlPlane) -> None:
    model = await add_model(stocked)
    assert (await stocked.ask("GET", "/api/v1/models/none/signal")).status == 404
    answer = await stocked.ask("GET", f"/api/v1/models/{model.model_id}/signal?symbol=NOPE")
    assert answer.status == 404
    # the bundle's network file was never stored here
    answer = await stocked.ask("GET", f"/api/v1/models/{model.model_id}/signal")
    assert (answer.status, "artifact" in answer.json()["detail"]) == (404, True)


async def test_a_signal_on_the_newest_bar(stocked: ControlPlane) -> None:
    model = await add_model(stocked, network=True)
    said = await stocked.api("GET", f"/models/{model.model_id}/signal")
    assert (said["symbol"], said["timeframe"], said["model_id"]) == ("SP500", "1d", model.model_id)
    assert (said["bar_opened_at"][:10], said["time"]) == ("2018-12-31", "2018-12-31T21:00:00Z")
    assert sum(said["probabilities"].values()) == pytest.approx(1.0, abs=1e-5)
    assert said["confidence"] == max(said["probabilities"].values())
    assert all(0.0 <= value <= 1.0 for value in said["memberships"].values())
    other = await stocked.api("GET", f"/models/{model.model_id}/signal?symbol=NASDAQ")
    assert other["symbol"] == "NASDAQ"


async def test_health_needs_nothing(plane: ControlPlane) -> None:
    answer = (await plane.ask("GET", "/health")).json()
    assert answer == {
        "status": "healthy",
        "version": plane.config.version,
        "workers": 0,
        "paused": [],
        "role": "leader",
        "epoch": None,
    }
