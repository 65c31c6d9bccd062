// The panel of one image: its maps and its labels.
"use strict";
let opened = null;   // {file} or {image, name}
let looked = null;   // its response from /api/attention
const narrow = matchMedia("(max-width: 880px)");  // where the panel covers the page

function open(which) {
  opened = which;
  looked = null;
  $("panel").hidden = false;
  $("main").classList.add("open");
  for (const tile of $("found").children)
    tile.setAttribute("aria-pressed", tile.dataset.image === which.image);
  cover();
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
function close() {
  const tile = [...$("found").children].find((t) => opened && t.dataset.image === opened.image);
  opened = null;
  $("panel").hidden = true;
  $("main").classList.remove("open");
  for (const other of $("found").children) other.setAttribute("aria-pressed", false);
  cover();
  (tile || $("words")).focus();
  remember();
}
$("panel").querySelector(".close").onclick = close;
// On a narrow screen the panel covers everything else, which then cannot be reached.
function cover() {
  const covered = narrow.matches && opened !== null;
  for (const id of ["top", "results", "foot"]) $(id).inert = covered;
  document.body.classList.toggle("covered", covered);
  if (covered) {
    $("panel").scrollTop = 0;
    $("panel").querySelector(".close").focus();
  }
}
narrow.onchange = cover;
$("similar").onclick = () => opened && searchBy(opened);

async function look() {
  const which = opened, words = $("parts").querySelector("input").value.trim();
  $("wordmaps").replaceChildren(make("span", "Computing …", "note"));
  try {
    const found = await call("/api/attention", formOf(which, { words }));
    if (which !== opened) return;
    looked = found;
    fit($("frame").querySelector("img"), found);
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
    if (buttons.length) buttons[0].click();
    else if (found.rollout.length) $("rollout").click();
    else $("note").textContent = "Enter words below to see which parts of the image match them.";
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
$("rollout").onclick = () => looked && choose($("rollout"), looked.rollout,
  "Attention rollout through all layers, from the pooled image to its patches.");
$("layer").oninput = showHeads;
function showHeads() {
  const layer = +$("layer").value, heads = looked.heads[layer - 1] || [];
  $("layername").textContent = "or a head of layer " + layer + ":";
  $("heads").style.gridTemplateColumns = "repeat(" + Math.min(6, Math.max(4, heads.length)) + ", 1fr)";
  $("heads").replaceChildren(...heads.map((map, head) => {
    const button = make("button"), canvas = make("canvas");
    button.type = "button";
    button.title = "Head " + (head + 1);
    button.setAttribute("aria-label", button.title);
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
