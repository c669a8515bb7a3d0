#!/usr/bin/env bash
# kafka-python's own integration tests, from its source distribution, as its makefile runs them on a broker of one's own.
set -euo pipefail
. "$(dirname "$0")/../foreign.sh"

VERSION=3.0.12
SOURCE=$CACHE/kafka-python-$VERSION

install_suite() {
    [ -e "$SOURCE/complete" ] && return 0
    command -v python3 >/dev/null || return 1
    rm -rf "$SOURCE" && mkdir -p "$SOURCE"
    python3 -m venv "$SOURCE/python" &&
        "$SOURCE/python/bin/pip" install -q "kafka-python[crc32c,lz4,snappy,zstd,testing]==$VERSION" 'pytest<10' py &&
        "$SOURCE/python/bin/pip" download -q --no-deps --no-binary :all: -d "$SOURCE" "kafka-python==$VERSION" &&
        tar -xzf "$SOURCE"/kafka_python-$VERSION.tar.gz -C "$SOURCE" --strip-components=1 \
            "kafka_python-$VERSION/test" "kafka_python-$VERSION/pyproject.toml" &&
        fill_gaps && touch "$SOURCE/complete"
}

# fill_gaps: the package leaves out two modules that its tests import. For a broker of one's own they only have to be there.
fill_gaps() {
    touch "$SOURCE/test/__init__.py"
    cat >"$SOURCE/test/service.py" <<'END'
class ExternalService:
    def __init__(self, host, port):
        self.host, self.port = host, port
    def dump_logs(self):
        pass
    def close(self):
        pass
    stop = open = close

class SpawnedService:
    def __init__(self, *_):
        raise RuntimeError("there are no brokers to start here")
END
}

install_suite || cannot "kafka-python cannot be installed"
# Four partitions and one copy, as its own fixture configures its broker; one test has members with sessions of 3 s, that wait 4 s for an answer.
start_cluster --config $'[topic_defaults]\n"num.partitions" = 4\n"default.replication.factor" = 1\n"group.min.session.timeout.ms" = 3000\n"group.initial.rebalance.delay.ms" = 0\n'
words=(); for word in $ONLY; do words+=(${words[0]:+or} "$word"); done
cd "$SOURCE"
# SASL and TLS are tested on brokers that the suite starts itself, from Kafka's own scripts.
KAFKA_URI=kafka://${BOOTSTRAP%%,*} KAFKA_VERSION=4.1.0 KAFKA_ROOT=$WORK bounded 900 \
    "$SOURCE/python/bin/python" -m pytest test/integration -q -p no:cacheprovider --timeout=120 -o log_level=WARNING \
    --ignore=test/integration/test_sasl_integration.py --ignore=test/integration/test_ssl_integration.py \
    --junit-xml="$WORK/kafka-python.xml" ${words[0]:+-k "${words[*]}"} >"$WORK/kafka-python.log" 2>&1 || true
if [ -e "$WORK/kafka-python.xml" ]; then pytest_results "$WORK/kafka-python.xml"; else tail -n 40 "$WORK/kafka-python.log" >&2; fi
verdict "$VERSION"
