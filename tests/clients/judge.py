"""Judges a foreign suite: every result against the list of expected results. python3 judge.py NAME VERSION RESULTS JSON.

RESULTS has a line per test, `pass|fail|skip TAB id TAB detail`. `expected/NAME.txt` has a line per test:

    pass ID
    fail ID -- why it fails
    skip ID -- why it is not run
    flaky ID -- why it may pass or fail

with `full ` before it for a test that only a run with FULL=1 includes. Lines that begin with # say something to readers.
Without such a file every test is expected to pass. A failure, pass or skip that was not expected, a test that is not in
the list and a test of the list that gave no result are unexpected: each is named, and the exit code is 1.

Environment: FULL=1 (the whole suite was run), ONLY (not empty: only some tests were run, by hand, so that none can be
missing and nothing is recorded), ORACLE=1 (the cluster is Apache Kafka: results are told, not judged).
"""

import json
import os
import pathlib
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).parent
STATES = ("pass", "fail", "skip", "flaky")


def expectations(name):
    """{id: (state, reason, whether only in full)} of `expected/NAME.txt`; None without that file."""
    path = HERE / "expected" / f"{name}.txt"
    if not path.exists():
        return None
    found = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        full = line.startswith("full ")
        state, _, rest = line.removeprefix("full ").partition(" ")
        test, _, reason = (part.strip() for part in rest.partition(" -- "))
        where = f"{path.name}:{number}"
        assert state in STATES and test, f"{where}: not understood: {line}"
        assert state == "pass" or reason, f"{where}: {test} needs a reason"
        assert test not in found, f"{where}: {test} is there twice"
        found[test] = (state, reason, full)
    return found


def outcomes(path):
    """{id: (state, detail)}; of several results of one test the worst counts."""
    found = {}
    for line in pathlib.Path(path).read_text(encoding="utf-8", errors="replace").splitlines():
        state, test, detail = (line.split("\t", 2) + ["", ""])[:3]
        assert state in ("pass", "fail", "skip"), f"not a result: {line}"
        if test not in found or found[test][0] == "skip" or state == "fail":
            found[test] = (state, detail)
    return found


def version():
    """What the program under test calls itself."""
    program = os.environ.get("TRADEWIND_BIN") or f"{os.environ.get('TARGET', '')}/tradewind"
    try:
        return subprocess.run([program, "--version"], capture_output=True, text=True, timeout=10).stdout.strip()
    except OSError:
        return ""


def judge(results, expected, full, only):
    """The counts, and what was unexpected in words."""
    counts = {"passed": 0, "failed": 0, "skipped": 0, "unexpected": 0}
    failures, skips, surprises = [], [], []
    for test, (state, detail) in results.items():
        wanted, reason, _ = (expected or {}).get(test, ("pass" if expected is None else None, "", False))
        if wanted == state or (wanted == "flaky" and state != "skip"):
            counts[{"pass": "passed", "fail": "failed", "skip": "skipped"}[state]] += 1
            if state == "fail":
                failures.append({"test": test, "reason": reason})
            if state == "skip":
                skips.append({"test": test, "reason": reason})
            continue
        counts["unexpected"] += 1
        word = {"pass": "pass", "fail": "failure", "skip": "skip"}[state]
        why = "it is not in the list" if wanted is None else f"expected: {wanted}{reason and ', '}{reason}"
        surprises.append(f"unexpected {word}: {test} ({why}) {detail}".rstrip())
    if not only:
        for test, (_, _, in_full) in (expected or {}).items():
            if test not in results and (full or not in_full):
                counts["unexpected"] += 1
                surprises.append(f"no result: {test}")
        if not results:
            counts["unexpected"] += 1
            surprises.append("no results at all")
    return counts, failures, skips, surprises


def main(name, suite_version, results_path, json_path):
    full, only = os.environ.get("FULL") == "1", bool(os.environ.get("ONLY"))
    results = outcomes(results_path)
    if os.environ.get("ORACLE") == "1":
        for test, (state, detail) in results.items():
            if state != "pass":
                print(f"  {state}: {test} {detail}".rstrip())
        states = [state for state, _ in results.values()]
        print(f"{name} {suite_version} against Apache Kafka, not judged")
        print(f"{states.count('pass')} passed, 0 failed, {states.count('skip')} skipped")
        return 0
    counts, failures, skips, surprises = judge(results, expectations(name), full, only)
    for surprise in surprises:
        print(f"  {surprise}")
    print(
        f"{name} {suite_version}: {counts['passed']} passed, {counts['failed']} failed as expected, "
        f"{counts['skipped']} skipped with reason, {counts['unexpected']} unexpected"
    )
    if not only:
        record = {
            "suite": name, "version": suite_version, "tradewind": version(), "full": full,
            "date": time.strftime("%Y-%m-%d", time.gmtime()), **counts, "failures": failures, "skips": skips,
            "surprises": surprises,
        }
        path = pathlib.Path(json_path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{counts['passed']} passed, {counts['unexpected']} failed, {counts['failed'] + counts['skipped']} skipped")
    return 1 if counts["unexpected"] else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
