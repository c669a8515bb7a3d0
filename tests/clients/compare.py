"""Judges what kcat read back: python3 compare.py SENT READ HEADERS [READ_AT_SOURCE].

SENT holds `key TAB value` lines as they were piped in. READ (and READ_AT_SOURCE, for a mirror) hold what kcat printed
with the format `partition TAB offset TAB timestamp TAB headers TAB key TAB value`. Every line must be there once, with
its key, with exactly HEADERS, in the order of sending within its partition; one key stays in one partition; a mirror
must agree with its source in partition, offset, timestamp, headers, key and value of each record.
"""

import sys


def records(path):
    with open(path, encoding="utf-8", newline="\n") as file:
        for line in file:
            partition, offset, timestamp, headers, key, value = line.rstrip("\n").split("\t", 5)
            yield int(partition), int(offset), int(timestamp), headers, key, value


def main(sent_path, read_path, headers, source_path=None):
    with open(sent_path, encoding="utf-8", newline="\n") as file:
        sent = [tuple(line.rstrip("\n").split("\t", 1)) for line in file]
    read = list(records(read_path))
    assert len(read) == len(sent), f"sent {len(sent)} records, read {len(read)}"
    place = {pair: at for at, pair in enumerate(sent)}
    assert len(place) == len(sent), "the file that was sent has a line twice"

    partition_of_key, last = {}, {}
    for partition, offset, timestamp, found, key, value in read:
        at = place.pop((key, value), None)
        assert at is not None, f"a line that was not sent, or is here twice: {partition}@{offset} {key!r} {value[:80]!r}"
        assert found == headers, f"headers of {partition}@{offset}: {found!r}, sent {headers!r}"
        assert partition_of_key.setdefault(key, partition) == partition, f"key {key!r} in two partitions"
        before_at, before_offset = last.get(partition, (-1, -1))
        assert at > before_at, f"partition {partition} is out of order at offset {offset}"
        assert offset > before_offset, f"partition {partition}: offset {offset} after {before_offset}"
        assert timestamp > 1_500_000_000_000, f"timestamp {timestamp}"
        last[partition] = (at, offset)
    assert not place, f"{len(place)} lines are missing"
    assert len(last) > 1, "all records are in one partition: the order per partition was not tried"

    if source_path:
        source = sorted(records(source_path))
        assert sorted(read) == source, next(
            f"the mirror differs from its source: {a} and {b}" for a, b in zip(sorted(read), source) if a != b
        )
    print(f"  {len(read)} records in {len(last)} partitions")


if __name__ == "__main__":
    main(*sys.argv[1:])
