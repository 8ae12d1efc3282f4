"use strict";
(() => {
// ---------------------------------------------------------------------------------------------------------- data
const $ = (id) => document.getElementById(id);
const data = JSON.parse($("data").textContent);
const buffer = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer;
const floats = (text) => new Float32Array(buffer(text));
const NEIGHBOURS = 15; // mm
const NAMES = ["pt", "eta", "phi", "d0", "z0", "charge"];

const packed = new Int16Array(buffer(data.xyz));
const N = packed.length / 3;
const X = new Float32Array(N), Y = new Float32Array(N), Z = new Float32Array(N), RHO = new Float32Array(N);
let size = 1, rmax = 1, zmax = 1;
for (let i = 0; i < N; i++) {
  X[i] = packed[i] * data.step; Y[i] = packed[N + i] * data.step; Z[i] = packed[2 * N + i] * data.step;
  RHO[i] = Math.hypot(X[i], Y[i]);
  rmax = Math.max(rmax, RHO[i]); zmax = Math.max(zmax, Math.abs(Z[i]));
}
size = Math.hypot(rmax, zmax);
const layers = floats(data.layers);
const noise = data.noise ? new Uint8Array(buffer(data.noise)) : new Uint8Array(N);

// Lines: tracks through the hits 0, 1, 2, ...; missed particles through hits named one by one.
function readLines(source, path) {
  const hits = new Uint32Array(buffer(source.hits)), n = hits.length, start = new Uint32Array(n + 1);
  for (let i = 0; i < n; i++) start[i + 1] = start[i] + hits[i];
  path = path || Uint32Array.from({ length: start[n] }, (_, i) => i);
  // Smooth curves go from knot to knot: of hits closer than NEIGHBOURS mm, as where modules overlap, the first. Lines that
  // turn by more than 60 degrees at a knot have wrong hits, and are drawn straight from hit to hit.
  const knot = [], first = new Uint32Array(n + 1), gap = [], kinked = new Uint8Array(n);
  const apart = (a, b) => Math.hypot(X[b] - X[a], Y[b] - Y[a], Z[b] - Z[a]);
  for (let t = 0; t < n; t++) {
    first[t] = knot.length;
    for (let i = start[t]; i < start[t + 1]; i++) {
      const from = knot[knot.length - 1], fresh = knot.length === first[t];
      if (!fresh && apart(from, path[i]) < NEIGHBOURS) continue;
      if (!fresh) gap.push(apart(from, path[i]));
      knot.push(path[i]);
    }
    gap.push(0);
    kinked[t] = knot.length - first[t] < 3;
    for (let i = first[t] + 1; i < knot.length - 1; i++) {
      const [p, q, r] = knot.slice(i - 1, i + 2);
      const dot = (X[q] - X[p]) * (X[r] - X[q]) + (Y[q] - Y[p]) * (Y[r] - Y[q]) + (Z[q] - Z[p]) * (Z[r] - Z[q]);
      if (dot < 0.5 * gap[i - 1] * gap[i]) kinked[t] = 1;
    }
  }
  first[n] = knot.length;
  const lines = { n, hits, start, path, knot: Uint32Array.from(knot), first, gap: Float32Array.from(gap), kinked };
  for (const name of NAMES) lines[name] = floats(source[name]);
  return lines;
}
const tracks = readLines(data.tracks);
const missed = data.missed ? readLines(data.missed, new Uint32Array(buffer(data.missed.path))) : null;
const match = data.match ? new Uint8Array(buffer(data.match)) : null;
const purity = data.purity ? floats(data.purity) : null;
const owner = new Int32Array(N).fill(-1);
for (let t = 0; t < tracks.n; t++) owner.fill(t, tracks.start[t], tracks.start[t + 1]);
const byPt = Array.from({ length: tracks.n }, (_, t) => t).sort((a, b) => (tracks.pt[b] || 0) - (tracks.pt[a] || 0));

// --------------------------------------------------------------------------------------------------------- colours
const THEMES = {
  dark: {
    back: [10, 13, 20], hit: [150, 165, 190], noise: [205, 130, 150], layer: "rgba(120,150,200,", text: "#98a3b5",
    track: ["#56b4e9", "#f0a030", "#2fc596", "#e98fc0", "#f5e663", "#ff7f50", "#a9a4ff", "#7fe0e8", "#c8e06a", "#ffb3a7"],
    charge: ["#ff8a4c", "#56b4e9", "#b8c0cc"], match: ["#4cb5f5", "#ff8a3c"], missed: "#f28dc8", select: "#ffffff",
    ramp: [[72, 84, 160], [48, 128, 178], [40, 170, 160], [110, 205, 105], [215, 222, 70], [255, 246, 170]],
  },
  light: {
    back: [251, 252, 254], hit: [105, 118, 140], noise: [176, 90, 110], layer: "rgba(60,85,130,", text: "#5b6779",
    track: ["#0072b2", "#c75000", "#00835c", "#b5508a", "#8a6d00", "#b2182b", "#5a4fcf", "#00808a", "#5b7a00", "#6b4a3a"],
    charge: ["#c75000", "#0072b2", "#6b7480"], match: ["#0072b2", "#d55e00"], missed: "#b5508a", select: "#000000",
    ramp: [[160, 215, 60], [70, 190, 110], [30, 150, 140], [45, 110, 142], [62, 68, 135], [68, 1, 84]],
  },
};
const hex = (c) => [1, 3, 5].map((i) => parseInt(c.slice(i, i + 2), 16));
const rgb = (c) => `rgb(${c.map(Math.round).join(",")})`;
function ramp(theme, f) {
  const stops = theme.ramp, x = Math.min(Math.max(f, 0), 1) * (stops.length - 1), i = Math.min(Math.floor(x), stops.length - 2);
  return stops[i].map((c, k) => c + (stops[i + 1][k] - c) * (x - i));
}
let ptLow = Infinity, ptHigh = 0;
for (const pt of tracks.pt) if (pt > 0 && Number.isFinite(pt)) { ptLow = Math.min(ptLow, pt); ptHigh = Math.max(ptHigh, pt); }
if (!(ptHigh > 0)) { ptLow = 0.1; ptHigh = 10; }
ptLow = Math.max(ptLow, 0.05); ptHigh = Math.max(ptHigh, 2 * ptLow);
function onRamp(pt) { // 0 to 1 from the threshold (or the least pT) to 20 GeV or the largest
  const low = Math.max(state.pt, ptLow, 0.2), high = Math.max(Math.min(ptHigh, 20), 2 * low);
  return Math.log(pt / low) / Math.log(high / low);
}
const LEVELS = 40;

// A palette per way of colouring, and the number in it of each track.
function palette(theme, mode) {
  if (mode === "pt") return [...Array.from({ length: LEVELS }, (_, i) => ramp(theme, i / (LEVELS - 1))), hex(theme.charge[2])];
  return (mode === "charge" ? theme.charge : mode === "match" ? theme.match : theme.track).map(hex);
}
function colourOf(t, mode) {
  if (mode === "pt") return tracks.pt[t] > 0 ? Math.round(Math.min(Math.max(onRamp(tracks.pt[t]), 0), 1) * (LEVELS - 1)) : LEVELS;
  if (mode === "charge") return tracks.charge[t] > 0 ? 0 : tracks.charge[t] < 0 ? 1 : 2;
  if (mode === "match") return match && match[t] ? 0 : 1;
  return (Math.imul(t + 1, 2654435761) >>> 8) % 10;
}

// ----------------------------------------------------------------------------------------------------------- state
const start = new URLSearchParams(location.hash.slice(1));
const pick = (name, allowed, otherwise) => (allowed.includes(start.get(name)) ? start.get(name) : otherwise);
const dark = !matchMedia("(prefers-color-scheme: light)").matches;
function legible() { // the lowest of a few thresholds that leaves some tracks, but not too many
  const above = (limit) => tracks.pt.reduce((n, pt) => n + (pt > limit), 0);
  const limit = above(1) ? [1, 2, 3, 5].find((pt) => above(pt) <= 500) ?? 5 : 0;
  return above(limit) && tracks.n > 50 ? limit : 0;
}
const state = {
  view: pick("view", ["3d", "xy", "rz"], "3d"),
  theme: pick("theme", ["dark", "light"], dark ? "dark" : "light"),
  colour: pick("colour", match ? ["track", "pt", "charge", "match"] : ["track", "pt", "charge"], "track"),
  pt: start.has("pt") ? Math.max(0, Number(start.get("pt")) || 0) : legible(),
  own: true, other: true, noise: true, missed: start.get("missed") === "1", outline: true,
  hover: -1, selected: -1, spin: false,
};
for (const name of ["own", "other", "noise", "outline"]) if (start.get(name) === "0") state[name] = false;
if (start.has("select")) state.selected = byPt[Number(start.get("select"))] ?? -1;

// The camera: a rotation, a scale in pixels per mm, a shift in pixels, and how far it is drawn towards a flat view.
const turn = (axis, angle) => { const s = Math.sin(angle / 2); return [Math.cos(angle / 2), axis[0] * s, axis[1] * s, axis[2] * s]; };
const times = (a, b) => [
  a[0] * b[0] - a[1] * b[1] - a[2] * b[2] - a[3] * b[3], a[0] * b[1] + a[1] * b[0] + a[2] * b[3] - a[3] * b[2],
  a[0] * b[2] - a[1] * b[3] + a[2] * b[0] + a[3] * b[1], a[0] * b[3] + a[1] * b[2] - a[2] * b[1] + a[3] * b[0]];
const unit = (q) => { const n = Math.hypot(...q); return q.map((c) => c / n); };
function mix(a, b, f) {
  const sign = a.reduce((sum, c, i) => sum + c * b[i], 0) < 0 ? -1 : 1;
  return unit(a.map((c, i) => c + (sign * b[i] - c) * f));
}
const FRONT = [1, 0, 0, 0]; // x to the right, y up, the beam towards us
const OBLIQUE = times(turn([1, 0, 0], 0.36), turn([0, 1, 0], -0.86));
const camera = { q: OBLIQUE, scale: 1, x: 0, y: 0, flat: 0, rz: 0, stretch: 1 };
function matrix(q) {
  const [w, x, y, z] = q;
  return [
    1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y), 2 * (x * y + w * z), 1 - 2 * (x * x + z * z),
    2 * (y * z - w * x), 2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)];
}

// -------------------------------------------------------------------------------------------------------- projection
const canvas = $("view"), pen = canvas.getContext("2d");
let W = 1, H = 1, D = 1, pixels = null, words = null;
const PX = new Float32Array(N), PY = new Float32Array(N), NEAR = new Float32Array(N);
const EYE = 2.6 * size; // distance of the eye, mm

function projector() {
  const m = matrix(camera.q), { scale, rz, stretch } = camera, lens = (1 - camera.flat) / EYE;
  const cx = W / 2 + camera.x, cy = H / 2 + camera.y;
  return (x, y, z, out) => {
    let u = m[0] * x + m[1] * y + m[2] * z, v = m[3] * x + m[4] * y + m[5] * z, w = m[6] * x + m[7] * y + m[8] * z;
    if (rz > 0) { u += (z - u) * rz; v += ((Math.hypot(x, y) - rmax / 2) * stretch - v) * rz; w *= 1 - rz; }
    const f = scale / (1 - w * lens);
    out[0] = cx + f * u; out[1] = cy - f * v; out[2] = w;
  };
}
function projectHits() {
  const m = matrix(camera.q), { scale, rz, stretch } = camera, lens = (1 - camera.flat) / EYE;
  const cx = W / 2 + camera.x, cy = H / 2 + camera.y;
  for (let i = 0; i < N; i++) {
    const x = X[i], y = Y[i], z = Z[i];
    let u = m[0] * x + m[1] * y + m[2] * z, v = m[3] * x + m[4] * y + m[5] * z, w = m[6] * x + m[7] * y + m[8] * z;
    if (rz > 0) { u += (z - u) * rz; v += ((RHO[i] - rmax / 2) * stretch - v) * rz; w *= 1 - rz; }
    const f = scale / (1 - w * lens);
    PX[i] = cx + f * u; PY[i] = cy - f * v; NEAR[i] = w;
  }
}

// The part of the window that the panel leaves free, in CSS pixels.
function room() {
  const box = $("panel").getBoundingClientRect(), w = innerWidth, h = innerHeight;
  const edge = state.view === "3d" ? 28 : 54;
  if (w <= 720) return { x0: edge - 8, x1: w - 14, y0: state.view === "3d" ? 90 : 34, y1: Math.max(160, box.top - edge + 12) };
  return { x0: box.right + edge, x1: w - 28, y0: 28, y1: h - edge };
}
// The camera that shows the whole detector in a view.
function framed(view, q) {
  const goal = { q: view === "3d" ? q || OBLIQUE : FRONT, scale: 1, x: 0, y: 0, flat: view === "3d" ? 0 : 1, rz: view === "rz" ? 1 : 0, stretch: 1 };
  const free = room(), w = free.x1 - free.x0, h = free.y1 - free.y0;
  if (view === "rz") goal.stretch = Math.min(Math.max((h / rmax) / (w / (2 * zmax)), 1), 4);
  const kept = { ...camera }, keptW = W, keptH = H, out = [0, 0, 0], box = [Infinity, -Infinity, Infinity, -Infinity];
  Object.assign(camera, goal);
  W = H = 0;
  const place = projector();
  for (let k = 0; k < 24; k++) for (const z of [-zmax, zmax]) for (const r of [0, rmax]) {
    place(r * Math.cos(k * Math.PI / 12), r * Math.sin(k * Math.PI / 12), z, out);
    box[0] = Math.min(box[0], out[0]); box[1] = Math.max(box[1], out[0]); box[2] = Math.min(box[2], out[1]); box[3] = Math.max(box[3], out[1]);
  }
  Object.assign(camera, kept); W = keptW; H = keptH;
  goal.scale = 0.98 * Math.min(w / (box[1] - box[0]), h / (box[3] - box[2]));
  goal.x = (free.x0 + free.x1) / 2 - innerWidth / 2 - goal.scale * (box[0] + box[1]) / 2;
  goal.y = (free.y0 + free.y1) / 2 - innerHeight / 2 - goal.scale * (box[2] + box[3]) / 2;
  for (const name of ["scale", "x", "y"]) goal[name] *= D;
  return goal;
}
let flight = null;
function fly(goal) {
  if (matchMedia("(prefers-reduced-motion: reduce)").matches || document.hidden) { Object.assign(camera, goal); flight = null; return draw(); }
  const from = { ...camera }, began = performance.now();
  flight = (now) => {
    const f = Math.min(1, Math.max(0, (now - began) / 550)), e = f * f * (3 - 2 * f);
    for (const name of ["x", "y", "flat", "rz", "stretch"]) camera[name] = from[name] + (goal[name] - from[name]) * e;
    camera.scale = from.scale * Math.pow(goal.scale / from.scale, e);
    camera.q = mix(from.q, goal.q, e);
    if (f >= 1) { Object.assign(camera, goal); flight = null; }
  };
  draw();
}

// ---------------------------------------------------------------------------------------------------------- drawing
let visible = new Uint8Array(tracks.n), lines = [], colours = new Uint8Array(tracks.n), shownMissed = [];
function choose() { // which tracks are shown, and how they are coloured
  const above = (set, t) => set.hits[t] > 1 && (state.pt <= 0 || set.pt[t] > state.pt);
  lines = [];
  for (let t = 0; t < tracks.n; t++) {
    visible[t] = above(tracks, t) || (t === state.selected && tracks.hits[t] > 0) ? 1 : 0;
    colours[t] = colourOf(t, state.colour);
    if (visible[t]) lines.push(t);
  }
  shownMissed = [];
  for (let t = 0; missed && t < missed.n; t++) if (above(missed, t)) shownMissed.push(t);
}

const smooth = (from, to, f) => { const x = Math.min(Math.max((f - from) / (to - from), 0), 1); return x * x * (3 - 2 * x); };
function drawHits(theme, stride) {
  const [r0, g0, b0] = theme.back;
  words.fill((255 << 24) | (b0 << 16) | (g0 << 8) | r0);
  const bytes = pixels.data, table = palette(theme, state.colour);
  const grow = Math.min(Math.max(camera.scale * size / (0.5 * Math.max(W, H)), 1), 6), zoom = Math.pow(grow, 0.35) * D;
  const focus = state.selected >= 0;
  const density = Math.min(1, 30000 / N);
  for (let pass = 0; pass < 2; pass++) for (let i = 0; i < N; i += stride) {
    const t = owner[i], own = t >= 0 && visible[t] === 1;
    if (own !== (pass === 1)) continue;
    if (own ? !state.own : noise[i] ? !state.noise : !state.other) continue;
    const px = PX[i], py = PY[i];
    if (!(px > -8 && py > -8 && px < W + 8 && py < H + 8)) continue;
    const depth = smooth(-1.1 * size, 0.9 * size, NEAR[i]);
    const colour = own ? table[colours[t]] : noise[i] ? theme.noise : theme.hit;
    let radius = (own ? 1.15 : 0.78) * zoom, alpha = own ? 0.55 + 0.45 * depth : (0.24 + 0.56 * depth) * (0.55 + 0.45 * density);
    if (focus && t === state.selected) { radius = 2.6 * Math.sqrt(zoom * D); alpha = 1; } else if (focus) alpha *= 0.35;
    const x0 = Math.max(0, Math.floor(px - radius)), x1 = Math.min(W - 1, Math.floor(px + radius));
    const y0 = Math.max(0, Math.floor(py - radius)), y1 = Math.min(H - 1, Math.floor(py + radius));
    for (let y = y0; y <= y1; y++) for (let x = x0; x <= x1; x++) {
      const d = Math.hypot(x + 0.5 - px, y + 0.5 - py);
      const a = alpha * Math.min(Math.max(radius + 0.5 - d, 0), 1);
      if (a <= 0) continue;
      const k = 4 * (y * W + x);
      bytes[k] += (colour[0] - bytes[k]) * a; bytes[k + 1] += (colour[1] - bytes[k + 1]) * a; bytes[k + 2] += (colour[2] - bytes[k + 2]) * a;
    }
  }
  pen.putImageData(pixels, 0, 0);
}

function drawOutline(theme) {
  const place = projector(), out = [0, 0, 0], flat = camera.rz > 0.999;
  const ring = (r, z) => {
    for (let k = 0; k <= 64; k++) {
      place(r * Math.cos(k * Math.PI / 32), r * Math.sin(k * Math.PI / 32), z, out);
      if (k) pen.lineTo(out[0], out[1]); else pen.moveTo(out[0], out[1]);
    }
  };
  pen.lineWidth = 0.8 * D;
  pen.strokeStyle = theme.layer + (camera.rz > 0.5 || camera.flat > 0.5 ? "0.42)" : "0.26)");
  pen.beginPath();
  for (let i = 0; i < layers.length; i += 4) {
    const [r0, z0, r1, z1] = layers.subarray(i, i + 4), barrel = r0 === r1;
    if (flat) {
      place(r0, 0, z0, out); pen.moveTo(out[0], out[1]);
      place(r1, 0, z1, out); pen.lineTo(out[0], out[1]);
      continue;
    }
    if (camera.flat > 0.999 && !barrel) continue; // x-y: the cylinders say enough
    ring(r0, z0); ring(r1, z1);
    for (let k = 0; barrel && k < 8 && camera.flat < 0.999; k++) {
      const c = r0 * Math.cos(k * Math.PI / 4), s = r0 * Math.sin(k * Math.PI / 4);
      place(c, s, z0, out); pen.moveTo(out[0], out[1]);
      place(c, s, z1, out); pen.lineTo(out[0], out[1]);
    }
  }
  pen.stroke();
}

// Add a line to the path: straight from hit to hit, or cubics whose slope at a knot is that of the parabola through it
// and its neighbours, as a function of the distance flown.
function trace(set, t, curved) {
  const { start, path, first, knot, gap } = set, a = first[t], b = first[t + 1];
  pen.moveTo(PX[path[start[t]]], PY[path[start[t]]]);
  if (!curved || set.kinked[t]) { for (let i = start[t] + 1; i < start[t + 1]; i++) pen.lineTo(PX[path[i]], PY[path[i]]); return; }
  const chord = (P, i) => (P[knot[i + 1]] - P[knot[i]]) / gap[i];
  const slope = (P, i) => {
    const j = Math.min(Math.max(i, a + 1), b - 2);
    const inner = (chord(P, j - 1) * gap[j] + chord(P, j) * gap[j - 1]) / (gap[j - 1] + gap[j]);
    return i === j ? inner : 2 * chord(P, i < j ? a : b - 2) - inner;
  };
  let ux = slope(PX, a), uy = slope(PY, a);
  for (let i = a; i < b - 1; i++) {
    const vx = slope(PX, i + 1), vy = slope(PY, i + 1), h = gap[i] / 3, p = knot[i], q = knot[i + 1];
    pen.bezierCurveTo(PX[p] + ux * h, PY[p] + uy * h, PX[q] - vx * h, PY[q] - vy * h, PX[q], PY[q]);
    ux = vx; uy = vy;
  }
}
function drawTracks(theme, curved, coarse) {
  const table = palette(theme, state.colour).map(rgb), many = lines.length, every = coarse ? Math.ceil(many / 2000) : 1;
  const depth = new Float32Array(tracks.n);
  for (const t of lines) depth[t] = NEAR[tracks.start[t + 1] - 1];
  const order = camera.rz > 0.5 ? lines : [...lines].sort((a, b) => depth[a] - depth[b]);
  const width = D * Math.min(Math.max(36 / Math.sqrt(many + 1), 0.8), 1.7) * Math.min(1, Math.max(0.6, Math.min(innerWidth, innerHeight) / 800));
  pen.lineJoin = pen.lineCap = "round";
  for (let k = 0; k < many; k += every) {
    const t = order[k];
    if (t === state.selected || t === state.hover) continue;
    const near = smooth(-1.1 * size, 0.9 * size, depth[t]);
    pen.globalAlpha = (0.35 + 0.6 * near) * (state.selected >= 0 ? 0.28 : 1) * Math.min(1, Math.pow(700 / many, 0.4));
    pen.lineWidth = width * (0.75 + 0.5 * near);
    pen.strokeStyle = table[colours[t]];
    pen.beginPath(); trace(tracks, t, curved); pen.stroke();
  }
  pen.globalAlpha = 0.9;
  if (state.missed && missed) {
    pen.setLineDash([5 * D, 4 * D]); pen.strokeStyle = theme.missed; pen.lineWidth = 1.2 * width;
    for (const t of shownMissed) { pen.beginPath(); trace(missed, t, curved); pen.stroke(); }
    pen.setLineDash([]);
  }
  pen.globalAlpha = 1;
  for (const t of [state.selected, state.hover]) {
    if (t < 0 || !visible[t]) continue;
    pen.strokeStyle = rgb(theme.back); pen.lineWidth = 6.5 * D; pen.beginPath(); trace(tracks, t, true); pen.stroke();
    pen.strokeStyle = theme.select; pen.lineWidth = 4.2 * D; pen.beginPath(); trace(tracks, t, true); pen.stroke();
    pen.strokeStyle = table[colours[t]]; pen.lineWidth = 2.6 * D; pen.beginPath(); trace(tracks, t, true); pen.stroke();
    pen.fillStyle = theme.select;
    for (let i = tracks.start[t]; i < tracks.start[t + 1]; i++) { pen.beginPath(); pen.arc(PX[i], PY[i], 3 * D, 0, 7); pen.fill(); }
  }
}

const nice = (x) => { const p = Math.pow(10, Math.floor(Math.log10(x))); return p * (x / p >= 5 ? 5 : x / p >= 2 ? 2 : 1); };
const number = (x) => (Math.abs(x) >= 1 || x === 0 ? String(Math.round(x * 1000) / 1000) : x.toPrecision(2).replace(/\.?0+$/, ""));
const length = (mm) => (mm >= 1000 ? `${number(mm / 1000)} m` : mm < 0.999 ? `${number(mm * 1000)} µm` : `${number(mm)} mm`).replace("-", "−");
function drawRulers(theme) { // flat views: coordinates along the left and the lower edge
  const free = room(), left = (free.x0 - 8) * D, low = innerWidth <= 720 ? (free.y1 + 10) * D : H - 34 * D;
  const cx = W / 2 + camera.x, cy = H / 2 + camera.y, rz = state.view === "rz";
  const sx = camera.scale, sy = camera.scale * camera.stretch, y0 = rz ? cy + sy * rmax / 2 : cy;
  pen.strokeStyle = pen.fillStyle = theme.text; pen.lineWidth = D; pen.font = `${12 * D}px system-ui, "Liberation Sans", sans-serif`;
  pen.beginPath(); pen.moveTo(left, 14 * D); pen.lineTo(left, low); pen.lineTo(W - 14 * D, low); pen.stroke();
  const minus = (v) => number(v).replace("-", "−");
  const stepX = nice(130 * D / sx), stepY = nice(90 * D / sy);
  pen.textAlign = "center"; pen.textBaseline = "top";
  for (let v = Math.ceil((left - cx) / sx / stepX) * stepX; cx + v * sx < W - 84 * D; v += stepX) {
    const x = cx + v * sx;
    if (x < left + 16 * D) continue;
    pen.beginPath(); pen.moveTo(x, low); pen.lineTo(x, low - 6 * D); pen.stroke();
    pen.fillText(minus(Math.abs(v) < stepX / 2 ? 0 : v), x, low + 5 * D);
  }
  pen.textAlign = "right"; pen.fillText(`${rz ? "z" : "x"} [mm]`, W - 16 * D, low + 5 * D);
  pen.textBaseline = "middle"; pen.textAlign = "right";
  for (let v = Math.ceil((y0 - low) / sy / stepY) * stepY; y0 - v * sy > 40 * D; v += stepY) {
    const y = y0 - v * sy;
    if (y > low - 10 * D || (rz && v < -stepY / 2)) continue;
    pen.beginPath(); pen.moveTo(left, y); pen.lineTo(left + 6 * D, y); pen.stroke();
    pen.fillText(minus(Math.abs(v) < stepY / 2 ? 0 : v), left - 5 * D, y);
  }
  pen.textAlign = "left"; pen.fillText(`${rz ? "r" : "y"} [mm]`, left + 10 * D, 20 * D);
}
function drawScale(theme) {
  const flat = state.view !== "3d" && !flight;
  $("axes").hidden = $("scale").hidden = flat;
  if (flat) return;
  const mm = nice(150 * D / camera.scale);
  $("scale").firstElementChild.textContent = length(mm);
  $("scale").lastElementChild.style.width = `${mm * camera.scale / D}px`;
  const small = $("axes"), ink = small.getContext("2d"), m = matrix(camera.q), half = 42 * D;
  small.width = small.height = 2 * half;
  ink.font = `italic ${13 * D}px Georgia, "Liberation Serif", serif`; ink.textAlign = "center"; ink.textBaseline = "middle"; ink.lineWidth = 1.5 * D;
  [0, 1, 2].sort((a, b) => m[6 + a] - m[6 + b]).forEach((k) => {
    const u = m[k] * 26 * D, v = -m[3 + k] * 26 * D;
    ink.globalAlpha = 0.55 + 0.45 * smooth(-1, 1, m[6 + k]);
    ink.strokeStyle = ink.fillStyle = theme.text;
    ink.beginPath(); ink.moveTo(half, half); ink.lineTo(half + u, half + v); ink.stroke();
    ink.fillText("xyz"[k], half + u * 1.38, half + v * 1.38);
  });
}

let wanted = false, busy = false, last = 0, settle = 0;
function draw() { if (!wanted) { wanted = true; requestAnimationFrame(frame); } }
function frame(now) {
  wanted = false;
  if (flight) flight(now);
  if (state.spin && !busy && state.view === "3d") camera.q = unit(times(camera.q, turn([0, 0, 1], Math.min(now - last, 60) * 3e-4)));
  last = now;
  const began = performance.now(), theme = THEMES[state.theme], moving = busy || flight || state.spin;
  const coarse = moving && slow > 45; // draw less while moving where the machine is slow
  projectHits();
  drawHits(theme, coarse ? Math.min(8, Math.ceil(slow / 45)) : 1);
  if (state.outline) drawOutline(theme);
  drawTracks(theme, !coarse && lines.length < 2500, coarse);
  if (state.view !== "3d" && !flight) drawRulers(theme);
  drawScale(theme);
  const cost = performance.now() - began;
  if (!coarse) slow = 0.6 * slow + 0.4 * cost;
  if (moving) { clearTimeout(settle); settle = setTimeout(draw, 120); }
  if (flight || (state.spin && state.view === "3d")) draw();
}
let slow = 16;

// ------------------------------------------------------------------------------------------------------------ panel
const thousands = (n) => n.toLocaleString("en-US").replace(/,/g, "\u202f");
const fixed = (x, digits) => (Number.isFinite(x) ? x.toFixed(digits).replace("-", "−") : "–");
const gev = (pt) => (pt < 1 ? pt.toFixed(2) : pt < 9.95 ? pt.toFixed(2) : pt < 99.5 ? pt.toFixed(1) : pt.toFixed(0));
function facts(t) {
  const charge = tracks.charge[t];
  const rows = [
    ["<i>p</i><sub>T</sub>", Number.isFinite(tracks.pt[t]) ? `${gev(tracks.pt[t])} GeV` : "–"], ["<i>η</i>", fixed(tracks.eta[t], 3)],
    ["<i>φ</i>", Number.isFinite(tracks.phi[t]) ? `${fixed(tracks.phi[t], 3)} rad` : "–"],
    ["<i>d</i><sub>0</sub>", Number.isFinite(tracks.d0[t]) ? `${fixed(tracks.d0[t], 3)} mm` : "–"],
    ["<i>z</i><sub>0</sub>", Number.isFinite(tracks.z0[t]) ? `${fixed(tracks.z0[t], 2)} mm` : "–"],
    ["Charge", charge > 0 ? `+${charge}` : charge < 0 ? `−${-charge}` : charge === 0 ? "0" : "–"], ["Hits", tracks.hits[t]]];
  if (match) rows.push(["Truth", match[t] ? "matched" : "fake"], ["Purity", `${(100 * purity[t]).toFixed(0)} %`]);
  const colour = rgb(palette(THEMES[state.theme], state.colour)[colours[t]]);
  const cells = rows.map(([name, value]) => `<dt>${name}</dt><dd>${value}</dd>`).join("");
  return `<div class="title"><b style="background:${colour}"></b>Track ${t}</div><dl class="track">${cells}</dl>`;
}
function legend() {
  const theme = THEMES[state.theme], item = (colour, text) => `<span><b style="background:${colour}"></b>${text}</span>`;
  if (state.colour === "charge") return item(theme.charge[0], "positive") + item(theme.charge[1], "negative");
  if (state.colour === "match") return item(theme.match[0], "matched") + item(theme.match[1], "fake") + (state.missed ? item(theme.missed, "missed") : "");
  if (state.colour === "track") return "One colour for each track, at random";
  const stops = theme.ramp.map((c, i) => `${rgb(c)} ${100 * i / (theme.ramp.length - 1)}%`).join(",");
  const marks = [0.2, 0.5, 1, 2, 3, 5, 10, 20].filter((v) => onRamp(v) > 0.02 && onRamp(v) < 0.84);
  const ticks = marks.map((v) => `<span style="left:${100 * onRamp(v)}%">${v}</span>`).join("");
  return `<div class="bar" style="background:linear-gradient(90deg,${stops})"></div><div class="ticks">${ticks}<span style="left:100%;transform:translateX(-100%)">GeV</span></div>`;
}
const STEPS = 200; // slider: 0 is all tracks, then pT on a logarithmic scale
const toPt = (step) => (step <= 0 ? 0 : ptLow * Math.pow(Math.min(ptHigh, 200) / ptLow, step / STEPS));
const toStep = (pt) => (pt <= 0 ? 0 : Math.round(STEPS * Math.log(pt / ptLow) / Math.log(Math.min(ptHigh, 200) / ptLow)));
function refresh() { // after any change of what is shown
  choose();
  document.documentElement.dataset.theme = state.theme;
  for (const [id, value] of [["views", state.view], ["colours", state.colour]]) {
    for (const button of $(id).children) button.setAttribute("aria-pressed", String(button.dataset.value === value));
  }
  for (const name of ["own", "other", "noise", "missed", "outline"]) $(name).checked = state[name];
  $("pt").value = toStep(state.pt);
  $("ptvalue").innerHTML = state.pt > 0 ? `<i>p</i><sub>T</sub> &gt; ${gev(state.pt)} GeV` : "all";
  $("pt").setAttribute("aria-valuetext", state.pt > 0 ? `${gev(state.pt)} GeV` : "all tracks");
  $("shown").textContent = `${thousands(lines.length)} of ${thousands(tracks.n)} tracks`;
  let own = 0, random = 0;
  for (const t of lines) own += tracks.hits[t];
  for (let i = 0; i < N; i++) if (noise[i] && !(owner[i] >= 0 && visible[owner[i]])) random++;
  $("n-own").textContent = thousands(own); $("n-other").textContent = thousands(N - own - random); $("n-noise").textContent = thousands(random);
  $("n-missed").textContent = thousands(shownMissed.length); $("n-outline").textContent = layers.length / 4;
  $("legend").innerHTML = legend();
  $("theme").textContent = state.theme === "dark" ? "Light" : "Dark";
  $("card").hidden = state.selected < 0;
  if (state.selected >= 0) $("card").innerHTML = facts(state.selected);
  draw();
}
function set(change) { Object.assign(state, change); refresh(); }
function view(name) { state.spin = false; set({ view: name }); fly(framed(name)); }
function select(t) { set({ selected: t, hover: -1 }); $("tip").hidden = true; }
function step(by) {
  const rows = byPt.filter((t) => visible[t]);
  if (!rows.length) return;
  const at = rows.indexOf(state.selected);
  select(rows[at < 0 ? (by > 0 ? 0 : rows.length - 1) : (at + by + rows.length) % rows.length]);
}
function save() {
  const link = document.createElement("a");
  canvas.toBlob((blob) => {
    link.href = URL.createObjectURL(blob); link.download = `${data.title.replace(/[^\w-]+/g, "-") || "event"}.png`; link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });
}
const MODES = match ? ["track", "pt", "charge", "match"] : ["track", "pt", "charge"];

// ------------------------------------------------------------------------------------------------------------ input
function nearest(x, y, reach) { // the track whose line passes within reach pixels
  let best = reach * reach, found = -1;
  for (const t of lines) for (let i = tracks.start[t]; i < tracks.start[t + 1] - 1; i++) {
    const ax = PX[i], ay = PY[i], bx = PX[i + 1] - ax, by = PY[i + 1] - ay;
    const f = Math.min(Math.max(((x - ax) * bx + (y - ay) * by) / (bx * bx + by * by || 1), 0), 1);
    const d = (ax + f * bx - x) ** 2 + (ay + f * by - y) ** 2;
    if (d < best) { best = d; found = t; }
  }
  return found;
}
function zoom(factor, x, y) {
  const goal = Math.min(Math.max(camera.scale * factor, 0.02 * Math.min(W, H) / size), 2000 * D);
  const f = goal / camera.scale;
  camera.x = x - W / 2 - (x - W / 2 - camera.x) * f;
  camera.y = y - H / 2 - (y - H / 2 - camera.y) * f;
  camera.scale = goal;
  draw();
}
function rotate(dx, dy) { camera.q = unit(times(times(turn([0, 1, 0], dx), turn([1, 0, 0], dy)), camera.q)); draw(); }
function shift(dx, dy) { camera.x += dx * D; camera.y += dy * D; draw(); }

const touches = new Map();
let moved = 0;
canvas.addEventListener("pointerdown", (e) => {
  canvas.setPointerCapture(e.pointerId); canvas.focus({ preventScroll: true });
  if (!touches.size) moved = 0;
  touches.set(e.pointerId, [e.clientX, e.clientY]);
  busy = true; flight = null; canvas.classList.add("drag"); $("tip").hidden = true;
});
canvas.addEventListener("pointermove", (e) => {
  const from = touches.get(e.pointerId);
  if (!from) return hover(e);
  const dx = e.clientX - from[0], dy = e.clientY - from[1];
  moved += Math.abs(dx) + Math.abs(dy);
  if (touches.size === 2) {
    const other = [...touches].find(([id]) => id !== e.pointerId)[1];
    const before = Math.hypot(from[0] - other[0], from[1] - other[1]), after = Math.hypot(e.clientX - other[0], e.clientY - other[1]);
    shift(dx / 2, dy / 2);
    zoom(after / Math.max(before, 1), D * (e.clientX + other[0]) / 2, D * (e.clientY + other[1]) / 2);
  } else if (state.view !== "3d" || e.shiftKey || e.buttons & 6) shift(dx, dy);
  else rotate(dx * 0.006, dy * 0.006);
  touches.set(e.pointerId, [e.clientX, e.clientY]);
});
function release(e) {
  if (!touches.delete(e.pointerId) || touches.size) return;
  busy = false; canvas.classList.remove("drag");
  if (e.type === "pointerup" && moved < 5 && e.button === 0) select(nearest(e.clientX * D, e.clientY * D, (e.pointerType === "touch" ? 16 : 7) * D));
  draw();
}
canvas.addEventListener("pointerup", release);
canvas.addEventListener("pointercancel", release);
canvas.addEventListener("pointerleave", () => { $("tip").hidden = true; if (state.hover >= 0) { state.hover = -1; draw(); } });
function hover(e) {
  if (e.pointerType === "touch" || flight) return;
  const t = nearest(e.clientX * D, e.clientY * D, 6 * D), tip = $("tip");
  canvas.classList.toggle("pick", t >= 0);
  tip.hidden = t < 0 || t === state.selected;
  if (!tip.hidden) {
    if (t !== state.hover) tip.innerHTML = facts(t);
    const w = tip.offsetWidth, h = tip.offsetHeight;
    tip.style.left = `${e.clientX + 18 + w > innerWidth ? e.clientX - w - 14 : e.clientX + 18}px`;
    tip.style.top = `${Math.min(Math.max(e.clientY - h / 2, 8), innerHeight - h - 8)}px`;
  }
  if (t !== state.hover) { state.hover = t; draw(); }
}
canvas.addEventListener("wheel", (e) => {
  e.preventDefault(); flight = null;
  const lines = e.deltaMode === 1 ? 30 : 1;
  zoom(Math.exp(-Math.max(-120, Math.min(120, e.deltaY * lines)) * (e.ctrlKey ? 0.01 : 0.0022)), e.clientX * D, e.clientY * D);
}, { passive: false });
canvas.addEventListener("dblclick", () => view(state.view));
canvas.addEventListener("contextmenu", (e) => e.preventDefault());

const KEYS = {
  1: () => view("3d"), 2: () => view("xy"), 3: () => view("rz"), 0: () => view(state.view),
  "+": () => zoom(1.25, W / 2 + camera.x, H / 2 + camera.y), "=": () => zoom(1.25, W / 2 + camera.x, H / 2 + camera.y), "-": () => zoom(0.8, W / 2 + camera.x, H / 2 + camera.y),
  "[": () => set({ pt: toPt(toStep(state.pt) - 5) }), "]": () => set({ pt: toPt(Math.min(STEPS, Math.max(0, toStep(state.pt)) + 5)) }),
  n: () => step(1), p: () => step(-1), Escape: () => select(-1), "?": () => $("help").showModal(),
  c: () => set({ colour: MODES[(MODES.indexOf(state.colour) + 1) % MODES.length] }),
  h: () => set({ other: !state.other }), d: () => set({ outline: !state.outline }),
  t: () => set({ theme: state.theme === "dark" ? "light" : "dark" }), s: save,
  " ": () => { state.spin = !state.spin; last = performance.now(); draw(); },
};
const nudge = (x, y) => (state.view === "3d" ? rotate(x * 0.06, y * 0.06) : shift(-x * 30, -y * 30));
Object.assign(KEYS, { ArrowLeft: () => nudge(-1, 0), ArrowRight: () => nudge(1, 0), ArrowUp: () => nudge(0, -1), ArrowDown: () => nudge(0, 1) });
addEventListener("keydown", (e) => {
  if (e.ctrlKey || e.metaKey || e.altKey || $("help").open) return;
  if (e.target.matches("input[type=range]") && e.key.startsWith("Arrow")) return;
  if (e.target.matches("button, input") && (e.key === " " || e.key === "Enter")) return;
  const act = KEYS[e.key.length === 1 ? e.key.toLowerCase() : e.key];
  if (act) { e.preventDefault(); act(); }
});

$("views").addEventListener("click", (e) => { if (e.target.closest("button")) view(e.target.closest("button").dataset.value); });
$("colours").addEventListener("click", (e) => { if (e.target.closest("button")) set({ colour: e.target.closest("button").dataset.value }); });
$("pt").addEventListener("input", () => set({ pt: toPt(Number($("pt").value)) }));
for (const name of ["own", "other", "noise", "missed", "outline"]) $(name).addEventListener("change", () => set({ [name]: $(name).checked }));
$("reset").addEventListener("click", () => { select(-1); view(state.view); });
$("theme").addEventListener("click", KEYS.t);
$("save").addEventListener("click", save);
$("ask").addEventListener("click", KEYS["?"]);
$("fold").addEventListener("click", () => fold(!$("panel").classList.contains("folded")));
function fold(closed) { $("panel").classList.toggle("folded", closed); $("fold").setAttribute("aria-expanded", String(!closed)); if (state.view) fly(framed(state.view)); }

function resize() {
  const old = [W, H, D];
  D = Math.min(devicePixelRatio || 1, 2);
  W = canvas.width = Math.max(1, Math.round(innerWidth * D)); H = canvas.height = Math.max(1, Math.round(innerHeight * D));
  pixels = pen.createImageData(W, H); words = new Uint32Array(pixels.data.buffer);
  if (old[0] > 1) { camera.scale *= D / old[2] * Math.min(W / old[0], H / old[1]) * old[2] / D; }
  draw();
}
addEventListener("resize", () => { resize(); Object.assign(camera, framed(state.view, state.view === "3d" ? camera.q : null)); draw(); });

$("name").textContent = data.title;
$("sum").textContent = `${thousands(N)} hits, ${thousands(tracks.n)} tracks`;
$("outline").parentNode.hidden = !layers.length;
if (!match) { $("noise-row").hidden = $("missed-row").hidden = true; $("colours").lastElementChild.hidden = true; }
if (innerWidth <= 720) { $("panel").classList.add("folded"); $("fold").setAttribute("aria-expanded", "false"); }
resize();
refresh();
Object.assign(camera, framed(state.view));
draw();
})();
