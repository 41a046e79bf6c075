"""Real processes with tokens: each worker has its own, works with it, and can do nothing in another's place."""

from __future__ import annotations

import http.client
import json
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from ktrdr.cli.client import Api
from ktrdr.protocol.worker_key import call_credential
from support.living_folder import contents
from support.processes import Part, Parts, finished, in_status, parts, wait_for

pytestmark = pytest.mark.integration

ADMIN = "bootstrap-" + secrets.token_hex(16)
ENROLMENT = "enrolment-" + secrets.token_hex(16)
WORKER = """
from ktrdr.workers.kinds import run_worker
from ktrdr.workers.training_worker import TrainingWorker

TrainingWorker.preload = ()
run_worker("training", port=0, host="127.0.0.1", job="ktrdr.testing.chatty_jobs:perform")
"""


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Parts]:
    with parts(tmp_path) as started:
        yield started


def worker(fleet: Parts, name: str, token: str, **extra: str) -> Part:
    """A worker in a home of its own, as on another machine."""
    home = {"WORKER_ID": name, "KTRDR_API_URL": fleet.url, "KTRDR_HOME": str(fleet.root / f"home-{name}")}
    return fleet.start(name, [], home | {"KTRDR_ENROLMENT_TOKEN": token} | extra, program=("-c", WORKER))


def listed(api: Api, *names: str) -> dict[str, Any]:
    """The workers by id, once they are all available or busy."""

    def seen() -> Any:
        found = {
            w["worker_id"]: w for w in api.get("/workers")["workers"] if w["status"] in ("available", "busy")
        }
        return found if set(names) <= set(found) else None

    return wait_for(seen, f"workers {names}")


def ask(url: str, method: str, path: str, token: str, body: Any = None) -> tuple[int, Any]:
    """One request with exactly this token."""
    parts_ = urlsplit(url)
    connection = http.client.HTTPConnection(str(parts_.hostname), parts_.port, timeout=30)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    connection.request(method, path, None if body is None else json.dumps(body), headers)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, json.loads(content) if content.startswith(b"{") else content


def everything_said(fleet: Parts) -> bytes:
    """Logs of all processes, and all that they keep on disk of jobs and in the ledger."""
    return b"".join(
        content
        for path, content in contents(fleet.root)
        if path.name not in ("key", "key.part") and path.suffix != ".pem"
    )


def process_lines(fleet: Parts) -> bytes:
    """The command lines of all processes of the machine that the tests started."""
    found = subprocess.run(["ps", "-eo", "args"], capture_output=True, check=True)
    return found.stdout


def test_workers_with_tokens_of_their_own_work_and_cannot_act_for_each_other(alone: Parts) -> None:
    loud = {"KTRDR_LOG_LEVEL": "DEBUG"}
    alone.backend(KTRDR_API_TOKEN=ADMIN, KTRDR_ENROLMENT_TOKEN=ENROLMENT, **loud)
    with alone.api(ADMIN) as api:
        api.post("/data/samples")
        tokens = {
            name: str(api.post("/tokens", {"name": name, "scopes": ["worker"]})["token"])
            for name in ("a", "b")
        }
        worker(alone, "b", tokens["b"], **loud)
        listed(api, "b")
        operation_id = str(api.post("/trainings/start", {"strategy_name": "sp500_trend"})["operation_id"])
        running = in_status(api, operation_id, "running")
        assert running["worker_id"] == "b"
        worker(alone, "a", tokens["a"], **loud)
        b = listed(api, "a", "b")["b"]

        # A, and whoever else holds a credential of the fleet, at B's own door
        for token in (tokens["a"], tokens["b"], ENROLMENT, "guess"):
            for method, path in (
                ("GET", f"/api/v1/operations/{operation_id}"),
                ("DELETE", f"/api/v1/operations/{operation_id}/cancel?attempt=1"),
                ("GET", f"/api/v1/operations/{operation_id}/logs"),
                ("POST", "/training/start"),
            ):
                assert ask(b["endpoint_url"], method, path, token)[0] == 401, (method, path)

        # A at the backend, with all that it can know of B
        delivery = {"operation_id": operation_id, "attempt": 1, "status": "completed"}
        report = {"instance_id": b["instance_id"], "worker_status": "idle", "delivery": delivery}
        assert ask(alone.url, "POST", "/api/v1/workers/b/report", tokens["a"], report)[0] == 403
        assert ask(alone.url, "POST", "/api/v1/workers/a/report", tokens["a"], report)[0] == 403
        claim = {"worker_id": "b", "worker_type": "training", "instance_id": b["instance_id"]}
        claim["endpoint_url"] = listed(api, "a")["a"]["endpoint_url"]
        assert ask(alone.url, "POST", "/api/v1/workers/register", tokens["a"], claim)[0] == 403
        for path in ("", "/spec", "/logs", "/results"):
            assert ask(alone.url, "GET", f"/api/v1/operations/{operation_id}{path}", tokens["a"])[0] == 403

        # what the fleet itself does goes on: progress, logs, cancel through the backend
        wait_for(
            lambda: b"line 5 " in api.request("GET", f"/operations/{operation_id}/logs").content, "its log"
        )
        assert api.get(f"/operations/{operation_id}")["status"] == "running"
        api.request("POST", f"/operations/{operation_id}/cancel")
        assert finished(api, operation_id)["status"] == "cancelled"

        credentials = [
            call_credential(ADMIN, w["worker_id"], w["instance_id"]) for w in listed(api, "a", "b").values()
        ]

        # a revoked worker is out
        api.delete("/tokens/a")
        status, problem = ask(alone.url, "POST", "/api/v1/workers/register", tokens["a"], claim)
        assert (status, problem["type"]) == (401, "urn:ktrdr:problem:not-authorised")
        job_log = api.request("GET", f"/operations/{operation_id}/logs").content
    keys = [path.read_text().strip() for path in alone.root.rglob("workers/*/key")]
    assert len(keys) == len(credentials) == 2
    said = everything_said(alone) + process_lines(alone)
    for secret in (
        ADMIN,
        ENROLMENT,
        *(token.rpartition("_")[2] for token in tokens.values()),
        *keys,
        *credentials,
    ):
        assert secret.encode() not in said
        assert secret.encode() not in job_log
    assert b"KTRDR_ENROLMENT_TOKEN: ****" in job_log  # the job itself tried
    assert b"DEBUG" in said


def test_a_worker_that_was_restarted_is_the_same_and_a_changed_bootstrap_token_changes_nothing_for_it(
    alone: Parts,
) -> None:
    first = alone.backend(KTRDR_API_TOKEN=ADMIN, KTRDR_ENROLMENT_TOKEN=ENROLMENT)
    with alone.api(ADMIN) as api:
        api.post("/data/samples")
        before = worker(alone, "b", ENROLMENT)
        instance = listed(api, "b")["b"]["instance_id"]
        before.kill()
        worker(alone, "b", ENROLMENT)
        wait_for(lambda: listed(api, "b")["b"]["instance_id"] != instance, "the next incarnation")
    first.stop()
    alone.backend(KTRDR_API_TOKEN=f"{ADMIN}-2", KTRDR_ENROLMENT_TOKEN=ENROLMENT)
    with alone.api(f"{ADMIN}-2") as api:
        wait_for(lambda: listed(api, "b"), "the worker after the change")
        operation_id = str(api.post("/trainings/start", {"strategy_name": "sp500_trend"})["operation_id"])
        wait_for(
            lambda: b"line 5 " in api.request("GET", f"/operations/{operation_id}/logs").content, "its log"
        )
        assert api.get(f"/operations/{operation_id}")["attempt"] == 1
