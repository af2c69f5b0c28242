// Every promise checked, on demand.

import { ROLES, byId, el, number } from "./dom.js";

export function showAudit(audit) {
  const button = byId("start-audit");
  button.disabled = audit.state === "running";
  const told = byId("audit-state");
  if (audit.state === "none") { told.textContent = ""; return; }
  if (audit.state === "running") { told.textContent = `${number(audit.read)} of ${number(audit.of)} events`; return; }
  const clean = audit.problems.length === 0;
  told.textContent = `${clean ? "✓ every promise kept" : `✕ ${audit.problems.length} problems`} in ${number(audit.read)} events, ${audit.seconds.toFixed(1)} s`;
  told.className = clean ? "good" : "bad";
  byId("audit-found").replaceChildren(
    el("div", { class: "scroll" }, el("table", {}, el("thead", {}, el("tr", {}, ["role", "complete groups", "trained", "rejected", "pending"].map((word) => el("th", { scope: "col" }, word)))),
      el("tbody", {}, ROLES.map((role) => {
        const r = audit.roles[role];
        return el("tr", {}, el("th", { scope: "row" }, role), el("td", {}, number(r.complete)), el("td", {}, number(r.trained)),
          el("td", {}, Object.entries(r.rejected).map(([reason, count]) => `${reason} ${count}`).join(", ") || "0"), el("td", {}, number(r.pending)));
      })))),
    ...(clean ? [] : [el("ul", { class: "problems" }, audit.problems.map((problem) => el("li", {}, problem)))]),
  );
}

export function openAudit() {
  byId("start-audit").addEventListener("click", async () => {
    byId("start-audit").disabled = true;
    await fetch("/api/audit", { method: "POST" });
  });
}
