// Protocol buffers as the contract has them: plain objects to bytes and back, led by the tables in contract.js.
//
// Fields are written in the order of their numbers and left out at their defaults, as every other writer of proto3 does.
// 64-bit integers are BigInt; enums are numbers; a member of a oneof is undefined where it is not the one that is set.

import { MESSAGES } from "./contract.js";

const VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5;
const TEXT = new TextEncoder(), READ_TEXT = new TextDecoder("utf-8", { fatal: true });
const MAX_DEPTH = 32;

const WIRE = {
  uint32: VARINT, int32: VARINT, uint64: VARINT, int64: VARINT, bool: VARINT, enum: VARINT,
  double: FIXED64, float: FIXED32, string: BYTES, bytes: BYTES, message: BYTES,
};
const ZERO = {
  uint32: 0, int32: 0, uint64: 0n, int64: 0n, bool: false, enum: 0, double: 0, float: 0, string: "",
};

class Writer {
  constructor() { this.parts = []; this.length = 0; }

  raw(bytes) { this.parts.push(bytes); this.length += bytes.length; }

  varint(value) {
    let rest = BigInt.asUintN(64, BigInt(value));
    const out = [];
    while (rest > 127n) { out.push(Number(rest & 127n) | 128); rest >>= 7n; }
    out.push(Number(rest));
    this.raw(Uint8Array.from(out));
  }

  block(bytes) { this.varint(bytes.length); this.raw(bytes); }

  value(type, name, value) {
    switch (type) {
      case "bool": return this.varint(value ? 1 : 0);
      case "double": return this.raw(new Uint8Array(Float64Array.of(value).buffer));
      case "float": return this.raw(new Uint8Array(Float32Array.of(value).buffer));
      case "string": return this.block(TEXT.encode(value));
      case "bytes": return this.block(value);
      case "message": return this.block(encode(name, value));
      default: return this.varint(value);
    }
  }

  finish() {
    const out = new Uint8Array(this.length);
    let at = 0;
    for (const part of this.parts) { out.set(part, at); at += part.length; }
    return out;
  }
}

function isDefault(type, value) {
  return type === "bytes" ? value.length === 0 : value === ZERO[type];
}

/** The bytes of `object`, a message called `name`. */
export function encode(name, object) {
  const out = new Writer();
  for (const [number, field, type, kind, of] of MESSAGES[name]) {
    const value = object[field];
    if (value === undefined || value === null) continue;
    const tag = (wire) => out.varint(number << 3 | wire);
    if (kind !== "repeated") {
      if (kind === "single" && type !== "message" && isDefault(type, value)) continue;
      tag(WIRE[type]);
      out.value(type, of, value);
    } else if (WIRE[type] === BYTES) {
      for (const one of value) { tag(BYTES); out.value(type, of, one); }
    } else if (value.length > 0) {
      const packed = new Writer();
      for (const one of value) packed.value(type, of, one);
      tag(BYTES);
      out.block(packed.finish());
    }
  }
  return out.finish();
}

class Reader {
  constructor(bytes) {
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.at = 0;
  }

  get more() { return this.at < this.bytes.length; }

  take(length) {
    if (length > this.bytes.length - this.at) throw new RangeError("a message ends too early");
    this.at += length;
    return this.bytes.subarray(this.at - length, this.at);
  }

  varint() {
    let value = 0n;
    for (let shift = 0n; shift < 70n; shift += 7n) {
      const byte = this.take(1)[0];
      value |= BigInt(byte & 127) << shift;
      if (byte < 128) return BigInt.asUintN(64, value);
    }
    throw new RangeError("a number has more than ten bytes");
  }

  block() { return this.take(Number(this.varint())); }

  value(type, name, depth) {
    switch (type) {
      case "uint32": return Number(BigInt.asUintN(32, this.varint()));
      case "int32": case "enum": return Number(BigInt.asIntN(32, this.varint()));
      case "uint64": return this.varint();
      case "int64": return BigInt.asIntN(64, this.varint());
      case "bool": return this.varint() !== 0n;
      case "double": this.take(8); return this.view.getFloat64(this.at - 8, true);
      case "float": this.take(4); return this.view.getFloat32(this.at - 4, true);
      case "string": return READ_TEXT.decode(this.block());
      case "bytes": return this.block().slice();
      case "message": return decode(name, this.block(), depth + 1);
      default: throw new TypeError(`no such type: ${type}`);
    }
  }

  skip(wire) {
    switch (wire) {
      case VARINT: return this.varint();
      case FIXED64: return this.take(8);
      case BYTES: return this.block();
      case FIXED32: return this.take(4);
      default: throw new RangeError(`no such wire type: ${wire}`);
    }
  }
}

/** The message called `name` in `bytes`; fields that are not known are passed over. */
export function decode(name, bytes, depth = 0) {
  if (depth > MAX_DEPTH) throw new RangeError("messages are nested too deep");
  const fields = new Map(), object = {};
  for (const field of MESSAGES[name]) {
    const [number, key, type, kind] = field;
    fields.set(number, field);
    if (kind === "repeated") object[key] = [];
    else if (kind === "single" && type !== "message") object[key] = type === "bytes" ? new Uint8Array() : ZERO[type];
  }
  const read = new Reader(bytes);
  while (read.more) {
    const tag = Number(read.varint()), wire = tag & 7;
    const field = fields.get(Math.floor(tag / 8));
    if (!field) { read.skip(wire); continue; }
    const [, key, type, kind, of] = field;
    if (kind === "repeated" && wire === BYTES && WIRE[type] !== BYTES) {
      const packed = new Reader(read.block());
      while (packed.more) object[key].push(packed.value(type, of, depth));
    } else if (wire !== WIRE[type]) {
      throw new RangeError(`${name}.${key} has another type`);
    } else if (kind === "repeated") {
      object[key].push(read.value(type, of, depth));
    } else {
      object[key] = read.value(type, of, depth);
    }
  }
  return object;
}
