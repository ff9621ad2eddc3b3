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

function cardContent(card) {
  return [cardHead(card), cardWhy(card), modalities(card), evidence(card), provenance(card)];
}

function truthPill(card) {
  if (!card.truth) return "";
  const truth = card.truth.defect === null ? card.truth.label
    : `${card.truth.defect.replaceAll("_", " ")}, severity ${card.truth.severity.toFixed(2)}`;
  const kind = card.outcome === "right" ? "right" : card.outcome === "open" ? "" : "wrong";
  return make("span", { class: `pill small ${kind}` }, `truth: ${truth} (${OUTCOMES[card.outcome]})`);
}

function cardHead(card) {
  const heat = make("label", { class: "fine" });
  const box = make("input", { type: "checkbox", id: "heat" });
  box.checked = state.showHeat;
  box.addEventListener("change", () => {
    state.showHeat = box.checked;
    $("card").classList.toggle("no-heat", !box.checked);
  });
  heat.append(box, " heat map");
  return make("div", { class: "row" },
    make("div", {}, make("h2", { class: "id" }, `${card.part_id}${card.pass > 1 ? ` pass ${card.pass}` : ""}`),
      make("p", { class: "quiet fine" }, `${card.product}, revision ${card.revision}${card.lot ? `, lot ${card.lot}` : ""}; judged because ${card.closed}`)),
    make("div", { class: "row" }, truthPill(card),
      make("span", { class: `pill ${card.disposition}`, id: "disposition" },
        make("span", { "aria-hidden": "true" }, ICONS[card.disposition]), WORDS[card.disposition]), heat));
}

function pScale(card) {
  const box = make("div", { class: `scale${card.promise_valid ? "" : " invalid"}`, role: "img" });
  const low = 0.001, at = (p) => 100 * (1 - Math.log(Math.max(p, low)) / Math.log(low));
  const alpha = card.false_reject_rate;
  const zone = make("i", { class: "zone" }), mark = make("i", { class: "mark" });
  zone.style.width = `${at(alpha)}%`;
  const edge = make("span", { class: "end" }, percent(alpha));
  const start = make("span", { class: "end" }, "0.1 %"), end = make("span", { class: "end last" }, "100 %");
  edge.style.left = `${at(alpha)}%`;
  start.style.left = "0";
  end.style.left = "100%";
  box.append(start, make("i", { class: "track" }), zone, edge, end);
  if (card.p_value !== null) {
    mark.style.left = `${at(card.p_value)}%`;
    box.append(mark);
  }
  box.setAttribute("aria-label", `p-value ${card.p_value ?? "none"}, promised rate ${percent(alpha)}`);
  return box;
}

function cardWhy(card) {
  const promise = card.promise_valid
    ? `promise: of good parts with these sensors, at most ${percent(card.false_reject_rate)} are rejected`
    : "no promise is possible for this set of sensors";
  const reasons = card.reasons.length ? card.reasons.map((r) => make("li", { title: r.code }, r.words))
    : [make("li", {}, "nothing out of the ordinary")];
  return make("div", { class: "why" },
    make("div", {}, make("h2", {}, "Reasons"), make("ul", { class: "reasons" }, ...reasons)),
    make("div", {}, make("h2", {}, card.p_value === null ? "No p-value" : `p-value ${small(card.p_value)}`,
      make("span", { class: "quiet fine" }, ` ${promise}`)), pScale(card)));
}

function image(url, alt, extra = "") {
  const node = make("img", { src: url, alt, class: extra, loading: "eager" });
  node.addEventListener("error", () => {
    node.replaceWith(extra === "heat" ? "" : make("span", { class: "broken" }, "this payload cannot be shown"));
  });
  return node;
}

// A picture with the heat map over it: the modality's own where there is one, else that of the whole part.
function shot(card, modality) {
  if (!modality.capture) {
    const lost = modality.state !== "hallucinated";
    return make("div", { class: `shot none${lost ? " lost" : ""}` }, make("strong", {}, "not captured"),
      make("span", { class: "fine" }, lost ? "and not hallucinated" : "its features are hallucinated below"));
  }
  const coloured = modality.false_colour ? "coloured" : "";
  const box = make("div", { class: `shot${card.regions.length ? " marked" : ""}` }, image(`/payload/${modality.capture}`, `capture of ${modality.name}`, coloured));
  const heat = card.heat_maps[modality.name] ?? Object.values(card.heat_maps)[0];
  if (heat) box.append(image(`/payload/${heat}`, "where it looks wrong", "heat"));
  for (const region of card.regions) {
    const own = region.modality === modality.name ? " own" : "";
    const mark = make("i", { class: `region heat${own}`, title: `score ${region.score.toFixed(2)}, most by ${region.modality}` });
    for (const side of ["top", "left", "height", "width"]) mark.style[side] = `${100 * region[side]}%`;
    box.append(mark);
  }
  return box;
}

function caption(modality) {
  const text = make("figcaption", {}, modality.score === null ? "" : `score ${modality.score.toFixed(2)}`);
  if (modality.false_colour && modality.state !== "unusable") {
    getJson(`/payload/${modality.capture}/range`).then((r) => {
      text.append(`${text.textContent ? "; " : ""}colours ${r.low.toFixed(2)} to ${r.high.toFixed(2)} ${r.units}`);
    }).catch(() => {});
  }
  return text;
}

function featureMap(url, kind, label) {
  return make("figure", { class: kind }, make("div", { class: "shot" }, image(url, label)), make("figcaption", {}, label));
}

function features(card, modality) {
  const maps = [];
  if (modality.features) maps.push(featureMap(`/payload/${modality.features}`, "real", "features, real"));
  else if (modality.withheld && "explains" in document.body.dataset) {
    const query = new URLSearchParams({ part: card.key, modality: modality.name });
    const map = featureMap(`/features?${query}`, "real", "real (known to the plant only)");
    map.querySelector("img").addEventListener("error", () => map.remove());
    maps.push(map);
  }
  if (modality.hallucinated_features) {
    maps.unshift(featureMap(`/payload/${modality.hallucinated_features}`, "halluc", "features, hallucinated"));
  }
  return maps.length ? make("div", { class: "features" }, ...maps) : "";
}

const STATES = { real: "real", hallucinated: "hallucinated", missing: "missing", unusable: "captured, unusable" };

function modalities(card) {
  return make("div", { class: "modalities" }, ...card.modalities.map((m) => make("section", { class: "modality", "data-modality": m.name },
    make("h3", {}, make("span", {}, m.name, make("span", { class: "quiet" }, ` ${m.station ?? ""}`)),
      make("span", {}, m.late ? make("span", { class: "tag late" }, "late") : "", " ",
        make("span", { class: `tag ${m.state}` }, STATES[m.state]))),
    make("figure", {}, shot(card, m), caption(m)), features(card, m))));
}

function table(head, rows) {
  return make("table", {}, make("thead", {}, make("tr", {}, ...head.map((h) => make("th", { scope: "col" }, h)))),
    make("tbody", {}, ...rows.map((row) => make("tr", {}, ...row.map((cell) => make("td", {}, String(cell)))))));
}

function evidence(card) {
  const start = Math.min(...card.evidence.map((e) => e.logged_at_ms));
  const rows = card.evidence.map((e) => [e.item, e.station, `+${e.logged_at_ms - start} ms${e.late ? " (late)" : ""}`, e.offset,
    Object.entries(e.process_values).map(([k, v]) => `${k.replaceAll("_", " ")} ${v.toFixed(2)}`).join(", ")]);
  for (const name of card.missing) rows.push([name, "-", "missing", "-", ""]);
  const revisions = card.revisions.map((r) => [r.revision, WORDS[r.disposition], r.p_value === null ? "-" : small(r.p_value), r.real.join(", "), r.closed]);
  return make("details", {}, make("summary", {}, `Evidence: ${card.evidence.length} records, ${card.revisions.length} revision${card.revisions.length > 1 ? "s" : ""}`),
    table(["item", "station", "logged", "offset", "values"], rows),
    table(["revision", "disposition", "p", "real", "judged because"], revisions));
}

function provenance(card) {
  const rows = Object.entries(card.digests).map(([name, digest]) => [name, digest ?? "-"]);
  const timings = Object.entries(card.timings_ms).map(([name, value]) => `${name} ${value.toFixed(1)} ms`).join(", ");
  if (timings) rows.push(["timings", timings]);
  if (card.gap_ids.length) rows.push(["gaps", card.gap_ids.join(", ")]);
  if (card.truth?.faults.length) rows.push(["what the plant did", card.truth.faults.join(", ")]);
  return make("details", {}, make("summary", {}, "Digests and timings"), table(["what", "value"], rows));
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
