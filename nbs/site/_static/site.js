// Two small things: a table of rules to sort and search, and one button that folds a chapter's code.
const texts = row => row.textContent.toLowerCase();

function sortBy(table, column, down) {
  const key = row => {
    const cell = row.cells[column];
    const text = (cell.querySelector("code") ?? cell).textContent.trim();
    const number = parseFloat(text.replace("−", "-"));
    return text === "—" || text === "" ? null : Number.isNaN(number) ? text.toLowerCase() : number;
  };
  const order = (a, b) => {
    const [x, y] = [key(a), key(b)];
    if (x === null || y === null) return (x === null) - (y === null); // what is not known stands last
    return (down ? -1 : 1) * (x < y ? -1 : x > y ? 1 : 0);
  };
  [...table.tBodies[0].rows].sort(order).forEach(row => table.tBodies[0].append(row));
  [...table.tHead.rows[0].cells].forEach((head, i) => {
    if (i === column) head.setAttribute("aria-sort", down ? "descending" : "ascending");
    else head.removeAttribute("aria-sort");
  });
}

function makeSearchable(box) {
  const table = box.querySelector("table"), rows = [...table.tBodies[0].rows];
  const bar = document.createElement("div");
  bar.className = "rule-search";
  bar.innerHTML = '<input type="search" placeholder="Search rules: badge, features, ICML ..." aria-label="Search rules"><output></output>';
  box.before(bar);
  const field = bar.querySelector("input"), count = bar.querySelector("output");
  const show = () => {
    const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    rows.forEach(row => { row.hidden = !words.every(w => texts(row).includes(w)); });
    count.textContent = `${rows.filter(row => !row.hidden).length} of ${rows.length} rules`;
  };
  field.addEventListener("input", show);
  show();
  [...table.tHead.rows[0].cells].forEach((head, i) => {
    const numbers = i > 5;
    const turn = () => {
      const now = head.getAttribute("aria-sort");
      sortBy(table, i, now ? now === "ascending" : numbers);
    };
    head.tabIndex = 0;
    head.title = "Sort";
    head.addEventListener("click", turn);
    head.addEventListener("keydown", e => { if (e.key === "Enter") turn(); });
  });
  document.body.classList.add("wide-page");
}

function makeFoldable() {
  const code = [...document.querySelectorAll(".cell.tag_exported details, .cell.tag_drawn details")];
  const title = document.querySelector(".bd-article h1");
  if (!code.length || !title) return;
  const drawn = document.querySelector(".cell.tag_drawn") !== null; // a figure's page: its code is folded at first
  const button = document.createElement("button");
  button.className = "fold-all";
  button.type = "button";
  const show = open => {
    code.forEach(d => { d.open = open; });
    document.body.classList.toggle("folded", drawn && !open);
    button.textContent = open ? "Fold code" : "Show code";
  };
  button.addEventListener("click", () => show(button.textContent === "Show code"));
  title.before(button);
  show(!drawn);
}

document.querySelectorAll(".rules").forEach(makeSearchable);
makeFoldable();
