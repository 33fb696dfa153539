"""What wiredflow's storage stages need for messages that come one by one.

For a Python that has wiredflow 0.1.0 installed, not the appliance. It saves the benchmark's payload
with the stage's own ``save``, as wiredflow does for each message of its MQTT connector.

Usage: PYTHON tests/benchmarks/wiredflow_storage.py json|csv COUNT FOLDER
Prints: seconds for all, and microseconds a message of the first and of the last tenth.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from loguru import logger
from wiredflow.main.store_engines.csv_engine.csv_db import CSVStorageStage
from wiredflow.main.store_engines.json_engine.json_db import JSONStorageStage

STAGES = {"json": JSONStorageStage, "csv": CSVStorageStage}
MESSAGE = {"Generated number": "12345", "station": "press 12", "note": ""}


def main() -> None:
    kind, count, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    logger.remove()
    stage = STAGES[kind]("bench", use_threads=False, folder_to_save=folder, mapping="extend")
    marks = [time.perf_counter()]
    for _ in range(10):
        for _ in range(count // 10):
            stage.save(dict(MESSAGE))
        marks.append(time.perf_counter())
    tenths = [after - before for before, after in zip(marks, marks[1:])]
    print(marks[-1] - marks[0], tenths[0] / count * 1e7, tenths[-1] / count * 1e7)


if __name__ == "__main__":
    main()
