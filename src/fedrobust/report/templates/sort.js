for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0], rows = [...body.rows];
  heads.forEach((head, at) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const sorted = head.getAttribute("aria-sort"), down = sorted ? sorted === "ascending" : at > 0;
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = (row) => row.cells[at].dataset.key;
      const known = rows.filter((row) => key(row) !== "");
      known.sort((a, b) => (down ? key(b) - key(a) : key(a) - key(b)));
      body.append(...known, ...rows.filter((row) => key(row) === ""));
    });
  });
}
