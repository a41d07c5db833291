// The page: one stream to the node, the camera into it, answers out of it.

import { ENUMS } from "./contract.js";
import { decode, encode } from "./wire.js";
import { COLOURS, draw } from "./picture.js";
import { Card, say } from "./panel.js";
import { camera, files, take } from "./source.js";

const at = (id) => document.getElementById(id);
/** Frames that may be on their way: a second one hides the way there and back. */
const AHEAD = 2;
/** A frame that has no answer by then is counted as none: it was dropped, and the next answer says so. */
const FORGET_MS = 3000;
const HINTS = { any: 3 };

const state = {
  socket: null, source: null, facing: "environment", sending: false, seq: 0n,
  sent: new Map(), cards: new Map(), questions: new Map(), latencies: [], times: [], asked: 0, last: null, retry: 500,
};

function status(text, kind) {
  at("state").textContent = text;
  at("state").className = `state ${kind}`;
}

function show() {
  return { masks: at("masks").checked, boxes: at("boxes").checked, points: at("points").checked };
}

function token() { return sessionStorage.getItem("token") ?? ""; }

const hex = (text) => [...new TextEncoder().encode(text)].map((byte) => byte.toString(16).padStart(2, "0")).join("");

// ---- The stream

/** Says who serves; asks for a token until one is right. */
async function describe() {
  for (;;) {
    const headers = token() ? { authorization: `Bearer ${token()}` } : {};
    const answer = await fetch("describe", { headers });
    if (answer.ok) return decode("DescribeResponse", new Uint8Array(await answer.arrayBuffer()));
    if (answer.status !== 401) throw new Error(await answer.text());
    at("key").showModal();
    await new Promise((done) => at("key").addEventListener("close", done, { once: true }));
    sessionStorage.setItem("token", at("token").value.trim());
  }
}

async function connect() {
  status("connecting", "");
  try {
    const about = await describe();
    at("about").textContent = `${about.bundle_name} ${about.bundle_version} on ${about.backend}`;
  } catch (error) {
    return again(`no node: ${error.message}`);
  }
  const url = new URL("perceive", location.href);
  url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  const protocols = ["sam4mllm.v1", ...(token() ? [`sam4mllm.v1.bearer.${hex(token())}`] : [])];
  const socket = new WebSocket(url, protocols);
  socket.binaryType = "arraybuffer";
  socket.onopen = () => {
    state.socket = socket;
    // A stream counts anew, and knows nothing of the one before.
    state.seq = 0n;
    state.sent.clear();
    state.retry = 500;
    status("live", "live");
    const targets = [...state.cards.values()].map(({ id, command }) => ({ target_id: id, command, hint: HINTS.any }));
    if (targets.length) send({ set_targets: { targets } });
  };
  socket.onmessage = ({ data }) => hear(decode("PerceiveResponse", new Uint8Array(data)));
  socket.onclose = ({ code, reason }) => {
    if (state.socket === socket) state.socket = null;
    again(reason || `connection closed (${code})`);
  };
}

function again(why) {
  status("not connected", "down");
  say(at("log"), why, "bad");
  setTimeout(connect, state.retry);
  state.retry = Math.min(2 * state.retry, 10000);
}

function send(request) {
  const { socket } = state;
  if (socket?.readyState !== WebSocket.OPEN) return false;
  socket.send(encode("PerceiveRequest", request));
  return true;
}

function hear({ frame, rejected, answer }) {
  if (frame) answered(frame);
  if (rejected) say(at("log"), [rejected.target_id, rejected.error?.message].filter(Boolean).join(": "), "bad");
  if (answer) {
    const result = answer.response?.result;
    const verdict = result ? ENUMS.Verdict[result.verdict] : "FAILED";
    const text = result ? `${verdict}, ${Math.round(100 * result.confidence)} % sure` : answer.error?.message;
    say(at("log"), `${state.questions.get(answer.question_id) ?? answer.question_id}: ${text}`, result ? "good" : "bad");
    state.questions.delete(answer.question_id);
    if (result) {
      state.asking = { until: performance.now() + 2500, target: { ...result, target_id: "asked" } };
    }
  }
}

function answered(frame) {
  const now = performance.now(), sent = state.sent.get(frame.seq);
  if (sent) {
    state.latencies.push(now - sent.at);
    state.times.push(now);
    if (state.latencies.length > 200) state.latencies.shift();
    for (const [seq, { shown }] of state.sent) {
      if (seq > frame.seq) break;
      state.sent.delete(seq);
      if (shown !== sent.shown) shown.close();
    }
    state.last?.shown.close();
    state.last = { shown: sent.shown, frame };
    paint();
  }
  for (const target of frame.targets) state.cards.get(target.target_id)?.update(target);
  figures(frame, now);
}

function paint() {
  if (!state.last) return;
  const { shown, frame } = state.last;
  const targets = [...frame.targets];
  if (state.asking && performance.now() < state.asking.until) targets.push(state.asking.target);
  const number = (id) => state.cards.get(id)?.number ?? COLOURS.length - 1;
  draw(at("view"), shown, targets, (id) => COLOURS[number(id)], show());
}

function figures(frame, now) {
  while (state.times.length && now - state.times[0] > 2000) state.times.shift();
  const sorted = [...state.latencies].sort((a, b) => a - b);
  const quantile = (q) => sorted.length ? `${sorted[Math.round((sorted.length - 1) * q)].toFixed(0)} ms` : "–";
  at("fps").textContent = `${(state.times.length / 2).toFixed(1)} /s`;
  at("p50").textContent = quantile(0.5);
  at("p99").textContent = quantile(0.99);
  at("node").textContent = `${(Number(frame.sent_ns - frame.received_ns) / 1e6).toFixed(0)} ms`;
  at("node").title = frame.timings.map((timing) => `${timing.stage} ${timing.ms.toFixed(1)} ms`).join(", ");
  const drops = frame.counters?.dropped ?? [];
  at("drops").textContent = `${drops.reduce((sum, one) => sum + one.frames, 0n)}`;
  at("drops").title = drops.map((one) => `${one.frames} ${ENUMS.DropReason[one.reason].toLowerCase()}`).join(", ");
}

// ---- The source

async function pump() {
  const { source, socket } = state;
  if (source && socket?.readyState === WebSocket.OPEN && source.ready && !state.sending) {
    const now = performance.now();
    for (const [seq, { at: then, shown }] of state.sent) if (now - then > FORGET_MS) { state.sent.delete(seq); shown.close(); }
    if (state.sent.size < AHEAD && socket.bufferedAmount < 1 << 20) {
      state.sending = true;
      try {
        const { shown, jpeg } = await take(source);
        const seq = state.seq += 1n;
        state.sent.set(seq, { at: performance.now(), shown });
        send({
          frame: { seq, stamp_ns: BigInt(Date.now()) * 1000000n, optical_frame: "browser", encoding: "jpeg", data: jpeg },
          options: { evidence: true },
        });
      } catch (error) {
        say(at("log"), `no frame: ${error.message}`, "bad");
      }
      state.sending = false;
    }
  }
  setTimeout(pump, 15);
}

async function open(opening) {
  close();
  try {
    state.source = await opening;
    at("start").hidden = true;
    at("stop").hidden = false;
    at("flip").hidden = !at("video").srcObject || !matchMedia("(pointer: coarse)").matches;
  } catch (error) {
    say(at("log"), `no picture: ${error.message}`, "bad");
  }
}

function close() {
  state.source?.stop();
  state.source = null;
  at("start").hidden = false;
  at("stop").hidden = at("flip").hidden = true;
}

// ---- Targets

/** A short name for a command: what stands behind its first article, up to what places it. */
function nameOf(command) {
  const words = command.replace(/^.*?\b(the|a|an)\s+/i, "").split(/\s+/);
  const end = words.findIndex((word, i) => i > 0 && /^(near|next|to|on|in|at|of|with|left|right|behind|between|that|which|above|below)$/i.test(word));
  return words.slice(0, end < 0 ? 3 : Math.min(end, 3)).join(" ").replace(/( please)?[,.!?]*$/i, "") || "it";
}

function follow(command) {
  const base = nameOf(command);
  let id = base.slice(0, 40);
  for (let n = 2; state.cards.has(id); n++) id = `${base.slice(0, 40)} ${n}`;
  if (!send({ add_target: { target_id: id, command, hint: HINTS.any } })) return say(at("log"), "not connected", "bad");
  const used = new Set([...state.cards.values()].map((card) => card.number));
  const number = [...COLOURS.keys()].find((n) => !used.has(n)) ?? state.cards.size % COLOURS.length;
  const card = Object.assign(new Card(id, command, COLOURS[number], act), { number });
  state.cards.set(id, card);
  at("targets").append(card.element);
  at("none").hidden = true;
}

function ask(command) {
  const question_id = `${state.asked += 1}`;
  state.questions.set(question_id, command);
  if (!send({ question: { question_id, command, hint: HINTS.any } })) say(at("log"), "not connected", "bad");
}

function act(what, id) {
  const card = state.cards.get(id);
  if (what === "pause") send(card.paused ? { resume_target: { target_id: id } } : { pause_target: { target_id: id } });
  if (what === "look") send({ reground_target: { target_id: id } });
  if (what === "rename") {
    const new_target_id = prompt(`A new name for “${id}”`, id)?.trim();
    if (!new_target_id || new_target_id === id || state.cards.has(new_target_id)) return;
    send({ rename_target: { target_id: id, new_target_id } });
    state.cards.delete(id);
    state.cards.set(new_target_id, card);
    card.rename(new_target_id);
  }
  if (what === "remove") {
    send({ remove_target: { target_id: id } });
    state.cards.delete(id);
    card.element.remove();
    at("none").hidden = state.cards.size > 0;
  }
}

at("command").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = at("text").value.trim();
  if (!text) return;
  (event.submitter?.value === "ask" ? ask : follow)(text);
  at("text").value = "";
});
at("camera").onclick = () => open(camera(at("video"), state.facing));
at("files").onchange = ({ target }) => target.files.length && open(files(at("video"), target.files));
at("flip").onclick = () => {
  state.facing = state.facing === "user" ? "environment" : "user";
  close();
  open(camera(at("video"), state.facing));
};
at("stop").onclick = close;
for (const id of ["masks", "boxes", "points"]) at(id).onchange = paint;
addEventListener("resize", paint);

connect();
pump();
