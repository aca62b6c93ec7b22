"use strict";
// The script of a run's page. Texts of the run are set as textContent, and never as markup.
(() => {
  const $ = (id) => document.getElementById(id);
  const data = JSON.parse($("data").textContent);
  const total = data.id.length;
  const whole = Math.max(data.seconds, 0.01);

  const STATES = {
    e: ["exported", "Exported"],
    r: ["resumed", "Resumed"],
    u: ["unchanged", "Unchanged"],
    c: ["completed", "Complete"],
    k: ["kept", "File kept"],
    n: ["not_exported", "Not exported"],
    w: ["unfinished", "Waiting"],
    p: ["unfinished", "At the vendor"],
    f: ["unfinished", "Fetching"],
  };

  // ------------------------------------------------------------------ numbers in words

  const grouped = (count) => String(count).replace(/\B(?=(\d{3})+$)/g, "\u202f");

  function inTime(seconds) {
    if (seconds < 9.95 && Math.round(seconds * 10) % 10) return `${seconds.toFixed(1)} s`;
    const all = Math.round(seconds);
    const two = (n) => String(n).padStart(2, "0");
    if (all < 60) return `${all} s`;
    if (all < 3600) return `${Math.floor(all / 60)} min ${two(all % 60)} s`;
    if (all < 172800) return `${Math.floor(all / 3600)} h ${two(Math.floor(all / 60) % 60)} min`;
    return `${Math.floor(all / 86400)} d ${Math.floor(all / 3600) % 24} h`;
  }

  function inBytes(count) {
    if (count < 1000) return `${count} B`;
    let unit = -1;
    do {
      count /= 1000;
      unit += 1;
    } while (count >= 999.95 && unit < 3);
    return `${count.toFixed(1)} ${["kB", "MB", "GB", "TB"][unit]}`;
  }

  function clock(seconds) {
    const all = Math.floor(seconds);
    const two = (n) => String(n).padStart(2, "0");
    return `${Math.floor(all / 3600)}:${two(Math.floor(all / 60) % 60)}:${two(all % 60)}`;
  }

  const time = (seconds) => new Date(data.begin + seconds * 1000).toISOString();

  // ------------------------------------------------------------------ the exports

  // When each was requested, complete and ended, in seconds; NaN: never.
  const asked = new Float64Array(total);
  const complete = new Float64Array(total);
  const ended = new Float64Array(total);
  for (let i = 0; i < total; i += 1) {
    let at = 0;
    const next = (step) => (step < 0 ? NaN : (at += step / 100));
    asked[i] = next(data.a[i]);
    complete[i] = next(data.c[i]);
    ended[i] = next(data.e[i]);
  }
  const vendorEnd = (i) => firstNumber(complete[i], ended[i], whole);
  const lastOf = (i) => firstNumber(ended[i], whole);
  const failed = (i) => data.state[i] === "n";
  const label = (i) => data.name[i] || data.id[i];
  const note = (i) => data.file[i] || (data.problem[i] < 0 ? "" : data.problems[data.problem[i]]);

  function firstNumber(...values) {
    return values.find((value) => !Number.isNaN(value));
  }

  // ------------------------------------------------------------------ the theme

  const theme = $("theme");
  const systemDark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => {
    const chosen = document.documentElement.dataset.theme;
    return chosen ? chosen === "dark" : systemDark.matches;
  };
  function showTheme() {
    theme.textContent = isDark() ? "Light theme" : "Dark theme";
    draw();
  }
  theme.hidden = false;
  theme.addEventListener("click", () => {
    document.documentElement.dataset.theme = isDark() ? "light" : "dark";
    showTheme();
  });
  systemDark.addEventListener("change", showTheme);

  // ------------------------------------------------------------------ the table

  const collator = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });
  const COLUMNS = {
    name: label,
    state: (i) => "erucknwpf".indexOf(data.state[i]),
    asked: (i) => asked[i],
    vendor: (i) => complete[i] - asked[i],
    fetch: (i) => ended[i] - complete[i],
    size: (i) => (data.size[i] < 0 ? NaN : data.size[i]),
    note,
  };
  const table = { by: "asked", down: false, page: 0, found: [], order: [] };
  let haystack = null;

  function sortRows() {
    const keys = Array.from({ length: total }, (_, i) => COLUMNS[table.by](i));
    const missing = (key) => key === "" || Number.isNaN(key);
    const sign = table.down ? -1 : 1;
    table.order = Array.from(keys.keys()).sort((i, j) => {
      const [one, other] = [keys[i], keys[j]];
      if (missing(one) || missing(other)) return missing(one) - missing(other) || i - j;
      const order = typeof one === "string" ? collator.compare(one, other) : one - other;
      return sign * order || i - j;
    });
  }

  function filterRows() {
    const words = $("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    const state = $("state").value;
    if (words.length && !haystack) {
      haystack = Array.from({ length: total }, (_, i) =>
        [data.name[i] || "", data.id[i], data.export[i] || "", note(i)].join("\n").toLowerCase(),
      );
    }
    table.found = table.order.filter(
      (i) =>
        (!state || STATES[data.state[i]][0] === state) &&
        words.every((word) => haystack[i].includes(word)),
    );
    table.page = 0;
    showPage();
  }

  function element(name, className, text) {
    const made = document.createElement(name);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  }

  const seconds = (value) => (Number.isNaN(value) ? "–" : inTime(value));

  function tableRow(i) {
    const row = element("tr");
    const head = element("th");
    head.scope = "row";
    if (data.name[i]) head.append(element("bdi", "", data.name[i]));
    head.append(element("span", "id", data.id[i]));
    const state = element("td", "state");
    const [kind, word] = STATES[data.state[i]];
    state.append(element("span", `dot ${kind}`, word));
    const outcome = element("td", "outcome");
    outcome.append(element("bdi", "", note(i)));
    if (data.export[i]) outcome.append(element("span", "id", data.export[i]));
    row.append(
      head,
      state,
      element("td", "num", Number.isNaN(asked[i]) ? "–" : clock(asked[i])),
      element("td", "num", seconds(complete[i] - asked[i])),
      element("td", "num", seconds(ended[i] - complete[i])),
      element("td", "num", data.size[i] < 0 ? "–" : inBytes(data.size[i])),
      outcome,
    );
    return row;
  }

  function showPage() {
    const size = Number($("size").value);
    const pages = Math.max(1, Math.ceil(table.found.length / size));
    table.page = Math.min(Math.max(0, table.page), pages - 1);
    const shown = table.found.slice(table.page * size, (table.page + 1) * size);
    $("table").tBodies[0].replaceChildren(...shown.map(tableRow));
    $("count").textContent =
      `${grouped(table.found.length)} of ${grouped(total)} ${total === 1 ? "export" : "exports"}`;
    $("page").textContent = `Page ${grouped(table.page + 1)} of ${grouped(pages)}`;
    $("first").disabled = $("previous").disabled = table.page === 0;
    $("next").disabled = $("last").disabled = table.page === pages - 1;
  }

  function sortBy(button) {
    const by = button.dataset.by;
    table.down = table.by === by && !table.down;
    table.by = by;
    for (const other of document.querySelectorAll("#table [data-by]")) {
      const direction = table.down ? "descending" : "ascending";
      other.closest("th").setAttribute("aria-sort", other === button ? direction : "none");
    }
    sortRows();
    filterRows();
  }

  function startTable() {
    const kinds = new Map(Object.values(STATES));
    kinds.set("unfinished", "Unfinished");
    const present = new Set([...data.state].map((letter) => STATES[letter][0]));
    for (const [kind, word] of kinds) {
      if (present.has(kind)) $("state").append(new Option(word, kind));
    }
    for (const button of document.querySelectorAll("#table [data-by]")) {
      button.addEventListener("click", () => sortBy(button));
    }
    $("search").addEventListener("input", filterRows);
    $("state").addEventListener("change", filterRows);
    $("size").addEventListener("change", filterRows);
    const turn = (id, page) =>
      $(id).addEventListener("click", () => {
        table.page = page();
        showPage();
      });
    turn("first", () => 0);
    turn("previous", () => table.page - 1);
    turn("next", () => table.page + 1);
    turn("last", () => Infinity);
    $("browser").hidden = false;
    sortRows();
    filterRows();
  }

  // ------------------------------------------------------------------ the pictures

  const span = { from: 0, to: whole };
  const pictures = ["stages", "lanes", "pace", "held"];
  const lanes = Array.from(asked.keys()).filter((i) => !Number.isNaN(asked[i]));
  lanes.sort((i, j) => asked[i] - asked[j] || i - j);
  let visible = lanes;
  let laneHeight = 1;

  // Of the stacked picture: sorted times at which exports enter and leave each stage.
  const sorted = (values) => Float64Array.from(values).sort();
  const every = Array.from(asked.keys());
  const pick = (test, value) => sorted(every.filter(test).map(value));
  const hasEnded = (i) => !Number.isNaN(ended[i]);
  const steps = {
    asked: pick((i) => !Number.isNaN(asked[i]), (i) => asked[i]),
    neverAsked: pick((i) => Number.isNaN(asked[i]) && hasEnded(i), (i) => ended[i]),
    complete: pick((i) => !Number.isNaN(complete[i]), (i) => complete[i]),
    neverComplete: pick(
      (i) => !Number.isNaN(asked[i]) && Number.isNaN(complete[i]) && hasEnded(i),
      (i) => ended[i],
    ),
    fetched: pick((i) => !Number.isNaN(complete[i]) && hasEnded(i), (i) => ended[i]),
    failed: pick((i) => failed(i) && hasEnded(i), (i) => ended[i]),
    done: pick((i) => !failed(i) && hasEnded(i), (i) => ended[i]),
  };

  function until(times, at) {
    let [low, high] = [0, times.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (times[middle] <= at) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  const colour = (name) => `var(--${name})`;
  const swatch = element("span");
  swatch.hidden = true;
  document.body.append(swatch);
  function colours() {
    const found = {};
    for (const name of ["ink", "soft", "line", "waiting", "pending", "fetching", "done", "failed", "held", "sent"]) {
      swatch.style.color = colour(name);
      found[name] = getComputedStyle(swatch).color;
    }
    return found;
  }

  // A canvas of this height, and the place for the plot in it.
  function sheet(id, height) {
    const canvas = $(id);
    const width = canvas.parentElement.clientWidth;
    const scale = window.devicePixelRatio || 1;
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    canvas.style.height = `${height}px`;
    const pen = canvas.getContext("2d");
    pen.scale(scale, scale);
    pen.font = "12px system-ui, sans-serif";
    const gutter = gutterOf(width);
    const plot = { left: gutter, right: width - 8, top: 6, bottom: height - 22 };
    const x = (at) =>
      plot.left + ((at - span.from) / (span.to - span.from)) * (plot.right - plot.left);
    return { pen, plot, x, width };
  }

  const gutterOf = (width) => (width >= 700 ? 132 : 44);

  const NICE = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400];

  function timeAxis({ pen, plot, x }, paint) {
    const room = Math.max(2, Math.floor((plot.right - plot.left) / 90));
    const length = span.to - span.from;
    const step = NICE.find((one) => length / one <= room) || Math.ceil(length / room / 86400) * 86400;
    pen.fillStyle = paint.soft;
    pen.strokeStyle = paint.line;
    pen.textAlign = "center";
    pen.textBaseline = "top";
    for (let n = Math.ceil(span.from / step); n * step <= span.to; n += 1) {
      const at = x(n * step);
      pen.beginPath();
      pen.moveTo(Math.round(at) + 0.5, plot.bottom);
      pen.lineTo(Math.round(at) + 0.5, plot.bottom + 4);
      pen.stroke();
      const text = tick(n * step, step);
      const half = pen.measureText(text).width / 2;
      pen.fillText(text, Math.min(Math.max(at, half), plot.right + 8 - half), plot.bottom + 7);
    }
    pen.strokeRect(plot.left - 0.5, plot.bottom + 0.5, plot.right - plot.left, 0);
  }

  function tick(seconds, step) {
    if (!seconds) return "0";
    const digits = step < 1 ? 1 : 0;
    if (step < 60 && seconds < 60) return `${seconds.toFixed(digits)} s`;
    if (step < 60) {
      const rest = (seconds % 60).toFixed(digits).padStart(digits ? 4 : 2, "0");
      return `${Math.floor(seconds / 60)}:${rest}`;
    }
    if (seconds < 3600) return `${seconds / 60} min`;
    const minutes = Math.round(seconds / 60);
    return minutes % 60
      ? `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")}`
      : `${minutes / 60} h`;
  }

  function valueAxis({ pen, plot }, most, paint) {
    const rough = most / 3;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((one) => one * power).find((one) => one >= rough) || power;
    pen.fillStyle = paint.soft;
    pen.strokeStyle = paint.line;
    pen.textAlign = "right";
    pen.textBaseline = "middle";
    for (let n = 0; n * step <= most * 1.0001; n += 1) {
      const y = Math.round(plot.bottom - ((n * step) / most) * (plot.bottom - plot.top)) + 0.5;
      pen.beginPath();
      pen.moveTo(plot.left, y);
      pen.lineTo(plot.right, y);
      pen.stroke();
      const shown = step >= 1 ? grouped(Math.round(n * step)) : String(Number((n * step).toPrecision(3)));
      pen.fillText(shown, plot.left - 7, y);
    }
  }

  function drawStages(paint) {
    const made = sheet("stages", 168);
    const { pen, plot } = made;
    valueAxis(made, Math.max(1, total), paint);
    const tall = plot.bottom - plot.top;
    const columns = Math.max(1, Math.round(plot.right - plot.left));
    for (let column = 0; column < columns; column += 1) {
      const at = span.from + ((column + 0.5) / columns) * (span.to - span.from);
      const asked_ = until(steps.asked, at);
      const complete_ = until(steps.complete, at);
      const counts = [
        ["done", until(steps.done, at)],
        ["failed", until(steps.failed, at)],
        ["fetching", complete_ - until(steps.fetched, at)],
        ["pending", asked_ - complete_ - until(steps.neverComplete, at)],
        ["waiting", total - asked_ - until(steps.neverAsked, at)],
      ];
      let y = plot.bottom;
      for (const [name, count] of counts) {
        const height = (count / Math.max(1, total)) * tall;
        pen.fillStyle = paint[name];
        pen.fillRect(plot.left + column, y - height, 1.05, height);
        y -= height;
      }
    }
    timeAxis(made, paint);
  }

  function drawLanes(paint) {
    const height = Math.min(Math.max(lanes.length * 18, 60), 420);
    const made = sheet("lanes", height + 28);
    const { pen, plot, x } = made;
    visible = lanes.filter((i) => asked[i] <= span.to && lastOf(i) >= span.from);
    laneHeight = Math.min(22, (plot.bottom - plot.top) / Math.max(1, visible.length));
    const bar = laneHeight >= 4 ? laneHeight - (laneHeight >= 10 ? 4 : 1) : Math.max(laneHeight, 1);
    pen.save();
    pen.beginPath();
    pen.rect(plot.left, 0, plot.right - plot.left + 2, plot.bottom);
    pen.clip();
    const piece = (name, from, to, y) => {
      if (to < span.from || from > span.to) return;
      pen.fillStyle = paint[name];
      pen.fillRect(x(from), y, Math.max(x(to) - x(from), 1), bar);
    };
    visible.forEach((i, row) => {
      const y = plot.top + row * laneHeight;
      piece("pending", asked[i], vendorEnd(i), y);
      if (!Number.isNaN(complete[i])) piece("fetching", complete[i], lastOf(i), y);
    });
    // On top, so that one failure among thousands is seen.
    visible.forEach((i, row) => {
      if (!failed(i)) return;
      pen.fillStyle = paint.failed;
      pen.fillRect(x(lastOf(i)) - 2, plot.top + row * laneHeight, 4, Math.max(bar, 3));
    });
    pen.restore();
    if (laneHeight >= 11 && plot.left > 100) laneNames(made, paint);
    timeAxis(made, paint);
    const each = visible.length / (plot.bottom - plot.top);
    const crowd = each > 1 ? ` A line of the picture has ${Math.ceil(each)} exports; zoom in to tell them apart.` : "";
    $("d-lanes").textContent =
      `${grouped(visible.length)} of ${grouped(total)} exports were under way in this time.${crowd} ` +
      "The table of exports has the same times in numbers.";
  }

  function laneNames({ pen, plot }, paint) {
    pen.save();
    pen.beginPath();
    pen.rect(0, 0, plot.left - 6, plot.bottom);
    pen.clip();
    pen.fillStyle = paint.ink;
    pen.textAlign = "left";
    pen.textBaseline = "middle";
    visible.forEach((i, row) => {
      const y = plot.top + (row + 0.5) * laneHeight - (laneHeight >= 10 ? 1.5 : 0);
      pen.fillText(fitting(pen, label(i), plot.left - 10), 0, y);
    });
    pen.restore();
  }

  function fitting(pen, text, room) {
    const letters = [...text.slice(0, 80)];
    if (pen.measureText(text.slice(0, 80)).width <= room && text.length <= 80) return text;
    while (letters.length && pen.measureText(`${letters.join("")}…`).width > room) letters.pop();
    return `${letters.join("")}…`;
  }

  function drawPace(paint) {
    const made = sheet("pace", 168);
    const { pen, plot, x } = made;
    const shown = data.pace.filter(([begin, end]) => begin <= span.to && end >= span.from);
    const sent = Math.max(0, ...shown.map((p) => (p[2] ? p[3] / p[2] : 0)));
    const rates = shown.map((p) => p[5]).filter((rate) => rate !== null);
    const most = Math.max(0.1, sent * 1.1, Math.min(Math.max(0, ...rates) * 1.1, sent * 2 || Infinity));
    valueAxis(made, most, paint);
    const y = (value) => plot.bottom - (Math.min(value, most) / most) * (plot.bottom - plot.top);
    pen.save();
    pen.beginPath();
    pen.rect(plot.left, 0, plot.right - plot.left, plot.bottom);
    pen.clip();
    for (const [begin, end, length, requests, refused] of shown) {
      if (!length) continue;
      const left = Math.round(x(begin));
      const wide = Math.max(Math.round(x(end)) - left, 1);
      for (const [name, count] of [["sent", requests], ["failed", refused]]) {
        pen.fillStyle = paint[name];
        pen.fillRect(left, y(count / length), wide, plot.bottom - y(count / length));
      }
    }
    pen.strokeStyle = paint.ink;
    pen.lineWidth = 1.5;
    pen.beginPath();
    let [drawn, before] = [false, 0];
    for (const [begin, end, , , , rate] of shown) {
      // Between two sessions there is no rate.
      if (begin - before > 0.01 * (span.to - span.from) + 1) drawn = false;
      before = end;
      if (rate === null) {
        drawn = false;
        continue;
      }
      if (!drawn) pen.moveTo(x(begin), y(rate));
      else pen.lineTo(x(begin), y(rate));
      pen.lineTo(x(end), y(rate));
      drawn = true;
    }
    pen.stroke();
    pen.restore();
    timeAxis(made, paint);
  }

  function drawHeld(paint) {
    const reasons = Object.keys(data.held);
    const rows = [["Answers of 429", "failed", (p) => (p[4] ? Math.max(0.4, p[4] / p[3]) : 0)]];
    for (const reason of reasons) {
      rows.push([data.held[reason], "held", (p) => (p[6][reason] || 0) / (p[2] || 1)]);
    }
    const wide = gutterOf($("held").parentElement.clientWidth) > 100;
    const step = wide ? 22 : 34;
    const made = sheet("held", rows.length * step + 30);
    const { pen, plot, x } = made;
    rows.forEach(([name, kind, share], row) => {
      const top = plot.top + row * step;
      const y = wide ? top + 3 : top + 17;
      pen.fillStyle = paint.soft;
      pen.textAlign = wide ? "right" : "left";
      pen.textBaseline = wide ? "middle" : "top";
      pen.fillText(name, wide ? plot.left - 8 : plot.left, wide ? y + 7 : top + 1);
      pen.globalAlpha = 0.5;
      pen.fillStyle = paint.line;
      pen.fillRect(plot.left, y + 6.5, plot.right - plot.left, 1);
      pen.fillStyle = paint[kind];
      for (const point of data.pace) {
        const part = Math.min(1, share(point));
        if (!part || point[1] < span.from || point[0] > span.to) continue;
        const left = Math.max(plot.left, Math.round(x(point[0])));
        const right = Math.min(Math.round(x(point[1])), plot.right);
        pen.globalAlpha = 0.3 + 0.7 * part;
        pen.fillRect(left, y, Math.max(right - left, 2), 14);
      }
      pen.globalAlpha = 1;
    });
    timeAxis(made, paint);
  }

  let planned = 0;
  function draw() {
    if (planned) return;
    planned = requestAnimationFrame(() => {
      planned = 0;
      const paint = colours();
      drawStages(paint);
      drawLanes(paint);
      drawPace(paint);
      drawHeld(paint);
      if (!document.documentElement.dataset.drawn) performance.mark("drawn");
      document.documentElement.dataset.drawn = "1";
    });
  }

  function show(from, to) {
    const least = Math.min(whole, Math.max(whole / 5000, 0.05));
    const length = Math.min(whole, Math.max(least, to - from));
    span.from = Math.min(Math.max(0, from), whole - length);
    span.to = span.from + length;
    const all = length >= whole * 0.9999;
    $("in").disabled = length <= least;
    $("out").disabled = $("all").disabled = all;
    $("earlier").disabled = span.from <= 0;
    $("later").disabled = span.to >= whole * 0.9999;
    const times = `${time(span.from).slice(11, 19)} – ${time(span.to).slice(11, 19)} UTC`;
    $("window").textContent = all
      ? `The whole run: ${inTime(whole)}, ${times}`
      : `${inTime(length)} of ${inTime(whole)}: ${times}`;
    draw();
  }

  const middle = () => (span.from + span.to) / 2;
  const zoom = (factor, at = middle()) =>
    show(at - (at - span.from) * factor, at + (span.to - at) * factor);
  const move = (part) => {
    const step = (span.to - span.from) * part;
    const from = Math.min(Math.max(0, span.from + step), whole - (span.to - span.from));
    show(from, from + span.to - span.from);
  };
  const showAll = () => show(0, whole);
  const KEYS = {
    ArrowLeft: () => move(-0.25),
    ArrowRight: () => move(0.25),
    "+": () => zoom(0.5),
    "=": () => zoom(0.5),
    "-": () => zoom(2),
    Home: showAll,
  };

  function startPicture(id) {
    const canvas = $(id);
    const plot = canvas.parentElement;
    plot.hidden = false;
    canvas.addEventListener("keydown", (event) => {
      const act = event.ctrlKey || event.metaKey || event.altKey ? null : KEYS[event.key];
      if (!act) return;
      event.preventDefault();
      act();
    });
    canvas.addEventListener("dblclick", showAll);
    canvas.addEventListener("pointerdown", (event) => {
      if (event.pointerType !== "touch" && event.button === 0) select(canvas, event);
    });
    if (id === "lanes") {
      canvas.addEventListener("pointermove", showTip);
      canvas.addEventListener("pointerleave", () => (tip.hidden = true));
    }
  }

  const placeOf = (canvas, event) => {
    const box = canvas.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top, width: box.width };
  };
  function timeAt(canvas, event) {
    const { x, width } = placeOf(canvas, event);
    const left = gutterOf(width);
    const part = Math.min(1, Math.max(0, (x - left) / (width - 8 - left)));
    return span.from + part * (span.to - span.from);
  }

  function select(canvas, down) {
    const brush = element("div", "brush");
    const begin = placeOf(canvas, down).x;
    const from = timeAt(canvas, down);
    canvas.parentElement.append(brush);
    canvas.setPointerCapture(down.pointerId);
    const onMove = (event) => {
      const now = placeOf(canvas, event).x;
      brush.style.left = `${Math.min(begin, now)}px`;
      brush.style.width = `${Math.abs(now - begin)}px`;
    };
    const onEnd = (event) => {
      canvas.removeEventListener("pointermove", onMove);
      brush.remove();
      const to = timeAt(canvas, event);
      if (event.type === "pointerup" && Math.abs(placeOf(canvas, event).x - begin) > 4) {
        show(Math.min(from, to), Math.max(from, to));
      }
    };
    canvas.addEventListener("pointermove", onMove);
    canvas.addEventListener("pointerup", onEnd, { once: true });
    canvas.addEventListener("pointercancel", onEnd, { once: true });
  }

  const tip = element("div", "tip");
  tip.hidden = true;
  function showTip(event) {
    const canvas = $("lanes");
    const { x, y, width } = placeOf(canvas, event);
    const i = visible[Math.floor((y - 6) / laneHeight)];
    tip.hidden = i === undefined || event.buttons > 0;
    if (tip.hidden) return;
    const parts = [`${STATES[data.state[i]][1]}, requested at ${clock(asked[i])}`];
    if (!Number.isNaN(complete[i])) parts.push(`at the vendor ${inTime(complete[i] - asked[i])}`);
    if (!Number.isNaN(ended[i] - complete[i])) parts.push(`fetching ${inTime(ended[i] - complete[i])}`);
    if (data.problem[i] >= 0) parts.push(note(i));
    const name = element("strong");
    name.append(element("bdi", "", label(i).slice(0, 120)));
    tip.replaceChildren(name, parts.join("; "));
    tip.style.left = `${Math.min(x + 14, Math.max(0, width - tip.offsetWidth - 4))}px`;
    tip.style.top = `${y + 16}px`;
  }

  function startPictures() {
    pictures.forEach(startPicture);
    $("lanes").parentElement.append(tip);
    const press = (id, act) => $(id).addEventListener("click", act);
    press("earlier", () => move(-0.5));
    press("later", () => move(0.5));
    press("in", () => zoom(0.5));
    press("out", () => zoom(2));
    press("all", showAll);
    $("tools").hidden = $("d-keys").hidden = false;
    new ResizeObserver(draw).observe($("stages").parentElement);
    addEventListener("beforeprint", draw);
    showAll();
  }

  startTable();
  startPictures();
  showTheme();
})();
