#!/usr/bin/env bash
# Kafka Connect on us, with the file source and the file sink that come with Kafka: standalone, and distributed with its
# configurations, offsets and states in topics of ours.
set -euo pipefail
. "$(dirname "$0")/../foreign.sh"
. "$HERE/steps.sh"

need_java || cannot "Java or Maven is missing"
start_cluster
RUN=r$RANDOM FILES=$WORK/$SUITE.files TOOL_MEMORY=384m
mkdir -p "$FILES/plugins"
# In ASCII: FileStreamSource counts characters and skips bytes, so that elsewhere it goes on in the wrong place.
python3 "$HERE/text.py" 3000 | cut -f2- | LC_ALL=C tr -cd "\n -~" >"$FILES/in.txt"

# worker FILE KEY=VALUE...: the settings of a worker, and what both kinds share.
worker() {
    local file=$1; shift
    printf '%s\n' "bootstrap.servers=$BOOTSTRAP" "plugin.path=$FILES/plugins" plugin.discovery=hybrid_warn \
        key.converter=org.apache.kafka.connect.storage.StringConverter \
        value.converter=org.apache.kafka.connect.storage.StringConverter offset.flush.interval.ms=500 "$@" >"$file"
}

in_background() { EXEC=1 tool "$@" >"$FILES/worker.log" 2>&1 & PID=$!; STARTED+=("$PID"); }
end_worker() { kill "$PID"; wait "$PID" || true; }

# copied IN OUT: every line arrived once, in its order, for the topic has one partition.
copied() { cmp -s "$1" "$2"; }

# The lines of a file go through a topic into another file; lines added while the worker was away follow, none twice.
standalone() {
    local topic="lines-$RUN" in="$FILES/standalone.in" out="$FILES/standalone.out"
    trap end_all EXIT
    create "$topic" 1
    cp "$FILES/in.txt" "$in"
    worker "$FILES/standalone.properties" listeners=http://127.0.0.1:0 "offset.storage.file.filename=$FILES/offsets"
    printf '%s\n' "name=in-$RUN" connector.class=FileStreamSource tasks.max=1 "file=$in" "topic=$topic" >"$FILES/source.properties"
    printf '%s\n' "name=out-$RUN" connector.class=FileStreamSink tasks.max=1 "file=$out" "topics=$topic" >"$FILES/sink.properties"
    local run=(in_background org.apache.kafka.connect.cli.ConnectStandalone "$FILES"/{standalone,source,sink}.properties)
    "${run[@]}"
    until_true 90 copied "$in" "$out"
    end_worker
    [ "$(kafka consumer-groups --describe --group "connect-out-$RUN" 2>/dev/null | awk -v t="$topic" '$2 == t { print $4, $6 }')" = '3000 0' ]
    seq 200 | sed 's/^/again /' >>"$in"
    "${run[@]}"
    until_true 90 copied "$in" "$out"
}

# ask METHOD PATH [BODY]: the REST interface of the worker.
ask() { curl -sSf -X "$1" -H 'Content-Type: application/json' ${3:+-d "$3"} "$REST/$2"; }
running() { ask GET "connectors/$1/status" 2>/dev/null | grep -q '"tasks":\[{"id":0,"state":"RUNNING"'; }

# The same with connectors made over REST; what the worker keeps is in three compacted topics, from which it starts again.
distributed() {
    local topic="rest-$RUN" in="$FILES/distributed.in" out="$FILES/distributed.out" kept
    trap end_all EXIT
    REST=http://127.0.0.1:$(free_port)
    create "$topic" 1
    head -n 1000 "$FILES/in.txt" >"$in"
    worker "$FILES/distributed.properties" "listeners=$REST" "group.id=connect-$RUN" scheduled.rebalance.max.delay.ms=0 \
        "config.storage.topic=connect-configs-$RUN" "offset.storage.topic=connect-offsets-$RUN" \
        "status.storage.topic=connect-status-$RUN"
    in_background org.apache.kafka.connect.cli.ConnectDistributed "$FILES/distributed.properties"
    until_true 90 ask GET connectors >/dev/null 2>&1
    ask PUT "connectors/in-$RUN/config" '{"connector.class":"FileStreamSource","file":"'"$in"'","topic":"'"$topic"'"}'
    ask PUT "connectors/out-$RUN/config" '{"connector.class":"FileStreamSink","file":"'"$out"'","topics":"'"$topic"'"}'
    until_true 60 copied "$in" "$out"
    for kept in configs offsets status; do
        kafka configs --describe --entity-type topics --entity-name "connect-$kept-$RUN" | grep -q '^ *cleanup.policy=compact '
    done
    # Connect's group is no group of consumers.
    kafka groups --list | grep -qE "^connect-$RUN +Classic +connect"
    until_true 30 offset_kept "$topic"
    kill -9 "$PID"; wait "$PID" || true
    tail -n +1001 "$FILES/in.txt" >>"$in"
    in_background org.apache.kafka.connect.cli.ConnectDistributed "$FILES/distributed.properties"
    until_true 90 running "in-$RUN"
    until_true 60 copied "$in" "$out"
    ask DELETE "connectors/in-$RUN"
}
# Both connectors have kept where they are: all 1000 lines.
offset_kept() {
    ask GET "connectors/in-$RUN/offsets" | grep -q "\"position\":$(wc -c <"$FILES/distributed.in")" &&
        ask GET "connectors/out-$RUN/offsets" | grep -q '"kafka_offset":1000'
}

step standalone standalone
step distributed distributed
verdict "$KAFKA_VERSION"
