"""Runs librdkafka's tests, each file in a process of its own: python3 librdkafka.py TESTS SCENARIO RESULTS.

Environment: BOOTSTRAP, ONLY (words of test names), FULL (not empty: the slow ones too), GROUP_PROTOCOL (classic or
consumer). Appends a line per test to RESULTS as judge.py wants it; what the tests print goes to WORK.
"""

import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

# How long one process may take, in seconds.
LIMIT = 240
# What takes more than about twenty seconds here, and says little that the others do not. Only with FULL.
SLOW = set("0038".split())
SUMMARY = re.compile(r"\|\s*(\d{4}_\S+)\s*\|\s*(\w+)\s*\|\s*[\d.]+s\s*\|\s*(.*)")
COLOURS = re.compile("\x1b\\[[0-9;]*m")
STATES = {"PASSED": "pass", "SKIPPED": "skip", "FAILED": "fail", "RUNNING": "fail", "DNS": "fail"}


def registered(tests):
    """{number: [(name, whether it needs a broker, scenario)]} from the table in test.c."""
    text = (tests / "test.c").read_text()
    table = text[text.index("struct test tests[]"):]
    table = table[: table.index("{NULL}")]
    found = {}
    for entry in re.finditer(r"_TEST\((\d{4})(_\w+),(.*?)\)(?=,\s*(?:_TEST|#|/\*|$))", table, re.S):
        number, rest, options = entry.groups()
        if "TEST_F_LOCAL" in options or "TEST_F_MANUAL" in options or rest.endswith("_mock"):
            continue
        scenario = re.search(r'scenario = "([^"]*)"', options)
        found.setdefault(number, []).append((number + rest, scenario.group(1) if scenario else "default"))
    return found


def run(tests, scenario, number, work):
    """The output of one process and why it ended early, if it did."""
    with tempfile.TemporaryDirectory(dir=work) as folder:
        config = pathlib.Path(folder) / "test.conf"
        config.write_text(f"metadata.broker.list={os.environ['BOOTSTRAP']}\ntest.topic.random=true\n")
        environment = os.environ | {
            "RDKAFKA_TEST_CONF": str(config), "TESTS": number, "TEST_KAFKA_VERSION": "4.1.0",
            "BROKERS": os.environ["BOOTSTRAP"], "TEST_CONSUMER_GROUP_PROTOCOL": os.environ.get("GROUP_PROTOCOL") or "classic",
        }
        environment.pop("CI", None)
        command = ["./test-runner", "-p1", "-L", "-K", "-Q", "-s", scenario]
        done = subprocess.Popen(
            command, cwd=tests, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            output, _ = done.communicate(timeout=LIMIT)
            ended = f"exit code {done.returncode}"
        except subprocess.TimeoutExpired:
            os.killpg(done.pid, 9)
            output, _ = done.communicate()
            ended = f"ended after {LIMIT} s"
    return COLOURS.sub("", output.decode(errors="replace")), ended


def main(tests, scenario, results):
    tests = pathlib.Path(tests)
    work = pathlib.Path(os.environ["WORK"])
    suffix = "" if (os.environ.get("GROUP_PROTOCOL") or "classic") == "classic" else " with KIP-848"
    only = (os.environ.get("ONLY") or "").split()
    with open(results, "a", encoding="utf-8") as out:
        for number, entries in sorted(registered(tests).items()):
            names = [name for name, scenarios in entries if scenario in scenarios.split(",")]
            if not names or (only and not any(word in name for word in only for name in names)):
                continue
            if not only and not os.environ.get("FULL") and number in SLOW:
                continue
            began = time.monotonic()
            output, ended = run(tests, scenario, number, work)
            (work / f"librdkafka-{number}-{scenario}.log").write_text(output)
            said = {name: (state, why) for name, state, why in SUMMARY.findall(output)}
            for name in names:
                state, why = said.get(name, ("", ""))
                # A skipped test is left out of the summary when it says nothing.
                if not state and f"Skipping test {name}" in output:
                    state = "SKIPPED"
                result = STATES.get(state, "fail")
                print(result, name + suffix, " ".join((why or (ended if result == "fail" else "")).split())[:300], sep="\t", file=out, flush=True)
                print(f"{result} {name} {time.monotonic() - began:.1f} s {why}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
