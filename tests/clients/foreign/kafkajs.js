// kafkajs against a cluster: a result line for judge.py per test, on standard output.
//
// Environment: BOOTSTRAP (addresses, separated by commas), ONLY (words of test names). NODE_PATH leads to kafkajs.

const assert = require('node:assert/strict')
const crypto = require('node:crypto')
const { Kafka, CompressionTypes, ConfigResourceTypes, Partitioners, logLevel } = require('kafkajs')

const RUN = crypto.randomBytes(4).toString('hex')
const LIMIT = 60_000
const kafka = new Kafka({
  clientId: 'suite',
  brokers: process.env.BOOTSTRAP.split(','),
  logLevel: logLevel.NOTHING,
  retry: { initialRetryTime: 100, retries: 8 },
})
const opened = []
let numbered = 0

/** A client that is disconnected at the end of its test. */
async function open(client) {
  opened.push(client)
  await client.connect()
  return client
}
const producer = options => open(kafka.producer({ createPartitioner: Partitioners.DefaultPartitioner, ...options }))
const admin = () => open(kafka.admin())
const consumer = (groupId, options) => open(kafka.consumer({ groupId, heartbeatInterval: 300, maxWaitTimeInMs: 200, ...options }))

const name = word => `${word}-${RUN}-${++numbered}`
const sleep = ms => new Promise(done => setTimeout(done, ms))

async function until(what, condition, seconds = 30) {
  const deadline = Date.now() + seconds * 1000
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error(`gave up waiting for ${what}`)
    await sleep(50)
  }
}

async function topic(partitions = 3, configEntries = []) {
  const made = name('topic')
  const client = await admin()
  assert.equal(await client.createTopics({ waitForLeaders: true, topics: [{ topic: made, numPartitions: partitions, configEntries }] }), true)
  return made
}

/** Messages whose keys repeat, whose values may be empty or null, with headers. */
const messages = count =>
  Array.from({ length: count }, (_, n) => ({
    key: n % 11 === 0 ? null : `k${n % 17}`,
    value: n % 13 === 0 ? null : n % 7 === 0 ? '' : `${n} ветер ${'x'.repeat(n % 90)}`,
    headers: { n: String(n), raw: Buffer.from([0, 255, n % 256]) },
    timestamp: String(1_700_000_000_000 + n),
  }))

const text = buffer => (buffer === null ? null : buffer.toString())

/** Reads `count` messages as a member of the group and stops. */
async function read(groupId, topics, count, options = {}) {
  const found = []
  const member = await consumer(groupId, options)
  await member.subscribe({ topics: [topics].flat(), fromBeginning: true })
  await member.run({ eachMessage: async ({ topic, partition, message }) => void found.push({ topic, partition, ...message }) })
  await until(`${count} messages`, () => found.length >= count)
  await member.disconnect()
  return found
}

/** What was read is what was sent, in the order of sending within each partition. */
function same(read, sent) {
  assert.equal(read.length, sent.length)
  const last = {}
  const left = new Map(sent.map(m => [m.headers.n, m]))
  for (const message of read) {
    const n = message.headers.n.toString()
    const wanted = left.get(n)
    assert.ok(wanted, `message ${n} twice or never sent`)
    left.delete(n)
    assert.equal(text(message.key), wanted.key)
    assert.equal(text(message.value), wanted.value)
    assert.equal(message.timestamp, wanted.timestamp)
    assert.deepEqual(message.headers.raw, wanted.headers.raw)
    const at = `${message.topic}-${message.partition}`
    assert.ok(!(at in last) || (last[at].n < Number(n) && BigInt(last[at].offset) < BigInt(message.offset)), `${at} is out of order`)
    last[at] = { n: Number(n), offset: message.offset }
  }
}

const sendAndRead = (sending, options) => async () => {
  const [to, sent] = [await topic(), messages(500)]
  const client = await producer(options)
  const result = await client.send({ topic: to, messages: sent, ...sending })
  if (sending.acks !== 0) assert.ok(result.every(r => r.errorCode === 0 && BigInt(r.baseOffset) >= 0n), JSON.stringify(result))
  same(await read(name('group'), to, sent.length), sent)
}

const tests = {
  'cluster/describes itself': async () => {
    const { brokers, controller, clusterId } = await (await admin()).describeCluster()
    assert.equal(brokers.length, 3)
    assert.ok(brokers.some(b => b.nodeId === controller))
    assert.equal(clusterId.length, 22)
  },
  'producer/acks all': sendAndRead({ acks: -1 }),
  'producer/acks one': sendAndRead({ acks: 1 }),
  'producer/acks none': sendAndRead({ acks: 0 }),
  'producer/gzip': sendAndRead({ compression: CompressionTypes.GZIP }),
  'producer/idempotent': sendAndRead({}, { idempotent: true, maxInFlightRequests: 1 }),
  'producer/legacy partitioner': sendAndRead({}, { createPartitioner: Partitioners.LegacyPartitioner }),
  'producer/a batch of several topics': async () => {
    const [one, two, sent] = [await topic(1), await topic(4), messages(300)]
    await (await producer()).sendBatch({ topicMessages: [{ topic: one, messages: sent.slice(0, 100) }, { topic: two, messages: sent.slice(100) }] })
    const found = await read(name('group'), [one, two], 300)
    assert.equal(found.filter(m => m.topic === one).length, 100)
    same(found, sent)
  },
  'producer/a chosen partition': async () => {
    const to = await topic(4)
    await (await producer()).send({ topic: to, messages: messages(40).map(m => ({ ...m, partition: 2 })) })
    assert.ok((await read(name('group'), to, 40)).every(m => m.partition === 2))
  },
  'producer/many at once keep their order': async () => {
    const [to, sent, client] = [await topic(1), messages(400), await producer({ idempotent: true, maxInFlightRequests: 5 })]
    await Promise.all(Array.from({ length: 40 }, (_, n) => client.send({ topic: to, messages: sent.slice(n * 10, n * 10 + 10) })))
    same(await read(name('group'), to, 400), sent)
  },
  'producer/a message that is too large': async () => {
    const [to, client] = [await topic(1, [{ name: 'max.message.bytes', value: '2000' }]), await producer()]
    const error = await client.send({ topic: to, messages: [{ value: 'x'.repeat(5000) }] }).catch(e => e)
    assert.equal(error.type, 'MESSAGE_TOO_LARGE')
    await client.send({ topic: to, messages: [{ value: 'x'.repeat(500) }] })
  },
  'producer/a topic that is made by writing to it': async () => {
    const to = name('made')
    // One message: kafkajs sends all partitions' messages of a broker again when one of them was refused.
    await (await producer({ allowAutoTopicCreation: true })).send({ topic: to, messages: messages(1) })
    same(await read(name('group'), to, 1), messages(1))
  },
  'producer/a topic that must not be made': async () => {
    const client = await producer({ allowAutoTopicCreation: false, retry: { retries: 1 } })
    const error = await client.send({ topic: name('none'), messages: [{ value: 'x' }] }).catch(e => e)
    assert.equal((error.originalError || error.cause || error).type, 'UNKNOWN_TOPIC_OR_PARTITION')
  },
  'producer/transaction': async () => {
    const [to, client] = [await topic(1), await producer({ transactionalId: name('tx'), maxInFlightRequests: 1, idempotent: true, retry: { retries: 2 } })]
    const aborted = await client.transaction()
    await aborted.send({ topic: to, messages: messages(5) })
    await aborted.abort()
    const kept = await client.transaction()
    await kept.send({ topic: to, messages: messages(5) })
    await kept.commit()
    same(await read(name('group'), to, 5, { readUncommitted: false }), messages(5))
  },
  'consumer/batches': async () => {
    const [to, sent] = [await topic(2), messages(300)]
    await (await producer()).send({ topic: to, messages: sent })
    const [member, found] = [await consumer(name('group')), []]
    await member.subscribe({ topic: to, fromBeginning: true })
    await member.run({
      eachBatchAutoResolve: false,
      eachBatch: async ({ batch, resolveOffset, heartbeat, commitOffsetsIfNecessary }) => {
        assert.ok(BigInt(batch.highWatermark) > BigInt(batch.lastOffset()))
        for (const message of batch.messages) {
          found.push({ topic: to, partition: batch.partition, ...message })
          resolveOffset(message.offset)
        }
        await commitOffsetsIfNecessary()
        await heartbeat()
      },
    })
    await until('300 messages', () => found.length === 300)
    same(found, sent)
  },
  'consumer/carries on where the group stopped': async () => {
    const [to, group, sent, client] = [await topic(2), name('group'), messages(200), await producer()]
    await client.send({ topic: to, messages: sent.slice(0, 120) })
    const first = await read(group, to, 120)
    await client.send({ topic: to, messages: sent.slice(120) })
    const second = await read(group, to, 80)
    same([...first, ...second], sent)
  },
  'consumer/from the end': async () => {
    const [to, client] = [await topic(1), await producer()]
    await client.send({ topic: to, messages: messages(50) })
    const [member, found] = [await consumer(name('group')), []]
    let fetched = false
    member.on(member.events.FETCH, () => (fetched = true))
    await member.subscribe({ topic: to })
    await member.run({ eachMessage: async ({ message }) => void found.push(Number(message.offset)) })
    await until('a fetch', () => fetched)
    await client.send({ topic: to, messages: messages(5) })
    await until('5 messages', () => found.length >= 5)
    assert.deepEqual(found, [50, 51, 52, 53, 54])
  },
  'consumer/seeks': async () => {
    const to = await topic(1)
    await (await producer()).send({ topic: to, messages: messages(100) })
    const [member, found] = [await consumer(name('group')), []]
    await member.subscribe({ topic: to, fromBeginning: true })
    await member.run({ eachMessage: async ({ message }) => void found.push(Number(message.offset)) })
    member.seek({ topic: to, partition: 0, offset: '60' })
    await until('the end', () => found.includes(99))
    found.length = 0
    member.seek({ topic: to, partition: 0, offset: '95' })
    await until('the end again', () => found.includes(99))
    assert.deepEqual(found, [95, 96, 97, 98, 99])
  },
  'consumer/pauses and resumes': async () => {
    const [to, client] = [await topic(1), await producer()]
    const [member, found] = [await consumer(name('group')), []]
    await client.send({ topic: to, messages: messages(10) })
    await member.subscribe({ topic: to, fromBeginning: true })
    await member.run({
      eachMessage: async ({ message }) => {
        found.push(Number(message.offset))
        if (found.length === 5) member.pause([{ topic: to }])
      },
    })
    await until('the pause', () => member.paused().length === 1 && found.length >= 5)
    const before = found.length
    await client.send({ topic: to, messages: messages(5) })
    assert.equal(found.length, before)
    member.resume([{ topic: to }])
    await until('15 messages', () => new Set(found).size === 15)
  },
  'consumer/commits by hand': async () => {
    const [to, group] = [await topic(1), name('group')]
    await (await producer()).send({ topic: to, messages: messages(30) })
    const [member, found] = [await consumer(group), []]
    await member.subscribe({ topic: to, fromBeginning: true })
    await member.run({ autoCommit: false, eachMessage: async ({ message }) => void found.push(message.offset) })
    await until('30 messages', () => found.length === 30)
    await member.commitOffsets([{ topic: to, partition: 0, offset: '12', metadata: 'noted' }])
    await member.disconnect()
    const [{ partitions }] = await (await admin()).fetchOffsets({ groupId: group, topics: [to] })
    assert.deepEqual(partitions, [{ partition: 0, offset: '12', metadata: 'noted' }])
    assert.equal((await read(group, to, 18))[0].offset, '12')
  },
  'consumer/a regular expression': async () => {
    const word = name('pattern')
    const client = await admin()
    await client.createTopics({ topics: [`${word}.a`, `${word}.b`, `x${word}`].map(topic => ({ topic })), waitForLeaders: true })
    const sent = messages(20)
    await (await producer()).sendBatch({ topicMessages: [{ topic: `${word}.a`, messages: sent.slice(0, 9) }, { topic: `${word}.b`, messages: sent.slice(9) }, { topic: `x${word}`, messages: sent }] })
    same(await read(name('group'), new RegExp(`^${word}\\.[ab]$`), 20), sent)
  },
  'consumer/offset out of range': async () => {
    const [to, group, client] = [await topic(1), name('group'), await admin()]
    await (await producer()).send({ topic: to, messages: messages(20) })
    await client.setOffsets({ groupId: group, topic: to, partitions: [{ partition: 0, offset: '5000' }] })
    assert.equal((await read(group, to, 20))[0].offset, '0')
  },
  'groups/members share, leave and take over': async () => {
    const [to, group, client] = [await topic(6), name('group'), await admin()]
    const held = [{}, {}]
    const members = [await consumer(group), await consumer(group)]
    const found = []
    for (const [n, member] of members.entries()) {
      member.on(member.events.GROUP_JOIN, ({ payload }) => (held[n] = payload.memberAssignment))
      await member.subscribe({ topic: to, fromBeginning: true })
      await member.run({ eachMessage: async ({ partition, message }) => void found.push(`${partition}@${message.offset}`) })
    }
    const counts = () => held.map(assignment => (assignment[to] || []).length)
    await until('three partitions each', () => counts().join() === '3,3')
    const { groups } = await client.describeGroups([group])
    assert.equal(groups[0].state, 'Stable')
    assert.equal(groups[0].members.length, 2)
    assert.equal(groups[0].protocolType, 'consumer')
    await (await producer()).send({ topic: to, messages: messages(120) })
    await until('all messages', () => new Set(found).size === 120)
    await members[1].disconnect()
    await until('six partitions', () => counts()[0] === 6)
    await (await producer()).send({ topic: to, messages: messages(60) })
    await until('the other messages', () => new Set(found).size === 180)
    assert.equal(found.length, 180, 'a message was read twice')
  },
  'groups/are listed, described and deleted': async () => {
    const [to, group, client] = [await topic(1), name('group'), await admin()]
    await (await producer()).send({ topic: to, messages: messages(5) })
    await read(group, to, 5)
    assert.ok((await client.listGroups()).groups.some(g => g.groupId === group && g.protocolType === 'consumer'))
    assert.equal((await client.describeGroups([group])).groups[0].state, 'Empty')
    assert.equal((await client.deleteGroups([group]))[0].errorCode, 0)
    assert.ok(!(await client.listGroups()).groups.some(g => g.groupId === group))
    const error = await client.deleteGroups([group]).catch(e => e)
    assert.equal(error.groups[0].error.type, 'GROUP_ID_NOT_FOUND')
  },
  'groups/in use are not deleted': async () => {
    const [to, group, client] = [await topic(1), name('group'), await admin()]
    const member = await consumer(group)
    const joined = new Promise(done => member.on(member.events.GROUP_JOIN, done))
    await member.subscribe({ topic: to })
    await member.run({ eachMessage: async () => {} })
    await joined
    const error = await client.deleteGroups([group]).catch(e => e)
    assert.equal(error.groups[0].error.type, 'NON_EMPTY_GROUP')
  },
  'admin/topics': async () => {
    const [client, made] = [await admin(), name('topic')]
    assert.equal(await client.createTopics({ topics: [{ topic: made, numPartitions: 2, replicationFactor: 2 }] }), true)
    assert.equal(await client.createTopics({ topics: [{ topic: made }] }), false)
    await client.createPartitions({ topicPartitions: [{ topic: made, count: 5 }] })
    await until('five partitions', async () => {
      const { topics } = await client.fetchTopicMetadata({ topics: [made] })
      return topics[0].partitions.length === 5 && topics[0].partitions.every(p => p.leader > 0 && p.replicas.length === 2)
    })
    assert.ok((await client.listTopics()).includes(made))
    await client.deleteTopics({ topics: [made] })
    await until('its end', async () => !(await client.listTopics()).includes(made))
    const error = await client.deleteTopics({ topics: [made] }).catch(e => e)
    assert.equal((error.originalError || error.cause || error).type, 'UNKNOWN_TOPIC_OR_PARTITION')
  },
  'admin/refusals': async () => {
    const client = await admin()
    const refused = async options => {
      const error = await client.createTopics({ topics: [{ topic: name('refused'), ...options }] }).catch(e => e)
      return (error.errors ? error.errors[0] : error).type
    }
    assert.equal(await refused({ replicationFactor: 4 }), 'INVALID_REPLICATION_FACTOR')
    assert.equal(await refused({ configEntries: [{ name: 'nonsense', value: '1' }] }), 'INVALID_CONFIG')
    assert.equal(await refused({ topic: 'no/slashes' }), 'INVALID_TOPIC_EXCEPTION')
    assert.equal(await client.createTopics({ validateOnly: true, waitForLeaders: false, topics: [{ topic: `valid-${RUN}` }] }), true)
    assert.ok(!(await client.listTopics()).includes(`valid-${RUN}`))
  },
  'admin/settings': async () => {
    const [to, client] = [await topic(1, [{ name: 'retention.ms', value: '3600000' }]), await admin()]
    const resource = { type: ConfigResourceTypes.TOPIC, name: to }
    const value = async key => {
      const { resources } = await client.describeConfigs({ resources: [{ ...resource, configNames: [key] }] })
      return resources[0].configEntries.find(e => e.configName === key)
    }
    assert.equal((await value('retention.ms')).configValue, '3600000')
    // AlterConfigs: what it does not name goes back to its default.
    await client.alterConfigs({ resources: [{ ...resource, configEntries: [{ name: 'cleanup.policy', value: 'compact' }] }] })
    await until('the new settings', async () => (await value('cleanup.policy')).configValue === 'compact')
    const retention = await value('retention.ms')
    assert.equal(retention.configValue, '604800000')
    assert.equal(retention.isDefault, true)
  },
  'admin/offsets of topics': async () => {
    const [to, client] = [await topic(2), await admin()]
    await (await producer()).send({ topic: to, messages: messages(100).map((m, n) => ({ ...m, partition: n % 2 })) })
    const offsets = await client.fetchTopicOffsets(to)
    assert.deepEqual(offsets.sort((a, b) => a.partition - b.partition).map(({ high, low }) => [low, high]), [['0', '50'], ['0', '50']])
    const later = await client.fetchTopicOffsetsByTimestamp(to, 1_700_000_000_040)
    assert.deepEqual(later.map(p => p.offset), ['20', '20'])
    const none = await client.fetchTopicOffsetsByTimestamp(to, Date.now() + 86_400_000)
    assert.deepEqual(none.map(p => p.offset), ['50', '50'])
  },
  'admin/offsets of groups': async () => {
    const [to, group, client] = [await topic(2), name('group'), await admin()]
    await (await producer()).send({ topic: to, messages: messages(40).map((m, n) => ({ ...m, partition: n % 2 })) })
    await client.setOffsets({ groupId: group, topic: to, partitions: [{ partition: 0, offset: '7' }, { partition: 1, offset: '9' }] })
    const fetched = async () => (await client.fetchOffsets({ groupId: group, topics: [to] }))[0].partitions.map(p => p.offset)
    assert.deepEqual(await fetched(), ['7', '9'])
    await client.resetOffsets({ groupId: group, topic: to, earliest: true })
    const [{ partitions }] = await client.fetchOffsets({ groupId: group, topics: [to], resolveOffsets: true })
    assert.deepEqual(partitions.map(p => p.offset), ['0', '0'])
    assert.deepEqual((await client.fetchOffsets({ groupId: group })).map(t => t.topic), [to])
  },
  'admin/records are deleted': async () => {
    const [to, client] = [await topic(1), await admin()]
    await (await producer()).send({ topic: to, messages: messages(60) })
    // deleteTopicRecords looks for the leader in what the client knows of the topic before it asks for that.
    assert.equal((await client.fetchTopicOffsets(to))[0].low, '0')
    await client.deleteTopicRecords({ topic: to, partitions: [{ partition: 0, offset: '25' }] })
    assert.equal((await client.fetchTopicOffsets(to))[0].low, '25')
    assert.equal((await read(name('group'), to, 35))[0].offset, '25')
  },
  'admin/partitions are reassigned': async () => {
    const [client, to] = [await admin(), name('topic')]
    await client.createTopics({ waitForLeaders: true, topics: [{ topic: to, replicaAssignment: [{ partition: 0, replicas: [1, 2] }] }] })
    await client.alterPartitionReassignments({ topics: [{ topic: to, partitionAssignment: [{ partition: 0, replicas: [2, 3] }] }] })
    await until('the new replicas', async () => {
      const { topics } = await client.fetchTopicMetadata({ topics: [to] })
      return topics[0].partitions[0].replicas.join() === '2,3' && [...topics[0].partitions[0].isr].sort().join() === '2,3'
    })
    assert.deepEqual((await client.listPartitionReassignments({ topics: [{ topic: to, partitions: [0] }] })).topics, [])
  },
}

async function main() {
  const only = (process.env.ONLY || '').split(' ').filter(Boolean)
  for (const [id, test] of Object.entries(tests)) {
    if (only.length && !only.some(word => id.includes(word))) continue
    const began = Date.now()
    let timer
    const limit = new Promise((_, refuse) => (timer = setTimeout(() => refuse(new Error(`not done after ${LIMIT} ms`)), LIMIT)))
    const error = await Promise.race([test(), limit]).then(() => null, e => e)
    clearTimeout(timer)
    await Promise.race([Promise.allSettled(opened.splice(0).map(client => client.disconnect())), sleep(10_000)])
    const detail = error ? String(error.message || error).replace(/\s+/g, ' ').slice(0, 300) : ''
    process.stdout.write(`${error ? 'fail' : 'pass'}\t${id}\t${detail}\n`)
    process.stderr.write(`${error ? 'fail' : 'pass'} ${id} ${Date.now() - began} ms ${error ? error.stack : ''}\n`)
  }
  process.exit(0)
}

process.on('unhandledRejection', error => process.stderr.write(`unhandled: ${error.stack}\n`))
main()
