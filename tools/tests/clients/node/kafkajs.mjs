// KafkaJS; of the codecs it brings gzip, the others are given to it as its documentation says.

import { randomUUID } from 'node:crypto'
import zlib from 'node:zlib'

import kafkajs from 'kafkajs'
import SnappyCodec from 'kafkajs-snappy'
import lz4 from 'lz4-napi'

import { Inbox, Unsupported, offsetsFrom, serve, unhex, version } from './adapter.mjs'

const { Kafka, CompressionTypes, CompressionCodecs, ConfigResourceTypes, Partitioners, logLevel } = kafkajs
CompressionCodecs[CompressionTypes.Snappy] = SnappyCodec
CompressionCodecs[CompressionTypes.LZ4] = () => ({
  compress: encoder => lz4.compressFrame(encoder.buffer),
  decompress: buffer => lz4.decompressFrame(buffer)
})
CompressionCodecs[CompressionTypes.ZSTD] = () => ({
  compress: async encoder => zlib.zstdCompressSync(encoder.buffer),
  decompress: async buffer => zlib.zstdDecompressSync(buffer)
})

const codecs = {
  none: CompressionTypes.None, gzip: CompressionTypes.GZIP, snappy: CompressionTypes.Snappy,
  lz4: CompressionTypes.LZ4, zstd: CompressionTypes.ZSTD
}

class KafkaJs {
  inbox = new Inbox()
  held = new Set()
  revoked = []
  next = new Map()

  constructor (bootstrap) {
    this.kafka = new Kafka({ brokers: [bootstrap], logLevel: logLevel.NOTHING, retry: { initialRetryTime: 100, retries: 8 } })
  }

  hello () {
    return { version: version('kafkajs'), codecs: Object.keys(codecs), lacks: ['header order', 'null header'] }
  }

  async produce ({ topic, codec, acks, idempotent, records }) {
    const producer = this.kafka.producer({
      idempotent, createPartitioner: Partitioners.DefaultPartitioner, allowAutoTopicCreation: false, maxInFlightRequests: idempotent ? 1 : 5
    })
    await producer.connect()
    try {
      const messages = records.map(record => {
        const headers = {}
        for (const [name, value] of record.headers) {
          headers[name] = name in headers ? [headers[name], unhex(value)].flat() : unhex(value)
        }
        return {
          key: unhex(record.key), value: unhex(record.value), headers, partition: record.partition ?? undefined,
          timestamp: record.timestamp === null ? undefined : String(record.timestamp)
        }
      })
      const told = await producer.send({ topic, messages, compression: codecs[codec], acks: acks === 'all' ? -1 : Number(acks) })
      return { offsets: offsetsFrom(records, told.map(t => [t.partition, Number(t.baseOffset ?? -1)])) }
    } finally {
      await producer.disconnect()
    }
  }

  async transaction ({ topic, transactional_id: transactionalId }) {
    const producer = this.kafka.producer({
      transactionalId, idempotent: true, maxInFlightRequests: 1, createPartitioner: Partitioners.DefaultPartitioner
    })
    await producer.connect()
    try {
      const transaction = await producer.transaction()
      await transaction.send({ topic, messages: [{ value: 'in a transaction' }] })
      await transaction.commit()
    } finally {
      await producer.disconnect()
    }
  }

  async open (topic, group, config, fromBeginning) {
    await this.close()
    Object.assign(this, { inbox: new Inbox(), held: new Set(), revoked: [], next: new Map() })
    const consumer = this.kafka.consumer({ groupId: group, allowAutoTopicCreation: false, maxWaitTimeInMs: 500, ...config })
    this.consumer = consumer
    this.topic = topic
    consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => {
      // What was fetched in the last generation and not handed out is fetched again.
      this.inbox.records = []
      this.next = new Map()
      const now = new Set(payload.memberAssignment[topic] ?? [])
      this.revoked.push(...this.held)
      this.held = now
    })
    consumer.on(consumer.events.REBALANCING, () => {
      this.revoked.push(...this.held)
      this.held = new Set()
    })
    await consumer.connect()
    await consumer.subscribe({ topics: [topic], fromBeginning })
    await consumer.run({
      autoCommit: false,
      eachMessage: async ({ partition, message }) => {
        const headers = Object.entries(message.headers ?? {}).flatMap(([name, values]) => [values].flat().map(v => [name, v]))
        this.inbox.add(partition, message.offset, message.timestamp, message.key, message.value, headers)
      }
    })
  }

  // It consumes in a group or not at all; where to start is told by the group's offsets.
  async assign ({ topic, partitions, start }) {
    const group = `assign-${randomUUID()}`
    if (typeof start === 'number') {
      const offsets = await this.onAdmin(admin => admin.fetchTopicOffsetsByTimestamp(topic, start))
      await this.onAdmin(admin => admin.setOffsets({ groupId: group, topic, partitions: offsets }))
    }
    await this.open(topic, group, {}, start === 'start')
  }

  async subscribe ({ topic, group, strategy, instance, session_ms: session }) {
    if (strategy !== 'eager') throw new Unsupported('KafkaJS has no cooperative rebalancing')
    if (instance !== null) throw new Unsupported('KafkaJS has no static members')
    await this.open(topic, group, { sessionTimeout: session, heartbeatInterval: session / 6, rebalanceTimeout: 10_000 }, true)
  }

  async poll ({ ms }) {
    const records = await this.inbox.take(ms)
    for (const [partition, offset] of records) this.next.set(partition, offset + 1)
    return { records, assignment: [...this.held].sort((a, b) => a - b), revoked: this.revoked.splice(0) }
  }

  async commit () {
    await this.consumer.commitOffsets(
      [...this.next].map(([partition, offset]) => ({ topic: this.topic, partition, offset: String(offset) })))
  }

  async close () {
    await this.consumer?.disconnect()
    this.consumer = undefined
  }

  async onAdmin (use) {
    const admin = this.kafka.admin()
    await admin.connect()
    try {
      return await use(admin)
    } finally {
      await admin.disconnect()
    }
  }

  async metadata ({ prefix }) {
    const { topics } = await this.onAdmin(admin => admin.fetchTopicMetadata())
    return { topics: topics.filter(t => t.name.startsWith(prefix)).map(t => [t.name, t.partitions.length]) }
  }

  async create_topic ({ topic, partitions, configs }) {
    const configEntries = Object.entries(configs).map(([name, value]) => ({ name, value }))
    const topics = [{ topic, numPartitions: partitions, replicationFactor: 1, configEntries }]
    const made = await this.onAdmin(admin => admin.createTopics({ topics, waitForLeaders: true }))
    // That it was there already is all that it tells so.
    if (!made) throw Object.assign(new Error(`topic ${topic} already exists`), { code: 36 })
  }

  async delete_topic ({ topic }) {
    await this.onAdmin(admin => admin.deleteTopics({ topics: [topic] }))
  }

  async describe_cluster () {
    const { brokers, controller, clusterId } = await this.onAdmin(admin => admin.describeCluster())
    return { cluster_id: clusterId, controller, brokers: brokers.map(b => [b.nodeId, b.host, b.port]) }
  }

  async describe_topic ({ topic }) {
    const { topics } = await this.onAdmin(admin => admin.fetchTopicMetadata({ topics: [topic] }))
    return { partitions: topics[0].partitions.map(p => [p.partitionId, p.leader, p.replicas.length, p.isr.length]) }
  }

  async describe_configs ({ topic }) {
    const resources = [{ type: ConfigResourceTypes.TOPIC, name: topic }]
    const told = await this.onAdmin(admin => admin.describeConfigs({ resources, includeSynonyms: false }))
    return { configs: Object.fromEntries(told.resources[0].configEntries.map(e => [e.configName, e.configValue])) }
  }

  async alter_configs ({ topic, configs }) {
    const configEntries = Object.entries(configs).map(([name, value]) => ({ name, value }))
    const resources = [{ type: ConfigResourceTypes.TOPIC, name: topic, configEntries }]
    await this.onAdmin(admin => admin.alterConfigs({ resources, validateOnly: false }))
  }

  async create_partitions ({ topic, count }) {
    await this.onAdmin(admin => admin.createPartitions({ topicPartitions: [{ topic, count }] }))
  }

  async list_offsets ({ topic, partitions, at }) {
    const found = await this.onAdmin(admin =>
      typeof at === 'number' ? admin.fetchTopicOffsetsByTimestamp(topic, at) : admin.fetchTopicOffsets(topic))
    const field = { start: 'low', end: 'high' }[at] ?? 'offset'
    return { offsets: found.filter(f => partitions.includes(f.partition)).map(f => [f.partition, Number(f[field])]) }
  }

  async delete_records ({ topic, partition, before }) {
    await this.onAdmin(async admin => {
      // Without metadata of the topic it fails by itself.
      await admin.fetchTopicMetadata({ topics: [topic] })
      await admin.deleteTopicRecords({ topic, partitions: [{ partition, offset: String(before) }] })
    })
    return { low: null }
  }

  async list_groups () {
    const { groups } = await this.onAdmin(admin => admin.listGroups())
    return { groups: groups.map(g => g.groupId) }
  }

  async describe_group ({ group }) {
    const { groups } = await this.onAdmin(admin => admin.describeGroups([group]))
    return { state: groups[0].state, members: groups[0].members.length }
  }

  async group_offsets ({ group }) {
    const found = await this.onAdmin(admin => admin.fetchOffsets({ groupId: group }))
    return { offsets: found.flatMap(t => t.partitions.map(p => [t.topic, p.partition, Number(p.offset)])) }
  }

  async delete_group ({ group }) {
    await this.onAdmin(admin => admin.deleteGroups([group]))
  }
}

serve(new KafkaJs(process.argv[2]), error => {
  for (let at = error; at; at = at.cause ?? at.originalError ?? at.errors?.[0] ?? at.groups?.[0]?.error) {
    if (Number.isInteger(at.code)) return at.code
  }
})
