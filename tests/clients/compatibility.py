"""Writes docs/reference/compatibility.md: the APIs that are advertised, and what other people's test suites said.

    tests/clients/run --all --full --record && python3 tests/clients/compatibility.py

The APIs come from `ADVERTISED` (protocol/wire/src/api.rs), the counts from results/, which `run --record` writes, the
reasons from expected/. With `--check` nothing is written and the exit code says whether the file is current; the test
`tests/tests/compatibility.rs` checks the table of APIs.
"""

import itertools
import json
import re
import sys

from judge import HERE, expectations

ROOT = HERE.parent.parent
PAGE = ROOT / "docs/reference/compatibility.md"
API = ROOT / "protocol/wire/src/api.rs"

def advertised():
    """[(code, name, lowest, highest)] by code."""
    text = API.read_text(encoding="utf-8")
    codes = {name: int(code) for name, code in re.findall(r"^    (\w+) = (\d+)$", text, re.M)}
    table = text[text.index("pub const ADVERTISED"):]
    table = table[: table.index("];")]
    rows = re.findall(r"\(\s*ApiKey::(\w+),\s*(\d+),\s*(\d+),?\s*\)", table)
    assert rows and len(rows) == table.count("ApiKey::"), "ADVERTISED was not understood"
    return sorted((codes[name], name, int(low), int(high)) for name, low, high in rows)


def cell(text):
    return " ".join(str(text).split()).replace("|", "\\|")


def what(suite):
    """The first sentence at the head of the suite's script."""
    script = next(path for path in (HERE / "foreign" / f"{suite}.sh", HERE / f"{suite}.sh") if path.exists())
    lines = script.read_text(encoding="utf-8").splitlines()[1:]
    head = " ".join(line.removeprefix("#").strip() for line in itertools.takewhile(lambda l: l.startswith("#"), lines))
    return re.split(r"(?<=[.:]) ", head)[0].rstrip(".:")


def page():
    rows = advertised()
    lines = [
        "# Compatibility with Kafka's protocol and clients",
        "",
        "This page is generated: `python3 tests/clients/compatibility.py`. Where an API behaves in another way than Apache",
        "Kafka's, [differences.md](differences.md) says so.",
        "",
        "## APIs",
        "",
        "What ApiVersions tells clients. An API or a version that is not here is not there, and is refused.",
        "",
        "| key | API | versions |",
        "|---|---|---|",
    ]
    lines += [f"| {code} | {name} | {low} to {high} |" for code, name, low, high in rows]
    lines += [
        "",
        "## Test suites of others",
        "",
        "Run against a cluster of three daemons by `tests/clients/run SUITE`; each result is compared with the list in",
        "`tests/clients/expected/`. *Unexpected* is whatever is not as listed there, and fails the run.",
        "",
        "| suite | what | version | passed | failed as expected | skipped | unexpected | run on |",
        "|---|---|---|---|---|---|---|---|",
    ]
    records = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((HERE / "results").glob("*.json"))]
    for r in records:
        lines.append(
            f"| `{r['suite']}` | {cell(what(r['suite']))} | {cell(r['version'])} | {r['passed']} | {r['failed']} | "
            f"{r['skipped']} | {r['unexpected']} | {r['date']}{'' if r['full'] else ', without slow tests'} |"
        )
    for r in records:
        expected = expectations(r["suite"]) or {}
        reasons = {}
        for test, (state, reason, _) in expected.items():
            if state != "pass":
                reasons.setdefault((state, reason), []).append(test)
        if reasons or r["surprises"]:
            lines += ["", f"### What does not pass in {r['suite']}", "", "| expected | reason | tests |", "|---|---|---|"]
            lines += [
                f"| {state} | {cell(reason)} | {', '.join(f'`{cell(test)}`' for test in tests)} |"
                for (state, reason), tests in reasons.items()
            ]
            lines += [f"| unexpected | | {cell(surprise)} |" for surprise in r["surprises"]]
    return "\n".join(lines) + "\n"


def main(arguments):
    text = page()
    if arguments == ["--check"]:
        current = PAGE.exists() and PAGE.read_text(encoding="utf-8") == text
        print(f"{PAGE.relative_to(ROOT)} is {'current' if current else 'not current: run tests/clients/compatibility.py'}")
        return 0 if current else 1
    assert not arguments, f"not understood: {arguments}"
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
