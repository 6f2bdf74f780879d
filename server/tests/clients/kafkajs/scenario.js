// What a program that uses kafkajs does with a broker, step by step: run BOOTSTRAP PREFIX.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import zlib from 'node:zlib'
import kafkajs from 'kafkajs'
import SnappyCodec from 'kafkajs-snappy'
import lz4 from 'lz4-napi'

const { CompressionCodecs, CompressionTypes, ConfigResourceTypes, Kafka, logLevel } = kafkajs

// kafkajs has only gzip of its own.
CompressionCodecs[CompressionTypes.Snappy] = SnappyCodec
CompressionCodecs[CompressionTypes.LZ4] = () => ({
  compress: ({ buffer }) => lz4.compressFrame(buffer),
  decompress: buffer => lz4.decompressFrame(buffer),
})
const codecs = [['none', CompressionTypes.None], ['gzip', CompressionTypes.GZIP], ['snappy', CompressionTypes.Snappy], ['lz4', CompressionTypes.LZ4]]
if (zlib.zstdCompress) { // Node has it since 22.15
  CompressionCodecs[CompressionTypes.ZSTD] = () => ({
    compress: ({ buffer }) => promisify(zlib.zstdCompress)(buffer),
    decompress: promisify(zlib.zstdDecompress),
  })
  codecs.push(['zstd', CompressionTypes.ZSTD])
}

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

const kafka = new Kafka({
  brokers: bootstrap.split(','),
  logLevel: logLevel.NOTHING,
  connectionTimeout: 2000,
  retry: { initialRetryTime: 100, maxRetryTime: 1000, retries: 30 },
})
const admin = kafka.admin()
const sent = [] // the ids of all acknowledged records
const read = [] // what was read from each partition, in order

async function create() {
  await admin.createTopics({
    topics: [topic, unsafe].map(topic => ({ topic, numPartitions: PARTITIONS, replicationFactor: replicas })),
    waitForLeaders: true,
  })
}

// Each send is for one partition, and says which: kafkajs counts the answers to a send by broker, so where the lead of one partition goes
// over to a broker that has answered for another, it takes the first one's records as sent; and a record without a key gets another
// partition with each try.
async function produce() {
  const producer = kafka.producer({ idempotent: true, maxInFlightRequests: 1 })
  await producer.connect()
  for (const [codec, compression] of codecs) {
    for (let first = 0; first < RECORDS_A_CODEC; first += BATCH) {
      if (failover && codec === 'gzip' && first === 0) writeFileSync(failover, '')
      if (failover) await sleep(100)
      const key = (first / BATCH) % 4
      const ids = Array.from({ length: BATCH }, (_, n) => `${codec}-${String(first + n).padStart(3, '0')}`)
      const messages = ids.map((id, n) => ({
        partition: key % PARTITIONS,
        key: n % 3 === 0 ? null : `key-${key}`,
        value: id.endsWith('9') ? null : `value of ${id}`,
        headers: { id, empty: '' },
        timestamp: String(start + (sent.length + n) * 1000),
      }))
      await producer.send({ topic, compression, acks: -1, messages })
      sent.push(...ids)
    }
  }
  await producer.disconnect()
}

// Reads until `done` says so, in a group, as kafkajs has no other way; returns the offsets that are next.
async function consume(consumer, each, done, seconds = 20) {
  const next = {}
  await consumer.run({
    autoCommit: false,
    eachMessage: async ({ partition, message }) => {
      next[partition] = Math.max(next[partition] ?? 0, Number(message.offset) + 1)
      each(partition, message)
    },
  })
  const until = Date.now() + seconds * 1000
  while (!done()) {
    assert(Date.now() < until, 'it takes too long')
    await sleep(50)
  }
  return Object.entries(next).map(([partition, offset]) => ({ topic, partition: Number(partition), offset: String(offset) }))
}

const idOf = message => message.headers.id.toString()

// Every acknowledged record is there once, those of a key in order, each as it was sent.
async function readAll() {
  const consumer = kafka.consumer({ groupId: reader })
  await consumer.connect()
  await consumer.subscribe({ topic, fromBeginning: true })
  const ends = await admin.fetchTopicOffsets(topic)
  let missing = ends.reduce((sum, end) => sum + Number(end.offset), 0)
  for (let n = 0; n < PARTITIONS; n++) read.push([])
  await consume(consumer, (partition, message) => {
    missing--
    read[partition].push(message)
  }, () => missing <= 0)
  await consumer.disconnect()
  const lastOfKey = {}
  for (const message of read.flat()) {
    const id = idOf(message)
    const place = sent.indexOf(id)
    assert.equal(Number(message.timestamp), start + place * 1000, `timestamp of ${id}`)
    assert.equal(message.value?.toString(), id.endsWith('9') ? undefined : `value of ${id}`)
    if (message.key) {
      assert(!(lastOfKey[message.key] >= place), `${id} came after ${sent[lastOfKey[message.key]]}`)
      lastOfKey[message.key] = place
    }
  }
  assert.deepEqual(read.flat().map(idOf).sort(), [...sent].sort(), 'every record once')
}

async function produceUnsafe() {
  const producer = kafka.producer()
  await producer.connect()
  for (const acks of [1, 0]) {
    for (let n = 0; n < 10; n++) await producer.send({ topic: unsafe, acks, messages: [{ value: String(n) }] })
  }
  await eventually(async () => {
    const total = (await admin.fetchTopicOffsets(unsafe)).reduce((sum, end) => sum + Number(end.offset), 0)
    // Nobody knows whether a record with acks 0 arrives at a broker that is not the leader any more.
    assert(total === 20 || (failover && total >= 10), `${total} records instead of 20`)
  })
  await producer.disconnect()
}

// A member of the group that loses its place after 6 s of silence.
async function groupMember() {
  const consumer = kafka.consumer({ groupId: group, sessionTimeout: 6000, heartbeatInterval: 500, maxWaitTimeInMs: 500 })
  await consumer.connect()
  await consumer.subscribe({ topic, fromBeginning: true })
  return consumer
}

// The second member of the group, in a process of its own: it says "record" for each that it reads until it is killed.
async function member() {
  await consume(await groupMember(), () => console.log('record'), () => false, 50)
}

// Kills the second member after it has read something: the first gets its partitions and reads all that was not committed.
async function groupOfTwo() {
  const other = spawn(process.execPath, [process.argv[1], 'member', bootstrap, prefix], { stdio: ['ignore', 'pipe', 'inherit'] })
  const said = await Promise.race([once(other.stdout, 'data'), once(other, 'exit'), sleep(15_000, 'nothing', { ref: false })])
  assert.match(String(said), /^record/)
  const consumer = await groupMember()
  let owned = 0
  let shared = false
  consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => {
    owned = payload.memberAssignment[topic]?.length ?? 0
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
    await consumer.commitOffsets(next)
  } finally {
    other.kill('SIGKILL')
    await consumer.disconnect()
  }
}

// Writes one more record: a new member sees this one and none that was committed.
async function resume() {
  const producer = kafka.producer()
  await producer.connect()
  await producer.send({ topic, messages: [{ value: 'more', headers: { id: 'resume-000' } }] })
  await producer.disconnect()
  const consumer = await groupMember()
  const seen = []
  const next = await consume(consumer, (_, message) => seen.push(idOf(message)), () => seen.length > 0)
  assert.deepEqual(seen, ['resume-000'])
  await consumer.commitOffsets(next)
  await consumer.disconnect()
}

async function seek() {
  const middle = start + Math.floor(sent.length / 2) * 1000
  const consumer = kafka.consumer({ groupId: reader })
  await consumer.connect()
  await consumer.subscribe({ topic })
  const waiting = new Set()
  const starts = []
  for (const { partition, offset } of await admin.fetchTopicOffsetsByTimestamp(topic, middle)) {
    const first = read[partition].find(message => Number(message.timestamp) >= middle)
    if (!first) continue
    assert.equal(offset, first.offset, `partition ${partition}`)
    waiting.add(partition)
    starts.push({ topic, partition, offset })
  }
  const early = []
  const reading = consume(consumer, (partition, message) => {
    if (waiting.delete(partition) && Number(message.timestamp) < middle) early.push(idOf(message))
  }, () => waiting.size === 0)
  for (const from of starts) consumer.seek(from)
  await reading
  assert.deepEqual(early, [], 'records before the time')
  await consumer.disconnect()
}

async function topics() {
  assert((await admin.listTopics()).includes(topic), 'it is not listed')
  const { topics: [described] } = await admin.fetchTopicMetadata({ topics: [topic] })
  assert.equal(described.partitions.length, PARTITIONS)
  for (const partition of described.partitions) assert(partition.leader >= 0 && partition.isr.length > 0, JSON.stringify(partition))
  assert((await admin.describeCluster()).brokers.length > 0)
}

async function groups() {
  assert((await admin.listGroups()).groups.some(listed => listed.groupId === group), 'it is not listed')
  await eventually(async () => {
    const { groups: [described] } = await admin.describeGroups([group])
    assert.equal(described.state, 'Empty')
  })
  const ends = await admin.fetchTopicOffsets(topic)
  const [{ partitions }] = await admin.fetchOffsets({ groupId: group, topics: [topic] })
  for (const { partition, offset } of partitions) assert.equal(offset, ends.find(end => end.partition === partition).high)
}

async function config() {
  const resource = { type: ConfigResourceTypes.TOPIC, name: topic }
  await admin.alterConfigs({ validateOnly: false, resources: [{ ...resource, configEntries: [{ name: 'retention.ms', value: '86400000' }] }] })
  await eventually(async () => {
    const { resources } = await admin.describeConfigs({ includeSynonyms: false, resources: [{ ...resource, configNames: ['retention.ms'] }] })
    assert.equal(resources[0].configEntries[0].configValue, '86400000')
  })
}

async function deleteRecords() {
  await admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: '5' }] })
  const first = (await admin.fetchTopicOffsets(topic)).find(({ partition }) => partition === 0)
  assert.equal(first.low, '5')
}

async function addPartitions() {
  await admin.createPartitions({ topicPartitions: [{ topic, count: PARTITIONS + 1 }] })
  await eventually(async () => {
    const { topics: [described] } = await admin.fetchTopicMetadata({ topics: [topic] })
    assert.equal(described.partitions.length, PARTITIONS + 1)
  })
}

async function remove() {
  await admin.deleteGroups([group, reader])
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
  await admin.connect()
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
