// Charts of the last minutes, drawn as SVG. Colours come from classes.
import { make, svg, text } from "./dom.js";
import { clock, minute } from "./format.js";

const MINUTE = 60000;

// Chart draws series over time, stacked areas or lines. A series has a name,
// a class for its colour, and a function from a sample to its value.
export class Chart {
  constructor(figure, { series, stacked = false, format }) {
    Object.assign(this, { series, stacked, format, samples: [] });
    this.box = figure.querySelector(".chart");
    this.title = figure.querySelector("h2").textContent;
    this.values = series.map(s => make("b"));
    figure.querySelector(".legend").append(...series.map((s, i) => {
      const item = make("li", "", {}, make("i", s.class), s.name, this.values[i]);
      item.firstChild.classList.add(s.class);
      return item;
    }));
    this.svg = svg("svg", { role: "img" });
    this.box.append(this.svg);
    new ResizeObserver(() => this.draw()).observe(this.box);
    this.box.addEventListener("pointermove", e => this.point(e.clientX - this.box.getBoundingClientRect().left));
    this.box.addEventListener("pointerleave", () => this.point(null));
  }

  update(samples) {
    this.samples = samples;
    this.draw();
  }

  point(x) {
    this.pointer = x;
    this.draw();
  }

  draw() {
    const width = this.box.clientWidth, height = this.box.clientHeight;
    if (!width || !height) return;
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.svg.replaceChildren();
    const samples = this.samples;
    const rows = samples.map(s => this.series.map(one => one.value(s)));
    const tops = this.stacked ? rows.map(r => r.reduce((a, b) => a + b, 0)) : rows.map(r => Math.max(...r));
    const { max, step } = scale(Math.max(0, ...tops));
    const right = 4, top = 8, bottom = 20, left = 14 + 6.4 * Math.max(3, this.format(max).length);
    const end = samples.length ? samples.at(-1).at : Date.now();
    const shown = Math.min(15 * MINUTE, Math.max(MINUTE, samples.length ? end - samples[0].at : 0));
    const X = at => left + (width - left - right) * (1 - (end - at) / shown);
    const Y = value => height - bottom - (height - top - bottom) * value / max;

    const grid = svg("g", { class: "grid" });
    for (let value = 0; value <= max * 1.001; value += step) {
      grid.append(svg("line", { x1: left, x2: width - right, y1: Y(value), y2: Y(value) }));
      this.label(grid, this.format(value), left - 7, Y(value) + 4, "end");
    }
    const every = shown > 8 * MINUTE ? 5 * MINUTE : shown > 4 * MINUTE ? 2 * MINUTE : MINUTE;
    for (let at = Math.ceil((end - shown) / every) * every; at <= end; at += every) {
      const x = X(at);
      if (x > left + 12 && x < width - right - 12) this.label(grid, minute(new Date(at)), x, height - 4, "middle");
    }
    this.svg.append(grid);

    if (samples.length > 1) {
      const base = samples.map(() => 0);
      this.series.forEach((one, i) => {
        const upper = samples.map((s, n) => [X(s.at), Y(this.stacked ? base[n] + rows[n][i] : rows[n][i])]);
        if (this.stacked) {
          const lower = samples.map((s, n) => [X(s.at), Y(base[n])]).reverse();
          rows.forEach((r, n) => base[n] += r[i]);
          if (rows.some(r => r[i] > 0)) this.svg.append(svg("path", { class: "area " + one.class, d: path([...upper, ...lower]) + "Z" }));
        } else {
          this.svg.append(svg("path", { class: "line " + one.class, d: path(upper) }));
        }
      });
    } else {
      const empty = svg("text", { class: "empty", x: (left + width) / 2, y: (height - bottom) / 2 });
      empty.textContent = "The first samples come in a few seconds";
      this.svg.append(empty);
    }

    let index = samples.length - 1;
    if (this.pointer != null && samples.length) {
      const at = end - shown * (1 - (this.pointer - left) / (width - left - right));
      index = samples.reduce((best, s, n) => Math.abs(s.at - at) < Math.abs(samples[best].at - at) ? n : best, 0);
      const x = X(samples[index].at);
      this.svg.append(svg("line", { class: "cursor", x1: x, x2: x, y1: top, y2: height - bottom }));
      this.label(this.svg, clock(new Date(samples[index].at)), Math.min(Math.max(x, left + 26), width - 30), top + 3, "middle");
    }
    const words = this.series.map((one, i) => {
      const value = index < 0 ? "–" : this.format(rows[index][i]);
      text(this.values[i], value);
      return `${one.name} ${value}`;
    });
    this.svg.setAttribute("aria-label", `${this.title}: ${words.join(", ")}`);
  }

  label(parent, words, x, y, anchor) {
    const label = svg("text", { x, y, "text-anchor": anchor });
    label.textContent = words;
    parent.append(label);
  }
}

// spark draws a small line without axes.
export function spark(element, values) {
  element.setAttribute("viewBox", "0 0 100 40");
  element.setAttribute("preserveAspectRatio", "none");
  if (values.length < 2) return element.replaceChildren();
  const max = Math.max(...values) || 1;
  const points = values.map((v, i) => [100 * i / (values.length - 1), 38 - 30 * v / max]);
  element.replaceChildren(
    svg("path", { class: "area", d: path([...points, [100, 40], [0, 40]]) + "Z" }),
    svg("path", { d: path(points) }));
}

const path = points => points.map(([x, y], i) => (i ? "L" : "M") + x.toFixed(1) + " " + y.toFixed(1)).join("");

// scale finds round numbers for an axis that begins at 0.
function scale(top) {
  if (top <= 0) return { max: 1, step: 0.5 };
  const raw = top / 3, magnitude = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].find(n => n * magnitude >= raw) * magnitude;
  return { max: Math.ceil(top / step) * step, step };
}
