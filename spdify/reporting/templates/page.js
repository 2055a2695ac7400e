"use strict";
// Tables are sorted by the cells' data-sort, or their text. Heads become buttons here: without a script they would do nothing.
function keyOf(row, column) {
  const cell = row.cells[column];
  return cell.dataset.sort !== undefined ? Number(cell.dataset.sort) : cell.textContent.trim().toLowerCase();
}
for (const table of document.querySelectorAll("table.sortable")) {
  const rows = Array.from(table.tBodies[0].rows);
  for (const head of table.tHead.rows[0].cells) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const keyed = rows.map((row, place) => [keyOf(row, head.cellIndex), place, row]);
      keyed.sort(([a, i], [b, j]) => (a < b ? -1 : a > b ? 1 : i - j));
      if (down) keyed.reverse();
      table.tBodies[0].append(...keyed.map(([, , row]) => row));
    });
  }
}
for (const form of document.querySelectorAll("form.filter")) {
  form.hidden = false;
  const table = document.getElementById(form.dataset.table);
  const rows = Array.from(table.tBodies[0].rows);
  const texts = rows.map((row) => row.innerText.toLowerCase()); // while all are shown: innerText parts the cells
  const said = form.querySelector("output");
  const apply = () => {
    const words = form.elements.words.value.toLowerCase().split(/\s+/).filter(Boolean);
    const action = form.elements.action.value;
    let shown = 0;
    rows.forEach((row, place) => {
      const found = words.every((word) => texts[place].includes(word));
      row.hidden = !(found && (!action || row.dataset.action === action));
      shown += !row.hidden;
    });
    said.textContent = `${shown} of ${rows.length} sites`;
  };
  form.addEventListener("input", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  table.addEventListener("reveal", () => {
    form.reset();
    apply();
  });
  apply();
}
function reveal(hash) {
  const target = hash && document.getElementById(hash.slice(1));
  if (!target) return;
  for (let node = target; node; node = node.parentElement) if (node.tagName === "DETAILS") node.open = true;
  if (target.hidden) target.dispatchEvent(new Event("reveal", { bubbles: true })); // filtered out
  target.scrollIntoView();
}
addEventListener("hashchange", () => reveal(location.hash));
// A second click on the same link changes no hash.
addEventListener("click", (event) => {
  const link = event.target.closest('a[href^="#"]');
  if (link) reveal(link.hash);
});
reveal(location.hash);
addEventListener("beforeprint", () => {
  for (const fold of document.querySelectorAll("details:not([open])")) {
    fold.open = true;
    fold.dataset.folded = "";
  }
});
addEventListener("afterprint", () => {
  for (const fold of document.querySelectorAll("details[data-folded]")) {
    fold.open = false;
    delete fold.dataset.folded;
  }
});
