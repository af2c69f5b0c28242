// The gallery: a page of cards at a time, from where the log server's index says, newest first.

import { ask, byId, el } from "./dom.js";
import { makeCard } from "./card.js";

const PAGE = 24;
const EAGER = 6; // pictures that are asked for wherever they stand
const MOST = 240; // cards that are kept on the page
const REFRESH = 3000; // ms between two looks at cards that wait for something
const ROUNDS = 40; // requests that one search may take

let shown = []; // cards, in order
let next = null; // where older ones are
let newest = -1; // offset up to which new ones are on the page
let known = -1; // newest picture that the run has
let turn = 0; // of the newest search
let adding = false;
let refreshing = false;
let refreshed = 0; // when
let opener = () => {};

export const ids = () => shown.map((card) => card.id);

function query(more = {}) {
  const form = new FormData(byId("filters"));
  const found = new URLSearchParams();
  for (const name of ["text", "state", "type", "finding", "role", "version", "agreement"]) {
    if (form.get(name)) found.set(name, form.get(name));
  }
  for (const [name, value] of Object.entries(more)) found.set(name, value);
  return found;
}

const field = (name) => byId("filters").elements[name];
const informative = () => field("order").value === "informative";

// Cards until there are `wanted`, or all was looked at.
async function search(mine, wanted, range, tell = say) {
  const found = [];
  let { before, after } = range;
  for (let round = 0; round < ROUNDS && found.length < wanted; round += 1) {
    const more = { limit: wanted - found.length };
    if (before !== undefined && before !== null) more[informative() ? "first" : "before"] = before;
    if (after !== undefined) more.after = after;
    const page = await ask(`/api/${informative() ? "informative" : "drawings"}?${query(more)}`);
    if (mine !== turn) return null;
    found.push(...page.cards);
    before = page.next;
    if (before === null) break;
    if (found.length < wanted) tell(`searching, ${found.length} found`);
  }
  return { cards: found, next: before ?? null };
}

const say = (text) => { byId("found").textContent = text; };

function told() {
  if (!shown.length) return say("nothing found");
  say(`${shown.length} shown${next === null || next === undefined ? ", that is all" : ""}`);
}

export async function begin() {
  const mine = (turn += 1);
  say("searching");
  try {
    const started = known;
    const found = await search(mine, PAGE, {});
    if (found === null) return;
    shown = found.cards;
    next = found.next;
    newest = Math.max(started, ...shown.map((card) => card.offset), -1);
    byId("cards").replaceChildren(...shown.map((card, i) => makeCard(card, opener, i < EAGER ? "eager" : "lazy")));
    byId("more").hidden = next === null;
    kinds();
    told();
  } catch (error) {
    if (mine === turn) say(`not found: ${error.message}`);
  }
}

async function older() {
  const mine = turn;
  const button = byId("more");
  button.disabled = true;
  try {
    const found = await search(mine, PAGE, { before: next });
    if (found === null) return;
    const first = shown.length;
    shown = [...shown, ...found.cards];
    next = shown.length >= MOST ? null : found.next;
    byId("cards").append(...found.cards.map((card) => makeCard(card, opener)));
    button.hidden = next === null;
    kinds();
    told();
    byId("cards").children[first]?.querySelector("button")?.focus();
  } catch (error) {
    say(`not found: ${error.message}`);
  } finally {
    button.disabled = false;
  }
}

// What came since, put before the rest; nothing moves under somebody who reads further down.
export async function showNewest(state) {
  // While history is read, the newest picture that it knows is an old one.
  known = state.read < state.end - 2000 && !state.finished ? state.end - 1 : state.newest_picture;
  if (field("live").checked && !state.finished) refresh();
  const form = byId("filters");
  if (adding || !field("live").checked || informative() || known <= newest || !shown.length && turn === 0) return;
  if (byId("cards").contains(document.activeElement) || form.contains(document.activeElement) && document.activeElement.name === "text") return;
  adding = true;
  const mine = turn;
  const upto = known;
  try {
    const found = await search(mine, PAGE, { after: newest + 1, before: upto + 1 }, () => {});
    if (found === null) return;
    newest = upto;
    const have = new Set(ids());
    const fresh = found.cards.filter((card) => !have.has(card.id));
    if (!fresh.length) return;
    shown = [...fresh, ...shown].slice(0, MOST);
    const list = byId("cards");
    list.prepend(...fresh.map((card) => makeCard(card, opener)));
    while (list.children.length > MOST) list.lastElementChild.remove();
    kinds();
    told();
  } catch {
    // The next state tries again.
  } finally {
    adding = false;
  }
}

// Cards whose answers or training were still to come, as they are now.
async function refresh() {
  const open = shown.filter((card) => card.groups.solver.state === "waiting").slice(0, PAGE);
  if (refreshing || !open.length || Date.now() - refreshed < REFRESH) return;
  refreshing = true;
  try {
    const page = await ask(`/api/drawings?${new URLSearchParams({ ids: open.map((card) => card.id).join(",") })}`);
    for (const card of page.cards) {
      const at = shown.findIndex((one) => one.id === card.id);
      if (at < 0 || JSON.stringify(shown[at]) === JSON.stringify(card)) continue;
      const old = [...byId("cards").children].find((one) => one.dataset.id === card.id);
      if (!old || old.contains(document.activeElement)) continue;
      shown[at] = card;
      old.replaceWith(makeCard(card, opener));
    }
  } catch {
    // The next state tries again.
  } finally {
    refreshing = false;
    refreshed = Date.now();
  }
}

// Choices by what was seen so far.
const seen = { type: new Set(), finding: new Set() };

function kinds() {
  for (const card of shown) {
    if (card.content_type) seen.type.add(card.content_type);
    for (const found of card.findings) seen.finding.add(found.detector);
  }
  for (const [name, words] of Object.entries(seen)) {
    const select = field(name);
    const there = new Set([...select.options].map((option) => option.value));
    for (const word of [...words].sort()) if (!there.has(word)) select.append(el("option", { value: word }, word));
  }
}

export function openGallery(open) {
  opener = open;
  const form = byId("filters");
  let waiting;
  const soon = () => { clearTimeout(waiting); waiting = setTimeout(begin, 250); };
  form.addEventListener("input", (event) => { if (event.target.name !== "live") soon(); });
  form.addEventListener("submit", (event) => { event.preventDefault(); begin(); });
  form.addEventListener("reset", () => setTimeout(begin));
  byId("more").addEventListener("click", older);
  begin();
}
