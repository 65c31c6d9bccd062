// Helpers of all scripts, and maps: drawn over an image, and those of all results.
"use strict";
const $ = (id) => document.getElementById(id);
const make = (tag, text, kind) => {  // text is never parsed as HTML
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  if (kind) node.className = kind;
  return node;
};
const short = (path) => path.split("/").pop().replace(/\.\w+$/, "").replace(/[_-]+/g, " ").trim();

async function call(path, form) {
  const answer = await fetch(path, form ? { method: "POST", body: form } : undefined);
  const content = await answer.json().catch(() => ({ error: "The server's response is not JSON." }));
  if (answer.ok) return content;
  const error = new Error(content.error || "The server returned status " + answer.status + ".");
  error.status = answer.status;
  throw error;
}
function formOf(which, more) {
  const form = new FormData();
  for (const key of ["file", "image", "words"]) if (which[key]) form.append(key, which[key]);
  for (const [key, value] of Object.entries(more || {})) form.append(key, value);
  return form;
}
function urlOf(which, size) {
  if (!which.file) return "/api/image/" + which.image + "?size=" + size;
  which.url = which.url || URL.createObjectURL(which.file);
  return which.url;
}

// An image with a map over it: both show the part of the image that the model reads.
function fit(image, found) {
  image.style.objectFit = found.cropped ? "cover" : "fill";
  image.style.aspectRatio = found.aspect;
}
// A map as color, smooth over an image or solid as a small tile; negative values show nothing.
function draw(canvas, map, solid) {
  const rows = map.length, columns = map[0].length, flat = map.flat();
  const top = Math.max(...flat), bottom = Math.max(0, Math.min(...flat));
  const small = document.createElement("canvas");
  small.width = columns;
  small.height = rows;
  const pixels = small.getContext("2d").createImageData(columns, rows);
  flat.forEach((value, i) => {
    const v = top > bottom ? Math.max(0, (value - bottom) / (top - bottom)) : 0;
    const color = solid ? [30 + 225 * v, 36 + 120 * v * v, 62 + 40 * (1 - v)]
      : [16, 20, 40];  // over an image of any colors: low values are darkened
    pixels.data.set([...color, solid ? 255 : 175 * (1 - v)], 4 * i);
  });
  small.getContext("2d").putImageData(pixels, 0, 0);
  canvas.width = 40 * columns;
  canvas.height = 40 * rows;
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = !solid;
  context.imageSmoothingQuality = "high";
  context.drawImage(small, 0, 0, canvas.width, canvas.height);
}

// ---- the maps of all results: computed for the visible ones, one at a time

let matched = null;           // the query that they are of; null: they are not shown
const waiting = new Set();    // visible tiles without a map
let working = false;
const watcher = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries)
    if (isIntersecting && !target.dataset.mapped) waiting.add(target); else waiting.delete(target);
  matchNext();
});
function matchAll(query) {
  matched = query;
  waiting.clear();
  watcher.disconnect();
  for (const tile of $("found").children) {
    delete tile.dataset.mapped;
    tile.querySelector("canvas").hidden = true;
    tile.querySelector("img").style = "";
    if (query) watcher.observe(tile);
  }
}
async function matchNext() {
  if (working || !matched) return;
  const query = matched, [tile] = waiting;
  if (!tile) return;
  working = true;
  waiting.delete(tile);
  try {
    const found = await call("/api/match", formOf(query, { result: tile.dataset.image }));
    if (query === matched && tile.isConnected) {
      tile.dataset.mapped = 1;
      const canvas = tile.querySelector("canvas");
      fit(tile.querySelector("img"), found);
      canvas.hidden = false;
      draw(canvas, found.map, 0);
    }
  } catch (error) {
    if (error.status === 503) {  // others are being served
      await new Promise((done) => setTimeout(done, 1000));
      if (query === matched && tile.isConnected) waiting.add(tile);
    } else if (query === matched) tile.dataset.mapped = "failed";
  }
  working = false;
  matchNext();
}
