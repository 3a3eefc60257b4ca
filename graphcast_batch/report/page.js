"use strict";
// Draw the data of the page: animated maps, and curves that show their values under the pointer.

const data = JSON.parse(document.getElementById("data").textContent);
const root = document.documentElement;
const byId = (id) => document.getElementById(id);

function make(tag, attributes = {}, ...children) {
  const node = tag.startsWith("svg:")
    ? document.createElementNS("http://www.w3.org/2000/svg", tag.slice(4))
    : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

// ---- light and dark

const prefersDark = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : prefersDark.matches);

function showTheme() {
  byId("theme").setAttribute("aria-pressed", isDark());
  byId("theme").textContent = isDark() ? "Light" : "Dark";
}

byId("theme").addEventListener("click", () => {
  root.dataset.theme = isDark() ? "light" : "dark";
  try { localStorage.setItem("theme", root.dataset.theme); } catch { /* a browser that keeps nothing */ }
  showTheme();
});
prefersDark.addEventListener("change", showTheme);
showTheme();

// ---- numbers

// Format numbers with enough digits to show one step of the grays, and with a minus sign as wide as a plus.
function numberText(value, span) {
  const step = span / 254;
  const decimals = step > 0 ? Math.min(9, Math.max(0, Math.ceil(-Math.log10(step)))) : 2;
  const text = value.toFixed(decimals);
  return (Number(text) === 0 ? text.replace("-", "") : text).replace("-", "−");
}

const withUnits = (text, units) => (units ? `${text} ${units}` : text);
const leadText = (hours) => (hours % 24 === 0 ? `${hours} h (${hours / 24} d)` : `${hours} h`);

// ---- fields: gray pictures, one lead time below the other

const decoded = new Map();
const MOST_DECODED = 24;

async function graysOf(stack) {
  if (!decoded.has(stack)) {
    const image = new Image();
    image.src = `data:image/png;base64,${stack.png}`;
    await image.decode();
    const canvas = make("canvas", { width: image.width, height: image.height });
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(image, 0, 0);
    const grays = context.getImageData(0, 0, image.width, image.height).data.filter((_, n) => n % 4 === 0);
    decoded.set(stack, grays);
    if (decoded.size > MOST_DECODED) decoded.delete(decoded.keys().next().value);
  }
  return decoded.get(stack);
}

async function valuesOf(stack, lead, size) {
  const grays = (await graysOf(stack)).subarray(lead * size, (lead + 1) * size);
  const scale = (stack.high[lead] - stack.low[lead]) / 254;
  return Float32Array.from(grays, (gray) => (gray ? stack.low[lead] + (gray - 1) * scale : NaN));
}

// ---- one map

class FieldMap {
  // The kind is "values", "target" or "difference".
  constructor(kind, grid) {
    this.kind = kind;
    this.grid = grid;
    this.canvas = make("canvas", { class: "field", role: "img" });
    this.legend = make("canvas", { class: "legend", width: 256, height: 1, "aria-hidden": "true" });
    this.ticks = make("div", { class: "ticks" });
    this.caption = make("figcaption");
    this.node = make("figure", { class: "map" }, this.caption, this.canvas, this.legend, this.ticks);
    this.pixels = make("canvas", { width: grid.longitude.count, height: grid.latitude.count });
    const { west, east, south, north } = this.extent();
    this.canvas.style.aspectRatio = `${east - west} / ${north - south}`;
  }

  extent() {
    const { latitude, longitude, isRound } = this.grid;
    const edge = (axis) => [axis.first - axis.step / 2, axis.first + (axis.count - 0.5) * axis.step];
    const [south, north] = edge(latitude).map((degrees) => Math.max(-90, Math.min(90, degrees)));
    const [west, east] = isRound ? [-180, 180] : edge(longitude);
    return { west, east, south, north };
  }

  paintLegend() {
    const image = new ImageData(256, 1);
    for (let n = 0; n < 256; n++) image.data.set([...this.colors.slice(3 * n, 3 * n + 3), 255], 4 * n);
    this.legend.getContext("2d").putImageData(image, 0, 0);
  }

  show(title, values, [low, high], units, colors, description) {
    this.title = title;
    this.caption.textContent = title;
    this.node.hidden = false;
    this.values = values;
    this.colors = data.colors[colors];
    this.span = high - low;
    this.units = units;
    const { latitude, longitude } = this.grid;
    const image = new ImageData(longitude.count, latitude.count);
    for (let row = 0; row < latitude.count; row++) {
      for (let column = 0; column < longitude.count; column++) {
        const value = values[row * longitude.count + column];
        if (Number.isNaN(value)) continue; // transparent, to show the background color for missing data
        const share = Math.max(0, Math.min(255, Math.round((255 * (value - low)) / (high - low))));
        const place = 4 * ((latitude.count - 1 - row) * longitude.count + column); // north comes up
        image.data.set([...this.colors.slice(3 * share, 3 * share + 3), 255], place);
      }
    }
    this.pixels.getContext("2d").putImageData(image, 0, 0);
    this.paintLegend();
    const ticks = [0, 0.25, 0.5, 0.75, 1].map((share) => numberText(low + share * (high - low), 20 * (high - low)));
    this.ticks.replaceChildren(...ticks.map((tick, n) => make("span", {}, n === 4 ? withUnits(tick, units) : tick)));
    this.canvas.setAttribute("aria-label", `${this.title}: ${description}; ${this.spanText()}`);
    this.paint();
  }

  spanText() {
    let [least, most] = [Infinity, -Infinity];
    for (const value of this.values) {
      if (value < least) least = value;
      if (value > most) most = value;
    }
    if (least > most) return "no data";
    return `${numberText(least, this.span)} to ${withUnits(numberText(most, this.span), this.units)}`;
  }

  paint() {
    const width = Math.round((this.canvas.clientWidth || 400) * (window.devicePixelRatio || 1));
    const { west, east, south, north } = this.extent();
    const scale = width / (east - west);
    this.canvas.width = width;
    this.canvas.height = Math.round(scale * (north - south));
    const context = this.canvas.getContext("2d");
    const { latitude, longitude, isRound } = this.grid;
    const left = longitude.first - longitude.step / 2;
    const top = latitude.first + (latitude.count - 0.5) * latitude.step;
    context.imageSmoothingEnabled = false;
    for (const turn of isRound ? [-360, 0] : [0]) {
      context.drawImage(
        this.pixels, (left + turn - west) * scale, (north - top) * scale,
        longitude.count * longitude.step * scale, latitude.count * latitude.step * scale,
      );
    }
    const path = new Path2D();
    for (const line of data.coasts) {
      for (const turn of isRound ? [0] : [0, 360]) {
        for (let n = 0; n < line.length; n += 2) {
          path[n ? "lineTo" : "moveTo"]((line[n] / 10 + turn - west) * scale, (north - line[n + 1] / 10) * scale);
        }
      }
    }
    for (const [color, thick] of [["#ffffff66", 2.4], ["#1a1a1acc", 1]]) {
      context.strokeStyle = color;
      context.lineWidth = thick * Math.min(1.5, width / 500);
      context.stroke(path);
    }
  }

  // Degrees under the pointer.
  placeOf(event) {
    const box = this.canvas.getBoundingClientRect();
    const { west, east, south, north } = this.extent();
    return [
      north - ((event.clientY - box.top) / box.height) * (north - south),
      west + ((event.clientX - box.left) / box.width) * (east - west),
    ];
  }

  // The nearest point of the grid: degrees and value.
  at(latitude, longitude) {
    const rows = this.grid.latitude, columns = this.grid.longitude;
    const row = Math.max(0, Math.min(rows.count - 1, Math.round((latitude - rows.first) / rows.step)));
    let column = Math.round((longitude - columns.first) / columns.step);
    column = this.grid.isRound
      ? ((column % columns.count) + columns.count) % columns.count
      : Math.max(0, Math.min(columns.count - 1, column));
    return {
      latitude: rows.first + row * rows.step,
      longitude: columns.first + column * columns.step,
      value: this.values[row * columns.count + column],
    };
  }

  valueText(latitude, longitude) {
    const { value } = this.at(latitude, longitude);
    return Number.isNaN(value) ? "no data" : withUnits(numberText(value, this.span), this.units);
  }
}

const degreesText = (degrees, [below, above]) =>
  `${Number(Math.abs(degrees).toFixed(2))}°${degrees < 0 ? below : degrees > 0 ? above : ""}`;

// ---- the browser of forecasts, and of statistics of members

class Browser {
  constructor(sides) {
    this.sides = sides;
    this.first = sides[0];
    this.selects = { case: byId("case"), variable: byId("variable"), level: byId("level") };
    this.variables = [...new Map(this.first.fields.map((field) => [field.variable, field.label]))];
    fill(this.selects.case, this.first.views.map(({ key, text }) => [key, text]));
    fill(this.selects.variable, this.variables);
    byId("lead").max = this.first.hours.length - 1;
    this.rows = sides.map((side, n) => this.makeRow(side, n));
    byId("maps").replaceChildren(...this.rows.map((row) => row.node));
    this.restore();
    this.listen();
    this.show();
  }

  makeRow(side, n) {
    const of = this.sides.length > 1 ? ` of ${side.name}` : "";
    const maps = [new FieldMap("values", side.grid)];
    if (side.fields.some((each) => each.stacks.some(([, difference]) => difference))) {
      if (n === 0 || !this.sides[0].hasTruth) maps.push(new FieldMap("target", side.grid));
      maps.push(new FieldMap("difference", side.grid));
      side.hasTruth = true;
    }
    return { side, of, maps, node: make("div", { class: "maps" }, ...maps.map((map) => map.node)) };
  }

  get case() { return this.selects.case.value; }
  get view() { return this.first.views.find(({ key }) => key === this.case); }
  get variable() { return this.selects.variable.value; }
  get level() { return this.selects.level.value === "" ? null : Number(this.selects.level.value); }
  get hours() { return this.first.hours[byId("lead").value]; }

  // Levels as high above each other as in the air: the lowest pressure first.
  fillLevels(wanted) {
    const levels = this.first.fields.filter((field) => field.variable === this.variable).map((field) => field.level);
    const there = levels.filter((level) => level !== null).sort((one, other) => one - other);
    fill(this.selects.level, there.map((level) => [level, `${level} hPa`]));
    byId("level-label").hidden = !there.length;
    if (there.length) this.selects.level.value = there.includes(wanted) ? wanted : levels[0];
  }

  restore() {
    const [key, variable, level, hours, play] = decodeURIComponent(location.hash.replace(/^#at:/, "")).split("/");
    const isView = location.hash.startsWith("#at:");
    const choose = (select, value) => {
      if (isView && [...select.options].some((option) => option.value === value)) select.value = value;
    };
    choose(this.selects.case, key);
    choose(this.selects.variable, variable);
    this.fillLevels(isView ? Number(level) : null);
    if (isView) byId("lead").value = Math.max(0, this.first.hours.indexOf(Number(hours)));
    if (isView && play === "play") this.play();
  }

  keep() {
    const parts = [this.case, this.variable, this.level ?? "", this.hours, ...(this.timer ? ["play"] : [])];
    history.replaceState(null, "", `#at:${parts.map(encodeURIComponent).join("/")}`);
  }

  listen() {
    const changed = () => { this.show(); this.keep(); };
    this.selects.case.addEventListener("change", changed);
    this.selects.level.addEventListener("change", changed);
    this.selects.variable.addEventListener("change", () => { this.fillLevels(this.level); changed(); });
    byId("lead").addEventListener("input", changed);
    byId("play").addEventListener("click", () => { this.toggle(); this.keep(); });
    byId("browser").addEventListener("keydown", (event) => this.pressed(event, changed));
    for (const { maps } of this.rows) {
      for (const map of maps) {
        map.canvas.addEventListener("pointermove", (event) => this.showValues(...map.placeOf(event)));
        map.canvas.addEventListener("pointerdown", (event) => this.showValues(...map.placeOf(event)));
      }
    }
    new ResizeObserver(() => this.rows.forEach(({ maps }) => maps.forEach((map) => map.values && map.paint())))
      .observe(byId("maps"));
  }

  pressed(event, changed) {
    const slider = byId("lead");
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.matches("select") || (event.target.matches("button") && event.key === " ")) return;
    const actions = {
      ArrowRight: () => { slider.value = Math.min(slider.max, Number(slider.value) + 1); },
      ArrowLeft: () => { slider.value = Math.max(0, Number(slider.value) - 1); },
      ArrowUp: () => step(this.selects.level, -1),
      ArrowDown: () => step(this.selects.level, 1),
      t: () => step(this.selects.case, 1),
      T: () => step(this.selects.case, -1),
      v: () => { const { level } = this; step(this.selects.variable, 1); this.fillLevels(level); },
      V: () => { const { level } = this; step(this.selects.variable, -1); this.fillLevels(level); },
      " ": () => this.toggle(),
    };
    if (!(event.key in actions)) return;
    event.preventDefault();
    actions[event.key]();
    changed();
  }

  toggle() { if (this.timer) this.pause(); else this.play(); }

  play() {
    const slider = byId("lead");
    this.timer = setInterval(() => {
      slider.value = (Number(slider.value) + 1) % this.first.hours.length;
      this.show();
      this.keep();
    }, 450);
    byId("play").textContent = "Pause";
    byId("play").setAttribute("aria-pressed", "true");
  }

  pause() {
    clearInterval(this.timer);
    this.timer = undefined;
    byId("play").textContent = "Play";
    byId("play").setAttribute("aria-pressed", "false");
  }

  async show() {
    const asked = (this.asked = (this.asked ?? 0) + 1);
    const text = leadText(this.hours);
    byId("lead-text").textContent = text;
    byId("lead").setAttribute("aria-valuetext", text);
    const found = await Promise.all(this.rows.map(({ side }) => this.read(side)));
    if (asked !== this.asked) return; // another choice was made meanwhile
    const own = this.first.fields.find((each) => each.variable === this.variable && each.level === this.level);
    const level = this.level === null ? "" : ` at ${this.level} hPa`;
    const { view } = this;
    const description = `${own.label}${level}, ${view.text}, ${text}`;
    const limit = Math.max(...found.map(({ field }) => field?.differenceLimit ?? 0)) || own.differenceLimit;
    const ofValues = view.isSpread
      ? [own.spread.limits, own.differenceUnits, own.spread.colors]
      : [own.limits, own.units, own.colors];
    this.rows.forEach(({ maps, of }, n) => {
      const { values, difference } = found[n];
      const title = `${view.title}${of}`;
      const show = {
        values: (map) => map.show(title, values, ...ofValues, description),
        target: (map) => map.show("Target", values.map((value, place) => value - difference[place]), ...ofValues, description),
        difference: (map) => map.show(
          `${title} − target`, difference, [-limit, limit], own.differenceUnits, data.differences, description,
        ),
      };
      for (const map of maps) {
        if (view.isSpread && map.kind !== "values") map.node.hidden = true; // the truth has no spread
        else show[map.kind](map);
      }
    });
    if (this.place) this.showValues(...this.place);
    root.dataset.shown = [this.case, this.variable, this.level ?? "", this.hours].join("/");
  }

  // Read the chosen field of one store, and its difference from the truth; NaN values if the store does not have it.
  async read(side) {
    const size = side.grid.latitude.count * side.grid.longitude.count;
    const none = () => new Float32Array(size).fill(NaN);
    const field = side.fields.find((each) => each.variable === this.variable && each.level === this.level);
    const place = side.views.findIndex(({ key }) => key === this.case), lead = side.hours.indexOf(this.hours);
    if (!field || place < 0 || lead < 0) return { field, values: none(), difference: none() };
    const [values, difference] = field.stacks[place];
    return {
      field,
      values: await valuesOf(values, lead, size),
      difference: difference ? await valuesOf(difference, lead, size) : none(),
    };
  }

  showValues(latitude, longitude) {
    this.place = [latitude, longitude];
    const maps = this.rows.flatMap((row) => row.maps).filter((map) => !map.node.hidden);
    const near = maps[0].at(latitude, longitude);
    const east = ((near.longitude + 180) % 360 + 360) % 360 - 180;
    const where = `${degreesText(near.latitude, "SN")} ${degreesText(east, "WE")}`;
    const values = maps.map((map) => `${map.title.toLowerCase()} ${map.valueText(latitude, longitude)}`);
    byId("readout").textContent = `${where}: ${values.join(", ")}`;
  }
}

function fill(select, options) {
  select.replaceChildren(...options.map(([value, text]) => make("option", { value }, text)));
}

function step(select, by) {
  select.selectedIndex = Math.max(0, Math.min(select.options.length - 1, select.selectedIndex + by));
}

// ---- curves

function chart(node, { label, units, x, xText, lines }) {
  const [width, height, left, bottom] = [440, 240, 52, 22];
  const all = lines.flatMap((line) => [...line.values, ...(line.low ?? []), ...(line.high ?? [])]);
  const known = all.filter((value) => value !== null);
  let [least, most] = [Math.min(...known), Math.max(...known)];
  if (least > 0 && least < 0.6 * most) least = 0;
  if (!(most > least)) [least, most] = [least - (Math.abs(least) || 1), most + (Math.abs(most) || 1)];
  const ticks = roundTicks(least, most);
  [least, most] = [Math.min(least, ticks[0]), Math.max(most, ticks.at(-1))];
  const [start, end] = [x[0], x.at(-1)];
  const across = (value) => left + ((width - left - 8) * (value - start)) / (end - start || 1);
  const up = (value) => height - bottom - ((height - bottom - 8) * (value - least)) / (most - least);
  const svg = make("svg:svg", { viewBox: `0 0 ${width} ${height}`, role: "img" });
  svg.setAttribute("aria-label", `${label}: ${lines.map((line) => `${line.name} ${endsText(line.values)}`).join("; ")}`);
  for (const tick of ticks) {
    svg.append(
      make("svg:line", { class: "rule", x1: left, x2: width - 8, y1: up(tick), y2: up(tick) }),
      make("svg:text", { x: left - 6, y: up(tick) + 4, "text-anchor": "end" }, plain(tick)),
    );
  }
  for (const [value, anchor] of [[start, "start"], [end, "end"]]) {
    if (anchor === "start" || end > start) {
      svg.append(make("svg:text", { x: across(value), y: height - 5, "text-anchor": anchor }, xText(value)));
    }
  }
  lines.forEach((line, n) => {
    const color = `var(--line-${n % 5})`;
    if (line.low?.some((value) => value !== null)) {
      const there = x.map((_, i) => i).filter((i) => line.low[i] !== null);
      const edge = [...there.map((i) => [i, line.high]), ...there.reverse().map((i) => [i, line.low])];
      const d = edge.map(([i, values], k) => `${k ? "L" : "M"}${across(x[i])},${up(values[i])}`).join("");
      svg.append(make("svg:path", { class: "band", style: `fill:${color}`, d: `${d}Z` }));
    }
    const dash = ["", "7 4", "2 3", "9 3 2 3", "4 2"][n % 5];
    svg.append(make("svg:path", { d: polyline(line.values, x, across, up), style: `stroke:${color}`, "stroke-dasharray": dash }));
    line.values.forEach((value, i) => { // a single point has no line
      const isAlone = value !== null && (line.values[i - 1] ?? null) === null && (line.values[i + 1] ?? null) === null;
      if (isAlone) svg.append(make("svg:circle", { cx: across(x[i]), cy: up(value), r: 3, style: `fill:${color}` }));
    });
  });
  const cursor = make("svg:line", { class: "cursor", y1: 8, y2: height - bottom, visibility: "hidden" });
  svg.append(cursor);
  const key = make("div", { class: "key" });
  const showKey = (i) => {
    const head = i === null ? [] : [make("span", {}, xText(x[i]))];
    key.replaceChildren(...head, ...lines.map((line, n) => make(
      "span", {}, make("i", { style: `background:var(--line-${n % 5})` }), line.name,
      i === null ? "" : ` ${line.values[i] === null ? "no data" : withUnits(plain(line.values[i]), units)}`,
    )));
  };
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const at = ((event.clientX - box.left) / box.width) * width;
    const i = x.reduce((best, value, n) => (Math.abs(across(value) - at) < Math.abs(across(x[best]) - at) ? n : best), 0);
    for (const end of ["x1", "x2"]) cursor.setAttribute(end, across(x[i]));
    cursor.setAttribute("visibility", "visible");
    showKey(i);
  });
  svg.addEventListener("pointerleave", () => { cursor.setAttribute("visibility", "hidden"); showKey(null); });
  showKey(null);
  node.replaceChildren(make("figure", { class: "chart" }, make("figcaption", {}, withUnits(label, units && `(${units})`)), svg, key));
}

function polyline(values, x, across, up) {
  let d = "", isDown = false;
  values.forEach((value, i) => {
    if (value !== null) d += `${isDown ? "L" : "M"}${across(x[i]).toFixed(1)},${up(value).toFixed(1)}`;
    isDown = value !== null;
  });
  return d;
}

function roundTicks(least, most) {
  const rough = (most - least) / 4, power = 10 ** Math.floor(Math.log10(rough));
  const by = power * [1, 2, 2.5, 5, 10].find((factor) => factor * power >= rough);
  const first = Math.floor(least / by), count = Math.ceil(most / by) - first;
  return Array.from({ length: count + 1 }, (_, n) => (first + n) * by);
}

const plain = (value) => String(Number(value.toPrecision(4))).replace("-", "−");

function endsText(values) {
  const known = values.filter((value) => value !== null);
  return known.length ? `from ${plain(known[0])} to ${plain(known.at(-1))}` : "no data";
}

const METRICS = {
  rmse: "Root mean square error", acc: "Anomaly correlation", bias: "Bias",
  crps: "CRPS (of single forecasts: mean absolute error)", "error and spread": "Error of the mean, and spread",
};

function showCharts() {
  const wanted = data.charts.filter((each) => each.metric === byId("metric").value);
  const nodes = wanted.map((each) => {
    const node = make("div");
    const xText = (hours) => (hours % 24 === 0 ? `${hours / 24} d` : `${hours} h`);
    chart(node, { ...each, x: each.hours, xText });
    return node;
  });
  byId("charts").replaceChildren(...nodes);
}

// ---- start

if (byId("metric")) {
  const there = Object.keys(METRICS).filter((name) => data.charts.some((each) => each.metric === name));
  fill(byId("metric"), there.map((name) => [name, METRICS[name]]));
  byId("metric").addEventListener("change", showCharts);
  showCharts();
}

if (byId("against")) {
  const show = () => document.querySelectorAll(".card").forEach((card) => {
    card.hidden = card.dataset.name !== byId("against").value;
  });
  byId("against").addEventListener("change", show);
  show();
}

if (byId("speed")) {
  const { seconds, cases } = data.speed;
  chart(byId("speed"), {
    label: "Cases made", units: "", x: seconds, xText: (value) => `${Math.round(value)} s`,
    lines: [{ name: "complete", values: cases }],
  });
}

const browser = byId("browser") ? new Browser(data.sides.filter((side) => side.fields)) : null;

if (root.dataset.reload) {
  setTimeout(() => {
    if (browser && (location.hash.startsWith("#at:") || browser.timer)) browser.keep();
    location.reload();
  }, 1000 * Number(root.dataset.reload));
}
