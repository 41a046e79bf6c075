"""Serving a worker: bind, tell the backend where, stop cleanly on SIGTERM and SIGINT."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Generator

import uvicorn
from fastapi import FastAPI

from ktrdr.errors import InvalidInput, InvalidSetting
from ktrdr.logs import about, configure
from ktrdr.protocol.messages import Capabilities
from ktrdr.protocol.serving import PatientProtocol, serve_tls, trusts_a_proxy
from ktrdr.protocol.tls_renewal import serving
from ktrdr.tracing import traces_from_environment
from ktrdr.workers.base import WorkerAPIBase
from ktrdr.workers.capabilities import detect_capabilities
from ktrdr.workers.endpoint import bind_host, bind_socket, format_host
from ktrdr.workers.settings import WorkerSettings

__all__ = ["app_from_environment", "default_port", "main", "run", "serve"]

_log = logging.getLogger(__name__)


def run(
    cls: type[WorkerAPIBase],
    settings: WorkerSettings,
    *,
    capabilities: Capabilities | None = None,
    job: str = "ktrdr.jobs.run:run_job",
    announce: Callable[[str], None] | None = None,
) -> None:
    """Be a worker of this class until SIGTERM or SIGINT.

    Parameters
    ----------
    capabilities
        None looks at the machine.
    announce
        Called with the worker's URL once it is bound.

    Raises
    ------
    InvalidSetting
        If the port is in use, or another setting cannot be used.
    """
    configure(settings.log)
    if capabilities is None:
        capabilities = detect_capabilities(with_gpu=cls.wants_gpu)
    settings.tls.server_context()  # a wrong file is said before anything is claimed
    address = bind_host(settings)
    with bind_socket(address, default_port(settings, cls, capabilities)) as listener:
        bound = int(listener.getsockname()[1])
        traces = traces_from_environment("ktrdr-worker", capabilities.version)
        worker = cls(settings, capabilities=capabilities, job=job, port=bound, traces=traces)
        url = f"{settings.tls.scheme}://{format_host(address)}:{bound}"
        with about(worker_id=worker.worker_id):  # all that this process logs from here on
            _log.info(
                "Worker %s listens on %s; its backend is %s", worker.worker_id, url, settings.api_urls[0]
            )
            if announce is not None:
                announce(url)
            asyncio.run(serve(worker, listener))


def default_port(settings: WorkerSettings, cls: type[WorkerAPIBase], capabilities: Capabilities) -> int:
    """The port that was told, else the one of this kind of worker."""
    if settings.port is not None:
        return settings.port
    return cls.gpu_port if cls.gpu_port is not None and capabilities.gpu else cls.default_port


async def serve(worker: WorkerAPIBase, listener: socket.socket) -> None:
    """Serve until SIGTERM, SIGINT or, unless it is ignored (``nohup``), SIGHUP: the terminal was closed.

    The first signal releases the running job and ends the server; ``/health`` answers until then. A second one ends
    the process at once, but for SIGHUP, which both shell and system send.
    """
    config = uvicorn.Config(
        worker.app,
        lifespan="on",
        http=PatientProtocol,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=trusts_a_proxy(),
        timeout_keep_alive=30,
        timeout_graceful_shutdown=2,
    )
    serve_tls(config, serving(worker.settings.tls))
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)  # its start-up lines say nothing new
    server = _Server(config)
    loop = asyncio.get_running_loop()
    stopping: list[asyncio.Task[None]] = []

    def on_signal(number: int) -> None:
        if stopping and number == signal.SIGHUP:
            return
        if stopping:
            worker.kill_job()
            os._exit(128 + number)
        _log.info("%s: stopping; a second signal ends at once", signal.Signals(number).name)
        stopping.append(loop.create_task(_stop(worker, server)))

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) is signal.SIG_DFL:
            loop.add_signal_handler(number, on_signal, number)
    await server.serve(sockets=[listener])
    await asyncio.gather(*stopping)
    if not server.started:
        raise InvalidSetting("The worker did not start; its log says why.")


async def _stop(worker: WorkerAPIBase, server: uvicorn.Server) -> None:
    await worker.release()
    server.should_exit = True


class _Server(uvicorn.Server):
    """Leaves signals to :func:`serve`: uvicorn would stop at once and raise them again at its end."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


def app_from_environment(cls: type[WorkerAPIBase]) -> FastAPI:
    """The application for somebody else's ASGI server; a wrong environment ends the process with code 2."""
    try:
        return cls(WorkerSettings.from_environment(cls.worker_type)).app
    except InvalidInput as error:
        sys.stderr.write(f"Error: {error}\n")
        raise SystemExit(2) from None


def main(cls: type[WorkerAPIBase]) -> int:
    """``python -m ktrdr.workers.<kind>_worker``; returns the exit code."""
    try:
        run(cls, WorkerSettings.from_environment(cls.worker_type))
    except InvalidInput as error:
        sys.stderr.write(f"Error: {error}\n")
        return 2
    return 0
