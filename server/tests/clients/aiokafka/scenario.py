"""aiokafka at work: topics, records, groups, administration.

Left out, as aiokafka 0.14 cannot: deleting groups, and changing a setting back to its default alone.
"""

import asyncio
import contextlib
import time

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, for_code

from steps import BOOTSTRAP, IS_MEMBER, PARTITIONS, PREFIX, REPLICAS, TOPIC
from steps import Member, Record, ledger, new_records, pause_before, run, step, tell

ACKS_TOPIC = f"{PREFIX}-acks"
ALL = [TopicPartition(TOPIC, partition) for partition in range(PARTITIONS)]


@contextlib.asynccontextmanager
async def started(client, stop="stop"):
    await client.start()
    try:
        yield client
    finally:
        await getattr(client, stop)()


def administration():
    return started(AIOKafkaAdminClient(bootstrap_servers=BOOTSTRAP), stop="close")


async def brokers():
    async with administration() as admin:
        return sorted(broker["node_id"] for broker in (await admin.describe_cluster())["brokers"])


def producer(**settings):
    return started(AIOKafkaProducer(bootstrap_servers=BOOTSTRAP, **settings))


def consumer(*topics, group=None, **settings):
    return started(
        AIOKafkaConsumer(
            *topics,
            bootstrap_servers=BOOTSTRAP,
            group_id=group and f"{PREFIX}-{group}",
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            session_timeout_ms=6000,
            heartbeat_interval_ms=500,
            # One that begins while leadership moves would ask the former leader for as long as that.
            metadata_max_age_ms=2000,
            **settings,
        )
    )


async def poll(consumer, milliseconds=1000, count=None):
    batches = await consumer.getmany(timeout_ms=milliseconds, max_records=count)
    return [message for batch in batches.values() for message in batch]


async def read(consumer, count, seconds=20):
    """So many records."""
    messages, deadline = [], time.monotonic() + seconds
    while len(messages) < count:
        assert time.monotonic() < deadline, f"{len(messages)} of {count} records came in {seconds} s"
        messages += await poll(consumer, count=count - len(messages))
    return messages


async def eventually(is_so, what, seconds=15):
    """What one broker has done the others know a moment later."""
    deadline = time.monotonic() + seconds
    while not await is_so():
        assert time.monotonic() < deadline, f"not so after {seconds} s: {what}"
        await asyncio.sleep(0.1)


def done(response):
    """Raises the first error in a response of the administration, which has one for each topic."""
    for _topic, code, *_ in getattr(response, "topic_errors", None) or response.topic_error_codes:
        if code:
            raise for_code(code)


def place(message):
    return message.partition, message.offset


def as_sent(message):
    return Record(message.key, message.value, list(message.headers), message.timestamp)


async def is_complete(admin, topic, partitions):
    """Whether the topic is there with so many partitions, each of which has a leader."""
    [described] = await admin.describe_topics([topic])
    found = [partition for partition in described["partitions"] if partition["leader"] >= 0]
    return described["error_code"] == 0 and len(found) == partitions


async def make_topic(topic, partitions):
    async with administration() as admin:
        done(await admin.create_topics([NewTopic(topic, partitions, REPLICAS)]))
        await eventually(lambda: is_complete(admin, topic, partitions), "the topic is there")


@step("create a topic")
async def create_topic():
    global brokers_at_first
    brokers_at_first = await brokers()
    await make_topic(TOPIC, PARTITIONS)


@step("produce with acks 1 and 0")
async def produce_with_acks():
    await make_topic(ACKS_TOPIC, 1)
    for acks in [1, 0]:
        async with producer(acks=acks, linger_ms=5) as one:
            for number in range(10):
                await one.send(ACKS_TOPIC, b"acks %d, %d" % (acks, number))
    async with consumer() as reader:
        reader.assign([TopicPartition(ACKS_TOPIC, 0)])
        values = {message.value for message in await read(reader, 20)}
        assert len(values) == 20, values


@step("produce with every codec")
async def produce_with_every_codec():
    for codec in [None, "gzip", "snappy", "lz4", "zstd"]:
        async with producer(enable_idempotence=True, compression_type=codec, linger_ms=5, request_timeout_ms=10_000) as one:
            deliveries = {}
            for number, record in new_records(codec or "none"):
                await asyncio.sleep(pause_before(number))
                deliveries[number] = await one.send(
                    TOPIC, key=record.key, value=record.value, headers=record.headers, timestamp_ms=record.timestamp
                )
            for number, delivery in deliveries.items():
                stored = await asyncio.wait_for(delivery, 30)
                ledger.stored(number, stored.partition, stored.offset)


@step("read everything as it was sent")
async def read_everything():
    async with consumer() as reader:
        reader.assign(ALL)
        messages = await read(reader, len(ledger.records))
        # More than was sent would be duplicates.
        messages += await poll(reader)
        ledger.judge([(*place(message), as_sent(message)) for message in messages])


@step("consume in a group of two, one of which is killed")
async def consume_in_group():
    seen, missing = set(), set(ledger.by_place())
    with Member() as other:
        async with consumer(TOPIC, group="group") as member:
            deadline = time.monotonic() + 40
            while not (other.is_killed and len(member.assignment()) == PARTITIONS and missing <= seen | other.seen):
                assert time.monotonic() < deadline, f"{len(seen)} seen, {len(other.seen)} by the other, {len(member.assignment())} partitions"
                messages = await poll(member, 100)
                seen |= {place(message) for message in messages}
                await commit(member)
                if not other.is_killed and 0 < len(member.assignment()) < PARTITIONS:
                    other.kill()


async def commit(member):
    try:
        await member.commit()
    except KafkaError:
        pass  # The partitions have another owner now, who sees the records again.


async def be_the_other_member():
    async with consumer(TOPIC, group="group") as member:
        while True:
            for message in await poll(member, count=20):
                tell(*place(message))
                await asyncio.sleep(0.01)
            await commit(member)


@step("commit, close, and resume at the commit")
async def resume():
    total = len(ledger.records)
    async with consumer(TOPIC, group="resume") as first:
        before = {place(message) for message in await read(first, total // 3)}
        await first.commit()
    async with consumer(TOPIC, group="resume") as second:
        after = {place(message) for message in await read(second, total - len(before))}
    assert not before & after, f"came again: {sorted(before & after)[:5]}"
    assert before | after == set(ledger.by_place())


@step("seek by timestamp")
async def seek_by_timestamp():
    timestamp, expected = ledger.timestamp_in_the_middle()
    async with consumer() as reader:
        found = await reader.offsets_for_times({one: timestamp for one in ALL})
        assert {one.partition: at.offset for one, at in found.items()} == expected, (found, expected)
        reader.assign([ALL[0]])
        reader.seek(ALL[0], expected[0])
        [message] = await read(reader, 1)
        assert place(message) == (0, expected[0]) and message.timestamp >= timestamp
        # Nothing is as late as that.
        assert await reader.offsets_for_times({ALL[0]: int(time.time() * 1000) + 1000}) == {ALL[0]: None}


@step("see all brokers again")
async def see_all_brokers():
    # One was killed, if that was wished for, and should be back.
    async def all_are_there():
        return await brokers() == brokers_at_first

    await eventually(all_are_there, "all are there")


@step("list and describe topics")
async def describe_topics():
    async with administration() as admin:
        assert {TOPIC, ACKS_TOPIC} <= set(await admin.list_topics())
        nodes = await brokers()
        [described] = await admin.describe_topics([TOPIC])
    assert sorted(partition["partition"] for partition in described["partitions"]) == [0, 1, 2]
    for partition in described["partitions"]:
        assert len(partition["replicas"]) == REPLICAS and partition["leader"] in nodes, partition
    async with consumer() as reader:
        assert await reader.beginning_offsets(ALL) == dict.fromkeys(ALL, 0)
        ends = await reader.end_offsets(ALL)
        assert sum(ends.values()) == len(ledger.records), ends


@step("list and describe groups, with their lag")
async def describe_groups():
    group = f"{PREFIX}-resume"
    async with administration() as admin, consumer() as reader:
        listed = {group for group, _protocol in await admin.list_consumer_groups()}
        assert {f"{PREFIX}-group", group} <= listed, listed

        committed = await admin.list_consumer_group_offsets(group)
        ends = await reader.end_offsets(ALL)
        # Where nothing was read, nothing was committed.
        lag = sum(ends.values()) - sum(one.offset for one in committed.values())
        assert lag == len(ledger.records) - len(ledger.records) // 3, f"the lag is {lag}: {committed}"

        async def described():
            [response] = await admin.describe_consumer_groups([group])
            [(error, _, state, _, _, members, *_)] = response.groups
            assert error == 0, for_code(error)
            return state, [client for _, client, *_ in members]

        assert await described() == ("Empty", [])
        async with consumer(TOPIC, group="resume", client_id="the-only-one") as member:
            await read(member, 1)
            assert await described() == ("Stable", ["the-only-one"])


@step("alter a topic's config and read it back")
async def alter_config():
    name = "retention.ms"
    async with administration() as admin:

        async def is_set():
            [response] = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, TOPIC, {name: None})])
            [(error, _, _, _, [(found, value, *_)])] = response.resources
            assert error == 0, for_code(error)
            return (found, value) == (name, "7200000")

        assert not await is_set()
        [response] = await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, TOPIC, {name: "7200000"})])
        assert [error for error, *_ in response.resources] == [0], response
        await eventually(is_set, f"{name} is set")


@step("delete records")
async def delete_records():
    async with administration() as admin:
        assert await admin.delete_records({ALL[0]: RecordsToDelete(5)}) == {ALL[0]: 5}
    async with consumer() as reader:
        assert (await reader.beginning_offsets(ALL))[ALL[0]] == 5
        reader.assign([ALL[0]])
        assert place((await read(reader, 1))[0]) == (0, 5)


@step("add partitions")
async def add_partitions():
    async with administration() as admin:
        done(await admin.create_partitions({TOPIC: NewPartitions(5)}))
        await eventually(lambda: is_complete(admin, TOPIC, 5), "there are 5 partitions")
    async with producer() as one:
        stored = await one.send_and_wait(TOPIC, b"in a new one", partition=4)
        assert (stored.partition, stored.offset) == (4, 0), stored


@step("delete topics")
async def delete():
    async with administration() as admin:
        done(await admin.delete_topics([TOPIC, ACKS_TOPIC]))

        async def are_gone():
            return not {TOPIC, ACKS_TOPIC} & set(await admin.list_topics())

        await eventually(are_gone, "the topics are gone")


if IS_MEMBER:
    asyncio.run(be_the_other_member())
else:
    run()
