// The live page. Everything it shows comes from this server's events, and those from the verdict topic.
"use strict";

const WORDS = { accept: "accept", reject: "reject", hold: "hold", undecidable: "undecidable" };
const ICONS = { accept: "\u2713", reject: "\u2715", hold: "\u2016", undecidable: "?" };
const OUTCOMES = {
  right: "right", escape: "escape: defective, accepted", "false-reject": "false reject: good part", open: "not decided",
};
const TILES_MAX = 100;
const FOLLOW_EVERY_MS = 2500;

const state = { tiles: new Map(), shown: null, pinned: false, showHeat: true, snapshot: {}, followedAt: -Infinity, cardKey: "" };
const $ = (id) => document.getElementById(id);

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "class") node.className = value;
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value);
  }
  node.append(...children.filter((c) => c !== null && c !== undefined && c !== ""));
  return node;
}

const percent = (x, digits = 1) => (x === null || x === undefined ? "-" : `${(100 * x).toFixed(digits)} %`);
const decimal = (x) => (x === null || x === undefined ? "-" : x.toFixed(3));
const ms = (x) => (x === undefined || x === null ? "-" : x < 1000 ? `${Math.round(x)} ms` : `${(x / 1000).toFixed(1)} s`);
const small = (x) => (x < 0.001 ? x.toExponential(1) : x.toFixed(3));

/* ---- counters and the line ---- */

function showZeros(now) {
  const changed = [];
  for (const name of ["lost", "duplicate", "conflicting"]) {
    const box = $(name), count = now[name] ?? 0, number = box.querySelector("b");
    const text = count === 0 ? "0" : String(count);
    if (number.textContent !== text) changed.push(`${count} ${name}`);
    number.textContent = text;
    box.classList.toggle("bad", count > 0);
    box.querySelector("span").textContent = count > 0 ? `\u26a0 ${name}` : name;
  }
  if (changed.length) $("zeros-live").textContent = changed.join(", ");
}

function showRates(now) {
  const rejects = now.false_rejects, first = rejects.first;
  $("fr-promised").textContent = percent(rejects.promised);
  $("fr-first").textContent = first.n ? `${percent(first.rate)} (${first.rejected} of ${first.n})` : "-";
  const most = Math.max(0.1, 2 * (rejects.promised ?? 0), Math.min(1, 1.1 * (first.n ? first.interval[1] : 0)));
  const at = (x) => `${Math.min(100, (100 * x) / most)}%`;
  const range = $("fr-range");
  range.hidden = !first.n;
  if (first.n) {
    range.querySelector(".span").style.left = at(first.interval[0]);
    range.querySelector(".span").style.right = `calc(100% - ${at(first.interval[1])})`;
    range.querySelector(".dot").style.left = at(first.rate);
    range.querySelector(".tick").hidden = rejects.promised === null;
    range.querySelector(".tick").style.left = at(rejects.promised ?? 0);
    $("fr-more").textContent = `95 % interval ${percent(first.interval[0])} to ${percent(first.interval[1])}; `
      + `latest revision ${percent(rejects.latest.rate)}, at any revision ${percent(rejects.any.rate)}`;
  }
  const escapes = now.escapes;
  $("escapes").textContent = escapes.defective ? `${escapes.accepted} of ${escapes.defective}` : "-";
  $("held").textContent = now.dispositions.hold;
  $("undecidable").textContent = now.dispositions.undecidable;
  $("dead-letters").textContent = now.dead_letters;
  const ranking = now.hallucination;
  $("auroc-with").textContent = decimal(ranking.auroc_with);
  $("auroc-without").textContent = decimal(ranking.auroc_without);
  $("auroc-n").textContent = `over ${ranking.n} parts, ${ranking.defective} of them defective, each against parts with the same sensors`;
}

function showStation(item) {
  for (const box of document.querySelectorAll(`.item[data-item="${CSS.escape(item.item)}"]`)) {
    box.querySelector(".seen").textContent = item.seen;
    box.querySelector(".share").textContent = `${percent(item.missing_share ?? 0, 0)} missing`;
    const cells = [...item.strip];
    while (cells.length < 24) cells.unshift("none");
    const strip = box.querySelector(".strip");
    const drawn = cells.join();
    if (strip.dataset.drawn !== drawn) {
      strip.dataset.drawn = drawn;
      strip.replaceChildren(...cells.map((c) => make("i", { class: c === "not expected" ? "none" : c })));
    }
  }
}

function showLine(now) {
  now.stations.forEach(showStation);
  const latency = now.latency_ms;
  $("join-waiting").textContent = now.waiting_records;
  $("join-p50").textContent = ms(latency.join?.p50);
  $("score-p50").textContent = ms(latency.closed_to_committed?.p50);
  $("score-p99").textContent = ms(latency.closed_to_committed?.p99);
  $("verdict-count").textContent = now.verdicts;
  $("part-count").textContent = now.parts;
  $("pace").textContent = now.parts_per_s ? `${now.parts_per_s.toFixed(1)}/s` : "idle";
  const total = Object.values(now.dispositions).reduce((a, b) => a + b, 0);
  $("dispositions").replaceChildren(...Object.entries(now.dispositions).map(([name, count]) => {
    const part = make("i", { class: name });
    part.style.width = total ? `${(100 * count) / total}%` : "0";
    return part;
  }));
  const words = Object.entries(now.dispositions).filter(([, n]) => n).map(([name, n]) => `${ICONS[name]} ${n} ${WORDS[name]}`);
  $("disposition-words").textContent = words.map((w) => w.split(" ", 2).join("\u00a0")).join("   ");
  $("dispositions").setAttribute("aria-label", words.join(", "));
}

function showActions(now) {
  for (const node of document.querySelectorAll(".node[data-station]")) {
    const out = now.unplugged.includes(node.dataset.station), button = node.querySelector(".plug");
    node.classList.toggle("unplugged", out);
    if (button) button.textContent = out ? "Plug in" : "Unplug";
  }
  const list = $("actions");
  if (!list || !now.actions.length) return;
  const clean = now.lost + now.duplicate + now.conflicting === 0;
  list.replaceChildren(...[...now.actions].reverse().map((action) => {
    const since = now.verdicts - action.verdicts;
    const result = action.ok ? `${since} verdicts since, ${clean ? "nothing lost or doubled" : "see the counters"}` : "refused";
    return make("li", { class: action.ok ? "ok" : "refused" },
      make("b", {}, action.command.replace("/", " ").replace("-", " ")), " ",
      make("span", { class: "quiet" }, new Date(action.at_ms).toLocaleTimeString()),
      make("div", {}, action.message ?? ""), make("div", { class: "quiet" }, result));
  }));
}

function showSnapshot(now) {
  if (now.parts === undefined) return;
  state.snapshot = now;
  showZeros(now);
  showRates(now);
  showLine(now);
  showActions(now);
  follow();
}

/* ---- the stream of parts ---- */

function dots(tile) {
  const box = make("span", { class: "dots" });
  for (const name of tile.real) box.append(make("i", { class: "dot", title: `${name}: real` }));
  for (const name of tile.hallucinated) box.append(make("i", { class: "dot halluc", title: `${name}: hallucinated` }));
  return box;
}

function tileContent(tile) {
  const wrong = tile.outcome === "escape" || tile.outcome === "false-reject";
  return [
    make("span", { class: "icon", "aria-hidden": "true" }, ICONS[tile.disposition]),
    make("span", { class: "name" }, tile.part_id + (tile.pass > 1 ? ` pass ${tile.pass}` : "")),
    make("span", { class: "side" }, tile.revision > 1 ? make("span", { class: "tag late" }, `rev ${tile.revision}`) : ""),
    make("span", { class: "what" }, make("b", {}, WORDS[tile.disposition]), ` ${tile.product}`,
      wrong ? make("span", { class: "wrong" }, ` \u26a0 ${tile.outcome.replace("-", " ")}`) : ""),
    make("span", { class: "side" }, dots(tile)),
  ];
}

function showTile(tile) {
  const stream = $("stream");
  let node = state.tiles.get(tile.key)?.node;
  const moved = state.tiles.get(tile.key)?.tile.revision !== tile.revision;
  if (!node) node = make("button", { type: "button", onclick: () => pin(tile.key) });
  node.className = `tile ${tile.disposition}${moved ? " fresh" : ""}`;
  node.replaceChildren(...tileContent(tile));
  const focused = document.activeElement === node;
  if (moved) stream.prepend(node);
  if (focused) node.focus({ preventScroll: true });
  if (moved) state.tiles.delete(tile.key);
  state.tiles.set(tile.key, { tile, node });
  while (state.tiles.size > TILES_MAX) {
    const [oldest, { node: gone }] = state.tiles.entries().next().value;
    gone.remove();
    state.tiles.delete(oldest);
  }
}

function onPart(tile) {
  const known = state.tiles.get(tile.key)?.tile;
  showTile(tile);
  if (tile.key === state.shown) show(tile.key);
  else if (known?.revision !== tile.revision) follow();
}

// The latest part comes into view, but none is taken away before people could look at it.
function follow() {
  const latest = [...state.tiles.keys()].pop();
  const due = performance.now() - state.followedAt > FOLLOW_EVERY_MS;
  if (!state.pinned && due && latest && latest !== state.shown) show(latest);
}

async function resync() {
  const [parts, snapshot] = await Promise.all([getJson("/api/parts"), getJson("/api/snapshot")]);
  parts.forEach(showTile);
  showSnapshot(snapshot);
}

function pin(key) {
  state.pinned = true;
  showFollow();
  show(key);
}

function showFollow() {
  $("follow").setAttribute("aria-pressed", String(!state.pinned));
  $("follow").textContent = state.pinned ? "Follow again" : "Following";
}

/* ---- the part in view ---- */

async function show(key) {
  state.shown = key;
  state.followedAt = performance.now();
  for (const [k, { node }] of state.tiles) node.setAttribute("aria-current", String(k === key));
  let card;
  try {
    card = await getJson(`/api/parts/${encodeURIComponent(key)}`);
  } catch {
    return; // it has left the recent parts in between
  }
  if (state.shown !== key) return;
  $("waiting").hidden = true;
  const box = $("card"), open = [...box.querySelectorAll("details")].map((d) => d.open);
  box.hidden = false;
  box.classList.toggle("no-heat", !state.showHeat);
  box.replaceChildren(...cardContent(card));
  box.querySelectorAll("details").forEach((d, i) => { d.open = open[i] ?? false; });
}

/* ---- talking to the server ---- */

async function getJson(url) {
  const answer = await fetch(url);
  if (!answer.ok) throw new Error(`${url}: ${answer.status}`);
  return answer.json();
}

async function press(button, command) {
  button.disabled = true;
  try {
    await fetch(`/api/control/${command}`, { method: "POST" });
  } finally {
    button.disabled = false;
    button.focus({ preventScroll: true });
  }
}

function listen() {
  const source = new EventSource("/events");
  const connection = $("connection");
  source.addEventListener("open", () => { connection.textContent = "live"; connection.classList.add("live"); });
  source.addEventListener("error", () => { connection.textContent = "reconnecting"; connection.classList.remove("live"); });
  source.addEventListener("snapshot", (event) => showSnapshot(JSON.parse(event.data)));
  source.addEventListener("part", (event) => onPart(JSON.parse(event.data)));
  source.addEventListener("resync", () => resync().catch(() => {}));
}

for (const button of document.querySelectorAll("[data-command]")) {
  button.addEventListener("click", () => press(button, button.dataset.command));
}
for (const button of document.querySelectorAll(".plug")) {
  button.addEventListener("click", () => {
    const out = state.snapshot.unplugged?.includes(button.dataset.station);
    press(button, `${out ? "plug" : "unplug"}/${encodeURIComponent(button.dataset.station)}`);
  });
}
$("follow").addEventListener("click", () => {
  state.pinned = !state.pinned;
  showFollow();
  state.followedAt = -Infinity;
  follow();
});
$("stream").addEventListener("keydown", (event) => {
  const step = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" }[event.key];
  const next = step && event.target[step];
  if (next) { event.preventDefault(); next.focus(); }
});
listen();
