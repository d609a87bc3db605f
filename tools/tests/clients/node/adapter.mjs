// What the Node adapters share: the loop that reads one request a line and answers each with one line (see ../README.md).

import { readFileSync } from 'node:fs'
import { createInterface } from 'node:readline'

export class Unsupported extends Error {}

export const unhex = hex => (hex === null ? null : Buffer.from(hex, 'hex'))
export const hex = bytes => (bytes === null || bytes === undefined ? null : Buffer.from(bytes).toString('hex'))
export const sleep = ms => new Promise(resolve => setTimeout(resolve, ms))

// Version of an installed package.
export const version = name => JSON.parse(readFileSync(new URL(`node_modules/${name}/package.json`, import.meta.url))).version

// What a consumer gave and nobody has asked for yet.
export class Inbox {
  records = []

  add (partition, offset, timestamp, key, value, headers) {
    const pairs = headers.map(([name, header]) => [name, hex(header)])
    this.records.push([partition, Number(offset), Number(timestamp), hex(key), hex(value), pairs])
  }

  // Waits for the first record, and a moment for those that come with it.
  async take (ms) {
    for (const until = Date.now() + ms; this.records.length === 0 && Date.now() < until;) await sleep(10)
    if (this.records.length > 0) await sleep(10)
    return this.records.splice(0)
  }
}

// Offsets of records, from the base offset of each partition's batch; -1 where the client chose the partition.
export function offsetsFrom (records, bases) {
  const next = new Map(bases)
  return records.map(({ partition }) => {
    if (partition === null || !next.has(partition) || next.get(partition) < 0) return [partition ?? -1, -1]
    const offset = next.get(partition)
    next.set(partition, offset + 1)
    return [partition, offset]
  })
}

export async function serve (client, codeOf) {
  const write = process.stdout.write.bind(process.stdout)
  // Whatever a library prints must not end up between the answers.
  console.log = console.warn = console.error
  for await (const line of createInterface({ input: process.stdin, crlfDelay: Infinity })) {
    const { op, ...request } = JSON.parse(line)
    let answer
    try {
      if (typeof client[op] !== 'function') throw new Unsupported(`no ${op.replaceAll('_', ' ')}`)
      answer = { ok: (await client[op](request)) ?? {} }
    } catch (error) {
      if (error instanceof Unsupported) {
        answer = { unsupported: error.message }
      } else {
        console.error(error)
        answer = { error: String(error), code: codeOf(error) ?? null }
      }
    }
    write(JSON.stringify(answer) + '\n')
  }
  process.exit(0)
}
