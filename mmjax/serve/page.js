// The page: search, the panel of one image, and their state in the address bar.
"use strict";
const $ = (id) => document.getElementById(id);
const make = (tag, text, kind) => {  // text is never parsed as HTML
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  if (kind) node.className = kind;
  return node;
};
const short = (path) => path.split("/").pop().replace(/\.\w+$/, "").replace(/[_-]+/g, " ").trim();

let asked = null;    // {file} or {picture, name}: the query image; null: the query is text
let opened = null;   // the image of the panel, in the same form
let maps = null;     // its response from /api/attention
let turn = 0;        // number of the latest search: responses to older ones are discarded

async function call(path, form) {
  const answer = await fetch(path, form ? { method: "POST", body: form } : undefined);
  const content = await answer.json().catch(() => ({ error: "The server's response is not JSON." }));
  if (!answer.ok) throw new Error(content.error || "The server returned status " + answer.status + ".");
  return content;
}
function formOf(which, more) {
  const form = new FormData();
  if (which.file) form.append("file", which.file); else form.append("picture", which.picture);
  for (const [key, value] of Object.entries(more || {})) form.append(key, value);
  return form;
}
function urlOf(which, size) {
  if (!which.file) return "/api/picture/" + which.picture + "?size=" + size;
  which.url = which.url || URL.createObjectURL(which.file);
  return which.url;
}
function say(text, wrong) {
  $("said").textContent = text;
  $("said").className = wrong ? "wrong" : "";
}

// ---- searching

async function search() {
  const words = $("words").value.trim();
  if (!asked && !words) return;
  const mine = ++turn, began = performance.now();
  say("Searching …");
  try {
    const hits = asked ? await call("/api/search?k=48", formOf(asked))
      : await call("/api/search?k=48&words=" + encodeURIComponent(words));
    if (mine !== turn) return;
    show(hits);
    const took = Math.round(performance.now() - began);
    say("The best " + hits.length + " for " + (asked ? "this image" : "“" + words + "”")
      + ", in " + took + " ms");
    remember();
    return true;
  } catch (error) {
    if (mine === turn) { show([]); say(error.message, true); }
  }
  return false;
}
async function sample() {  // before the first search
  const mine = ++turn;
  try {
    const hits = await call("/api/sample?k=48");
    if (mine !== turn) return;
    show(hits);
    say("Some of the images. Type what you are looking for, or drop an image.");
  } catch (error) {
    if (mine === turn) say(error.message, true);
  }
}
function show(hits) {
  const scores = hits.map((hit) => hit.score);
  const low = Math.min(...scores), high = Math.max(...scores);
  $("found").replaceChildren(...hits.map((hit) => {
    const tile = make("button", undefined, "tile"), image = make("img"), name = short(hit.paths[0]);
    tile.type = "button";
    image.src = urlOf(hit, 256);
    image.alt = name;
    image.loading = "lazy";
    tile.title = hit.paths.join("\n");
    const bar = make("div", undefined, "bar2"), fill = make("i");
    fill.style.width = (10 + 90 * (hit.score - low) / Math.max(high - low, 1e-6)) + "%";
    bar.append(fill);
    const line = make("span");
    line.append(make("b", name));
    tile.append(image);
    if (high > low || high > 0) {  // a sample has no scores
      line.append(make("em", hit.score.toFixed(3)));
      tile.append(bar);
    }
    tile.append(line);
    tile.dataset.picture = hit.picture;
    tile.onclick = () => open({ picture: hit.picture, name });
    return tile;
  }));
}
function searchBy(which) {
  asked = which;
  $("chip").hidden = !which;
  if (which) {
    $("chip").querySelector("img").src = urlOf(which, 64);
    $("chip").querySelector("span").textContent = which.name;
    $("words").value = "";
    return search();
  }
}
$("ask").onsubmit = (event) => {
  event.preventDefault();
  if ($("words").value.trim()) searchBy(null);
  search();
};
$("chip").querySelector("button").onclick = () => { searchBy(null); $("words").focus(); };
$("choose").onclick = () => $("file").click();
$("file").onchange = () => { take($("file").files); $("file").value = ""; };

async function take(files) {
  const file = [...files].find((f) => f.type.startsWith("image/")) || files[0];
  if (!file) return;
  const which = { file, name: file.name };
  if (await searchBy(which)) open(which);  // what cannot be decoded is said once
}
let over = 0;
addEventListener("dragenter", (e) => { e.preventDefault(); over++; document.body.classList.add("over"); });
addEventListener("dragleave", () => { if (--over <= 0) { over = 0; document.body.classList.remove("over"); } });
addEventListener("dragover", (e) => e.preventDefault());
addEventListener("drop", (e) => {
  e.preventDefault();
  over = 0;
  document.body.classList.remove("over");
  take(e.dataTransfer.files);
});

// ---- the panel of one image

function open(which) {
  opened = which;
  maps = null;
  $("panel").hidden = false;
  $("main").classList.add("open");
  for (const tile of $("found").children)
    tile.setAttribute("aria-pressed", tile.dataset.picture === which.picture);
  $("name").textContent = short(which.name);
  $("frame").querySelector("img").src = urlOf(which, 640);
  $("frame").querySelector("img").alt = which.name;
  paint(null);
  for (const id of ["wordmaps", "heads", "shares"]) $(id).replaceChildren();
  $("note").textContent = "";
  $("looks").hidden = true;
  $("parts").querySelector("input").value = $("words").value.trim();
  look();
  if ($("labels").querySelector("input").value.trim()) classify();
  remember();
}
$("panel").querySelector(".close").onclick = () => {
  opened = null;
  $("panel").hidden = true;
  $("main").classList.remove("open");
  for (const tile of $("found").children) tile.setAttribute("aria-pressed", false);
  remember();
};
$("similar").onclick = () => opened && searchBy(opened);

async function look() {
  const which = opened, words = $("parts").querySelector("input").value.trim();
  $("wordmaps").replaceChildren(make("span", "Computing …", "note"));
  try {
    const found = await call("/api/attention", formOf(which, { words }));
    if (which !== opened) return;
    maps = found;
    const image = $("frame").querySelector("img");
    $("frame").style.aspectRatio = found.aspect;
    image.style.objectFit = found.cropped ? "cover" : "fill";
    const buttons = found.words.map((word) => {
      const button = make("button", word.text);
      button.append(make("em", word.score.toFixed(2)));
      button.onclick = () => choose(button, word.map, "Bright: covering this part of the image "
        + "lowers its similarity to “" + word.text + "”.");
      return button;
    });
    $("wordmaps").replaceChildren(...buttons);
    $("looks").hidden = !found.rollout.length;
    $("layer").max = found.heads.length;
    $("layer").value = found.heads.length;
    showHeads();
    if (buttons.length) buttons[0].click(); else $("rollout").click();
    document.body.dataset.looked = words;
  } catch (error) {
    if (which === opened) $("wordmaps").replaceChildren(make("span", error.message, "note"));
  }
}
function choose(button, map, note) {
  for (const other of document.querySelectorAll("#wordmaps button, #heads button, #rollout"))
    other.setAttribute("aria-pressed", other === button);
  paint(map);
  $("note").textContent = note;
}
$("parts").onsubmit = (event) => { event.preventDefault(); if (opened) look(); };
$("rollout").onclick = () => maps && choose($("rollout"), maps.rollout,
  "Attention rollout through all layers, from the pooled image to its patches.");
$("layer").oninput = showHeads;
function showHeads() {
  const layer = +$("layer").value, heads = maps.heads[layer - 1] || [];
  $("layername").textContent = "or a head of layer " + layer + ":";
  $("heads").style.gridTemplateColumns = "repeat(" + Math.min(6, Math.max(4, heads.length)) + ", 1fr)";
  $("heads").replaceChildren(...heads.map((map, head) => {
    const button = make("button"), canvas = make("canvas");
    button.type = "button";
    button.title = "Head " + (head + 1);
    button.append(canvas);
    draw(canvas, map, 1);
    button.onclick = () => choose(button, map, "Attention of head " + (head + 1) + " of layer "
      + layer + ".");
    return button;
  }));
}
function paint(map) {
  const canvas = $("frame").querySelector("canvas");
  canvas.hidden = !map;
  if (map) draw(canvas, map, 0);
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

async function classify() {
  const which = opened, labels = $("labels").querySelector("input").value;
  if (!which || !labels.trim()) return;
  $("shares").replaceChildren(make("span", "Computing …", "note"));
  try {
    const shares = await call("/api/classify", formOf(which, { labels }));
    if (which !== opened) return;
    $("shares").replaceChildren(...shares.slice(0, 12).map((share) => {
      const line = make("div", undefined, "share"), bar = make("i");
      bar.style.width = 100 * share.share + "%";
      line.append(bar, make("span", share.label), make("em", (100 * share.share).toFixed(1) + " %"));
      return line;
    }));
    remember();
  } catch (error) {
    if (which === opened) $("shares").replaceChildren(make("span", error.message, "note"));
  }
}
$("labels").onsubmit = (event) => { event.preventDefault(); classify(); };

// ---- the address bar keeps text, image and labels

function remember() {
  const state = new URLSearchParams();
  if (!asked && $("words").value.trim()) state.set("words", $("words").value.trim());
  if (asked && asked.picture) state.set("like", asked.picture);
  if (opened && opened.picture) state.set("open", opened.picture);
  const labels = $("labels").querySelector("input").value.trim();
  if (labels) state.set("labels", labels);
  history.replaceState(null, "", "#" + state);
}
async function start() {
  try {
    const about = await call("/api/about");
    $("about").textContent = about.pictures.toLocaleString("en") + " images of “" + about.folder
      + "” · " + about.model;
    document.title = "Search " + about.folder;
  } catch (error) { say(error.message, true); }
  const state = new URLSearchParams(location.hash.slice(1));
  $("words").value = state.get("words") || "";
  $("labels").querySelector("input").value = state.get("labels") || "";
  const like = state.get("like"), first = state.get("open");
  if (like) searchBy({ picture: like, name: "this image" });
  else if ($("words").value) await search();
  else await sample();
  if (first) {
    const tile = [...$("found").children].find((t) => t.dataset.picture === first);
    open({ picture: first, name: tile ? tile.querySelector("b").textContent : "image" });
  }
  $("words").focus();
}
start();
