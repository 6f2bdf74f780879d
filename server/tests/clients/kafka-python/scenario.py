"""kafka-python at work: topics, records, groups, administration."""

import contextlib
import time

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, OffsetSpec
from kafka.errors import KafkaError

from steps import BOOTSTRAP, IS_MEMBER, PARTITIONS, PREFIX, REPLICAS, TOPIC
from steps import Member, Record, eventually, ledger, new_records, pause_before, run, step, tell

ACKS_TOPIC = f"{PREFIX}-acks"
ALL = [TopicPartition(TOPIC, partition) for partition in range(PARTITIONS)]


def administration():
    return contextlib.closing(KafkaAdminClient(bootstrap_servers=BOOTSTRAP))


def brokers():
    with administration() as admin:
        return sorted(broker["broker_id"] for broker in admin.describe_cluster()["brokers"])


def consumer(group=None, **settings):
    return contextlib.closing(
        KafkaConsumer(
            bootstrap_servers=BOOTSTRAP,
            group_id=group and f"{PREFIX}-{group}",
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            session_timeout_ms=6000,
            heartbeat_interval_ms=500,
            **settings,
        )
    )


def poll(consumer, milliseconds=1000, count=None):
    batches = consumer.poll(milliseconds, max_records=count)
    return [message for batch in batches.values() for message in batch]


def read(consumer, count, seconds=20):
    """So many records."""
    messages, deadline = [], time.monotonic() + seconds
    while len(messages) < count:
        assert time.monotonic() < deadline, f"{len(messages)} of {count} records came in {seconds} s"
        messages += poll(consumer, count=count - len(messages))
    return messages


def place(message):
    return message.partition, message.offset


def as_sent(message):
    return Record(message.key, message.value, list(message.headers), message.timestamp)


@step("create a topic")
def create_topic():
    global brokers_at_first
    brokers_at_first = brokers()
    with administration() as admin:
        options = {"num_partitions": PARTITIONS, "replication_factor": REPLICAS}
        admin.create_topics({TOPIC: options}, wait_for_metadata=True)
        eventually(lambda: TOPIC in admin.list_topics(), "the topic is listed")


@step("produce with acks 1 and 0")
def produce_with_acks():
    with administration() as admin:
        options = {"num_partitions": 1, "replication_factor": REPLICAS}
        admin.create_topics({ACKS_TOPIC: options}, wait_for_metadata=True)
        for acks in [1, 0]:
            producer = KafkaProducer(bootstrap_servers=BOOTSTRAP, acks=acks, enable_idempotence=False, linger_ms=5)
            for number in range(10):
                producer.send(ACKS_TOPIC, b"acks %d, %d" % (acks, number))
            producer.close(timeout=20)
        with consumer() as reader:
            reader.assign([TopicPartition(ACKS_TOPIC, 0)])
            values = {message.value for message in read(reader, 20)}
            assert len(values) == 20, values


@step("produce with every codec")
def produce_with_every_codec():
    # Each but gzip needs a package of its own.
    for codec in [None, "gzip", "snappy", "lz4", "zstd"]:
        producer = KafkaProducer(
            bootstrap_servers=BOOTSTRAP,
            enable_idempotence=True,
            compression_type=codec,
            linger_ms=5,
            request_timeout_ms=10_000,
            delivery_timeout_ms=30_000,
        )
        futures = {}
        for number, record in new_records(codec or "none"):
            time.sleep(pause_before(number))
            futures[number] = producer.send(
                TOPIC, key=record.key, value=record.value, headers=record.headers, timestamp_ms=record.timestamp
            )
        for number, future in futures.items():
            stored = future.get(timeout=30)
            ledger.stored(number, stored.partition, stored.offset)
        producer.close()


@step("read everything as it was sent")
def read_everything():
    with consumer() as reader:
        reader.assign(ALL)
        messages = read(reader, len(ledger.records))
        # More than was sent would be duplicates.
        messages += poll(reader)
        ledger.judge([(*place(message), as_sent(message)) for message in messages])


@step("consume in a group of two, one of which is killed")
def consume_in_group():
    seen, missing = set(), set(ledger.by_place())
    with Member() as other, consumer("group") as member:
        member.subscribe([TOPIC])
        deadline = time.monotonic() + 40
        while not (other.is_killed and len(member.assignment()) == PARTITIONS and missing <= seen | other.seen):
            assert time.monotonic() < deadline, f"{len(seen)} seen, {len(other.seen)} by the other, {len(member.assignment())} partitions"
            messages = poll(member, 100)
            seen |= {place(message) for message in messages}
            if messages:
                member.commit_async()
            if not other.is_killed and 0 < len(member.assignment()) < PARTITIONS:
                other.kill()


def be_the_other_member():
    with consumer("group") as member:
        member.subscribe([TOPIC])
        while True:
            for message in poll(member, count=20):
                tell(*place(message))
                time.sleep(0.01)
            try:
                member.commit()
            except KafkaError:
                pass  # The partitions have another owner now.


@step("commit, close, and resume at the commit")
def resume():
    total = len(ledger.records)
    with consumer("resume") as first:
        first.subscribe([TOPIC])
        before = {place(message) for message in read(first, total // 3)}
        first.commit()
    with consumer("resume") as second:
        second.subscribe([TOPIC])
        after = {place(message) for message in read(second, total - len(before))}
    assert not before & after, f"came again: {sorted(before & after)[:5]}"
    assert before | after == set(ledger.by_place())


@step("seek by timestamp")
def seek_by_timestamp():
    timestamp, expected = ledger.timestamp_in_the_middle()
    with consumer() as reader:
        found = reader.offsets_for_times({one: timestamp for one in ALL})
        assert {one.partition: at.offset for one, at in found.items()} == expected, (found, expected)
        reader.assign([ALL[0]])
        reader.seek(ALL[0], expected[0])
        [message] = read(reader, 1)
        assert place(message) == (0, expected[0]) and message.timestamp >= timestamp
        # Nothing is as late as that.
        assert reader.offsets_for_times({ALL[0]: int(time.time() * 1000) + 1000}) == {ALL[0]: None}


@step("see all brokers again")
def see_all_brokers():
    # One was killed, if that was wished for, and should be back.
    eventually(lambda: brokers() == brokers_at_first, "all are there")


@step("list and describe topics")
def describe_topics():
    with administration() as admin:
        assert {TOPIC, ACKS_TOPIC} <= set(admin.list_topics())
        [described] = admin.describe_topics([TOPIC])
        assert sorted(partition["partition_index"] for partition in described["partitions"]) == [0, 1, 2]
        for partition in described["partitions"]:
            assert len(partition["replica_nodes"]) == REPLICAS and partition["leader_id"] in brokers(), partition
        specs = [OffsetSpec.EARLIEST, OffsetSpec.LATEST]
        low, high = (admin.list_partition_offsets({ALL[0]: spec})[ALL[0]].offset for spec in specs)
        assert (low, high) == (0, sum(partition == 0 for partition, _ in ledger.by_place()))


@step("list and describe groups, with their lag")
def describe_groups():
    with administration() as admin:
        group = f"{PREFIX}-resume"
        listed = [listing["group_id"] for listing in admin.list_groups()]
        # All brokers were asked; one of them has the group.
        assert [listed.count(name) for name in [f"{PREFIX}-group", group]] == [1, 1], listed

        committed = admin.list_group_offsets([group])[group]
        ends = admin.list_partition_offsets({one: OffsetSpec.LATEST for one in ALL})
        # Where nothing was read, nothing was committed.
        lag = sum(end.offset for end in ends.values()) - sum(one.offset for one in committed.values())
        assert lag == len(ledger.records) - len(ledger.records) // 3, f"the lag is {lag}: {committed}"

        described = admin.describe_groups([group])[group]
        assert described["group_state"] == "Empty" and not described["members"], described
        with consumer("resume", client_id="the-only-one") as member:
            member.subscribe([TOPIC])
            read(member, 1)
            described = admin.describe_groups([group])[group]
            [only_one] = described["members"]
            assert described["group_state"] == "Stable" and only_one["client_id"] == "the-only-one", described


@step("alter a topic's config and read it back")
def alter_config():
    with administration() as admin:
        name = "retention.ms"

        def modified():
            found = admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, TOPIC)])
            return found["topic"][TOPIC].get(name, {}).get("value")

        assert modified() is None
        admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, TOPIC, {name: "7200000"})])
        eventually(lambda: modified() == "7200000", f"{name} is set")
        admin.reset_configs([ConfigResource(ConfigResourceType.TOPIC, TOPIC, [name])])
        eventually(lambda: modified() is None, f"{name} is the default again")


@step("delete records")
def delete_records():
    with administration() as admin:
        deleted = admin.delete_records({ALL[0]: 5})
        assert deleted[ALL[0]]["low_watermark"] == 5, deleted
        with consumer() as reader:
            assert reader.beginning_offsets(ALL)[ALL[0]] == 5
            reader.assign([ALL[0]])
            assert place(read(reader, 1)[0]) == (0, 5)


@step("add partitions")
def add_partitions():
    with administration() as admin:
        admin.create_partitions({TOPIC: 5})
        admin.wait_for_topics([TOPIC])
        eventually(lambda: len(admin.describe_topics([TOPIC])[0]["partitions"]) == 5, "there are 5 partitions")
        producer = KafkaProducer(bootstrap_servers=BOOTSTRAP)
        stored = producer.send(TOPIC, b"in a new one", partition=4).get(timeout=20)
        assert (stored.partition, stored.offset) == (4, 0), stored
        producer.close()


@step("delete groups and topics")
def delete():
    with administration() as admin:
        groups = [f"{PREFIX}-{name}" for name in ["group", "resume"]]
        admin.delete_groups(groups)
        listed = {listing["group_id"] for listing in admin.list_groups()}
        assert not listed & set(groups), listed
        admin.delete_topics([TOPIC, ACKS_TOPIC])
        eventually(lambda: not {TOPIC, ACKS_TOPIC} & set(admin.list_topics()), "the topics are gone")


if IS_MEMBER:
    be_the_other_member()
else:
    run()
