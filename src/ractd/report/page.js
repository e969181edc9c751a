"use strict";

const root = document.documentElement;

// Tables: a heading sorts, numbers from the largest; cells without a number stay at the end.
for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => heading.querySelector("button").addEventListener("click", () => {
    const rows = [...table.tBodies[0].rows];
    const text = (row) => row.cells[column].textContent;
    const value = (row) => Number.parseFloat(text(row).replaceAll(",", ""));
    const filled = rows.filter((row) => text(row) !== "–");
    const numeric = column > 0 && filled.every((row) => !Number.isNaN(value(row)));
    const before = heading.getAttribute("aria-sort");
    const first = numeric ? "descending" : "ascending", second = numeric ? "ascending" : "descending";
    const order = before === first ? second : first;
    const sign = order === "ascending" ? 1 : -1;
    filled.sort((a, b) => sign * (numeric ? value(a) - value(b) : text(a).localeCompare(text(b))));
    for (const other of headings) other.setAttribute("aria-sort", other === heading ? order : "none");
    table.tBodies[0].append(...filled, ...rows.filter((row) => text(row) === "–"));
  }));
}

// Several runs: a button shows and hides its run in all plots.
document.querySelectorAll("#shown button").forEach((button, run) => button.addEventListener("click", () => {
  const hidden = button.getAttribute("aria-pressed") === "true";
  button.setAttribute("aria-pressed", String(!hidden));
  for (const mark of document.querySelectorAll(`[id*="-run${run}-"]`)) mark.style.display = hidden ? "none" : "";
}));

// Theme: the system's until the button is pressed. Storage may be refused to a file from a mail.
const button = document.getElementById("theme");
const system = matchMedia("(prefers-color-scheme: dark)");
const stored = (read) => { try { return read(localStorage); } catch { return null; } };
const isDark = () => (root.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";

function name() {
  button.textContent = isDark() ? "Light" : "Dark";
  button.setAttribute("aria-label", isDark() ? "Use light colours" : "Use dark colours");
}

const remembered = stored((storage) => storage.getItem("ractd-theme"));
if (remembered) root.dataset.theme = remembered;
button.addEventListener("click", () => {
  root.dataset.theme = isDark() ? "light" : "dark";
  stored((storage) => storage.setItem("ractd-theme", root.dataset.theme));
  name();
});
system.addEventListener("change", name);
name();
