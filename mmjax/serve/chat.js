// The chat: a conversation about images, answered piece by piece, with the tools that are called.
"use strict";
{
  const RUNNING = "running …";  // in place of a result
  const LARGE = 1.5e6, SIDE = 2048;  // a larger file is reduced to so many pixels before it is sent
  let messages = [];   // {role, text, images}: what was said; images are blobs
  let attached = [];   // images of the next question
  let running = null;  // stops the request that is answered
  const opening = (about) => "Ask about an image, or just ask."
    + (about.tools.length ? " The model may call: " + about.tools.join(", ") + "." : "");

  tabs.chat = {
    title: "Chat",
    heading: "Chat",
    page: "Chat",
    take,
    focus: () => $("question").focus(),
    begin(about) {
      tabs.chat.about = about.model;
      $("opening").textContent = opening(about);
      offer("chat", "Ask about it", async (which) => {
        await attach(which.file || await (await fetch(urlOf(which, 1024))).blob());
        tabs.chat.focus();
      });
    },
  };

  function note(text, wrong) {
    $("chatsaid").textContent = text;
    $("chatsaid").classList.toggle("wrong", Boolean(wrong));
    $("chatsaid").setAttribute("role", wrong ? "alert" : "status");
  }

  // ---- images

  const blobOf = (base64) =>
    new Blob([Uint8Array.from(atob(base64), (c) => c.charCodeAt(0))], { type: "image/png" });
  async function reduced(file) {
    if (file.size < LARGE) return file;
    try {
      const image = await createImageBitmap(file), canvas = make("canvas");
      const scale = Math.min(1, SIDE / Math.max(image.width, image.height));
      canvas.width = Math.max(1, Math.round(scale * image.width));
      canvas.height = Math.max(1, Math.round(scale * image.height));
      canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
      return await new Promise((done) => canvas.toBlob((blob) => done(blob || file), "image/jpeg", .92));
    } catch { return file; }  // a format that the browser does not know: the server may
  }
  function imageOf(blob, alt) {
    const image = make("img");
    image.src = URL.createObjectURL(blob);
    image.alt = alt;
    return image;
  }
  async function attach(file) {
    attached.push(await reduced(file));
    showAttached();
  }
  async function take(files) {
    for (const file of files) await attach(file);
    tabs.chat.focus();
  }
  function showAttached() {
    $("attached").replaceChildren(...attached.map((blob, i) => {
      const chip = make("span", undefined, "chip"), remove = make("button", "✕");
      remove.type = "button";
      remove.setAttribute("aria-label", "Remove the image");
      remove.onclick = () => { attached.splice(i, 1); showAttached(); tabs.chat.focus(); };
      chip.append(imageOf(blob, "image " + (i + 1)), remove);
      return chip;
    }));
  }
  $("attach").onclick = () => $("attachfile").click();
  $("attachfile").onchange = async () => {
    await take([...$("attachfile").files]);
    $("attachfile").value = "";
  };

  // ---- what is shown

  function turn(role) {
    const node = make("div", undefined, "turn " + role);
    $("talk").append(node);
    $("opening").hidden = true;
    return node;
  }
  function follow() {  // unless the reader has scrolled up
    const page = document.scrollingElement;
    if (page.scrollHeight - page.scrollTop - innerHeight < 160) page.scrollTop = page.scrollHeight;
  }
  // One part of an answer: its text, up to a call, which is shown by itself.
  function textOf(raw) { return raw.split("<tool ")[0].trim(); }
  function showCall(node, call) {
    const box = make("div", undefined, "call"), line = make("div");
    line.append("Tool ", make("b", call.name), " ", make("code", call.arguments));
    box.append(line, make("div", RUNNING, "result"));
    node.append(box);
    return box.lastChild;
  }

  // ---- asking

  async function* linesOf(body) {
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    for (let rest = ""; ;) {
      const { done, value } = await reader.read();
      if (done) return;
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const line of lines) yield JSON.parse(line);
    }
  }
  function formOfAll(all) {
    const form = new FormData();
    form.append("messages", JSON.stringify(all.map((one) => ({ ...one, images: one.images.length }))));
    for (const one of all) for (const blob of one.images) form.append("files", blob, "image");
    return form;
  }
  async function ask() {
    const text = $("question").value.trim(), images = attached;
    if (running || !(text || images.length)) return;
    const mine = { role: "user", text, images };
    const question = turn("user"), answer = turn("assistant");
    question.append(...images.map((blob, i) => imageOf(blob, "image " + (i + 1))));
    if (text) question.append(make("p", text));
    $("question").value = "";
    attached = [];
    showAttached();
    busy(new AbortController());
    note("Reading …");
    let raw = "", line = make("p"), result = null, said = null;
    answer.append(line);
    answer.setAttribute("aria-busy", true);
    document.scrollingElement.scrollTop = document.scrollingElement.scrollHeight;
    try {
      const response = await fetch("/api/chat", {
        method: "POST",
        body: formOfAll([...messages, mine]),
        signal: running.signal,
      });
      if (!response.ok) {
        const content = await response.json().catch(() => ({}));
        throw new Error(content.error || "The server returned status " + response.status + ".");
      }
      for await (const event of linesOf(response.body)) {
        if (event.error) throw new Error(event.error);
        if (event.waiting) note("One answer is made at a time: " + event.waiting + " before yours.");
        if (event.text) {
          note("");
          raw += event.text;
          line.textContent = textOf(raw);
        }
        if (event.call) {
          if (!line.textContent) line.remove();
          result = showCall(answer, event.call);
        }
        if (event.result) {
          const { text: words, image } = event.result;
          result.replaceChildren(image ? imageOf(blobOf(image), "the tool's image") : make("span", words));
          raw = "";
          line = make("p");
          answer.append(line);
        }
        if (event.said)
          said = event.said.map((one) => ({ ...one, images: one.images.map(blobOf) }));
        follow();
      }
      if (!said) throw new Error("The connection was lost.");
      note("");
    } catch (error) {
      if (error.name === "AbortError") {
        note("Stopped.");
        if (result && result.textContent === RUNNING) result.textContent = "stopped";
        said = [{ role: "assistant", text: textOf(raw) || "...", images: [] }];
      } else {  // the question is as it was
        question.remove();
        answer.remove();
        $("opening").hidden = $("talk").children.length > 0;
        $("question").value = $("question").value || text;
        attached = [...images, ...attached];
        showAttached();
        note(error.message, true);
      }
    }
    if (said) messages.push(mine, ...said);
    for (const empty of answer.querySelectorAll("p:empty")) empty.remove();
    if (said && !answer.children.length) answer.append(make("p", "(no answer)", "note"));
    answer.removeAttribute("aria-busy");
    busy(null);
  }
  function busy(controller) {
    running = controller;
    $("send").hidden = $("fresh").disabled = Boolean(controller);
    $("stop").hidden = !controller;
  }
  $("composer").onsubmit = (event) => { event.preventDefault(); ask(); };
  $("stop").onclick = () => { running?.abort(); tabs.chat.focus(); };
  $("fresh").onclick = () => {
    messages = [];
    attached = [];
    showAttached();
    $("talk").replaceChildren();
    $("opening").hidden = false;
    note("");
    tabs.chat.focus();
  };
  $("question").onkeydown = (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    ask();
  };
  addEventListener("keydown", (event) => {
    if (tab !== "chat" || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape" && running) $("stop").click();
    else if (event.key === "/" && !event.target.matches("textarea, input")) $("question").focus();
    else return;
    event.preventDefault();
  });
}
