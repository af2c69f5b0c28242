// One drawing as a card: its picture (always the rendered PNG), what was asked, what became of it.

import { el, range, share } from "./dom.js";

export function picture(card, size = "", loading = "lazy") {
  if (!card.picture) return el("div", { class: `picture none ${size}` }, card.failure ? `no picture: ${card.failure}` : "not rendered yet");
  const img = el("img", { src: `/api/pictures/${encodeURIComponent(card.picture)}.png`, alt: card.caption ? `drawing of: ${card.caption.slice(0, 200)}` : card.id,
    loading, decoding: "async", width: card.width || 96, height: card.height || 96 });
  const frame = el("div", { class: `picture ${size}` }, img);
  img.addEventListener("error", () => frame.replaceChildren(el("span", { class: "gone" }, "this picture is not in the log any more")));
  return frame;
}

const FATES = { trained: ["✓", "good"], rejected: ["✕", "bad"], waiting: ["…", "plain"] };

export function fate(role, group) {
  const [mark, sort] = FATES[group.state];
  const text = group.state === "trained" ? `step ${group.step}` : group.state === "rejected" ? `rejected, ${group.reason.split(":")[0]}` : "waiting";
  return el("li", { class: `fate ${sort}` }, el("span", { "aria-hidden": "true" }, mark), ` ${role}: ${text}`);
}

export function votes(question) {
  if (question.agreement === null) return el("p", { class: "votes" }, "not answered yet");
  const silver = question.votes.slice(0, 3).map(([answer, count]) => `${answer} ×${count}`).join(", ");
  return el("p", { class: "votes" }, el("meter", { min: 0, max: 1, value: question.agreement, title: `agreement ${share(question.agreement)}` }),
    ` ${silver || "no answer"}`, question.same === null ? null : el("span", { class: question.same ? "same" : "other" },
      question.same ? " = proposer's" : ` ≠ ${question.proposer_answer}`));
}

export function makeCard(card, open, loading = "lazy") {
  const { easy, hard } = card.questions;
  const versions = Object.entries(card.versions).map(([role, span]) => `${role} ${range(span)}`).join(" · ");
  return el("li", { class: "card", "data-id": card.id },
    el("button", { type: "button", class: "open", "aria-label": `${card.id}: ${card.caption.slice(0, 120)}`, onclick: () => open(card.id) },
      picture(card, "", loading), el("span", { class: "id" }, card.id, card.content_type ? el("span", { class: "type" }, card.content_type) : null)),
    el("p", { class: "caption" }, card.caption),
    el("p", { class: "question" }, el("b", {}, "easy "), easy.question), votes(easy),
    el("p", { class: "question" }, el("b", {}, "hard "), hard.question), votes(hard),
    el("ul", { class: "fates" }, Object.entries(card.groups).map(([role, group]) => fate(role, group))),
    card.findings.length ? el("p", { class: "findings" }, `⚠ ${card.findings.map((f) => f.detector).join(", ")}`) : null,
    el("p", { class: "versions" }, versions),
  );
}
