"""What a local fleet refuses before it starts anything, and what it leaves behind: nothing."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ktrdr.cli.fleet import Fleet, FleetPlan, termination_as_interrupt
from ktrdr.errors import Conflict, InvalidSetting


def plan(home: Path, **options: object) -> FleetPlan:
    return FleetPlan(home=home, training_workers=0, backtesting_workers=0, **{"port": 0} | options)  # type: ignore[arg-type]


def test_a_port_in_use_leaves_the_home_free(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InvalidSetting, match=f"127.0.0.1:{port}.*--port"):
            Fleet(plan(tmp_path, port=port), say=print)
    with Fleet(plan(tmp_path), say=print) as fleet:
        assert fleet.url.startswith("http://127.0.0.1:")


@pytest.mark.parametrize("host", ["no-such-host.invalid", "203.0.113.7"])
def test_an_address_of_another_machine_is_no_matter_of_the_port(tmp_path: Path, host: str) -> None:
    with pytest.raises(InvalidSetting, match="--host") as caught:
        Fleet(plan(tmp_path, host=host), say=print)
    assert host in caught.value.message
    assert "--port" not in caught.value.message


def test_ipv6(tmp_path: Path) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    with Fleet(plan(tmp_path, host="::1"), say=print) as fleet:
        assert fleet.url.startswith("http://[::1]:")


def test_one_fleet_per_home(tmp_path: Path) -> None:
    with Fleet(plan(tmp_path), say=print), pytest.raises(Conflict, match="KTRDR_HOME"):
        Fleet(plan(tmp_path), say=print)


def test_a_home_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")
    with pytest.raises(InvalidSetting, match="KTRDR_HOME"):
        Fleet(plan(tmp_path / "home"), say=print)


def test_settings_that_a_part_refuses_are_invalid_settings(tmp_path: Path) -> None:
    """Off loopback the backend wants a token; its own words are told."""
    off_loopback = plan(tmp_path, host="0.0.0.0", without=("KTRDR_API_TOKEN",))
    with Fleet(off_loopback, say=print) as fleet, pytest.raises(InvalidSetting, match="KTRDR_API_TOKEN"):
        fleet.start()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_every_polite_signal_ends_the_block(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), termination_as_interrupt():
        signal.raise_signal(number)
    assert signal.getsignal(number) is before


def test_ctrl_c_while_the_first_part_starts_leaves_no_process(tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("KTRDR")} | {
        "KTRDR_HOME": str(tmp_path)
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "ktrdr", "up", "--port", "0"],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert "Starting" in process.stdout.readline()
    deadline = time.monotonic() + 60
    while not (tmp_path / "logs" / "backend.log").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    said, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "Stopped." in said
    mine = f"KTRDR_HOME={tmp_path}".encode()
    left = [p for p in Path("/proc").glob("[0-9]*/environ") if _holds(p, mine)]
    assert left == []


def _holds(path: Path, text: bytes) -> bool:
    try:
        return text in path.read_bytes().split(b"\0")
    except OSError:  # it has ended, or is another user's
        return False
