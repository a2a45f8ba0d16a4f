// SPDX-License-Identifier: GPL-2.0-or-later
// A few etcd calls over the JSON gateway, for tests and diagnosis: independent of the code under test.

const encode = (text: string): string => Buffer.from(text).toString('base64');
const decode = (text: string): string => Buffer.from(text, 'base64').toString();

/** The key after all keys that start with `prefix`. */
function prefixEnd(prefix: string): string {
  const bytes = Buffer.from(prefix);
  bytes.writeUInt8((bytes.at(-1) ?? 0) + 1, bytes.length - 1);
  return bytes.toString('base64');
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null;
}

export interface EtcdEvent {
  key: string;
  /** '' for a deletion. */
  value: string;
  deleted: boolean;
  revision: number;
}

export class EtcdHttp {
  readonly address: string;

  /** address: `http://host:port` */
  constructor(address: string) {
    this.address = address;
  }

  async #call(path: string, body: Record<string, unknown>, timeoutMs = 5000): Promise<Record<string, unknown>> {
    const response = await fetch(`${this.address}/v3${path}`, {
      method: 'POST',
      body: JSON.stringify(body),
      signal: AbortSignal.timeout(timeoutMs),
    });
    const reply: unknown = await response.json();
    if (!response.ok || !isObject(reply)) {
      throw new Error(`etcd ${this.address}${path}: ${response.status} ${JSON.stringify(reply)}`);
    }
    return reply;
  }

  /** Whole keys → values of everything below a prefix. */
  async prefix(prefix: string): Promise<Map<string, string>> {
    return await this.#range({ key: encode(prefix), range_end: prefixEnd(prefix) });
  }

  async get(key: string): Promise<string | undefined> {
    return (await this.#range({ key: encode(key) })).get(key);
  }

  async #range(body: Record<string, unknown>): Promise<Map<string, string>> {
    const { kvs } = await this.#call('/kv/range', body);
    const result = new Map<string, string>();
    for (const pair of Array.isArray(kvs) ? kvs : []) {
      if (isObject(pair)) result.set(decode(String(pair['key'] ?? '')), decode(String(pair['value'] ?? '')));
    }
    return result;
  }

  /** Revision of creation and lease ('0': none) of a key; undefined when it is not there. */
  async origin(key: string): Promise<{ createRevision: string; lease: string } | undefined> {
    const { kvs } = await this.#call('/kv/range', { key: encode(key) });
    const pair: unknown = Array.isArray(kvs) ? kvs[0] : undefined;
    return isObject(pair) ? { createRevision: String(pair['create_revision'] ?? ''), lease: String(pair['lease'] ?? '0') } : undefined;
  }

  /** Of everything below a prefix: revision of creation and value. */
  async origins(prefix: string): Promise<Map<string, { createRevision: string; value: string }>> {
    const { kvs } = await this.#call('/kv/range', { key: encode(prefix), range_end: prefixEnd(prefix) });
    const result = new Map<string, { createRevision: string; value: string }>();
    for (const pair of Array.isArray(kvs) ? kvs : []) {
      if (!isObject(pair)) continue;
      result.set(decode(String(pair['key'] ?? '')), { createRevision: String(pair['create_revision'] ?? ''), value: decode(String(pair['value'] ?? '')) });
    }
    return result;
  }

  /** Ends a lease and deletes its keys. */
  async revoke(lease: string): Promise<void> {
    await this.#call('/lease/revoke', { ID: lease });
  }

  async put(key: string, value: string): Promise<void> {
    await this.#call('/kv/put', { key: encode(key), value: encode(value) });
  }

  async delete(key: string): Promise<void> {
    await this.#call('/kv/deleterange', { key: encode(key) });
  }

  async deletePrefix(prefix: string): Promise<void> {
    await this.#call('/kv/deleterange', { key: encode(prefix), range_end: prefixEnd(prefix) });
  }

  /**
   * Every change below a prefix from now on, until the returned function is called. Resolves when etcd watches. A watch that ends by itself
   * is not repeated: this is for looking at seconds.
   */
  async watch(prefix: string, onEvent: (event: EtcdEvent) => void): Promise<() => void> {
    const controller = new AbortController();
    const response = await fetch(`${this.address}/v3/watch`, {
      method: 'POST',
      body: JSON.stringify({ create_request: { key: encode(prefix), range_end: prefixEnd(prefix) } }),
      signal: controller.signal,
    });
    const reader = response.body?.getReader();
    if (!reader) throw new Error(`etcd ${this.address}: a watch without a body`);
    const decoder = new TextDecoder();
    let rest = '';
    const take = (text: string): void => {
      const lines = (rest + text).split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) {
        const message: unknown = line === '' ? {} : JSON.parse(line);
        const result = isObject(message) ? message['result'] : undefined;
        const events: unknown = isObject(result) ? result['events'] : undefined;
        for (const event of Array.isArray(events) ? events : []) {
          const kv: unknown = isObject(event) ? event['kv'] : undefined;
          if (!isObject(event) || !isObject(kv)) continue;
          onEvent({
            key: decode(String(kv['key'] ?? '')), value: decode(String(kv['value'] ?? '')), deleted: event['type'] === 'DELETE',
            revision: Number(kv['mod_revision'] ?? 0),
          });
        }
      }
    };
    const first = await reader.read();
    take(decoder.decode(first.value ?? new Uint8Array(), { stream: true }));
    const follow = async (): Promise<void> => {
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return;
        take(decoder.decode(value, { stream: true }));
      }
    };
    follow().catch(() => undefined);
    return () => controller.abort();
  }

  /** Forgets everything before the present revision: watches from the past are cancelled. */
  async compact(): Promise<void> {
    const { header } = await this.#call('/kv/range', { key: encode('\x00') });
    const revision = isObject(header) ? header['revision'] : undefined;
    await this.#call('/kv/compaction', { revision, physical: true });
  }

  /** True when it answers within the time given. */
  async alive(timeoutMs = 1000): Promise<boolean> {
    try {
      await this.#call('/maintenance/status', {}, timeoutMs);
      return true;
    } catch {
      return false;
    }
  }
}
