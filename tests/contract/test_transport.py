"""The laws of Transport, held by real HTTP and by the in-process one."""

from __future__ import annotations

import asyncio
import ipaddress
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import pytest
import pytest_asyncio
from aiohttp import web
from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from ktrdr.errors import InvalidInput, NoAnswer, ServerUnreachable
from ktrdr.protocol.allowed import address_allowed
from ktrdr.protocol.transports import AiohttpTransport, Answer, AsgiTransport, Transport
from support.cancelling import cancels_that_count
from support.ports import refusing_url


@dataclass
class Place:
    transport: Transport
    url: str
    nowhere: str


def _asgi_app() -> FastAPI:
    app = FastAPI()

    @app.post("/echo")
    async def echo(request: Request) -> Response:
        body = await request.json()
        return JSONResponse(
            {"body": body, "query": str(request.url.query), "said": request.headers.get("x-word")},
            201,
            {"X-Answer": "yes"},
        )

    @app.get("/away")
    @app.post("/away")
    async def away() -> Response:
        return RedirectResponse("/echo", 307)

    @app.get("/slow")
    async def slow() -> Response:
        await asyncio.Event().wait()
        return Response()

    @app.get("/broken")
    async def broken() -> Response:
        return Response(b"<html>no", 500)

    return app


async def _echo(request: web.Request) -> web.Response:
    body = await request.json()
    answer = {"body": body, "query": request.rel_url.raw_query_string, "said": request.headers.get("x-word")}
    return web.json_response(answer, status=201, headers={"X-Answer": "yes"})


async def _away(_: web.Request) -> web.Response:
    raise web.HTTPTemporaryRedirect("/echo")


async def _slow(_: web.Request) -> web.Response:
    await asyncio.Event().wait()
    return web.Response()


async def _broken(_: web.Request) -> web.Response:
    return web.Response(body=b"<html>no", status=500)


@pytest_asyncio.fixture(params=["aiohttp", "asgi"])
async def place(request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    if request.param == "asgi":
        transport = AsgiTransport({"http://worker": _asgi_app()})
        yield Place(transport, "http://worker", "http://nobody")
        await transport.close()
        return
    app = web.Application()
    app.add_routes([web.post("/echo", _echo), web.get("/away", _away), web.post("/away", _away)])
    app.add_routes([web.get("/slow", _slow), web.get("/broken", _broken)])
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    http = AiohttpTransport()
    yield Place(http, f"http://127.0.0.1:{port}", refusing_url())
    await http.close()
    await runner.cleanup()


class TestTransport:
    async def test_sends_json_query_and_headers_and_reads_the_answer_whole(self, place: Place) -> None:
        answer = await place.transport.request(
            "POST", f"{place.url}/echo?a=1&b=%C3%A9", json={"x": [1, None]}, headers={"X-Word": "hello"}
        )
        assert (answer.status, answer.ok, answer.headers["x-answer"]) == (201, True, "yes")
        assert answer.json() == {"body": {"x": [1, None]}, "query": "a=1&b=%C3%A9", "said": "hello"}

    async def test_every_status_is_an_answer(self, place: Place) -> None:
        answer = await place.transport.request("GET", f"{place.url}/broken")
        assert (answer.status, answer.ok) == (500, False)
        with pytest.raises(InvalidInput, match="not JSON"):
            answer.json()
        assert (await place.transport.request("GET", f"{place.url}/none")).status == 404

    async def test_redirects_are_not_followed(self, place: Place) -> None:
        for method in ("GET", "POST"):
            assert (await place.transport.request(method, f"{place.url}/away")).status == 307

    async def test_nobody_there_means_that_the_request_did_not_leave(self, place: Place) -> None:
        with pytest.raises(ServerUnreachable) as caught:
            await place.transport.request("GET", f"{place.nowhere}/echo", timeout_s=5)
        assert not isinstance(caught.value, NoAnswer)
        assert place.nowhere in str(caught.value)

    async def test_silence_means_that_the_outcome_is_unknown(self, place: Place) -> None:
        await place.transport.request(
            "GET", f"{place.url}/none"
        )  # so that there is a connection, however slow it was made
        with pytest.raises(NoAnswer, match="did not answer within"):
            await place.transport.request("GET", f"{place.url}/slow", timeout_s=0.1)

    async def test_closing_twice_is_no_error(self, place: Place) -> None:
        await place.transport.close()
        await place.transport.close()


async def _serve_raw(answer: bytes) -> tuple[asyncio.Server, str]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    return server, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@asynccontextmanager
async def _counting_server(number: int, counted: Counter[int], requests: int = 100) -> AsyncIterator[str]:
    """Answers so many requests on each connection, counts connections, and says it when it was asked to close."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        counted[number] += 1
        with suppress(asyncio.IncompleteReadError):
            for _ in range(requests):
                head = await reader.readuntil(b"\r\n\r\n")
                close = b"connection: close" in head.lower()
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n")
                writer.write(b"connection: close\r\n\r\n" if close else b"\r\n")
                if close:
                    break
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        await asyncio.sleep(0.05)  # connections that were closed end here, too


class TestAiohttp:
    async def test_a_connection_that_breaks_off_leaves_the_outcome_unknown(self) -> None:
        server, url = await _serve_raw(b"")
        transport = AiohttpTransport()
        async with server:
            with pytest.raises(NoAnswer, match="broke off"):
                await transport.request("POST", url, json={})
        await transport.close()

    async def test_an_answer_of_more_than_a_mebibyte_is_refused(self) -> None:
        size = (1 << 20) + 1
        server, url = await _serve_raw(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size + b"x" * size)
        transport = AiohttpTransport()
        async with server:
            with pytest.raises(InvalidInput, match="larger than 1 MiB"):
                await transport.request("GET", url)
        await transport.close()

    async def test_addresses_outside_the_networks_are_not_connected_to(self) -> None:
        transport = AiohttpTransport((ipaddress.ip_network("10.0.0.0/8"),))
        server, url = await _serve_raw(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        async with server:
            with pytest.raises(ServerUnreachable, match="outside the allowed networks"):
                await transport.request("GET", url)
            with pytest.raises(ServerUnreachable) as caught:  # a name is judged by the address it has now
                await transport.request("GET", url.replace("127.0.0.1", "localhost"))
            assert not isinstance(caught.value, NoAnswer)
        await transport.close()

    async def test_names_inside_the_networks_are(self) -> None:
        transport = AiohttpTransport((ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128")))
        server, url = await _serve_raw(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        async with server:
            answer = await transport.request("GET", url.replace("127.0.0.1", "localhost"))
        assert answer == Answer(200, answer.headers, b"")
        await transport.close()

    async def test_connections_are_kept_for_the_hosts_there_is_room_for(self) -> None:
        counted: Counter[int] = Counter()
        async with _counting_server(0, counted) as first, _counting_server(1, counted) as second:
            transport = AiohttpTransport(kept_hosts=1)
            for url in (first, second) * 3:
                assert (await transport.request("GET", url)).ok
            await transport.close()
        assert counted == {0: 1, 1: 3}, "the second host's connection is closed after each request"

    async def test_of_the_connections_of_a_burst_one_is_kept(self) -> None:
        opened, came, left = set[asyncio.StreamWriter](), asyncio.Barrier(5), asyncio.Semaphore(0)

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            opened.add(writer)
            with suppress(asyncio.IncompleteReadError):
                close = b"connection: close" in (await reader.readuntil(b"\r\n\r\n")).lower()
                await came.wait()  # all five are under way at once
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n")
                writer.write(b"connection: close\r\n\r\n" if close else b"\r\n")
                await reader.read()  # until the other side closes it
            opened.remove(writer)
            writer.close()
            await writer.wait_closed()
            left.release()

        transport = AiohttpTransport()
        async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            answers = await asyncio.gather(*(transport.request("GET", url) for _ in range(5)))
            assert [answer.status for answer in answers] == [200] * 5
            async with asyncio.timeout(10):
                for _ in range(4):
                    await left.acquire()
            await asyncio.sleep(0.05)
            assert len(opened) == 1
            await transport.close()
            await left.acquire()
            await asyncio.sleep(0.05)

    async def test_a_kept_connection_that_the_peer_closed_is_replaced(self) -> None:
        counted: Counter[int] = Counter()
        transport = AiohttpTransport()
        async with _counting_server(0, counted, requests=1) as url:
            for _ in range(3):
                assert (await transport.request("GET", url)).ok
                await asyncio.sleep(0.05)
        await transport.close()
        assert counted == {0: 3}

    @pytest.mark.parametrize("url", ["", "not a url", "http://"])
    async def test_what_is_no_url_is_refused(self, url: str) -> None:
        transport = AiohttpTransport()
        with pytest.raises(InvalidInput):
            await transport.request("GET", url)
        await transport.close()


class TestAsgi:
    async def test_a_machine_taken_out_is_unreachable(self) -> None:
        apps = {"http://worker": _asgi_app()}
        transport = AsgiTransport(apps)
        assert (await transport.request("GET", "http://worker/none")).status == 404
        apps.clear()
        with pytest.raises(ServerUnreachable):
            await transport.request("GET", "http://worker/none")

    async def test_an_application_that_ends_without_an_answer(self) -> None:
        async def silent(scope, receive, send) -> None:
            return None

        with pytest.raises(NoAnswer, match="without an answer"):
            await AsgiTransport({"http://worker": silent}).request("GET", "http://worker/")

    async def test_a_cancel_that_comes_with_the_answer_is_not_lost(self) -> None:
        answers: list[asyncio.Event] = []

        async def slow(scope, receive, send) -> None:
            answers.append(asyncio.Event())
            await answers[-1].wait()
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body"})

        def answer() -> None:
            answers[-1].set()

        transport = AsgiTransport({"http://worker": slow})
        counted = await cancels_that_count(lambda: transport.request("GET", "http://worker/"), answer)
        assert counted
        assert all(counted), "a cancel was lost"


def test_an_ipv4_address_mapped_into_ipv6_counts_as_ipv4() -> None:
    ten = (ipaddress.ip_network("10.0.0.0/8"),)
    assert address_allowed("::ffff:10.1.1.1", ten)
    assert not address_allowed("::ffff:127.0.0.1", ten)
    assert not address_allowed("fe80::1%eth0", ten)
