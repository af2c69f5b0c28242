// Learning curves: one chart a question that people ask of a run, a line a role or a figure.

import uPlot from "./vendor/uPlot.esm.js";
import { ROLES, ask, byId, el, number } from "./dom.js";

const DASHES = { proposer: [], coder: [8, 4], solver: [2, 4] };
const MORE_DASHES = [[], [8, 4], [2, 4], [10, 3, 2, 3], [1, 2], [14, 4], [6, 2, 2, 2], [4, 4]];
const roles = (name, only = ROLES) => only.map((role) => ({ role, name, label: role }));
const figures = (role, pairs) => pairs.map(([name, label]) => ({ role, name, label }));

const CHARTS = [
  { title: "Reward", hint: "mean of the groups of a step", lines: roles("reward") },
  { title: "Easy accuracy, hard consistency", unit: "share",
    hint: "easy: answers that match the proposer's, of groups trained on; hard: answers that agree with the silver one, of all questions answered; held-out: right answers, greedy",
    lines: figures("solver", [["fact:solvability", "easy accuracy"], ["hard_consistency", "hard consistency"]]), score: "hard" },
  { title: "Render success", hint: "share of drawings that became pictures", unit: "share",
    lines: figures("coder", [["render_success", "all drawings"], ["fact:render_rate", "groups trained on"]]) },
  { title: "Consistency of groups trained on", hint: "share of a question's most frequent answer, which the filter bounds", unit: "share",
    lines: figures("solver", [["fact:easy_consistency", "easy"], ["fact:hard_consistency", "hard"]]) },
  { title: "Diversity", hint: "how unlike the drawings of a group are", unit: "share",
    lines: [...figures("proposer", [["fact:structure_spread", "within a prompt"]]),
      ...figures("coder", [["fact:structure_spread", "within a proposal"]])] },
  { title: "Entropy", hint: "of the policy, nats a token", lines: roles("entropy") },
  { title: "Effective sample size", hint: "share of the batch that the importance weights leave", unit: "share", lines: roles("ess_share") },
  { title: "Staleness", hint: "versions behind, mean of the groups trained on", lines: roles("staleness_mean") },
  { title: "Held-out score", hint: "built-in scenes, greedy, 95 % interval in the table", heldout: true, unit: "share" },
  { title: "Proposer's reward by term", terms: "proposer" },
  { title: "Coder's reward by term", terms: "coder" },
  { title: "Solver's reward by term", terms: "solver" },
];

let revision = -1;
let loading = false;
let drawn = [];
let latest = null;

export async function showCurves(state) {
  if (loading || state.revision === revision) return;
  loading = true;
  try {
    const curves = await ask("/api/curves");
    revision = curves.revision;
    latest = curves;
    draw(curves);
  } catch {
    // The next state asks again.
  } finally {
    loading = false;
  }
}

function colours() {
  const style = getComputedStyle(document.documentElement);
  const of = (name) => style.getPropertyValue(name).trim();
  return { proposer: of("--proposer"), coder: of("--coder"), solver: of("--solver"), ink: of("--ink"), grid: of("--grid"),
    more: ["--c0", "--c1", "--c2", "--c3", "--c4", "--c5", "--c6", "--c7"].map(of) };
}

function heldout(curves, sorts = ["easy", "hard"]) {
  const lines = new Map();
  for (const one of curves.heldout) {
    if (one.mode !== "greedy") continue;
    for (const sort of sorts) {
      const key = `${one.role} ${sort}`;
      if (!lines.has(key)) lines.set(key, { label: key, role: one.role, x: [], y: [], low: [], high: [] });
      const line = lines.get(key);
      line.x.push(one.version);
      line.y.push(one[sort].share);
      line.low.push(one[sort].low);
      line.high.push(one[sort].high);
    }
  }
  return [...lines.values()];
}

function linesOf(chart, curves) {
  if (chart.heldout) return heldout(curves);
  const wanted = chart.terms
    ? Object.keys(curves.roles[chart.terms].columns).filter((name) => name.startsWith("term:"))
      .map((name) => ({ role: chart.terms, name, label: name.slice(5).replaceAll("_", " ") }))
    : chart.lines;
  // A step makes the version of its number: a score of a version stands at its step.
  const scores = chart.score ? heldout(curves, [chart.score]).map((line) => ({ ...line, label: `held-out ${chart.score}` })) : [];
  return wanted
    .map((line) => ({ ...line, x: curves.roles[line.role].columns.step, y: curves.roles[line.role].columns[line.name] }))
    .concat(scores)
    .filter((line) => line.y?.some((value) => value !== null));
}

// One x for all lines: the union of theirs.
function aligned(lines) {
  const xs = [...new Set(lines.flatMap((line) => line.x))].sort((a, b) => a - b);
  const place = new Map(xs.map((x, i) => [x, i]));
  return [xs, ...lines.map((line) => {
    const column = new Array(xs.length).fill(undefined);
    line.x.forEach((x, i) => { if (line.y[i] !== null) column[place.get(x)] = line.y[i]; });
    return column;
  })];
}

function draw(curves) {
  const palette = colours();
  const host = byId("charts");
  for (const old of drawn) old.destroy();
  drawn = [];
  host.replaceChildren();
  for (const chart of CHARTS) {
    const lines = linesOf(chart, curves);
    const figure = el("figure", { class: "chart" }, el("figcaption", {}, chart.title,
      chart.hint ? el("span", { class: "hint" }, chart.hint) : null));
    host.append(figure);
    if (!lines.length) {
      figure.append(el("p", { class: "empty" }, "nothing yet"));
      continue;
    }
    const byRole = new Set(lines.map((line) => line.role)).size === lines.length;
    const style = (line, i) => ({ colour: byRole ? palette[line.role] : palette.more[i % 8],
      dash: byRole ? DASHES[line.role] : MORE_DASHES[i % 8] });
    const plot = el("div", { class: "plot", role: "img", "aria-label": told(chart, lines) });
    figure.append(plot);
    const data = aligned(lines);
    drawn.push(new uPlot(options(chart, lines, data, style, palette, plot.clientWidth), data, plot));
    figure.append(legend(lines, style), table(chart, lines));
  }
}

function options(chart, lines, data, style, palette, width) {
  const axis = { stroke: palette.ink, grid: { stroke: palette.grid, width: 1 }, ticks: { stroke: palette.grid, width: 1 } };
  const few = data[0].length < 25;
  return {
    width: Math.max(200, width), height: 190, legend: { show: false },
    cursor: { drag: { x: false, y: false } },
    scales: { x: { time: false }, y: chart.unit === "share" ? { range: [0, 1] } : {} },
    axes: [{ ...axis, label: chart.heldout ? "version" : "step", labelSize: 16, size: 34, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 50000, 100000] }, { ...axis, size: 46 }],
    series: [{}, ...lines.map((line, i) => {
      const { colour, dash } = style(line, i);
      return { label: line.label, stroke: colour, width: 2, dash, spanGaps: true, points: { show: few, size: 5, fill: colour } };
    })],
  };
}

const last = (line) => line.y.findLast((value) => value !== null && value !== undefined);

function told(chart, lines) {
  return `${chart.title}: ${lines.map((line) => `${line.label} ${number(last(line))}`).join(", ")}`;
}

function legend(lines, style) {
  return el("ul", { class: "legend small" }, lines.map((line, i) => {
    const { colour, dash } = style(line, i);
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("viewBox", "0 0 24 6");
    svg.setAttribute("class", "dash");
    svg.setAttribute("aria-hidden", "true");
    const stroke = document.createElementNS("http://www.w3.org/2000/svg", "path");
    for (const [name, value] of Object.entries({ d: "M0 3H24", stroke: colour, "stroke-width": 2.5, "stroke-dasharray": dash.join(" ") })) stroke.setAttribute(name, value);
    svg.append(stroke);
    return el("li", {}, svg, `${line.label} ${number(last(line))}`);
  }));
}

function table(chart, lines) {
  const rows = lines.map((line) => {
    const values = line.y.filter((value) => value !== null && value !== undefined);
    const interval = line.low ? ` [${number(line.low.at(-1))}, ${number(line.high.at(-1))}]` : "";
    return el("tr", {}, el("th", { scope: "row" }, line.label), el("td", {}, number(values[0])), el("td", {}, number(Math.min(...values))),
      el("td", {}, number(Math.max(...values))), el("td", {}, number(values.at(-1)) + interval));
  });
  return el("details", {}, el("summary", {}, "as a table"),
    el("table", {}, el("thead", {}, el("tr", {}, ["", "first", "least", "most", "last"].map((word) => el("th", { scope: "col" }, word)))),
      el("tbody", {}, rows)));
}

// Drawn anew where width or colours change.
export function watchSize() {
  const again = () => { if (latest) draw(latest); };
  let width = window.innerWidth;
  window.addEventListener("resize", () => { if (window.innerWidth !== width) { width = window.innerWidth; again(); } });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
}
