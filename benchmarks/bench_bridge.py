"""What the progress bridge costs the job that writes it: CPU time per call, median of rounds.

Run: python benchmarks/bench_bridge.py
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from ktrdr.operations.bridge import ProgressBridge
from ktrdr.operations.progress import Metric, Progress
from table import Row

CONTEXT = {
    "current_bar": 123_456,
    "total_bars": 1_000_000,
    "current_date": "2015-06-01T00:00:00Z",
    "current_pnl": 1234.56,
    "total_trades": 321,
    "win_rate": 0.54,
}


def cpu_per_call(call: Callable[[], object], calls: int, rounds: int = 15) -> float:
    """Median CPU microseconds per call, the loop's own cost included."""
    timings = []
    for _ in range(rounds):
        started = time.process_time()
        for _ in range(calls):
            call()
        timings.append((time.process_time() - started) / calls)
    return statistics.median(timings) * 1e6


UPDATE = "update (publishing every 50 ms included)"
SNAPSHOT = "update + flush (a snapshot each)"
METRIC = "append one metrics record"
READ = "read, same snapshot"


def measure(share: float = 1.0) -> dict[str, float]:
    """CPU microseconds per call; ``share`` of the usual number of calls."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bridge"
        with ProgressBridge.create(path) as bridge, ProgressBridge.open(path) as reader:
            progress = Progress(1, 1_000_000, "bar 123,456 of 1,000,000", CONTEXT)
            metric = Metric({"epoch": 3, "train_loss": 0.4321, "val_loss": 0.4567})

            def publish() -> None:
                bridge.update(progress)
                bridge.flush()

            return {
                UPDATE: cpu_per_call(lambda: bridge.update(progress), int(200_000 * share)),
                "cancelled": cpu_per_call(lambda: bridge.cancelled, int(200_000 * share)),
                SNAPSHOT: cpu_per_call(publish, int(5_000 * share)),
                METRIC: cpu_per_call(lambda: bridge.append(metric), int(2_000 * share)),
                READ: cpu_per_call(reader.read, int(20_000 * share)),
            }


def rows(*, tiny: bool = False) -> list[Row]:
    """The table's row."""
    costs = measure(0.01 if tiny else 1.0)
    snapshot, metric, read = (costs[name] for name in (SNAPSHOT, METRIC, READ))
    return [
        Row(
            key="bridge.update",
            what="progress write through the bridge",
            measured=costs[UPDATE],
            unit="us",
            target=0.5,
            strict=True,
            cpu_s=costs[UPDATE] * 1e-6,
            note=f"snapshot {snapshot:.1f} us, metrics record {metric:.1f} us, read {read:.1f} us",
        )
    ]


def main() -> None:
    print("progress bridge, CPU time per call (median)")
    for name, microseconds in measure().items():
        print(f"  {name:<45}{microseconds:8.3f} us")


if __name__ == "__main__":
    main()
