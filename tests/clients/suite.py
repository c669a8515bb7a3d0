"""What the Python suites share: where to connect, the records they send, and how checks run and are counted.

Environment: SOURCE (bootstrap written to), READ (bootstrap read from), PREFIX (mirror topics' prefix at READ), RUN (a
word that makes topic and group names new).
"""

import faulthandler
import os
import random
import signal
import sys
import time
import traceback

SOURCE = os.environ["SOURCE"]
READ = os.environ.get("READ") or SOURCE
PREFIX = os.environ.get("PREFIX", "")
RUN = os.environ.get("RUN") or f"r{os.getpid()}"
MIRRORED = READ != SOURCE
# Whoever ends a suite that takes too long shall learn what it was doing.
faulthandler.register(signal.SIGTERM, all_threads=True, chain=True)
CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]


def records(count, seed=11):
    """(key, value, headers, timestamp) to send: keys may be absent, values may be empty or null, header names may repeat."""
    rng = random.Random(seed)
    now = int(time.time() * 1000) - count
    for number in range(count):
        key = None if number % 11 == 0 else f"k{number % 97}".encode()
        value = f"{number} ".encode() + rng.randbytes(rng.choice([0, 3, 90, 700]))
        if number % 101 == 0:
            value = None if key else b""
        headers = [("n", str(number).encode()), ("raw", rng.randbytes(5)), ("n", b""), ("ñ", "ü".encode())]
        yield key, value, headers, now + number


def until(seconds, what, condition):
    """Waits for `condition()` to return something true, and returns it."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            found = condition()
        except AssertionError:
            found = None
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.1)


def same(read, sent):
    """Asserts that `read` [(partition, offset, key, value, headers, timestamp)] is `sent`, whole and in order."""
    assert len(read) == len(sent), f"sent {len(sent)} records, read {len(read)}"
    place = {headers[0][1]: at for at, (_, _, headers, _) in enumerate(sent)}
    last, last_offset = {}, {}
    for partition, offset, key, value, headers, timestamp in read:
        at = place.pop(headers[0][1], None)
        assert at is not None, f"a record that was not sent, or is here twice: {partition}@{offset}"
        expected = sent[at]
        assert (key, value, list(headers), timestamp) == expected, (
            f"{partition}@{offset}: read {(key, value, headers, timestamp)}, sent {expected}"
        )
        assert at > last.get(partition, -1), f"partition {partition} is out of order at offset {offset}"
        assert offset > last_offset.get(partition, -1), f"partition {partition}: offsets go back at {offset}"
        last[partition], last_offset[partition] = at, offset


def main(checks):
    """Runs each function, named by its first docstring line, prints `ok` or `FAILED`, then the count."""
    passed = failed = 0
    for check in checks:
        name, started = check.__doc__.splitlines()[0].rstrip("."), time.monotonic()
        try:
            check()
            passed += 1
            print(f"ok      {name} ({time.monotonic() - started:.0f} s)", flush=True)
        except Exception:
            failed += 1
            traceback.print_exc()
            print(f"FAILED  {name}", flush=True)
    print(f"{passed} passed, {failed} failed, 0 skipped")
    sys.exit(1 if failed else 0)


def told(prefix, checks):
    """Runs each function and appends its result to the file RESULTS, as judge.py wants it: `prefix::function`. Of a
    function with `protocols`, one result for each, `prefix::function[protocol]`. ONLY picks by words, a word with `-` before
    it leaves out."""
    words = os.environ.get("ONLY", "").split()
    only, without = [w for w in words if w[0] != "-"], [w[1:] for w in words if w[0] == "-"]
    with open(os.environ["RESULTS"], "a", encoding="utf-8") as out:
        for check in checks:
            for protocol in getattr(check, "protocols", [None]):
                name = f"{prefix}::{check.__name__}" + (f"[{protocol}]" if protocol else "")
                if (only and not any(word in name for word in only)) or any(word in name for word in without):
                    continue
                started, state, detail = time.monotonic(), "pass", ""
                try:
                    check(protocol) if protocol else check()
                except Exception as error:
                    state, detail = "fail", f"{type(error).__name__}: {error}"
                    traceback.print_exc()
                print(state, name, " ".join(detail.split())[:300], sep="\t", file=out, flush=True)
                print(f"{state} {name} ({time.monotonic() - started:.1f} s)", file=sys.stderr, flush=True)


def both_protocols(check):
    """The check is run with the classic group protocol and with KIP-848's."""
    check.protocols = ["classic", "consumer"]
    return check
