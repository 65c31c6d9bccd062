// The tabs: which there are, and which is shown.
"use strict";
let tab = "search";  // the one that is shown
// name -> {title, take(files), focus(), begin(about), about, page}: of a line below the title, and
// the title of the document. Those without a model are deleted at the start.
const tabs = {};

function makeTabs(wanted) {
  const names = ["search", "chat", "segment"].filter((name) => tabs[name]);
  $("tabs").hidden = names.length < 2;
  $("tabs").replaceChildren(...names.map((name) => {
    const button = make("button", tabs[name].title);
    button.type = "button";
    button.id = "tab-" + name;
    button.setAttribute("role", "tab");
    button.onclick = () => { showTab(name); tabs[name].focus(); };
    return button;
  }));
  showTab(tabs[wanted] ? wanted : names[0] || "search");
}
function showTab(name) {
  tab = name;
  document.body.dataset.tab = name;
  for (const part of document.querySelectorAll("main, .keys")) part.hidden = part.dataset.tab !== name;
  $("ask").hidden = name !== "search";
  for (const button of $("tabs").children) {
    button.setAttribute("aria-selected", button.id === "tab-" + name);
    button.tabIndex = button.id === "tab-" + name ? 0 : -1;
  }
  if (!tabs[name]) return;
  $("top").querySelector("h1").firstChild.data = tabs[name].heading || "Image search";
  $("about").textContent = tabs[name].about || "";
  document.title = tabs[name].page || "mmjax";
  const state = new URLSearchParams(location.hash.slice(1));
  if (name === "search") state.delete("tab"); else state.set("tab", name);
  history.replaceState(null, "", "#" + state);
}
$("tabs").onkeydown = (event) => {
  const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!by) return;
  const buttons = [...$("tabs").children], at = buttons.findIndex((b) => b.tabIndex === 0);
  const next = buttons[(at + by + buttons.length) % buttons.length];
  showTab(next.id.slice("tab-".length));
  next.focus();
  event.preventDefault();
  event.stopPropagation();
};
// A button of the panel that takes its image to another tab.
function offer(name, text, use) {
  const button = make("button", text);
  button.type = "button";
  button.onclick = async () => {
    const which = opened;
    if (!which) return;
    close();
    showTab(name);
    use(which);
  };
  $("further").append(button);
}
