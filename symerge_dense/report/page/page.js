"use strict";
// Everything is readable without this script: it sorts tables, moves sliders and reads out the map of coefficients.

function sort(heading) {
  const table = heading.closest("table");
  const column = [...heading.parentElement.children].indexOf(heading);
  const body = table.querySelector("tbody.sorted");
  const before = heading.getAttribute("aria-sort");
  const opposite = { ascending: "descending", descending: "ascending" };
  const first = heading.classList.contains("number") && heading.dataset.first === "down" ? "descending" : "ascending";
  const order = opposite[before] || first;
  const sign = order === "ascending" ? 1 : -1;
  const key = (row) => row.children[column].dataset.v;
  const compare = (a, b) => {
    const [x, y] = [key(a), key(b)];
    if (x === undefined || y === undefined) return (x === undefined) - (y === undefined); // undefined numbers are last
    const difference = x - y;
    return sign * (Number.isNaN(difference) ? x.localeCompare(y, undefined, { numeric: true }) : difference);
  };
  for (const other of table.querySelectorAll("th[aria-sort]")) other.setAttribute("aria-sort", "none");
  heading.setAttribute("aria-sort", order);
  body.append(...[...body.rows].sort(compare));
}

for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => sort(button.parentElement));
}

for (const slider of document.querySelectorAll(".slider input")) {
  const place = () => slider.parentElement.style.setProperty("--cut", `${slider.value}%`);
  slider.addEventListener("input", place);
  place();
}

function choose(pictures, model) {
  for (const picture of pictures.querySelectorAll(".over")) picture.hidden = picture.dataset.model !== model;
  for (const name of pictures.querySelectorAll(".left")) name.textContent = model;
  for (const slider of pictures.querySelectorAll(".slider input")) {
    const label = slider.getAttribute("aria-label");
    slider.setAttribute("aria-label", label.replace(/place of the line, .* at its left/, `place of the line, ${model} at its left`));
  }
}

for (const pictures of document.querySelectorAll(".pictures")) {
  pictures.querySelector(".choice").addEventListener("change", (event) => choose(pictures, event.target.value));
  choose(pictures, pictures.querySelector(".choice :checked").value); // a browser may keep the choice of an earlier look
}

for (const learned of document.querySelectorAll(".learned")) {
  const map = learned.querySelector(".map");
  const cells = map.querySelector(".cells");
  const marker = map.querySelector(".marker");
  const readout = learned.querySelector(".readout");
  const rows = [...learned.querySelectorAll("details tbody tr")];
  const tasks = [...learned.querySelectorAll(".names span")].map((name) => name.textContent);
  let layer = -1;
  const show = (place) => {
    layer = Math.min(Math.max(place, 0), rows.length - 1);
    const [name, ...values] = [...rows[layer].children].map((cell) => cell.textContent);
    marker.setAttribute("x", layer);
    marker.setAttribute("visibility", "visible");
    readout.textContent = `${name}: ${tasks.map((task, index) => `${task} ${values[index]}`).join(", ")}`;
  };
  const follow = (event) => {
    const box = cells.getBoundingClientRect();
    show(Math.floor(((event.clientX - box.left) / box.width) * rows.length));
  };
  cells.addEventListener("pointermove", follow);
  cells.addEventListener("pointerdown", follow);
  map.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1, Home: -rows.length, End: rows.length }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    show(layer + step);
  });
}
