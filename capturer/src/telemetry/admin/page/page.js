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
// A sentence longer than this is shown by its first parts, with the whole of it to unfold.
const SENTENCE_CHARS = 420;
// So many parts of a sentence have lines of their own.
const LINES_MAX = 6;
// A row's state, likewise; the row unfolds.
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

// IDs in twelve digits, as docker ps shows them, and paths of the Engine's API without what was asked for.
function briefly(text) {
  return text.replace(/[0-9a-f]{64}/g, (id) => id.slice(0, 12)).replace(/(GET \/[^\s?]*)\?\S*/g, "$1");
}

function bytes(count) {
  if (count === undefined) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (count >= 1024 && unit < units.length - 1) { count /= 1024; unit += 1; }
  return (unit ? count.toFixed(1) : Math.round(count)) + " " + units[unit];
}

function number(value) {
  if (value === undefined) return "–";
  return value >= 100 ? Math.round(value).toLocaleString("en") : String(Math.round(value * 10) / 10);
}

function duration(ms) {
  if (ms === undefined) return "–";
  const s = ms / 1000;
  if (s < 10) return s.toFixed(1) + " s";
  if (s < 120) return Math.round(s) + " s";
  if (s < 7200) return Math.round(s / 60) + " min";
  return s < 172800 ? Math.round(s / 3600) + " h" : Math.round(s / 86400) + " days";
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

function card(title, shown, point, note, bad, few = 1e-9) {
  const made = element("div", undefined, "card");
  // Beside each other: a line below would touch the note, and make the page longer.
  const figure = element("div", undefined, "figure");
  figure.append(element("strong", shown, bad ? "bad" : ""), spark(title, point, few));
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
      `${number(of("delivered_lines_total", labels.sink))} in this run`, waits(labels.sink)));
  }
  const losses = of("losses_total") ?? 0, lost = of("lost_bytes_total"), possible = of("possible_losses_total");
  const known = lost ? `${bytes(lost)} known to be lost` : losses > 0 ? "of unknown size" : "in this run";
  cards.push(card("losses", number(losses), losses, known + (possible ? `, ${number(possible)} possible` : ""), losses > 0, 1));
  const lag = of("capture_lag_bytes"), late = of("capture_lag_seconds");
  cards.push(card("unread in logs", bytes(lag), lag, `oldest line: ${duration((late ?? 0) * 1000)}`, late > 60,
    BEHIND_BYTES));
  for (const { labels, value: size } of now.families.get("spool_bytes") ?? []) {
    const limit = of("spool_limit_bytes", labels.sink), age = of("spool_lag_seconds", labels.sink);
    const share = limit ? 100 * size / limit : 0;
    const of100 = share.toFixed(share < 10 ? 1 : 0);
    cards.push(card(`${labels.sink} is late by`, duration((age ?? 0) * 1000), age,
      `spool: ${bytes(size)}, ${of100} % of ${bytes(limit)}`, share > 80 || waits(labels.sink), LATE_SECONDS_FEW));
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
  cards.push(card("descriptors", number(fds), fds, `of at most ${number(limit)}`, fds > 0.9 * limit));
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
    const worst = source.rows.find(troubled) ?? source.rows.find((row) => row.state !== "following") ?? source.rows[0];
    const last = source.rows.map((row) => row.last_line_age_ms).filter((age) => age !== undefined);
    const lags = source.rows.map((row) => row.lag_bytes).filter((lag) => lag !== undefined);
    source.lines = Math.max(...source.rows.map((row) => row.lines));
    source.rate = rate(source.lines, previous?.lines.get(source.key), seconds);
    source.lag = lags.length ? Math.max(...lags) : undefined;
    const behind = behindFor(source, now.at);
    source.bad = source.rows.some(troubled);
    source.doubtful = isSilent(now) && source.rows.some((row) => row.mode === "file" && row.container_id);
    // What is left out for its age is as its owner wants it.
    const isLeftOut = source.rows.some((row) => row.left_out && !/older/.test(row.left_out));
    source.attention = source.bad ? 2 : behind >= BEHIND_MS || isLeftOut || source.doubtful ? 1 : 0;
    source.last = last.length ? Math.min(...last) : undefined;
    source.losses = source.rows.reduce((sum, row) => sum + row.losses, 0);
    source.what = said(worst, source.rows) + (!source.bad && source.doubtful ? "; lines may wait in dockerd" : "") + (!source.bad && behind >= BEHIND_MS ? `, behind for ${duration(behind)}` : "");
  }
  for (const key of behindSince.keys()) if (!sources.has(key)) behindSince.delete(key);
  return [...sources.values()];
}

// dockerd does not answer. It writes the files of containers, so their end tells nothing then.
function isSilent(now) {
  const docker = now.streams.docker;
  return Boolean(docker?.enabled && !docker.reachable && docker.error);
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

function troubled(row) {
  return row.failures > 0 || row.losses > 0 || Boolean(row.set_aside) || Boolean(row.held_up) ||
    (row.state === "not captured" && !row.left_out) || /blocked|does not answer/.test(row.cause);
}

// Where groups of sinks fare differently, what each does: one may deliver while another waits.
function said(worst, rows) {
  const held = (row) => Boolean(row.held_up) || /blocked/.test(row.cause);
  const others = held(worst) ? rows.filter((row) => !held(row)) : [];
  if (others.length === 0) return what(worst);
  return [...others, worst].map((row) => `${row.sinks.join(", ")}: ${what(row)}`).join("; ");
}

// What a stream is at, in words: what it waits for and why.
function what(row) {
  if (row.state === "not captured") return `${row.state}: ${row.cause}`;
  const why = (row.set_aside || (row.failures > 0 && row.last_error) || "").replace(/^no answer to GET .* within /, "dockerd gives no answer in ");
  if (why) return `${row.state}: ${why}`;
  if (row.held_up) return `waits: ${row.held_up}`;
  if (row.left_out) return `left out: ${row.left_out}`;
  if (row.state === "following" && !/blocked|does not answer/.test(row.cause)) {
    return row.mode === "file" ? "following its file" : "following over the API";
  }
  return `${/^its output is blocked/.test(row.cause) ? "waits" : row.state}: ${row.cause}`;
}

const COLUMNS = [
  { key: "name", title: "source", of: (source) => source.name, kind: "" },
  { key: "attention", title: "state", of: (source) => source.attention, kind: "" },
  { key: "rate", title: "lines/s", of: (source) => source.rate ?? 0, kind: "number rate" },
  { key: "lag", title: "unread", of: (source) => source.lag ?? -1, kind: "number" },
  { key: "last", title: "last line", of: (source) => source.last ?? Infinity, kind: "number small" },
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

function showSources(sources) {
  const words = $("filter").value.toLowerCase();
  const wanted = sources.filter((source) => `${source.name} ${source.what}`.toLowerCase().includes(words));
  const column = COLUMNS.find((column) => column.key === sort.key);
  const order = (a, b) => {
    const [x, y] = [column.of(a), column.of(b)];
    const by = typeof x === "string" ? names.compare(x, y) : x < y ? -1 : x > y ? 1 : 0;
    // Never by a figure that changes each time: rows would jump.
    return (sort.down ? -by : by) || names.compare(a.name, b.name);
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
    const unread = element("td", source.doubtful ? "?" : bytes(source.lag), "number unread");
    unread.title = source.doubtful ? "dockerd does not answer: nobody knows what it has not written yet" : "bytes in its log that are not taken yet";
    const what = briefly(source.what);
    const cut = what.length > STATE_CHARS ? what.slice(0, STATE_CHARS) + "…" : what;
    const state = element("td", cut, source.bad ? "state bad" : source.doubtful ? "state warn" : "state");
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

// A sentence's parts, which stand between semicolons outside of quotes.
function parts(text) {
  return (text.match(/(?:"(?:[^"\\]|\\.)*"|;(?! )|[^;"]|")+/g) ?? [text]).map((part) => part.trim()).filter(Boolean);
}

// What two parts have in common that say the same of two files, label sets or addresses.
function shape(part) {
  return part.replace(/\{[^}]*\}|"(?:[^"\\]|\\.)*"|\/\S+/g, "…").replace(/\d+/g, "0");
}

const VERBS = "check|correct|raise|lower|set|let|name|move|free|keep|look|use|give|remove|exclude|start|restart|upgrade|fix|allow|see|if that";
const CURE = new RegExp(`(?:^|: |, )(?:${VERBS})\\b`, "i");
const CURE_ALONE = new RegExp(`^(?:${VERBS})\\b`, "i");

// The first part, how many others say the same of something else, and what to do. "" = the sentence is short.
function short(text) {
  if (text.length <= SENTENCE_CHARS) return "";
  const alike = new Map();
  let last = null;
  for (const part of new Set(parts(text))) {
    const more = /^(?:… )?and (\d+) more\b/.exec(part);
    if (more && last) {
      last.count += Number(more[1]);
      continue;
    }
    const key = shape(part);
    if (!alike.has(key)) alike.set(key, { part, count: 0, cure: CURE.test(part) });
    last = alike.get(key);
    last.count += 1;
  }
  const all = [...alike.values()];
  const shownParts = all.filter((one, i) => {
    // What to do is told with what it is for, which stands before it.
    const next = all[i + 1];
    return i === 0 || one.cure || (next && CURE_ALONE.test(next.part));
  });
  const shown = shownParts.map(({ part, count }) => (count > 1 ? `${part} (${count - 1} more like this)` : part)).join("; ");
  return shown.length < text.length - 40 ? shown : "";
}

// With a capital, unless it begins with a path, an address or a name with signs.
function capital(text) {
  return /^(?!docker)[a-z]+[ ,]/.test(text) ? text[0].toUpperCase() + text.slice(1) : text;
}

function sentence(made, key, text) {
  const brief = short(text);
  // A line for each thing to know or to do: nobody in a hurry reads a paragraph.
  const some = brief ? [] : parts(text);
  if (some.length > 1 && some.length <= LINES_MAX) {
    made.append(...some.map((part) => element("p", capital(briefly(part)))));
    return made;
  }
  made.append(element("p", capital(briefly(brief || text))));
  if (!brief) return made;
  const details = element("details");
  details.append(element("summary", "details"));
  for (const part of parts(text)) details.append(element("p", part));
  details.open = unfolded.has(key);
  details.addEventListener("toggle", () => { if (details.open) unfolded.add(key); else unfolded.delete(key); });
  made.append(details);
  return made;
}

function trouble(title, text, key = title, isWarning = false) {
  const made = element("div", undefined, isWarning ? "trouble warning" : "trouble");
  made.append(element("h2", title));
  return sentence(made, key, text);
}

// Nothing is wrong, and yet it should be read.
function note(name, text) {
  const made = element("div", undefined, "note");
  made.append(element("h2", `Note: ${name}`));
  return sentence(made, name, text);
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

const NAMES = {
  losses: "Lines were lost", leak_detector: "The agent leaks: logs still arrive", capture_loop: "The capture loop is stuck",
  sink_loki_delivery: "Loki does not accept lines", sink_local_file: "An output cannot be written", sink_stdout: "Standard output cannot be written",
  checkpoint: "Positions cannot be saved", streams: "Streams are stuck", descriptors: "Descriptors run out",
  config: "The config was refused", docker: "Docker does not answer", files: "Files need attention", containers: "Containers are not captured",
  sink_loki: "The spool cannot be written",
};

// Where a component can be unwell for several reasons, the one that its sentence names first is the title.
const TITLES = {
  docker: [[/may not use|permission denied|os error 13/i, "No permission to use Docker"]],
  files: [[/(?:can't|cannot) be read|permission/i, "Files cannot be read"], [/does not answer|hang/i, "A file system does not answer"],
    [/match(?:es)? no file/i, "A pattern matches no file"], [/not text|binary/i, "Files are not text"],
    [/directories are not watched/i, "inotify is at its limit"]],
  containers: [[/no container matches|match(?:es)? no/i, "A pattern matches no container"]],
  sink_loki_delivery: [[/unreachable/, "Loki cannot be reached"]],
  leak_detector: [[/leaks a file descriptor/, "The agent leaks a file descriptor"], [/leaks \d+ file descriptors/, "The agent leaks file descriptors"],
    [/^dockerd seems to leak/, "dockerd seems to leak"]],
  sink_loki: [[/share of the spool is full/i, "A label set has filled its share of the spool"], [/spool is full/i, "The spool is full"]],
};

function title(name, message) {
  const reasons = (TITLES[name] ?? []).map(([words, told]) => ({ at: message.search(words), told })).filter(({ at }) => at >= 0);
  const [first] = reasons.sort((a, b) => a.at - b.at);
  return first?.told ?? NAMES[name] ?? name;
}

function show(now) {
  const components = Object.entries(now.health.components);
  const bad = components.filter(([, told]) => !told.ok);
  // Losses first, and last what costs no line.
  const weight = ([name, told]) => (name === "losses" ? 0 : told.warning ? 2 : 1);
  bad.sort((a, b) => weight(a) - weight(b));
  const troubles = bad.map(([name, told]) => trouble(title(name, told.message), told.message, name, told.warning));
  const notes = components.filter(([, told]) => told.ok && told.note).map(([name, told]) => note(name, told.message));
  if (!now.streams.fresh) {
    troubles.unshift(trouble("The capture loop does not answer", `What is below is what it said ${duration(now.streams.age_ms)} ago.`));
  }
  const words = troubles.length === 0 ? "All is well" : troubles.length === 1 ? troubles[0].firstChild.textContent :
    `${troubles.length} things need attention`;
  const areWarnings = now.streams.fresh && bad.every(([, told]) => told.warning);
  showState(words, troubles.length === 0 ? "good" : areWarnings ? "warning" : "bad", [...troubles, ...notes]);
  const started = value(now.families, "process_start_time_seconds");
  $("uptime").textContent = started ? `, runs for ${duration(Date.now() - started * 1000)},` : "";
  showCards(now);
  now.sources = sourcesOf(now);
  now.lines = new Map(now.sources.map((source) => [source.key, source.lines]));
  showSources(now.sources);
  $("components").replaceChildren(...components.flatMap(([name, told]) =>
    [element("dt", name), element("dd", told.message, told.ok ? "" : told.warning ? "warn" : "bad")]));
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
      const text = "what is below is old; look on the host with systemctl status capturer and journalctl -u capturer";
      showState("The agent does not answer", "bad", [trouble("The agent does not answer", `${text}; the browser says: ${error.message}`)]);
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
