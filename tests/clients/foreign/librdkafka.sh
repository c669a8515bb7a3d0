#!/usr/bin/env bash
# librdkafka's own tests, from the sources that the Rust crate rdkafka-sys carries. Those that need no broker are left out.
#
# Each test file runs in a process of its own, because one that times out takes its process with it. Without FULL the slow
# ones are left out. Those about groups are run a second time, with KIP-848's protocol.
set -euo pipefail
. "$(dirname "$0")/../foreign.sh"

# kafka_path: a folder whose bin/ has the scripts of Kafka that the tests call, run by Apache Kafka's tools.
kafka_path() {
    export KAFKA_PATH=$WORK/kafka-path
    mkdir -p "$KAFKA_PATH/bin"
    local script class
    while read -r script class; do
        printf '#!/usr/bin/env bash\nset -euo pipefail\n. %q\njava_tool %s "$@"\n' "$HERE/lib.sh" "$class" >"$KAFKA_PATH/bin/$script"
    done <<'END'
kafka-topics.sh org.apache.kafka.tools.TopicCommand
kafka-acls.sh org.apache.kafka.tools.AclCommand
END
    printf '#!/usr/bin/env bash\nset -euo pipefail\n. %q\nexec java -Xmx256m -cp "${CLASSPATH:-.}:$KAFKA_JARS/*" "$@"\n' \
        "$HERE/lib.sh" >"$KAFKA_PATH/bin/kafka-run-class.sh"
    chmod +x "$KAFKA_PATH"/bin/*
}

need_librdkafka || cannot "librdkafka's tests cannot be built: a C++ compiler, cargo and libssl-dev, zlib1g-dev, libzstd-dev, libcurl4-openssl-dev, rapidjson-dev are needed"
if need_java; then kafka_path; fi
export LD_LIBRARY_PATH=$LIBRDKAFKA/src:$LIBRDKAFKA/src-cpp
# Four partitions is what the tests take for granted.
defaults='"num.partitions" = 4'
start_cluster --config "[topic_defaults]
$defaults
"
bounded 3000 python3 "$HERE/foreign/librdkafka.py" "$LIBRDKAFKA/tests" default "$RESULTS" >&2
GROUP_PROTOCOL=consumer bounded 1800 python3 "$HERE/foreign/librdkafka.py" "$LIBRDKAFKA/tests" default "$RESULTS" >&2
if [ -n "$OURS" ]; then
    start_cluster --config "[topic_defaults]
$defaults
\"auto.create.topics.enable\" = false
"
    bounded 600 python3 "$HERE/foreign/librdkafka.py" "$LIBRDKAFKA/tests" noautocreate "$RESULTS" >&2
fi
verdict "${RDKAFKA_CRATE#*+}"
