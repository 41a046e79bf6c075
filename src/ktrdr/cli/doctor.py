"""The checks of ``ktrdr doctor``: each looks at one thing, changes nothing, and says what to do about what it found."""

from __future__ import annotations

import contextlib
import logging
import re
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib import metadata
from pathlib import Path

from ktrdr.cli.check import LOCAL_S, Check, Status
from ktrdr.cli.check_backends import check_backends
from ktrdr.cli.check_ledger import check_database
from ktrdr.cli.check_secrets import check_secrets
from ktrdr.cli.check_settings import check_settings, if_sound
from ktrdr.cli.client import Api, Json
from ktrdr.errors import InvalidInput, KtrdrError, NoAnswer, NotAuthorised, ServerUnreachable
from ktrdr.protocol.tls import client_context
from ktrdr.settings import database_url

__all__ = [
    "Check",
    "Status",
    "check_backend",
    "check_clock",
    "check_database",
    "check_gpu",
    "check_home",
    "check_packages",
    "check_port",
    "check_python",
    "examine",
]

_GIB = 2**30
_SCARCE, _TOO_LITTLE = 2 * _GIB, _GIB // 4
_SKEW_S = 5.0


# --- Python and packages ---------------------------------------------------------------------------------------------


def check_python(version: tuple[int, int, int] | None = None) -> Check:
    """Whether this Python is one that ktrdr runs on."""
    have = version or sys.version_info[:3]
    shown = ".".join(map(str, have))
    if (3, 11) <= have[:2] <= (3, 13):
        return Check("python", "ok", f"{shown} at {sys.executable}")
    return Check("python", "fail", f"{shown} is not supported", "Use Python 3.11, 3.12 or 3.13.")


def check_packages(requirements: list[str] | None = None) -> Iterator[Check]:
    """Whether what ktrdr requires is installed in an accepted version; then which extras are there."""
    wanted = metadata.requires("ktrdr") or [] if requirements is None else requirements
    missing: list[str] = []
    wrong: list[str] = []
    extras: dict[str, list[tuple[str, str | None]]] = {}
    for requirement in wanted:
        text, _, marker = requirement.partition(";")
        if "sys_platform" in marker and sys.platform not in marker:
            continue
        name = re.split(r"[<>=!~\[ ]", text.strip(), maxsplit=1)[0]
        extra = re.search(r"extra\s*==\s*['\"](\w+)['\"]", marker)
        have = _installed(name)
        if extra:
            extras.setdefault(extra[1], []).append((name, have))
        elif have is None:
            missing.append(name)
        elif not _fits(have, text):
            wrong.append(f"{name} {have} (needs {text.strip().removeprefix(name)})")
    yield _required(missing, wrong)
    for extra_name in ("training", "report"):
        if extra_name in extras:
            yield _extra(extra_name, extras[extra_name])


def _required(missing: list[str], wrong: list[str]) -> Check:
    if missing:
        told = f"missing: {', '.join(missing)}"
        return Check("packages", "fail", told, "Install again: pip install --upgrade ktrdr")
    if wrong:
        told = f"outside the accepted range: {', '.join(wrong)}"
        return Check("packages", "warn", told, "Install again: pip install --upgrade ktrdr")
    return Check("packages", "ok", f"ktrdr {_installed('ktrdr')} and all that it requires")


def _extra(extra: str, packages: list[tuple[str, str | None]]) -> Check:
    name = f"extra {extra}"
    absent = [package for package, have in packages if have is None]
    if not absent:
        return Check(name, "ok", ", ".join(f"{package} {have}" for package, have in packages))
    what = {"training": "This machine cannot train", "report": "This machine cannot write reports"}[extra]
    return Check(
        name, "warn", f"missing: {', '.join(absent)}", f"{what} without: pip install 'ktrdr[{extra}]'"
    )


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _fits(have: str, requirement: str) -> bool:
    """The two comparisons that ktrdr's own requirements use."""
    tests: Mapping[str, Callable[[tuple[int, ...], tuple[int, ...]], bool]] = {
        ">=": lambda a, b: a >= b,
        "<": lambda a, b: a < b,
    }
    found = re.findall(r"(>=|<)\s*([0-9.]+)", requirement)
    return all(tests[sign](_numbers(have), _numbers(bound)) for sign, bound in found)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0])[:3])


# --- this machine ----------------------------------------------------------------------------------------------------


def check_home(home: Path, free: int | None = None) -> Check:
    """Whether KTRDR_HOME can be written to, and how much room is left there."""
    there = home
    while not there.exists():
        there = there.parent
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        told = f"{home} cannot be written: {error.strerror}"
        return Check("home", "fail", told, "Point KTRDR_HOME at a folder that you can write to.")
    left = shutil.disk_usage(there).free if free is None else free
    told = f"{home}, {left / _GIB:.1f} GiB free" + (
        "" if there == home else "; it is made at the first start"
    )
    advice = (
        "" if (status := _enough(left)) == "ok" else "Free some space, or point KTRDR_HOME at another disk."
    )
    return Check("home", status, told, advice)


def _enough(left: int) -> Status:
    """Whether so many bytes are room enough for data, models and logs."""
    return "fail" if left < _TOO_LITTLE else "warn" if left < _SCARCE else "ok"


def check_port(port: int, purpose: str, *, needed: bool) -> Check:
    """Whether a default port is free, or who answers there. ``needed``: 'ktrdr up' wants this very one."""
    name = f"port {port}"
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", port))
        except OSError as error:
            taken = error.strerror
        else:
            return Check(name, "ok", f"free for {purpose}")
    if who := _who_answers(port):
        return Check(name, "ok", f"{who} answers there")
    option = "--port" if needed else "--port or WORKER_PORT"
    advice = f"Stop the program that uses it, or choose another port for {purpose} with {option}."
    return Check(name, "fail" if needed else "warn", f"not free for {purpose}: {taken}", advice)


def _who_answers(port: int) -> str | None:
    import httpx  # lazy: only where something listens

    try:
        answer = httpx.get(f"http://127.0.0.1:{port}/health", timeout=LOCAL_S, trust_env=False).json()
    except (httpx.HTTPError, ValueError):
        return None
    if not isinstance(answer, dict) or answer.get("status") != "healthy":
        return None
    if worker := answer.get("worker_id"):
        return f"ktrdr worker {worker}"
    return f"a ktrdr backend ({answer.get('version')})" if "workers" in answer else None


def check_gpu() -> Check:
    """What a training worker on this machine would offer; torch is asked in a process of its own, as workers do."""
    from ktrdr.workers.capabilities import detect_capabilities, gpu_possible  # lazy: pydantic and psutil

    if not gpu_possible():
        return Check("gpu", "ok", "none here; trainings use the CPU")
    with _collected("ktrdr.workers.capabilities") as said:
        found = detect_capabilities(with_gpu=True)
    if found.gpu:
        told = f"{found.gpu_count} x {found.gpu_type}, {found.gpu_memory_gb:g} GiB each"
        return Check("gpu", "ok", told)
    if sys.platform == "darwin" and not said:
        return Check("gpu", "ok", "none that torch can use; trainings use the CPU")
    advice = "Check that nvidia-smi works and that the installed torch is a build for this GPU."
    told = "; ".join(said) or "a driver or tool is here, but no GPU was found; trainings use the CPU"
    return Check("gpu", "warn", told, advice)


@contextlib.contextmanager
def _collected(logger: str) -> Iterator[list[str]]:
    """What a logger says meanwhile, which would go to stderr."""
    said: list[str] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    handler = Collect()
    logging.getLogger(logger).addHandler(handler)
    try:
        yield said
    finally:
        logging.getLogger(logger).removeHandler(handler)


# --- the backend -----------------------------------------------------------------------------------------------------


def check_backend(url: str, token: str | None, *, told: bool) -> Iterator[Check]:
    """Whether the backend answers, its workers, and its clock. ``told``: the URL was given, not the default."""
    try:
        with Api(url, token, timeout_s=LOCAL_S, tls=client_context()) as api:
            answer = api.request("GET", "/workers")
            disk = _disk_of_backend(api)
        workers = answer.json()["workers"]
    except NotAuthorised as error:
        yield Check("backend", "fail", error.message, "Set KTRDR_API_TOKEN to the backend's token.")
    except ServerUnreachable as error:
        absent = not told and not isinstance(error, NoAnswer)
        advice = "Start one: ktrdr up" if absent else "Start it, or correct KTRDR_API_URL or --api-url."
        yield Check("backend", "warn" if absent else "fail", error.message, advice)
        yield check_clock(None)
    except InvalidInput as error:
        yield Check("backend", "fail", error.message, "Correct KTRDR_API_URL or --api-url.")
    except KtrdrError as error:
        yield Check("backend", "fail", error.message, "Look into the backend's log.")
    except (ValueError, KeyError, TypeError):
        told_so = f"what answers at {url} is no ktrdr backend"
        yield Check("backend", "fail", told_so, "Stop it, or point KTRDR_API_URL at the backend.")
    else:
        yield Check("backend", "ok", f"answers at {url}")
        yield from check_backends(url)
        yield from disk
        yield _workers(workers)
        yield check_clock(answer.headers.get("date"))


def _disk_of_backend(api: Api) -> list[Check]:
    """The room left for the backend's files, which may be at another machine; nothing where it does not say, as those
    of earlier versions."""
    try:
        left = api.get("/metrics/workers").get("backend_disk_free")
    except (KtrdrError, ValueError, AttributeError):
        return []
    if not isinstance(left, int):
        return []
    told = f"{left / _GIB:.1f} GiB free for the backend's files"
    advice = (
        "" if (status := _enough(left)) == "ok" else "Free some space where the backend has its KTRDR_HOME."
    )
    return [Check("backend disk", status, told, advice)]


def _workers(workers: list[Json]) -> Check:
    if not workers:
        advice = "Start some: ktrdr worker start backtesting (or training)"
        return Check("workers", "warn", "none is registered", advice)
    kinds = sorted({w["worker_type"] for w in workers})
    told = ", ".join(f"{sum(w['worker_type'] == kind for w in workers)} {kind}" for kind in kinds)
    idle = [w for w in workers if w["status"] in ("temporarily_unavailable", "draining") or w["reason"]]
    if not idle:
        return Check("workers", "ok", told)
    named = "; ".join(f"{w['worker_id']}: {w['reason'] or w['status']}" for w in idle[:5])
    more = f" and {len(idle) - 5} more" if len(idle) > 5 else ""
    advice = "See 'ktrdr workers list'; look into the log of each worker named here."
    return Check("workers", "warn", f"{told}; without work: {named}{more}", advice)


def check_clock(served: str | None, now: datetime | None = None) -> Check:
    """This machine's clock against the backend's (the ``Date`` of its answer), or else against the package's files."""
    mine = now or datetime.now(UTC)
    advice = "Set the clock, best by NTP (timedatectl set-ntp true): leases and logs depend on it."
    if served is not None:
        skew = (mine - parsedate_to_datetime(served)).total_seconds()
        if abs(skew) > _SKEW_S:
            ahead = "ahead of" if skew > 0 else "behind"
            return Check("clock", "warn", f"{abs(skew):.0f} s {ahead} the backend's", advice)
        return Check("clock", "ok", "agrees with the backend's")
    made = datetime.fromtimestamp(Path(__file__).stat().st_mtime, UTC)
    if mine < made:
        return Check("clock", "warn", f"{mine:%Y-%m-%d %H:%M} is before this ktrdr was installed", advice)
    return Check("clock", "ok", f"{mine:%Y-%m-%d %H:%M:%S} UTC")


def examine(home: Path, url: str, token: str | None, *, told: bool) -> Iterator[Check]:
    """Every check, in the order in which a fault explains those after it."""
    yield check_python()
    yield from check_packages()
    yield check_home(home)
    yield from check_settings()
    yield check_database(home, if_sound(database_url))
    yield from check_secrets()
    yield check_port(8000, "the backend", needed=not told)  # with another backend nobody wants it
    yield check_port(5003, "a backtesting worker", needed=False)
    yield check_port(5004, "a training worker", needed=False)
    yield from check_backend(url, token, told=told)
    yield check_gpu()
