// The console's page: asks /api/state once a second while it is seen, draws it, and sends orders after a preview.
"use strict";

const $ = (id) => document.getElementById(id);
const LOOK_EVERY = 1000;
const STALE_AFTER = 3000;
const ANSWER_WITHIN = 8000;
const SVG = "http://www.w3.org/2000/svg";

// The console's key, when it has one, came behind the address; it is kept for this tab and shown to nobody.
const given = /^#key=([0-9a-f]+)$/.exec(location.hash);
if (given) {
  sessionStorage.setItem("key", given[1]);
  history.replaceState(null, "", "/");
}
const key = sessionStorage.getItem("key") ?? "1";

let refusal = "";
let state = null;
let heard = performance.now();
let order = null;
let asked = 0;
let touched = false;

// ---- words -------------------------------------------------------------------------------------------------------

function scaled(value, units) {
  const [unit, factor] = units.find(([, factor]) => value >= factor) ?? units.at(-1);
  const whole = value / factor;
  const digits = whole < 10 ? 2 : whole < 100 ? 1 : 0;
  return (Math.floor(whole * 10 ** digits) / 10 ** digits).toFixed(digits) + unit;
}

function count(value) {
  return value < 10000 ? String(value) : scaled(value, [["T", 1e12], ["G", 1e9], ["M", 1e6], ["k", 1e3]]);
}

function bytes(value) {
  const units = [["\u00a0TiB", 2 ** 40], ["\u00a0GiB", 2 ** 30], ["\u00a0MiB", 2 ** 20], ["\u00a0KiB", 1024]];
  return value < 1024 ? value + "\u00a0B" : scaled(value, units);
}

function duration(seconds) {
  const part = (unit, size, next, smaller) => `${Math.floor(seconds / size)}${unit} ${Math.floor((seconds % size) / next)}${smaller}`;
  if (seconds < 60) return `${seconds}s`;
  if (seconds < 3600) return part("m", 60, 1, "s");
  if (seconds < 86400) return part("h", 3600, 60, "m");
  return part("d", 86400, 3600, "h");
}

const millis = (value) => (value < 10000 ? `${value}ms` : duration(Math.floor(value / 1000)));
const perSecond = (value) => (value === null || value === undefined ? "unknown" : `${count(value)}/s`);
const ceiling = (rate) => (rate >= state.rate_max ? "max" : `${count(rate)}/s`);

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function drawn(name, attributes, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// ---- the flow ----------------------------------------------------------------------------------------------------

const MARKS = { ready: "●", degraded: "✖", overloaded: "▲", draining: "◆", starting: "◌", none: "✖", unknown: "?" };
const css = (verdict) => (verdict === "no answer" ? "none" : verdict);

// Boxes: [x, y, width, height]. Edges: points of the line, and where its label stands.
const WIDE = {
  size: [1120, 300],
  top: -12,
  boxes: {
    clients: [6, 62, 104, 72], relay: [226, 50, 170, 96], partial: [490, 50, 170, 96], final: [754, 50, 170, 96],
    stores: [1018, 50, 98, 96], spill: [226, 206, 170, 78], replayer: [490, 206, 170, 78],
  },
  edges: {
    clients_relay: [[[110, 98], [226, 98]], [166, 84]],
    relay_partial: [[[396, 98], [490, 98]], [441, 84]],
    partial_final: [[[660, 98], [754, 98]], [705, 84]],
    final_stores: [[[924, 98], [1018, 98]], [969, 84]],
    relay_stores: [[[311, 50], [311, 20], [1080, 20], [1080, 50]], [705, 9]],
    relay_spill: [[[266, 146], [266, 206]], [312, 181]],
    spill_replay: [[[396, 245], [490, 245]], null],
    replay_partial: [[[575, 206], [575, 146]], [575, 181]],
    replay_stores: [[[660, 245], [1067, 245], [1067, 146]], [860, 250]],
  },
};
const TALL = {
  size: [360, 590],
  top: 0,
  boxes: {
    clients: [4, 4, 168, 46], relay: [4, 112, 168, 84], partial: [4, 258, 168, 84], final: [4, 404, 168, 84],
    stores: [4, 540, 352, 46], spill: [222, 112, 134, 84], replayer: [222, 258, 134, 84],
  },
  edges: {
    clients_relay: [[[88, 50], [88, 112]], [88, 84]],
    relay_partial: [[[88, 196], [88, 258]], [88, 230]],
    partial_final: [[[88, 342], [88, 404]], [88, 376]],
    final_stores: [[[88, 488], [88, 540]], [88, 516]],
    relay_stores: [[[172, 180], [197, 180], [197, 540]], [197, 462]],
    relay_spill: [[[172, 140], [222, 140]], [197, 132]],
    spill_replay: [[[289, 196], [289, 258]], null],
    replay_partial: [[[222, 300], [172, 300]], [197, 292]],
    replay_stores: [[[316, 342], [316, 540]], [316, 516]],
  },
};
const EDGES = {
  clients_relay: ["", "taken in by relays"],
  relay_partial: ["", "from relays, safe in the aggregation layers; live and replayed"],
  relay_stores: ["", "raw lines from relays to stores"],
  partial_final: ["", "from partial to final nodes"],
  final_stores: ["", "aggregates from final nodes to stores"],
  relay_spill: ["spilled", "written to the spills of relays"],
  spill_replay: ["replayed", "borrowed by replayers"],
  replay_partial: ["replayed", "replayed to the aggregation layers"],
  replay_stores: ["replayed", "replayed to stores"],
};

function worst(nodes) {
  return nodes.length ? nodes[0].verdict : "unknown";
}

function layerBox(title, layer) {
  const nodes = state.nodes.filter((node) => node.layer === layer);
  if (!nodes.length) return { title, lines: [["not in this cluster", ""]], kind: "" };
  const ready = nodes.filter((node) => node.verdict === "ready").length;
  const kind = css(worst(nodes));
  const lines = [[`${MARKS[kind] ?? ""} ${ready} of ${nodes.length} ready`, kind]];
  if (ready < nodes.length) lines.push([`${nodes[0].name} ${nodes[0].verdict}`, kind]);
  const out = nodes.filter((node) => node.traffic?.word === "none" && node.verdict !== "no answer");
  if (out.length) lines.push([`▼ ${out.length} without traffic`, "warn"]);
  const queue = nodes.reduce((sum, node) => sum + (node.queue_bytes ?? 0), 0);
  if (layer === "relay" || layer === "partial") lines.push([`${bytes(queue)} on the way`, ""]);
  return { title, lines, kind };
}

function spillBox() {
  const spills = state.nodes.filter((node) => node.spill);
  if (!spills.length) return { title: "Spill", lines: [["unknown", ""]], kind: "" };
  const pending = spills.reduce((sum, node) => sum + node.spill.pending_points, 0);
  const used = spills.reduce((sum, node) => sum + node.spill.bytes, 0);
  const wrong = spills.find((node) => node.spill.mode !== "ok");
  const lines = [[pending ? `▲ ${count(pending)} points wait` : "● empty", pending ? "warn" : "ready"], [`${bytes(used)} on disk`, ""]];
  if (wrong) lines[1] = [`${wrong.name} ${wrong.spill.mode}`, "none"];
  return { title: "Spill", lines, kind: wrong ? "none" : pending ? "warn" : "" };
}

function replayerBox() {
  const box = layerBox("Replayer", "replayer");
  const replay = replays().find((node) => node.layer === "replayer")?.replay;
  if (replay && box.kind === "ready") {
    const words = replay.paused ? ["▲ paused", "warn"] : [`up to ${ceiling(replay.rate)}`, ""];
    const until = replay.eta_seconds !== null && replay.backlog_points ? `, ${duration(replay.eta_seconds)}` : "";
    box.lines.push([words[0] + until, words[1]]);
    if (replay.paused) box.kind = "warn";
  }
  return box;
}

function storesBox() {
  const names = state.stores.map((store) => (store.addresses > 1 ? `${store.name} ×${store.addresses}` : store.name));
  const shown = names.length > 3 ? [...names.slice(0, 2), `${names.length - 2} more`] : names;
  return { title: "Stores", lines: shown.map((name) => [short(name, 13), ""]), kind: "" };
}

const short = (text, most) => (text.length > most ? text.slice(0, most - 1) + "…" : text);

function drawEdge(name, [points, label], rate) {
  const [kind, words] = EDGES[name];
  const state_ = rate === null ? "still unknown" : rate === 0 ? "still" : "";
  const width = rate ? Math.min(15, 2 + 1.9 * Math.log10(1 + rate)) : 2;
  const tip = 7 + width * 0.75;
  const [[bx, by], [ex, ey]] = points.slice(-2);
  const length = Math.hypot(ex - bx, ey - by);
  const [dx, dy] = [(ex - bx) / length, (ey - by) / length];
  const line = [...points.slice(0, -1), [ex - dx * tip * 0.9, ey - dy * tip * 0.9]];
  const path = "M" + line.map((point) => point.join(" ")).join("L");
  const [nx, ny] = [-dy * tip * 0.75, dx * tip * 0.75];
  const [hx, hy] = [ex - dx * tip, ey - dy * tip];
  const group = drawn("g", { class: `${kind} ${state_}`, "data-edge": name, "data-rate": rate ?? "" },
    drawn("title", {}, `${perSecond(rate)} ${words}`),
    drawn("path", { class: "edge", d: path, "stroke-width": width.toFixed(1), "stroke-linejoin": "round" }),
    drawn("path", { class: "run", d: path }),
    drawn("path", { class: "tip", d: `M${ex} ${ey}L${hx + nx} ${hy + ny}L${hx - nx} ${hy - ny}Z` }));
  if (label) {
    group.append(drawn("text", { class: "rate", x: label[0], y: label[1] }, rate === null ? "?" : perSecond(rate)));
  }
  return group;
}

function drawBox(name, [x, y, width, height], { title, lines, kind }) {
  const group = drawn("g", { "data-box": name },
    drawn("rect", { class: `box ${kind}`, x, y, width, height, rx: 10 }),
    drawn("text", { class: "title", x: x + 13, y: y + (height < 60 ? 20 : 25) }, title));
  lines.slice(0, height < 60 ? 1 : 3).forEach(([text, kind], index) => {
    const words = drawn("text", { class: `words ${kind}`, x: x + 13, y: y + (height < 60 ? 37 : 46) + index * 18 });
    words.append(short(text, Math.floor((width - 20) / 6.6)));
    group.append(drawn("title", {}, `${title}: ${text}`), words);
  });
  return group;
}

function drawFlow() {
  const tall = matchMedia("(max-width: 640px)").matches;
  const layout = tall ? TALL : WIDE;
  const boxes = {
    clients: { title: "Clients", lines: [["Graphite", ""]], kind: "" },
    relay: layerBox("Relay", "relay"), partial: layerBox("Partial", "partial"), final: layerBox("Final", "final"),
    stores: storesBox(), spill: spillBox(), replayer: replayerBox(),
  };
  if (tall) boxes.stores.lines = [[state.stores.map((store) => store.name).join(", "), ""]];
  const { replay_partial: some, replay_stores: others } = state.flow;
  const rates = { ...state.flow, spill_replay: some === null && others === null ? null : (some ?? 0) + (others ?? 0) };
  const picture = $("picture");
  picture.setAttribute("viewBox", `0 ${layout.top} ${layout.size.join(" ")}`);
  picture.replaceChildren(
    ...Object.entries(layout.edges).map(([name, edge]) => drawEdge(name, edge, rates[name] ?? null)),
    ...Object.entries(layout.boxes).map(([name, at]) => drawBox(name, at, boxes[name])));
  // Rates above everything, so that no line crosses a number.
  picture.append(...[...picture.querySelectorAll(":scope > g > .rate")].map((rate) => {
    const group = drawn("g", { class: rate.parentNode.getAttribute("class") });
    group.append(rate);
    return group;
  }));
  $("flow-words").textContent = Object.keys(EDGES).map((name) => `${perSecond(rates[name] ?? null)} ${EDGES[name][1]}`).join(". ");
}

// ---- nodes -------------------------------------------------------------------------------------------------------

function reasons(node) {
  const all = [];
  if (node.reason) all.push(node.reason);
  const [running, workers] = node.workers;
  const [up, peers] = node.peers;
  if (running < workers) all.push(`${workers - running} of ${workers} workers do not run`);
  if (up < peers) all.push(`${peers - up} of ${peers} links down`);
  all.push(...(node.traffic?.reasons ?? []));
  if (node.spill && node.spill.mode !== "ok") all.push(`spill ${node.spill.mode}: ${node.spill.detail}`);
  else if (node.spill?.pending_points) all.push(`${count(node.spill.pending_points)} points wait in its spill`);
  if (node.replay?.paused) all.push("replay is paused");
  return all.join("; ");
}

function say(place, text) {
  if (place.textContent !== text) place.textContent = text;
}

// Rows stay what they are from one second to the next, so that a button under a finger does not go away.
const rows = new Map();

function rowOf(node) {
  const known = rows.get(node.name);
  if (known) return known;
  const number = (label) => element("td", { class: "n", "data-label": label });
  const cells = {
    mark: element("i", { "aria-hidden": "true" }), verdict: element("span"), traffic: element("td", { class: "traffic" }),
    taken: number("in/s"), handed: number("out/s"), queue: number("queue"), lag: number("lag"),
    reason: element("td", { class: "reason" }), hand: element("td", { class: "hand" }),
  };
  const row = element("tr", { "data-node": node.name },
    element("td", { class: "verdict" }, cells.mark, cells.verdict), element("th", { scope: "row" }, node.name),
    element("td", { class: "layer" }, node.layer), cells.traffic, cells.taken, cells.handed, cells.queue, cells.lag,
    cells.reason, cells.hand);
  if (node.traffic) {
    cells.button = element("button", { type: "button" });
    cells.button.addEventListener("click", () => {
      const what = cells.button.dataset.what;
      preview({ [what]: node.name }, `${what === "drain" ? "Drain" : "Undrain"} ${node.name}?`);
    });
    cells.hand.append(cells.button);
  }
  rows.set(node.name, { row, cells });
  return rows.get(node.name);
}

function trafficWords(traffic) {
  if (!traffic || traffic.word === "unknown") return "–";
  return { yes: "yes", none: "none", partly: `from ${traffic.from} of ${traffic.of}` }[traffic.word] + (traffic.drained ? ", drained" : "");
}

function drawNode(node) {
  const { row, cells } = rowOf(node);
  const kind = css(node.verdict);
  const out = node.traffic?.drained || ["none", "partly"].includes(node.traffic?.word);
  row.className = `${kind}${out ? " out" : ""}`;
  row.dataset.verdict = node.verdict;
  row.dataset.traffic = node.traffic?.word ?? "";
  say(cells.mark, MARKS[kind] ?? "?");
  say(cells.verdict, node.verdict);
  say(cells.traffic, trafficWords(node.traffic));
  cells.traffic.classList.toggle("empty", !node.traffic);
  const number = (cell, value) => {
    say(cell, value || "–");
    cell.classList.toggle("empty", !value);
  };
  number(cells.taken, node.flow && node.layer !== "replayer" ? count(node.flow.taken_in) : "");
  number(cells.handed, node.flow ? count(node.layer === "replayer" ? node.flow.replayed : node.flow.handed_on) : "");
  number(cells.queue, node.queue_bytes === null || node.layer === "final" ? "" : bytes(node.queue_bytes));
  number(cells.lag, node.lag_ms === null || node.layer === "final" ? "" : millis(node.lag_ms));
  say(cells.reason, reasons(node));
  if (cells.button) {
    const what = node.traffic.drained ? "undrain" : "drain";
    cells.button.dataset.what = what;
    say(cells.button, what === "drain" ? "Drain" : "Undrain");
    cells.button.setAttribute("aria-label", `${what === "drain" ? "Drain" : "Undrain"} ${node.name}`);
  }
  return row;
}

function drawNodes() {
  const place = $("rows");
  const wanted = state.nodes.map(drawNode);
  if (wanted.length === place.children.length && wanted.every((row, index) => row === place.children[index])) return;
  const focused = place.contains(document.activeElement) ? document.activeElement : null;
  place.replaceChildren(...wanted);
  focused?.focus({ preventScroll: true });
}

// ---- health modes ------------------------------------------------------------------------------------------------

const MODES = [
  ["strict", "proven by canaries"], ["lenient", "the link is up"], ["auto", "strict as long as that leaves enough nodes"],
];
const clock = (at) => new Date(at * 1000).toLocaleTimeString("en-GB");
let drawnLayers = "";

function drawModes() {
  const layers = state.modes.map((mode) => mode.layer);
  if (!layers.length) return;
  if (layers.join() !== drawnLayers) {
    drawnLayers = layers.join();
    $("mode-rows").replaceChildren(...["all", ...layers].map(modeRow));
  }
  for (const mode of state.modes) {
    const row = $("mode-rows").querySelector(`[data-layer="${mode.layer}"]`);
    const words = [];
    if (mode.effect && mode.effect !== mode.mode) words.push(`${mode.effect} in effect`);
    if (mode.until) words.push(`until ${clock(mode.until)}, then ${mode.then}`);
    if (!mode.agreed) words.push("not all nodes have it");
    if (!mode.by) words.push("by the cluster file");
    say(row.querySelector("small"), words.join(" · "));
    row.querySelector("small").className = mode.agreed ? "" : "warn";
    press(row, mode.mode);
  }
  const all = new Set(state.modes.map((mode) => mode.mode));
  press($("mode-rows").firstChild, all.size === 1 ? [...all][0] : "");
}

function press(row, mode) {
  for (const button of row.querySelectorAll("button")) {
    button.setAttribute("aria-pressed", String(button.dataset.mode === mode));
  }
}

function modeRow(layer) {
  const title = layer === "all" ? "All layers" : layer[0].toUpperCase() + layer.slice(1);
  const buttons = MODES.map(([mode, meaning]) => {
    const button = element("button", { type: "button", "data-mode": mode, title: meaning, "aria-pressed": "false" }, mode);
    button.addEventListener("click", () => {
      const lasts = $("mode-for").value;
      const order = lasts ? { mode, layer, for: lasts } : { mode, layer };
      preview(order, `${title}: ${mode}?`);
    });
    return button;
  });
  return element("div", { class: "mode", "data-layer": layer }, element("b", {}, title), element("small"),
    element("div", { class: "switch", role: "group", "aria-label": `Mode of ${title.toLowerCase()}` }, ...buttons));
}

// ---- charts ------------------------------------------------------------------------------------------------------

const CHARTS = [
  { title: "Live", unit: "/s", lines: [["taken_in", "", "in"], ["to_stores", "b", "to stores"]] },
  { title: "Spill and replay", unit: "/s", lines: [["spilled", "spill", "spilled"], ["replayed", "replay", "replayed"]] },
  { title: "Waiting in spills", unit: " points", lines: [["pending", "spill", "waiting"]], area: true },
];

function drawCharts() {
  const ages = state.history.age_ms;
  const span = Math.max(60000, ages[0] ?? 0);
  $("charts").replaceChildren(...CHARTS.map((chart) => {
    const most = Math.max(10, ...chart.lines.flatMap(([key]) => state.history[key].map((value) => value ?? 0)));
    const caption = element("figcaption", {}, chart.title);
    const plot = drawn("svg", { class: "plot", viewBox: "0 0 600 100", preserveAspectRatio: "none", role: "img" });
    const words = [];
    for (const [key, kind, name] of chart.lines) {
      const values = state.history[key];
      const now = values.at(-1);
      const said = now === null || now === undefined ? "unknown" : count(now) + chart.unit;
      caption.append(element("span", {}, element("i", { class: `swatch ${kind}` }), `${name} `, element("b", {}, said)));
      words.push(`${name}: ${said} now`);
      const x = (index) => (600 * (1 - ages[index] / span)).toFixed(1);
      const y = (value) => (96 - (90 * value) / most).toFixed(1);
      let path = "", first = null, last = null;
      values.forEach((value, index) => {
        // A second of which nothing is known is a gap, not a zero.
        if (value === null) return;
        const gap = index === 0 || values[index - 1] === null;
        path += `${gap ? "M" : "L"}${x(index)} ${y(value)}`;
        first ??= index;
        last = index;
      });
      if (chart.area && first !== null && !path.includes("M", 1)) {
        plot.append(drawn("path", { class: "area", d: `${path}L${x(last)} 100L${x(first)} 100Z` }));
      }
      plot.append(drawn("path", { class: kind, d: path || "M0 0" }));
    }
    plot.setAttribute("aria-label", `${chart.title}. ${words.join(", ")}; highest ${count(most)}${chart.unit}`);
    const scale = element("div", { class: "scale", "aria-hidden": "true" },
      element("span", {}, `${duration(Math.round(span / 1000))} ago`), element("span", {}, `top ${count(most)}${chart.unit}`),
      element("span", {}, "now"));
    return element("figure", {}, caption, plot, scale);
  }));
}

// ---- replay ------------------------------------------------------------------------------------------------------

const replays = () => state.nodes.filter((node) => node.replay);
const allPaused = () => replays().length > 0 && replays().every((node) => node.replay.paused);

function drawReplay() {
  const nodes = replays();
  const replayers = nodes.filter((node) => node.layer === "replayer");
  const main = (replayers[0] ?? nodes[0])?.replay;
  const now = $("replay-now");
  $("pause").disabled = $("set-rate").disabled = !main;
  if (!main) {
    now.replaceChildren(element("b", {}, "unknown"), "no node that replays answers");
    return;
  }
  const backlog = replayers.reduce((most, node) => Math.max(most, node.replay.backlog_points), 0);
  const rates = new Set(nodes.map((node) => node.replay.rate));
  const word = ["idle", "paused"].includes(main.limited_by);
  const parts = main.paused ? [] : [word ? main.limited_by : `limited by ${main.limited_by}`];
  if (rates.size > 1) parts.push("nodes differ: " + nodes.map((node) => `${node.name} ${ceiling(node.replay.rate)}`).join(", "));
  parts.push(backlog ? `${count(backlog)} points wait` : "nothing waits");
  if (backlog && main.eta_seconds !== null) parts.push(`done in ${duration(main.eta_seconds)}`);
  const title = main.paused ? "paused" : `${perSecond(main.rate_now)} of ${ceiling(main.rate)}`;
  now.replaceChildren(element("b", { class: main.paused ? "warn" : "", id: "replay-rate" }, title), parts.join(" · "));
  $("pause").textContent = allPaused() ? "Resume replay" : "Pause replay";
  $("replay-notes").replaceChildren(...[...new Set(nodes.flatMap((node) => node.replay.notes))].map((note) => element("li", {}, note)));
  if (!touched) show(main.rate);
}

// The slider has eight decades, a hundred steps each.
const position = (rate) => Math.round(100 * Math.log10(Math.max(1, rate)));
function rateAt(position) {
  const exact = 10 ** (position / 100);
  const step = 10 ** Math.max(0, Math.floor(Math.log10(exact)) - 1);
  return Math.round(exact / step) * step;
}
const written = (rate) => (rate >= (state?.rate_max ?? 1e8) ? "max" : `${rate}/s`);

function parsed(text) {
  if (text.trim() === "max") return 1e8;
  const found = /^([0-9][0-9_]*(?:\.[0-9]+)?)([kKM]?)(?:\/s)?$/.exec(text.trim());
  return found ? Number(found[1].replaceAll("_", "")) * ({ k: 1e3, K: 1e3, M: 1e6 }[found[2]] ?? 1) : null;
}

function show(rate) {
  if (document.activeElement !== $("rate")) $("rate").value = written(rate);
  if (document.activeElement !== $("slider")) $("slider").value = position(rate);
  $("slider").setAttribute("aria-valuetext", `${written(rate)}`);
}

$("slider").addEventListener("input", () => {
  touched = true;
  const rate = rateAt(Number($("slider").value));
  $("rate").value = written(rate);
  $("slider").setAttribute("aria-valuetext", written(rate));
});
$("rate").addEventListener("input", () => {
  touched = true;
  const rate = parsed($("rate").value);
  if (rate) $("slider").value = position(rate);
});
$("rate-form").addEventListener("submit", (event) => {
  event.preventDefault();
  preview({ rate: $("rate").value.trim() }, "Change the replay rate?", $("rate-wrong"));
});
$("pause").addEventListener("click", togglePause);

function togglePause() {
  if (!state || !replays().length) return;
  const paused = !allPaused();
  preview({ paused }, paused ? "Pause replay?" : "Resume replay?");
}

async function put(path, body) {
  const answer = await fetch(path, {
    method: "PUT",
    headers: { "content-type": "application/json", "x-spillway-console": key },
    body: JSON.stringify(body),
    signal: AbortSignal.timeout(ANSWER_WITHIN),
  });
  const said = await answer.json();
  if (!answer.ok) throw new Error(said.error);
  return said;
}

function tell(lines) {
  $("order-lines").replaceChildren(...lines.map(([text, bad]) => element("li", bad ? { class: "bad" } : {}, text)));
}

function openOrder(title) {
  $("order-title").textContent = title;
  $("order-command").textContent = "…";
  $("order-what").textContent = "Asking the nodes what it would do …";
  tell([]);
  $("send").hidden = false;
  $("send").disabled = true;
  $("cancel").textContent = "Cancel";
  if (!$("order").open) $("order").showModal();
}

// `wrong`: where a refusal is written; without it the dialog says it.
async function preview(body, title, wrong) {
  const question = (asked += 1);
  $("rate-wrong").textContent = "";
  order = null;
  if (!wrong) openOrder(title);
  let said;
  try {
    said = await put("/api/order?dry_run", body);
  } catch (error) {
    if (question !== asked) return;
    if (wrong) {
      wrong.textContent = error.message;
      return;
    }
    $("order-what").textContent = "It is not known what it would do; nothing has been sent.";
    tell([[error.message, true]]);
    $("send").hidden = true;
    return;
  }
  // Closed meanwhile, or another one was asked for.
  if (question !== asked || (!wrong && !$("order").open)) return;
  if (wrong) openOrder(title);
  order = body;
  $("order-command").textContent = said.command;
  $("order-what").textContent = "Nothing has been sent yet. This would change:";
  tell(said.lines.map((line) => [line.text, line.bad]));
  $("send").disabled = false;
  $("send").focus();
}
$("order").addEventListener("close", () => { asked += 1; });

$("send").addEventListener("click", async () => {
  if (!order) return;
  const body = order;
  order = null;
  $("send").disabled = true;
  $("order-what").textContent = "Sending …";
  try {
    const said = await put("/api/order", body);
    const bad = said.lines.some((line) => line.bad);
    $("order-what").textContent = bad ? "Sent. Not everywhere as it should be:" : "Sent. In force now:";
    tell(said.lines.map((line) => [line.text, line.bad]));
  } catch (error) {
    $("order-what").textContent = "It is not known whether it was taken; look at the changes.";
    tell([[error.message, true]]);
  }
  touched = false;
  $("send").hidden = true;
  $("cancel").textContent = "Close";
  $("cancel").focus();
  look();
});

// ---- changes -----------------------------------------------------------------------------------------------------

let drawnAudit = "";

function auditValue(what, text) {
  if (what.split(".").at(-1) === "rate" && /^[0-9]+$/.test(text)) return ceiling(Number(text));
  if (!text) return what.startsWith("mode/") ? "as the cluster file says" : what.startsWith("drain/") ? "active" : "–";
  const lasting = /^([a-z]+) until ([0-9]+) then ([a-z]+)$/.exec(text);
  return lasting ? `${lasting[1]} until ${clock(Number(lasting[2]))}, then ${lasting[3]}` : text;
}

function auditSubject(what) {
  const [kind, name] = what.split("/");
  return { mode: `mode of ${name}`, drain: name, forget: name }[kind] ?? what;
}

function drawAudit() {
  const said = JSON.stringify(state.audit);
  if (said === drawnAudit) return;
  drawnAudit = said;
  const time = (at) => new Date(at * 1000).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "medium" });
  const where = (nodes) => (nodes.length > 3 ? `${nodes.length} nodes` : nodes.join(", "));
  const items = state.audit.map((change) => element("li", {},
    element("span", {}, element("b", {}, `${auditSubject(change.what)} `),
      `${auditValue(change.what, change.old)} → ${auditValue(change.what, change.new)}`),
    element("small", { title: change.nodes.join(", ") },
      `${time(change.at)} · ${where(change.nodes)} · ${change.by || "not said"}`)));
  $("audit").replaceChildren(...(items.length ? items : [element("li", {}, "no changes yet")]));
}

// ---- the whole ---------------------------------------------------------------------------------------------------

function draw() {
  $("cluster").textContent = state.cluster;
  document.title = `${state.ready} of ${state.nodes.length} ready · ${state.cluster} · Spillway`;
  const summary = `${state.ready} of ${state.nodes.length} nodes ready`;
  // Written only when it changes: a screen reader says it each time.
  if ($("summary").textContent !== summary) $("summary").textContent = summary;
  $("summary").className = state.ready === state.nodes.length ? "good" : "bad";
  drawFlow();
  drawNodes();
  drawModes();
  drawReplay();
  drawCharts();
  drawAudit();
}

function watchAge() {
  const silent = performance.now() - heard;
  const age = state?.age_ms === null || !state ? null : state.age_ms + silent;
  let banner = "", bad = true;
  if (refusal) {
    banner = refusal[0].toUpperCase() + refusal.slice(1);
  } else if (silent > STALE_AFTER) {
    banner = `The console does not answer: what stands here is ${duration(Math.round((age ?? silent) / 1000))} old. Is spillway console still running?`;
  } else if (state && (state.age_ms === null || state.age_ms > STALE_AFTER)) {
    banner = "The console has heard nothing of the nodes for 3 s: what stands here may be old.";
  } else if (state && state.answering === 0) {
    banner = "No node answers: the cluster is down, or this machine cannot reach it.";
  } else if (state && state.answering < state.nodes.length) {
    const names = state.nodes.filter((node) => node.verdict === "no answer").map((node) => node.name);
    banner = `${names.length === 1 ? "1 node does" : names.length + " nodes do"} not answer: ${names.join(", ")}`;
    bad = false;
  }
  if ($("banner").textContent !== banner) $("banner").textContent = banner;
  $("banner").hidden = !banner;
  $("banner").className = bad ? "bad" : "";
  document.body.classList.toggle("stale", Boolean(banner) && bad && silent > STALE_AFTER);
  $("age").textContent = age === null ? "" : age > STALE_AFTER ? `${duration(Math.round(age / 1000))} old` : "live";
}

let looking = false;
async function look() {
  if (looking || document.hidden) return;
  looking = true;
  try {
    const answer = await fetch("/api/state", {
      headers: { "x-spillway-console": key }, signal: AbortSignal.timeout(ANSWER_WITHIN), cache: "no-store",
    });
    refusal = answer.ok ? "" : (await answer.json()).error;
    if (answer.ok) {
      state = await answer.json();
      heard = performance.now();
      draw();
    }
  } catch {
    // The banner says how old the picture is.
    refusal = "";
  } finally {
    looking = false;
  }
  watchAge();
}

// ---- colours and keys --------------------------------------------------------------------------------------------

const THEMES = [["auto", "Auto", "as the system has them"], ["light", "Light", "light"], ["dark", "Dark", "dark"]];
function theme(name) {
  const [key, word, said] = THEMES.find(([key]) => key === name) ?? THEMES[0];
  document.documentElement.dataset.theme = key;
  $("theme").querySelector("span").textContent = word;
  $("theme").setAttribute("aria-label", `Colours: ${said}`);
  localStorage.setItem("theme", key);
}
const nextTheme = () => theme(THEMES[(THEMES.findIndex(([key]) => key === document.documentElement.dataset.theme) + 1) % 3][0]);
$("theme").addEventListener("click", nextTheme);
$("help").addEventListener("click", () => $("keys").showModal());

document.addEventListener("keydown", (event) => {
  const typing = event.target instanceof HTMLSelectElement || (event.target instanceof HTMLInputElement && event.target.type === "text");
  if (typing || event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  const does = {
    "?": () => $("keys").showModal(),
    r: () => { $("rate").focus(); $("rate").select(); },
    p: togglePause,
    m: () => { $("mode-rows").querySelector("button")?.focus(); },
    n: () => { $("nodes").focus(); $("nodes").scrollIntoView(); },
    t: nextTheme,
  }[event.key];
  if (does) {
    event.preventDefault();
    does();
  }
});

theme(localStorage.getItem("theme") ?? "auto");
document.addEventListener("visibilitychange", () => { heard = performance.now(); look(); });
matchMedia("(max-width: 640px)").addEventListener("change", () => state && drawFlow());
setInterval(look, LOOK_EVERY);
setInterval(watchAge, 500);
look();
