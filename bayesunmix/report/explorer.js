"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const root = byId("explorer"), map = byId("explorer-map"), plot = byId("explorer-plot");
  const chooser = byId("explorer-choice"), said = byId("explorer-said"), rows = byId("explorer-rows");
  const page = JSON.parse(byId("explorer-data").textContent);
  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const f32 = (text) => new Float32Array(bytes(text).buffer), f64 = (text) => new Float64Array(bytes(text).buffer);
  const u16 = (text) => new Uint16Array(bytes(text).buffer);
  const { layout, spectra: packed } = page;
  const across = f32(layout.across), down = f32(layout.down), chi2 = f32(page.chi2), p = f32(page.p);
  const x = f32(page.channel), n = x.length, count = across.length;
  const least = f64(packed.least), step = f64(packed.step), widest = f64(packed.widest);
  const codes = { data: u16(packed.data), mean: u16(packed.mean) };
  const widths = { below: bytes(packed.below), above: bytes(packed.above) };
  const latents = page.latents.map((one) => ({ name: one.name, mean: f32(one.mean),
    lower: one.lower ? f32(one.lower) : null, upper: one.upper ? f32(one.upper) : null }));
  const maps = page.maps.map((one) => ({ ...one, codes: bytes(one.codes) }));
  const palette = bytes(root.dataset.palette);
  const order = Array.from(chi2.keys()).sort((a, b) => chi2[a] - chi2[b]);
  let chosen = order[Math.floor(count / 2)];

  const round = (value) => Number.isFinite(value) ? String(Number(value.toPrecision(3))) : "unknown";
  const wide = () => Math.max(2, window.devicePixelRatio || 1); // a printer shows more than a screen

  function sized(canvas, aspect) {
    const width = canvas.clientWidth, height = Math.round(width * aspect), ratio = wide();
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    const pen = canvas.getContext("2d");
    pen.scale(ratio, ratio);
    pen.fillStyle = "#fff";
    pen.fillRect(0, 0, width, height);
    return { pen, width, height };
  }

  function tint(code) {
    if (code === 255) return [217, 217, 217];
    const at = 3 * Math.round(code * 255 / 254);
    return [palette[at], palette[at + 1], palette[at + 2]];
  }

  const inset = layout.kind === "points" ? 8 : 0;

  function drawMap() {
    const { pen, width, height } = sized(map, layout.aspect);
    const one = maps[chooser.selectedIndex];
    if (layout.kind === "points") {
      for (let k = 0; k < count; k++) {
        pen.fillStyle = `rgb(${tint(one.codes[k]).join(" ")})`;
        pen.beginPath();
        pen.arc(inset + across[k] * (width - 2 * inset), inset + down[k] * (height - 2 * inset), 3, 0, 7);
        pen.fill();
      }
    } else {
      const small = document.createElement("canvas");
      small.width = one.columns;
      small.height = one.rows;
      const image = new ImageData(one.columns, one.rows);
      one.codes.forEach((code, k) => image.data.set([...tint(code), 255], 4 * k));
      small.getContext("2d").putImageData(image, 0, 0);
      pen.imageSmoothingEnabled = false;
      pen.drawImage(small, 0, 0, width, height);
    }
    const left = inset + across[chosen] * (width - 2 * inset), top = inset + down[chosen] * (height - 2 * inset);
    for (const [colour, thick] of [["#000", 4], ["#fff", 2]]) {
      pen.strokeStyle = colour;
      pen.lineWidth = thick;
      pen.beginPath();
      pen.arc(left, top, 7, 0, 7);
      pen.stroke();
    }
    byId("explorer-low").textContent = round(one.low);
    byId("explorer-high").textContent = round(one.high);
  }

  function ticks(low, high, most) {
    const raw = (high - low) / most, power = 10 ** Math.floor(Math.log10(raw));
    const size = [1, 2, 5, 10].map((s) => s * power).find((s) => s >= raw);
    const found = [];
    for (let k = Math.ceil(low / size); k * size <= high + 1e-9 * size; k++) found.push(Number((k * size).toPrecision(6)));
    return found;
  }

  function spectrum(k) {
    const value = (name, c) => {
      const code = codes[name][k * n + c];
      return code === 65535 ? NaN : least[c] + step[c] * code;
    };
    return Array.from(x, (place, c) => {
      const mean = value("mean", c);
      return { x: place, data: value("data", c), mean,
        low: mean - widest[c] * widths.below[k * n + c] / 255, high: mean + widest[c] * widths.above[k * n + c] / 255 };
    });
  }

  function drawCurve(pen, inside, right, up) {
    inside.forEach((q) => pen.lineTo(right(q.x), up(q.high)));
    inside.slice().reverse().forEach((q) => pen.lineTo(right(q.x), up(q.low)));
    pen.fill();
    pen.lineWidth = 1.5;
    pen.beginPath();
    inside.forEach((q) => pen.lineTo(right(q.x), up(q.mean)));
    pen.stroke();
  }

  function drawPlot() {
    const { pen, width, height } = sized(plot, plot.clientWidth < 480 ? 0.75 : 0.52);
    const points = spectrum(chosen), frame = { left: 58, right: width - 10, top: 10, bottom: height - 42 };
    const finite = points.flatMap((q) => [q.data, q.low, q.high]).filter(Number.isFinite);
    let low = finite.reduce((a, b) => Math.min(a, b), Infinity), high = finite.reduce((a, b) => Math.max(a, b), -Infinity);
    if (!(high > low)) { low -= 0.5; high += 0.5; }
    const margin = 0.04 * (high - low), first = Math.min(x[0], x[n - 1]), last = Math.max(x[0], x[n - 1]);
    low -= margin; high += margin;
    const spare = (last - first || 1) * (page.channelNames ? 0.06 : 0.012);
    const right = (v) => frame.left + (v - first + spare) / (last - first + 2 * spare) * (frame.right - frame.left);
    const up = (v) => frame.bottom - (v - low) / (high - low) * (frame.bottom - frame.top);

    pen.fillStyle = "rgba(0, 114, 178, .25)";
    pen.strokeStyle = "#0072b2";
    const inside = points.filter((q) => Number.isFinite(q.mean)), named = page.channelNames;
    pen.beginPath();
    if (named) {
      for (const q of inside) {
        pen.fillRect(right(q.x) - 7, up(q.high), 14, up(q.low) - up(q.high));
        pen.moveTo(right(q.x) - 7, up(q.mean));
        pen.lineTo(right(q.x) + 7, up(q.mean));
      }
      pen.lineWidth = 1.5;
      pen.stroke();
    } else drawCurve(pen, inside, right, up);
    pen.fillStyle = "#000";
    const size = n > 150 ? 1 : 1.8;
    points.forEach((q) => {
      if (!Number.isFinite(q.data)) return;
      pen.beginPath();
      pen.arc(right(q.x), up(q.data), size, 0, 7);
      pen.fill();
    });

    pen.strokeStyle = pen.fillStyle = "#333";
    pen.lineWidth = 1;
    pen.font = "12px system-ui, sans-serif";
    pen.beginPath();
    pen.moveTo(frame.left, frame.top);
    pen.lineTo(frame.left, frame.bottom);
    pen.lineTo(frame.right, frame.bottom);
    pen.textAlign = "center";
    const places = named ? Array.from(x) : ticks(first, last === first ? first + 1 : last, width < 480 ? 4 : 7);
    for (const t of places) {
      pen.moveTo(right(t), frame.bottom);
      pen.lineTo(right(t), frame.bottom + 4);
      pen.fillText(named ? named[t] : String(t), right(t), frame.bottom + 17, (frame.right - frame.left) / places.length);
    }
    pen.textAlign = "right";
    for (const t of ticks(low, high, 5)) {
      pen.moveTo(frame.left - 4, up(t));
      pen.lineTo(frame.left, up(t));
      pen.fillText(Math.abs(t) >= 1e5 || (t && Math.abs(t) < 1e-3) ? t.toExponential(1) : String(t), frame.left - 7, up(t) + 4);
    }
    pen.stroke();
    pen.textAlign = "center";
    pen.fillText(page.channelLabel, (frame.left + frame.right) / 2, height - 7, frame.right - frame.left);
    pen.save();
    pen.translate(13, (frame.top + frame.bottom) / 2);
    pen.rotate(-Math.PI / 2);
    pen.fillText(page.valueLabel, 0, 0, frame.bottom - frame.top);
    pen.restore();
  }

  function tell() {
    said.textContent = `${page.names[chosen]}: chi-square per ${page.entry} ${round(chi2[chosen])}, predictive p-value ${round(p[chosen])}`;
    rows.replaceChildren(...latents.map((one) => {
      const row = document.createElement("tr"), head = document.createElement("th"), cell = document.createElement("td");
      head.scope = "row";
      head.textContent = one.name;
      cell.className = "number";
      cell.textContent = round(one.mean[chosen]);
      if (one.lower) cell.textContent += ` (${round(one.lower[chosen])} to ${round(one.upper[chosen])})`;
      row.append(head, cell);
      return row;
    }));
  }

  function show(k) {
    chosen = k;
    root.dataset.chosen = String(k);
    drawMap();
    drawPlot();
    tell();
  }

  function nearest(cost) {
    let best = -1, least = Infinity;
    for (let k = 0; k < count; k++) {
      const now = cost(k);
      if (now < least) { least = now; best = k; }
    }
    return best;
  }

  const far = (k, a, d) => (across[k] - a) ** 2 + ((down[k] - d) * layout.aspect) ** 2;

  map.addEventListener("click", (event) => {
    const box = map.getBoundingClientRect();
    const a = (event.clientX - box.left - inset) / (box.width - 2 * inset);
    const d = (event.clientY - box.top - inset) / (box.height - 2 * inset);
    show(nearest((k) => far(k, a, d)));
  });

  map.addEventListener("keydown", (event) => {
    const ways = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const way = ways[event.key];
    if (!way) return;
    event.preventDefault();
    const found = nearest((k) => {
      const a = across[k] - across[chosen], d = (down[k] - down[chosen]) * layout.aspect;
      const along = a * way[0] + d * way[1], aside = Math.abs(a * way[1]) + Math.abs(d * way[0]);
      return along > 1e-6 ? along + 4 * aside : Infinity;
    });
    if (found >= 0) show(found);
  });

  for (const one of maps) {
    const option = document.createElement("option");
    option.textContent = one.name;
    chooser.append(option);
  }
  chooser.addEventListener("change", drawMap);
  byId("explorer-worst").addEventListener("click", () => show(order[count - 1]));
  byId("explorer-typical").addEventListener("click", () => show(order[Math.floor(count / 2)]));
  root.hidden = false;
  show(chosen);
  let redraw = 0;
  const again = () => { cancelAnimationFrame(redraw); redraw = requestAnimationFrame(() => show(chosen)); };
  window.addEventListener("resize", again);
  window.addEventListener("beforeprint", () => show(chosen));
  window.addEventListener("afterprint", again);
})();
