// @platformatic/kafka.

import { randomUUID } from 'node:crypto'

import { Admin, Consumer, Producer, ProduceAcks } from '@platformatic/kafka'

import { Inbox, offsetsFrom, serve, unhex, version } from './adapter.mjs'

const TOPIC = 2

class Platformatic {
  inbox = new Inbox()

  constructor (bootstrap) {
    this.base = { clientId: 'adapter', bootstrapBrokers: [bootstrap], retries: 5, retryDelay: 200 }
  }

  hello () {
    return {
      version: version('@platformatic/kafka'), codecs: ['none', 'gzip', 'snappy', 'lz4', 'zstd'],
      // Of a batch's timestamps those more than 2^31 ms behind the first are written wrong, with any broker.
      lacks: ['falling timestamps', 'distant timestamps']
    }
  }

  async produce ({ topic, codec, acks, idempotent, records }) {
    const producer = new Producer({
      ...this.base, idempotent, compression: codec, autocreateTopics: false
    })
    try {
      const messages = records.map(record => {
        const message = { topic, headers: new Map(record.headers.map(([name, value]) => [Buffer.from(name), unhex(value)])) }
        if (record.key !== null) message.key = unhex(record.key)
        if (record.value !== null) message.value = unhex(record.value)
        if (record.partition !== null) message.partition = record.partition
        if (record.timestamp !== null) message.timestamp = BigInt(record.timestamp)
        return message
      })
      // What the producer is made with does not count: each call that does not say so waits for the leader alone.
      const wanted = { all: ProduceAcks.ALL, 1: ProduceAcks.LEADER, 0: ProduceAcks.NO_RESPONSE }[acks]
      const { offsets } = await producer.send({ messages, acks: wanted })
      return { offsets: offsetsFrom(records, (offsets ?? []).map(o => [o.partition, Number(o.offset)])) }
    } finally {
      await producer.close()
    }
  }

  async transaction ({ topic, transactional_id: transactionalId }) {
    const producer = new Producer({ ...this.base, idempotent: true, transactionalId, autocreateTopics: false })
    try {
      const transaction = await producer.beginTransaction()
      await transaction.send({ messages: [{ topic, value: Buffer.from('in a transaction') }] })
      await transaction.commit()
    } finally {
      await producer.close()
    }
  }

  async open (topic, group, options, stream) {
    await this.close()
    this.inbox = new Inbox()
    this.revoked = []
    this.held = []
    this.next = new Map()
    this.topic = topic
    this.consumer = new Consumer({ ...this.base, groupId: group, autocommit: false, maxWaitTime: 500, ...options })
    const isEager = options.protocols === undefined
    this.consumer.on('consumer:group:join', () => {
      // What was fetched before and not handed out is fetched again.
      if (isEager) {
        this.inbox.records = []
        this.next.clear()
      }
      this.look()
    })
    this.stream = await this.consumer.consume({ topics: [topic], ...stream })
    const inbox = this.inbox
    this.stream.on('data', message => {
      // A fetch that was under way in a rebalance is not cancelled, and gives what others get, or the next fetch gives again.
      if (!this.held.includes(message.partition) || this.next.get(message.partition)?.offset > message.offset) return
      const headers = message.headerEntries.map(([name, value]) => [name.toString(), value])
      inbox.add(message.partition, message.offset, message.timestamp, message.key, message.value, headers)
      this.next.set(message.partition, { topic, partition: message.partition, offset: message.offset + 1n, leaderEpoch: message.leaderEpoch })
    })
    this.stream.on('error', error => { this.failed = error })
    this.look()
  }

  // What it holds now, and what it does not hold any more.
  look () {
    const now = (this.consumer.assignments ?? []).filter(a => a.topic === this.topic).flatMap(a => a.partitions)
    this.revoked.push(...this.held.filter(p => !now.includes(p)))
    this.held = now
    this.inbox.records = this.inbox.records.filter(([partition]) => now.includes(partition))
    for (const partition of this.next.keys()) if (!now.includes(partition)) this.next.delete(partition)
  }

  // It consumes in a group or not at all.
  async assign ({ topic, partitions, start }) {
    const group = `assign-${randomUUID()}`
    const modes = { start: { mode: 'earliest' }, end: { mode: 'latest' } }
    let stream = modes[start]
    if (stream === undefined) {
      const { offsets } = await this.list_offsets({ topic, partitions, at: start })
      stream = { mode: 'manual', offsets: offsets.map(([partition, offset]) => ({ topic, partition, offset: BigInt(offset) })) }
    }
    await this.open(topic, group, {}, stream)
  }

  async subscribe ({ topic, group, strategy, instance, session_ms: session }) {
    const options = { sessionTimeout: session, heartbeatInterval: session / 6, rebalanceTimeout: 2 * session }
    if (strategy === 'cooperative') options.protocols = [{ name: 'cooperative-sticky', version: 1 }]
    if (instance !== null) options.groupInstanceId = instance
    await this.open(topic, group, options, { mode: 'committed', fallbackMode: 'earliest' })
  }

  async poll ({ ms }) {
    const records = await this.inbox.take(ms)
    if (this.failed) {
      const failed = this.failed
      this.failed = undefined
      throw failed
    }
    this.look()
    return { records, assignment: [...this.held].sort((a, b) => a - b), revoked: this.revoked.splice(0) }
  }

  async commit () {
    const offsets = [...this.next.values()]
    if (offsets.length > 0) await this.consumer.commit({ offsets })
  }

  async close () {
    await this.stream?.close()
    await this.consumer?.close(true)
    this.stream = this.consumer = undefined
  }

  async onAdmin (use) {
    const admin = new Admin(this.base)
    try {
      return await use(admin)
    } finally {
      await admin.close()
    }
  }

  async metadata ({ prefix }) {
    return this.onAdmin(async admin => {
      const names = (await admin.listTopics()).filter(n => n.startsWith(prefix))
      const { topics } = await admin.metadata({ topics: names })
      return { topics: [...topics].map(([name, topic]) => [name, topic.partitions.length]) }
    })
  }

  async create_topic ({ topic, partitions, configs }) {
    const entries = Object.entries(configs).map(([name, value]) => ({ name, value }))
    await this.onAdmin(admin => admin.createTopics({ topics: [topic], partitions, replicas: 1, configs: entries }))
  }

  async delete_topic ({ topic }) {
    await this.onAdmin(admin => admin.deleteTopics({ topics: [topic] }))
  }

  async describe_cluster () {
    const { id, controllerId, brokers } = await this.onAdmin(admin => admin.metadata({ topics: [] }))
    return { cluster_id: id, controller: controllerId, brokers: [...brokers].map(([node, b]) => [node, b.host, b.port]) }
  }

  async describe_topic ({ topic }) {
    const { topics } = await this.onAdmin(admin => admin.metadata({ topics: [topic] }))
    return { partitions: topics.get(topic).partitions.map((p, number) => [number, p.leader, p.replicas.length, p.isr.length]) }
  }

  async describe_configs ({ topic }) {
    const resources = [{ resourceType: TOPIC, resourceName: topic, configurationKeys: null }]
    const [found] = await this.onAdmin(admin => admin.describeConfigs({ resources }))
    return { configs: Object.fromEntries(found.configs.map(c => [c.name, c.value])) }
  }

  async alter_configs ({ topic, configs }) {
    const SET = 0
    const entries = Object.entries(configs).map(([name, value]) => ({ name, value, configOperation: SET }))
    const resources = [{ resourceType: TOPIC, resourceName: topic, configs: entries }]
    await this.onAdmin(admin => admin.incrementalAlterConfigs({ resources }))
  }

  async create_partitions ({ topic, count }) {
    await this.onAdmin(admin => admin.createPartitions({ topics: [{ name: topic, count }] }))
  }

  async list_offsets ({ topic, partitions, at }) {
    const timestamp = { start: -2n, end: -1n }[at] ?? BigInt(at)
    const topics = [{ name: topic, partitions: partitions.map(partitionIndex => ({ partitionIndex, timestamp })) }]
    const [found] = await this.onAdmin(admin => admin.listOffsets({ topics }))
    return { offsets: found.partitions.map(p => [p.partitionIndex, Number(p.offset)]) }
  }

  async delete_records ({ topic, partition, before }) {
    const topics = [{ name: topic, partitions: [{ partition, offset: BigInt(before) }] }]
    const [deleted] = await this.onAdmin(admin => admin.deleteRecords({ topics }))
    return { low: Number(deleted.partitions[0].lowWatermark) }
  }

  async list_groups () {
    return { groups: [...(await this.onAdmin(admin => admin.listGroups())).keys()] }
  }

  async describe_group ({ group }) {
    const found = (await this.onAdmin(admin => admin.describeGroups({ groups: [group] }))).get(group)
    return { state: found.state, members: found.members.size }
  }

  async group_offsets ({ group }) {
    const [found] = await this.onAdmin(admin => admin.listConsumerGroupOffsets({ groups: [group] }))
    return { offsets: found.topics.flatMap(t => t.partitions.map(p => [t.name, p.partitionIndex, Number(p.committedOffset)])) }
  }

  async delete_group ({ group }) {
    await this.onAdmin(admin => admin.deleteGroups({ groups: [group] }))
  }

  async log_dirs ({ topic }) {
    const { partitions } = await this.describe_topic({ topic })
    const topics = [{ name: topic, partitions: partitions.map(([number]) => number) }]
    const brokers = await this.onAdmin(admin => admin.describeLogDirs({ topics }))
    const found = brokers.flatMap(b => b.results).flatMap(r => r.topics).flatMap(t => t.partitions)
    return { size: found.reduce((sum, p) => sum + Number(p.partitionSize), 0) }
  }
}

// Its errors are trees; Kafka's number is on a leaf.
function codeOf (error) {
  if (Number.isInteger(error.apiCode)) return error.apiCode
  return [error.cause, ...(error.errors ?? [])].filter(Boolean).map(codeOf).find(code => code !== undefined)
}

serve(new Platformatic(process.argv[2]), codeOf)
