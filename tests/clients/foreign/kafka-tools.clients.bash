# Steps of kafka-tools.sh: clients that write and read.

clients_steps() {
    step client-compatibility compatibility false
    step client-compatibility/describe-acls compatibility true
    step producer-perf-test producer_perf
    step consumer-perf-test consumer_perf classic
    step consumer-perf-test/kip-848 consumer_perf consumer
    step e2e-latency latency
    step verifiable-clients verifiable classic
    step verifiable-clients/kip-848 verifiable consumer
    step verifiable-clients/one-killed one_killed classic
    step verifiable-clients/one-killed/kip-848 one_killed consumer
    step verifiable-clients/static-member static_member classic
    step console-consumer/kip-848 console_kip848
    step transactional-message-copier copier
}

# Kafka's own test of what a client may rely on. It makes the topic `newtopic`.
compatibility() {
    local said
    said=$(kafka client-compatibility --topic "compatibility-$RUN-$1" --offsets-for-times-supported true \
        --cluster-id-supported true --expect-record-too-large-exception false --num-cluster-nodes 3 \
        --create-topics-supported true --describe-acls-supported "$1" --describe-configs-supported true \
        --idempotent-producer-supported true 2>&1) || true
    kafka topics --delete --topic newtopic >/dev/null || true
    [[ "$said" != *FAILED* && "$said" == *SUCCESS* ]] || { say "$(head -n 1 <<<"$said")"; return 1; }
}

producer_perf() {
    create "$DATA" 6
    kafka producer-perf-test --topic "$DATA" --num-records 50000 --record-size 100 --throughput -1 \
        --command-property acks=all compression.type=lz4 >"$FILES/perf"
    grep -q '^50000 records sent' "$FILES/perf"
}

consumer_perf() {
    echo "group.protocol=$1" >"$FILES/perf.properties"
    # The fifth column is the number of records read.
    kafka consumer-perf-test --topic "$DATA" --num-records 50000 --timeout 30000 --command-config "$FILES/perf.properties" |
        awk -F', ' 'NR == 2 { read = $5 } END { exit read != 50000 }'
}

latency() {
    kafka e2e-latency --topic "latency-$RUN" --num-records 200 --producer-acks all --record-size 100 >"$FILES/latency"
    grep -q '^Percentiles' "$FILES/latency"
}

# agree SENT READ...: what was acknowledged was read, and nothing else; each once unless REPEATS is set.
agree() {
    python3 - "$@" <<'END'
import json, os, sys
def events(path, name):
    found = [json.loads(line) for line in open(path) if line.startswith("{")]
    return [(e["partition"], e["offset"], e["value"]) for e in found if e["name"] == name]
acked = events(sys.argv[1], "producer_send_success")
read = [event for path in sys.argv[2:] for event in events(path, "record_data")]
if os.environ.get("REPEATS"):
    read = list(set(read))
assert acked and sorted(acked) == sorted(read), f"acknowledged {len(acked)}, read {len(read)}"
END
}

verifiable() {
    local topic="verifiable-$1-$RUN" out="$FILES/verifiable-$1"
    create "$topic" 3
    kafka verifiable-producer --topic "$topic" --max-messages 20000 --acks -1 >"$out.sent"
    kafka verifiable-consumer --topic "$topic" --group-id "$topic" --group-protocol "$1" --max-messages 20000 \
        --reset-policy earliest --verbose >"$out.read"
    agree "$out.sent" "$out.read"
}

# assigned FILE COUNT: whether a consumer that writes FILE was last given COUNT partitions.
assigned() {
    python3 - "$1" "$2" <<'END'
import json, sys
held = set()
for line in open(sys.argv[1]):
    if not line.startswith("{") or not line.endswith("}\n"):
        continue
    event = json.loads(line)
    if event["name"] in ("partitions_assigned", "partitions_revoked"):
        named = {p["partition"] for p in event["partitions"]}
        held = held | named if event["name"] == "partitions_assigned" else held - named
sys.exit(len(held) != int(sys.argv[2]))
END
}

# consumer_in_background FILE ARGS...: sets PID.
consumer_in_background() {
    local file=$1; shift
    EXEC=1 kafka verifiable-consumer --verbose --reset-policy earliest "$@" >"$file" 2>"$file.err" &
    PID=$!
    STARTED+=("$PID")
}

# ends_with_step: what the step begins in the background ends with it.
ends_with_step() { trap 'end_all' EXIT; }

# Two members share six partitions; one is killed; the other gets all of them and everything is read.
one_killed() {
    local protocol=$1 topic="killed-$1-$RUN" out="$FILES/killed-$1" session=() victim
    ends_with_step
    [ "$protocol" = consumer ] || session=(--session-timeout 6000)
    create "$topic" 6
    consumer_in_background "$out.1" --topic "$topic" --group-id "$topic" --group-protocol "$protocol" "${session[@]}"
    until_true 40 assigned "$out.1" 6
    consumer_in_background "$out.2" --topic "$topic" --group-id "$topic" --group-protocol "$protocol" "${session[@]}"
    victim=$PID
    until_true 40 assigned "$out.2" 3
    until_true 40 assigned "$out.1" 3
    kafka verifiable-producer --topic "$topic" --max-messages 5000 --acks -1 >"$out.sent"
    kill -9 "$victim"
    until_true 70 assigned "$out.1" 6
    kafka verifiable-producer --topic "$topic" --max-messages 5000 --acks -1 --value-prefix 7 >>"$out.sent"
    REPEATS=1 until_true 40 agree "$out.sent" "$out.1" "$out.2" 2>/dev/null
}

# A static member ends and comes back within its session: the other member keeps what it has and is not disturbed.
static_member() {
    local topic="static-$RUN" out="$FILES/static" before
    ends_with_step
    create "$topic" 4
    consumer_in_background "$out.1" --topic "$topic" --group-id "$topic" --group-instance-id one --session-timeout 30000
    consumer_in_background "$out.2" --topic "$topic" --group-id "$topic" --group-instance-id two --session-timeout 30000
    until_true 60 assigned "$out.1" 2
    until_true 60 assigned "$out.2" 2
    before=$(grep -c partitions_ "$out.1")
    kill "$PID"; wait "$PID" || true
    consumer_in_background "$out.3" --topic "$topic" --group-id "$topic" --group-instance-id two --session-timeout 30000
    until_true 60 assigned "$out.3" 2
    [ "$(grep -c partitions_ "$out.1")" = "$before" ] || { say "the other member saw a rebalance"; return 1; }
}

console_kip848() {
    local topic="console-$RUN" read
    create "$topic" 3
    seq 500 | kafka console-producer --topic "$topic" --command-property acks=all
    read=$(kafka console-consumer --topic "$topic" --from-beginning --max-messages 500 --timeout-ms 40000 \
        --command-property group.protocol=consumer --group "$topic" | sort -n | paste -sd,)
    [ "$read" = "$(seq -s, 500)" ]
}

copier() {
    local topic="copier-$RUN"
    create "$topic" 1 && create "$topic-copy" 1
    seq 200 | kafka console-producer --topic "$topic" --command-property acks=all
    TOOL_SECONDS=30 tool org.apache.kafka.tools.TransactionalMessageCopier --broker-list "$BOOTSTRAP" \
        --input-topic "$topic" --input-partition 0 --output-topic "$topic-copy" --transaction-size 50 \
        --max-messages 200 --transactional-id "$topic" --consumer-group "$topic" >"$FILES/copier"
    [ "$(kafka console-consumer --topic "$topic-copy" --from-beginning --max-messages 200 --timeout-ms 20000 \
        --isolation-level read_committed | paste -sd,)" = "$(seq -s, 200)" ]
}
