"""Runs librdkafka's tests, each file in a process of its own: python3 librdkafka.py TESTS SCENARIO RESULTS.

Environment: BOOTSTRAP, ONLY (words of test names), FULL (not empty: the slow ones too), JOBS (how many at once),
GROUP_PROTOCOL (classic or consumer). Appends a line per test to RESULTS as judge.py wants it; what the tests print goes to WORK.
"""

import concurrent.futures
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import threading
import time

# How long one process may take, in seconds.
LIMIT = 300
LIMITS = {"0113": 900}
# What takes longest here, and what needs transactions or ACLs as a whole. Only with FULL.
SLOW = set("0018 0026 0030 0045 0055 0061 0076 0077 0089 0091 0094 0102 0103 0113 0115 0119 0122 0129 0137".split())
# Files whose parts run one by one, because a part that cannot pass would hide those after it: {part: what selects it}.
PARTS = {
    "0055": {"linger": "0ms)", "transactions": "transactions"},
    "0061": {"without transactions": "without transactions", "with transactions": "with transactions"},
    "0081": {name: f"do_test_{name}" for name in (
        "CreateTopics DeleteTopics CreatePartitions CreateAcls DescribeAcls DeleteAcls AlterConfigs "
        "IncrementalAlterConfigs DescribeConfigs DeleteRecords ListConsumerGroups DescribeConsumerGroups DescribeTopics "
        "DescribeCluster DeleteGroups DeleteConsumerGroupOffsets ListOffsets AlterConsumerGroupOffsets "
        "ListConsumerGroupOffsets UserScramCredentials"
    ).split()},
    "0137": {name: f"do_test_consume_batch_{name}" for name in (
        "with_seek store_offset with_pause_and_resume_different_batch with_pause_and_resume_same_batch control_msgs"
    ).split()},
}
# What is run with KIP-848's protocol as well.
GROUPS = set("0018 0022 0026 0029 0030 0045 0050 0051 0056 0069 0089 0091 0099 0102 0113 0118 0122 0130 0132 0137 0140 0153".split())
# As for a broker before 2.1, which leaves out the part that needs ACLs.
VERSIONS = {"0109": "2.0.0"}
SUMMARY = re.compile(r"\|\s*(\d{4}_\S+)\s*\|\s*(\w+)\s*\|\s*[\d.]+s\s*\|[ \t]*(.*)")
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


def run(tests, scenario, number, part, work):
    """The output of one process and how it ended."""
    with tempfile.TemporaryDirectory(dir=work) as folder:
        config = pathlib.Path(folder) / "test.conf"
        config.write_text(f"metadata.broker.list={os.environ['BOOTSTRAP']}\ntest.topic.random=true\ntest.timeout.multiplier=3\n")
        environment = os.environ | {
            "RDKAFKA_TEST_CONF": str(config), "TESTS": number, "TEST_KAFKA_VERSION": VERSIONS.get(number, "4.1.0"),
            "BROKERS": os.environ["BOOTSTRAP"], "TEST_CONSUMER_GROUP_PROTOCOL": os.environ.get("GROUP_PROTOCOL") or "classic",
        }
        environment.pop("CI", None)
        if part:
            environment["SUBTESTS"] = part
        command = ["./test-runner", "-p1", "-L", "-K", "-s", scenario]
        done = subprocess.Popen(
            command, cwd=tests, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
        )
        limit = LIMITS.get(number, LIMIT)
        try:
            output, _ = done.communicate(timeout=limit)
            ended = f"exit code {done.returncode}"
        except subprocess.TimeoutExpired:
            os.killpg(done.pid, 9)
            output, _ = done.communicate()
            ended = f"ended after {limit} s"
    return COLOURS.sub("", output.decode(errors="replace")), ended


def failure(output):
    """The words with which a test said that it failed."""
    found = re.search(r"### Test .*? failed at .*?###\n(.*)", output)
    return found.group(1) if found else ""


def main(tests, scenario, results):
    tests = pathlib.Path(tests)
    work = pathlib.Path(os.environ["WORK"])
    kip_848 = os.environ.get("GROUP_PROTOCOL") == "consumer"
    suffix = " with KIP-848" if kip_848 else ""
    only = (os.environ.get("ONLY") or "").split()
    chosen = []
    for number, entries in sorted(registered(tests).items()):
        names = [name for name, scenarios in entries if scenario in scenarios.split(",")]
        if kip_848 and number not in GROUPS:
            continue
        if only:
            names = [name for name in names if any(word in name for word in only)]
        elif not os.environ.get("FULL") and number in SLOW:
            continue
        if names:
            chosen += [(number, names, part, select) for part, select in PARTS.get(number, {"": ""}).items()]
    lock = threading.Lock()

    def one(number, names, part, select):
        began = time.monotonic()
        output, ended = run(tests, scenario, number, select, work)
        took = time.monotonic() - began
        (work / f"librdkafka-{number}-{part or scenario}{suffix and '-848'}.log").write_text(output)
        said = {name: (state, why) for name, state, why in SUMMARY.findall(output)}
        with lock, open(results, "a", encoding="utf-8") as out:
            for name in names:
                # A process that dies of one test prints no summary of the others.
                passed = f"Test {name} PASSED" in output
                state, why = said.get(name, ("PASSED" if passed else "", ""))
                result = STATES.get(state, "fail")
                if result == "fail":
                    why = " ".join(f"{ended} {failure(output)}".split())[:300]
                name += part and f"/{part}"
                print(result, name + suffix, why, sep="\t", file=out)
                print(f"{result} {name} {took:.1f} s {why}", file=sys.stderr, flush=True)

    # They wait most of the time, so that a few at once do not disturb each other.
    with concurrent.futures.ThreadPoolExecutor(int(os.environ.get("JOBS") or 4)) as pool:
        for future in [pool.submit(one, *choice) for choice in chosen]:
            future.result()


if __name__ == "__main__":
    main(*sys.argv[1:])
