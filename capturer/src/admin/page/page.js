// The status page. Reads the same JSON that anybody can read and shows it.
// Names come from whoever runs containers: they are only ever set as textContent, never as HTML.
"use strict";

const REFRESH_MS = 2000;
const ROWS_MAX = 500;
const NAME_CHARS_MAX = 120;
let previous = { at: 0, lines: new Map() };

function cell(text, kind) {
  const td = document.createElement("td");
  td.textContent = String(text ?? "");
  if (kind) td.className = kind;
  return td;
}

function row(cells) {
  const tr = document.createElement("tr");
  tr.append(...cells);
  return tr;
}

function short(text) {
  return text.length > NAME_CHARS_MAX ? text.slice(0, NAME_CHARS_MAX) + "…" : text;
}

function bytes(count) {
  if (count === undefined) return "";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (count >= 1024 && unit < units.length - 1) { count /= 1024; unit += 1; }
  return (unit ? count.toFixed(1) : count) + " " + units[unit];
}

function showHealth(health) {
  const rows = Object.entries(health.components).map(([name, told]) =>
    row([cell(name), cell(told.ok ? "well" : "not well", told.ok ? "good" : "bad"), cell(told.message)]));
  document.getElementById("components").replaceChildren(...rows);
}

function rate(stream, now) {
  const before = previous.lines.get(stream.id);
  if (before === undefined || now <= previous.at) return "";
  return ((stream.lines - before) * 1000 / (now - previous.at)).toFixed(0);
}

function waits(stream) {
  if (!stream.operation) return "";
  const left = stream.operation_deadline_ms;
  return left === undefined ? stream.operation : `${stream.operation}, ends in ${(left / 1000).toFixed(0)} s`;
}

function showStreams(answer) {
  const now = performance.now();
  const rows = answer.streams.slice(0, ROWS_MAX).map((stream) => row([
    cell(short(stream.name)),
    cell(stream.state, stream.failures > 0 ? "bad" : ""),
    cell(`${stream.mode} (${stream.mode_reason})`),
    cell(stream.lines, "number"),
    cell(rate(stream, now), "number"),
    cell(bytes(stream.lag_bytes), "number"),
    cell(waits(stream)),
    cell(short(stream.last_error || stream.cause)),
  ]));
  document.getElementById("streams").replaceChildren(...rows);
  const hidden = answer.streams.length - rows.length;
  document.getElementById("count").textContent =
    `(${answer.streams.length}${hidden > 0 ? `, the first ${rows.length} shown` : ""})`;
  previous = { at: now, lines: new Map(answer.streams.map((stream) => [stream.id, stream.lines])) };
}

function showState(health, answer) {
  const state = document.getElementById("state");
  state.className = health.ok && answer.fresh ? "good" : "bad";
  const stale = answer.fresh ? "" : ` — the capture loop does not answer; shown is what it said ` +
    `${(answer.age_ms / 1000).toFixed(0)} s ago`;
  const docker = answer.docker;
  const engine = !docker.enabled ? "" : docker.reachable ? `, ${docker.containers} containers` :
    `, the Engine is out of reach: ${docker.error ?? ""}`;
  state.textContent = (health.ok ? "well" : "needs attention") + engine + stale;
}

async function refresh() {
  try {
    const [health, answer] = await Promise.all(["health", "api/v1/streams"].map(async (path) =>
      (await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(5000) })).json()));
    showHealth(health);
    showStreams(answer);
    showState(health, answer);
  } catch (error) {
    const state = document.getElementById("state");
    state.className = "bad";
    state.textContent = `the agent does not answer (${error.message})`;
  }
  setTimeout(refresh, REFRESH_MS);
}

refresh();
