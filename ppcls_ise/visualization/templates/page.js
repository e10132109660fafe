// SPDX-License-Identifier: Apache-2.0
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const one = (id) => document.getElementById(id);
const uri = (crop) => (crop.t < 0 ? "" : data.thumbs[crop.t]);

function words(crop, number) {
  const lines = [crop.p];
  if (crop.c >= 0) lines.push(`cluster ${crop.c}`);
  else if (number in data.nearest) lines.push(data.nearest[number] < 0 ? "no cluster" : `no cluster, nearest ${data.nearest[number]}`);
  else if (crop.c === -1) lines.push("no cluster");
  if ("m" in crop) lines.push(`camera ${crop.m}`);
  if ("k" in crop) lines.push(`tracklet ${crop.k}`);
  if ("n" in crop) lines.push(`identity ${crop.n}`);
  if ("d" in crop) lines.push(`distance to the middle ${crop.d}`);
  if ("s" in crop) lines.push(`silhouette ${crop.s}`);
  return lines.join("\n");
}

// Pictures are put in when they come near the window: a page has thousands.
const seen = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    seen.unobserve(entry.target);
    const crop = data.crops[entry.target.dataset.crop];
    const image = entry.target.firstElementChild;
    image.alt = crop.p;
    if (uri(crop)) image.src = uri(crop);
    else entry.target.classList.add("none");
  }
}, { rootMargin: "600px" });
for (const button of all(".crop")) {
  button.title = words(data.crops[button.dataset.crop], button.dataset.crop);
  seen.observe(button);
}

// Search, filter, sort.
const cards = all(".card");
const paths = new Map(cards.map((card) => [card,
  (data.names[card.dataset.cluster] || all(".crop", card).map((b) => data.crops[b.dataset.crop].p).join("\n")).toLowerCase()]));
function select() {
  const text = one("search").value.trim().toLowerCase();
  const flag = one("filter").value;
  let count = 0;
  for (const card of cards) {
    const found = !text || card.dataset.cluster === text || paths.get(card).includes(text);
    card.hidden = !(found && (!flag || card.dataset.flags.split("|").includes(flag)));
    count += !card.hidden;
  }
  one("count").textContent = `${count} of ${cards.length} clusters`;
}
function sort() {
  const [key, sign] = one("sort").value.split(":");
  const ordered = [...cards].sort((a, b) => sign * (a.dataset[key] - b.dataset[key]) || a.dataset.cluster - b.dataset.cluster);
  one("cards").append(...ordered);
}
one("search").addEventListener("input", select);
one("filter").addEventListener("change", select);
one("sort").addEventListener("change", sort);
select();

// Corrections.
const marks = new Map();
let pending = null;
const key = (m) => JSON.stringify([m.action, m.cluster, m.with, m.path]);
function toggle(mark) {
  if (!marks.delete(key(mark))) marks.set(key(mark), mark);
  show();
}
function show() {
  for (const button of all(".mark")) {
    const { action, cluster } = button.dataset;
    const on = action !== "merge" || button.dataset.with !== ""
      ? marks.has(key({ action, cluster, with: button.dataset.with, path: "" }))
      : pending === cluster || [...marks.values()].some((m) => m.action === "merge" && (m.cluster === cluster || m.with === cluster));
    button.classList.toggle("on", on);
    if (action === "merge" && button.dataset.with === "") button.textContent = pending === null || pending === cluster ? "Same person as …" : `Same person as ${pending}`;
  }
  for (const button of all(".crop")) {
    const crop = data.crops[button.dataset.crop];
    button.classList.toggle("wrong", marks.has(key({ action: "remove", cluster: String(crop.c), with: "", path: data.root + crop.p })));
  }
  one("corrections").hidden = !marks.size && pending === null;
  one("marked").textContent = pending === null ? `${marks.size} correction${marks.size === 1 ? "" : "s"}` : `Cluster ${pending} is the same person as which other? Choose it, or press again.`;
  one("list").replaceChildren(...[...marks.values()].map((m) => {
    const item = document.createElement("li");
    item.textContent = `${m.action} ${m.cluster}${m.with ? ` and ${m.with}` : ""}${m.path ? `: ${m.path}` : ""}`;
    return item;
  }));
}
document.addEventListener("click", (event) => {
  const button = event.target.closest(".mark, .crop");
  if (!button) return;
  if (button.classList.contains("crop")) {
    const crop = data.crops[button.dataset.crop];
    if (one("marking").checked && crop.c >= 0) toggle({ action: "remove", cluster: String(crop.c), with: "", path: data.root + crop.p });
    else enlarge(button.dataset.crop);
    return;
  }
  const { action, cluster, with: other } = button.dataset;
  if (action !== "merge" || other !== "") toggle({ action, cluster, with: other, path: "" });
  else if (pending === null || pending === cluster) {
    pending = pending === null ? cluster : null;
    show();
  } else {
    const [a, b] = [pending, cluster].sort((x, y) => x - y);
    pending = null;
    toggle({ action: "merge", cluster: a, with: b, path: "" });
  }
});
function cell(text) {
  const safe = /^[=+\-@\t\r]/.test(text) ? `./${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}
one("export").addEventListener("click", () => {
  const lines = ["action,cluster,with,path", ...[...marks.values()].map((m) => [m.action, m.cluster, m.with, m.path].map(cell).join(","))];
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([lines.join("\r\n") + "\r\n"], { type: "text/csv" }));
  link.download = "corrections.csv";
  link.click();
  URL.revokeObjectURL(link.href);
});
one("clear").addEventListener("click", () => { marks.clear(); pending = null; show(); });

// One crop, large.
function enlarge(number) {
  const [image, caption] = one("large").firstElementChild.children;
  const crop = data.crops[number];
  image.src = uri(crop);
  image.hidden = !uri(crop);
  caption.textContent = words(crop, number);
  one("large").hidden = false;
}
one("large").addEventListener("click", () => { one("large").hidden = true; });
document.addEventListener("keydown", (event) => { if (event.key === "Escape") one("large").hidden = true; });

// The map.
const plot = one("plot");
const circle = (x, y, r) => {
  const dot = document.createElementNS("http://www.w3.org/2000/svg", "circle");
  for (const [name, value] of Object.entries({ cx: x, cy: y, r })) dot.setAttribute(name, value);
  return dot;
};
const dots = data.dots.map(([x, y]) => circle(x, y, 7));
const here = circle(-99, -99, 12);
here.classList.add("here");
plot.append(...dots, here);
const names = { c: "no cluster", m: "no camera", n: "no identity", k: "no tracklet" };
function paint() {
  const by = one("color").value;
  data.dots.forEach(([, , number], i) => {
    const value = data.crops[number][by];
    dots[i].setAttribute("fill", value === undefined || value < 0 ? "#c3c9cf" : `hsl(${(value * 137.508) % 360} 65% ${40 + 12 * (value % 3)}%)`);
  });
  one("legend").textContent = `gray: ${names[by]}`;
}
for (const option of all("option", one("color"))) {
  if (option.value !== "c" && !data.crops.some((crop) => option.value in crop)) option.remove();
}
one("color").addEventListener("change", paint);
paint();
function point(event) {
  const box = plot.getBoundingClientRect();
  const x = ((event.clientX - box.left) / box.width) * 1040 - 20;
  const y = ((event.clientY - box.top) / box.height) * 1040 - 20;
  let best = -1, least = 60 ** 2;
  data.dots.forEach(([a, b], i) => {
    const distance = (a - x) ** 2 + (b - y) ** 2;
    if (distance < least) [best, least] = [i, distance];
  });
  if (best < 0) return;
  const [a, b, number] = data.dots[best];
  here.setAttribute("cx", a);
  here.setAttribute("cy", b);
  const [image, caption] = one("pointed").children;
  image.hidden = !uri(data.crops[number]);
  image.src = uri(data.crops[number]);
  caption.textContent = words(data.crops[number], number);
}
plot.addEventListener("pointermove", point);
plot.addEventListener("pointerdown", point);
