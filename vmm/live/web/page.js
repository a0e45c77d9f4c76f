// Shows /api/state.json (docs/live-view.md), each second anew. All text of it is put into the page
// as text, never as markup: some of it comes from attackers.
"use strict";

const KEPT_SECONDS = 300;
const history = [];  // {at, lag: {guest: bytes}, forwarded, dropped}: the last minutes
let before = null;   // the last state and when it came, for what happens in a second

function make(tag, options = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(options)) {
    if (key === "text") element.textContent = value;
    else element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

function draw(tag, attributes, text) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

function bytes(count) {
  let unit = 0;
  while (count >= 1024 && unit < 4) {
    count /= 1024;
    ++unit;
  }
  return `${count < 10 && unit > 0 ? count.toFixed(1) : Math.round(count)} ${["B", "KiB", "MiB", "GiB", "TiB"][unit]}`;
}

function duration(seconds) {
  const s = Math.floor(seconds);
  if (s >= 86400) return `${Math.floor(s / 86400)} d ${Math.floor(s / 3600) % 24} h`;
  if (s >= 3600) return `${Math.floor(s / 3600)} h ${Math.floor(s / 60) % 60} min`;
  return s >= 60 ? `${Math.floor(s / 60)} min ${s % 60} s` : `${s} s`;
}

const short = (count) => count.toLocaleString("en", {maximumFractionDigits: count < 10 ? 1 : 0});
const sum = (values) => values.reduce((all, value) => all + value, 0);
const hasStandby = (guest) => guest.standby.phase !== "" && guest.standby.phase !== "none";

// A table. Each column: [title, of(row), options]; `of` gives a text, or [text, class].
function table(title, columns, rows) {
  if (rows.length === 0) return [];
  const body = rows.map((row) => make("tr", {}, ...columns.map(([label, of, kind = ""]) => {
    const cell = of(row);
    const [text, extra] = Array.isArray(cell) ? cell : [cell, ""];
    return make("td", {"data-label": label, class: `${kind} ${extra}`, text});
  })));
  const head = columns.map(([label, , kind = ""]) => make("th", {scope: "col", class: kind, text: label}));
  return [make("h2", {text: title}),
    make("div", {class: "table"}, make("table", {}, make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...body)))];
}

// Primaries, each followed by its clones.
function inOrder(guests) {
  const names = new Set(guests.filter((guest) => !guest.primary).map((guest) => guest.name));
  const roots = guests.filter((guest) => !names.has(guest.primary));
  return roots.flatMap((root) => [root, ...guests.filter((guest) => guest.primary && guest.primary === root.name && guest !== root)]);
}

function lastPause(guest) {
  const last = guest.forks.recent.at(-1);
  return last ? `${(last.pause_us / 1000).toFixed(2)} ms` : "–";
}

function tables(state, rates) {
  const clones = state.switches.flatMap((one) => one.clones);
  return [
    ...table("Guests and clones", [
      ["Name", (g) => [g.name, g.primary ? "indent" : ""]],
      ["State", (g) => [g.state, g.up ? "" : "alarm"]],
      ["Clone of", (g) => g.primary || "–"],
      ["Up", (g) => g.up ? duration(g.uptime_s) : "–", "number"],
      ["Ends in", (g) => g.ends_in_s === null ? "–" : duration(g.ends_in_s), "number"],
      ["Private", (g) => bytes(g.memory_private_bytes) + (g.memory_limit_bytes ? ` of ${bytes(g.memory_limit_bytes)}` : ""), "number"],
      ["Shared", (g) => g.memory_shared_bytes ? bytes(g.memory_shared_bytes) : "–", "number"],
      ["Flows", (g) => g.primary ? short(g.flows) : "–", "number"],
      ["Attackers", (g) => g.diverted.slice(0, 5).map((d) => d.remote).join(", ") + (g.diverted.length > 5 ? ` and ${g.diverted.length - 5} more` : "") || "–"],
      ["Standby", (g) => [hasStandby(g) ? [g.standby.phase, g.standby.where, g.standby.error].filter(Boolean).join(" ") : "–", g.standby.phase === "failed" ? "alarm" : ""]],
      ["Behind", (g) => hasStandby(g) ? bytes(g.standby.behind_bytes) : "–", "number"],
      ["Forks", (g) => short(g.forks.done) + (g.forks.failed ? `, ${g.forks.failed} failed` : ""), "number"],
      ["Last pause", lastPause, "number"],
    ], inOrder(state.guests)),
    ...clones.flatMap((clone) => table(
      `Flows of ${clone.clone}: ${short(clone.flows)}` + (clone.flows > clone.newest.length ? `, the newest ${clone.newest.length}` : ""), [
        ["Far end", (f) => `${f.remote} ${f.remote_port}`],
        ["Protocol", (f) => f.protocol],
        ["Port", (f) => String(f.local_port), "number"],
        ["Opened by", (f) => f.opened_by || "the far end"],
        ["Verdict", (f) => f.opened_by ? f.verdict : "–"],
        ["In", (f) => bytes(f.bytes_in), "number"],
        ["Out", (f) => bytes(f.bytes_out), "number"],
        ["", (f) => f.closed ? "closed" : "open"],
      ], clone.newest)),
    ...table("Switches", [
      ["Name", (s) => s.name],
      ["State", (s) => s.up ? "runs" : ["no answer", "alarm"]],
      ["Flows", (s) => short(s.flows), "number"],
      ["Diversions", (s) => short(s.diversions.length), "number"],
      ["Forwarded", (s) => `${short(rates.of(s).forwarded)}/s`, "number"],
      ["Dropped", (s) => `${short(rates.of(s).dropped)}/s`, "number"],
      ["Dropped so far, and why", (s) => Object.entries(s.drops).filter(([, n]) => n).map(([why, n]) => `${why} ${short(n)}`).join(", ") || "–"],
    ], state.switches),
    ...table("Overlays", [
      ["View", (m) => m.view],
      ["Mounted at", (m) => m.mountpoint],
      ["Layers", (m) => short(m.depth), "number"],
      ["Open files", (m) => short(m.open_files), "number"],
      ["Forks", (m) => short(m.forks), "number"],
      ["Durable", (m) => m.error ? [m.error, "alarm"] : "yes"],
    ], state.overlays.flatMap((one) => one.mounts)),
    ...table("Watches", [
      ["Guest", (w) => w.guest],
      ["State", (w) => w.up ? (w.dry_run ? "dry run" : "runs") : ["no answer", "alarm"]],
      ["Alerts", (w) => short(w.alerts), "number"],
      ["Forks", (w) => short(w.done.fork ?? 0), "number"],
      ["Diversions", (w) => short(w.done.divert ?? 0), "number"],
      ["Withheld", (w) => short(w.withheld), "number"],
      ["Failed", (w) => [short(w.failed), w.failed ? "alarm" : ""], "number"],
    ], state.watches),
    ...table("Clones that have ended", [
      ["Name", (c) => c.name],
      ["Clone of", (c) => c.primary],
      ["Made", (c) => c.created],
    ], state.ended_clones),
  ];
}

const WIDTH = 420, HEIGHT = 170, LEFT = 56, RIGHT = 8, TOP = 8, BOTTOM = 20;

// series: [{name, points: [[seconds ago, value]], dots}]
function plot(title, series, format, span, note) {
  const most = Math.max(...series.flatMap((one) => one.points.map(([, value]) => value)), 0) * 1.15 || 1;
  const x = (ago) => WIDTH - RIGHT - (WIDTH - LEFT - RIGHT) * ago / span;
  const y = (value) => HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / most;
  const svg = draw("svg", {viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img"});
  svg.append(draw("title", {}, title));
  for (const part of [0, 0.5, 1]) {
    svg.append(draw("line", {class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: y(most * part), y2: y(most * part)}));
    svg.append(draw("text", {x: LEFT - 6, y: y(most * part) + 4, "text-anchor": "end"}, format(most * part)));
  }
  svg.append(draw("text", {x: LEFT, y: HEIGHT - 4}, `${duration(span)} ago`));
  svg.append(draw("text", {x: WIDTH - RIGHT, y: HEIGHT - 4, "text-anchor": "end"}, "now"));
  const keys = make("p", {});
  series.forEach((one, number) => {
    const color = number % 4;
    if (one.dots) {
      for (const [ago, value] of one.points) svg.append(draw("circle", {class: `dot s${color}`, cx: x(ago), cy: y(value), r: 3.5}));
    } else if (one.points.length > 0) {
      const path = one.points.map(([ago, value], i) => `${i ? "L" : "M"}${x(ago).toFixed(1)} ${y(value).toFixed(1)}`).join("");
      svg.append(draw("path", {class: `series s${color}`, d: path}));
    }
    keys.append(make("span", {class: `key k${color}`, text: one.name}));
  });
  if (series.every((one) => one.points.length === 0)) keys.append(note);
  return make("div", {class: "plot"}, make("h2", {text: title}), svg, keys);
}

function plots(state, now) {
  const forks = state.guests.filter((guest) => guest.forks.recent.length).map((guest) => ({
    name: guest.name, dots: true,
    points: guest.forks.recent.map((fork) => [Math.max(0, (Date.parse(state.time) - Date.parse(fork.time)) / 1000), fork.pause_us / 1000]),
  }));
  const oldest = Math.max(60, ...forks.flatMap((one) => one.points.map(([ago]) => ago))) * 1.05;
  const ago = (entry) => (now - entry.at) / 1000;
  const guests = [...new Set(history.flatMap((entry) => Object.keys(entry.lag)))].slice(0, 8);
  const lag = guests.map((name) => ({
    name, points: history.filter((entry) => name in entry.lag).map((entry) => [ago(entry), entry.lag[name]]),
  }));
  const verdicts = [["forwarded", "forwarded"], ["dropped", "dropped"]].map(([name, key]) => ({
    name, points: state.switches.length ? history.filter((entry) => entry[key] !== null).map((entry) => [ago(entry), entry[key]]) : [],
  }));
  const span = Math.min(KEPT_SECONDS, Math.max(30, history.length ? ago(history[0]) : 0));
  return [
    plot("Pause of forks", forks, (ms) => `${ms.toFixed(ms < 10 ? 1 : 0)} ms`, oldest, "no fork yet"),
    plot("Standbys behind", lag, bytes, span, "no standby"),
    plot("Frames a second", verdicts, short, span, "no switch"),
  ];
}

function tile(label, value, kind = "") {
  return make("div", {class: "tile"}, make("b", {text: value, class: kind}), make("span", {class: "soft", text: label}));
}

function tiles(state, rates) {
  const down = sum(["guests", "switches", "overlays", "watches"].map((kind) => state[kind].filter((one) => !one.up).length));
  const standbys = state.guests.filter(hasStandby);
  return [
    tile("guests", state.guests.filter((guest) => !guest.primary && guest.up).length),
    tile("clones", state.guests.filter((guest) => guest.primary && guest.up).length),
    tile("standbys in sync", `${standbys.filter((guest) => guest.standby.phase === "in-sync").length} of ${standbys.length}`),
    tile("diverted", sum(state.switches.map((one) => one.diversions.length))),
    tile("flows of clones", short(sum(state.guests.map((guest) => guest.flows)))),
    tile("frames dropped", `${short(rates.dropped ?? 0)}/s`),
    tile("do not answer", down, down ? "alarm" : "good"),
  ];
}

// What switches do in a second, since the state before.
function ratesOf(state, now) {
  const of = (one) => {
    const old = before?.state.switches.find((other) => other.name === one.name);
    const seconds = (now - (before?.at ?? now)) / 1000;
    const rate = (key) => old && seconds > 0 && one[key] >= old[key] ? (one[key] - old[key]) / seconds : 0;
    return {forwarded: rate("forwarded"), dropped: rate("dropped")};
  };
  if (!before) return {of, forwarded: null, dropped: null};
  return {of, forwarded: sum(state.switches.map((one) => of(one).forwarded)), dropped: sum(state.switches.map((one) => of(one).dropped))};
}

function show(state, now) {
  const rates = ratesOf(state, now);
  const lag = {};
  for (const guest of state.guests.filter(hasStandby)) lag[guest.name] = guest.standby.behind_bytes;
  history.push({at: now, lag, forwarded: rates.forwarded, dropped: rates.dropped});
  while (history.length && now - history[0].at > KEPT_SECONDS * 1000) history.shift();
  before = {state, at: now};
  document.getElementById("tiles").replaceChildren(...tiles(state, rates));
  document.getElementById("plots").replaceChildren(...plots(state, now));
  document.getElementById("tables").replaceChildren(...tables(state, rates));
  const when = document.getElementById("when");
  when.className = "";
  when.textContent = `ivmm ${state.version}, ${new Date(state.time).toLocaleTimeString("en-GB")}`;
}

async function refresh() {
  try {
    const answer = await fetch("api/state.json", {cache: "no-store", signal: AbortSignal.timeout(10000)});
    if (!answer.ok) throw new Error(await answer.text());
    show(await answer.json(), performance.now());
  } catch (error) {
    const when = document.getElementById("when");
    when.className = "alarm";
    when.textContent = `No answer from ivmm web (${error.message}); what is below is old.`;
  }
  setTimeout(refresh, 1000);
}

refresh();
