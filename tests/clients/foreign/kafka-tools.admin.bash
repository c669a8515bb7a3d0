# Steps of kafka-tools.sh: topics, settings, offsets, replicas and the cluster, on a topic that clients_steps has filled.

admin_steps() {
    step topics/create-describe topics_create
    step topics/alter-delete topics_alter
    step configs/topic configs_topic
    step configs/topic-refusals configs_refusals
    step configs/broker configs_broker
    step get-offsets get_offsets
    step get-offsets/latest-tiered get_offsets_tiered latest-tiered
    step get-offsets/earliest-pending-upload get_offsets_tiered earliest-pending-upload
    step delete-records delete_records
    step log-dirs log_dirs
    step leader-election elections
    step reassign-partitions/generate reassign_generate
    step reassign-partitions reassign
    step reassign-partitions/throttle reassign_throttled
    step broker-api-versions api_versions
    step metadata-quorum quorum
    step cluster cluster
    step features/describe features
    step client-metrics/list client_metrics
    step transactions/list transactions
    step dump-log dump_log
}
NEW=new-$RUN

topics_create() {
    kafka topics --create --topic "$NEW" --partitions 3 --replication-factor 2 --config retention.ms=3600000 >/dev/null
    kafka topics --describe --topic "$NEW" >"$FILES/described"
    grep -q 'PartitionCount: 3.*ReplicationFactor: 2.*retention.ms=3600000' "$FILES/described"
    [ "$(grep -cE 'Partition: [0-2].Leader: [1-3].Replicas: [1-3],[1-3].Isr: [1-3],[1-3]' "$FILES/described")" = 3 ]
    refuse 'already exists' kafka topics --create --topic "$NEW"
    kafka topics --create --topic "$NEW" --if-not-exists >/dev/null
    refuse 'InvalidReplicationFactorException' kafka topics --create --topic "$NEW-4" --replication-factor 4
    refuse 'InvalidConfigurationException' kafka topics --create --topic "$NEW-5" --config nonsense=1
    kafka topics --create --topic "$NEW-6" --replica-assignment 1:2:3,2:3:1 >/dev/null
    kafka topics --describe --topic "$NEW-6" | grep -q 'Partition: 1.Leader: 2.Replicas: 2,3,1'
    ! kafka topics --list | grep -qxE "$NEW-[45]"
    kafka topics --describe --under-replicated-partitions >"$FILES/under"
    [ ! -s "$FILES/under" ]
}

topics_alter() {
    kafka topics --alter --topic "$NEW" --partitions 5
    until_true 20 has_partitions "$NEW" 5
    refuse 'InvalidPartitionsException' kafka topics --alter --topic "$NEW" --partitions 2
    refuse 'does not exist' kafka topics --alter --topic "none-$RUN" --partitions 2
    kafka topics --delete --topic "$NEW-6"
    until_true 20 gone "$NEW-6"
    refuse 'does not exist' kafka topics --delete --topic "$NEW-6"
}
has_partitions() { kafka topics --describe --topic "$1" | grep -q "PartitionCount: $2"; }
gone() { ! kafka topics --list | grep -qx "$1"; }

# setting TOPIC LINE: the topic's own settings have this line.
setting() { kafka configs --describe --entity-type topics --entity-name "$1" | grep -qE "^ *$2 "; }
no_setting() { ! setting "$@"; }

configs_topic() {
    local alter=(kafka configs --alter --entity-type topics --entity-name "$NEW")
    "${alter[@]}" --add-config 'cleanup.policy=[compact,delete],retention.ms=7200000' >/dev/null
    until_true 20 setting "$NEW" retention.ms=7200000
    setting "$NEW" cleanup.policy=compact,delete
    "${alter[@]}" --delete-config retention.ms >/dev/null
    until_true 20 no_setting "$NEW" retention.ms=7200000
    kafka configs --describe --entity-type topics --entity-name "$NEW" --all >"$FILES/all"
    grep -q 'retention.ms=604800000 sensitive=false synonyms={.*DEFAULT_CONFIG:log.retention.ms=604800000}' "$FILES/all"
    # A setting equal to the default is the topic's own all the same.
    "${alter[@]}" --add-config retention.ms=604800000 >/dev/null
    until_true 20 setting "$NEW" retention.ms=604800000
    "${alter[@]}" --delete-config retention.ms,cleanup.policy >/dev/null
}

configs_refusals() {
    local alter=(kafka configs --alter --entity-type topics --entity-name "$NEW")
    refuse 'InvalidConfigurationException' "${alter[@]}" --add-config nonsense=1
    refuse 'InvalidConfigurationException' "${alter[@]}" --add-config retention.ms=soon
    refuse 'InvalidConfigurationException' "${alter[@]}" --add-config cleanup.policy=burn
    refuse 'InvalidConfigurationException' "${alter[@]}" --add-config min.insync.replicas=0
    "${alter[@]}" --delete-config never.set >/dev/null
    refuse "doesn't exist" kafka configs --describe --entity-type topics --entity-name "none-$RUN"
}

configs_broker() {
    kafka configs --describe --entity-type brokers --entity-name 2 --all >"$FILES/broker"
    grep -q 'DEFAULT_CONFIG:offset.metadata.max.bytes=4096' "$FILES/broker"
    grep -qE '^ *(node|broker).id=2 ' "$FILES/broker"
}

# sum [ARGS...]: of the offsets of DATA.
sum() { kafka get-offsets --topic "$DATA" "$@" | awk -F: '{ n += $3 } END { print n+0 }'; }

get_offsets() {
    [ "$(sum)" = 50000 ] && [ "$(sum --time latest)" = 50000 ]
    [ "$(sum --time earliest)" = 0 ] && [ "$(sum --time earliest-local)" = 0 ]
    [ "$(sum --time 1000000000000)" = 0 ]
    # The record with the highest timestamp is one of the last ones; nothing is later than tomorrow.
    kafka get-offsets --topic "$DATA" --time max-timestamp | awk -F: '$3 < 1 { bad = 1 } END { exit bad || NR != 6 }'
    [ "$(sum --time "$(($(date +%s) + 86400))000")" = 0 ]
    [ "$(kafka get-offsets --topic-partitions "$DATA:2-4" | wc -l)" = 2 ]
}

# Nothing is tiered, so nothing is printed.
get_offsets_tiered() { [ -z "$(kafka get-offsets --topic "$DATA" --time "$1" 2>&1)" ]; }

delete_records() {
    local end
    end=$(kafka get-offsets --topic-partitions "$DATA:1" | cut -d: -f3)
    echo '{"version":1,"partitions":[{"topic":"'"$DATA"'","partition":0,"offset":10},{"topic":"'"$DATA"'","partition":1,"offset":-1}]}' >"$FILES/delete.json"
    kafka delete-records --offset-json-file "$FILES/delete.json" >"$FILES/deleted"
    grep -qE "$DATA-0.low_watermark: 10$" "$FILES/deleted" && grep -qE "$DATA-1.low_watermark: $end$" "$FILES/deleted"
    [ "$(kafka get-offsets --topic "$DATA" --time earliest | sort | head -n 2 | cut -d: -f3 | paste -sd' ')" = "10 $end" ]
    echo '{"version":1,"partitions":[{"topic":"'"$DATA"'","partition":0,"offset":99999999}]}' >"$FILES/delete.json"
    refuse 'OffsetOutOfRangeException' kafka delete-records --offset-json-file "$FILES/delete.json"
    [ "$(kafka console-consumer --topic "$DATA" --from-beginning --max-messages 100000 --timeout-ms 8000 2>/dev/null | wc -l)" = $((50000 - 10 - end)) ]
}

log_dirs() {
    kafka log-dirs --describe --topic-list "$DATA" | tail -n 1 >"$FILES/log-dirs.json"
    python3 - "$FILES/log-dirs.json" "$DATA" <<'END'
import json, sys
brokers = json.load(open(sys.argv[1]))["brokers"]
assert [b["broker"] for b in brokers] == [1, 2, 3], brokers
sizes = {}
for broker in brokers:
    for folder in broker["logDirs"]:
        assert folder["error"] is None, folder
        for partition in folder["partitions"]:
            assert not partition["isFuture"] and partition["offsetLag"] == 0, partition
            sizes.setdefault(partition["partition"], []).append(partition["size"])
assert sorted(sizes) == [f"{sys.argv[2]}-{n}" for n in range(6)], sizes
assert all(len(each) == 3 and min(each) > 0 for name, each in sizes.items() if not name.endswith("-1")), sizes
END
}

# led TOPIC LEADER: partition 0 is led by it.
led() { kafka topics --describe --topic "$1" | grep -qE "Partition: 0.Leader: $2.Replicas"; }

# A leader that is not the first of the replicas, as a reassignment leaves it, gives way to the preferred one.
elections() {
    kafka leader-election --election-type preferred --all-topic-partitions
    refuse 'Valid replica already elected' kafka leader-election --election-type preferred --topic "$DATA" --partition 0
    refuse 'Valid replica already elected' kafka leader-election --election-type unclean --topic "$DATA" --partition 0
    refuse 'UnknownTopicOrPartitionException' kafka leader-election --election-type preferred --topic "none-$RUN" --partition 0
    kafka topics --create --topic "led-$RUN" --replica-assignment 1:2:3 >/dev/null
    echo '{"version":1,"partitions":[{"topic":"led-'"$RUN"'","partition":0,"replicas":[3,1,2]}]}' >"$FILES/order.json"
    kafka reassign-partitions --execute --reassignment-json-file "$FILES/order.json" >/dev/null
    until_true 30 reassigned "$FILES/order.json"
    led "led-$RUN" 1
    kafka leader-election --election-type preferred --topic "led-$RUN" --partition 0 | grep -q 'Successfully completed leader election'
    until_true 20 led "led-$RUN" 3
}

reassign_generate() {
    echo '{"version":1,"topics":[{"topic":"'"$DATA"'"}]}' >"$FILES/topics.json"
    kafka reassign-partitions --generate --topics-to-move-json-file "$FILES/topics.json" --broker-list 1,2,3 >"$FILES/generated"
    grep -q 'Proposed partition reassignment configuration' "$FILES/generated"
    [ "$(grep -c "\"topic\":\"$DATA\",\"partition\":5" "$FILES/generated")" = 2 ]
}

reassigned() { kafka reassign-partitions --verify --preserve-throttles --reassignment-json-file "$1" | grep -q 'is completed'; }

# Partition 0 goes from three replicas to two others' order and back; its records stay.
reassign() {
    local topic="moved-$RUN"
    kafka topics --create --topic "$topic" --replica-assignment 1:2 >/dev/null
    seq 3000 | kafka console-producer --topic "$topic" --command-property acks=all
    echo '{"version":1,"partitions":[{"topic":"'"$topic"'","partition":0,"replicas":[3,2]}]}' >"$FILES/move.json"
    kafka reassign-partitions --execute --reassignment-json-file "$FILES/move.json" | grep -q 'Successfully started'
    until_true 40 reassigned "$FILES/move.json"
    kafka reassign-partitions --list | grep -q 'No partition reassignments found'
    kafka topics --describe --topic "$topic" | grep -qE 'Replicas: 3,2.Isr: (3,2|2,3)'
    [ "$(kafka console-consumer --topic "$topic" --from-beginning --max-messages 3000 --timeout-ms 20000 | paste -sd,)" = "$(seq -s, 3000)" ]
    refuse 'None of the specified partition reassignments are active' kafka reassign-partitions --cancel --preserve-throttles --reassignment-json-file "$FILES/move.json"
    echo '{"version":1,"partitions":[{"topic":"'"$topic"'","partition":0,"replicas":[9]}]}' >"$FILES/wrong.json"
    refuse 'Unknown broker id 9' kafka reassign-partitions --execute --reassignment-json-file "$FILES/wrong.json"
}

# Throttles are settings of brokers and topics; --verify takes them away.
reassign_throttled() {
    kafka reassign-partitions --execute --throttle 50000000 --reassignment-json-file "$FILES/move.json" >"$FILES/throttle"
    grep -q 'throttle limit was set' "$FILES/throttle"
    until_true 40 reassigned "$FILES/move.json"
    kafka reassign-partitions --verify --reassignment-json-file "$FILES/move.json" | grep -q 'Clearing topic-level throttles'
    ! kafka configs --describe --entity-type topics --entity-name "moved-$RUN" | grep -q throttled
}

api_versions() {
    kafka broker-api-versions >"$FILES/versions"
    [ "$(grep -c '^127.0.0.1:.* (id: [123] ' "$FILES/versions")" = 3 ]
    [ "$(grep -c 'Produce(0): ' "$FILES/versions")" = 3 ]
    grep -q 'ApiVersions(18): 0 to 4' "$FILES/versions"
}

quorum() {
    local quorum=(tool org.apache.kafka.tools.MetadataQuorumCommand --bootstrap-server "$BOOTSTRAP" describe)
    "${quorum[@]}" --status >"$FILES/quorum"
    grep -qE '^LeaderId: +[123]$' "$FILES/quorum" && grep -qE '^HighWatermark: +[1-9]' "$FILES/quorum"
    [ "$(grep '^CurrentVoters' "$FILES/quorum" | grep -o '"id"' | wc -l)" = 3 ]
    [ "$(grep '^CurrentVoters' "$FILES/quorum" | grep -oE '"endpoints": \["[A-Z]+://[^"]+:[0-9]+"' | wc -l)" = 3 ]
    "${quorum[@]}" --replication | awk '$NF == "Leader" { l++ } $NF == "Follower" { f++ } END { exit !(l == 1 && f == 2) }'
}

cluster() {
    tool org.apache.kafka.tools.ClusterTool cluster-id --bootstrap-server "$BOOTSTRAP" | grep -qE '^Cluster ID: [A-Za-z0-9_-]{22}$'
    [ "$(tool org.apache.kafka.tools.ClusterTool list-endpoints --bootstrap-server "$BOOTSTRAP" | grep -c 'unfenced.*broker')" = 3 ]
}

# The command may say that there are none; it must not fail.
features() { tool org.apache.kafka.tools.FeatureCommand --bootstrap-server "$BOOTSTRAP" describe; }

client_metrics() { kafka client-metrics --list; }

transactions() { kafka transactions list; }

# Kafka reads our log files: two partitions of DATA that one daemon keeps.
dump_log() {
    [ -n "${CLUSTER:-}" ] || { say "the cluster is not ours"; return 1; }
    local file records=0 found id
    id=$(kafka topics --describe --topic "$DATA" | sed -n 's/.*TopicId: \([^\t ]*\).*/\1/p')
    while read -r file; do
        tool org.apache.kafka.tools.DumpLogSegments --deep-iteration --files "$file" >"$FILES/dump"
        ! grep -qiE 'isvalid: false|corrupt|mismatch' "$FILES/dump"
        found=$(grep -c '^| offset:' "$FILES/dump")
        records=$((records + found))
    done < <(find "$CLUSTER/one/1/data/topics/$id"/[23] -name '*.log')
    [ "$records" -gt 1000 ] || { say "$records records in our files"; return 1; }
}
