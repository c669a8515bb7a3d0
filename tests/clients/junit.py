"""Prints a junit.xml as result lines for judge.py: python3 junit.py FILE. Ids are `class::test`, without packages."""

import sys
import xml.etree.ElementTree as tree


def main(path):
    for case in tree.parse(path).iter("testcase"):
        state, detail = "pass", ""
        for child in case:
            if child.tag in ("failure", "error"):
                state, detail = "fail", child.get("message") or ""
            elif child.tag == "skipped" and state == "pass":
                state, detail = "skip", child.get("message") or ""
        group = (case.get("classname") or "").rsplit(".", 1)[-1]
        name = f"{group}::{case.get('name')}" if group else case.get("name")
        print(state, name, " ".join(detail.split())[:300], sep="\t")


if __name__ == "__main__":
    main(sys.argv[1])
