"""Our own tools beside Apache Kafka's, on one cluster: what `tradewind topic|group|config|cluster` do and say is compared
with what kafka-topics, kafka-consumer-groups, kafka-configs, kafka-get-offsets, kafka-delete-records,
kafka-reassign-partitions, kafka-broker-api-versions and kafka-log-dirs say of it.

Environment: as for suite.py, TARGET (the folder with our program), KAFKA_JARS (that with Kafka's).
"""

import functools
import glob
import json
import os
import re
import subprocess
import sys
import tempfile
import time

from suite import RUN, SOURCE, main, until

PROGRAM = os.environ.get("TRADEWIND_BIN") or os.environ["TARGET"] + "/tradewind"
HERE = os.path.dirname(os.path.abspath(__file__))
FOLDER = tempfile.TemporaryDirectory(prefix="tradewind-cli.")
TOPICS = "org.apache.kafka.tools.TopicCommand"
GROUPS = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"
OFFSETS = "org.apache.kafka.tools.GetOffsetShell"
CONFIGS = "kafka.admin.ConfigCommand"


class Tools:
    """Kafka's tools, in one JVM."""

    def __init__(self):
        self.process = subprocess.Popen(
            ["java", "-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC",
             f"-Dlog4j2.configurationFile={HERE}/kafka/log4j2.properties",
             "-cp", os.environ["KAFKA_JARS"] + "/*", f"{HERE}/kafka/Tools.java"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8",
        )

    def __call__(self, tool, *arguments, code=0):
        """Runs a tool, which must end with `code` (any, if None), and returns what it printed."""
        self.process.stdin.write("\t".join([tool, "--bootstrap-server", SOURCE, *arguments]) + "\n")
        self.process.stdin.flush()
        said = []
        for line in self.process.stdout:
            if line.startswith("\4"):
                ended = int(line[1:])
                assert code is None or ended == code, f"{tool} {arguments}: {ended}: {''.join(said)}"
                return "".join(said)
            said.append(line)
        raise AssertionError(f"{tool} ended the JVM: {''.join(said)}")


kafka = Tools()


def run(*arguments, stdin="", at=SOURCE):
    """Runs our program to its end."""
    command = [PROGRAM, *arguments, "--bootstrap", at]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=90)


def ours(*arguments, code=0, stdin=""):
    """Runs our program, which must end with `code`, and returns what it printed, as JSON."""
    done = run(*arguments, "-o", "json", stdin=stdin)
    assert done.returncode == code, f"{arguments}: {done.returncode}: {done.stdout}{done.stderr}"
    return json.loads(done.stdout) if done.stdout else None


def refused(code, *arguments):
    """Runs our program, which must end with `code`, and returns what it complained about."""
    done = run(*arguments)
    assert done.returncode == code, f"{arguments}: {done.returncode}: {done.stdout}{done.stderr}"
    return done.stderr


@functools.cache
def offered():
    """The names of the APIs that every broker offers."""
    listed = ours("cluster", "api-versions")
    brokers = {one["broker"] for one in listed}
    return set.intersection(*({one["api"] for one in listed if one["broker"] == broker} for broker in brokers))


def lacks(api, *arguments):
    """Whether the cluster lacks an API; our program must then say so, and fail."""
    if api in offered():
        return False
    said = refused(1, *arguments)
    assert f"does not offer {api}" in said and "api-versions" in said, said
    return True


def replicas():
    """As many replicas as a topic can have here, three at most."""
    return min(3, len(ours("cluster", "brokers")["brokers"]))


def name(of):
    return f"cli-{RUN}-{of}"


def topic(of, partitions, *options):
    """A new topic that every broker knows."""
    ours("topic", "create", name(of), "--partitions", str(partitions), *options)
    until(20, "the topic is there", lambda: describe(name(of))["partition_count"] == partitions)
    until(20, "Kafka's tools see the topic", lambda: name(of) in kafka(TOPICS, "--list").split())
    return name(of)


def produce(to, count, first=0):
    lines = "".join(f"k{number}:v{number}\n" for number in range(first, first + count))
    done = run("produce", to, "--key-separator", ":", stdin=lines)
    assert done.returncode == 0, done.stderr


def describe(of):
    [described] = ours("topic", "describe", of)
    return described


def kafka_describe(of):
    """What kafka-topics says: {field: value} of the topic, and of each partition."""
    lines = [line for line in kafka(TOPICS, "--describe", "--topic", of).splitlines() if "Topic:" in line]
    fields = [dict(re.findall(r"(\w+): ?([^\t]*)", line)) for line in lines]
    return fields[0], {int(one["Partition"]): one for one in fields[1:]}


def rows(text, first):
    """The rows of a table of Kafka's whose first column is called `first`, as {column: value}."""
    lines = [line.split() for line in text.splitlines() if line.strip()]
    start = next(at for at, line in enumerate(lines) if line[0] == first)
    return [dict(zip(lines[start], line)) for line in lines[start + 1:] if len(line) >= len(lines[start])]


def numbers(text):
    return [int(number) for number in text.split(",") if number.strip()]


def topics_are_described_as_by_kafka_topics():
    """cli creates topics that kafka-topics describes alike."""
    made = topic("made", 3, "--replication-factor", str(replicas()), "--set", "retention.ms=7200000",
                 "--set", "segment.bytes=2097152")
    described, (whole, partitions) = describe(made), kafka_describe(made)
    assert whole["TopicId"] == described["id"], (whole, described)
    assert int(whole["PartitionCount"]) == described["partition_count"] == 3
    assert int(whole["ReplicationFactor"]) == described["replication_factor"] == replicas()
    for setting in ["retention.ms=7200000", "segment.bytes=2097152"]:
        key, value = setting.split("=")
        assert setting in whole["Configs"].split(","), whole
        assert described["configs"][key] == value, described
    for one in described["partitions"]:
        theirs = partitions[one["partition"]]
        assert int(theirs["Leader"]) == one["leader"], (theirs, one)
        assert numbers(theirs["Replicas"]) == one["replicas"], (theirs, one)
        assert sorted(numbers(theirs["Isr"])) == sorted(one["isr"]), (theirs, one)
        assert (one["start"], one["end"]) == (0, 0), one


def what_cannot_be_created_is_refused():
    """cli refuses topics as the cluster does, and creates nothing on trial."""
    there = name("made")
    [again] = ours("topic", "create", there, code=1)
    assert again["error"]["code"] == "TOPIC_ALREADY_EXISTS", again
    [kept] = ours("topic", "create", there, "--if-not-exists")
    assert kept["result"] == "exists", kept
    ours("topic", "create", name("trial"), "--validate-only")
    assert name("trial") not in kafka(TOPICS, "--list").split()
    [wrong] = ours("topic", "create", name("trial"), "--validate-only", "--set", "retention.ms=soon", code=1)
    assert wrong["error"]["code"] == "INVALID_CONFIG" and "retention.ms" in wrong["error"]["message"], wrong
    [many] = ours("topic", "create", name("trial"), "--replication-factor", "99", code=1)
    assert many["error"]["code"] == "INVALID_REPLICATION_FACTOR", many
    assert "NAME=VALUE" in refused(2, "topic", "create", name("trial"), "--set", "retention.ms")
    refused(2, "topic", "create", name("trial"), "--assignment", "1:x")
    assert "did you mean" in refused(1, "topic", "describe", name("mode"))


def topics_are_placed_and_grown_by_hand():
    """cli places replicas where it is told, and adds partitions."""
    brokers = [one["broker"] for one in ours("cluster", "brokers")["brokers"]]
    placed = [brokers[:2], brokers[::-1][:2]]
    text = ",".join(":".join(map(str, one)) for one in placed)
    ours("topic", "create", name("placed"), "--assignment", text)
    until(20, "the topic is there", lambda: describe(name("placed"))["partition_count"] == 2)
    assert [one["replicas"] for one in describe(name("placed"))["partitions"]] == placed
    ours("topic", "alter", name("placed"), "--partitions", "3", "--validate-only")
    assert len(kafka_describe(name("placed"))[1]) == 2
    ours("topic", "alter", name("placed"), "--partitions", "3", "--assignment", ":".join(map(str, placed[1])))
    until(20, "kafka-topics sees three partitions", lambda: len(kafka_describe(name("placed"))[1]) == 3)
    assert numbers(kafka_describe(name("placed"))[1][2]["Replicas"]) == placed[1]
    [fewer] = ours("topic", "alter", name("placed"), "--partitions", "1", code=1)
    assert fewer["error"]["code"] == "INVALID_PARTITIONS", fewer


def lists_are_those_of_kafka_topics():
    """cli lists the topics that kafka-topics lists, with each filter."""
    topic("strict", 1, "--set", f"min.insync.replicas={replicas()}", "--replication-factor", str(replicas()))
    for options, theirs in [
        ([], ["--list"]),
        (["--exclude-internal"], ["--list", "--exclude-internal"]),
        ([f"{name('')}.*"], ["--list", "--topic", f"{name('')}.*"]),
    ]:
        listed = [one["topic"] for one in ours("topic", "list", *options)]
        assert sorted(listed) == sorted(kafka(TOPICS, *theirs).split()), (options, listed)
    for option in ["under-replicated-partitions", "unavailable-partitions", "under-min-isr-partitions",
                   "at-min-isr-partitions"]:
        mine = {(one["topic"], partition["partition"])
                for one in ours("topic", "describe", f"--{option}") for partition in one["partitions"]}
        said = kafka(TOPICS, "--describe", f"--{option}")
        theirs = {(at, int(number)) for at, number in re.findall(r"Topic: (\S+)\s+Partition: (\d+)", said)}
        assert mine == theirs, (option, mine, theirs)
        assert {one["topic"] for one in ours("topic", "list", f"--{option}")} == {at for at, _ in theirs}
    strict = [one["topic"] for one in ours("topic", "list", "--at-min-isr")]
    assert name("strict") in strict, strict


def get_offsets(of, when):
    """What kafka-get-offsets says: {partition: offset}."""
    said = kafka(OFFSETS, "--topic", of, "--time", str(when))
    return {int(number): int(offset) for at, number, offset in
            (line.rsplit(":", 2) for line in said.split() if line.count(":") >= 2) if at == of}


def offsets_are_those_of_kafka_get_offsets():
    """cli tells the offsets that kafka-get-offsets tells."""
    read = topic("read", 3)
    produce(read, 300)
    newest = max(one["timestamp"] or 0 for one in ours("topic", "offsets", read, "--at", "max-timestamp"))
    until(5, "the clock is beyond the first records", lambda: time.time() * 1000 > newest + 2)
    between = newest + 1
    produce(read, 300, first=300)
    for mine, theirs in [("latest", -1), ("earliest", -2), ("max-timestamp", -3), (str(between), between)]:
        listed = {one["partition"]: one["offset"] for one in ours("topic", "offsets", read, "--at", mine)
                  if one["offset"] is not None}
        assert listed and listed == get_offsets(read, theirs), (mine, listed, get_offsets(read, theirs))
    ends = {one["partition"]: one["offset"] for one in ours("topic", "offsets", read)}
    assert sum(ends.values()) == 600, ends
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(between / 1000)) + f".{between % 1000:03}Z"
    assert ours("topic", "offsets", read, "--at", stamp) == ours("topic", "offsets", read, "--at", str(between))
    some = ours("topic", "offsets", f"{read}:0,2")
    assert [one["partition"] for one in some] == [0, 2]
    assert "has no partition 7" in refused(1, "topic", "offsets", f"{read}:7")
    assert [one["offset"] for one in ours("topic", "offsets", read, "--at", "2100-01-01")] == [None] * 3


def records_are_deleted():
    """cli deletes records up to an offset, as kafka-get-offsets then shows."""
    if lacks("DeleteRecords", "topic", "delete-records", f"{name('made')}:0:1", "--yes"):
        return
    cut = topic("cut", 2)
    produce(cut, 200)
    ends = get_offsets(cut, -1)
    assert "--yes" in refused(2, "topic", "delete-records", f"{cut}:0:1")
    [one] = ours("topic", "delete-records", f"{cut}:0:7", "--yes")
    assert (one["start"], one["result"]) == (7, "deleted"), one
    file = FOLDER.name + "/delete.json"
    with open(file, "w") as out:
        json.dump({"partitions": [{"topic": cut, "partition": 1, "offset": -1}], "version": 1}, out)
    [all_] = ours("topic", "delete-records", "--file", file, "--yes")
    assert all_["start"] == ends[1], (all_, ends)
    assert get_offsets(cut, -2) == {0: 7, 1: ends[1]}
    beyond = ours("topic", "delete-records", f"{cut}:0:{ends[0] + 1}", f"{cut}:9:0", "--yes", code=1)
    assert [one["error"]["code"] for one in beyond] == ["OFFSET_OUT_OF_RANGE", "UNKNOWN_TOPIC_OR_PARTITION"], beyond


def positions(of):
    """Our description of a group's positions, and that of kafka-consumer-groups: {(topic, partition): (offset, end, lag)}."""
    [described] = ours("group", "describe", of)
    mine = {(one["topic"], one["partition"]): (one["offset"], one["end"], one["lag"])
            for one in described["positions"]}
    table = rows(kafka(GROUPS, "--describe", "--group", of), "GROUP")
    number = lambda text: None if text == "-" else int(text)
    theirs = {(one["TOPIC"], int(one["PARTITION"])):
              (number(one["CURRENT-OFFSET"]), number(one["LOG-END-OFFSET"]), number(one["LAG"])) for one in table}
    return described, mine, theirs, table


def a_group_is_described_as_by_kafka_consumer_groups():
    """cli describes a group at work as kafka-consumer-groups does."""
    group, read = name("group"), name("read")
    reader = subprocess.Popen([PROGRAM, "consume", read, "--group", group, "--bootstrap", SOURCE],
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        def is_read():
            described = ours("group", "describe", group)[0] if group in [
                one["group"] for one in ours("group", "list")] else {"state": "", "positions": []}
            return described["state"] == "Stable" and sum(one["offset"] or 0 for one in described["positions"]) == 600
        until(60, "the group has read and committed everything", is_read)
        described, mine, theirs, table = positions(group)
        assert mine == theirs, (mine, theirs)
        assert len(mine) == 3 and all(lag == 0 for _, _, lag in mine.values()), mine
        for one in described["positions"]:
            [line] = [line for line in table if int(line["PARTITION"]) == one["partition"]]
            assert (line["CONSUMER-ID"], line["HOST"], line["CLIENT-ID"]) == (one["member"], one["host"], one["client"])
        [member] = described["members"]
        assert member["assignment"] == {read: [0, 1, 2]} and member["partitions"] == 3, member
        state = rows(kafka(GROUPS, "--describe", "--group", group, "--state"), "GROUP")[0]
        assert state["STATE"] == described["state"], (state, described)
        listed = {one["group"]: one["state"] for one in ours("group", "list", "--state", "stable")}
        assert listed[group] == "Stable", listed
        assert group not in [one["group"] for one in ours("group", "list", "--state", "empty")]
        assert "once they have stopped" in refused(
            1, "group", "reset-offsets", group, "--topic", read, "--to-earliest", "--execute")
        kafka(GROUPS, "--reset-offsets", "--group", group, "--topic", read, "--to-earliest", "--execute", code=None)
        assert positions(group)[1] == mine, "a group at work was reset"
        [deleted] = ours("group", "delete", group, "--yes", code=1)
        assert deleted["error"]["code"] == "NON_EMPTY_GROUP", deleted
        [left] = ours("group", "remove-members", group, "--member", member["member"])
        assert left["result"] == "removed", left
    finally:
        reader.terminate()
        reader.wait()
    until(60, "the group is empty",
          lambda: group in [one["group"] for one in ours("group", "list", "--state", "empty")])
    produce(read, 30, first=600)
    _, mine, theirs, _ = positions(group)
    assert mine == theirs and sum(lag for _, _, lag in mine.values()) == 30, (mine, theirs)
    assert "did you mean" in refused(1, "group", "describe", group + "x")


def resets_are_those_of_kafka_consumer_groups():
    """cli resets a group by every strategy to where kafka-consumer-groups would."""
    group, read = name("group"), name("read")
    moment = min(one["timestamp"] for one in ours("topic", "offsets", read, "--at", "0")) + 1
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment / 1000)) + f".{moment % 1000:03}"
    before = positions(group)[1]
    ours("group", "reset-offsets", group, "--topic", read, "--to-offset", "40", "--execute")
    for strategy in [["--to-earliest"], ["--to-latest"], ["--to-offset", "3"], ["--to-offset", "100000"],
                     ["--shift-by", "7"], ["--shift-by", "-9"], ["--shift-by", "-100000"], ["--to-current"],
                     ["--to-datetime", stamp], ["--to-datetime", "2100-01-01T00:00:00.000"],
                     ["--by-duration", "PT1H"], ["--by-duration", "PT0S"]]:
        mine = {(one["topic"], one["partition"]): one["offset"]
                for one in ours("group", "reset-offsets", group, "--topic", read, *strategy)}
        said = kafka(GROUPS, "--reset-offsets", "--group", group, "--topic", read, *strategy, "--dry-run")
        theirs = {(one["TOPIC"], int(one["PARTITION"])): int(one["NEW-OFFSET"]) for one in rows(said, "GROUP")}
        assert mine == theirs and len(mine) == 3, (strategy, mine, theirs)
    assert {offset for offset, _, _ in positions(group)[2].values()} == {40}, "a dry run set something"
    ours("group", "reset-offsets", group, "--topic", f"{read}:1", "--shift-by", "-9", "--execute")
    ours("group", "reset-offsets", group, "--topic", f"{read}:0", "--to-latest", "--execute")
    _, mine, theirs, _ = positions(group)
    offsets = {partition: offset for (_, partition), (offset, _, _) in theirs.items()}
    assert mine == theirs and offsets == {0: before[(read, 0)][1], 1: 31, 2: 40}, (mine, theirs)
    refused(2, "group", "reset-offsets", group, "--topic", read)
    assert "no topic" in refused(1, "group", "reset-offsets", group, "--topic", name("none"), "--to-latest")


def offsets_go_through_files():
    """cli and kafka-consumer-groups read the offsets that the other has written."""
    group, read = name("group"), name("read")
    exported = run("group", "reset-offsets", group, "--all-topics", "--to-current", "--export").stdout
    theirs = kafka(GROUPS, "--reset-offsets", "--group", group, "--all-topics", "--to-current", "--export", "--dry-run")
    csv = lambda text: sorted(line.replace('"', "") for line in text.split() if line.count(",") == 2)
    assert csv(exported) == csv(theirs) and len(csv(exported)) == 3, (exported, theirs)
    ours("group", "reset-offsets", group, "--topic", read, "--to-earliest", "--execute")
    file = FOLDER.name + "/offsets.csv"
    with open(file, "w") as out:
        out.write("\n".join(csv(theirs)) + "\n")
    ours("group", "reset-offsets", group, "--from-file", file, "--execute")
    mine = {f"{at},{partition},{offset}" for (at, partition), (offset, _, _) in positions(group)[2].items()}
    assert mine == set(csv(theirs)), (mine, theirs)
    with open(file, "w") as out:
        out.write(exported)
    said = kafka(GROUPS, "--reset-offsets", "--group", group, "--from-file", file, "--dry-run")
    assert {f"{one['TOPIC']},{one['PARTITION']},{one['NEW-OFFSET']}" for one in rows(said, "GROUP")} == mine
    with open(file, "w") as out:
        out.write(f"{read},0\n")
    assert "line 1" in refused(2, "group", "reset-offsets", group, "--from-file", file)


def a_group_of_the_new_protocol_is_described():
    """cli describes a group whose coordinator shares the partitions out (KIP-848)."""
    group, read = name("new"), name("read")
    if "ConsumerGroupHeartbeat" not in offered():
        return
    reader = subprocess.Popen(
        ["java", "-Xmx128m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC",
         f"-Dlog4j2.configurationFile={HERE}/kafka/log4j2.properties",
         "-cp", os.environ["KAFKA_JARS"] + "/*", "org.apache.kafka.tools.consumer.ConsoleConsumer",
         "--bootstrap-server", SOURCE, "--topic", read, "--group", group, "--from-beginning",
         "--command-property", "group.protocol=consumer"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )
    try:
        def is_stable():
            listed = ours("group", "list", "--type", "consumer", "--state", "stable")
            return group in [one["group"] for one in listed]
        until(60, "the group is stable", is_stable)
        until(60, "it has committed", lambda: len(ours("group", "describe", group)[0]["positions"]) == 3
              and None not in [one["offset"] for one in ours("group", "describe", group)[0]["positions"]])
        described, mine, theirs, table = positions(group)
        assert mine == theirs, (mine, theirs)
        assert (described["type"], described["assignor"]) == ("consumer", "uniform"), described
        [member] = described["members"]
        assert member["assignment"] == member["target"] == {read: [0, 1, 2]}, member
        assert {one["CONSUMER-ID"] for one in table} == {member["member"]}, (table, member)
    finally:
        reader.terminate()
        reader.wait()


def positions_and_groups_are_deleted():
    """cli deletes positions and groups."""
    group, read = name("group"), name("read")
    if not lacks("OffsetDelete", "group", "delete-offsets", group, "--topic", f"{read}:1"):
        [deleted] = ours("group", "delete-offsets", group, "--topic", f"{read}:1")
        assert deleted["result"] == "deleted", deleted
        _, mine, theirs, _ = positions(group)
        assert set(mine) == set(theirs) == {(read, 0), (read, 2)}, (mine, theirs)
        assert "nothing for" in refused(1, "group", "delete-offsets", group, "--topic", name("none"))
    assert "--yes" in refused(2, "group", "delete", group)
    ours("group", "delete", group, "--yes")
    assert group not in kafka(GROUPS, "--list").split()
    [gone] = ours("group", "delete", group, "--yes", code=1)
    assert gone["error"]["code"] == "GROUP_ID_NOT_FOUND", gone


def kafka_configs(kind, of, *options):
    """What kafka-configs says: {setting: value}."""
    said = kafka(CONFIGS, "--describe", "--entity-type", kind, "--entity-name", of, *options)
    return dict(re.findall(r"^\s+([\w.]+)=(.*?) sensitive=", said, re.MULTILINE))


def settings_are_those_of_kafka_configs():
    """cli shows and changes settings as kafka-configs does."""
    set_ = topic("set", 1)

    def mine(*options):
        [described] = ours("config", "describe", "--topic", set_, *options)
        return {one["name"]: one["value"] for one in described["configs"]}

    def same(expected):
        until(20, f"both show {expected}", lambda: mine() == kafka_configs("topics", set_) == expected)

    same({})
    ours("config", "alter", "--topic", set_, "--set", "retention.ms=1234", "--set", "cleanup.policy=delete")
    same({"retention.ms": "1234", "cleanup.policy": "delete"})
    ours("config", "alter", "--topic", set_, "--append", "cleanup.policy=compact", "--delete", "retention.ms")
    same({"cleanup.policy": "delete,compact"})
    ours("config", "alter", "--topic", set_, "--subtract", "cleanup.policy=delete")
    same({"cleanup.policy": "compact"})
    ours("config", "alter", "--topic", set_, "--set", "segment.ms=9000000", "--validate-only")
    same({"cleanup.policy": "compact"})
    theirs = kafka_configs("topics", set_, "--all")
    values = {key: value or "" for key, value in mine("--all").items()}
    expected = {key: "" if value == "null" else value for key, value in theirs.items()}
    assert values == expected, set(values.items()) ^ set(expected.items())
    for wrong in ["retention.ms=soon", "no.such.setting=1"]:
        [one] = ours("config", "alter", "--topic", set_, "--set", wrong, code=1)
        assert one["error"]["code"] == "INVALID_CONFIG" and wrong.split("=")[0] in one["error"]["message"], one
    assert "did you mean" in refused(1, "config", "describe", "--topic", set_, "--key", "retention.mss")
    refused(2, "config", "alter", "--topic", set_)
    refused(2, "config", "describe")


def brokers_settings_are_those_of_kafka_configs():
    """cli shows the settings of a broker as kafka-configs does."""
    broker = str(ours("cluster", "brokers")["brokers"][0]["broker"])
    [described] = ours("config", "describe", "--broker", broker, "--all")
    mine = {one["name"]: one["value"] or "" for one in described["configs"] if not one["sensitive"]}
    theirs = {key: "" if value == "null" else value
              for key, value in kafka_configs("brokers", broker, "--all").items()}
    differing = {key: (value, theirs.get(key)) for key, value in mine.items() if value != theirs.get(key)}
    assert mine and not differing, differing
    if not lacks("ListConfigResources", "config", "list"):
        listed = ours("config", "list")
        assert {"resource": "topic", "name": name("set")} in listed, listed


def replicas_are_moved():
    """cli plans, makes, watches and checks moves of replicas."""
    moved = topic("moved", 2, "--replication-factor", "1")
    if lacks("ListPartitionReassignments", "topic", "reassign", "list"):
        return
    assert ours("topic", "reassign", "list") == []
    brokers = [one["broker"] for one in ours("cluster", "brokers")["brokers"]]
    to = brokers[-1:]
    plan, file = run("topic", "reassign", "plan", moved, "--brokers", str(to[0])).stdout, FOLDER.name + "/plan.json"
    planned = {one["partition"]: one["replicas"] for one in json.loads(plan)["partitions"]}
    before = {one["partition"]: one["replicas"] for one in describe(moved)["partitions"]}
    assert planned == {at: to for at, now in before.items() if now != to}, (planned, before)
    whole = {"version": 1, "partitions": [{"topic": moved, "partition": at, "replicas": to} for at in before]}
    with open(file, "w") as out:
        json.dump(whole, out)
    assert {one["result"] for one in ours("topic", "reassign", "apply", file)} <= {"would move", "is there"}
    assert {one["partition"]: one["replicas"] for one in describe(moved)["partitions"]} == before
    ours("topic", "reassign", "apply", file, "--execute")
    until(60, "everything is where it was planned",
          lambda: run("topic", "reassign", "verify", file).returncode == 0)
    said = kafka("org.apache.kafka.tools.reassign.ReassignPartitionsCommand", "--verify",
                 "--reassignment-json-file", file)
    assert said.count("is completed") == 2, said
    assert all(numbers(one["Replicas"]) == to for one in kafka_describe(moved)[1].values())
    ours("topic", "reassign", "cancel", "--all")


def leaders_are_elected():
    """cli elects preferred leaders."""
    if lacks("ElectLeaders", "topic", "elect-leaders"):
        return
    ours("topic", "elect-leaders")
    [one] = ours("topic", "elect-leaders", f"{name('made')}:0")
    assert one["result"] == "not needed", one
    assert "--yes" in refused(2, "topic", "elect-leaders", f"{name('made')}:0", "--unclean")


def the_cluster_is_described():
    """cli shows brokers, their APIs, what they store and the quorum as Kafka's tools do."""
    said = kafka("org.apache.kafka.tools.BrokerApiVersionsCommand")
    theirs = set(re.findall(r"^\t(\w+)\((\d+)\): (\d+)(?: to (\d+))? \[usable", said, re.MULTILINE))
    theirs = {(api, int(key), int(least), int(most or least)) for api, key, least, most in theirs}
    mine = {(one["api"], one["key"], one["min"], one["max"]) for one in ours("cluster", "api-versions")}
    known = {one for one in mine if one[0] != "unknown"}
    assert theirs and {one[1:] for one in theirs} == {one[1:] for one in mine}, theirs ^ mine
    assert known <= theirs, known - theirs
    brokers = {one["broker"] for one in ours("cluster", "brokers")["brokers"]}
    assert brokers == {int(number) for number in re.findall(r"\(id: (\d+) ", said)}, (brokers, said)
    if not lacks("DescribeLogDirs", "cluster", "log-dirs"):
        dirs = ours("cluster", "log-dirs", "--topic", name("read"))
        said = kafka("org.apache.kafka.tools.LogDirsCommand", "--describe", "--topic-list", name("read"))
        told = json.loads(next(line for line in said.splitlines() if line.startswith("{")))
        theirs = {(one["broker"], log["partition"]): log["size"] for one in told["brokers"]
                  for folder in one["logDirs"] for log in folder["partitions"]}
        mine = {(one["broker"], f"{log['topic']}-{log['partition']}"): log["bytes"]
                for one in dirs for log in one["partitions"]}
        assert mine and mine == theirs, (mine, theirs)
    if not lacks("DescribeQuorum", "cluster", "quorum"):
        quorum = ours("cluster", "quorum")
        assert sum(one["leader"] for one in quorum["members"]) == 1, quorum


def several_addresses_and_a_bound_on_time():
    """cli goes on to the next address, and ends when its time is up."""
    one = SOURCE.split(",")[0]
    done = run("topic", "list", "-o", "json", at=f"127.0.0.1:1,{one}")
    assert done.returncode == 0 and json.loads(done.stdout), done.stderr
    nobody = run("topic", "list", "--timeout", "1s", at="127.0.0.1:1")
    assert nobody.returncode == 1 and "no broker answers" in nobody.stderr, nobody
    assert run("topic", "list", "--timeout", "soon").returncode == 2


def topics_are_deleted():
    """cli deletes topics that were asked for, and asks first."""
    pattern = f"{name('')}.*"
    assert "--yes" in refused(2, "topic", "delete", pattern)
    assert name("made") in kafka(TOPICS, "--list").split()
    deleted = ours("topic", "delete", pattern, "--yes")
    assert {one["result"] for one in deleted} == {"deleted"} and len(deleted) >= 5, deleted
    until(30, "kafka-topics sees none of them",
          lambda: not [one for one in kafka(TOPICS, "--list").split() if one.startswith(name(""))])
    assert "there is no topic" in refused(1, "topic", "delete", name("made"), "--yes")
    assert run("topic", "delete", name("made"), "--yes", "--if-exists").returncode == 0


if __name__ == "__main__":
    assert glob.glob(os.environ["KAFKA_JARS"] + "/kafka-tools-*.jar"), "no tools of Kafka's"
    main([
        topics_are_described_as_by_kafka_topics,
        what_cannot_be_created_is_refused,
        topics_are_placed_and_grown_by_hand,
        lists_are_those_of_kafka_topics,
        offsets_are_those_of_kafka_get_offsets,
        records_are_deleted,
        a_group_is_described_as_by_kafka_consumer_groups,
        resets_are_those_of_kafka_consumer_groups,
        offsets_go_through_files,
        a_group_of_the_new_protocol_is_described,
        positions_and_groups_are_deleted,
        settings_are_those_of_kafka_configs,
        brokers_settings_are_those_of_kafka_configs,
        replicas_are_moved,
        leaders_are_elected,
        the_cluster_is_described,
        several_addresses_and_a_bound_on_time,
        topics_are_deleted,
    ])
