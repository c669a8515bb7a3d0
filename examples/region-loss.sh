#!/bin/sh
# Lose a region by hand. Start `tradewind demo` in another terminal and take the addresses from what it prints.
#
#   region-loss.sh EAST_KAFKA WEST_KAFKA WEST_URL PID...      (the PIDs of the daemons of east)
set -eu
east=$1 west=$2 url=$3
shift 3
tradewind=${TRADEWIND:-tradewind}

seq 1 1000 | kcat -P -b "$east" -t orders -z lz4
echo "written in east; waiting for west to have it all"
until [ "$("$tradewind" mirror status --url "$url" -o json | jq '.[0].lag_records')" = 0 ]; do
    sleep 0.2
done

kill -9 "$@"
"$tradewind" failover 'east->west' --accept-loss --url "$url"
echo "records in west: $(kcat -C -b "$west" -t east.orders -o beginning -e -q | wc -l)"
echo "one more" | kcat -P -b "$west" -t east.orders
