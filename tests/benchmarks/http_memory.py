"""What the HTTP port costs in memory: an appliance with it and one without, started in turn.

Usage: python tests/benchmarks/http_memory.py [ROUNDS]          (Linux: it reads /proc)

Requests are made before the measurement: messages on kept and new connections, /healthz, /tasks.
/metrics is left out, because it loads the same two megabytes with [metrics].
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from http_site import HttpProcess, session  # noqa: E402

SIMULATED = '[qlik]\nedition = "simulated"\n'
SETTLE_S = 3.0


def megabytes(process: HttpProcess) -> float:
    """The resident memory now."""
    assert process.process is not None
    text = Path(f"/proc/{process.process.pid}/status").read_text("ascii")
    (kilobytes,) = [line.split()[1] for line in text.splitlines() if line.startswith("VmRSS")]
    return int(kilobytes) / 1024


def measure(folder: Path, *, has_port: bool) -> float:
    bind = 'bind = "127.0.0.1:0"' if has_port else ""
    with HttpProcess(folder, SIMULATED, bind=bind) as process:
        process.start()
        if has_port:
            url = process.url
            for _ in range(20):
                with session() as client:
                    for _ in range(50):
                        answer = client.post(f"{url}/messages/a/b", data=b"x" * 100, timeout=60)
                        answer.raise_for_status()
                    client.get(f"{url}/healthz", timeout=60).raise_for_status()
                    client.get(f"{url}/tasks", timeout=60).raise_for_status()
        time.sleep(SETTLE_S)
        found = megabytes(process)
        process.end()
    return found


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    differences = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            without = measure(Path(folder) / "without", has_port=False)
            with_port = measure(Path(folder) / "with", has_port=True)
        differences.append(with_port - without)
        print(f"without {without:.1f} MB, with {with_port:.1f} MB: {differences[-1]:+.1f} MB")
    print(f"median difference: {statistics.median(differences):+.1f} MB")


if __name__ == "__main__":
    main()
