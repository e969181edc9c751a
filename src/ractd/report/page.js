"use strict";

const root = document.documentElement;
const figures = JSON.parse(document.getElementById("figures").textContent);

const touched = matchMedia("(pointer: coarse)").matches;

// Plots take their colours from the page, whichever theme it has.
function colors() {
  const style = getComputedStyle(root);
  return { text: style.getPropertyValue("--text").trim(), line: style.getPropertyValue("--line").trim(),
           quiet: style.getPropertyValue("--quiet").trim(), raised: style.getPropertyValue("--raised").trim() };
}

function layoutOf(panel, element) {
  const c = colors();
  const small = element.clientHeight < 300;
  const axis = (own) => ({ ...own, gridcolor: c.line, zeroline: false, linecolor: c.line, automargin: true,
    title: { ...own.title, font: { size: 12 }, standoff: 8 }, nticks: small ? 6 : undefined });
  return {
    xaxis: axis(panel.layout.xaxis), yaxis: axis(panel.layout.yaxis), showlegend: false, hovermode: "closest",
    // A finger scrolls the page; zooming is for a mouse and for a plot's buttons, which the keyboard reaches.
    dragmode: touched ? false : "zoom",
    margin: { l: 48, r: 14, t: small ? 10 : 22, b: panel.layout.xaxis.title?.text ? 40 : 22 },
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: c.text, size: 12, family: getComputedStyle(document.body).fontFamily },
    hoverlabel: { bgcolor: c.raised, bordercolor: c.line, font: { color: c.text } },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: c.quiet, activecolor: c.text },
  };
}

const settings = { responsive: true, displaylogo: false, displayModeBar: touched ? false : "hover",
  modeBarButtons: [["zoomIn2d", "zoomOut2d", "resetScale2d", "toImage"]] };

function panelsOf(figure) {
  const element = document.querySelector(`[data-figure="${CSS.escape(figure.key)}"]`);
  return [...element.querySelectorAll(".plot")].map((plot, index) => [plot, figure.panels[index]]);
}

async function draw(figure) {
  const pairs = panelsOf(figure);
  for (const [plot, panel] of pairs) {
    if (plot.dataset.drawn || !plot.clientWidth) continue;
    await Plotly.newPlot(plot, panel.traces, layoutOf(panel, plot), settings);
    plot.dataset.drawn = "yes";
  }
}

const drawVisible = () => Promise.all(figures.map(draw));

// Legends: a series is shown while none of its tags is switched off.
for (const figure of figures) {
  const element = document.querySelector(`[data-figure="${CSS.escape(figure.key)}"]`);
  const buttons = [...element.querySelectorAll(".legend button")];
  for (const button of buttons) {
    button.addEventListener("click", () => {
      button.setAttribute("aria-pressed", button.getAttribute("aria-pressed") === "true" ? "false" : "true");
      const off = new Set(buttons.filter((b) => b.getAttribute("aria-pressed") === "false").map((b) => b.dataset.tag));
      for (const [plot, panel] of panelsOf(figure)) {
        const visible = panel.tags.map((tags) => !tags.some((tag) => off.has(tag)));
        if (plot.dataset.drawn) Plotly.restyle(plot, { visible });
      }
    });
  }
}

for (const details of document.querySelectorAll("details")) details.addEventListener("toggle", drawVisible);

// Tables: a heading sorts, numbers from the largest; cells without a number stay at the end.
for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => heading.querySelector("button").addEventListener("click", () => {
    const rows = [...table.tBodies[0].rows];
    const keys = new Map(rows.map((row) => [row, row.cells[column].dataset.key]));
    const filled = rows.filter((row) => keys.get(row) !== "");
    const numeric = filled.every((row) => !Number.isNaN(Number(keys.get(row))));
    const before = heading.getAttribute("aria-sort");
    const first = numeric ? "descending" : "ascending", second = numeric ? "ascending" : "descending";
    const order = before === first ? second : first;
    const sign = order === "ascending" ? 1 : -1;
    filled.sort((a, b) => sign * (numeric ? keys.get(a) - keys.get(b) : keys.get(a).localeCompare(keys.get(b))));
    for (const other of headings) other.setAttribute("aria-sort", other === heading ? order : "none");
    table.tBodies[0].append(...filled, ...rows.filter((row) => keys.get(row) === ""));
  }));
}

// Theme: the system's until the button is pressed. Storage may be refused to a file from a mail.
const button = document.getElementById("theme");
const system = matchMedia("(prefers-color-scheme: dark)");
const stored = (read) => { try { return read(localStorage); } catch { return null; } };
const isDark = () => (root.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";

function recolor() {
  button.textContent = isDark() ? "Light" : "Dark";
  button.setAttribute("aria-label", isDark() ? "Use light colours" : "Use dark colours");
  for (const figure of figures) {
    for (const [plot, panel] of panelsOf(figure)) {
      if (plot.dataset.drawn) Plotly.relayout(plot, layoutOf(panel, plot));
    }
  }
}

const remembered = stored((storage) => storage.getItem("ractd-theme"));
if (remembered) root.dataset.theme = remembered;
button.addEventListener("click", () => {
  root.dataset.theme = isDark() ? "light" : "dark";
  stored((storage) => storage.setItem("ractd-theme", root.dataset.theme));
  recolor();
});
system.addEventListener("change", recolor);
recolor();

async function inflate() {
  const bytes = Uint8Array.from(atob(document.getElementById("plotly").textContent.trim()), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.textContent = await new Response(stream).text();
  document.head.append(script);
}

async function start() {
  if (typeof DecompressionStream === "undefined") {
    for (const plot of document.querySelectorAll(".plot")) {
      plot.textContent = "This browser is too old for the plots; they are also PNG files beside the report.";
      plot.className = "waiting";
    }
  } else {
    await inflate();
    await drawVisible();
  }
  root.dataset.ready = "yes";
}

start();
