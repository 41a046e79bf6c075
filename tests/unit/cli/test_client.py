"""The client raises what the backend says, and never mistakes another program for a backend."""

from __future__ import annotations

import pytest

from ktrdr import errors
from ktrdr.cli.client import Api, backend_urls
from ktrdr.cli.exits import Exit, exit_code
from support.ports import refusing_url
from support.scripted_backend import Said, mute, scripted


@pytest.mark.parametrize(
    ("text", "urls"),
    [
        ("http://127.0.0.1:8000", ["http://127.0.0.1:8000"]),
        ("http://127.0.0.1:8000/", ["http://127.0.0.1:8000"]),
        ("http://127.0.0.1:8000/api/v1", ["http://127.0.0.1:8000"]),
        ("https://gpu-box.example/ktrdr/", ["https://gpu-box.example/ktrdr"]),
        (" http://a:1 , http://[::1]:2,", ["http://a:1", "http://[::1]:2"]),
    ],
)
def test_urls(text: str, urls: list[str]) -> None:
    assert backend_urls(text) == urls


@pytest.mark.parametrize(
    "text",
    ["", "  ", ",", "notaurl", "ftp://x", "http://", "http://[::1", "http://a:99999", "http://a:b", "http://a b", "/x",
     "http://é.example"],
)  # fmt: skip
def test_what_is_no_url_is_refused_by_name(text: str) -> None:
    with pytest.raises(errors.InvalidSetting, match=r"http://127\.0\.0\.1:8000") as caught:
        backend_urls(text)
    assert f"'{text.strip() if text.strip(' ,') else text}'" in caught.value.message
    assert "; E" not in caught.value.message
    assert text.strip(" ,") == "" or "http or https" in caught.value.message


def test_a_missing_scheme_is_guessed() -> None:
    with pytest.raises(errors.InvalidSetting, match=r"did you mean http://localhost:8200\?"):
        backend_urls("localhost:8200")


def test_a_read_that_one_backend_cannot_answer_is_put_to_the_next_and_a_change_is_not() -> None:
    away = {"type": "urn:ktrdr:problem:unavailable", "title": "x", "status": 503, "detail": "no ledger here"}
    with (
        scripted(lambda _, __: Said(away, 503)) as one,
        scripted(lambda _, __: Said({"total": 3})) as other,
        Api(f"{one.url},{other.url}") as api,
    ):
        with pytest.raises(errors.Unavailable, match="no ledger here"):
            api.post("/trainings/start", {})
        assert api.get("/data")["total"] == 3
        assert other.asked == [("GET", "/api/v1/data")]
    with (
        scripted(lambda _, __: Said(away, 503)) as one,
        Api(one.url) as api,
        pytest.raises(errors.Unavailable, match="no ledger here"),
    ):
        api.get("/data")


def test_answers_and_what_was_asked() -> None:
    with scripted(lambda _, __: Said({"total": 3})) as backend, Api(backend.url, "token") as api:
        assert api.get("/data", limit=None, status="busy")["total"] == 3
        assert api.post("/trainings/start", {"a": 1, "b": None})["total"] == 3
        assert backend.asked == [("GET", "/api/v1/data?status=busy"), ("POST", "/api/v1/trainings/start")]


@pytest.mark.parametrize(
    ("slug", "kind", "code"),
    [
        ("not-found", errors.NotFound, Exit.NOT_FOUND),
        ("invalid-strategy", errors.InvalidStrategy, Exit.INVALID),
        ("not-authorised", errors.NotAuthorised, Exit.NOT_AUTHORISED),
        ("no-workers", errors.NoWorkers, Exit.FAILED),
        ("conflict", errors.Conflict, Exit.INVALID),
        ("internal-error", errors.KtrdrError, Exit.FAILED),
    ],
)
def test_problems_become_the_errors_they_name(slug: str, kind: type[errors.KtrdrError], code: Exit) -> None:
    problem = {
        "type": f"urn:ktrdr:problem:{slug}",
        "detail": "It is so.",
        "errors": [{"pointer": "/name", "message": "wrong", "line": 3, "column": 7}],
    }
    with scripted(lambda _, __: Said(problem, 418)) as backend, Api(backend.url) as api:
        with pytest.raises(errors.KtrdrError) as caught:
            api.get("/x")
        assert type(caught.value) is kind
        assert caught.value.message == "It is so."
        assert exit_code(caught.value) is code
        if isinstance(caught.value, errors.InvalidInput):
            assert str(caught.value) == "It is so.\n  line 3, column 7: /name: wrong"


@pytest.mark.parametrize(("refusals", "accepted"), [(2, True), (3, True), (9, False)])
def test_a_backend_with_too_much_to_do_is_asked_again_a_little_later(refusals: int, accepted: bool) -> None:
    problem = Said({"type": "urn:ktrdr:problem:overloaded", "detail": "Too much."}, 503)
    left, pauses = [problem] * refusals, list[float]()
    with (
        scripted(lambda _, __: left.pop() if left else Said({"total": 1})) as backend,
        Api(backend.url, pause=pauses.append) as api,
    ):
        if accepted:
            assert api.post("/trainings/start", {})["total"] == 1
        else:
            with pytest.raises(errors.Overloaded, match="Too much"):
                api.post("/trainings/start", {})
        assert len(backend.asked) == min(refusals, 3) + 1
    assert len(pauses) == min(refusals, 3)
    assert all(0.25 <= pause <= 3.0 for pause in pauses)


def test_another_backend_may_have_less_to_do() -> None:
    problem = Said({"type": "urn:ktrdr:problem:overloaded", "detail": "Too much."}, 503)
    with (
        scripted(lambda _, __: problem) as busy,
        scripted(lambda _, __: Said({"total": 1})) as free,
        Api(f"{busy.url},{free.url}") as api,
    ):
        assert api.post("/trainings/start", {})["total"] == 1


@pytest.mark.parametrize(
    "said",
    [
        Said("<html>", 200, "text/html"),
        Said("<html>", 404, "text/html"),
        Said([1], 200),
        Said([1], 500),
        Said({"error": "nope"}, 404),
        Said("", 302, "text/plain"),
    ],
)
def test_another_program_at_the_url_is_no_backend(said: Said) -> None:
    with scripted(lambda _, __: said) as other, Api(other.url) as api:
        for call in (lambda: api.get("/workers"), lambda: api.delete("/operations/x")):
            with pytest.raises(errors.ServerUnreachable, match="is not a ktrdr backend") as caught:
                call()
            assert other.url in caught.value.message


def test_the_next_backend_is_tried_if_nothing_listens() -> None:
    with scripted(lambda _, __: Said({"total": 0})) as backend, Api(f"{refusing_url()},{backend.url}") as api:
        assert api.get("/data")["total"] == 0


def test_nobody_there() -> None:
    url = refusing_url()
    with Api(url) as api, pytest.raises(errors.ServerUnreachable, match="ktrdr up") as caught:
        api.get("/data")
    assert url in caught.value.message


@pytest.mark.parametrize(
    ("hang_up", "told", "timeout_s"), [(False, "did not answer within", 0.3), (True, "broke off", 60.0)]
)
def test_a_request_without_an_answer_goes_to_no_other_backend(
    hang_up: bool, told: str, timeout_s: float
) -> None:
    """It may have been carried out: a second start would be a second operation."""
    with (
        scripted(lambda _, __: Said({})) as other,
        mute(hang_up=hang_up) as silent,
        Api(f"{silent},{other.url}", timeout_s=timeout_s) as api,
    ):
        with pytest.raises(errors.NoAnswer, match=told):
            api.post("/trainings/start", {})
        assert other.asked == []


def test_a_question_is_asked_again_on_a_fresh_connection() -> None:
    """A backend that restarts under a kept connection is no reason for an error; asking changes nothing."""
    with scripted(lambda _, __: Said({"total": 0})) as backend, Api(backend.url) as api:
        backend.hang_up = 1
        assert api.get("/data")["total"] == 0
        backend.hang_up = 1
        with pytest.raises(errors.NoAnswer):
            api.post("/trainings/start", {})
        backend.hang_up = 2
        with pytest.raises(errors.NoAnswer, match=r"If it speaks TLS, its URL is https://"):
            api.get("/data")


def test_pages_are_fetched_as_needed() -> None:
    def answer(_: str, path: str) -> Said:
        if "cursor=second" in path:
            return Said({"items": [3, 4], "next_cursor": None})
        return Said({"items": [1, 2], "next_cursor": "second"})

    with scripted(answer) as backend, Api(backend.url) as api:
        assert list(api.pages("/x", "items", page=2)) == [1, 2, 3, 4]
        assert len(backend.asked) == 2
        assert list(api.pages("/x", "items", 2)) == [1, 2]
        assert len(backend.asked) == 3 or "limit=2" in backend.asked[2][1]
