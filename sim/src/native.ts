// SPDX-License-Identifier: GPL-2.0-or-later
// The test-only addon: the simulated runtime, with the real engine and the real client on it. One clock, one thread; callbacks run
// from inside step(). Implemented by sim/binding; times in virtual nanoseconds.

import type { CreateEngine, EngineApi } from '@vitastor/osd';
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

export interface DiskOptions {
  sizeBytes: bigint;
  /** Unflushed sectors are kept or lost by a power cut. */
  volatileCache: boolean;
  /** They may also be torn, at multiples of 512 bytes. */
  tornSectors?: boolean;
  /** What a power cut keeps or loses as one; default 4096. */
  sectorBytes?: number;
  latencyNs?: number;
  jitterNs?: number;
  syncLatencyNs?: number;
  bytesPerUs?: number;
  /** Chance per operation of taking slowNs longer. */
  slowChance?: number;
  slowNs?: number;
  /** Chance per operation of moving fewer bytes than asked. */
  shortChance?: number;
}

export interface NetworkOptions {
  /** One way. */
  latencyNs?: number;
  jitterNs?: number;
  bytesPerUs?: number;
  /** Chance per send or receive of moving fewer bytes than it could. */
  shortChance?: number;
  /** Chance per send of being completed only after the peer has had the bytes, and perhaps answered. */
  lateSentChance?: number;
  /** Chance that a new connection dies, at a random byte below killAfterMaxBytes. */
  killChance?: number;
  killAfterMaxBytes?: number;
}

export interface SimEngine extends EngineApi {
  /** The process dies: nothing of it runs any more. Its node must be crashed first. */
  destroy(): void;
}

/** One pair of etcd for the native client. value '' = deleted. */
export interface NativePair {
  key: string;
  value: string;
  modRevision: bigint;
}

export interface SimClient {
  /** A full load of etcd, as of `revision`. */
  load(pairs: NativePair[], revision: bigint): void;
  apply(events: NativePair[], revision: bigint): void;
  /** done(0) or done(-errno). image: chosen by the caller. */
  openImage(image: number, name: string, done: (result: number) => void): void;
  /** data: `length` bytes when result ≥ 0, until done() returns. version: of the object, 0n if the range touches several. */
  read(image: number, offset: bigint, length: number, done: (result: number, version: bigint, data: Uint8Array) => void): void;
  write(image: number, offset: bigint, data: Uint8Array, done: (result: number, version: bigint) => void): void;
  /** Within one object, and only if its version is `expected`. */
  compareWrite(image: number, offset: bigint, data: Uint8Array, expected: bigint, done: (result: number, version: bigint) => void): void;
  discard(image: number, offset: bigint, length: number, done: (result: number) => void): void;
  /** Deletes one object, whatever the state of its PG. */
  remove(image: number, offset: bigint, done: (result: number) => void): void;
  flush(image: number, done: (result: number) => void): void;
  /** Full inode numbers, lowest first; target: index into layers. json: as of vitastor_merge(). */
  merge(layers: readonly bigint[], target: number, done: (result: number, json: string) => void): void;
  /** Data of an inode (full number) behind minOffset, 0n: all. json: as of vitastor_purge(). */
  purge(pool: number, inode: bigint, minOffset: bigint, done: (result: number, json: string) => void): void;
  destroy(): void;
}

export interface SimWorld {
  nowNs(): bigint;
  /** Runs native events up to `ns` until one has called into JavaScript (true); else lets time pass up to `ns` (false). */
  run(ns: bigint): boolean;
  /** Native events so far. */
  events(): number;
  /** Folds a line into the trace. */
  note(text: string): void;
  /** Writes one line per native event to a file from now on: the first line that differs between two runs tells where they part. */
  traceTo(path: string): void;
  /** Hash of everything that has happened, hexadecimal. */
  hash(): string;
  /** Returns the node's number. It is reachable at `address`. driftPpm: how much faster its clock runs than the world's. */
  addNode(name: string, address: string, driftPpm?: number): number;
  addDisk(path: string, options: DiskOptions): void;
  /** Fields that are absent stay as they are. */
  setDisk(path: string, options: Partial<DiskOptions>): void;
  /** Damages a random sector that holds data of the workload. Returns its offset in bytes, -1: none was found. */
  damageDisk(path: string, kind: 'bit rot' | 'misdirected write'): number;
  /** Fields that are absent stay as they are. */
  setNetwork(options: NetworkOptions): void;
  /** Resets all connections between two nodes. */
  killConnections(a: number, b: number): void;
  /** Connections that were to die at some byte (killChance) live on. */
  spareConnections(): void;
  /** The node's time of day jumps by so many microseconds; its monotonic clock does not. */
  jumpClock(node: number, us: number): void;
  /** Sockets die, operations in flight never complete. powerLoss: unflushed sectors of its disks are kept, lost or torn by the seed. */
  crash(node: number, powerLoss: boolean): void;
  /** A crashed node may be used again. */
  restart(node: number): void;
  /** Cuts messages from one node to another; connections that carry them die when they notice. */
  cut(from: number, to: number): void;
  /** In that direction. */
  heal(from: number, to: number): void;
  /** Engines that are created from now on have the faults of these bits built in: sim/binding/planted.hpp. */
  plant(bits: number): void;
  createEngine(node: number, onEvents: Parameters<CreateEngine>[0]): SimEngine;
  createClient(node: number, options: Record<string, string>): SimClient;
  destroy(): void;
}

export interface NativeModule {
  createWorld(seed: bigint): SimWorld;
  /** Probe name → times hit in this process. */
  probes(): Record<string, number>;
}

/** Throws where the addon was not built. */
export function loadNative(buildDir: string | undefined): NativeModule {
  const root = fileURLToPath(new URL('../../..', import.meta.url));
  const places = [...(buildDir === undefined ? [] : [buildDir]), join(root, 'build', 'dev')].map((dir) => join(dir, 'vitastor_sim.node'));
  const path = places.find((place) => existsSync(place));
  if (path === undefined) throw new Error(`the simulator's addon was not found (looked at ${places.join(', ')}): run \`npm run build\``);
  return createRequire(import.meta.url)(path) as NativeModule;
}
