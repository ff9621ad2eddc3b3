// The part in view: what was captured, what was hallucinated, why the verdict is what it is.
// Helpers (make, percent, small, getJson), WORDS, ICONS, OUTCOMES and state are page.js's.
"use strict";

function cardContent(card) {
  return [cardHead(card), cardWhy(card), modalities(card), evidence(card), provenance(card)];
}

function truthPill(card) {
  if (!card.truth) return "";
  const truth = card.truth.defect === null ? card.truth.label
    : `${card.truth.defect.replaceAll("_", " ")}, grade ${card.truth.grade}`;
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
  const limit = card.rejects_at ?? low;
  const zone = make("i", { class: "zone" }), mark = make("i", { class: "mark" });
  zone.style.width = `${at(limit)}%`;
  const edge = make("span", { class: "end" }, percent(limit));
  const start = make("span", { class: "end" }, "0.1 %"), end = make("span", { class: "end last" }, "100 %");
  edge.style.left = `${at(limit)}%`;
  start.style.left = "0";
  end.style.left = "100%";
  box.append(start, make("i", { class: "track" }), zone, edge, end);
  if (card.p_value !== null) {
    mark.style.left = `${at(card.p_value)}%`;
    box.append(mark);
  }
  box.setAttribute("aria-label", `p-value ${card.p_value ?? "none"}, rejected up to ${percent(limit)}`);
  return box;
}

function cardWhy(card) {
  const promise = card.promise_valid
    ? `promise: of good parts with these sensors, at most ${percent(card.false_reject_rate)} are rejected; so p up to ${percent(card.rejects_at)} rejects`
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
