// The lists of the page: servers, routes, dependencies, limits, cache, events.
import { $, keyed, make, text } from "./dom.js";
import { bytes, clock, count, duration, percent, short, span } from "./format.js";
import { ask } from "./dialog.js";
import { post } from "./api.js";

const kinds = { up: "ok", connected: "ok", down: "bad", disconnected: "bad", ejected: "bad", trial: "warn", drained: "off", disabled: "off", unknown: "off" };
const within = (now, before, seconds) => seconds > 0 ? Math.max(0, now - (before ?? now)) / seconds : 0;

// ordered tells whether an operator has taken a server of that state out of use.
const ordered = state => state === "drained" || state === "disabled";

// part finds an element below another by its data-part.
const part = (element, name) => element.querySelector(`[data-part="${name}"]`);
const cell = (name, className = "", label = "") => make("td", className, { "data-part": name, ...(label && { "data-label": label }) });

export function showServers(status, window, changed) {
  const before = new Map();
  for (const p of window.before.upstreams ?? []) for (const s of p.servers) before.set(p.name + " " + s.address, s);
  const list = $("servers");
  keyed(list, status.upstreams ?? [], p => p.name, pool => {
    const head = make("div", "pool-head", {}, make("h3", "", {}, pool.name), make("span", "pill", { "data-part": "health" }), make("span", "quiet", { "data-part": "about" }));
    const table = make("table", "servers", {}, make("thead", "", {}, make("tr", "", {},
      ...[["Server"], ["State"], ["In flight"], ["Req/s", "num"], ["Errors", "num"], ["Latency", "num"], ["Weight", "num"]].map(([t, c]) => make("th", c, { scope: "col" }, t)),
      make("th", "", { "aria-label": "Actions" }))), make("tbody"));
    return make("div", "pool", { "data-pool": pool.name }, head, make("div", "scroll", {}, table));
  }, (element, pool) => {
    const usable = pool.servers.filter(s => s.usable).length;
    text(part(element, "health"), `${usable} of ${pool.servers.length} in use`).className =
      "pill " + (usable === 0 ? "bad" : usable < pool.servers.length ? "warn" : "ok");
    const about = [pool.balance.replaceAll("_", " ")];
    if (pool.limit) about.push(`at most ${count(pool.limit)} in flight`);
    if (pool.queue) about.push(`${count(pool.queue.waiting ?? 0)} waiting`);
    if (pool.panic) about.push("so many are ejected that ejections are ignored");
    for (const n of pool.names ?? []) if (n.error) about.push(`${n.name}: ${n.error}`);
    text(part(element, "about"), about.join(" · "));
    const most = Math.max(8, ...pool.servers.map(s => s.in_flight));
    keyed(element.querySelector("tbody"), pool.servers, s => s.address, s => serverRow(pool.name, s, changed),
      (row, s) => updateServer(row, s, before.get(pool.name + " " + s.address), window.seconds, most));
  });
}

function serverRow(pool, server, changed) {
  const row = make("tr", "", { "data-server": server.address },
    make("td", "full", {}, make("span", "name mono", {}, server.address), make("span", "under", { "data-part": "reason" })),
    cell("state", "full"), cell("load", "full"), cell("rate", "num", "requests/s"), cell("errors", "num", "errors"), cell("latency", "num", "latency"), cell("weight", "num", "weight"),
    make("td", "actions-cell"));
  part(row, "state").append(make("span", "pill"));
  part(row, "load").append(make("span", "load", {}, make("meter", "", { min: 0 }), make("span")));
  const { address } = server;
  const toggle = make("button", "small needs-operator", { "data-action": "drain" });
  const weigh = make("button", "small needs-operator", { "data-action": "weight", "aria-label": `Weight of ${address}` }, "Weight…");
  toggle.onclick = () => {
    const out = ordered(row.dataset.state);
    ask({
      title: `${out ? "Enable" : "Drain"} ${address}?`, ok: out ? "Enable" : "Drain", danger: !out,
      body: out ? `It gets requests of ${pool} again.` : `It gets no new requests of ${pool}; those in flight go on. This lasts until it is enabled, or the gateway is restarted.`,
      fields: out ? [] : [{ name: "order", label: "Checks and idle connections", options: [["drain", "go on"], ["disable", "end too: it is left alone"]] }],
      act: async ({ order = "enable" }) => {
        await post("/" + order, { upstream: pool, server: address });
        await changed();
        return `${address} is ${order === "enable" ? "in use again" : order === "drain" ? "drained" : "disabled"}`;
      },
    });
  };
  weigh.onclick = () => ask({
    title: `Weight of ${address}`, ok: "Set", body: `Its share of the requests of ${pool}, until the gateway is restarted. 0 is the configured one.`,
    fields: [{ name: "weight", label: "Weight, 0 to 1000", type: "number", min: "0", max: "1000", required: "", value: row.dataset.weight }],
    act: async ({ weight }) => {
      await post("/weight", { upstream: pool, server: address, weight });
      await changed();
      return `${address} has weight ${weight === "0" ? "as configured" : weight}`;
    },
  });
  row.lastChild.append(weigh, toggle);
  return row;
}

function updateServer(row, s, before, seconds, most) {
  row.dataset.state = s.state;
  row.dataset.weight = s.weight;
  row.classList.toggle("out", !s.usable);
  text(part(row, "state").firstChild, s.state + (s.backup ? ", backup" : "")).className = "pill " + (kinds[s.state] ?? "off");
  const notes = [];
  if (s.reason && s.state === "down") notes.push(s.reason);
  if (s.ejected_for_seconds) notes.push(`for ${span(s.ejected_for_seconds)} more`);
  if (s.slow_start_percent) notes.push(`slow start, ${s.slow_start_percent} %`);
  text(part(row, "reason"), notes.join(" · "));
  const load = part(row, "load").firstChild, meter = load.firstChild;
  meter.max = s.max_connections || most;
  meter.high = meter.optimum = 0;
  meter.low = 0;
  meter.high = 0.9 * meter.max;
  meter.value = s.in_flight;
  meter.setAttribute("aria-label", `in flight ${s.in_flight}`);
  text(load.lastChild, s.max_connections ? `${count(s.in_flight)} / ${count(s.max_connections)}` : count(s.in_flight));
  text(part(row, "rate"), short(within(s.requests, before?.requests, seconds))).dataset.total = s.requests;
  const failures = s.failures - (before?.failures ?? s.failures), attempts = s.requests - (before?.requests ?? s.requests);
  text(part(row, "errors"), attempts > 0 ? percent(failures, attempts) + " %" : "–").classList.toggle("bad-text", failures > 0);
  text(part(row, "latency"), s.latency_ms ? duration(s.latency_ms) : "–");
  text(part(row, "weight"), s.weight).classList.toggle("warn-text", Boolean(s.weight_set));
  const toggle = row.querySelector('[data-action="drain"]'), word = ordered(s.state) ? "Enable" : "Drain";
  text(toggle, word + "…").setAttribute("aria-label", `${word} ${s.address}`);
}

const shownRoutes = 12;

export function showRoutes(status, window) {
  const before = new Map([...window.before.routes ?? [], window.before.unrouted].map(r => [r.name, r]));
  const rows = [...status.routes ?? [], { ...status.unrouted, match: "no route" }].map(r => {
    const was = before.get(r.name) ?? r, n = r.requests - was.requests;
    return { ...r, rate: within(r.requests, was.requests, window.seconds), errors: r.statuses[5] - was.statuses[5], n, mean: n > 0 ? 1000 * (r.seconds - was.seconds) / n : 0 };
  }).filter(r => r.match !== "no route" || r.requests > 0);
  rows.sort((a, b) => b.rate - a.rate || b.requests - a.requests);
  const most = Math.max(1e-9, ...rows.map(r => r.rate));
  keyed($("routes").tBodies[0], rows.slice(0, shownRoutes), r => r.name, r => {
    const row = make("tr", "", { "data-route": r.name }, make("td", "", {}, make("span", "name", {}, r.name), make("span", "under", { "data-part": "match" })),
      cell("rate"), cell("errors", "num"), cell("mean", "num"), cell("total", "num wide-only"));
    part(row, "rate").append(make("span", "load", {}, make("meter", "", { min: 0, max: 1 }), make("span")));
    return row;
  }, (row, r) => {
    text(part(row, "match"), r.action ? `${r.match} → ${r.action}` : "matched nothing, or was refused");
    const load = part(row, "rate").firstChild;
    load.firstChild.value = r.rate / most;
    load.firstChild.setAttribute("aria-label", `${short(r.rate)} requests per second`);
    text(load.lastChild, short(r.rate));
    text(part(row, "errors"), r.n > 0 ? percent(r.errors, r.n) + " %" : "–").classList.toggle("bad-text", r.errors > 0);
    text(part(row, "mean"), r.n > 0 ? duration(r.mean) : "–");
    text(part(row, "total"), count(r.requests)).dataset.value = r.requests;
  });
}

export function showDependencies(status) {
  const list = status.dependencies ?? [];
  $("dependencies-card").hidden = list.length === 0;
  keyed($("dependencies"), list, d => d.name, d => make("li", "", { "data-dependency": d.name },
    make("span", "name", {}, d.name), make("span", "pill"), make("span", "under")), (row, d) => {
    text(row.children[1], d.state).className = "pill " + (kinds[d.state] ?? "off");
    text(row.children[2], [d.kind, d.reason || (d.latency_ms ? "answers in " + duration(d.latency_ms) : "")].filter(Boolean).join(" · "));
  });
}

export function showLimits(status) {
  const list = status.limits ?? [];
  $("limits-card").hidden = list.length === 0;
  keyed($("limits"), list, l => l.name, l => make("li", "", { "data-limit": l.name },
    make("span", "name", {}, l.name), make("span"), make("meter", "refused", { min: 0, max: 1 }), make("span", "under")), (row, l) => {
    const of = name => l.decisions[name] ?? 0, all = of("allowed") + of("delayed") + of("denied") + of("dry_run");
    text(row.children[1], `${count(of("denied"))} refused`).classList.toggle("warn-text", of("denied") > 0);
    row.children[1].dataset.value = of("denied");
    row.children[2].value = all ? of("denied") / all : 0;
    row.children[2].setAttribute("aria-label", `${percent(of("denied"), all)} percent refused`);
    const more = [`${l.limit} by ${l.client}`, `${count(of("allowed"))} passed`];
    if (of("delayed")) more.push(`${count(of("delayed"))} waited`);
    if (of("dry_run")) more.push(`${count(of("dry_run"))} would have been refused`);
    text(row.children[3], more.join(" · "));
  });
}

const cacheWords = { hit: "hits", stale: "stale", refresh: "stale, refreshed", stale_error: "stale, origin failed", revalidated: "revalidated", collapsed: "shared with another request", miss: "misses", bypass: "passed by" };

export function showCache(status) {
  const c = status.cache;
  $("cache-card").hidden = !c;
  if (!c) return;
  const facts = [["memory", `${bytes(c.bytes)} of ${bytes(c.capacity_bytes)}`], ["entries", count(c.entries)],
    ...Object.entries(cacheWords).filter(([k]) => c.results[k] || k === "hit" || k === "miss").map(([k, words]) => [words, count(c.results[k] ?? 0)]),
    ["evicted for space", count(c.evictions.space ?? 0)], ["purged", count(c.evictions.purged ?? 0)]];
  const box = $("cache");
  let list = box.querySelector("dl");
  if (!list) box.append(list = make("dl", "facts"));
  keyed(list, facts.flatMap(([name, value]) => [["dt", name, name], ["dd", name, value]]), ([tag, name]) => tag + name,
    ([tag]) => make(tag), (element, [, , words]) => text(element, words));
}

export function showEvents(events) {
  const list = $("events");
  const newest = events.slice(-60).reverse();
  if (newest.length === 0 && !list.querySelector("li")) return;
  keyed(list, newest, e => e.n, e => {
    const time = make("time", "", { datetime: e.time, title: e.time }, clock(new Date(e.time)));
    const fields = (e.fields ?? []).map(f => `${f.name} ${f.value}`).join(" · ");
    return make("li", e.level, { "data-event": e.text }, make("i", "", { title: e.level }),
      make("div", "", {}, time, e.text, ...(fields ? [make("span", "fields", {}, fields)] : [])));
  });
}
