// Who works on the run. State is said by shape and word as well as by colour.

import { byId, el, fill, moment, number } from "./dom.js";

const MARKS = { here: "●", silent: "▲", lost: "✕", left: "○", unknown: "?" };

export function showWorkers(state) {
  const bad = state.workers.filter((worker) => worker.bad);
  const here = state.workers.filter((worker) => worker.state === "here").length;
  const words = bad.length ? `${bad.map((worker) => worker.worker).join(", ")}: look here` : `${here} here, nobody is missed`;
  const told = byId("attendance");
  const text = state.finished ? "the run is finished" : words;
  if (told.textContent !== text) told.textContent = text;
  told.className = bad.length ? "bad" : "";
  fill(byId("hands"), ["worker", "state", "", "role", "host", "in hand", "free hands", "failures", "since", "last error"], state.workers.map((w) => ({
    attributes: { class: w.bad ? "bad" : "", "data-worker": w.worker, "data-state": w.state },
    cells: [el("th", { scope: "row" }, w.worker), el("td", {}, el("span", { class: `badge ${w.bad ? "bad" : w.state === "here" ? "moving" : "still"}` }, `${MARKS[w.state]} ${w.state}`)), w.told,
      w.role, w.host ? `${w.host}:${w.pid}` : "–", number(w.leases), number(w.free), number(w.failures), moment(w.since), w.last_error || "–"],
  })));
}
