# Steps of kafka-tools.sh: kafka-consumer-groups, on a topic that clients_steps has filled.

groups_steps() {
    step consumer-groups/describe groups_describe
    step consumer-groups/describe-active groups_active
    step consumer-groups/list groups_list
    step consumer-groups/reset-offsets groups_reset
    step consumer-groups/delete-offsets groups_delete_offsets
    step consumer-groups/delete groups_delete
    step groups/list kinds_of_groups
}
GROUP=group-$RUN COUNTED=counted-$RUN

# offsets GROUP: `partition offset lag`, sorted, as --describe prints them.
offsets() { kafka consumer-groups --describe --group "$1" 2>/dev/null | awk '$3 ~ /^[0-9]+$/ { print $3, $4, $6 }' | sort; }

# Two partitions of 100 records each, of which the group has read 60 in all.
groups_describe() {
    create "$COUNTED" 2
    seq 200 | awk '{ print $1 % 2 "\t" $1 }' | kafka console-producer --topic "$COUNTED" --command-property acks=all \
        --reader-property parse.key=true
    kafka console-consumer --topic "$COUNTED" --from-beginning --max-messages 60 --timeout-ms 30000 --group "$GROUP" >/dev/null
    offsets "$GROUP" | awk '{ at += $2; lag += $3 } END { exit !(at == 60 && at + lag <= 200) }'
    kafka consumer-groups --describe --group "$GROUP" --state 2>/dev/null | awk -v g="$GROUP" '$1 == g && /Empty/ && $NF == 0 { f = 1 } END { exit !f }'
    refuse 'has no active members' kafka consumer-groups --describe --group "$GROUP" --members
    refuse 'GroupIdNotFoundException' kafka consumer-groups --describe --group "none-$RUN"
}

# While a member is there it is named with its partitions, and its offsets cannot be reset.
groups_active() {
    local out="$FILES/active"
    ends_with_step
    consumer_in_background "$out" --topic "$COUNTED" --group-id "active-$RUN"
    until_true 40 assigned "$out" 2
    kafka consumer-groups --describe --group "active-$RUN" --members --verbose >"$out.members"
    awk -v g="active-$RUN" '$1 == g && $0 ~ / 2 / { f = 1 } END { exit !f }' "$out.members"
    kafka consumer-groups --describe --group "active-$RUN" --state | awk '/Stable/ && / range / && $NF == 1 { f = 1 } END { exit !f }'
    refuse 'current state is Stable' kafka consumer-groups --reset-offsets --group "active-$RUN" --topic "$COUNTED" --to-earliest --execute
    refuse 'not empty' kafka consumer-groups --delete --group "active-$RUN"
}

groups_list() {
    kafka consumer-groups --list | grep -qx "$GROUP"
    kafka consumer-groups --list --state Empty | awk -v g="$GROUP" '$1 == g && $2 == "Empty" { f = 1 } END { exit !f }'
    kafka consumer-groups --list --type Classic | awk -v g="$GROUP" '$1 == g && $2 == "Classic" { f = 1 } END { exit !f }'
    ! kafka consumer-groups --list --state Stable | grep -q "^$GROUP "
}

# reset EXPECTED ARGS...: a dry run prints EXPECTED as `partition:offset ...`.
reset() {
    local expected=$1 found; shift
    found=$(kafka consumer-groups --reset-offsets --group "$GROUP" "$@" --dry-run 2>/dev/null |
        awk -v g="$GROUP" '$1 == g { print $3 ":" $4 }' | sort | paste -sd' ')
    [ "$found" = "$expected" ] || { say "reset $*: '$found' instead of '$expected'"; return 1; }
}

groups_reset() {
    local ends future
    ends=$(kafka get-offsets --topic "$COUNTED" | sed 's/^[^:]*://' | sort | paste -sd' ')
    reset '0:0 1:0' --topic "$COUNTED" --to-earliest
    reset "$ends" --topic "$COUNTED" --to-latest
    reset '0:20 1:20' --topic "$COUNTED" --to-offset 20
    reset '1:7' --topic "$COUNTED:1" --to-offset 7
    reset '0:0 1:0' --topic "$COUNTED" --to-datetime 2020-01-01T00:00:00.000
    reset '0:0 1:0' --topic "$COUNTED" --by-duration P1D
    future=$(date -u -d '+1 day' +%Y-%m-%dT%H:%M:%S.000)
    reset "$ends" --topic "$COUNTED" --to-datetime "$future"
    kafka consumer-groups --reset-offsets --group "$GROUP" --topic "$COUNTED" --to-offset 30 --execute >/dev/null
    reset '0:30 1:30' --topic "$COUNTED" --to-current
    # All topics are those that the group has positions of.
    reset '0:20 1:20' --all-topics --to-offset 20
    reset '0:25 1:25' --topic "$COUNTED" --shift-by -5
    kafka consumer-groups --reset-offsets --group "$GROUP" --topic "$COUNTED" --shift-by 4 --export --dry-run >"$FILES/offsets.csv"
    kafka consumer-groups --reset-offsets --group "$GROUP" --from-file "$FILES/offsets.csv" --execute >/dev/null
    reset '0:34 1:34' --topic "$COUNTED" --to-current
}

groups_delete_offsets() {
    kafka consumer-groups --delete-offsets --group "$GROUP" --topic "$COUNTED:0" | grep -q Successful
    [ "$(offsets "$GROUP" | awk '{ print $1 ":" $2 }' | paste -sd' ')" = 1:34 ]
}

groups_delete() {
    kafka consumer-groups --delete --group "$GROUP" | grep -q 'successful'
    ! kafka consumer-groups --list | grep -qx "$GROUP"
    refuse 'GroupIdNotFoundException' kafka consumer-groups --delete --group "$GROUP"
}

kinds_of_groups() { kafka groups --list | awk '$2 == "Classic" && $3 == "consumer" { f = 1 } END { exit !f }'; }
