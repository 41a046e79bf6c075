"""Following an operation: what is shown in a log and on a terminal, and how it ends."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from typing import Any

import pytest

from ktrdr import errors
from ktrdr.cli.client import Api
from ktrdr.cli.exits import Interrupted
from ktrdr.cli.follow import follow, submit
from ktrdr.cli.output import Output
from support.scripted_backend import Said, Scripted, scripted

ID = "op_training_20260101_120000_abcd1234"


def operation(status: str, percentage: float = 0.0, message: str = "", **more: Any) -> dict[str, Any]:
    progress = {"percentage": percentage, "message": message, "context": {"train_loss": 1.0}}
    return {"operation_id": ID, "status": status, "progress": progress, "error": None} | more


def in_turn(*operations: dict[str, Any]) -> Callable[[str, str], Said]:
    """Answers one after another; the last for ever."""
    left = list(operations)

    def answer(_method: str, _path: str) -> Said:
        return Said(left.pop(0) if len(left) > 1 else left[0])

    return answer


def watch(backend: Scripted, **options: Any) -> Any:
    with Api(backend.url) as api:
        return follow(api, Output(), ID, poll_s=0.0, **options)


def test_a_line_for_each_status_and_each_tenth(capsys: pytest.CaptureFixture[str]) -> None:
    story = in_turn(
        operation("pending", waiting_for="every training worker is busy", queue_position=2),
        operation("running", 1.0, "epoch 1 of 100"),
        operation("running", 2.0, "epoch 2 of 100"),
        operation("running", 12.0, "epoch 12 of 100"),
        operation("completed", 99.0, "epoch 99 of 100"),
    )
    with scripted(story) as backend:
        assert watch(backend)["status"] == "completed"
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        f"{ID} pending 0 %: every training worker is busy, number 2 in the queue",
        f"{ID} running 1 %: epoch 1 of 100",
        f"{ID} running 12 %: epoch 12 of 100",
        f"{ID} completed",
    ]


def test_a_line_after_a_long_silence(capsys: pytest.CaptureFixture[str]) -> None:
    story = in_turn(operation("running", 1.0, "a"), operation("running", 1.0, "b"), operation("completed"))
    with scripted(story) as backend:
        watch(backend, silence_s=0.0)
    assert [line.split(": ")[-1] for line in capsys.readouterr().err.splitlines()[:2]] == ["a", "b"]


@pytest.mark.parametrize(
    ("status", "kind", "told"),
    [("failed", errors.OperationFailed, "out of luck"), ("cancelled", errors.Cancelled, "was cancelled")],
)
def test_other_ends_are_errors(status: str, kind: type[errors.KtrdrError], told: str) -> None:
    with scripted(in_turn(operation(status, error="out of luck"))) as backend:
        with pytest.raises(kind, match=told) as caught:
            watch(backend)
        assert ID in caught.value.message


@pytest.mark.parametrize("status", ["failed", "cancelled"])
@pytest.mark.parametrize(("checkpoint", "again"), [("ab" * 32, "resume"), (None, "retry")])
def test_another_end_says_what_can_be_done(status: str, checkpoint: str | None, again: str) -> None:
    ended = operation(status, error="out of luck") | {"checkpoint_digest": checkpoint}
    with scripted(in_turn(ended)) as backend, pytest.raises(errors.KtrdrError) as caught:
        watch(backend)
    assert f"ktrdr operations logs {ID}" in caught.value.message
    assert f"ktrdr operations {again} {ID}" in caught.value.message


def test_an_operation_that_is_not_there_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    problem = {"type": "urn:ktrdr:problem:not-found", "detail": "No operation."}
    with scripted(lambda _, __: Said(problem, 404)) as backend, pytest.raises(errors.NotFound):
        watch(backend)
    assert capsys.readouterr().err == ""


def test_a_backend_that_comes_back_is_waited_for() -> None:
    answers = [Said(operation("running")), Said("gone", 502, "text/plain"), Said(operation("completed"))]
    with scripted(lambda _, __: answers.pop(0)) as backend:
        assert watch(backend)["status"] == "completed"


def test_a_backend_that_stays_away_ends_the_patience() -> None:
    answers = [Said(operation("running"))]
    gone = Said("gone", 502, "text/plain")
    with (
        scripted(lambda _, __: answers.pop() if answers else gone) as backend,
        pytest.raises(errors.ServerUnreachable),
    ):
        watch(backend, patience_s=0.0)


@pytest.mark.parametrize("cancel", [False, True])
def test_ctrl_c_says_what_goes_on(cancel: bool) -> None:
    """The signal comes while the answer is awaited, as it does for a user."""

    def answer(method: str, _path: str) -> Said:
        if method == "GET":
            signal.raise_signal(signal.SIGINT)
        return Said(operation("running"))

    with scripted(answer) as backend:
        with pytest.raises(Interrupted) as caught:
            watch(backend, cancel_on_interrupt=cancel)
        cancelled = ("POST", f"/api/v1/operations/{ID}/cancel") in backend.asked
    assert cancelled is cancel
    assert ID in caught.value.message
    assert (f"ktrdr operations cancel {ID}" in caught.value.message) is not cancel


def test_ctrl_c_while_submitting_says_that_it_may_have_been_accepted() -> None:
    def answer(_method: str, _path: str) -> Said:
        signal.raise_signal(signal.SIGINT)
        return Said({"operation_id": ID})

    with (
        scripted(answer) as backend,
        Api(backend.url) as api,
        pytest.raises(Interrupted, match="ktrdr operations list"),
    ):
        submit(api, Output(), "/trainings/start", {}, detach=False, cancel_on_interrupt=False)


def test_detached(capsys: pytest.CaptureFixture[str]) -> None:
    with scripted(in_turn({"operation_id": ID})) as backend, Api(backend.url) as api:
        assert submit(api, Output(), "/x", {}, detach=True, cancel_on_interrupt=False) is None
    assert capsys.readouterr().out == f"{ID}\n"


def on_a_terminal(columns: int, *arguments: str, **extra: str) -> tuple[int, str]:
    """Run a command on a terminal of so many columns; its exit code and what it wrote there."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    kept = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR")}
    process = subprocess.Popen(
        [sys.executable, "-m", "ktrdr", *arguments],
        stdin=slave, stdout=slave, stderr=slave, env=kept | {"TERM": "xterm"} | extra,
    )  # fmt: skip
    os.close(slave)
    written = b""
    deadline = time.monotonic() + 60
    try:
        while time.monotonic() < deadline and (piece := os.read(master, 4096)):
            written += piece
    except OSError:  # what Linux says when the last writer has closed
        pass
    finally:
        os.close(master)
    return process.wait(60), written.decode()


def _lines(written: str) -> list[str]:
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written)
    return [line for line in re.split(r"[\r\n]+", plain) if line.strip()]


def test_the_live_line_fits_a_terminal_of_80_columns() -> None:
    message = "epoch 165 of 100000: train 1.0208, validation 1.0288, and more of it " * 3
    summary = operation("completed", 100.0, result_summary={"val_loss": 1.0})
    story = in_turn(operation("running", 40.0, message), operation("running", 40.0, message), summary)
    with scripted(story) as backend:
        code, written = on_a_terminal(80, "operations", "watch", ID, "--api-url", backend.url)
    lines = _lines(written)
    assert code == 0, written
    assert any("running" in line and "━" in line and "40%" in line and "epoch 165" in line for line in lines)
    assert max(map(len, lines)) <= 80


def test_a_table_on_a_terminal_has_a_bold_head_unless_no_colour_is_wanted() -> None:
    items = [{"name": "mine", "symbols": ["A"], "timeframes": ["1d"], "description": "word " * 20}]
    with scripted(lambda _, __: Said({"items": items})) as backend:
        arguments = ("strategies", "list", "--api-url", backend.url)
        code, coloured = on_a_terminal(80, *arguments)
        _, plain = on_a_terminal(80, *arguments, NO_COLOR="1")
    assert code == 0
    assert "\x1b[1mname" in coloured
    assert "\x1b" not in plain
    assert max(map(len, _lines(plain))) <= 80
    assert plain.count("word") == 20
