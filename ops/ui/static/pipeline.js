// The stages in the order of the flow, the policies, and what happened lately.

import { ROLES, byId, el, fill, moment, number, span } from "./dom.js";

const NAMES = {
  propose: "Propose", code: "Draw", render: "Render", answer: "Answer",
  "train/proposer": "Train proposer", "train/coder": "Train coder", "train/solver": "Train solver",
};
const SVG = "http://www.w3.org/2000/svg";

// Bars of events over time; the numbers stand beside it, so it is decoration to a screen reader.
function sparkline(bins) {
  const svg = document.createElementNS(SVG, "svg");
  const counts = bins?.counts ?? [];
  svg.setAttribute("viewBox", `0 0 ${Math.max(counts.length, 1)} 20`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("class", "spark");
  svg.setAttribute("aria-hidden", "true");
  const most = Math.max(1, ...counts);
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", counts.map((n, i) => `M${i} 20v${(-20 * n) / most}h1V20z`).join(""));
  svg.append(path);
  return svg;
}

function stage(one, state) {
  const over = Boolean(state.finished);
  const training = one.stage.startsWith("train/");
  const sort = one.stalled ? "bad" : one.a_minute > 0 && !over ? "moving" : "still";
  const word = one.stalled ? "stalled" : over ? "finished" : sort === "moving" ? "moving" : "still";
  const fact = (name, value, title) => el("div", { title }, el("dt", {}, name), el("dd", {}, value));
  return el("li", { class: `stage ${sort}`, "data-stage": one.stage },
    el("h3", {}, NAMES[one.stage] ?? one.stage, el("span", { class: `badge ${sort}` }, word)),
    el("dl", {},
      fact(over ? "a minute" : "last minute", number(over ? one.mean_a_minute : one.a_minute, 1), "events a minute"),
      fact("in all", number(one.total)),
      fact(training ? "groups due" : "due", number(one.due), "pieces of work that the log calls for"),
      training ? null : fact("in hand", number(one.held)),
      fact("behind", one.behind === null || one.behind === undefined ? "–" : number(one.behind, 1),
        "versions behind the newest, mean of the newest events"),
      over ? null : fact("still for", span(one.still_seconds)),
    ),
    sparkline(one.bins),
    over || !one.waits_for ? null : el("p", { class: "waits", title: one.waits_for }, `waits for ${one.waits_for}`),
  );
}

const listed = (counts) => Object.entries(counts ?? {}).map(([name, count]) => `${name} ${number(count)}`).join(", ");

function outcomes(counts) {
  const { "": drawn, ...failed } = counts.renders ?? {};
  const parts = [`${number(drawn ?? 0)} pictures`, listed(failed) && `not rendered: ${listed(failed)}`, listed(counts.shortcuts) && `shortcuts found: ${listed(counts.shortcuts)}`];
  return parts.filter(Boolean).join("; ");
}

export function showPipeline(state) {
  byId("stages").replaceChildren(...state.stages.map((one) => stage(one, state)));
  const rows = ROLES.filter((role) => state.roles[role]).map((role) => {
    const r = state.roles[role];
    return [el("th", { scope: "row" }, el("span", { class: `swatch ${role}` }), role), number(r.step), `v${r.version}`,
      r.served === null ? "–" : `v${r.served}`, number(r.ready), number(r.trained), number(r.rejected)];
  });
  fill(byId("roles"), ["", "steps", "trained to", "served", "groups ready", "trained on", "rejected"], rows);
  byId("outcomes").textContent = outcomes(state.counts);
  const notes = [...state.notes].reverse().slice(0, 12);
  byId("notes").replaceChildren(...notes.map((note) => el("li", { class: note.sort },
    el("time", {}, moment(note.seconds)), " ", note.text)));
}
