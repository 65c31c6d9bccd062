// The page: search, its results, keys, and their state in the address bar.
"use strict";
let asked = null;    // {file} or {image, name}: the query image; null: the query is text
let turn = 0;        // number of the latest search: responses to older ones are discarded
const EXAMPLES = ["something red", "an animal", "food on a table", "people outdoors", "a building"];

function say(text, wrong) {
  $("said").textContent = text;
  $("said").className = wrong ? "wrong" : "";
  $("said").setAttribute("role", wrong ? "alert" : "status");
}

// ---- searching

async function search() {
  const words = $("words").value.trim();
  if (!asked && !words) return;
  $("tries").hidden = true;
  const mine = ++turn, began = performance.now();
  say("Searching …");
  try {
    const hits = asked ? await call("/api/search?k=48", formOf(asked))
      : await call("/api/search?k=48&words=" + encodeURIComponent(words));
    if (mine !== turn) return;
    show(hits, asked || { words });
    const took = Math.round(performance.now() - began);
    say("The best " + hits.length + " for " + (asked ? "this image" : "“" + words + "”")
      + ", in " + took + " ms");
    remember();
    return true;
  } catch (error) {
    if (mine === turn) {  // earlier results stay
      if (asked && asked.file) searchBy(null);
      say(error.message, true);
    }
  }
  return false;
}
async function sample() {  // before the first search
  const mine = ++turn;
  try {
    const hits = await call("/api/sample?k=48");
    if (mine !== turn) return;
    show(hits, null);
    suggest(hits.map((hit) => short(hit.paths[0])));
    say("Some of the images. Type what you are looking for, or drop an image.");
  } catch (error) {
    if (mine === turn) say(error.message, true);
  }
}
// Queries to begin with: names of files that are words, then others.
function suggest(names) {
  const words = names.filter((name) => /^[a-z][a-z ]{2,28}$/i.test(name)
    && !/^(img|image|dsc|photo|scan|screenshot|untitled)\b/i.test(name));
  const some = [...new Set([...words.slice(0, 3), ...EXAMPLES])].slice(0, 5);
  $("tries").replaceChildren($("tries").firstElementChild, ...some.map((text) => {
    const button = make("button", text);
    button.type = "button";
    button.onclick = () => {
      $("words").value = text;
      searchBy(null);
      search();
    };
    return button;
  }));
  $("tries").hidden = false;
}
function show(hits, query) {
  const scores = hits.map((hit) => hit.score);
  const low = Math.min(...scores), high = Math.max(...scores);
  $("found").replaceChildren(...hits.map((hit, place) => {
    const tile = make("button", undefined, "tile"), image = make("img"), name = short(hit.paths[0]);
    const frame = make("div", undefined, "frame"), canvas = make("canvas");
    tile.type = "button";
    tile.tabIndex = place ? -1 : 0;  // arrow keys move among the tiles
    canvas.hidden = true;
    frame.append(image, canvas);
    image.src = urlOf(hit, 256);
    image.alt = name;
    image.loading = "lazy";
    tile.title = hit.paths.join("\n");
    const bar = make("div", undefined, "bar2"), fill = make("i");
    fill.style.width = (10 + 90 * (hit.score - low) / Math.max(high - low, 1e-6)) + "%";
    bar.append(fill);
    const line = make("span");
    line.append(make("b", name));
    tile.append(frame);
    if (high > low || high > 0) {  // a sample has no scores
      line.append(make("em", hit.score.toFixed(3)));
      tile.append(bar);
    }
    tile.append(line);
    tile.dataset.image = hit.image;
    tile.dataset.name = name;
    tile.setAttribute("aria-pressed", opened !== null && opened.image === hit.image);
    tile.onclick = () => open({ image: hit.image, name });
    return tile;
  }));
  $("maps").hidden = !query || !hits.length;
  $("maps").query = query;
  matchAll($("maps").hidden || $("maps").getAttribute("aria-pressed") !== "true" ? null : query);
}
$("maps").onclick = () => {
  const on = $("maps").getAttribute("aria-pressed") !== "true";
  $("maps").setAttribute("aria-pressed", on);
  matchAll(on ? $("maps").query : null);
  remember();
};
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
tabs.search = { title: "Search", take, focus: () => $("words").focus() };
addEventListener("paste", (e) => tabs[tab].take(e.clipboardData.files));
let over = 0;
addEventListener("dragenter", (e) => {
  e.preventDefault();
  over++;
  if (e.dataTransfer.types.includes("Files")) document.body.classList.add("over");
});
addEventListener("dragleave", () => { if (--over <= 0) { over = 0; document.body.classList.remove("over"); } });
addEventListener("dragover", (e) => e.preventDefault());
addEventListener("drop", (e) => {
  e.preventDefault();
  over = 0;
  document.body.classList.remove("over");
  tabs[tab].take(e.dataTransfer.files);
});

// ---- keys

const typing = (node) => node.matches("input:not([type=range]), textarea, select");
// The number of tiles in a row.
function columns() {
  const tiles = [...$("found").children], top = tiles[0].offsetTop;
  const next = tiles.findIndex((tile) => tile.offsetTop > top);
  return next < 0 ? tiles.length : next;
}
// Moves the focus, and the panel with it if it is open, from a tile to another.
function step(from, by) {
  const tiles = [...$("found").children], to = from + by;
  if (!tiles.length || to < 0 || to >= tiles.length) return;
  for (const tile of tiles) tile.tabIndex = tile === tiles[to] ? 0 : -1;
  const inside = $("panel").contains(document.activeElement);
  if (!inside) tiles[to].focus();
  if (opened) open({ image: tiles[to].dataset.image, name: tiles[to].dataset.name });
}
addEventListener("keydown", (e) => {
  if (tab !== "search" || e.ctrlKey || e.metaKey || e.altKey) return;
  const tiles = [...$("found").children], at = tiles.indexOf(document.activeElement);
  if (e.key === "Escape") {
    if (opened) close();
    else if (asked || $("words").value) reset();
  } else if (e.key === "ArrowDown" && e.target === $("words") && tiles.length) {
    (tiles.find((tile) => tile.tabIndex === 0) || tiles[0]).focus();
  } else if (typing(e.target)) return;
  else if (e.key === "/") $("words").select();
  else if (e.key === "m" && !$("maps").hidden) $("maps").click();
  else if (at >= 0 && e.key === "ArrowUp" && at < columns()) $("words").focus();
  else if (at >= 0 && ["ArrowUp", "ArrowDown"].includes(e.key))
    step(at, e.key === "ArrowUp" ? -columns() : columns());
  else if (["ArrowLeft", "ArrowRight"].includes(e.key) && e.target.type !== "range") {
    const shown = tiles.findIndex((tile) => opened && tile.dataset.image === opened.image);
    if (at < 0 && shown < 0) return;
    step(at < 0 ? shown : at, e.key === "ArrowLeft" ? -1 : 1);
  } else if (at >= 0 && e.key === "Home") step(at, -at);
  else if (at >= 0 && e.key === "End") step(at, tiles.length - 1 - at);
  else return;
  e.preventDefault();
});
function reset() {
  $("words").value = "";
  searchBy(null);
  sample();
  remember();
  $("words").focus();
}

// ---- the address bar keeps text, image, labels, and whether maps are shown

function remember() {
  const state = new URLSearchParams();
  if (!asked && $("words").value.trim()) state.set("words", $("words").value.trim());
  if (asked && asked.image) state.set("like", asked.image);
  if (opened && opened.image) state.set("open", opened.image);
  if ($("maps").getAttribute("aria-pressed") === "true") state.set("maps", "1");
  const labels = $("labels").querySelector("input").value.trim();
  if (labels) state.set("labels", labels);
  if (tab !== "search") state.set("tab", tab);
  history.replaceState(null, "", "#" + state);
}
async function start() {
  const state = new URLSearchParams(location.hash.slice(1));
  try {
    const about = await call("/api/about");
    if (about.folder !== undefined) {
      tabs.search.about = about.images.toLocaleString("en") + " images of “" + about.folder
        + "” · " + about.model;
      tabs.search.page = "Search " + about.folder;
    } else delete tabs.search;
    for (const name of ["chat", "segment"])
      if (about[name]) tabs[name].begin(about[name]); else delete tabs[name];
  } catch (error) {
    delete tabs.chat;
    delete tabs.segment;
    say(error.message, true);
  }
  makeTabs(state.get("tab"));
  if (!tabs.search) return;
  $("words").value = state.get("words") || "";
  $("labels").querySelector("input").value = state.get("labels") || "";
  $("maps").setAttribute("aria-pressed", state.has("maps"));
  const like = state.get("like"), first = state.get("open");
  if (like) await searchBy({ image: like, name: "this image" });
  else if ($("words").value) await search();
  else await sample();
  if (first) {
    const tile = [...$("found").children].find((t) => t.dataset.image === first);
    open({ image: first, name: tile ? tile.dataset.name : "image" });
  } else if (tab === "search" && !narrow.matches) $("words").focus();  // where no keyboard slides in
}
start();
