"""confluent-kafka (librdkafka) at work: topics, records, groups, administration."""

import contextlib
import os
import time

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    ConsumerGroupState,
    ConsumerGroupTopicPartitions,
    IsolationLevel,
    Producer,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

from steps import BOOTSTRAP, IS_MEMBER, PARTITIONS, PREFIX, REPLICAS, TOPIC
from steps import Member, Record, eventually, ledger, new_records, pause_before, run, step, tell

# With the newer protocol of groups the broker says who gets what, and when members are to be heard of.
NEWER = os.environ.get("GROUP_PROTOCOL") == "consumer"
MEMBERSHIP = {"group.protocol": "consumer"} if NEWER else {"session.timeout.ms": 6000, "heartbeat.interval.ms": 500}
# Members keep the partitions that stay theirs while others move.
COOPERATIVE = {} if NEWER else {"partition.assignment.strategy": "cooperative-sticky"}
admin = AdminClient({"bootstrap.servers": BOOTSTRAP})


def brokers():
    return sorted(node.id for node in admin.describe_cluster().result(timeout=20).nodes)


def only(futures):
    """The outcome of what was asked for one thing, or its error."""
    [future] = futures.values()
    return future.result(timeout=20)


@contextlib.contextmanager
def consumer(group, **settings):
    consumer = Consumer(
        {
            "bootstrap.servers": BOOTSTRAP,
            "group.id": f"{PREFIX}-{group}",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            **MEMBERSHIP,
            **settings,
        }
    )
    try:
        yield consumer
    finally:
        consumer.close()


def next_record(consumer, seconds=1.0):
    """The next record, or none if there is none for a while."""
    message = consumer.poll(seconds)
    if message is not None and message.error():
        # It goes on by itself after errors that are not fatal.
        if message.error().fatal():
            raise RuntimeError(message.error())
        return None
    return message


def read(consumer, count, seconds=20):
    """So many records."""
    messages, deadline = [], time.monotonic() + seconds
    while len(messages) < count:
        assert time.monotonic() < deadline, f"{len(messages)} of {count} records came in {seconds} s"
        message = next_record(consumer)
        if message is not None:
            messages.append(message)
    return messages


def place(message):
    return message.partition(), message.offset()


def as_sent(message):
    return Record(message.key(), message.value(), message.headers() or [], message.timestamp()[1])


def produce(producer, topic, records):
    """Sends them, waits for their acknowledgements, and returns those (without an offset for acks 0)."""
    reports = []
    for record in records:
        producer.produce(topic, record, on_delivery=lambda error, message: reports.append((error, message)))
    assert producer.flush(20) == 0, "not all was acknowledged in 20 s"
    for error, _ in reports:
        assert error is None, error
    return [message for _, message in reports]


@step("create a topic")
def create_topic():
    global brokers_at_first
    brokers_at_first = brokers()
    only(admin.create_topics([NewTopic(TOPIC, num_partitions=PARTITIONS, replication_factor=REPLICAS)]))
    eventually(lambda: TOPIC in admin.list_topics(timeout=10).topics, "the topic is listed")


@step("produce with acks 1 and 0")
def produce_with_acks():
    topic = f"{PREFIX}-acks"
    only(admin.create_topics([NewTopic(topic, num_partitions=1, replication_factor=REPLICAS)]))
    for acks in ["1", "0"]:
        settings = {"bootstrap.servers": BOOTSTRAP, "acks": acks, "linger.ms": 5}
        produce(Producer(settings), topic, [f"acks {acks}, {number}" for number in range(10)])
    with consumer("acks") as reader:
        reader.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
        values = {message.value().decode() for message in read(reader, 20)}
        assert len(values) == 20, values


@step("produce with every codec")
def produce_with_every_codec():
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"]:
        producer = Producer(
            {
                "bootstrap.servers": BOOTSTRAP,
                "enable.idempotence": True,
                "compression.type": codec,
                "linger.ms": 5,
                "delivery.timeout.ms": 30_000,
            }
        )
        errors = []

        def delivered(number, error, message):
            if error is None:
                ledger.stored(number, *place(message))
            else:
                errors.append(error)

        for number, record in new_records(codec):
            # Delivery reports come while it waits.
            producer.poll(pause_before(number))
            producer.produce(
                TOPIC,
                key=record.key,
                value=record.value,
                headers=record.headers,
                timestamp=record.timestamp,
                on_delivery=lambda error, message, number=number: delivered(number, error, message),
            )
        assert producer.flush(30) == 0, "not all was acknowledged in 30 s"
        assert not errors, errors[0]


@step("read everything as it was sent")
def read_everything():
    with consumer("reader", **{"check.crcs": True}) as reader:
        reader.assign([TopicPartition(TOPIC, partition, OFFSET_BEGINNING) for partition in range(PARTITIONS)])
        messages = read(reader, len(ledger.records))
        # More than was sent would be duplicates.
        while (message := next_record(reader)) is not None:
            messages.append(message)
        ledger.judge([(*place(message), as_sent(message)) for message in messages])


@step("consume in a group of two, one of which is killed")
def consume_in_group():
    seen, missing = set(), set(ledger.by_place())
    with Member() as other, consumer("group", **COOPERATIVE) as member:
        member.subscribe([TOPIC])
        deadline = time.monotonic() + 40
        while not (other.is_killed and len(member.assignment()) == PARTITIONS and missing <= seen | other.seen):
            assert time.monotonic() < deadline, f"{len(seen)} seen, {len(other.seen)} by the other, {len(member.assignment())} partitions"
            message = next_record(member, 0.1)
            if message is not None:
                seen.add(place(message))
                member.commit(message=message)
            if not other.is_killed and 0 < len(member.assignment()) < PARTITIONS:
                other.kill()


def be_the_other_member():
    with consumer("group", **COOPERATIVE) as member:
        member.subscribe([TOPIC])
        while True:
            message = next_record(member)
            if message is not None:
                tell(*place(message))
                member.commit(message=message)
                time.sleep(0.01)


@step("commit, close, and resume at the commit")
def resume():
    total = len(ledger.records)
    with consumer("resume") as first:
        first.subscribe([TOPIC])
        before = {place(message) for message in read(first, total // 3)}
        first.commit(asynchronous=False)
    with consumer("resume") as second:
        second.subscribe([TOPIC])
        after = {place(message) for message in read(second, total - len(before))}
    assert not before & after, f"came again: {sorted(before & after)[:5]}"
    assert before | after == set(ledger.by_place())


@step("seek by timestamp")
def seek_by_timestamp():
    timestamp, expected = ledger.timestamp_in_the_middle()
    with consumer("reader") as reader:
        asked = [TopicPartition(TOPIC, partition, timestamp) for partition in range(PARTITIONS)]
        found = reader.offsets_for_times(asked, timeout=10)
        assert {one.partition: one.offset for one in found} == expected, (found, expected)
        reader.assign([found[0]])
        [message] = read(reader, 1)
        assert place(message) == (0, expected[0]) and message.timestamp()[1] >= timestamp


@step("see all brokers again")
def see_all_brokers():
    # One was killed, if that was wished for, and should be back.
    eventually(lambda: brokers() == brokers_at_first, "all are there")


@step("list and describe topics")
def describe_topics():
    listed = admin.list_topics(timeout=10)
    assert len(listed.topics[TOPIC].partitions) == PARTITIONS
    described = only(admin.describe_topics(TopicCollection([TOPIC])))
    assert [partition.id for partition in described.partitions] == [0, 1, 2]
    for partition in described.partitions:
        assert len(partition.replicas) == REPLICAS and partition.leader.id in brokers(), partition
    low, high = (
        only(admin.list_offsets({TopicPartition(TOPIC, 0): spec}, isolation_level=IsolationLevel.READ_COMMITTED)).offset
        for spec in [OffsetSpec.earliest(), OffsetSpec.latest()]
    )
    assert (low, high) == (0, sum(partition == 0 for partition, _ in ledger.by_place()))


@step("list and describe groups, with their lag")
def describe_groups():
    group = f"{PREFIX}-resume"
    listed = {listing.group_id for listing in admin.list_consumer_groups().result(timeout=10).valid}
    assert {f"{PREFIX}-group", group} <= listed, listed

    committed = only(admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])).topic_partitions
    ends = admin.list_offsets({TopicPartition(TOPIC, partition): OffsetSpec.latest() for partition in range(PARTITIONS)})
    # Where nothing was read, nothing was committed.
    lag = sum(future.result(timeout=10).offset for future in ends.values()) - sum(one.offset for one in committed)
    assert lag == len(ledger.records) - len(ledger.records) // 3, f"the lag is {lag}: {committed}"

    described = only(admin.describe_consumer_groups([group]))
    assert described.state == ConsumerGroupState.EMPTY and not described.members, described.state
    with consumer("resume", **{"client.id": "the-only-one"}) as member:
        member.subscribe([TOPIC])
        read(member, 1)
        described = only(admin.describe_consumer_groups([group]))
        [only_one] = described.members
        assert described.state == ConsumerGroupState.STABLE and only_one.client_id == "the-only-one"
        assert len(only_one.assignment.topic_partitions) == PARTITIONS


@step("alter a topic's config and read it back")
def alter_config():
    name = "retention.ms"
    before = only(admin.describe_configs([ConfigResource(ResourceType.TOPIC, TOPIC)]))[name]
    for operation, expected in [(AlterConfigOpType.SET, "7200000"), (AlterConfigOpType.DELETE, before.value)]:
        entry = ConfigEntry(name, "7200000", incremental_operation=operation)
        only(admin.incremental_alter_configs([ConfigResource(ResourceType.TOPIC, TOPIC, incremental_configs=[entry])]))

        def is_so():
            return only(admin.describe_configs([ConfigResource(ResourceType.TOPIC, TOPIC)]))[name].value == expected

        eventually(is_so, f"{name} is {expected}")


@step("delete records")
def delete_records():
    deleted = only(admin.delete_records([TopicPartition(TOPIC, 0, 5)]))
    assert deleted.low_watermark == 5, deleted.low_watermark
    with consumer("reader") as reader:
        assert reader.get_watermark_offsets(TopicPartition(TOPIC, 0), timeout=10)[0] == 5
        reader.assign([TopicPartition(TOPIC, 0, OFFSET_BEGINNING)])
        assert place(read(reader, 1)[0]) == (0, 5)


@step("add partitions")
def add_partitions():
    only(admin.create_partitions([NewPartitions(TOPIC, 5)]))
    eventually(lambda: len(admin.list_topics(TOPIC, timeout=10).topics[TOPIC].partitions) == 5, "there are 5 partitions")

    def takes_records():
        delivered = []
        # The broker that it asks may not know of the partition yet.
        producer = Producer({"bootstrap.servers": BOOTSTRAP})
        producer.produce(TOPIC, b"in a new one", partition=4, on_delivery=lambda error, _: delivered.append(error))
        producer.flush(20)
        return delivered[0] is None

    eventually(takes_records, "the last of them takes records")


@step("delete groups and topics")
def delete():
    groups = [f"{PREFIX}-{name}" for name in ["group", "resume"]]
    for future in admin.delete_consumer_groups(groups).values():
        future.result(timeout=10)
    listed = {listing.group_id for listing in admin.list_consumer_groups().result(timeout=10).valid}
    assert not listed & set(groups), listed
    for future in admin.delete_topics([TOPIC, f"{PREFIX}-acks"]).values():
        future.result(timeout=10)
    eventually(lambda: not {TOPIC, f"{PREFIX}-acks"} & set(admin.list_topics(timeout=10).topics), "the topics are gone")


if IS_MEMBER:
    be_the_other_member()
else:
    run()
