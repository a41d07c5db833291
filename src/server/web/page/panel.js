// What is known of each target, in words and figures. Texts are set as text, never as markup: a command may hold anything.

import { ENUMS } from "./contract.js";

function make(tag, about = {}, children = []) {
  const element = Object.assign(document.createElement(tag), about);
  element.append(...children);
  return element;
}

const percent = (share) => `${Math.round(100 * share)} %`;
const words = (name) => name.toLowerCase().replaceAll("_", " ");

function evidence(instance) {
  const rows = [];
  const row = (name, text) => rows.push(make("tr", {}, [make("th", { scope: "row", textContent: name }), make("td", { textContent: text })]));
  const corners = (b) => b ? `${b.x1.toFixed(0)}, ${b.y1.toFixed(0)} to ${b.x2.toFixed(0)}, ${b.y2.toFixed(0)}` : "–";
  const points = instance.evidence?.points ?? [];
  const of = (label) => points.filter((point) => point.label === label).length;
  row("instance", `${instance.instance_id}`);
  row("box", corners(instance.box));
  row("proposed", corners(instance.evidence?.proposal));
  row("mask score", percent(instance.mask_score));
  row("points", points.length ? `${points.length}: ${of(1)} on, ${of(2)} off, ${of(3)} unsure` : "none");
  if (points.length) row("p(yes)", points.map((point) => point.p_yes.toFixed(2)).join(" "));
  row("grounded on", `frame ${instance.grounded_seq}, ${instance.grounded_age_ms} ms ago`);
  if (instance.mask_age_ms) row("mask is", `${instance.mask_age_ms} ms old`);
  const place = instance.position?.centroid;
  if (place) row("position", [place.x, place.y, place.z].map((v) => v.toFixed(2)).join(", ") + " m");
  return make("table", {}, [make("tbody", {}, rows)]);
}

/** The card of one target; `act(what, id)` is called with the name of a button. */
export class Card {
  constructor(id, command, colour, act) {
    this.id = id;
    this.command = command;
    this.parts = {
      name: make("span", { className: "name", textContent: id }),
      verdict: make("span", { className: "verdict" }),
      said: make("p", { className: "said", textContent: command }),
      bar: make("i"),
      facts: make("p", { className: "facts" }),
      table: make("div"),
      pause: make("button", { type: "button", textContent: "Pause" }),
    };
    const parts = this.parts;
    const button = (what, text, element = make("button", { type: "button", textContent: text })) => {
      element.onclick = () => act(what, this.id);
      return element;
    };
    this.details = make("details", {}, [make("summary", { textContent: "Evidence" }), parts.table]);
    this.element = make("li", { className: "target" }, [
      make("h2", {}, [parts.name, parts.verdict]),
      parts.said,
      make("div", { className: "meter" }, [parts.bar]),
      parts.facts,
      this.details,
      make("div", { className: "actions" }, [
        button("pause", "Pause", parts.pause), button("look", "Look again"), button("rename", "Rename"), button("remove", "Remove"),
      ]),
    ]);
    this.element.style.setProperty("--colour", colour);
    this.paused = false;
  }

  rename(id) {
    this.id = id;
    this.parts.name.textContent = id;
  }

  update(target) {
    const { parts } = this, verdict = ENUMS.Verdict[target.verdict] ?? "?";
    this.paused = verdict === "PAUSED";
    parts.pause.textContent = this.paused ? "Resume" : "Pause";
    if (parts.verdict.textContent !== verdict) {
      parts.verdict.textContent = verdict;
      parts.verdict.className = `verdict ${verdict}`;
    }
    parts.bar.style.width = `${100 * target.confidence}%`;
    const [first] = target.instances, facts = [];
    if (target.confidence > 0) facts.push(`${percent(target.confidence)} sure`);
    if (first) facts.push(words(ENUMS.Origin[first.origin] ?? "?"), `grounded ${first.grounded_age_ms} ms ago`);
    if (target.instances.length > 1) facts.push(`${target.instances.length} instances`);
    if (ENUMS.Look[target.look] !== "IDLE") facts.push("looking");
    if (target.error) facts.push(target.error.message);
    parts.facts.textContent = facts.join(" · ");
    this.details.hidden = target.instances.length === 0;
    if (this.details.open) parts.table.replaceChildren(...target.instances.map(evidence));
  }
}

/** Adds a line to the log and keeps the newest twenty. */
export function say(list, text, kind = "") {
  list.prepend(make("li", { textContent: text, className: kind }));
  while (list.children.length > 20) list.lastChild.remove();
}
