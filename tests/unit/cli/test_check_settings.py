"""``ktrdr doctor`` finds settings that have no effect and those that nothing starts with."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from ktrdr.cli.app import cli
from ktrdr.cli.check_settings import NAMES, check_settings

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "settings.md"


def test_it_knows_the_settings_of_the_page() -> None:
    rows = [row.split("|")[1] for row in PAGE.read_text().splitlines() if row.startswith("| `")]
    assert sorted(NAMES) == sorted(name for row in rows for name in re.findall(r"KTRDR_[A-Z_]*[A-Z]", row))


@pytest.mark.parametrize(
    ("name", "hint"),
    [("KTRDR_LEASSE_S", "; did you mean 'KTRDR_LEASE_S'?"), ("KTRDR_XYZZY_QUUX_FROB", "")],
)
def test_a_name_that_nothing_reads(name: str, hint: str) -> None:
    [check] = check_settings({name: "1", "KTRDR_LEASE_S": "60"})
    assert (check.status, check.detail) == ("warn", f"{name} is not a setting{hint}")
    assert "it has no effect" in check.advice


@pytest.mark.parametrize("name", ["KTRDR_LEASE_S", "KTRDR_CHECKPOINT_BARS", "KTRDR_RETENTION_DAYS"])
def test_a_number_with_which_nothing_starts(name: str) -> None:
    [check] = check_settings({name: "soon"})
    assert (check.status, f"{name}='soon' is not a number" in check.detail) == ("fail", True)


@pytest.mark.parametrize(
    ("name", "value"),
    [("KTRDR_ALLOWED_HOSTS", "https://a.example"), ("KTRDR_ALLOWED_WORKER_NETWORKS", "10.0.0")],
)
def test_a_list_with_which_no_backend_starts(name: str, value: str) -> None:
    [check] = check_settings({name: value})
    assert (check.status, check.detail.startswith(f"{name}: '{value}' is not")) == ("fail", True)


def test_settings_that_are_well(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("b7f3c1d2e4a5968778695a4b3c2d1e0f")
    assert [(c.status, c.detail) for c in check_settings({"HOME": "/"})] == [("ok", "all by default")]
    some = {"KTRDR_LEASE_S": "60", "KTRDR_API_TOKEN_FILE": str(tmp_path / "token"), "WORKER_ID": "w"}
    assert [(c.status, c.detail) for c in check_settings(some)] == [("ok", "2 in the environment")]


@pytest.mark.parametrize(
    ("name", "told"), [("KTRDR_API_TOKEN", "tokens"), ("KTRDR_DATABASE_URL", "settings")]
)
def test_a_secret_that_cannot_be_read_ends_no_check_up(
    name: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").touch()
    monkeypatch.setenv("KTRDR_HOME", str(tmp_path / "home"))
    monkeypatch.setenv(f"{name}_FILE", str(tmp_path / "empty"))
    done = CliRunner().invoke(
        cli, ["doctor", "--json", "--api-url", "http://127.0.0.1:9"], standalone_mode=False
    )
    checks = {check["name"]: check for check in json.loads(done.output)["checks"]}
    assert (checks[told]["status"], "is empty" in checks[told]["detail"]) == ("fail", True)
    assert "gpu" in checks
