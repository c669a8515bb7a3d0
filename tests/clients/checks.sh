#!/usr/bin/env bash
# The acceptance checks of Kafka's behaviour (tests/tests/kafka_checks): against three daemons that the tests start
# themselves, against the cluster at BOOTSTRAP, or with ORACLE=1 against a fresh Apache Kafka of three brokers, which
# judges the checks. A check that needs daemons of its own is counted as skipped elsewhere.
#
# Environment from `run`: TARGET, WORK, BOOTSTRAP (when the cluster is not ours), ORACLE, RECORD, and ONLY (one word).
set -euo pipefail
. "$(dirname "$0")/lib.sh"

oracle=''
stop() { [ -z "$oracle" ] || { kill "$oracle" 2>/dev/null || true; wait "$oracle" 2>/dev/null || true; }; }
trap stop EXIT

# The settings are those of support.rs, and short intervals for what runs now and then.
if [ "${ORACLE:-}" = 1 ]; then
    need_java || { echo "no Java or Maven here"; echo "0 passed, 0 failed, 1 skipped"; exit 0; }
    port=$(free_port) other=$(free_port) alone=$(free_port)
    NODES=3 OTHER=$other ALONE=$alone "$HERE/kafka/start" "$WORK/checks.oracle" "$port" \
        replica.selector.class=org.apache.kafka.common.replica.RackAwareReplicaSelector \
        default.replication.factor=3 offsets.topic.num.partitions=8 group.min.session.timeout.ms=1000 \
        group.max.size=8 offsets.retention.check.interval.ms=500 log.cleaner.backoff.ms=200 \
        log.retention.check.interval.ms=500 >"$WORK/checks.oracle.log" 2>&1 &
    oracle=$!
    until_true 120 bash -c "exec 3<>/dev/tcp/127.0.0.1/$port" 2>/dev/null
    export KAFKA_ORACLE=1 KAFKA_BOOTSTRAP=127.0.0.1:$port KAFKA_OTHER=127.0.0.1:$other KAFKA_ALONE=127.0.0.1:$alone
elif [ -n "${BOOTSTRAP:-}" ]; then
    export KAFKA_BOOTSTRAP=$BOOTSTRAP
else
    export TRADEWIND_BIN=$TARGET/tradewind
fi

out=$WORK/checks.tests results=$WORK/checks.results
(cd "$HERE/../.." && cargo test -p tradewind-tests --test kafka_checks -- --show-output ${ONLY:-}) >"$out" 2>&1 || true
grep -q '^test result:' "$out" || { cat "$out" >&2; exit 1; }
# What a test printed stands below its name: one that says so has given no verdict.
awk '
    /^test .* \.\.\. (ok|FAILED)$/ { state[$2] = $4 == "ok" ? "pass" : "fail" }
    /^---- .* stdout ----$/ { test = $2 }
    /^not run here: / && test in state { state[test] = "skip"; detail[test] = substr($0, 15) }
    END { for (test in state) { name = test; sub(/.*::/, "", name); print state[test] "\t" name "\t" detail[test] } }
' "$out" | sort -t "$(printf '\t')" -k 2 >"$results"
sed -n '/^failures:$/,$p' "$out"
count() { grep -c "^$1" "$results" || true; }
if [ -n "$oracle" ] || [ -n "${BOOTSTRAP:-}" ]; then
    echo "$(count pass) passed, $(count fail) failed, $(count skip) skipped"
    [ "$(count fail)" = 0 ]
else
    SUITE=checks python3 "$HERE/judge.py" checks "$KAFKA_VERSION" "$results" "$RECORD/checks.json"
fi
