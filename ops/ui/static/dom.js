// Elements from data. Text is set as text: nothing that a model wrote is ever read as markup.

export function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "class") made.className = value;
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : String(value));
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== ""));
  return made;
}

export const byId = (id) => document.getElementById(id);

// A table from head words and rows of cells; a cell is text or an element.
export function fill(table, head, rows) {
  const cells = (row) => row.map((cell) => (cell instanceof HTMLTableCellElement ? cell : el("td", {}, cell)));
  table.replaceChildren(
    el("thead", {}, el("tr", {}, head.map((word) => el("th", { scope: "col" }, word)))),
    el("tbody", {}, rows.map((row) => el("tr", row.attributes ?? {}, cells(row.cells ?? row)))),
  );
}

export const ROLES = ["proposer", "coder", "solver"];

export function number(value, digits = 2) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (Number.isInteger(value)) return value.toLocaleString("en");
  return Math.abs(value) >= 1000 ? Math.round(value).toLocaleString("en") : value.toFixed(digits);
}

export const share = (value) => (value === null || value === undefined ? "–" : `${Math.round(value * 100)} %`);

export function span(seconds) {
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  return seconds < 7200 ? `${(seconds / 60).toFixed(1)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

export function moment(seconds) {
  if (!seconds) return "–";
  return new Date(seconds * 1000).toLocaleString("sv").replace("T", " ");
}

export const range = ([low, high]) => (low === high ? `v${low}` : `v${low}–${high}`);

export async function ask(path, options = {}) {
  const answer = await fetch(path, options);
  if (!answer.ok) throw new Error((await answer.text()).trim() || `${answer.status}`);
  return answer.json();
}
