"""Prints what `go test -v` said as result lines for judge.py: python3 go_results.py LOG.

A test that began and did not end, because the process was ended, failed. Of its subtests nothing is said.
"""

import re
import sys

BEGAN = re.compile(r"^=== (?:RUN|NAME|CONT|PAUSE)\s+(\S+)")
ENDED = re.compile(r"^\s*--- (PASS|FAIL|SKIP): (\S+) \(")
SAID = re.compile(r"^\s+\S+\.go:\d+: (.*)")


def main(path):
    began, ended, said, current, panic = [], {}, {}, "", ""
    with open(path, encoding="utf-8", errors="replace") as log:
        for line in log:
            if found := BEGAN.match(line):
                current = found[1]
                began.append(current)
            elif found := ENDED.match(line):
                current = found[2]
                ended[current] = found[1].lower()
            elif found := SAID.match(line):
                said.setdefault(current, found[1])
            elif line.startswith(("panic: ", "fatal error: ")):
                panic = panic or line
    for test, state in ended.items():
        print(state, test, "" if state == "pass" else one_line(said.get(test, "")), sep="\t")
    for test in dict.fromkeys(began):
        if test not in ended and "/" not in test:
            print("fail", test, one_line(f"did not end: {panic}"), sep="\t")


def one_line(text):
    return " ".join(text.split())[:300]


if __name__ == "__main__":
    main(sys.argv[1])
