"""Tokens of the ledger: shown once, kept as a hash, recognised, expired, revoked."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from ktrdr.backend.access.tokens import TokenBook
from ktrdr.clock import Clock
from ktrdr.errors import NotAuthorised, Unavailable
from ktrdr.operations.memory.access import MemoryAccess
from ktrdr.operations.sql.ledger import SqlStore
from ktrdr.operations.tokens import Scope, read_token
from ktrdr.testing.clock import FakeClock
from support.control_plane import ControlPlane, calm

ADMIN = {"authorization": "Bearer bootstrap-word"}


@pytest_asyncio.fixture
async def secured(tmp_path: Path) -> AsyncIterator[ControlPlane]:
    plane = ControlPlane(tmp_path)
    plane.config = dataclasses.replace(plane.config, api_token="bootstrap-word", loopback_only=False)
    async with plane.running():
        yield plane


def book(ledger: MemoryAccess, clock: Clock) -> TokenBook:
    return TokenBook(ledger, clock)


async def test_a_token_is_shown_once_and_kept_as_a_hash(tmp_path: Path) -> None:
    plane = ControlPlane(tmp_path, store=SqlStore(tmp_path / "ledger.db"))
    plane.config = dataclasses.replace(plane.config, api_token="bootstrap-word", loopback_only=False)
    async with plane.running():
        body = {"name": "ci", "scopes": ["submit"], "expires_in_s": 3600}
        answer = await plane.ask("POST", "/api/v1/tokens", body, **ADMIN)
        assert answer.status == 201
        assert answer.headers["location"] == "/api/v1/tokens/ci"
        assert answer.headers["cache-control"] == "no-store"
        made = json.loads(answer.body)
        token = made["token"]
        assert len(bytes.fromhex(token.rpartition("_")[2])) * 8 == 256
        assert made["created_by"] == "bootstrap"
        (record,) = await plane.store.access.tokens()
        assert record.digest == hashlib.sha256(token.encode()).hexdigest()
        listed = await plane.ask("GET", "/api/v1/tokens", **ADMIN)
        assert token.rpartition("_")[2].encode() not in listed.body
    assert not holding(tmp_path, token.rpartition("_")[2])
    assert holding(tmp_path, record.digest)


def holding(folder: Path, text: str) -> list[Path]:
    """Files that contain this text."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path for path in files if text.encode() in path.read_bytes()]


async def test_a_token_opens_until_it_is_revoked(secured: ControlPlane) -> None:
    made = await secured.api("POST", "/tokens", {"name": "r", "scopes": ["read"]}, **ADMIN)
    mine = {"authorization": f"Bearer {made['token']}"}
    assert (await secured.ask("GET", "/api/v1/operations", **mine)).status == 200
    assert (await secured.ask("DELETE", "/api/v1/tokens/r", **mine)).status == 403
    assert (await secured.ask("DELETE", "/api/v1/tokens/r", **ADMIN)).status == 204
    assert (await secured.ask("GET", "/api/v1/operations", **mine)).status == 401
    assert (await secured.ask("DELETE", "/api/v1/tokens/r", **ADMIN)).status == 404


async def test_an_expired_token_says_since_when(secured: ControlPlane) -> None:
    body = {"name": "short", "scopes": ["read"], "expires_in_s": 60}
    made = await secured.api("POST", "/tokens", body, **ADMIN)
    mine = {"authorization": f"Bearer {made['token']}"}
    secured.clock.advance(59)
    assert (await secured.ask("GET", "/api/v1/operations", **mine)).status == 200
    secured.clock.advance(1)
    answer = await secured.ask("GET", "/api/v1/operations", **mine)
    assert answer.status == 401
    assert "The token 'short' expired at " in json.loads(answer.body)["detail"]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"name": "x", "scopes": []}, "/scopes"),
        ({"name": "x", "scopes": ["root"]}, "/scopes/0"),
        ({"name": "../x", "scopes": ["read"]}, "/name"),
        ({"name": "loopback", "scopes": ["read"]}, "/name"),
        ({"name": "bootstrap", "scopes": ["read"]}, "/name"),
        ({"name": "x", "scopes": ["read"], "expires_in_s": 0}, "/expires_in_s"),
        ({"name": "x", "scopes": ["read"], "expires_in_s": 1e12}, "/expires_in_s"),
        ({"name": "x", "scopes": ["read"], "token": "mine"}, "/token"),
    ],
)
async def test_what_cannot_be_a_token_is_refused(secured: ControlPlane, body: Any, pointer: str) -> None:
    answer = await secured.ask("POST", "/api/v1/tokens", body, **ADMIN)
    assert answer.status == 422
    assert json.loads(answer.body)["errors"][0]["pointer"] == pointer
    assert await secured.store.access.tokens() == ()


async def test_a_name_is_given_once(secured: ControlPlane) -> None:
    await secured.api("POST", "/tokens", {"name": "x", "scopes": ["read"]}, **ADMIN)
    answer = await secured.ask("POST", "/api/v1/tokens", {"name": "x", "scopes": ["admin"]}, **ADMIN)
    assert answer.status == 409
    assert "ktrdr tokens revoke x" in json.loads(answer.body)["detail"]


async def test_the_last_use_is_noted_to_the_hour() -> None:
    ledger, clock = MemoryAccess(), FakeClock()
    tokens = book(ledger, clock)
    _, text = await tokens.create("ci", [Scope.READ], None, "bootstrap")
    made_at = clock.now()
    for seconds, hours in ((0, 0), (600, 0), (2999, 0), (1, 1)):
        clock.advance(seconds)
        assert await tokens.principal(text) is not None
        await calm()
        (record,) = await ledger.tokens()
        assert record.last_used_at is not None
        assert (record.last_used_at - made_at).total_seconds() == 3600 * hours


async def test_another_backends_changes_are_seen_within_two_seconds() -> None:
    ledger, clock = MemoryAccess(), FakeClock()
    here, there = book(ledger, clock), book(ledger, clock)
    _, first = await there.create("first", [Scope.READ], None, "bootstrap")
    assert await here.principal(first) is not None
    _, second = await there.create("second", [Scope.READ], None, "bootstrap")
    await there.revoke("first")
    assert await there.principal(first) is None
    clock.advance(2.0)
    assert await here.principal(first) is None
    assert await here.principal(second) is not None


class Away(MemoryAccess):
    away = False

    async def tokens(self) -> Any:
        if self.away:
            raise Unavailable("The database does not answer.")
        return await super().tokens()


async def test_while_the_ledger_is_away_known_tokens_hold() -> None:
    ledger, clock = Away(), FakeClock()
    tokens = book(ledger, clock)
    _, text = await tokens.create("ci", [Scope.READ], None, "bootstrap")
    assert await tokens.principal(text) is not None
    ledger.away = True
    clock.advance(60)
    assert await tokens.principal(text) is not None
    with pytest.raises(Unavailable):
        await book(ledger, clock).principal(text)


class SlowAnswer(MemoryAccess):
    """While ``gate`` is closed, what was read arrives later than what was written meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.gate.set()

    async def tokens(self) -> Any:
        found = await super().tokens()
        await self.gate.wait()
        return found


async def test_what_was_read_before_a_change_undoes_none() -> None:
    ledger, clock = SlowAnswer(), FakeClock()
    tokens = book(ledger, clock)
    _, old = await tokens.create("old", [Scope.READ], None, "bootstrap")
    assert await tokens.principal(old) is not None
    clock.advance(2.0)
    ledger.gate.clear()
    asking = asyncio.create_task(tokens.principal(old))
    await calm()
    await tokens.revoke("old")
    _, new = await tokens.create("new", [Scope.READ], None, "bootstrap")
    ledger.gate.set()
    assert await asking is None
    assert await tokens.principal(old) is None
    assert await tokens.principal(new) is not None


async def test_one_wrong_digit_is_another_token() -> None:
    tokens = book(MemoryAccess(), FakeClock())
    _, text = await tokens.create("ci", [Scope.READ], 60, "bootstrap")
    last = "0" if text[-1] != "0" else "1"
    for wrong in (
        text[:-1] + last,
        text + "0",
        text[:-1],
        text.upper(),
        f" {text}",
        text + "\n",
        read_token(text),
    ):
        assert await tokens.principal(str(wrong)) is None


async def test_expiry_is_told_to_the_holder_alone() -> None:
    clock = FakeClock()
    tokens = book(MemoryAccess(), clock)
    _, text = await tokens.create("ci", [Scope.READ], 60, "bootstrap")
    clock.advance(61)
    with pytest.raises(NotAuthorised, match="'ci' expired"):
        await tokens.principal(text)
    last = "0" if text[-1] != "0" else "1"
    assert await tokens.principal(text[:-1] + last) is None


async def test_on_open_loopback_a_token_speaks_for_itself(plane: ControlPlane) -> None:
    made = await plane.api("POST", "/tokens", {"name": "r", "scopes": ["read"]})
    assert made["created_by"] == "loopback"
    mine = {"authorization": f"Bearer {made['token']}"}
    assert (await plane.ask("DELETE", "/api/v1/tokens/r", **mine)).status == 403
    assert (await plane.ask("GET", "/api/v1/operations", **mine)).status == 200
    assert (await plane.ask("GET", "/api/v1/operations", authorization="Bearer anything")).status == 200
