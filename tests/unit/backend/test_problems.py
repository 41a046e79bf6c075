"""Every error of the tree is a problem with a status."""

from __future__ import annotations

import errno
import json
from types import ModuleType

import httpx
import pytest
from fastapi import FastAPI

from ktrdr import errors
from ktrdr.backend import problems
from ktrdr.errors import FieldError, InvalidInput, InvalidStrategy, KtrdrError, NotAuthorised, Unavailable
from ktrdr.protocol.transports import AsgiTransport
from ktrdr.workers import problems as worker_problems
from support.control_plane import ControlPlane

_EXPECTED = {
    "KtrdrError": 500,
    "InvalidInput": 422,
    "InvalidStrategy": 422,
    "InvalidBars": 422,
    "TooFewBars": 422,
    "InvalidModel": 422,
    "InvalidSetting": 422,
    "MissingExtra": 422,
    "NotFound": 404,
    "NotAuthorised": 401,
    "Forbidden": 403,
    "AnotherIncarnation": 409,
    "Conflict": 409,
    "InvalidTransition": 409,
    "Unavailable": 503,
    "NoWorkers": 503,
    "Overloaded": 503,
    "NotLeader": 503,
    "WorkerBusy": 503,
    "ServerUnreachable": 502,
    "NoAnswer": 502,
    "CorruptArtifact": 500,
    "OperationFailed": 409,
    "Cancelled": 409,
    "UnusableCheckpoint": 422,
}


def _classes() -> dict[str, type[KtrdrError]]:
    found = {name: getattr(errors, name) for name in errors.__all__}
    return {n: c for n, c in found.items() if isinstance(c, type) and issubclass(c, KtrdrError)}


def test_every_class_of_the_tree_has_its_status() -> None:
    statuses = {name: problems.status_of(cls.__new__(cls)) for name, cls in _classes().items()}
    assert statuses == _EXPECTED


def test_a_problem_carries_every_fault_with_its_line() -> None:
    error = InvalidStrategy("bad", [FieldError("/indicators", "missing", 3, 1), FieldError("/name", "empty")])
    body = problems.problem_of(error, "/x").model_dump(exclude_none=True)
    assert body == {
        "type": "urn:ktrdr:problem:invalid-strategy",
        "title": "The strategy is not valid",
        "status": 422,
        "detail": "bad",
        "instance": "/x",
        "errors": [
            {"pointer": "/indicators", "message": "missing", "line": 3, "column": 1},
            {"pointer": "/name", "message": "empty"},
        ],
    }


def test_headers_that_belong_to_an_error() -> None:
    assert problems.error_response(Unavailable("later", 1.2)).headers["retry-after"] == "2"
    assert "retry-after" not in problems.error_response(Unavailable("later")).headers
    assert problems.error_response(NotAuthorised("no")).headers["www-authenticate"] == 'Bearer realm="ktrdr"'


async def test_what_the_framework_refuses_is_a_problem_too(plane: ControlPlane) -> None:
    answers = [
        await plane.ask("GET", "/api/v1/nowhere"),
        await plane.ask("PATCH", "/api/v1/operations"),
        await plane.ask("GET", "/api/v1/operations?limit=0"),
        await plane.ask("POST", "/api/v1/backtests/start", {"simbol": 1, "commission": -1}),
    ]
    assert [a.status for a in answers] == [404, 405, 422, 422]
    for answer in answers:
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["status"] == answer.status
    missing, method, query, body = (a.json() for a in answers)
    assert "There is no route /api/v1/nowhere" in missing["detail"]
    assert "does not take PATCH" in method["detail"]
    several = await plane.ask("PATCH", "/api/v1/workers/w1")
    assert several.headers["allow"] == "DELETE, GET"
    assert query["errors"][0]["pointer"] == "query/limit"
    assert {e["pointer"] for e in body["errors"]} == {"/simbol", "/commission"}
    assert "2 faults" in body["detail"]
    told = {e["pointer"]: e["message"] for e in body["errors"]}
    assert told["/commission"].endswith("0, got -1")
    assert told["/simbol"] == "Extra inputs are not permitted"


@pytest.mark.parametrize("room", [problems, worker_problems])
async def test_a_body_that_is_no_json_says_where_it_stops_being_it(room: ModuleType) -> None:
    """It was told as the field '/30', "JSON decode error"."""
    app = FastAPI()
    room.install(app)

    @app.post("/start")
    async def start(body: dict[str, int]) -> None:
        """Never reached."""

    transport, head = httpx.ASGITransport(app), {"content-type": "application/json"}
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        answer = await client.post("/start", content=b'{"strategy_name":"sp500_trend"', headers=head)
    fault = "the body is not JSON: Expecting ',' delimiter, at character 30"
    assert (answer.status_code, answer.json()["errors"]) == (422, [{"pointer": "", "message": fault}])
    assert answer.json()["detail"].endswith(f": the body: {fault}")


async def test_a_bug_is_a_problem_that_says_so() -> None:
    app = FastAPI()
    problems.install(app)

    @app.get("/bug")
    async def bug() -> None:
        raise ValueError("inner words")

    @app.get("/teapot")
    async def teapot() -> None:
        from starlette.exceptions import HTTPException

        raise HTTPException(418, "short and stout")

    @app.get("/broken")
    async def broken() -> None:
        raise KtrdrError("broken inside")

    transport = AsgiTransport({"http://x": _quiet(app)})
    answer = await transport.request("GET", "http://x/bug")
    assert (answer.status, answer.json()["type"]) == (500, "urn:ktrdr:problem:internal-error")
    assert "inner words" not in answer.body.decode()
    short = await transport.request("GET", "http://x/teapot")
    assert json.loads(short.body)["detail"] == "short and stout"
    assert (await transport.request("GET", "http://x/broken")).status == 500


def _quiet(app: FastAPI):
    """Starlette answers a crash and then raises it again for the server's log."""

    async def inner(scope, receive, send) -> None:
        try:
            await app(scope, receive, send)
        except ValueError:
            return

    return inner


@pytest.mark.parametrize(
    ("location", "pointer"),
    [
        (("body", "a", 0, "b/c~"), "/a/0/b~1c~0"),
        (("body",), ""),
        (("query", "limit"), "query/limit"),
        ((), ""),
    ],
)
def test_pointers(location: tuple, pointer: str) -> None:
    assert problems._pointer(location) == pointer


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "/data/x"),
            503,
            "No space left on device (/data/x). Nothing was changed. Free some space there, then try again.",
        ),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            503,
            "No space left on device. Nothing was changed.",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "/data/x"),
            503,
            "Permission denied (/data/x). Nothing was changed. Mend that at the backend, then try again.",
        ),
        (OSError(errno.EEXIST, "File exists"), 500, "This is a bug"),
        (OSError("odd"), 500, "This is a bug"),
    ],
)
async def test_a_disk_that_takes_nothing_is_no_bug(error: OSError, status: int, words: str) -> None:
    app = FastAPI()
    problems.install(app)

    async def fail() -> None:
        raise error

    app.add_api_route("/fail", fail)
    answer = await AsgiTransport({"http://a": app}).request("GET", "http://a/fail")
    assert (answer.status, words in answer.json()["detail"]) == (status, True)
    assert ("retry-after" in answer.headers) == (status == 503)


def test_half_characters_in_an_error_do_not_make_it_unsendable() -> None:
    error = InvalidInput("got '\ud800'", [FieldError("/a\udfff", "is '\ud800'")])
    answer = problems.error_response(error, "/x/\udcff")
    assert answer.status_code == 422
    assert b"got '?'" in answer.body
