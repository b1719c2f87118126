// The status page. Reads the same JSON and metrics that anybody can read and shows them: what is wrong first, then figures, then a
// row for each source. Names come from whoever runs containers: they are only ever set as text, never as HTML.
"use strict";

const REFRESH_MS = 2000;
// Nobody looks at a page that is hidden, but its icon and title are on the browser's tab.
const REFRESH_HIDDEN_MS = 30000;
// Figures older than this are told to be old.
const OLD_MS = 7000;
const HISTORY = 150;
// A page that was just opened draws its few points over the width of so many, so that they can be seen.
const POINTS_FEW = 30;
// A figure far below this is drawn flat: its ups and downs mean nothing.
const LATE_SECONDS_FEW = 10;
const ROWS_FEW = 50;
const NAME_CHARS_MAX = 60;
// A source that is read as it grows always has some bytes to go. It is behind if they are many, or not read, for so long.
const BEHIND_BYTES = 64 * 1024;
const BEHIND_MS = 10000;
// Lines in a spool that are older wait for more than a request.
const SPOOL_WAITS_SECONDS = 5;
// A row's state longer than this is cut; the row unfolds.
const STATE_CHARS = 180;
const CARD_PX = 160;
const CARD_GAP_PX = 11;
const $ = (id) => document.getElementById(id);

const trails = new Map();
let previous = null;
let all = false;
let sort = { key: "attention", down: true };
const opened = new Set();
const unfolded = new Set();
const behindSince = new Map();
const names = new Intl.Collator("en", { numeric: true });

function element(name, text, kind) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = String(text);
  if (kind) made.className = kind;
  return made;
}

function middle(text) {
  if (text.length <= NAME_CHARS_MAX) return text;
  const half = (NAME_CHARS_MAX - 1) / 2;
  return text.slice(0, Math.ceil(half)) + "…" + text.slice(text.length - Math.floor(half));
}

// As text/ids.rs has it: IDs in twelve digits, as docker ps shows them, and paths of the Engine's API without what was asked
// for. In the path of a file an ID stays whole: nothing is at a path that was shortened.
function briefly(text) {
  const short = (part) => part.replace(/[0-9a-f]{64}/g, (id) => id.slice(0, 12));
  return text.replace(/(?:GET )?[^ ]+/g, (part) => {
    if (part.startsWith("GET /")) return short(part.split("?")[0]);
    return part.includes("/") ? part : short(part);
  });
}

// As text/shown.rs has it: capturer top shows the same.
function bytes(count) {
  if (count === undefined) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let unit = 0;
  while (count >= 1024 && unit < units.length - 1) { count /= 1024; unit += 1; }
  return count.toFixed(unit && count < 9.95 ? 1 : 0) + " " + units[unit];
}

function number(value) {
  if (value === undefined) return "–";
  return value >= 100 ? Math.round(value).toLocaleString("en") : String(Math.round(value * 10) / 10);
}

// The same.
function duration(ms) {
  if (ms === undefined) return "–";
  const s = ms / 1000;
  if (s < 10) return (Math.floor(s * 10) / 10).toFixed(1) + " s";
  if (s < 120) return Math.floor(s) + " s";
  if (s < 7200) return Math.floor(s / 60) + " min";
  return s < 172800 ? Math.floor(s / 3600) + " h" : Math.floor(s / 86400) + " d";
}

// Families without their prefix: name → [{labels, value}].
function parse(text) {
  const families = new Map();
  for (const line of text.split("\n")) {
    const found = /^log_capturer_(\w+?)(?:\{(.*)\})? (\S+)$/.exec(line);
    if (!found) continue;
    const labels = {};
    for (const [, name, value] of (found[2] ?? "").matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)) labels[name] = value;
    if (!families.has(found[1])) families.set(found[1], []);
    families.get(found[1]).push({ labels, value: Number(found[3]) });
  }
  return families;
}

function value(families, name, sink) {
  const samples = (families.get(name) ?? []).filter((sample) => sink === undefined || sample.labels.sink === sink);
  return samples.length ? samples.reduce((sum, sample) => sum + sample.value, 0) : undefined;
}

function rate(now, before, seconds) {
  return now === undefined || before === undefined || seconds <= 0 ? undefined : Math.max(0, now - before) / seconds;
}

// `few`: what the height stands for at least.
function spark(name, point, few) {
  const points = trails.get(name) ?? [];
  if (point !== undefined) points.push(point);
  if (points.length > HISTORY) points.shift();
  trails.set(name, points);
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const width = Math.max(points.length, POINTS_FEW);
  svg.setAttribute("viewBox", `0 0 ${width - 1} 20`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  const top = Math.max(...points, few);
  const line = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
  line.setAttribute("points", points.map((y, i) => `${width - points.length + i},${19 - 18 * y / top}`).join(" "));
  svg.append(line);
  return svg;
}

// `how`: bad, warn or nothing.
function card(title, shown, point, note, how, few = 1e-9) {
  const made = element("div", undefined, "card");
  // Beside each other: a line below would touch the note, and make the page longer.
  const figure = element("div", undefined, "figure");
  figure.append(element("strong", shown, how), spark(title, point, few));
  figure.title = `the last ${duration((trails.get(title).length - 1) * REFRESH_MS)}`;
  made.append(element("p", title), figure);
  if (note) made.append(element("p", note));
  return made;
}

function showCards(now) {
  const seconds = previous ? (now.at - previous.at) / 1000 : 0;
  const of = (name, sink) => value(now.families, name, sink);
  const per = (name, sink) => rate(of(name, sink), previous && value(previous.families, name, sink), seconds);
  const waits = (sink) => [`sink_${sink}`, `sink_${sink}_delivery`].some((name) => now.health.components[name]?.ok === false);
  const read = per("logs_processed_total");
  const cards = [card("lines/s read", number(read), read, `${number(of("logs_processed_total"))} in this run`)];
  for (const { labels } of now.families.get("delivered_lines_total") ?? []) {
    const delivered = per("delivered_lines_total", labels.sink);
    cards.push(card(`lines/s to ${labels.sink}`, number(delivered), delivered,
      `${number(of("delivered_lines_total", labels.sink))} in this run`, waits(labels.sink) && !delivered ? "bad" : ""));
  }
  const losses = of("losses_total") ?? 0, lost = of("lost_bytes_total"), possible = of("possible_losses_total");
  const times = (count) => (count === 1 ? "once" : `${number(count)} times`);
  const known = losses > 0 ? `${times(losses)} in this run` : "in this run";
  cards.push(card("lost", losses === 0 ? "nothing" : lost ? bytes(lost) : "some", losses,
    possible ? `${known}; perhaps lost: ${times(possible)}` : known, losses > 0 ? "bad" : "", 1));
  // Of the same answer as the rows, or one would say another thing than the other. Each group of sinks reads for itself.
  const bySinks = new Map();
  for (const row of now.streams.streams) {
    const sinks = row.sinks.join();
    bySinks.set(sinks, (bySinks.get(sinks) ?? 0) + (row.lag_bytes ?? 0));
  }
  const lag = Math.max(0, ...bySinks.values()), late = of("capture_lag_seconds") ?? 0;
  const behind = now.sources.filter((source) => source.isBehind).length;
  const oldest = late >= 1 ? `oldest line: ${duration(late * 1000)}` : behind ? `${behind} of the sources behind` : "of all sources";
  const unknown = now.sources.filter((source) => source.unknown).length;
  const isAll = unknown === now.sources.length;
  if (unknown) cards.push(card("unread in logs", isAll ? "?" : `${bytes(lag)} + ?`, lag, `not known of ${unknown} sources`, "warn", BEHIND_BYTES));
  else cards.push(card("unread in logs", bytes(lag), lag, oldest, late > 60 ? "bad" : behind ? "warn" : "", BEHIND_BYTES));
  for (const { labels, value: size } of now.families.get("spool_bytes") ?? []) {
    const limit = of("spool_limit_bytes", labels.sink), age = of("spool_lag_seconds", labels.sink) ?? 0;
    const share = limit ? 100 * size / limit : 0;
    const isLate = age >= SPOOL_WAITS_SECONDS;
    // An answer, the next push in so many seconds, or their turn.
    const waitsFor = now.health.components[`sink_${labels.sink}_delivery`]?.waits_for;
    const old = age >= 1 ? `${duration(age * 1000)} old` : waitsFor ? "under 1 s old" : "none waits";
    cards.push(card(`oldest line in the spool of ${labels.sink}`, old, age,
      `${isLate && waitsFor ? `waits for ${waitsFor}; ` : ""}${bytes(size)} of ${bytes(limit)}`, share > 80 || (isLate && waits(labels.sink)) ? "bad" : "", LATE_SECONDS_FEW));
  }
  const came = now.families.get("pipeline_lines_in_total") ?? [];
  if (came.length > 0) {
    const dropped = (now.families.get("pipeline_lines_total") ?? []).filter((one) => one.labels.outcome === "dropped");
    const sum = (samples, sink) => samples.filter((one) => one.labels.sink === sink).reduce((all, one) => all + one.value, 0);
    const sinks = [...new Set(came.map((one) => one.labels.sink))];
    const most = sinks.sort((a, b) => sum(dropped, b) - sum(dropped, a))[0];
    cards.push(card("dropped by pipelines", number(sum(dropped, most)), sum(dropped, most),
      `of ${number(sum(came, most))} lines in this run`));
  }
  const fds = of("file_descriptors_open"), limit = of("file_descriptors_limit");
  cards.push(card("open files", number(fds), fds, `of at most ${number(limit)}`, fds > 0.9 * limit ? "warn" : ""));
  const memory = of("resident_memory_bytes");
  cards.push(card("memory", bytes(memory), memory, "of the agent"));
  // As many rows as are needed, none of them nearly empty.
  const fit = Math.max(2, Math.floor(($("cards").clientWidth + CARD_GAP_PX) / (CARD_PX + CARD_GAP_PX)));
  const rows = Math.ceil(cards.length / fit);
  $("cards").style.setProperty("--columns", Math.ceil(cards.length / rows));
  $("cards").replaceChildren(...cards);
}

// One for each source, however many outlets read it.
function sourcesOf(now) {
  const sources = new Map();
  for (const row of now.streams.streams) {
    const known = sources.get(row.key);
    if (known) known.rows.push(row); else sources.set(row.key, { key: row.key, name: row.name, rows: [row] });
  }
  const seconds = previous ? (now.at - previous.at) / 1000 : 0;
  for (const source of sources.values()) {
    const worst = source.rows.reduce((a, b) => ((b.attention ?? 0) > (a.attention ?? 0) ? b : a));
    const last = source.rows.map((row) => row.last_line_age_ms).filter((age) => age !== undefined);
    const lags = source.rows.map((row) => row.lag_bytes).filter((lag) => lag !== undefined);
    source.lines = Math.max(...source.rows.map((row) => row.lines));
    source.rate = rate(source.lines, previous?.lines.get(source.key), seconds);
    source.lag = lags.length ? Math.max(...lags) : undefined;
    const behind = behindFor(source, now.at);
    source.isBehind = behind >= BEHIND_MS;
    source.attention = Math.max(worst.attention ?? 0, source.isBehind ? 1 : 0);
    source.unknown = source.rows.some((row) => row.unknown);
    source.last = last.length ? Math.min(...last) : undefined;
    source.losses = source.rows.reduce((sum, row) => sum + row.losses, 0);
    source.what = said(worst, source.rows) + (!worst.attention && source.isBehind ? `, behind for ${duration(behind)}` : "");
  }
  for (const key of behindSince.keys()) if (!sources.has(key)) behindSince.delete(key);
  return [...sources.values()];
}

// How many milliseconds the source has been behind, as far as this page has seen.
function behindFor(source, at) {
  const stands = source.lag > 0 && source.lines === previous?.lines.get(source.key);
  if (!stands && !(source.lag >= BEHIND_BYTES)) {
    behindSince.delete(source.key);
    return 0;
  }
  if (!behindSince.has(source.key)) behindSince.set(source.key, at);
  return at - behindSince.get(source.key);
}

// In the agent's words. Where groups of sinks fare differently, one goes on while another waits.
function said(worst, rows) {
  const says = worst.says ?? `${worst.state}: ${worst.cause}`;
  const others = worst.waits ? rows.filter((row) => !row.waits) : [];
  return [says, ...others.map((row) => row.besides || `${row.sinks.join(", ")} goes on`)].join("; ");
}

const COLUMNS = [
  { key: "name", title: "source", of: (source) => source.name, kind: "" },
  { key: "attention", title: "state", of: (source) => source.attention, kind: "" },
  { key: "rate", title: "lines/s", of: (source) => source.rate ?? 0, kind: "number rate" },
  { key: "lag", title: "unread", of: (source) => source.lag ?? -1, kind: "number" },
  { key: "last", title: "last line, ago", of: (source) => source.last ?? Infinity, kind: "number small" },
  { key: "losses", title: "losses", of: (source) => source.losses, kind: "number losses" },
];

function heads() {
  $("heads").replaceChildren(...COLUMNS.map((column) => {
    const th = element("th", undefined, column.kind);
    const chosen = sort.key === column.key;
    if (chosen) th.setAttribute("aria-sort", sort.down ? "descending" : "ascending");
    const button = element("button", column.title + (chosen ? (sort.down ? " ▾" : " ▴") : ""));
    button.type = "button";
    button.addEventListener("click", () => {
      sort = { key: column.key, down: chosen ? !sort.down : column.key !== "name" };
      heads();
      if (previous) showSources(previous.sources);
    });
    th.append(button);
    return th;
  }));
}

function detail(source) {
  const tr = element("tr", undefined, "detail");
  const td = element("td");
  td.colSpan = COLUMNS.length;
  for (const row of source.rows) {
    const list = element("dl");
    const tell = (name, text) => { if (text !== undefined && text !== "") list.append(element("dt", name), element("dd", text)); };
    tell("sinks", row.sinks.join(", "));
    tell("name", row.name);
    tell("container", row.container_id);
    tell("state", `${row.state} for ${duration(row.state_age_ms)}: ${row.cause}`);
    tell("read from", `${row.mode}: ${row.mode_reason}`);
    tell("waits for", row.operation && row.operation + (row.operation_deadline_ms === undefined ? "" :
      `, ends in ${duration(row.operation_deadline_ms)}`));
    tell("set aside", row.set_aside);
    tell("held up", row.held_up);
    tell("last error", row.last_error);
    tell("failures in a row", row.failures || undefined);
    tell("lines", row.lines.toLocaleString("en") +
      (row.last_line_age_ms === undefined ? ", none in this run yet" : `, the last ${duration(row.last_line_age_ms)} ago`));
    tell("lost", row.losses ? `${row.losses} ${row.losses === 1 ? "loss" : "losses"}, ${bytes(row.lost_bytes)} known` : undefined);
    tell("rotations", row.mode === "api" ? `${row.rotations}, connection is ${duration(row.age_ms)} old` : undefined);
    tell("position", JSON.stringify(row.position));
    td.append(list);
  }
  tr.append(td);
  return tr;
}

function magnitude(source) {
  return Math.floor(Math.log2((source.lag ?? 0) + 1));
}

function showSources(sources) {
  const words = $("filter").value.toLowerCase();
  const wanted = sources.filter((source) => `${source.name} ${source.what}`.toLowerCase().includes(words));
  const column = COLUMNS.find((column) => column.key === sort.key);
  const order = (a, b) => {
    const [x, y] = [column.of(a), column.of(b)];
    const by = typeof x === "string" ? names.compare(x, y) : x < y ? -1 : x > y ? 1 : 0;
    // Never by a figure that changes each time: rows would jump. Of those that are equally bad, who has much more to lose.
    const most = sort.key === "attention" && a.attention > 0 ? magnitude(b) - magnitude(a) : 0;
    return (sort.down ? -by : by) || most || names.compare(a.name, b.name);
  };
  wanted.sort(order);
  const shown = all ? wanted : wanted.slice(0, ROWS_FEW);
  const rows = [];
  for (const source of shown) {
    const tr = element("tr", undefined, "source");
    tr.tabIndex = 0;
    const name = element("td", middle(source.name));
    name.title = source.name;
    const losses = element("td", source.losses, source.losses ? "number losses bad" : "number losses");
    const unread = element("td", source.unknown ? "?" : bytes(source.lag), "number unread");
    unread.title = source.unknown ? "nobody knows how much there is" : "bytes in its log that are not taken yet";
    const what = briefly(source.what);
    const cut = what.length > STATE_CHARS ? what.slice(0, STATE_CHARS) + "…" : what;
    const state = element("td", cut, ["state", "state warn", "state bad"][source.attention]);
    state.title = source.what;
    unread.dataset.title = "unread";
    losses.dataset.title = "losses";
    tr.append(name, state, element("td", number(source.rate), "number rate"),
      unread, element("td", duration(source.last), "number small"), losses);
    const turn = () => {
      if (!opened.delete(source.key)) opened.add(source.key);
      showSources(sources);
    };
    tr.addEventListener("click", turn);
    tr.addEventListener("keydown", (event) => { if (event.key === "Enter") turn(); });
    rows.push(tr);
    if (opened.has(source.key)) rows.push(detail(source));
  }
  $("sources").replaceChildren(...rows);
  const hidden = wanted.length - shown.length;
  $("count").textContent = words ? `${wanted.length} of ${sources.length}` : String(sources.length);
  $("more").hidden = hidden <= 0;
  $("more").textContent = `Show ${hidden} more`;
}

// What the agent says of itself is a link where it names a page.
function linked(made, text) {
  for (const part of text.split(/((?<![\w/.…-])\/(?:api\/v1\/\w+|health)(?![\w/]))/)) {
    if (!/^\/(?:api|health)/.test(part)) {
      made.append(part);
      continue;
    }
    const link = element("a", part);
    link.href = part.slice(1);
    made.append(link);
  }
  return made;
}

// A line for each thing to know or to do: nobody in a hurry reads a paragraph. The agent has chosen them; all of it unfolds.
function sentence(made, key, told) {
  made.append(...told.lines.map((line) => linked(element("p"), line)));
  if (told.all) {
    const details = element("details");
    details.append(element("summary", "all of it"), ...told.all.map((line) => linked(element("p"), line)));
    details.open = unfolded.has(key);
    details.addEventListener("toggle", () => { if (details.open) unfolded.add(key); else unfolded.delete(key); });
    made.append(details);
  }
  return made;
}

// A line that begins with the title says more than the title.
function trouble(told, key, isWarning = false) {
  const made = element("div", undefined, isWarning ? "trouble warning" : "trouble");
  const saysTitle = told.lines.length > 0 && told.lines[0].startsWith(told.title);
  made.append(element("h2", saysTitle ? told.lines[0] : told.title));
  sentence(made, key, saysTitle ? { ...told, lines: told.lines.slice(1) } : told);
  if (told.runbook) {
    // top takes a certificate and a token from the config, and from nowhere else.
    const reach = location.protocol === "https:" ? "-c CONFIG" : `--admin ${location.host}`;
    made.append(element("p", `On the host: capturer top --once ${reach} · runbook: ${told.runbook}`, "quiet"));
  }
  return made;
}

// Nothing is wrong, and yet it should be read.
function note(name, told) {
  const made = element("div", undefined, "note");
  made.append(element("h2", `Note: ${name}`));
  return sentence(made, name, told);
}

// `how`: good, warning or bad.
function showState(words, how, troubles) {
  $("state").textContent = words;
  $("state").className = how;
  // What is as it was stays, so that a text can be selected.
  const old = $("attention");
  if ([...troubles].map((one) => one.textContent).join("\n") !== [...old.children].map((one) => one.textContent).join("\n")) {
    old.replaceChildren(...troubles);
  }
  $("icon").href = { good: "icon-ok.svg", warning: "icon-warning.svg", bad: "icon-bad.svg" }[how];
  const host = $("about").querySelector("b").textContent;
  document.title = `${how === "good" ? "✓" : (how === "bad" ? "✗ " : "! ") + words + ":"} ${host}`;
}

function show(now) {
  const components = Object.entries(now.health.components);
  // An older agent has no titles.
  const toldBy = ([name, health]) => health.told ?? { title: name, lines: [health.message] };
  const bad = components.filter(([, health]) => !health.ok);
  // Losses first, and last what costs no line.
  const weight = ([name, health]) => (name === "losses" ? 0 : health.warning ? 2 : 1);
  bad.sort((a, b) => weight(a) - weight(b));
  const troubles = bad.map((one) => ({ title: toldBy(one).title, shown: trouble(toldBy(one), one[0], one[1].warning) }));
  const notes = components.filter(([, health]) => health.ok && health.note).map((one) => note(one[0], toldBy(one)));
  const isStuck = !now.streams.fresh;
  if (isStuck && now.health.components.capture_loop?.ok !== false) {
    const told = { title: "The capture loop does not answer", runbook: "capture-stalled",
      lines: [`What is below is what it said ${duration(now.streams.age_ms)} ago`] };
    troubles.unshift({ title: told.title, shown: trouble(told, "fresh") });
  }
  const more = troubles.length > 1 ? `, and ${troubles.length - 1} more` : "";
  const words = troubles.length === 0 ? "All is well" : troubles[0].title + more;
  // The headline says it already.
  if (troubles.length === 1 && troubles[0].shown.firstChild.textContent === words) troubles[0].shown.firstChild.remove();
  const areWarnings = !isStuck && bad.every(([, health]) => health.warning);
  showState(words, troubles.length === 0 ? "good" : areWarnings ? "warning" : "bad",
    [...troubles.map((one) => one.shown), ...notes]);
  const started = value(now.families, "process_start_time_seconds");
  $("uptime").textContent = started ? `, runs for ${duration(Date.now() - started * 1000)},` : "";
  now.sources = sourcesOf(now);
  now.lines = new Map(now.sources.map((source) => [source.key, source.lines]));
  showCards(now);
  showSources(now.sources);
  $("components").replaceChildren(...components.flatMap(([name, health]) =>
    [element("dt", name), linked(element("dd", undefined, health.ok ? "" : health.warning ? "warn" : "bad"), health.message)]));
}

// How old the figures are. What the agent says of itself may be older: it tells so.
let updatedAt = null;

function showAge() {
  const age = updatedAt === null ? undefined : performance.now() - updatedAt;
  const isOld = age >= OLD_MS;
  document.body.classList.toggle("old", isOld);
  $("updated").className = isOld ? "bad" : "";
  if (age !== undefined) $("updated").textContent = `updated ${Math.round(age / 1000)} s ago`;
}

let asking = false;
let timer = 0;

async function refresh() {
  if (!asking) {
    asking = true;
    clearTimeout(timer);
    try {
      const [health, streams, metrics] = await Promise.all(["health", "api/v1/streams", "metrics"].map(async (path) => {
        const answer = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(5000) });
        return path === "metrics" ? answer.text() : answer.json();
      }));
      const now = { at: performance.now(), health, streams, families: parse(metrics) };
      show(now);
      previous = now;
      updatedAt = performance.now();
    } catch (error) {
      const told = { title: "The agent does not answer", lines: [
        "What is below is old",
        "No line is lost while log files are kept: reading goes on where it stopped",
        "Look on the host: systemctl status capturer, journalctl -u capturer",
        `The browser says: ${error.message}`,
      ] };
      const shown = trouble(told, "agent");
      shown.firstChild.remove();
      showState(told.title, "bad", [shown]);
    }
    asking = false;
    showAge();
    timer = setTimeout(refresh, document.hidden ? REFRESH_HIDDEN_MS : REFRESH_MS);
  }
}

$("filter").addEventListener("input", () => { if (previous) showSources(previous.sources); });
$("more").addEventListener("click", () => { all = true; if (previous) showSources(previous.sources); });
document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
setInterval(showAge, 1000);
heads();
refresh();
