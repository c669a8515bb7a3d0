#!/usr/bin/env bash
# Apache Kafka's command line tools and system-test clients, each doing what it is for.
#
# The tools are Kafka's own; what is asked of them and what they must print is ours. `run kafka-tools --oracle` asks the
# same of Apache Kafka, one broker, where the steps that need three fail.
set -euo pipefail
. "$(dirname "$0")/../foreign.sh"
. "$HERE/steps.sh"

need_java || cannot "Java or Maven is missing"
# Kafka looks for leaders to restore every five minutes; a step restores one by itself.
start_cluster --config '[topic_defaults]
"auto.leader.rebalance.enable" = false
'
RUN=r$RANDOM FILES=$WORK/$SUITE.files DATA=data-$RUN
mkdir -p "$FILES"
for part in clients groups admin; do . "$HERE/foreign/kafka-tools.$part.bash"; done
clients_steps
groups_steps
admin_steps
verdict "$KAFKA_VERSION"
