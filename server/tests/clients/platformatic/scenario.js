// What a program that uses @platformatic/kafka does with a broker, step by step: run BOOTSTRAP PREFIX.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { Admin, Consumer, MessagesStreamFallbackModes, MessagesStreamModes, Producer, stringDeserializers, stringSerializers } from '@platformatic/kafka'

const TOPIC_RESOURCE = 2 // the protocol's numbers
const SET = 0
const LATEST = -1n
const EARLIEST = -2n
const CODECS = ['none', 'gzip', 'snappy', 'lz4', 'zstd']
const PARTITIONS = 3
const RECORDS_A_CODEC = 60
const BATCH = 5
const failover = process.env.FAILOVER_FILE
const replicas = Number(process.env.REPLICAS ?? 1)
const start = Date.now() - 3_600_000

const isMember = process.argv[2] === 'member'
const [bootstrap, prefix] = process.argv.slice(isMember ? 3 : 2)
if (!prefix) {
  console.log('usage: run BOOTSTRAP PREFIX')
  process.exit(2)
}
const topic = `${prefix}-records`
const unsafe = `${prefix}-unsafe` // for records that are not acknowledged by all replicas
const group = `${prefix}-group`
const reader = `${prefix}-reader`

const settings = {
  clientId: 'scenario',
  bootstrapBrokers: bootstrap.split(','),
  connectTimeout: 2000,
  timeout: 5000,
  retries: 60,
  retryDelay: 250,
  metadataMaxAge: 1000,
}
const admin = new Admin(settings)
const sent = [] // the ids of all acknowledged records
const read = [] // what was read from each partition, in order

async function create() {
  await admin.createTopics({ topics: [topic, unsafe], partitions: PARTITIONS, replicas })
}

// Each send is for one partition, so that a try after a failed one is the same request again.
async function produce() {
  const producer = new Producer({ ...settings, idempotent: true, serializers: stringSerializers })
  for (const compression of CODECS) {
    for (let first = 0; first < RECORDS_A_CODEC; first += BATCH) {
      if (failover && compression === 'gzip' && first === 0) writeFileSync(failover, '')
      if (failover) await sleep(100)
      const key = (first / BATCH) % 4
      const ids = Array.from({ length: BATCH }, (_, n) => `${compression}-${String(first + n).padStart(3, '0')}`)
      const messages = ids.map((id, n) => ({
        topic,
        partition: key % PARTITIONS,
        key: n % 3 === 0 ? undefined : `key-${key}`,
        value: id.endsWith('9') ? undefined : `value of ${id}`,
        headers: { id, empty: '' },
        timestamp: BigInt(start + (sent.length + n) * 1000),
      }))
      await producer.send({ compression, messages })
      sent.push(...ids)
    }
  }
  await producer.close()
}

// The offset of each partition at a time, or at its start or end.
async function offsets(name, timestamp) {
  const partitions = Array.from({ length: PARTITIONS }, (_, partitionIndex) => ({ partitionIndex, timestamp }))
  const [found] = await admin.listOffsets({ topics: [{ name, partitions }] })
  const byPartition = []
  for (const { partitionIndex, offset } of found.partitions) byPartition[partitionIndex] = Number(offset)
  return byPartition
}

const total = numbers => numbers.reduce((sum, number) => sum + number, 0)

// A member of a group that loses its place after 6 s of silence.
function groupMember(groupId) {
  return new Consumer({
    ...settings, groupId, deserializers: stringDeserializers, sessionTimeout: 6000, heartbeatInterval: 500, rebalanceTimeout: 10_000, maxWaitTime: 500,
  })
}

// Reads until `done` says so, in a group, as this client has no other way; returns the offsets that are next.
async function consume(consumer, each, done, seconds = 20, from = { mode: MessagesStreamModes.COMMITTED, fallbackMode: MessagesStreamFallbackModes.EARLIEST }) {
  const next = []
  const stream = await consumer.consume({ topics: [topic], autocommit: false, ...from })
  stream.on('data', message => {
    next[message.partition] = Math.max(next[message.partition] ?? 0, Number(message.offset) + 1)
    each(message.partition, message)
  })
  stream.on('error', error => console.error(error.message))
  const until = Date.now() + seconds * 1000
  while (!done()) {
    assert(Date.now() < until, 'it takes too long')
    await sleep(50)
  }
  return next.map((offset, partition) => ({ topic, partition, offset: BigInt(offset), leaderEpoch: -1 })).filter(Boolean)
}

const idOf = message => message.headers.get('id')

// Every acknowledged record is there once, those of a key in order, each as it was sent.
async function readAll() {
  let missing = total(await offsets(topic, LATEST))
  for (let n = 0; n < PARTITIONS; n++) read.push([])
  const consumer = groupMember(reader)
  await consume(consumer, (partition, message) => {
    missing--
    read[partition].push(message)
  }, () => missing <= 0)
  await consumer.close(true)
  const lastOfKey = {}
  for (const message of read.flat()) {
    const id = idOf(message)
    const place = sent.indexOf(id)
    assert.equal(Number(message.timestamp), start + place * 1000, `timestamp of ${id}`)
    assert.equal(message.value ?? undefined, id.endsWith('9') ? undefined : `value of ${id}`)
    if (message.key) {
      assert(!(lastOfKey[message.key] >= place), `${id} came after ${sent[lastOfKey[message.key]]}`)
      lastOfKey[message.key] = place
    }
  }
  assert.deepEqual(read.flat().map(idOf).sort(), [...sent].sort(), 'every record once')
}

async function produceUnsafe() {
  const producer = new Producer({ ...settings, serializers: stringSerializers })
  for (const acks of [1, 0]) {
    for (let n = 0; n < 10; n++) await producer.send({ acks, messages: [{ topic: unsafe, value: String(n) }] })
  }
  await eventually(async () => {
    const there = total(await offsets(unsafe, LATEST))
    // Nobody knows whether a record with acks 0 arrives at a broker that is not the leader any more.
    assert(there === 20 || (failover && there >= 10), `${there} records instead of 20`)
  })
  await producer.close()
}

// The second member of the group, in a process of its own: it says "record" for each that it reads until it is killed.
async function member() {
  await consume(groupMember(group), () => console.log('record'), () => false, 50)
}

// Kills the second member after it has read something: the first gets its partitions and reads all that was not committed.
async function groupOfTwo() {
  const other = spawn(process.execPath, [process.argv[1], 'member', bootstrap, prefix], { stdio: ['ignore', 'pipe', 'inherit'] })
  const said = await Promise.race([once(other.stdout, 'data'), once(other, 'exit'), sleep(15_000, 'nothing', { ref: false })])
  assert.match(String(said), /^record/)
  const consumer = groupMember(group)
  let owned = 0
  let shared = false
  consumer.on('consumer:group:join', () => {
    owned = consumer.assignments?.find(assignment => assignment.topic === topic)?.partitions.length ?? 0
    if (owned > 0 && owned < PARTITIONS) {
      shared = true
      other.kill('SIGKILL')
    }
  })
  const seen = new Set()
  try {
    const next = await consume(consumer, (_, message) => seen.add(idOf(message)), () => owned === PARTITIONS && seen.size >= sent.length, 25)
    assert(shared, 'the two members never shared the partitions')
    assert.deepEqual([...seen].sort(), [...sent].sort())
    await consumer.commit({ offsets: next })
  } finally {
    other.kill('SIGKILL')
    await consumer.close(true)
  }
}

// Writes one more record: a new member sees this one and none that was committed.
async function resume() {
  const producer = new Producer({ ...settings, serializers: stringSerializers })
  await producer.send({ messages: [{ topic, value: 'more', headers: { id: 'resume-000' } }] })
  await producer.close()
  const consumer = groupMember(group)
  const seen = []
  const next = await consume(consumer, (_, message) => seen.push(idOf(message)), () => seen.length > 0)
  assert.deepEqual(seen, ['resume-000'])
  await consumer.commit({ offsets: next })
  await consumer.close(true)
}

async function seek() {
  const middle = start + Math.floor(sent.length / 2) * 1000
  const waiting = new Set()
  const starts = []
  for (const [partition, offset] of (await offsets(topic, BigInt(middle))).entries()) {
    const first = read[partition].find(message => Number(message.timestamp) >= middle)
    if (first) {
      assert.equal(offset, Number(first.offset), `partition ${partition}`)
      waiting.add(partition)
    }
    starts.push({ topic, partition, offset: BigInt(Math.max(offset, 0)) })
  }
  const early = []
  const consumer = groupMember(reader)
  await consume(consumer, (partition, message) => {
    if (waiting.delete(partition) && Number(message.timestamp) < middle) early.push(idOf(message))
  }, () => waiting.size === 0, 20, { mode: MessagesStreamModes.MANUAL, offsets: starts })
  assert.deepEqual(early, [], 'records before the time')
  await consumer.close(true)
}

async function topics() {
  assert((await admin.listTopics()).includes(topic), 'it is not listed')
  const { brokers, topics } = await admin.metadata({ topics: [topic], forceUpdate: true })
  assert(brokers.size > 0, 'no brokers are described')
  const { partitions } = topics.get(topic)
  assert.equal(partitions.length, PARTITIONS)
  for (const partition of partitions) assert(partition.leader >= 0 && partition.isr.length > 0, JSON.stringify(partition))
}

async function groups() {
  assert((await admin.listGroups()).has(group), 'it is not listed')
  await eventually(async () => {
    const described = await admin.describeGroups({ groups: [group] })
    assert.equal(described.get(group).state.toUpperCase(), 'EMPTY')
  })
  const ends = await offsets(topic, LATEST)
  const [{ topics: [committed] }] = await admin.listConsumerGroupOffsets({ groups: [group] })
  assert.equal(committed.partitions.length, PARTITIONS)
  for (const { partitionIndex, committedOffset } of committed.partitions) assert.equal(Number(committedOffset), ends[partitionIndex])
}

async function config() {
  const resource = { resourceType: TOPIC_RESOURCE, resourceName: topic }
  await admin.incrementalAlterConfigs({ resources: [{ ...resource, configs: [{ name: 'retention.ms', configOperation: SET, value: '86400000' }] }] })
  await eventually(async () => {
    const [{ configs }] = await admin.describeConfigs({ resources: [{ ...resource, configurationKeys: ['retention.ms'] }] })
    assert.equal(configs[0].value, '86400000')
  })
}

async function deleteRecords() {
  await admin.deleteRecords({ topics: [{ name: topic, partitions: [{ partition: 0, offset: 5n }] }] })
  assert.equal((await offsets(topic, EARLIEST))[0], 5)
}

async function addPartitions() {
  await admin.createPartitions({ topics: [{ name: topic, count: PARTITIONS + 1 }] })
  await eventually(async () => {
    const { topics } = await admin.metadata({ topics: [topic], forceUpdate: true })
    assert.equal(topics.get(topic).partitions.length, PARTITIONS + 1)
  })
}

async function remove() {
  await admin.deleteGroups({ groups: [group, reader] })
  await admin.deleteTopics({ topics: [topic, unsafe] })
  await eventually(async () => {
    const left = await admin.listTopics()
    assert(!left.includes(topic) && !left.includes(unsafe), 'a topic is still listed')
  })
}

// Tries again for ten seconds, as brokers may learn of a change a little later than it is acknowledged.
async function eventually(check) {
  for (const until = Date.now() + 10_000; ; await sleep(100)) {
    try {
      return await check()
    } catch (error) {
      if (Date.now() > until) throw error
    }
  }
}

async function main() {
  const steps = {
    'create topics': create,
    'produce with every codec': produce,
    'read all': readAll,
    'produce with acks 1 and 0': produceUnsafe,
    'group of two, one killed': groupOfTwo,
    'resume at the commit': resume,
    'seek by timestamp': seek,
    'list and describe topics': topics,
    'list and describe groups, offsets': groups,
    'alter a topic\'s configuration': config,
    'delete records': deleteRecords,
    'add partitions': addPartitions,
    'delete groups and topics': remove,
  }
  let failed = false
  setTimeout(() => {
    console.log('FAILED in time: a step is still under way')
    process.exit(1)
  }, 58_000)
  for (const [name, step] of Object.entries(steps)) {
    try {
      await step()
      console.log(`ok ${name}`)
    } catch (error) {
      failed = true
      console.log(`FAILED ${name}: ${error.message.replaceAll('\n', ' ')}`)
    }
  }
  process.exit(failed ? 1 : 0)
}

await (isMember ? member() : main())
