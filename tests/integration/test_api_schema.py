"""What a client may conclude from the OpenAPI document, tried against a real fleet: no server error, no answer that
the document does not describe, for thousands of requests, right and wrong ones.

``make test-api`` tries more of them: KTRDR_API_EXAMPLES and KTRDR_API_SEED.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.processes import Parts, finished, in_status, parts, unmeasured
from support.strategies import edited, endless_training

pytestmark = pytest.mark.integration

EXAMPLES = os.environ.get("KTRDR_API_EXAMPLES", "4")
SEED = os.environ.get("KTRDR_API_SEED", "1")
CHECKS = (
    *("not_a_server_error", "status_code_conformance", "content_type_conformance", "response_headers_conformance"),
    *("response_schema_conformance", "unsupported_method", "missing_required_header", "allow_header_conformance"),
)  # fmt: skip
# 503 is an answer of the contract (no workers, all busy), not a failure of the server.
CONFIGURATION = """
[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", 503]
"""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parts]:
    with parts(tmp_path_factory.mktemp("schema"), measured=False) as fleet:
        fleet.backend()
        fleet.worker("training", "t1")
        fleet.worker("backtesting", "b1")
        yield fleet


def test_no_request_gets_a_server_error_or_an_undocumented_answer(fleet: Parts, tmp_path: Path) -> None:
    configuration = tmp_path / "schemathesis.toml"
    configuration.write_text(CONFIGURATION + _dictionaries(_stocked(fleet)))
    done = subprocess.run(
        [
            *(sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()"),
            *("--config-file", str(configuration), "run", f"{fleet.url}/openapi.json"),
            *("--checks", ",".join(CHECKS), "--phases", "examples,coverage,fuzzing", "--seed", SEED),
            *("--max-examples", EXAMPLES, "--continue-on-failure", "--request-timeout", "60", "--warnings", "off"),
            *("--suppress-health-check", "too_slow"),  # which speaks of the machine
            *("--exclude-path-regex", "events$"),  # a stream that ends with its operation
        ],
        capture_output=True, text=True, check=False, cwd=tmp_path, timeout=3000, env=unmeasured(),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2_000:]
    tried = re.search(r"(\d+) generated, \1 passed", done.stdout)
    assert tried is not None, done.stdout[-3_000:]
    assert int(tried[1]) > 1_000
    with fleet.api() as api:
        assert api.get("/operations")["total"] >= 1
    log = next(fleet.root.glob("backend-*.log")).read_text()
    assert "Traceback" not in log, log[-5_000:]


def _stocked(fleet: Parts) -> dict[str, list[Any]]:
    """Work of every kind, and the names under which the routes find it."""
    with fleet.api() as api:
        api.post("/data/samples")
        text = edited("sp500_trend", training__epochs=2)
        trained = finished(api, api.post("/trainings/start", {"strategy": text})["operation_id"])
        body = {"strategy": text, "model_id": trained["result_summary"]["model_id"]}
        tested = finished(api, api.post("/backtests/start", body)["operation_id"])
        endless = api.post("/trainings/start", {"strategy": endless_training()})["operation_id"]
        waiting = api.post("/trainings/start", {"strategy": endless_training()})["operation_id"]
        gone = api.post("/trainings/start", {"strategy": endless_training()})["operation_id"]
        api.post(f"/operations/{gone}/cancel")
        in_status(api, endless, "running")
        assert {trained["status"], tested["status"]} == {"completed"}
        return {
            "operation_id": [trained["operation_id"], tested["operation_id"], endless, waiting, gone],
            "sha256": [*tested["artifacts"].values(), *trained["artifacts"].values()],
            "model_id": [body["model_id"]],
            "worker_id": ["t1", "b1"],
            "symbol": [row["symbol"] for row in api.get("/data")["items"]],
            "timeframe": ["1d", "1h", "5m"],
            "name": ["sp500_trend"],
        }


def _dictionaries(known: dict[str, list[Any]]) -> str:
    lines = [f"[dictionaries.{name}]\nvalues = {json.dumps(values)}" for name, values in known.items()]
    bound = [f'{name} = {{ dictionary = "{name}", probability = 0.8 }}' for name in known]
    return "\n".join([*lines, "[parameters]", *bound]) + "\n"
