# What somebody does with Kafka's own command-line tools, step by step: scenario.sh JARS BOOTSTRAP PREFIX.
#
# Not here: timestamps of one's own, which the tools cannot set.
jars=$1 bootstrap=$2 prefix=$3
if [ -z "$prefix" ]; then echo "usage: run BOOTSTRAP PREFIX"; exit 2; fi
topic=$prefix-records perf=$prefix-perf group=$prefix-group
work=$(mktemp -d)
trap 'kill -9 $(jobs -p) 2>/dev/null; rm -rf "$work"' EXIT
trap 'echo "FAILED in time: a step is still under way"; exit 1' TERM
why=
# The tools' classes, which the first of them leaves behind for the others: they then start in a third of the time.
classes=-XX:ArchiveClassesAtExit=$work/classes.jsa

# tool NAME ARGUMENTS: what bin/kafka-NAME.sh does, in place of the subshell that it is called in.
tool() {
    local class
    case $1 in
    broker-api-versions) class=BrokerApiVersionsCommand ;;
    topics) class=TopicCommand ;;
    configs) class=ConfigCommand ;;
    consumer-groups) class=consumer.group.ConsumerGroupCommand ;;
    get-offsets) class=GetOffsetShell ;;
    console-producer) class=ConsoleProducer ;;
    console-consumer) class=consumer.ConsoleConsumer ;;
    producer-perf-test) class=ProducerPerformance ;;
    consumer-perf-test) class=ConsumerPerformance ;;
    delete-records) class=DeleteRecordsCommand ;;
    log-dirs) class=LogDirsCommand ;;
    leader-election) class=LeaderElectionCommand ;;
    reassign-partitions) class=reassign.ReassignPartitionsCommand ;;
    metadata-quorum) class=MetadataQuorumCommand ;;
    esac
    shift
    exec java -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xlog:disable -Xlog:all=error:stderr $classes -cp "$jars/*" \
        org.apache.kafka.tools.$class --bootstrap-server "$bootstrap" "$@"
}

# check PATTERN NAME ARGUMENTS: whether a tool succeeds and says that; $out is what it said.
check() {
    local pattern=$1
    shift
    if out=$(tool "$@" 2>&1) && [[ $out =~ $pattern ]]; then return 0; fi
    why="$* said: $out"
    return 1
}

# eventually COMMAND: for ten seconds, as brokers may learn of a change a little later than it is acknowledged.
eventually() {
    local until=$((SECONDS + 10))
    until "$@"; do
        if ((SECONDS > until)); then return 1; fi
        sleep 0.2
    done
}

# start COMMAND ... finish: several at once.
start() { { "$@" || { echo "$why" >"$work/why" && false; }; } & started+=($!); }
finish() {
    local pid bad=0
    for pid in "${started[@]}"; do wait "$pid" || bad=1; done
    started=()
    if [ $bad = 1 ]; then why=$(cat "$work/why"); fi
    return $bad
}

step() {
    local name=$1
    shift
    if "$@"; then
        echo "ok $name"
    else
        touch "$work/failed"
        echo "FAILED $name: ${why//$'\n'/ }"
    fi
}

# Of nodes that are cores, one of each broker: any stands for it.
versions() {
    check 'Produce\(0\): 0 to' broker-api-versions || return 1
    nodes=$(grep -o '(id: [0-9]*' <<<"$out" | tr -dc '0-9\n' | sort -n |
        awk '{ broker = int($1 / 1024); all = all $1 ","; if (!(broker in seen)) { seen[broker]; first = first $1 ","; count++ } }
            END { list = count > 1 ? first : all; print substr(list, 1, length(list) - 1) }')
    classes=-XX:SharedArchiveFile=$work/classes.jsa
}

create() {
    for new in "$topic" "$perf"; do
        start check "Created topic $new" topics --create --topic "$new" --partitions 3 --replication-factor "${REPLICAS:-1}"
    done
    finish
}

# lines CODEC COUNT: headers, key and value of each record.
lines() {
    for ((n = 0; n < $2; n++)); do
        printf 'id:%s-%d,empty:\t%s\t%s\n' "$1" "$n" "$([ $((n % 3)) = 0 ] && echo NULL || echo "$1-key-$((n % 5))")" \
            "$([ $((n % 10)) = 9 ] && echo NULL || echo "value of $1-$n")"
    done
}

# write FILE ARGUMENTS
write() {
    local file=$1
    shift
    check '' console-producer --topic "$topic" --reader-property parse.headers=true --reader-property parse.key=true \
        --reader-property null.marker=NULL --timeout 10 "$@" <"$file"
}

produce() {
    for codec in none gzip snappy lz4 zstd; do
        lines $codec 20 >"$work/$codec"
        cat "$work/$codec" >>"$work/sent"
        start write "$work/$codec" --compression-codec $codec
    done
    finish
}

produce_unsafe() {
    for acks in 1 0; do
        lines acks$acks 5 >"$work/acks$acks"
        cat "$work/acks$acks" >>"$work/sent"
        start write "$work/acks$acks" --request-required-acks $acks
    done
    finish
}

# ends TOPIC COUNT: whether the ends of its partitions are that many records.
ends() {
    check "$1:2:" get-offsets --topic "$1" || return 1
    local sum=0
    while IFS=: read -r _ _ end; do sum=$((sum + end)); done <<<"$out"
    why="$sum records in $1 instead of $2"
    [ "$sum" = "$2" ]
}

# The producer is idempotent: when a broker is killed under it nothing may be missing, and nothing there twice.
perf_produce() {
    local throughput=-1
    if [ -n "$FAILOVER_FILE" ]; then
        throughput=400
        (sleep 2 && touch "$FAILOVER_FILE") &
    fi
    check '2000 records sent' producer-perf-test --topic "$perf" --num-records 2000 --record-size 100 --throughput $throughput &&
        [[ ! $out =~ Exception ]] && ends "$perf" 2000
}

perf_consume() {
    check ', 2000, ' consumer-perf-test --topic "$perf" --num-records 2000 --group "$prefix-perf" --hide-header --timeout 20000
}

# What a member of the group reads is a line for each record: headers, key, value.
read_group() {
    tool console-consumer --topic "$topic" --group "$group" --formatter-property print.headers=true --formatter-property print.key=true \
        --formatter-property null.literal=NULL --command-property auto.offset.reset=earliest --command-property session.timeout.ms=6000 \
        --command-property heartbeat.interval.ms=500 "$@" 2>"$work/errors"
}

members() {
    check "$group" consumer-groups --describe --members --group "$group" || return 1
    why="not two members with partitions: $out"
    [ "$(grep -c "^$group .* [12] *$" <<<"$out")" = 2 ]
}

# The first member never commits and is killed: the second one reads everything.
group_of_two() {
    read_group --command-property enable.auto.commit=false >"$work/first" &
    local first=$!
    why="the first member reads nothing"
    eventually test -s "$work/first" || return 1
    read_group --max-messages 110 --timeout-ms 20000 >"$work/second" &
    local second=$!
    eventually members || return 1
    kill -9 $first
    wait $first 2>/dev/null
    wait $second
    sort "$work/sent" >"$work/wanted"
    why="other records: $(sort "$work/second" | diff - "$work/wanted" | head -5)"
    sort "$work/second" | cmp -s - "$work/wanted"
}

resume() {
    mark=$(date +%s%3N)
    printf 'id:more,empty:\tNULL\tmore\n' >"$work/more"
    write "$work/more" || return 1
    (read_group --max-messages 1 --timeout-ms 15000) >"$work/resumed"
    why="it read $(cat "$work/resumed")"
    cmp -s "$work/more" "$work/resumed"
}

lag() {
    check "$group" consumer-groups --describe --group "$group" || return 1
    why="the lag is not 0: $out"
    [ "$(awk -v topic="$topic" '$2 == topic && $4 == $5 && $6 == 0' <<<"$out" | wc -l)" = 3 ]
}

groups() { check "$group" consumer-groups --list && eventually lag; }

# The group goes back to where the last record was written, and reads that one again.
seek() {
    check "$topic:[0-2]:[0-9]" get-offsets --topic "$topic" --time "$mark" &&
        check "$topic" consumer-groups --reset-offsets --group "$group" --topic "$topic" --execute \
            --to-datetime "$(date -u -d "@${mark%???}.${mark: -3}" +%Y-%m-%dT%H:%M:%S.%3NZ)" || return 1
    (read_group --max-messages 1 --timeout-ms 15000) >"$work/again"
    why="it read $(cat "$work/again")"
    cmp -s "$work/more" "$work/again"
}

topics() { check "$topic" topics --list && check 'PartitionCount: 3.*Leader: [0-9]' topics --describe --topic "$topic"; }

# A broker that was killed may still be catching up.
nothing_amiss() {
    check '' topics --describe --topic "$perf" --under-replicated-partitions || return 1
    why="under-replicated: $out"
    [ -z "$out" ]
}

config() {
    check 'Completed updating config' configs --alter --entity-type topics --entity-name "$topic" --add-config retention.ms=86400000 &&
        eventually check 'retention.ms=86400000' configs --describe --entity-type topics --entity-name "$topic"
}

delete_records() {
    echo "{\"partitions\": [{\"topic\": \"$perf\", \"partition\": 0, \"offset\": 5}], \"version\": 1}" >"$work/delete.json"
    check 'low_watermark: 5' delete-records --offset-json-file "$work/delete.json"
}

add_partitions() {
    check '' topics --alter --topic "$topic" --partitions 4 && eventually check 'PartitionCount: 4' topics --describe --topic "$topic"
}

log_dirs() { check "\"partition\":\"$perf-0\",\"size\":[1-9]" log-dirs --describe --topic-list "$perf"; }

leader_election() {
    check "(Successfully completed|Valid replica already elected).*$perf-0" leader-election --election-type preferred --topic "$perf" --partition 0
}

quorum() { check 'LeaderId: +[0-9]' metadata-quorum describe --status; }

moved() {
    check "eassignment of partition $perf-0" reassign-partitions --verify --reassignment-json-file "$work/plan" || return 1
    why="it goes on: $out"
    [[ ! $out =~ "in progress" ]]
}

# A plan is made, carried out, and seen to be done.
reassign() {
    echo "{\"topics\": [{\"topic\": \"$perf\"}], \"version\": 1}" >"$work/move"
    check 'Proposed partition reassignment' reassign-partitions --generate --topics-to-move-json-file "$work/move" --broker-list "$nodes" || return 1
    sed -n '/^Proposed/{n;p}' <<<"$out" >"$work/plan"
    check 'Successfully started partition reassignment' reassign-partitions --execute --reassignment-json-file "$work/plan" &&
        eventually moved
}

gone() {
    check '' topics --list || return 1
    why="a topic is still listed: $out"
    [[ ! $out =~ $prefix- ]]
}

remove() {
    check 'successful' consumer-groups --delete --group "$group" --group "$prefix-perf" &&
        check '' topics --delete --topic "$prefix-.*" && eventually gone
}

step "broker-api-versions" versions
step "topics: create" create
step "console-producer with every codec" produce
step "console-producer with acks 1 and 0" produce_unsafe
step "get-offsets" eventually ends "$topic" 110
step "producer-perf-test" perf_produce
# While those of the group mostly wait.
(
    step "consumer-perf-test" perf_consume
    step "topics: list, describe" topics
    step "configs: alter, describe" config
    step "delete-records" delete_records
    step "topics: under-replicated" eventually nothing_amiss
    step "log-dirs" log_dirs
    step "metadata-quorum" quorum
    step "reassign-partitions: generate, execute, verify" reassign
    step "leader-election" leader_election
) &
others=$!
step "console-consumer: group of two, one killed" group_of_two
step "console-consumer: resume at the commit" resume
step "consumer-groups: list, describe, lag" groups
step "consumer-groups: reset offsets to a time" seek
wait $others
step "topics: add partitions" add_partitions
step "consumer-groups, topics: delete" remove
[ ! -e "$work/failed" ]
