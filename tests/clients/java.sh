#!/usr/bin/env bash
# Apache Kafka's own console producer, console consumer, group, topic and config tools, and its verifiable clients.
# Environment: as for kcat.sh.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
TOOLS=org.apache.kafka.tools
HEADERS='suite:java,twice:1,twice:2'

topics() { java_tool $TOOLS.TopicCommand --bootstrap-server "$@"; }
groups() { java_tool $TOOLS.consumer.group.ConsumerGroupCommand --bootstrap-server "$@"; }

# read_at BOOTSTRAP TOPIC COUNT FILE [consumer ARGS...]: in the format that compare.py reads.
read_at() {
    local bootstrap=$1 topic=$2 count=$3 file=$4; shift 4
    java_tool $TOOLS.consumer.ConsoleConsumer --bootstrap-server "$bootstrap" --topic "$topic" --from-beginning \
        --max-messages "$count" --timeout-ms 60000 --formatter-property print.timestamp=true \
        --formatter-property print.partition=true --formatter-property print.offset=true \
        --formatter-property print.headers=true --formatter-property print.key=true "$@" |
        sed -E 's/^CreateTime:([0-9]+)\tPartition:([0-9]+)\tOffset:([0-9]+)\t/\2\t\3\t\1\t/' >"$file"
}

# there_and_back CODEC
there_and_back() {
    local codec=$1 topic="java-$RUN-$1" out="$WORK/java-$1" total
    total=$(wc -l <"$WORK/text.java")
    topics "$SOURCE" --create --topic "$topic" --partitions 4 >/dev/null
    sed "s/^/$HEADERS\t/" "$WORK/text.java" |
        java_tool $TOOLS.ConsoleProducer --bootstrap-server "$SOURCE" --topic "$topic" --compression-codec "$codec" \
            --command-property acks=all --reader-property parse.key=true --reader-property parse.headers=true
    if [ "$READ" = "$SOURCE" ]; then
        read_at "$READ" "$topic" "$total" "$out.read"
        python3 "$HERE/compare.py" "$WORK/text.java" "$out.read" "$HEADERS"
    else
        read_at "$SOURCE" "$topic" "$total" "$out.source"
        until_true 60 has_topic "$PREFIX$topic"
        read_at "$READ" "$PREFIX$topic" "$total" "$out.read"
        python3 "$HERE/compare.py" "$WORK/text.java" "$out.read" "$HEADERS" "$out.source"
    fi
}
has_topic() { topics "$READ" --list | grep -qx "$1"; }

# Two consumers of one group, one after the other: the second carries on where the first committed.
group_carries_on() {
    local topic="$PREFIX""java-$RUN-lz4" group="java-$RUN" out="$WORK/java-group" total
    total=$(wc -l <"$WORK/text.java")
    read_at "$READ" "$topic" 1000 "$out.1" --group "$group"
    read_at "$READ" "$topic" $((total - 1000)) "$out.2" --group "$group"
    cat "$out.1" "$out.2" >"$out.read"
    python3 "$HERE/compare.py" "$WORK/text.java" "$out.read" "$HEADERS"
    groups "$READ" --list | grep -qx "$group"
    # TOTAL over the column CURRENT-OFFSET is all records; LAG is 0 everywhere.
    groups "$READ" --describe --group "$group" 2>/dev/null |
        awk -v t="$topic" -v want="$total" '$2 == t { at += $4; lag += $6 } END { exit !(at == want && lag == 0) }'
}

# The offsets of a stopped group are put back, and it reads everything again.
offsets_are_reset() {
    local topic="$PREFIX""java-$RUN-lz4" group="java-$RUN" total
    total=$(wc -l <"$WORK/text.java")
    groups "$READ" --reset-offsets --group "$group" --topic "$topic" --to-earliest --execute >/dev/null
    read_at "$READ" "$topic" "$total" "$WORK/java-reset.read" --group "$group"
    python3 "$HERE/compare.py" "$WORK/text.java" "$WORK/java-reset.read" "$HEADERS"
    groups "$READ" --delete --group "$group" | grep -q 'successful'
}

topics_are_administered() {
    local topic="java-$RUN-admin"
    topics "$SOURCE" --create --topic "$topic" --partitions 2 --config retention.ms=3600000 >/dev/null
    topics "$SOURCE" --alter --topic "$topic" --partitions 5
    until_true 20 has_partitions "$topic" 5
    java_tool kafka.admin.ConfigCommand --bootstrap-server "$SOURCE" --alter --entity-type topics \
        --entity-name "$topic" --add-config retention.ms=7200000 >/dev/null
    until_true 20 has_config "$topic" retention.ms=7200000
    topics "$SOURCE" --delete --topic "$topic"
    until_true 20 is_gone "$topic"
}
has_partitions() { topics "$SOURCE" --describe --topic "$1" | grep -q "PartitionCount: $2"; }
has_config() {
    java_tool kafka.admin.ConfigCommand --bootstrap-server "$SOURCE" --describe --entity-type topics \
        --entity-name "$1" | grep -q "$2"
}
is_gone() { ! topics "$SOURCE" --list | grep -qx "$1"; }

# Kafka's own system-test clients: each acknowledged record is consumed, none twice.
verifiable_clients() {
    local topic="java-$RUN-verifiable" out="$WORK/java-verifiable"
    topics "$SOURCE" --create --topic "$topic" --partitions 3 >/dev/null
    java_tool $TOOLS.VerifiableProducer --bootstrap-server "$SOURCE" --topic "$topic" --max-messages 20000 \
        --acks -1 >"$out.sent"
    java_tool $TOOLS.VerifiableConsumer --bootstrap-server "$SOURCE" --topic "$topic" --group-id "verifiable-$RUN" \
        --max-messages 20000 --reset-policy earliest --verbose >"$out.read"
    python3 - "$out.sent" "$out.read" <<'END'
import json, sys
def events(path, name):
    found = [json.loads(line) for line in open(path) if line.startswith("{")]
    return sorted((e["partition"], e["offset"], e["value"]) for e in found if e["name"] == name)
acked, read = events(sys.argv[1], "producer_send_success"), events(sys.argv[2], "record_data")
assert len(acked) == 20000, len(acked)
assert acked == read, f"acknowledged {len(acked)}, read {len(read)}"
END
}

versions_are_advertised() {
    java_tool $TOOLS.BrokerApiVersionsCommand --bootstrap-server "$SOURCE" | grep -q 'Produce(0)'
}

[ -s "$WORK/text.java" ] || python3 "$HERE/text.py" "$LINES" >"$WORK/text.java"
check "java reads the advertised versions" versions_are_advertised
for codec in none gzip snappy lz4 zstd; do
    check "java console there and back, $codec" there_and_back "$codec"
done
check "java console consumers in a group carry on" group_carries_on
check "java resets and deletes a group" offsets_are_reset
check "java administers topics and configs" topics_are_administered
check "java verifiable producer and consumer agree" verifiable_clients
finish
