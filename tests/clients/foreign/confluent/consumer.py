"""confluent-kafka as a consumer, alone and in groups of both protocols."""

import time

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import NewPartitions, NewTopic

from common import admin, consumer, done, fill, fresh, producer, settle, take, topic
from suite import both_protocols, told, until


@both_protocols
def a_batch_is_consumed(protocol):
    name = topic(2)
    fill(name, 300)
    member = consumer(protocol=protocol)
    member.subscribe([name])
    assert sorted(int(m.value()) for m in take(member, 300)) == list(range(300))
    assert member.memberid()
    member.close()


@both_protocols
def a_member_resumes_at_the_commit(protocol):
    name, group = topic(1), fresh("group")
    fill(name, 100)
    first = consumer(group, protocol)
    first.subscribe([name])
    part = take(first, 40)
    [committed] = first.commit(message=part[-1], asynchronous=False)
    assert committed.offset == 40 and committed.error is None, committed
    first.close()
    second = consumer(group, protocol)
    second.subscribe([name])
    assert [int(m.value()) for m in take(second, 60)] == list(range(40, 100))
    second.close()


@both_protocols
def auto_commit_stores_what_was_read(protocol):
    name, group = topic(1), fresh("group")
    fill(name, 30)
    first = consumer(group, protocol, **{"enable.auto.commit": True, "auto.commit.interval.ms": 100})
    first.subscribe([name])
    take(first, 30)
    first.close()
    second = consumer(group, protocol)
    [found] = second.committed([TopicPartition(name, 0)], 10)
    assert found.offset == 30, found
    second.close()


@both_protocols
def stored_offsets_are_committed(protocol):
    name, group = topic(1), fresh("group")
    fill(name, 30)
    first = consumer(group, protocol, **{"enable.auto.offset.store": False})
    first.subscribe([name])
    part = take(first, 20)
    first.store_offsets(part[9])
    first.commit(asynchronous=False)
    [found] = first.committed([TopicPartition(name, 0)], 10)
    assert found.offset == 10, found
    first.close()


@both_protocols
def commits_are_told_to_the_callback(protocol):
    name, told_of = topic(1), []
    fill(name, 10)
    member = consumer(protocol=protocol, on_commit=lambda error, parts: told_of.append((error, parts)))
    member.subscribe([name])
    take(member, 10)
    member.commit(asynchronous=True)
    until(20, "the callback is called", lambda: member.poll(0.1) or told_of)
    error, [part] = told_of[0]
    assert error is None and part.offset == 10, told_of
    member.close()


def offsets_carry_metadata_and_epochs():
    name, group = topic(1), fresh("group")
    member = consumer(group)
    member.commit(offsets=[TopicPartition(name, 0, 5, "noted ü", 0)], asynchronous=False)
    [found] = member.committed([TopicPartition(name, 0)], 10)
    assert (found.offset, found.metadata, found.leader_epoch) == (5, "noted ü", 0), (found, found.metadata)
    member.close()


def metadata_of_offsets_has_a_limit():
    name, member = topic(1), consumer()
    try:
        [found] = member.commit(offsets=[TopicPartition(name, 0, 5, "x" * 5000)], asynchronous=False)
        code = found.error and found.error.code()
    except KafkaException as error:
        code = error.args[0].code()
    assert code == KafkaError.OFFSET_METADATA_TOO_LARGE, code
    member.close()


def seek_pause_and_resume():
    name = topic(1)
    fill(name, 50)
    member = consumer()
    member.assign([TopicPartition(name, 0, OFFSET_BEGINNING)])
    take(member, 50)
    member.seek(TopicPartition(name, 0, 20))
    assert [m.offset() for m in take(member, 30)] == list(range(20, 50))
    [position] = member.position([TopicPartition(name, 0)])
    assert position.offset == 50, position
    member.pause([TopicPartition(name, 0)])
    fill(name, 5)
    assert member.poll(1) is None
    member.resume([TopicPartition(name, 0)])
    assert [m.offset() for m in take(member, 5)] == list(range(50, 55))
    member.close()


def partitions_are_assigned_bit_by_bit():
    name = topic(3)
    for partition in range(3):
        fill(name, 10, partition)
    member = consumer()
    member.incremental_assign([TopicPartition(name, 0, 0)])
    assert {m.partition() for m in take(member, 10)} == {0}
    member.incremental_assign([TopicPartition(name, 1, 5), TopicPartition(name, 2, 9)])
    assert {(m.partition(), m.offset()) for m in take(member, 6)} == {(1, n) for n in range(5, 10)} | {(2, 9)}
    member.incremental_unassign([TopicPartition(name, 1)])
    assert sorted(p.partition for p in member.assignment()) == [0, 2]
    member.close()


def watermarks():
    name = topic(1)
    fill(name, 25)
    member = consumer()
    assert member.get_watermark_offsets(TopicPartition(name, 0), 10) == (0, 25)
    member.assign([TopicPartition(name, 0, 0)])
    take(member, 25)
    assert member.get_watermark_offsets(TopicPartition(name, 0), cached=True)[1] == 25
    member.close()


def the_end_of_a_partition_is_told():
    name = topic(1)
    fill(name, 3)
    member, ends = consumer(**{"enable.partition.eof": True}), []
    member.assign([TopicPartition(name, 0, 0)])

    def ended():
        message = member.poll(0.5)
        if message and message.error():
            ends.append((message.error().code(), message.offset()))
        return ends

    until(20, "the end is told", ended)
    assert ends == [(KafkaError._PARTITION_EOF, 3)], ends
    member.close()


def an_offset_out_of_range_is_an_error_or_reset():
    name = topic(1)
    fill(name, 5)
    member = consumer(**{"auto.offset.reset": "error"})
    member.assign([TopicPartition(name, 0, 1000)])
    message = until(20, "an error", lambda: member.poll(0.5))
    assert message.error().code() == KafkaError._AUTO_OFFSET_RESET, message.error()
    member.close()
    member = consumer(**{"auto.offset.reset": "earliest"})
    member.assign([TopicPartition(name, 0, 1000)])
    assert [m.offset() for m in take(member, 5)] == list(range(5))
    member.close()
    member = consumer()
    member.assign([TopicPartition(name, 0, OFFSET_END)])
    assert member.poll(1) is None
    fill(name, 1)
    assert [m.offset() for m in take(member, 1)] == [5]
    member.close()


def offsets_for_times():
    name = topic(1)
    client = producer()
    for number in range(5):
        client.produce(name, b"", timestamp=1_700_000_000_000 + number * 1000)
        client.flush(10)
    member = consumer()
    asked = [0, 1_700_000_000_000, 1_700_000_001_500, 1_700_000_004_000, 1_700_000_004_001]
    found = [member.offsets_for_times([TopicPartition(name, 0, t)], 10)[0].offset for t in asked]
    assert found == [0, 0, 2, 4, OFFSET_END], found
    member.close()


@both_protocols
def two_members_share_and_one_takes_over(protocol):
    name, group = topic(4), fresh("group")
    first, second = consumer(group, protocol), consumer(group, protocol)
    first.subscribe([name])
    settle([first], [4])
    second.subscribe([name])
    settle([first, second], [2, 2])
    first.close()
    settle([second], [4])
    second.close()


@both_protocols
def five_members_for_three_partitions(protocol):
    name, group = topic(3), fresh("group")
    members = [consumer(group, protocol) for _ in range(5)]
    for member in members:
        member.subscribe([name])
    settle(members, [1, 1, 1, 0, 0])
    for member in members:
        member.close()


@both_protocols
def a_cooperative_rebalance_keeps_what_stays(protocol):
    name, group = topic(4), fresh("group")
    events = []
    first = consumer(group, protocol, **{"partition.assignment.strategy": "cooperative-sticky"})
    second = consumer(group, protocol, **{"partition.assignment.strategy": "cooperative-sticky"})
    first.subscribe(
        [name], on_assign=lambda _, parts: events.append(("+", len(parts))),
        on_revoke=lambda _, parts: events.append(("-", len(parts))),
    )
    settle([first], [4])
    second.subscribe([name])
    settle([first, second], [2, 2])
    assert sum(n for sign, n in events if sign == "-") == 2, events
    assert sum(n for sign, n in events if sign == "+") == 4, events
    first.close()
    second.close()


@both_protocols
def a_static_member_comes_back_to_its_partitions(protocol):
    name, group, events = topic(4), fresh("group"), []
    first = consumer(group, protocol, **{"group.instance.id": "one"})
    second = consumer(group, protocol, **{"group.instance.id": "two"})
    first.subscribe([name], on_revoke=lambda _, parts: events.append(len(parts)))
    second.subscribe([name])
    settle([first, second], [2, 2])
    events.clear()
    held = sorted((p.topic, p.partition) for p in second.assignment())
    second.close()
    again = consumer(group, protocol, **{"group.instance.id": "two"})
    again.subscribe([name])
    settle([first, again], [2, 2])
    assert sorted((p.topic, p.partition) for p in again.assignment()) == held
    assert not events, "the other member was rebalanced"
    first.close()
    again.close()


def a_second_member_of_the_same_name_fences_the_first():
    name, group = topic(1), fresh("group")
    first = consumer(group, **{"group.instance.id": "one"})
    first.subscribe([name])
    settle([first], [1])
    second = consumer(group, **{"group.instance.id": "one"})
    second.subscribe([name])
    codes = []

    def fenced():
        second.poll(0.1)
        try:
            message = first.poll(0.1)
            if message and message.error():
                codes.append(message.error().code())
        except KafkaException as error:
            codes.append(error.args[0].code())
        return codes

    until(60, "the first is fenced", fenced)
    assert codes[0] in (KafkaError.FENCED_INSTANCE_ID, KafkaError._FATAL), codes
    second.close()
    first.close()


@both_protocols
def a_pattern_takes_topics_that_come_later(protocol):
    word = fresh("pattern")
    done(admin().create_topics([NewTopic(f"{word}.a", 1)], operation_timeout=30))
    member = consumer(protocol=protocol)
    member.subscribe([f"^{word}\\.[a-z]$"])
    settle([member], [1])
    done(admin().create_topics([NewTopic(f"{word}.b", 2)], operation_timeout=30))
    settle([member], [3])
    fill(f"{word}.b", 10)
    assert {m.topic() for m in take(member, 10)} == {f"{word}.b"}
    member.close()


@both_protocols
def new_partitions_are_taken(protocol):
    name = topic(1)
    member = consumer(protocol=protocol)
    member.subscribe([name])
    settle([member], [1])
    done(admin().create_partitions([NewPartitions(name, 3)]))
    settle([member], [3])
    member.close()


@both_protocols
def a_change_of_subscription_is_followed(protocol):
    one, two = topic(1), topic(2)
    member = consumer(protocol=protocol)
    member.subscribe([one])
    settle([member], [1])
    member.subscribe([one, two])
    settle([member], [3])
    member.subscribe([two])
    settle([member], [2])
    member.unsubscribe()
    until(20, "nothing is assigned", lambda: member.poll(0.1) or not member.assignment())
    member.close()


def a_member_that_does_not_poll_is_left_out():
    name, group = topic(2), fresh("group")
    settings = {"max.poll.interval.ms": 6000, "session.timeout.ms": 6000}
    first, second = consumer(group, **settings), consumer(group, **settings)
    first.subscribe([name])
    second.subscribe([name])
    settle([first, second], [1, 1])
    settle([second], [2])
    code = None
    deadline = time.monotonic() + 10
    while code is None and time.monotonic() < deadline:
        message = first.poll(0.2)
        code = message and message.error() and message.error().code()
    assert code == KafkaError._MAX_POLL_EXCEEDED, code
    first.close()
    second.close()


def a_group_goes_over_to_the_new_protocol_and_back():
    name, group = topic(2), fresh("group")
    fill(name, 10)
    first = consumer(group, "classic", **{"partition.assignment.strategy": "range"})
    first.subscribe([name])
    settle([first], [2])
    second = consumer(group, "consumer")
    second.subscribe([name])
    settle([first, second], [1, 1])
    first.close()
    settle([second], [2])
    third = consumer(group, "classic", **{"partition.assignment.strategy": "range"})
    third.subscribe([name])
    settle([second, third], [1, 1])
    second.close()
    settle([third], [2])
    third.close()


def an_unknown_topic_is_told():
    member = consumer(**{"allow.auto.create.topics": False})
    member.subscribe([fresh("nowhere")])

    def told_of():
        message = member.poll(0.5)
        return message and message.error() and message.error().code() == KafkaError.UNKNOWN_TOPIC_OR_PART

    until(20, "an unknown topic is told", told_of)
    member.close()


if __name__ == "__main__":
    told("consumer", [
        a_batch_is_consumed, a_member_resumes_at_the_commit, auto_commit_stores_what_was_read, stored_offsets_are_committed,
        commits_are_told_to_the_callback, offsets_carry_metadata_and_epochs, metadata_of_offsets_has_a_limit,
        seek_pause_and_resume, partitions_are_assigned_bit_by_bit, watermarks, the_end_of_a_partition_is_told,
        an_offset_out_of_range_is_an_error_or_reset, offsets_for_times, two_members_share_and_one_takes_over,
        five_members_for_three_partitions, a_cooperative_rebalance_keeps_what_stays,
        a_static_member_comes_back_to_its_partitions, a_second_member_of_the_same_name_fences_the_first,
        a_pattern_takes_topics_that_come_later, new_partitions_are_taken, a_change_of_subscription_is_followed,
        a_member_that_does_not_poll_is_left_out, a_group_goes_over_to_the_new_protocol_and_back, an_unknown_topic_is_told,
    ])
