// All that is known of one drawing: texts, answers with their reasoning, rewards, which step.

import { ROLES, ask, byId, el, moment, number, range, share } from "./dom.js";
import { fate, picture } from "./card.js";
import { ids } from "./gallery.js";

let current = "";

export async function open(id) {
  current = id;
  const dialog = byId("detail");
  dialog.replaceChildren(el("p", { class: "hint" }, `reading ${id}`));
  if (!dialog.open) dialog.showModal();
  try {
    const found = await ask(`/api/drawings/${encodeURIComponent(id)}`);
    if (current !== id) return;
    dialog.replaceChildren(...content(found));
    dialog.querySelector("h2").focus();
    history.replaceState(null, "", `#${id}`);
  } catch (error) {
    if (current === id) dialog.replaceChildren(top(id), el("p", { class: "alert" }, error.message));
  }
}

function top(id) {
  const list = ids();
  const at = list.indexOf(id);
  const go = (name, other, words) => el("button", { type: "button", disabled: other === undefined, "aria-label": words, onclick: () => open(other) }, name);
  return el("div", { class: "bar" }, go("←", at < 0 ? undefined : list[at - 1], "previous picture"), el("h2", { id: "detail-title", tabindex: -1 }, id),
    go("→", at < 0 ? undefined : list[at + 1], "next picture"),
    el("button", { type: "button", class: "close", onclick: () => byId("detail").close() }, "Close"));
}

function content(d) {
  const proposal = d.id.split(".").slice(0, 2).join(".");
  return [
    top(d.id),
    el("div", { class: "two" },
      el("div", {}, picture(d, "large"), el("ul", { class: "fates" }, ROLES.map((role) => fate(role, d.groups[role]))),
        d.findings.map((f) => el("p", { class: "findings" }, `⚠ ${f.detector}: ${f.detail}`))),
      el("div", {},
        el("h3", {}, "Proposal"), el("p", { class: "caption" }, d.caption || "not parsed"),
        facts([["content", d.content_type], ["topic", d.topic], ["rendered by", d.renderer], ["logged", moment(d.seconds)],
          ["mended", d.mended.join(", ")], ["failed", d.failure && `${d.failure} ${d.detail}`]]),
        el("h3", {}, "Made by"), makers(d)),
    ),
    ...["easy", "hard"].flatMap((sort) => question(d, sort)),
    el("h3", {}, "Rewards"), rewards(d),
    d.probes.length ? el("h3", {}, "Asked without the picture") : null,
    ...d.probes.map((p) => el("p", {}, `${p.question}, ${p.without === "none" ? "no picture" : "another picture"}: ${p.answers.map((a) => a ?? "–").join(", ")}; ${p.agreed} agree with ${p.silver ?? "–"} (${share(p.sighted)} with the picture)`)),
    text("Drawing as written (shown as text)", d.code),
    text("Coder's whole text", d.code_text),
    text("Proposer's whole text", d.proposer_text),
    el("h3", {}, "Siblings"),
    el("p", { class: "siblings" }, d.siblings.map((id) => el("button", { type: "button", class: id.startsWith(`${proposal}.`) ? "near" : "", onclick: () => open(id) }, id))),
    el("p", { class: "hint" }, `offsets: ${Object.entries(d.offsets).map(([id, offset]) => `${id} at ${offset}`).join(", ")}; mmzero trace RUN ${d.id}`),
    ...Object.entries(d.abandoned).map(([work, reason]) => el("p", { class: "findings" }, `given up: ${work}: ${reason}`)),
  ].filter(Boolean);
}

const facts = (pairs) => el("dl", { class: "facts" }, pairs.filter(([, value]) => value).map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));

function makers(d) {
  const rows = Object.entries(d.generations).filter(([, g]) => g).map(([name, g]) => el("tr", {}, el("th", { scope: "row" }, name), el("td", {}, g.policy), el("td", {}, range(g.versions)),
    el("td", {}, `t ${number(g.temperature, 1)}`), el("td", {}, `${number(g.seconds)} s`)));
  return el("div", { class: "scroll" }, el("table", {}, el("tbody", {}, rows)));
}

function question(d, sort) {
  const q = d.questions[sort];
  const answers = d.answers[sort];
  return [
    el("h3", {}, `${sort === "easy" ? "Easy" : "Hard"} question`),
    el("p", { class: "question" }, q.question || "none"),
    el("p", {}, `proposer's answer: ${q.proposer_answer || "–"}; most said: ${q.silver ?? "–"}`, q.agreement === null ? "" : `; agreement ${share(q.agreement)}`,
      q.same === null ? "" : q.same ? "; the same" : "; not the same"),
    answers.length ? el("ol", { class: "answers" }, answers.map((a) => el("li", { class: a.agrees ? "agrees" : "differs" },
      el("p", {}, el("b", {}, a.answer ?? "no answer"), ` ${a.agrees ? "✓ with the majority" : "✕ not the majority"}`, a.format_ok ? "" : ", format not kept",
        `, v${a.versions.join("–")}`, a.reward === undefined ? "" : `, reward ${number(a.reward)}, advantage ${number(a.advantage)}`, a.finish === "stop" ? "" : `, ended by ${a.finish}`),
      el("pre", {}, a.text)))) : el("p", { class: "empty" }, "not answered yet"),
  ];
}

function rewards(d) {
  const found = ROLES.filter((role) => d.rewards[role]);
  if (!found.length) return el("p", { class: "empty" }, "none of its groups was trained on");
  return el("div", { class: "scroll" }, el("table", {}, el("thead", {}, el("tr", {}, ["group", "step", "rewards of its samples", "terms", "facts"].map((word) => el("th", { scope: "col" }, word)))),
    el("tbody", {}, found.map((role) => {
      const r = d.rewards[role];
      const version = d.groups[role].version;
      return el("tr", {}, el("th", { scope: "row" }, `${role} ${r.group}`), el("td", {}, version ? `${r.step} → v${version}` : `${r.step}`), el("td", {}, r.rewards.map((value) => number(value)).join(", ")),
        el("td", {}, terms(r.terms)), el("td", {}, Object.entries(r.facts ?? {}).map(([name, value]) => `${name} ${number(value)}`).join(", ")));
    }))));
}

// Mean of each term over the group.
function terms(list) {
  const sums = {};
  for (const term of list) for (const [name, value] of Object.entries(term)) sums[name] = (sums[name] ?? 0) + value / list.length;
  return Object.entries(sums).map(([name, value]) => `${name} ${number(value)}`).join(", ");
}

const text = (title, content) => (content ? el("details", {}, el("summary", {}, title), el("pre", {}, content)) : null);

export function watchKeys() {
  const dialog = byId("detail");
  dialog.addEventListener("keydown", (event) => {
    if (event.target instanceof HTMLInputElement || event.altKey || event.ctrlKey || event.metaKey) return;
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    const list = ids();
    const at = list.indexOf(current);
    if (at >= 0 && list[at + step]) open(list[at + step]);
  });
  dialog.addEventListener("close", () => {
    const card = [...byId("cards").children].find((one) => one.dataset.id === current);
    card?.querySelector("button")?.focus();
    current = "";
    history.replaceState(null, "", location.pathname);
  });
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  if (/^#g\d+\.s\d+\.d\d+$/.test(location.hash)) open(location.hash.slice(1));
}
