// The dashboard: asks every two seconds and shows what has changed.
import { $, text } from "./dom.js";
import { bytes, clock, count, duration, percent, short, span } from "./format.js";
import { Chart, spark } from "./chart.js";
import { ask } from "./dialog.js";
import { Denied, get, post, role, useToken } from "./api.js";
import { showCache, showDependencies, showEvents, showLimits, showRoutes, showServers } from "./parts.js";
import { purge } from "./purge.js";

const PERIOD = 2000;
const KEPT = 15 * 60000;

let started = "", samples = [], lastSample = 0, events = [], lastEvent = 0;
let purges = false; // this gateway can
let recent = []; // statuses of the last seconds, for rates

const sum = list => list.reduce((a, b) => a + b, 0);
const per = (s, n) => s.seconds > 0 ? n / s.seconds : 0;
const total = s => sum(s.requests);

const charts = [
  new Chart($("c-requests"), { stacked: true, format: short, series: [
    { name: "2xx", class: "k-s2", value: s => per(s, s.requests[2]) },
    { name: "3xx", class: "k-s3", value: s => per(s, s.requests[3]) },
    { name: "4xx", class: "k-s4", value: s => per(s, s.requests[4]) },
    { name: "5xx", class: "k-s5", value: s => per(s, s.requests[5]) },
    { name: "other", class: "k-s1", value: s => per(s, s.requests[0] + s.requests[1]) },
  ] }),
  new Chart($("c-latency"), { format: duration, series: [
    { name: "p50", class: "k-p50", value: s => s.p50_ms },
    { name: "p90", class: "k-p90", value: s => s.p90_ms },
    { name: "p99", class: "k-p99", value: s => s.p99_ms },
  ] }),
  new Chart($("c-cache"), { stacked: true, format: short, series: [
    { name: "hits", class: "k-hit", value: s => per(s, s.cache_hits) },
    { name: "misses", class: "k-miss", value: s => per(s, s.cache_misses) },
    { name: "limited", class: "k-limited", value: s => per(s, s.limited) },
  ] }),
];

async function poll() {
  try {
    let [status, history, log] = await Promise.all([get("/status"), get("/history?since=" + lastSample), get("/events?since=" + lastEvent)]);
    if (history.started !== started) { // another process: it counts from 0
      if (started) [history, log] = await Promise.all([get("/history"), get("/events")]);
      started = history.started;
      samples = [];
      events = [];
      recent = [];
    }
    lastSample = history.last;
    lastEvent = log.last;
    for (const s of history.samples) samples.push({ ...s, at: Date.parse(s.time) });
    samples = samples.filter(s => s.at > (samples.at(-1)?.at ?? 0) - KEPT);
    events = [...events, ...log.events].slice(-200);
    recent = [...recent.filter(r => performance.now() - r.at < 12000), { at: performance.now(), status }];
    show(status);
    lost("");
  } catch (error) {
    if (error instanceof Denied) {
      lost("A token is needed.", "locked");
      login(error.message);
    } else {
      lost("The gateway does not answer. Trying again …", "no answer");
    }
  }
  setTimeout(poll, document.hidden ? 5 * PERIOD : PERIOD);
}

function lost(words, state) {
  document.body.classList.toggle("lost", Boolean(words));
  document.body.dataset.lost = words ? "yes" : "";
  if (words) {
    banner(words);
    pill(state, "bad");
  }
}

function banner(words) {
  $("trouble").hidden = !words;
  text($("trouble"), words);
}

function pill(words, kind) {
  text($("state"), words).className = "pill " + kind;
}

function show(status) {
  document.body.classList.toggle("reader", role !== "operator");
  document.title = `${status.state === "serving" ? "" : status.state + " · "}Gateway`;
  pill(status.state, status.state === "serving" ? "ok" : "warn");
  text($("identity"), `version ${status.version} · up ${span(status.uptime_seconds)} · ${status.listeners?.map(l => l.address).join(", ") ?? ""}`);
  banner(status.reloads.error ? "The last configuration was rejected; the one before runs on.\n" + status.reloads.error : "");
  if (purges) $("purge").hidden = !status.cache;

  const minuteAgo = samples.filter(s => s.at > (samples.at(-1)?.at ?? 0) - 60000);
  const now = samples.slice(-3), newest = samples.at(-1);
  const all = [...status.routes ?? [], status.unrouted];
  const requests = sum(all.map(r => r.requests)), failed = sum(all.map(r => r.statuses[5]));
  const rate = sum(now.map(total)) / (sum(now.map(s => s.seconds)) || 1);
  value("t-rate", short(rate), rate);
  value("t-total", count(requests) + " since the start", requests);
  const busy = samples.findLast(s => total(s) > 0);
  value("t-p99", busy ? duration(busy.p99_ms) : "–", busy?.p99_ms ?? 0);
  text($("t-p50"), busy ? `p50 ${duration(busy.p50_ms)} · p90 ${duration(busy.p90_ms)}` : "no requests yet");
  const errors = sum(minuteAgo.map(s => s.requests[5])), answered = sum(minuteAgo.map(total));
  value("t-errors", percent(errors, answered), errors);
  value("t-errors-total", count(failed) + " × 5xx since the start", failed);
  $("t-errors").closest(".tile").classList.toggle("alarm", errors > 0 && errors / answered >= 0.01);
  const hits = sum(minuteAgo.map(s => s.cache_hits)), misses = sum(minuteAgo.map(s => s.cache_misses));
  value("t-hits", percent(hits, hits + misses), hits);
  text($("t-cache"), status.cache ? `${bytes(status.cache.bytes)} of ${bytes(status.cache.capacity_bytes)}` : "no route caches");
  value("t-flight", count(status.in_flight), status.in_flight);
  text($("t-connections"), count(status.connections) + " connections");
  text($("t-cpu"), newest ? percent(newest.cpu_seconds, newest.seconds) : "–");
  text($("t-memory"), newest ? bytes(newest.memory_bytes) + " in RAM" : "\u00a0");

  const tail = samples.slice(-90);
  spark($("s-rate"), tail.map(s => per(s, total(s))));
  spark($("s-p99"), tail.map(s => s.p99_ms));
  spark($("s-errors"), tail.map(s => s.requests[5]));
  spark($("s-hits"), tail.map(s => s.cache_hits / (s.cache_hits + s.cache_misses || 1)));
  spark($("s-flight"), tail.map(s => s.in_flight));
  spark($("s-cpu"), tail.map(s => per(s, s.cpu_seconds)));
  for (const c of charts) c.update(samples);

  const window = { before: recent[0].status, seconds: (recent.at(-1).at - recent[0].at) / 1000 };
  showServers(status, window, poke);
  showRoutes(status, window);
  showDependencies(status);
  showLimits(status);
  showCache(status);
  showEvents(events);
  text($("clock"), `as of ${clock(new Date())}`);
}

// value shows a number, and keeps it as it is for those who read the page as
// a program.
function value(id, words, number) {
  text($(id), words).dataset.value = number;
  const unit = $(id).nextElementSibling;
  if (unit?.tagName === "SMALL") unit.hidden = words === "–";
}

// poke asks anew at once, when something was changed.
async function poke() {
  const status = await get("/status");
  recent.push({ at: performance.now(), status });
  show(status);
}

function login(why) {
  if ($("dialog").open) return;
  ask({
    title: "Who is asking?", body: `This gateway wants a token (${why}). It is kept until this tab is closed.`, ok: "Continue",
    fields: [{ name: "token", label: "Token", type: "password", required: "" }],
    act: async ({ token }) => {
      useToken(token);
      await get("/healthz");
      return "Welcome";
    },
  });
}

$("reload").onclick = () => ask({
  title: "Reload the configuration?", body: "The file is read anew. Requests under way end on what they began with, and a mistake changes nothing.", ok: "Reload",
  act: async () => {
    const { changes } = await post("/reload");
    await poke();
    return changes.length ? `Reloaded: ${changes.length === 1 ? changes[0] : changes.length + " changes"}` : "Reloaded: nothing has changed";
  },
});
$("purge").onclick = () => purge(poke);

// Colours: as the system, light, dark.
const themes = ["", "light", "dark"], themeNames = ["as the system", "light", "dark"];
const drawings = [["circle", { cx: 8, cy: 8, r: 6 }, "path", { d: "M8 2v12M8 5l5 3M8 9l4 3" }],
  ["circle", { cx: 8, cy: 8, r: 3 }, "path", { d: "M8 1v1.5M8 13.5v1.5M1 8h1.5M13.5 8h1.5M3 3l1 1M12 12l1 1M3 13l1-1M12 4l1-1" }],
  ["path", { d: "M13 9.5A5.5 5.5 0 0 1 6.5 3a5.5 5.5 0 1 0 6.5 6.5z" }]];

function theme(name) {
  const i = Math.max(0, themes.indexOf(name));
  if (themes[i]) document.documentElement.dataset.theme = themes[i];
  else delete document.documentElement.dataset.theme;
  localStorage.setItem("theme", themes[i]);
  const button = $("theme"), words = "Colours: " + themeNames[i];
  button.setAttribute("aria-label", words);
  button.title = words;
  const picture = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  picture.setAttribute("viewBox", "0 0 16 16");
  for (let n = 0; n < drawings[i].length; n += 2) {
    const shape = document.createElementNS("http://www.w3.org/2000/svg", drawings[i][n]);
    for (const [key, v] of Object.entries(drawings[i][n + 1])) shape.setAttribute(key, v);
    picture.append(shape);
  }
  button.replaceChildren(picture);
  button.onclick = () => theme(themes[(i + 1) % themes.length]);
}

theme(localStorage.getItem("theme") ?? "");
get("/").then(index => purges = index.includes("POST /purge")).catch(() => {});
poll();
