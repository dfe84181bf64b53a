// A search field hides the rows of its table whose name does not have the text.
export function connectFilters(page) {
  for (const field of page.querySelectorAll("input[data-filters]")) {
    const rows = page.getElementById(field.dataset.filters).tBodies[0].rows;
    field.addEventListener("input", () => {
      const wanted = field.value.trim().toLowerCase();
      for (const row of rows) {
        row.hidden = !row.querySelector("th").textContent.toLowerCase().includes(wanted);
      }
    });
  }
}
