// The page: first the newest pictures, then a line on which the run's state comes, once a second.

import { byId, number } from "./dom.js";
import { showPipeline } from "./pipeline.js";
import { showCurves, watchSize } from "./charts.js";
import { openGallery, showNewest } from "./gallery.js";
import { open, watchKeys } from "./detail.js";
import { openSides, showSides } from "./compare.js";
import { showWorkers } from "./workers.js";
import { openAudit, showAudit } from "./audit.js";

const SECTIONS = ["pipeline", "gallery", "learning", "compare", "workers", "audit"];

function showTop(state) {
  byId("run").textContent = state.run;
  document.title = `${state.run} · mmzero`;
  const behind = state.read < state.end - 2000;
  const goes = state.finished ? `finished (${state.finished})`
    : state.server === "" ? "going on"
      : state.server === null || behind ? "looking" : "not running";
  const status = [goes, `${number(state.end)} events`, behind ? "" : state.schedule].filter(Boolean).join(" · ");
  if (byId("status").textContent !== status) byId("status").textContent = status;
  byId("reading").hidden = !behind;
  if (behind) {
    byId("progress").value = (100 * state.read) / state.end;
    byId("progress-text").textContent = `${number(state.read)} of ${number(state.end)}`;
  }
  const alert = byId("alert");
  const text = state.error || (state.server && !state.finished && state.started && !behind ? state.server : "");
  alert.hidden = !text;
  if (alert.textContent !== text) alert.textContent = text;
}

function show(state) {
  showTop(state);
  showPipeline(state);
  showWorkers(state);
  showAudit(state.audit);
  showNewest(state);
  showCurves(state);
  showSides(state, open).catch(() => {});
}

function listen() {
  const line = new EventSource("/api/events");
  line.addEventListener("state", (event) => show(JSON.parse(event.data)));
  line.addEventListener("error", () => {
    byId("status").textContent = "the dashboard's server does not answer; trying again";
  });
}

function keys(event) {
  if (event.altKey || event.ctrlKey || event.metaKey || byId("detail").open) return;
  if (["INPUT", "SELECT", "TEXTAREA"].includes(document.activeElement?.tagName)) {
    if (event.key === "Escape") document.activeElement.blur();
    return;
  }
  if (event.key === "/") {
    event.preventDefault();
    byId("filters").elements.text.focus();
    return;
  }
  const section = SECTIONS[Number(event.key) - 1];
  if (section) byId(section).scrollIntoView();
}

openGallery(open);
openSides(open);
openAudit();
watchKeys();
watchSize();
document.addEventListener("keydown", keys);
listen();
