// Three columns of pictures from three stretches of the run.

import { ask, byId, el, share } from "./dom.js";
import { picture } from "./card.js";

const EACH = 6;
const ASKED = 48; // drawings of a stretch that are looked at
const first = ["start", "middle", "end"];
let known = [];
let asked = 0;
let complete = false;

// One drawing a proposal, those with answers first.
function chosenOf(cards) {
  const answered = cards.filter((card) => card.questions.hard.agreement !== null);
  const proposals = new Map();
  for (const card of answered.length ? answered : cards) {
    const proposal = card.id.slice(0, card.id.lastIndexOf("."));
    if (!proposals.has(proposal)) proposals.set(proposal, card);
  }
  return [...proposals.values()].slice(0, EACH);
}

function average(cards) {
  const shares = cards.map((card) => card.questions.hard.agreement).filter((value) => value !== null);
  const same = cards.map((card) => card.questions.hard.same).filter((value) => value !== null);
  if (!shares.length) return "no answers";
  const mean = share(shares.reduce((a, b) => a + b, 0) / shares.length);
  return `hard questions of ${shares.length} pictures: agreement ${mean}, the proposer's own answer ${same.filter(Boolean).length} times`;
}

async function show(column, open) {
  const chosen = known.find((one) => one.key === column.select.value);
  if (!chosen) return;
  column.key = chosen.key;
  column.range = `${chosen.after}-${chosen.before}`;
  try {
    const page = await ask(`/api/drawings?${new URLSearchParams({ after: chosen.after, before: chosen.before, limit: ASKED })}`);
    column.list.replaceChildren(...chosenOf(page.cards).map((card) => el("li", {},
      el("button", { type: "button", class: "open", "aria-label": `${card.id}: ${card.caption.slice(0, 120)}`, onclick: () => open(card.id) }, picture(card)),
      el("p", { class: "caption" }, card.caption), el("p", { class: "question" }, card.questions.hard.question),
      el("p", { class: "votes" }, card.questions.hard.votes.slice(0, 2).map(([answer, count]) => `${answer} ×${count}`).join(", ") || "–"))));
    column.told.textContent = page.cards.length ? average(page.cards) : "no pictures here";
  } catch (error) {
    column.told.textContent = error.message;
  }
}

const columns = first.map((key, i) => {
  const select = el("select", { "aria-label": `stretch of column ${i + 1}` });
  return { key, select, list: el("ul", { class: "side" }), told: el("p", { class: "hint" }) };
});

export async function showSides(state, open) {
  // When the run has grown by a fifth, or all of it is known.
  const all = state.read >= state.end;
  if (asked && state.end < asked * 1.2 + 1 && (!all || complete)) return;
  asked = state.end;
  complete = all;
  known = await ask("/api/moments");
  const iterations = known.filter((one) => one.key.startsWith("iteration"));
  for (const [i, column] of columns.entries()) {
    const mine = column.key;
    column.select.replaceChildren(...known.map((one) => el("option", { value: one.key }, one.name)));
    const fallback = iterations.length > 1 ? iterations[[0, Math.floor((iterations.length - 1) / 2), iterations.length - 1][i]].key : first[i];
    column.select.value = column.chosen && known.some((one) => one.key === mine) ? mine : fallback;
    const range = known.find((one) => one.key === column.select.value);
    if (range && column.range !== `${range.after}-${range.before}`) await show(column, open);
  }
}

export function openSides(open) {
  byId("sides").replaceChildren(...columns.map((column) => el("div", {}, column.select, column.told, column.list)));
  for (const column of columns) column.select.addEventListener("change", () => { column.chosen = true; show(column, open); });
}
