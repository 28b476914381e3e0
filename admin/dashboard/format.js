// Numbers and times for people.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

// count is a whole number: 12,345.
export const count = n => whole.format(n);

// short has about three digits: 0.42, 12.3, 12.3k, 4.56M.
export function short(n) {
  for (const [limit, unit] of [[1e9, "G"], [1e6, "M"], [1e4, "k"]]) {
    if (Math.abs(n) >= limit) return digits(n / (unit === "k" ? 1e3 : limit)) + unit;
  }
  return digits(n);
}

function digits(n) {
  const size = Math.abs(n);
  if (size === 0) return "0";
  if (Number.isInteger(n) || size >= 100) return whole.format(n);
  return n.toFixed(size >= 10 ? 1 : 2).replace(/\.?0+$/, "") || "0";
}

// duration of so many milliseconds.
export function duration(ms) {
  if (ms >= 10000) return digits(ms / 1000) + " s";
  if (ms >= 1000) return (ms / 1000).toFixed(2) + " s";
  return (ms > 0 && ms < 0.01 ? "<0.01" : digits(ms)) + " ms";
}

export function bytes(n) {
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (n < 1024) return digits(n) + " " + unit;
    n /= 1024;
  }
  return digits(n) + " TiB";
}

export function percent(part, all) {
  if (!all) return "–";
  const p = 100 * part / all;
  return p > 0 && p < 0.1 ? "<0.1" : p > 99.9 && p < 100 ? ">99.9" : p.toFixed(p >= 10 || p === 0 ? 0 : 1);
}

export const clock = time => time.toLocaleTimeString("en-GB");
export const minute = time => time.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });

// span of so many seconds, roughly: 42 s, 5 min, 3 h, 12 d.
export function span(seconds) {
  if (seconds < 100) return Math.round(seconds) + " s";
  if (seconds < 6000) return Math.round(seconds / 60) + " min";
  if (seconds < 172800) return Math.round(seconds / 3600) + " h";
  return Math.round(seconds / 86400) + " d";
}
