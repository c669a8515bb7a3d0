# What foreign suites written as shell functions share: `step` runs one and writes its result. Sourced after foreign.sh.

# step ID COMMAND...: runs the function in a subshell that ends at its first failing command; a failure's detail is the
# last line of its standard error. Every step may take STEP_SECONDS.
step() {
    local id=$1 status=0 word wanted='' log="$WORK/$SUITE.step"; shift
    for word in $ONLY; do [[ "$id" != *"$word"* ]] || wanted=1; done
    [ -z "$ONLY" ] || [ -n "$wanted" ] || return 0
    local began=$SECONDS
    set +e
    (set -euo pipefail; trap - EXIT; STARTED=(); "$@") >"$log.out" 2>"$log.err" 8>&-
    status=$?
    set -e
    if [ "$status" = 0 ]; then
        result pass "$id"
    else
        result fail "$id" "$(grep -vE '^\s*(at |\.\.\. |$)' "$log.err" | tail -n 1)"
        { echo "--- $id"; cat "$log.out" "$log.err"; } >>"$WORK/$SUITE.failures"
    fi
    say "$status $id $((SECONDS - began)) s"
}

# refuse WORDS COMMAND...: the command must fail, or at least say, with these words.
refuse() {
    local words=$1 said; shift
    said=$("$@" 2>&1) || true
    grep -qF "$words" <<<"$said" || { say "said instead of '$words': $(tail -n 3 <<<"$said")"; return 1; }
}

# tool CLASS ARGS...: one of Apache Kafka's tools, for 90 seconds at most. With EXEC=1 the shell becomes the tool, without
# a limit: for those in the background.
tool() {
    local java=(java "-Xmx${TOOL_MEMORY:-256m}" -XX:TieredStopAtLevel=1 -XX:+UseSerialGC
        "-Dlog4j2.configurationFile=$HERE/kafka/log4j2.properties" -cp "$KAFKA_JARS/*" "$@")
    [ -z "${EXEC:-}" ] || exec "${java[@]}" 8>&-
    bounded "${TOOL_SECONDS:-90}" "${java[@]}"
}

# kafka NAME ARGS...: the tool that Kafka's distribution calls kafka-NAME.sh, connected to BROKER, or else BOOTSTRAP.
kafka() {
    local name=$1 class tools=org.apache.kafka.tools; shift
    case $name in
        topics) class=$tools.TopicCommand ;;
        configs) class=kafka.admin.ConfigCommand ;;
        consumer-groups) class=$tools.consumer.group.ConsumerGroupCommand ;;
        groups) class=$tools.GroupsCommand ;;
        get-offsets) class=$tools.GetOffsetShell ;;
        delete-records) class=$tools.DeleteRecordsCommand ;;
        log-dirs) class=$tools.LogDirsCommand ;;
        leader-election) class=$tools.LeaderElectionCommand ;;
        reassign-partitions) class=$tools.reassign.ReassignPartitionsCommand ;;
        broker-api-versions) class=$tools.BrokerApiVersionsCommand ;;
        features) class=$tools.FeatureCommand ;;
        client-metrics) class=$tools.ClientMetricsCommand ;;
        transactions) class=$tools.TransactionsCommand ;;
        console-producer) class=$tools.ConsoleProducer ;;
        console-consumer) class=$tools.consumer.ConsoleConsumer ;;
        producer-perf-test) class=$tools.ProducerPerformance ;;
        consumer-perf-test) class=$tools.ConsumerPerformance ;;
        e2e-latency) class=$tools.EndToEndLatency ;;
        verifiable-producer) class=$tools.VerifiableProducer ;;
        verifiable-consumer) class=$tools.VerifiableConsumer ;;
        client-compatibility) class=$tools.ClientCompatibilityTest ;;
        *) say "no tool $name"; return 2 ;;
    esac
    tool "$class" --bootstrap-server "${BROKER:-$BOOTSTRAP}" "$@"
}

# create TOPIC PARTITIONS [KEY=VALUE...]
create() {
    local topic=$1 partitions=$2 setting settings=(); shift 2
    for setting; do settings+=(--config "$setting"); done
    kafka topics --create --topic "$topic" --partitions "$partitions" "${settings[@]}" >/dev/null
}

# read_records TOPIC COUNT [consumer ARGS...]: prints partition, offset, timestamp, headers, key and value of each, as
# compare.py reads them.
read_records() {
    local topic=$1 count=$2; shift 2
    kafka console-consumer --topic "$topic" --max-messages "$count" --timeout-ms 45000 \
        --formatter-property print.timestamp=true --formatter-property print.partition=true \
        --formatter-property print.offset=true --formatter-property print.headers=true \
        --formatter-property print.key=true "$@" |
        sed -E 's/^CreateTime:([0-9]+)\tPartition:([0-9]+)\tOffset:([0-9]+)\t/\2\t\3\t\1\t/'
}

# write_records TOPIC FILE CODEC HEADERS: `key TAB value` lines, each with the headers.
write_records() {
    sed "s/^/$4\t/" "$2" |
        kafka console-producer --topic "$1" --compression-codec "$3" --command-property acks=all \
            --reader-property parse.key=true --reader-property parse.headers=true
}
