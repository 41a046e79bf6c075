"""A TCP proxy that misbehaves as networks do; it runs on a thread of its own and is moved from the test's."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Literal

from support.http_requests import RequestReader

__all__ = ["FaultProxy", "Trap", "Weather"]

Direction = Literal["there", "back"]
_CHUNK = 1 << 16
_DRIP = 7  # bytes at a time
_RESET = struct.pack("ii", 1, 0)  # close without ceremony: the other side reads ECONNRESET


@dataclass(frozen=True, slots=True, kw_only=True)
class Weather:
    """What happens to the bytes. The default is a perfect network.

    Attributes
    ----------
    held
        Directions in which nothing arrives (both: half-open connections). What was sent arrives when this ends,
        however late that is, as it does where a lost segment is sent again.
    refused
        New connections are reset, and so are those that exist.
    delay_s
        Each piece waits up to so long.
    lost
        How likely a piece ends its connection in both directions.
    cut_after
        Answers end in a reset after so many bytes.
    drip_s
        Pause between seven bytes and the next seven.
    doubled
        How likely a whole request is sent a second time, on a connection of its own, up to ``late_s`` later.
    """

    held: frozenset[Direction] = frozenset()
    refused: bool = False
    delay_s: float = 0.0
    lost: float = 0.0
    cut_after: int | None = None
    drip_s: float = 0.0
    doubled: float = 0.0
    late_s: float = 0.0


@dataclass(slots=True)
class Trap:
    """Does something once, when ``text`` passes for the ``nth`` time.

    ``before``: what has passed is not forwarded any more; ``after``: it is, and then the first byte that comes back
    springs the trap and is swallowed. Either way the connection ends.
    """

    text: bytes
    moment: Literal["before", "after"]
    act: Callable[[], None]
    nth: int = 1
    sprung: threading.Event = field(default_factory=threading.Event)


@dataclass(eq=False, slots=True)
class _Pair:
    """The two ends of one connection through the proxy."""

    ends: dict[Direction, asyncio.StreamWriter]
    reader: RequestReader = field(default_factory=RequestReader)
    trapped: Trap | None = None

    def reset(self) -> None:
        for end in self.ends.values():
            with contextlib.suppress(OSError):
                end.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            end.transport.abort()


class FaultProxy:
    """Forwards connections on :attr:`port` to ``target``, through :attr:`weather`.

    ``counts`` says what was really done: pieces delayed, connections lost, requests doubled and so on.
    """

    def __init__(self, target: int, random: Random) -> None:
        self.target, self._random = target, random
        self.weather = Weather()
        self.counts: Counter[str] = Counter()
        self.trap: Trap | None = None
        self._pairs: set[_Pair] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._clear = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault proxy", daemon=True)
        self._thread.start()
        self.port = self._call(self._open())

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def change(self, weather: Weather, *, reset: bool = False) -> None:
        """From now on; ``reset``: connections that exist end first, and what they held back is lost."""

        async def change() -> None:
            if reset or weather.refused:
                self._reset_all()
            self.weather = weather
            self._clear.set()
            self._clear = asyncio.Event()

        self._call(change())

    def close(self) -> None:
        async def end() -> None:
            self._server.close()
            self._reset_all()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

        self._call(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _call(self, work: object) -> object:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)  # type: ignore[arg-type]

    async def _open(self) -> int:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    def _reset_all(self) -> None:
        for pair in self._pairs:
            pair.reset()

    # --- one connection -----------------------------------------------------------------------------------------

    async def _accept(self, client: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        pair = _Pair({"back": back})
        self._pairs.add(pair)
        try:
            if self.weather.refused:
                self.counts["refused"] += 1
                return
            server, pair.ends["there"] = await asyncio.open_connection("127.0.0.1", self.target)
            pumps = (self._pump(client, "there", pair), self._pump(server, "back", pair))
            await asyncio.gather(*pumps)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            pair.reset()
            self._pairs.discard(pair)
            self._tasks.discard(task)

    async def _pump(self, source: asyncio.StreamReader, way: Direction, pair: _Pair) -> None:
        passed = 0
        while data := await source.read(_CHUNK):
            await self._weathered(way)
            weather = self.weather
            if self._trapped(way, data, pair) or self._random.random() < weather.lost:
                self.counts["lost"] += 1
                raise ConnectionResetError
            if way == "back" and weather.cut_after is not None and passed + len(data) > weather.cut_after:
                self.counts["cut"] += 1
                pair.ends[way].write(data[: max(0, weather.cut_after - passed)])
                await pair.ends[way].drain()
                raise ConnectionResetError
            passed += len(data)
            await self._write(pair.ends[way], data, weather.drip_s)
            if way == "there":
                self._double(pair.reader.feed(data), weather)
        await self._weathered(way)
        pair.ends[way].write_eof()

    async def _weathered(self, way: Direction) -> None:
        if self.weather.delay_s:
            self.counts["delayed"] += 1
            await asyncio.sleep(self._random.uniform(0.0, self.weather.delay_s))
        if way in self.weather.held:
            self.counts[f"held {way}"] += 1
        while way in self.weather.held:
            await self._clear.wait()

    async def _write(self, end: asyncio.StreamWriter, data: bytes, drip_s: float) -> None:
        step = _DRIP if drip_s else len(data)
        for start in range(0, len(data), step):
            end.write(data[start : start + step])
            await end.drain()
            if drip_s:
                self.counts["dripped"] += 1
                await asyncio.sleep(drip_s)

    def _trapped(self, way: Direction, data: bytes, pair: _Pair) -> bool:
        """Whether the trap was sprung by this piece, which then goes no further."""
        trap = self.trap
        if way == "back" and pair.trapped is not None:
            trap = pair.trapped
        elif trap is None or way == "back" or trap.sprung.is_set() or trap.text not in data:
            return False
        else:
            trap.nth -= 1
            if trap.nth > 0:
                return False
            if trap.moment == "after":
                pair.trapped, self.trap = trap, None
                return False
        self.trap = None
        trap.act()
        trap.sprung.set()
        return True

    def _double(self, requests: list[bytes], weather: Weather) -> None:
        for request in requests:
            if self._random.random() < weather.doubled:
                self.counts["doubled"] += 1
                pause_s = self._random.uniform(0.0, weather.late_s)
                task = self._loop.create_task(self._again(request, pause_s))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _again(self, request: bytes, pause_s: float) -> None:
        await asyncio.sleep(pause_s)
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.target)
            try:
                writer.write(request)
                await asyncio.wait_for(reader.read(_CHUNK), 30)
            except TimeoutError:
                pass
            finally:
                writer.transport.abort()
