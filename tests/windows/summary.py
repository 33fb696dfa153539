"""Counts of pytest's JUnit files, suite by suite, and why tests were skipped."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree


def suite_of(case: ElementTree.Element) -> str:
    """``tests.integration.broker.test_guard`` is of the suite ``integration/broker``."""
    parts = [each for each in case.get("classname", "").split(".") if each != "tests"]
    modules = [each for each in parts if not each.startswith("Test")]
    return "/".join(modules[: 2 if modules[0] == "integration" else 1])


def main(folder: Path) -> int:
    counts: dict[str, Counter[str]] = {}
    reasons: Counter[str] = Counter()
    failed: list[str] = []
    for path in sorted(folder.glob("*.xml")):
        for case in ElementTree.parse(path).iter("testcase"):
            outcome = "passed"
            if (skipped := case.find("skipped")) is not None:
                outcome = "skipped"
                reasons[skipped.get("message", "")] += 1
            elif case.find("failure") is not None or case.find("error") is not None:
                outcome = "failed"
                failed.append(f"{case.get('classname')}::{case.get('name')}")
            counts.setdefault(suite_of(case), Counter())[outcome] += 1
    total: Counter[str] = sum(counts.values(), Counter())
    print(f"{'Windows CPython under Wine':<28}{'passed':>8}{'skipped':>9}{'failed':>8}")
    for name, row in [*sorted(counts.items()), ("total", total)]:
        print(f"{name:<28}{row['passed']:>8}{row['skipped']:>9}{row['failed']:>8}")
    for reason, number in sorted(reasons.items()):
        print(f"skipped {number}: {reason}")
    for name in failed:
        print(f"failed: {name}")
    return 1 if failed or not total["passed"] else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
