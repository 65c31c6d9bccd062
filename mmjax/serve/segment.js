// Segmentation: points and a box on an image, and the masks that a model makes of them.
"use strict";
{
  const stage = $("stage"), image = stage.querySelector("img"), canvas = stage.querySelector("canvas");
  const NEAR = 6;      // pixels: a shorter drag is a click
  let which = null;    // {file} or {image, name}: the image
  let encoded = null;  // what the server knows it by; null: not yet
  let failed = false;  // or it was refused
  let clicks = [];     // in order: {x, y, on} or {box}, in fractions of the image
  let masks = [], chosen = 0;
  let mode = "on", most = 32;
  let cross = { x: .5, y: .5 }, corner = null;  // the cursor of the keyboard; a box's first corner
  let working = false, changed = false;         // a request is under way; the clicks are newer
  let tries = 0;                                // to send an image again that is not kept

  tabs.segment = {
    title: "Segment",
    heading: "Segment",
    page: "Segment",
    take: (files) => files.length && use({ file: files[0], name: files[0].name }),
    focus: () => (which ? stage : $("segempty")).focus(),
    begin(about) {
      tabs.segment.about = about.model;
      most = about.points;
      offer("segment", "Segment it", (one) => use({ ...one }));
    },
  };

  function note(text, wrong) {
    $("segsaid").textContent = text;
    $("segsaid").classList.toggle("wrong", Boolean(wrong));
    $("segsaid").setAttribute("role", wrong ? "alert" : "status");
  }

  // ---- the image

  async function use(one) {
    which = one;
    encoded = null;
    reset();
    image.src = urlOf(one, 1024);
    image.alt = one.name || "image";
    try {
      await image.decode();
    } catch {
      if (which !== one) return;
      which = null;
      stage.hidden = $("segside").hidden = true;
      $("segempty").hidden = false;
      return note("The browser cannot show this file: use a JPEG, PNG or WebP.", true);
    }
    if (which !== one) return;
    stage.style.setProperty("--aspect", image.naturalWidth / image.naturalHeight);
    stage.hidden = $("segside").hidden = false;
    $("segempty").hidden = true;
    stage.focus({ preventScroll: true });
    await encode(one);
  }
  async function encode(one) {
    note("Reading the image …");
    failed = false;
    try {
      const found = await call("/api/segment/image", formOf(one));
      if (which !== one) return;
      encoded = found;
      note("Click on an object.");
      update();
    } catch (error) {
      if (which !== one) return;
      failed = true;  // the next click tries again
      note(error.message, true);
    }
  }
  $("segempty").onclick = $("segchoose").onclick = () => $("segfile").click();
  $("segfile").onchange = () => {
    tabs.segment.take($("segfile").files);
    $("segfile").value = "";
  };

  // ---- clicks

  const points = () => clicks.filter((click) => !click.box);
  const box = () => clicks.findLast((click) => click.box)?.box || null;
  function add(click) {
    if (!click.box && points().length >= most)
      return note("There are " + most + " points: undo or clear some.", true);
    clicks.push(click);
    update();
  }
  function undo() {
    if (corner) corner = null; else clicks.pop();
    update();
  }
  function reset() {
    clicks = [];
    corner = null;
    masks = [];
    showMasks();
    update();
  }
  // Shows the clicks, and asks for their masks: one request at a time, of the newest clicks.
  async function update() {
    showMarks();
    if (!encoded && failed && clicks.length) encode(which);
    if (!encoded) return;
    if (!box() && !points().some((point) => point.on)) {
      masks = [];
      showMasks();
      note(clicks.length ? "Now click on the object." : "Click on an object.");
      return;
    }
    changed = true;
    if (working) return;
    working = true;
    while (changed && encoded) {
      changed = false;
      const image = encoded, body = { image: image.image, points: points(), box: box() };
      try {
        const found = await post("/api/segment", body);
        tries = 0;
        if (image !== encoded || changed) continue;
        if (clicks.length) masks = found;
        chosen = 0;
        note("");
        showMasks();
      } catch (error) {
        if (image !== encoded) continue;
        if (error.status === 410 && tries++ < 2) {  // the server keeps the latest images only
          encoded = null;
          working = false;
          return encode(which);
        }
        tries = 0;
        note(error.message, true);
      }
    }
    working = false;
  }
  async function post(path, body) {
    const answer = await fetch(path, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
    const content = await answer.json().catch(() => ({ error: "The server's response is not JSON." }));
    if (answer.ok) return content;
    throw Object.assign(new Error(content.error), { status: answer.status });
  }

  // ---- the pointer

  let begun = null;  // where it went down: {x, y} in fractions, and in pixels of the screen
  const place = (event) => {
    const area = stage.getBoundingClientRect(), inside = (v) => Math.min(.9999, Math.max(0, v));
    return {
      x: inside((event.clientX - area.left) / area.width),
      y: inside((event.clientY - area.top) / area.height),
    };
  };
  const far = (event) => Math.hypot(event.clientX - begun.clientX, event.clientY - begun.clientY) > NEAR;
  const boxOf = (a, b) => [Math.min(a.x, b.x), Math.min(a.y, b.y), Math.max(a.x, b.x), Math.max(a.y, b.y)];
  stage.onpointerdown = (event) => {
    begun = { ...place(event), clientX: event.clientX, clientY: event.clientY };
    stage.classList.remove("keys-used");
    if (event.pointerType === "mouse" || mode === "box") stage.setPointerCapture(event.pointerId);
  };
  stage.onpointermove = (event) => {
    if (begun && far(event)) showMarks(boxOf(begun, place(event)));
  };
  stage.onpointerup = (event) => {
    if (!begun) return;
    const start = begun, end = place(event), dragged = far(event);
    begun = null;
    cross = end;
    if (dragged && start.x !== end.x && start.y !== end.y) add({ box: boxOf(start, end) });
    else if (mode === "box") showMarks();
    else add({ ...end, on: (mode === "on") !== (event.button === 2 || event.shiftKey) });
  };
  stage.onpointercancel = () => { begun = null; showMarks(); };
  stage.oncontextmenu = (event) => event.preventDefault();
  stage.ondragstart = (event) => event.preventDefault();
  for (const button of $("modes").children) button.onclick = () => {
    mode = button.dataset.mode;
    stage.dataset.mode = mode;
    for (const other of $("modes").children) other.setAttribute("aria-pressed", other === button);
  };

  // ---- keys

  const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  stage.onkeydown = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const move = MOVES[event.key], key = event.key.toLowerCase();
    if (move) {
      const by = event.shiftKey ? .005 : .03, inside = (v) => Math.min(.9999, Math.max(0, v));
      cross = { x: inside(cross.x + by * move[0]), y: inside(cross.y + by * move[1]) };
    } else if (key === "enter" || key === " ") add({ ...cross, on: mode !== "off" });
    else if (key === "x") add({ ...cross, on: false });
    else if (key === "b") {
      const start = corner;
      corner = start ? null : cross;
      if (start && start.x !== cross.x && start.y !== cross.y) add({ box: boxOf(start, cross) });
    } else return;
    stage.classList.add("keys-used");
    showMarks();
    event.preventDefault();
  };
  addEventListener("keydown", (event) => {
    if (tab !== "segment" || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Backspace") undo();
    else if (event.key === "Escape") reset();
    else if (+event.key >= 1 && +event.key <= masks.length) choose(+event.key - 1);
    else return;
    event.preventDefault();
  });
  $("undo").onclick = undo;
  $("clear").onclick = reset;

  // ---- what is shown

  function showMarks(dragged) {
    const open = dragged || (corner ? boxOf(corner, cross) : null) || box();
    const nodes = points().map((point) => {
      const dot = make("i", point.on ? "+" : "−", point.on ? "dot on" : "dot");
      dot.style.left = 100 * point.x + "%";
      dot.style.top = 100 * point.y + "%";
      return dot;
    });
    if (open) {
      const frame = make("i", undefined, "edge");
      const [x0, y0, x1, y1] = open.map((v) => 100 * v + "%");
      Object.assign(frame.style, { left: x0, top: y0 });
      frame.style.width = "calc(" + x1 + " - " + x0 + ")";
      frame.style.height = "calc(" + y1 + " - " + y0 + ")";
      nodes.push(frame);
    }
    $("marks").replaceChildren(...nodes);
    $("cross").style.left = 100 * cross.x + "%";
    $("cross").style.top = 100 * cross.y + "%";
    $("undo").disabled = !clicks.length && !corner;
    $("clear").disabled = !clicks.length;
  }
  // The pixels of a mask, row by row, from the runs of its columns.
  function pixelsOf({ size: [height, width], counts }) {
    const found = new Uint8Array(height * width);
    let at = 0, value = 0;
    for (const count of counts) {
      if (value) for (let i = at; i < at + count; i++) found[(i % height) * width + Math.floor(i / height)] = 1;
      at += count;
      value = 1 - value;
    }
    return found;
  }
  function paintMask(target, mask, colors) {
    const [height, width] = mask.segmentation.size, inside = pixelsOf(mask.segmentation);
    target.width = width;
    target.height = height;
    const pixels = target.getContext("2d").createImageData(width, height);
    for (let i = 0; i < inside.length; i++) {
      if (!inside[i]) continue;
      const x = i % width, edge = !x || x === width - 1 || !inside[i - 1] || !inside[i + 1]
        || !inside[i - width] || !inside[i + width];
      pixels.data.set(edge ? colors.edge : colors.inside, 4 * i);
    }
    target.getContext("2d").putImageData(pixels, 0, 0);
  }
  function choose(place) {
    chosen = place;
    showMasks();
  }
  function showMasks() {
    canvas.hidden = !masks.length;
    $("cutout").disabled = !masks.length;
    if (masks.length)
      paintMask(canvas, masks[chosen], { inside: [37, 120, 255, 120], edge: [255, 255, 255, 255] });
    $("masklist").replaceChildren(...masks.map((mask, place) => {
      const button = make("button", undefined, "share"), bar = make("i");
      button.type = "button";
      button.setAttribute("aria-pressed", place === chosen);
      bar.style.width = 100 * Math.min(1, Math.max(0, mask.iou)) + "%";
      button.append(bar, make("span", (100 * mask.area).toFixed(1) + " % of the image"),
        make("em", "IoU " + mask.iou.toFixed(2)));
      button.onclick = () => choose(place);
      return button;
    }));
    if (!masks.length) $("masklist").append(make("p", "None yet.", "note"));
  }
  $("cutout").onclick = () => {
    const mask = make("canvas"), whole = make("canvas"), context = whole.getContext("2d");
    paintMask(mask, masks[chosen], { inside: [0, 0, 0, 255], edge: [0, 0, 0, 255] });
    whole.width = image.naturalWidth;
    whole.height = image.naturalHeight;
    context.drawImage(mask, 0, 0, whole.width, whole.height);
    context.globalCompositeOperation = "source-in";
    context.drawImage(image, 0, 0);
    whole.toBlob((blob) => {
      const link = make("a");
      link.href = URL.createObjectURL(blob);
      link.download = short(which.name || "image") + "-cut-out.png";
      link.click();
      URL.revokeObjectURL(link.href);
    });
  };
}
