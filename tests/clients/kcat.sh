#!/usr/bin/env bash
# kcat (librdkafka): a text file through each codec, read back where READ says and compared record by record.
#
# Environment: SOURCE (bootstrap written to), READ (bootstrap read from), PREFIX (mirror topics' prefix at READ),
# LINES (of the file), RUN (a word that makes topic names new), WORK (a folder for files).
set -euo pipefail
. "$(dirname "$0")/lib.sh"

FORMAT='%p\t%o\t%T\t%h\t%k\t%s\n'

# end BOOTSTRAP TOPIC PARTITION: its end offset, empty while unknown.
end() { kcat -b "$1" -Q -t "$2:$3:-1" 2>/dev/null | sed -n 's/.*offset //p'; }

# partitions BOOTSTRAP TOPIC: how many partitions with a leader the topic has there.
partitions() { kcat -b "$1" -L -t "$2" 2>/dev/null | grep -cE 'partition [0-9]+, leader [0-9]+' || true; }

# caught_up TOPIC: the mirror's ends equal the source's.
caught_up() {
    local topic=$1 count p
    count=$(partitions "$SOURCE" "$topic")
    [ "$count" -gt 0 ] && [ "$(partitions "$READ" "$PREFIX$topic")" = "$count" ] || return 1
    for ((p = 0; p < count; p++)); do
        [ "$(end "$SOURCE" "$topic" "$p")" = "$(end "$READ" "$PREFIX$topic" "$p")" ] || return 1
    done
}

# read_all BOOTSTRAP TOPIC FILE
read_all() { timeout 120 kcat -b "$1" -C -t "$2" -o beginning -e -q -X check.crcs=true -f "$FORMAT" >"$3"; }

# there_and_back NAME CODEC [kcat -P ARGS...]
there_and_back() {
    local topic="kcat-$RUN-$1" out="$WORK/kcat-$1" codec=$2; shift 2
    timeout 120 kcat -b "$SOURCE" -P -t "$topic" -z "$codec" -K '\t' -H "codec=$codec" -H "twice=1" -H "twice=2" \
        -H 'naïve=ü' "$@" -l "$WORK/text"
    if [ "$READ" = "$SOURCE" ]; then
        read_all "$READ" "$topic" "$out.read"
        python3 "$HERE/compare.py" "$WORK/text" "$out.read" "codec=$codec,twice=1,twice=2,naïve=ü"
    else
        until_true 120 caught_up "$topic"
        read_all "$SOURCE" "$topic" "$out.source"
        read_all "$READ" "$PREFIX$topic" "$out.read"
        python3 "$HERE/compare.py" "$WORK/text" "$out.read" "codec=$codec,twice=1,twice=2,naïve=ü" "$out.source"
    fi
    rm -f "$out".*
}

lists_metadata() { kcat -b "$SOURCE" -L -J | python3 -c 'import json, sys; assert json.load(sys.stdin)["brokers"]'; }

# A balanced consumer (-G) reads a part, leaves, and a second one carries on after it.
group_carries_on() {
    local topic="kcat-$RUN-none" group="kcat-$RUN" out="$WORK/kcat-group" total
    total=$(wc -l <"$WORK/text")
    timeout 120 kcat -b "$READ" -G "$group" -X auto.offset.reset=earliest -q -c 1000 \
        -f "$FORMAT" "$PREFIX$topic" >"$out.1"
    timeout 120 kcat -b "$READ" -G "$group" -X auto.offset.reset=earliest -q -c $((total - 1000)) \
        -f "$FORMAT" "$PREFIX$topic" >"$out.2"
    cat "$out.1" "$out.2" >"$out.read"
    python3 "$HERE/compare.py" "$WORK/text" "$out.read" "codec=none,twice=1,twice=2,naïve=ü"
    rm -f "$out".*
}

# Messages at an offset, from the tail, and from a moment in time.
seeks() {
    local topic="kcat-$RUN-none" first middle
    first=$(timeout 60 kcat -b "$READ" -C -t "$PREFIX$topic" -p 0 -o 100 -c 1 -q -f '%o %T')
    [ "${first% *}" = 100 ]
    middle=$(timeout 60 kcat -b "$READ" -C -t "$PREFIX$topic" -p 0 -o "s@${first#* }" -c 1 -q -f '%T')
    [ "$middle" -ge "${first#* }" ]
    [ "$(timeout 60 kcat -b "$READ" -C -t "$PREFIX$topic" -p 0 -o -5 -e -q -f '%o\n' | wc -l)" = 5 ]
}

[ -s "$WORK/text" ] || python3 "$HERE/text.py" "$LINES" >"$WORK/text"
check "kcat lists metadata" lists_metadata
for codec in none gzip snappy lz4 zstd; do
    check "kcat there and back, $codec" there_and_back "$codec" "$codec"
done
check "kcat idempotent there and back" there_and_back idempotent lz4 -X enable.idempotence=true
check "kcat in a group carries on" group_carries_on
check "kcat seeks by offset, tail and time" seeks
finish
