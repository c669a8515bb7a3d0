"""aiokafka as producer, consumer, group member and administrator."""

import asyncio
import contextlib
import functools
import itertools
import time

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from aiokafka.errors import (
    CommitFailedError,
    IllegalStateError,
    MessageSizeTooLargeError,
    OffsetOutOfRangeError,
    TopicAlreadyExistsError,
)

from suite import RUN, SOURCE, records, told

counter = itertools.count()


def fresh(word):
    return f"aio-{word}-{RUN}-{next(counter)}"


async def until(seconds, what, condition):
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if asyncio.iscoroutine(found):
            found = await found
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        await asyncio.sleep(0.1)


@contextlib.asynccontextmanager
async def admin():
    client = AIOKafkaAdminClient(bootstrap_servers=SOURCE)
    await client.start()
    try:
        yield client
    finally:
        await client.close()


async def topic(partitions=3, **config):
    """Creates a topic; a client that asks for it too early would create it by asking."""
    name = fresh("topic")
    async with admin() as client:
        await client.create_topics([NewTopic(name, partitions, 3, topic_configs=config)])

        async def led():
            [found] = await client.describe_topics([name])
            return len(found["partitions"]) == partitions and all(p["leader"] >= 0 for p in found["partitions"])

        await until(20, "the topic has leaders", led)
    return name


def producer(**config):
    return AIOKafkaProducer(bootstrap_servers=SOURCE, **{"acks": "all", **config})


async def fill(name, count, partition=None, **config):
    async with producer(**config) as client:
        futures = [await client.send(name, str(n).encode(), partition=partition) for n in range(count)]
        return [await future for future in futures]


def consumer(*topics, group=None, **config):
    return AIOKafkaConsumer(
        *topics, bootstrap_servers=SOURCE, group_id=group,
        **{"auto_offset_reset": "earliest", "enable_auto_commit": False, "metadata_max_age_ms": 1000, **config},
    )


async def take(member, count, seconds=30):
    found = []

    async def more():
        for batch in (await member.getmany(timeout_ms=500, max_records=count - len(found))).values():
            found.extend(batch)
        return len(found) >= count

    await until(seconds, f"{count} records", more)
    return found


async def settle(members, counts, seconds=45):
    """Waits until the members hold so many partitions each, in any order, and no partition twice."""

    async def settled():
        held = [member.assignment() for member in members]
        return sorted(map(len, held)) == sorted(counts) and len(set().union(*held)) == sum(counts)

    await until(seconds, f"the members hold {counts}", settled)


async def sends_and_is_told_where():
    name = await topic(1)
    found = await fill(name, 20)
    assert [m.offset for m in found] == list(range(20))
    assert all(m.topic == name and m.partition == 0 and m.timestamp_type == 0 for m in found)


async def every_codec():
    for codec in (None, "gzip", "snappy", "lz4", "zstd"):
        name, sent = await topic(1), list(records(500))
        async with producer(compression_type=codec) as client:
            for key, value, headers, timestamp in sent:
                await client.send(name, value, key, headers=headers, timestamp_ms=timestamp)
        async with consumer(name) as member:
            read = [(r.key, r.value, list(r.headers), r.timestamp) for r in await take(member, 500)]
        assert read == sent, codec


async def each_level_of_acks():
    for acks in (0, 1, "all"):
        name = await topic(1)
        await fill(name, 1)
        await fill(name, 20, acks=acks)
        async with consumer(name) as member:
            assert len(await take(member, 21)) == 21


async def an_idempotent_producer():
    name = await topic(1)
    await fill(name, 1000, enable_idempotence=True, max_batch_size=200)
    async with consumer(name) as member:
        assert [int(r.value) for r in await take(member, 1000)] == list(range(1000))


async def a_batch_of_its_own():
    name = await topic(1)
    async with producer() as client:
        batch = client.create_batch()
        for n in range(10):
            batch.append(key=None, value=str(n).encode(), timestamp=None)
        future = await client.send_batch(batch, name, partition=0)
        assert (await future).offset == 0
    async with consumer(name) as member:
        assert [int(r.value) for r in await take(member, 10)] == list(range(10))


async def the_brokers_time():
    name, before = await topic(1, **{"message.timestamp.type": "LogAppendTime"}), int(time.time() * 1000)
    async with producer() as client:
        told_of = await client.send_and_wait(name, b"x", timestamp_ms=1000)
    assert told_of.timestamp_type == 1 and told_of.timestamp >= before, told_of
    async with consumer(name) as member:
        [record] = await take(member, 1)
    assert (record.timestamp, record.timestamp_type) == (told_of.timestamp, 1), record


async def a_record_beyond_the_limit():
    name = await topic(1, **{"max.message.bytes": "10000"})
    async with producer(max_request_size=1000000) as client:
        try:
            await client.send_and_wait(name, bytes(50000))
        except MessageSizeTooLargeError:
            return
    raise AssertionError("not refused")


async def a_topic_is_created_by_producing():
    name = fresh("auto")
    assert (await fill(name, 1))[0].offset == 0


async def reads_one_by_one_and_in_batches():
    name = await topic(2)
    await fill(name, 50, 0)
    await fill(name, 50, 1)
    async with consumer(name) as member:
        first = await member.getone()
        rest = await take(member, 99)
    assert len({(r.partition, r.offset) for r in [first, *rest]}) == 100


async def seeks():
    name = await topic(1)
    await fill(name, 30)
    part = TopicPartition(name, 0)
    async with consumer() as member:
        member.assign([part])
        member.seek(part, 20)
        assert [r.offset for r in await take(member, 10)] == list(range(20, 30))
        assert await member.position(part) == 30
        await member.seek_to_beginning(part)
        assert (await member.getone()).offset == 0
        await member.seek_to_end(part)
        assert await member.position(part) == 30
        assert member.highwater(part) == 30


async def pauses():
    name = await topic(1)
    await fill(name, 5)
    part = TopicPartition(name, 0)
    async with consumer() as member:
        member.assign([part])
        await take(member, 5)
        member.pause(part)
        await fill(name, 5)
        assert not await member.getmany(timeout_ms=1000)
        member.resume(part)
        assert len(await take(member, 5)) == 5


async def offsets_by_time():
    name = await topic(1)
    part = TopicPartition(name, 0)
    async with producer() as client:
        for n in range(5):
            await client.send_and_wait(name, b"", timestamp_ms=1_700_000_000_000 + n * 1000)
    async with consumer() as member:
        assert await member.beginning_offsets([part]) == {part: 0}
        assert await member.end_offsets([part]) == {part: 5}
        found = await member.offsets_for_times({part: 1_700_000_001_500})
        assert (found[part].offset, found[part].timestamp) == (2, 1_700_000_002_000), found
        assert await member.offsets_for_times({part: 1_700_000_009_000}) == {part: None}


async def an_offset_out_of_range():
    name = await topic(1)
    await fill(name, 3)
    part = TopicPartition(name, 0)
    async with consumer(auto_offset_reset="none") as member:
        member.assign([part])
        member.seek(part, 100)
        try:
            await asyncio.wait_for(member.getone(), 20)
        except OffsetOutOfRangeError:
            return
    raise AssertionError("not told")


async def commits_and_resumes():
    name, group = await topic(1), fresh("group")
    part = TopicPartition(name, 0)
    await fill(name, 30)
    async with consumer(name, group=group) as member:
        await take(member, 10)
        await member.commit()
        assert await member.committed(part) == 10
        await member.commit({part: (12, "noted")})
    async with consumer(name, group=group) as member:
        assert (await member.getone()).offset == 12


async def commits_by_itself():
    name, group = await topic(1), fresh("group")
    await fill(name, 10)
    async with consumer(name, group=group, enable_auto_commit=True, auto_commit_interval_ms=200) as member:
        await take(member, 10)
    async with consumer(name, group=group) as member:
        assert await member.committed(TopicPartition(name, 0)) == 10


async def members_share(*, assignors=()):
    name, group = await topic(4), fresh("group")
    options = {"partition_assignment_strategy": assignors} if assignors else {}
    async with consumer(name, group=group, **options) as first:
        await settle([first], [4])
        async with consumer(name, group=group, **options) as second:
            await settle([first, second], [2, 2])
            async with consumer(name, group=group, **options) as third:
                await settle([first, second, third], [2, 1, 1])
            await settle([first, second], [2, 2])
        await settle([first], [4])


async def members_share_in_turns():
    await members_share(assignors=(RoundRobinPartitionAssignor,))


async def members_share_and_keep():
    await members_share(assignors=(StickyPartitionAssignor,))


async def a_static_member_comes_back():
    name, group = await topic(2), fresh("group")
    async with consumer(name, group=group, group_instance_id="one") as first:
        await settle([first], [2])
        second = consumer(name, group=group, group_instance_id="two")
        await second.start()
        await settle([first, second], [1, 1])
        held = second.assignment()
        await second.stop()
        async with consumer(name, group=group, group_instance_id="two") as again:
            await settle([first, again], [1, 1])
            assert again.assignment() == held, (again.assignment(), held)


async def a_commit_from_a_past_generation_fails():
    name, group = await topic(2), fresh("group")
    first = consumer(name, group=group, max_poll_interval_ms=3000, session_timeout_ms=6000, heartbeat_interval_ms=500)
    await first.start()
    await settle([first], [2])
    part = TopicPartition(name, 0)
    async with consumer(name, group=group) as second:
        # The first does not poll, so that the second gets everything.
        await settle([second], [2], 60)
        try:
            await first.commit({part: 1})
        except (CommitFailedError, IllegalStateError):  # the latter once it has heard of the rebalance
            return
        finally:
            await first.stop()
    raise AssertionError("the commit was taken")


async def a_pattern_takes_later_topics():
    word = fresh("pattern")
    async with admin() as client:
        await client.create_topics([NewTopic(f"{word}.a", 1, 3)])
        member = consumer(group=fresh("group"))
        member.subscribe(pattern=f"^{word}\\.[a-z]$")
        async with member:
            await settle([member], [1])
            await client.create_topics([NewTopic(f"{word}.b", 2, 3)])
            await settle([member], [3])


async def topics_are_administered():
    name = await topic(2)
    async with admin() as client:
        assert name in await client.list_topics()
        try:
            answer = await client.create_topics([NewTopic(name, 1, 1)])
            assert answer.topic_errors[0][1] == TopicAlreadyExistsError.errno, answer
        except TopicAlreadyExistsError:
            pass
        await client.create_partitions({name: NewPartitions(5)})
        await until(20, "five partitions", functools.partial(partitions_are, client, name, 5))
        await client.delete_topics([name])

        async def gone():
            return name not in await client.list_topics()

        await until(20, "the topic is gone", gone)
        assert (await client.describe_cluster())["brokers"]


async def partitions_are(client, name, count):
    [found] = await client.describe_topics([name])
    return len(found["partitions"]) == count


async def configs_are_administered():
    name = await topic(1, **{"retention.ms": "3600000"})
    async with admin() as client:
        async def value():
            [answer] = await client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name)])
            [(code, _, _, _, entries)] = answer.resources
            assert code == 0
            return {entry[0]: entry[1] for entry in entries}["retention.ms"]

        assert await value() == "3600000"
        await client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, configs={"retention.ms": "99000"})])

        async def altered():
            return await value() == "99000"

        await until(20, "the config is altered", altered)


async def groups_are_told():
    name, group = await topic(1), fresh("group")
    async with admin() as client, consumer(name, group=group) as member:
        await settle([member], [1])
        await member.commit({TopicPartition(name, 0): 7})

        async def listed():
            return (group, "consumer") in [tuple(entry)[:2] for entry in await client.list_consumer_groups()]

        await until(20, "the group is listed", listed)
        [answer] = await client.describe_consumer_groups([group])
        assert answer.groups[0][:4] == (0, group, "Stable", "consumer"), answer
        offsets = await client.list_consumer_group_offsets(group)
        assert offsets[TopicPartition(name, 0)].offset == 7, offsets


async def records_are_deleted():
    name = await topic(1)
    await fill(name, 20)
    part = TopicPartition(name, 0)
    async with admin() as client, consumer() as member:
        found = await client.delete_records({part: RecordsToDelete(before_offset=7)})
        assert found == {part: 7}, found
        assert await member.beginning_offsets([part]) == {part: 7}


async def a_transaction_is_committed():
    name = await topic(1)
    async with producer(transactional_id=fresh("id")) as client:
        async with client.transaction():
            await client.send_and_wait(name, b"x")
    async with consumer(name, isolation_level="read_committed") as member:
        assert len(await take(member, 1)) == 1


def to_its_end(check):
    """The check as an ordinary function, ended after two minutes."""

    @functools.wraps(check)
    def run():
        return asyncio.run(asyncio.wait_for(check(), 120))

    return run


if __name__ == "__main__":
    told("aiokafka", [to_its_end(check) for check in (
        sends_and_is_told_where, every_codec, each_level_of_acks, an_idempotent_producer, a_batch_of_its_own,
        the_brokers_time, a_record_beyond_the_limit, a_topic_is_created_by_producing, reads_one_by_one_and_in_batches,
        seeks, pauses, offsets_by_time, an_offset_out_of_range, commits_and_resumes, commits_by_itself, members_share,
        members_share_in_turns, members_share_and_keep, a_static_member_comes_back,
        a_commit_from_a_past_generation_fails, a_pattern_takes_later_topics, topics_are_administered,
        configs_are_administered, groups_are_told, records_are_deleted, a_transaction_is_committed,
    )])
