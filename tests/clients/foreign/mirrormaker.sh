#!/usr/bin/env bash
# The real MirrorMaker 2 between us and Apache Kafka, both ways: records, settings, heartbeats, checkpoints, groups.
#
# Each mirrored record must agree with its source in partition, timestamp, headers, key and value, and in its order.
set -euo pipefail
. "$(dirname "$0")/../foreign.sh"
. "$HERE/steps.sh"

need_java || cannot "Java or Maven is missing"
start_cluster
RUN=r$RANDOM FILES=$WORK/$SUITE.files HEADERS='suite:java,twice:1,twice:2'
mkdir -p "$FILES"
# What starts a Kafka here: `tw` is the cluster under test, `ak` is Apache Kafka.
port=$(free_port)
KAFKA=127.0.0.1:$port
background env -u EXEC "$HERE/kafka/start" "$FILES/kafka" "$port" 8>&- >"$FILES/kafka.log" 2>&1
until_true 90 bash -c "exec 3<>/dev/tcp/127.0.0.1/$port" 2>/dev/null
at() { if [ "$1" = tw ]; then echo "$BOOTSTRAP"; else echo "$KAFKA"; fi; }
other() { if [ "$1" = tw ]; then echo ak; else echo tw; fi; }

python3 "$HERE/text.py" 3000 >"$FILES/text"
for side in tw ak; do
    export BROKER; BROKER=$(at $side)
    create "mm-$side-$RUN" 4 retention.ms=86400000
    write_records "mm-$side-$RUN" "$FILES/text" $([ $side = tw ] && echo zstd || echo lz4) "$HEADERS"
done
unset BROKER
cat >"$FILES/mm2.properties" <<END
clusters = tw, ak
tw.bootstrap.servers = $BOOTSTRAP
ak.bootstrap.servers = $KAFKA
tw->ak.enabled = true
ak->tw.enabled = true
topics = mm-.*
groups = mm-.*
replication.factor = 1
tw.replication.factor = 3
checkpoints.topic.replication.factor = 1
heartbeats.topic.replication.factor = 1
offset-syncs.topic.replication.factor = 1
offset.storage.replication.factor = 1
status.storage.replication.factor = 1
config.storage.replication.factor = 1
refresh.topics.interval.seconds = 1
refresh.groups.interval.seconds = 1
sync.topic.configs.interval.seconds = 2
sync.topic.acls.enabled = false
sync.group.offsets.enabled = true
sync.group.offsets.interval.seconds = 1
emit.heartbeats.interval.seconds = 1
emit.checkpoints.interval.seconds = 1
offset.lag.max = 0
offset.flush.interval.ms = 1000
END
EXEC=1 TOOL_MEMORY=512m background tool org.apache.kafka.connect.mirror.MirrorMaker "$FILES/mm2.properties" \
    >"$FILES/mm2.log" 2>&1

# counted BROKER TOPIC COUNT: the topic there has that many records.
counted() { [ "$(BROKER=$1 kafka get-offsets --topic "$2" 2>/dev/null | awk -F: '{ n += $3 } END { print n+0 }')" = "$3" ]; }

# records FROM: the topic of that side is in the other, record by record.
records() {
    local from=$1 there topic="mm-$1-$RUN"; there=$(at "$(other "$from")")
    until_true 90 counted "$there" "$from.$topic" 3000
    BROKER=$(at "$from") read_records "$topic" 3000 --from-beginning >"$FILES/$from.source"
    BROKER=$there read_records "$from.$topic" 3000 --from-beginning >"$FILES/$from.mirror"
    python3 "$HERE/compare.py" "$FILES/text" "$FILES/$from.mirror" "$HEADERS" "$FILES/$from.source"
}

# settings FROM: the mirror has the topic's settings and follows a change.
settings() {
    local from=$1 topic="mm-$1-$RUN"
    until_true 60 has_setting "$from" "$topic" retention.ms=86400000
    BROKER=$(at "$from") kafka configs --alter --entity-type topics --entity-name "$topic" --add-config retention.ms=43200000 >/dev/null
    until_true 60 has_setting "$from" "$topic" retention.ms=43200000
}
has_setting() {
    BROKER=$(at "$(other "$1")") kafka configs --describe --entity-type topics --entity-name "$1.$2" | grep -q "^ *$3 "
}

# partitions FROM: a topic that grows grows in the mirror.
partitions() {
    local from=$1 topic="mm-$1-$RUN"
    BROKER=$(at "$from") kafka topics --alter --topic "$topic" --partitions 6
    until_true 60 has_partitions "$from" "$topic" 6
}
has_partitions() { BROKER=$(at "$(other "$1")") kafka topics --describe --topic "$1.$2" | grep -q "PartitionCount: $3"; }

# group FROM: a group that read everything there has its positions in the other side, through checkpoints, and goes on there.
group() {
    local from=$1 there topic="mm-$1-$RUN" group="mm-group-$1-$RUN"; there=$(at "$(other "$from")")
    BROKER=$(at "$from") kafka console-consumer --topic "$topic" --from-beginning --max-messages 3000 --timeout-ms 45000 --group "$group" >/dev/null
    [ "$(BROKER=$(at "$from") positions "$group")" = 3000 ]
    # Records after the positions make MirrorMaker say where they are in the mirror.
    printf 'last-%s\tlast\n' 1 2 3 4 5 6 7 8 >"$FILES/last"
    BROKER=$(at "$from") write_records "$topic" "$FILES/last" none "$HEADERS"
    until_true 60 arrived "$there" "$group"
    BROKER=$there kafka console-consumer --topic "$from.checkpoints.internal" --from-beginning --timeout-ms 8000 \
        --formatter org.apache.kafka.connect.mirror.formatters.CheckpointFormatter 2>/dev/null >"$FILES/checkpoints" || true
    grep -q "consumerGroupId=$group, topicPartition=$from.$topic-" "$FILES/checkpoints"
    BROKER=$there kafka console-consumer --topic "$from.$topic" --max-messages 8 --timeout-ms 45000 --group "$group" >"$FILES/rest"
    [ "$(sort -u "$FILES/rest")" = last ]
}
# positions GROUP: the sum of its positions.
positions() { kafka consumer-groups --describe --group "$1" 2>/dev/null | awk '$4 ~ /^[0-9]+$/ { n += $4 } END { print n+0 }'; }
arrived() { [ "$(BROKER=$1 positions "$2")" = 3000 ]; }

# heartbeats FROM: they are made there and mirrored.
heartbeats() {
    BROKER=$(at "$(other "$1")") kafka console-consumer --topic "$1.heartbeats" --from-beginning --max-messages 3 --timeout-ms 30000 \
        --formatter org.apache.kafka.connect.mirror.formatters.HeartbeatFormatter >"$FILES/heartbeats"
    grep -q "Heartbeat{sourceClusterAlias=" "$FILES/heartbeats"
}

for side in tw ak; do
    arrow="$side to $(other $side)"
    step "${arrow// /-}/records" records $side
    step "${arrow// /-}/settings" settings $side
    step "${arrow// /-}/group" group $side
    step "${arrow// /-}/heartbeats" heartbeats $side
    step "${arrow// /-}/partitions" partitions $side
done
verdict "$KAFKA_VERSION"
