#!/usr/bin/env bash
# librdkafka's own tests, from the sources that the Rust crate rdkafka-sys carries. Those that need no broker are left out.
#
# Each test file runs in a process of its own, because one that times out takes its process with it. Without FULL the slow
# ones are left out. Those about groups are run a second time, with KIP-848's protocol.
set -euo pipefail
. "$(dirname "$0")/../foreign.sh"

CRATE=4.10.0+2.12.1
SOURCE=$CACHE/librdkafka-${CRATE#*+}

install_suite() {
    [ -e "$SOURCE/complete" ] && return 0
    command -v cargo >/dev/null && command -v cc >/dev/null && command -v c++ >/dev/null || return 1
    rm -rf "$SOURCE" && mkdir -p "$SOURCE/fetch/src"
    printf '[package]\nname = "fetch"\nversion = "0.0.0"\nedition = "2021"\n[workspace]\n[dependencies]\nrdkafka-sys = { version = "=%s", default-features = false }\n' \
        "$CRATE" >"$SOURCE/fetch/Cargo.toml"
    touch "$SOURCE/fetch/src/lib.rs"
    (cd "$SOURCE/fetch" && cargo vendor -q ../vendor >/dev/null) || return 1
    mv "$SOURCE/vendor/rdkafka-sys/librdkafka" "$SOURCE/librdkafka" && rm -rf "$SOURCE/vendor" "$SOURCE/fetch"
    (cd "$SOURCE/librdkafka" && ./configure && make -j2 libs && make -C tests -j2 build) >"$SOURCE/build.log" 2>&1 ||
        { tail -n 20 "$SOURCE/build.log" >&2; return 1; }
    touch "$SOURCE/complete"
}

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

install_suite || cannot "librdkafka's tests cannot be built: a C++ compiler, cargo and libssl-dev, zlib1g-dev, libzstd-dev, libcurl4-openssl-dev, rapidjson-dev are needed"
if need_java; then kafka_path; fi
export LD_LIBRARY_PATH=$SOURCE/librdkafka/src:$SOURCE/librdkafka/src-cpp
# Four partitions is what the tests take for granted.
defaults='"num.partitions" = 4'
start_cluster --config "[topic_defaults]
$defaults
"
bounded 3000 python3 "$HERE/foreign/librdkafka.py" "$SOURCE/librdkafka/tests" default "$RESULTS" >&2
GROUP_PROTOCOL=consumer bounded 1800 python3 "$HERE/foreign/librdkafka.py" "$SOURCE/librdkafka/tests" default "$RESULTS" >&2
if [ -n "$OURS" ]; then
    start_cluster --config "[topic_defaults]
$defaults
\"auto.create.topics.enable\" = false
"
    bounded 600 python3 "$HERE/foreign/librdkafka.py" "$SOURCE/librdkafka/tests" noautocreate "$RESULTS" >&2
fi
verdict "${CRATE#*+}"
