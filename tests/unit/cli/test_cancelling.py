"""Cancelling many operations and managing workers from the command line: what is asked, and of whom."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from ktrdr.cli.app import run
from support.scripted_backend import Said, Scripted, scripted

BEFORE = "2026-01-01T12:00:00Z"


def answering(total: int, *answers: dict[str, Any]) -> Callable[[str, str], Said]:
    """A list of ``total`` operations, then one answer to each request to cancel."""
    left = list(answers)

    def answer(method: str, path: str) -> Said:
        if method == "GET":
            return Said({"operations": [], "total": total, "next_cursor": None})
        return Said({"before": BEFORE, "more": False} | left.pop(0), 202)

    return answer


def cancels(backend: Scripted) -> int:
    return backend.asked.count(("POST", "/api/v1/operations/cancel"))


def test_yes_cancels_without_a_question_until_none_is_left(capsys: pytest.CaptureFixture[str]) -> None:
    many = {"cancelled": 1000, "cancelling": 0, "more": True}
    with scripted(answering(0, many, {"cancelled": 3, "cancelling": 2})) as backend:
        assert run(["operations", "cancel", "--all", "--yes", "--api-url", backend.url]) == 0
    assert capsys.readouterr().out == "1,003 cancelled, 2 about to end.\n"
    assert backend.asked == [("POST", "/api/v1/operations/cancel")] * 2


def test_without_a_terminal_and_without_yes_nothing_is_cancelled(capsys: pytest.CaptureFixture[str]) -> None:
    with scripted(answering(12)) as backend:
        assert run(["operations", "cancel", "--all", "--type", "training", "--api-url", backend.url]) == 2
    told = capsys.readouterr().err
    assert "12 operations (pending, assigned, running) would be cancelled" in told
    assert "--yes" in told
    assert cancels(backend) == 0
    assert "operation_type=training" in backend.asked[0][1]


@pytest.mark.parametrize(("reply", "asked"), [("y", 1), ("n", 0)])
def test_on_a_terminal_it_asks_with_the_number(reply: str, asked: int) -> None:
    with scripted(answering(1, {"cancelled": 1, "cancelling": 0})) as backend:
        master, slave = pty.openpty()
        arguments = ["operations", "cancel", "--all", "--status", "running", "--api-url", backend.url]
        process = subprocess.Popen(
            [sys.executable, "-m", "ktrdr", *arguments],
            stdin=slave, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        os.close(slave)
        os.write(master, f"{reply}\n".encode())
        out, err = process.communicate(timeout=60)
        os.close(master)
    assert process.returncode == 0, err
    assert b"Cancel 1 operation (running)?" in err
    assert out.decode() == ("1 cancelled.\n" if asked else "Nothing was cancelled.\n")
    assert cancels(backend) == asked


def test_nothing_to_cancel(capsys: pytest.CaptureFixture[str]) -> None:
    with scripted(answering(0, {"cancelled": 0, "cancelling": 0})) as backend:
        assert run(["operations", "cancel", "--all", "--json", "--api-url", backend.url]) == 0
        assert json.loads(capsys.readouterr().out) == {"cancelled": 0, "cancelling": 0}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "--all"),
        (["op_1", "--all"], "exclude each other"),
        (["op_1", "--yes"], "go with --all"),
        (["--all", "--status", "failed"], "'failed'"),
        (["a/b"], "is not a name"),
    ],
)
def test_wrong_use(arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["operations", "cancel", *arguments]) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "answer", "asked", "told"),
    [
        ("drain", {"status": "draining", "current_operation_id": "op_1"}, "POST", "it finishes op_1"),
        ("drain", {"status": "draining", "current_operation_id": None}, "POST", "it is idle"),
        ("undrain", {"status": "available", "current_operation_id": None}, "POST", "w1 is available.\n"),
        ("forget", None, "DELETE", "Forgot w1.\n"),
    ],
)
def test_workers_are_drained_and_forgotten(
    command: str, answer: Any, asked: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with scripted(lambda *_: Said(answer, 204 if answer is None else 200)) as backend:
        assert run(["workers", command, "w1", "--api-url", backend.url]) == 0
    assert told in capsys.readouterr().out
    path = "/api/v1/workers/w1" + ("" if answer is None else f"/{command}")
    assert backend.asked == [(asked, path)]


@pytest.mark.parametrize(("running", "told"), [("op_1", "it gives back op_1"), (None, "it is idle")])
def test_a_drain_may_give_back_what_runs(
    running: str | None, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with scripted(lambda *_: Said({"status": "draining", "current_operation_id": running})) as backend:
        assert run(["workers", "drain", "w1", "--release", "--api-url", backend.url]) == 0
    assert told in capsys.readouterr().out
    assert backend.asked == [("POST", "/api/v1/workers/w1/drain?release=true")]
