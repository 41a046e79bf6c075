"""Certificates that are renewed under a running server and under a client that goes on asking."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ktrdr.errors import InvalidSetting
from ktrdr.protocol.tls import TlsSettings
from ktrdr.protocol.tls_renewal import connecting, serving
from support.certificates import Authority


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("old"), "old")


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("new"), "new")


@pytest.fixture
def files(tmp_path: Path, old: Authority) -> TlsSettings:
    """A server's files, to be replaced."""
    mine = TlsSettings(cert=tmp_path / "c.pem", key=tmp_path / "k.pem", client_ca=tmp_path / "ca.pem")
    show(mine, old, "first")
    shutil.copy(old.ca, str(mine.client_ca))
    return mine


def show(mine: TlsSettings, authority: Authority, name: str) -> None:
    """Put another certificate and its key there."""
    for made, place in zip(authority.sign(name), (mine.cert, mine.key), strict=True):
        assert place is not None
        shutil.copy(made, place)


def client(authority: Authority, *, trusts: Authority | None = None) -> ssl.SSLContext | None:
    cert, key = authority.sign("client")
    return TlsSettings(cert=cert, key=key, ca=(trusts or authority).ca).client_context()


@pytest.fixture
async def server(files: TlsSettings) -> AsyncIterator[asyncio.Server]:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        del reader
        writer.write(b"hello")
        writer.close()

    started = await asyncio.start_server(greet, "127.0.0.1", 0, ssl=serving(files))
    async with started:
        yield started


async def shown(server: asyncio.Server, tls: ssl.SSLContext | None) -> str:
    """The name in the certificate that the server shows."""
    port = server.sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
    try:
        if await reader.read() != b"hello":
            raise ConnectionError("not let in")  # in TLS 1.3 a client learns that after its handshake
        peer = writer.get_extra_info("peercert")
        return dict(part[0] for part in peer["subject"])["commonName"]  # type: ignore[no-any-return]
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def test_a_running_server_shows_the_renewed_certificate(
    server: asyncio.Server, files: TlsSettings, old: Authority
) -> None:
    mine = client(old)
    assert await shown(server, mine) == "first"
    show(files, old, "second")
    assert await shown(server, mine) == "second"


async def test_half_a_renewal_changes_nothing_and_is_told_once(
    server: asyncio.Server, files: TlsSettings, old: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    assert files.cert is not None
    assert files.key is not None
    mine, (cert, key) = client(old), old.sign("second")
    with caplog.at_level(logging.INFO, "ktrdr.protocol.tls_renewal"):
        files.cert.write_bytes(cert.read_bytes()[:300])
        assert await shown(server, mine) == "first"
        files.cert.write_bytes(cert.read_bytes())
        for _ in range(3):
            assert await shown(server, mine) == "first"
        files.cert.touch()
        assert await shown(server, mine) == "first"
        told = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
        assert len(told) == 2
        assert "holds no certificate in PEM form" in told[0]
        assert f"'{files.key}' is not the key of KTRDR_TLS_CERT='{files.cert}'" in told[1]
        assert all("the ones before stay in use" in line for line in told)
        shutil.copy(key, files.key)
        assert await shown(server, mine) == "second"
        assert "new connections use them" in caplog.records[-1].getMessage()
        files.key.unlink()
        assert await shown(server, mine) == "second"
        assert "cannot be read" in caplog.records[-1].getMessage()


async def test_an_authority_is_replaced_without_a_restart(
    server: asyncio.Server, files: TlsSettings, old: Authority, new: Authority
) -> None:
    assert files.client_ca is not None
    before, after = client(old, trusts=old), client(new, trusts=old)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await shown(server, after)
    files.client_ca.write_text(old.ca.read_text() + new.ca.read_text())
    assert await shown(server, after) == await shown(server, before) == "first"
    shutil.copy(new.ca, files.client_ca)
    assert await shown(server, after) == "first"
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await shown(server, client(old))
    show(files, new, "moved")
    assert await shown(server, client(new)) == "moved"


def test_a_client_follows_its_files_and_keeps_what_worked(tmp_path: Path, old: Authority) -> None:
    ca = tmp_path / "ca.pem"
    shutil.copy(old.ca, ca)
    tls = connecting(TlsSettings(ca=ca))
    first = tls()
    assert first is tls()
    ca.write_text("half a")
    assert tls() is first
    shutil.copy(old.ca, ca)
    assert tls() not in (first, None)
    assert connecting(TlsSettings())() is None
    assert serving(TlsSettings()) is None


def test_at_the_start_wrong_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match="cannot be read"):
        connecting(TlsSettings(ca=tmp_path / "absent.pem"))
