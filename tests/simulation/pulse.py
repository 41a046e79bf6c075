"""What a worker answers to probes: made anew only when it differs from what it said last."""

from __future__ import annotations

from typing import Any

from ktrdr.operations.progress import Progress
from ktrdr.protocol.messages import HealthView, ProgressView
from ktrdr.protocol.transports import Answer

__all__ = ["Pulse"]


class Pulse:
    """Of one incarnation of a worker."""

    def __init__(self, worker_id: str, instance_id: str) -> None:
        self._worker_id, self._instance_id = worker_id, instance_id
        self._last: tuple[Any, Answer] = (None, Answer(500))

    def answer(self, status: str, running: tuple[str, int] | None, progress: Progress | None) -> Answer:
        """``running``: operation and attempt."""
        said = (status, running, progress)
        if said != self._last[0]:
            self._last = (said, Answer(200, {}, self._health(*said).model_dump_json().encode()))
        return self._last[1]

    def _health(self, status: Any, running: tuple[str, int] | None, progress: Progress | None) -> HealthView:
        operation_id, attempt = running or (None, None)
        return HealthView(
            worker_status=status,
            current_operation=operation_id,
            current_attempt=attempt,
            progress=None if progress is None else ProgressView.of(progress),
            worker_id=self._worker_id,
            instance_id=self._instance_id,
            version="0",
        )
