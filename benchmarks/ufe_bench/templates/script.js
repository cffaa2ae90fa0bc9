"use strict";
// A column is sorted by its cells' data-v; cells without one stay last either way. Unranked rows keep their own body.
function compare(a, b, sign) {
  const x = a.dataset.v || "", y = b.dataset.v || "";
  if (!x || !y) return (x ? 0 : 1) - (y ? 0 : 1);
  const numeric = !isNaN(x) && !isNaN(y);
  return sign * (numeric ? x - y : x.localeCompare(y));
}
function sortBy(head) {
  const descending = head.getAttribute("aria-sort") === "ascending";
  for (const other of head.parentNode.children) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", descending ? "descending" : "ascending");
  const body = head.closest("table").tBodies[0];
  const rows = Array.from(body.rows);
  rows.sort((a, b) => compare(a.cells[head.cellIndex], b.cells[head.cellIndex], descending ? -1 : 1));
  body.append(...rows);
}
for (const button of document.querySelectorAll(".sortable thead button"))
  button.addEventListener("click", () => sortBy(button.closest("th")));
// A row is shown where its name holds every word that is typed.
for (const tools of document.querySelectorAll(".tools")) {
  const rows = Array.from(document.getElementById(tools.dataset.for).querySelectorAll("tbody tr"));
  const input = tools.querySelector("input"), count = tools.querySelector(".count");
  tools.hidden = rows.length < 4;
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/);
    for (const row of rows) {
      const name = row.querySelector("th").textContent.toLowerCase();
      row.hidden = !words.every((word) => name.includes(word));
    }
    const shown = rows.filter((row) => !row.hidden).length;
    count.textContent = input.value ? `${shown} of ${rows.length}` : "";
  });
}
for (const figure of document.querySelectorAll("[data-picks]")) {
  const buttons = Array.from(figure.querySelectorAll(".pick button")), views = figure.querySelectorAll(".view");
  buttons.forEach((button, chosen) => button.addEventListener("click", () => buttons.forEach((other, i) => {
    other.setAttribute("aria-pressed", String(i === chosen));
    views[i].hidden = i !== chosen;
  })));
}
function openTarget() {
  let node = location.hash && document.getElementById(location.hash.slice(1));
  const target = node;
  for (; node; node = node.parentElement) if (node.tagName === "DETAILS") node.open = true;
  if (target) target.scrollIntoView();
}
addEventListener("hashchange", openTarget);
openTarget();
