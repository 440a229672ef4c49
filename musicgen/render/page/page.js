
"use strict";
// The page's one script: plays the chosen take, and moves the playhead and the marks in the score with it.
// The audio element is the one clock; whatever shows a place is drawn from its currentTime, never counted here.

const $ = (id) => document.getElementById(id);
const all = (selector) => [...document.querySelectorAll(selector)];
const data = JSON.parse($("data").textContent);
const takes = data.takes;
// All of the page is looked up before a score is put into it: ids in a score are the file's, and may be anything.
const [audio, time, box, follow, rolls] = [$("audio"), $("time"), $("score"), $("follow"), $("rolls")];
const [play, join, before, bar, clock] = [$("play"), $("join"), $("before"), $("bar"), $("clock")];
const [said, chosenName, start, smaller, larger] = [$("said"), $("chosen"), $("start"), $("smaller"), $("larger")];
const packs = new Map(all("[data-pack]").map((e) => [e.dataset.pack, e]));
const [rows, figures, playButtons] = [all("tr[data-take]"), all("figure[data-take]"), all(".play-take")];

let chosen = -1; // number of the take
let sheet = null; // its engraved score: cues, elements by id, what is lit

// What the page holds, unpacked

function bytes(name) {
  const text = atob(packs.get(name).textContent);
  const found = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) found[i] = text.charCodeAt(i);
  return found;
}

function inflate(name) {
  return new Response(new Blob([bytes(name)]).stream().pipeThrough(new DecompressionStream("gzip")));
}

function drawing(text) {
  const svg = new DOMParser().parseFromString(text, "image/svg+xml").documentElement;
  // What a drawing of music has no need of goes; the policy would not let it act in any case.
  svg.querySelectorAll("style, script, a, foreignObject, image, title").forEach((e) => e.remove());
  return document.importNode(svg, true);
}

function svgElement(name, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

// Places

function last(list, value, column = 0) { // index of the last row that is not past the value; the first if none
  let [low, high] = [0, list.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (list[middle][column] <= value) low = middle + 1;
    else high = middle;
  }
  return Math.max(low - 1, 0);
}

function between(table, value, from, to) { // column `to` of a table where its column `from` is the value, in line
  const i = Math.min(last(table, value, from), Math.max(table.length - 2, 0));
  const [a, b] = [table[i], table[i + 1] ?? table[i]];
  const share = b[from] > a[from] ? (value - a[from]) / (b[from] - a[from]) : 0;
  return a[to] + Math.min(Math.max(share, 0), 1) * (b[to] - a[to]);
}

const nearest = (list, far) => list.reduce((best, one) => (far(one) < far(best) ? one : best));
const minutes = (s) => `${Math.floor(s / 60)}:${String(Math.floor(s % 60)).padStart(2, "0")}`;

function seek(second) {
  audio.currentTime = Math.min(Math.max(second, 0), takes[chosen].seconds);
  draw();
}

// Choosing a take

function choose(number, second, playing) {
  if (number !== chosen) {
    chosen = number;
    const take = takes[number];
    for (const list of [rows, figures]) {
      list.forEach((e) => e.removeAttribute("aria-current"));
      list[number].setAttribute("aria-current", "true");
    }
    chosenName.textContent = takes.length > 1 ? take.name : "";
    join.disabled = before.disabled = take.seam === null;
    sheet = null;
    showScore(number);
    if (!data.plays) return;
    take.url ??= URL.createObjectURL(new Blob([bytes(`audio-${number}`)], { type: "audio/mpeg" }));
    audio.src = take.url;
    time.max = take.seconds;
  }
  seek(second);
  if (playing) begin();
}

function samePlace(number) { // where another take is as far from its seam as this one is from its own
  const [here, there] = [takes[chosen], takes[number]];
  const moved = here.seam === null || there.seam === null ? 0 : there.seam - here.seam;
  return audio.ended || !data.marked ? 0 : audio.currentTime + moved; // pieces that have nothing in common: the start
}

async function showScore(number) {
  const take = takes[number];
  if (!take.engraved) return box.replaceChildren("This one is not engraved.");
  const { pages, cues } = await inflate(`sheet-${number}`).json();
  if (number !== chosen) return; // another was chosen meanwhile
  box.replaceChildren(...pages.map(drawing));
  const elements = new Map();
  box.querySelectorAll("[id]").forEach((e) => elements.has(e.id) || elements.set(e.id, e));
  const starts = new Set(take.bars.map(([second]) => second));
  const passes = new Map(); // of each bar, the seconds at which it begins: repeats are written once
  cues.forEach(([second, , , id], i) => {
    elements.get(id)?.classList.add("bar");
    if (i === 0 || cues[i - 1][3] !== id || starts.has(second)) passes.set(id, [...(passes.get(id) ?? []), second]);
  });
  sheet = { cues, elements, passes, at: -1, lit: new Set(), boxes: new Map(), bar: "" };
  sheet.mark = svgElement("rect", { class: "bar-now" });
  box.dataset.take = number;
  nameTheJoin(take);
  draw();
}

function boxOf(id) { // of a bar, in its own coordinates, without the mark
  if (!sheet.boxes.has(id)) {
    sheet.mark.remove();
    sheet.boxes.set(id, sheet.elements.get(id).getBBox());
  }
  return sheet.boxes.get(id);
}

function nameTheJoin(take) { // a line and words where what is new begins: colour alone would not tell everybody
  if (take.seam === null) return;
  const [second, ids, , id] = sheet.cues.find((cue) => cue[0] >= take.seam - 0.005 && cue[1]) ?? [];
  const measure = sheet.elements.get(id);
  if (!measure) return;
  const { x: left, y, height } = boxOf(id);
  const heads = ids.split(" ").flatMap((name) => sheet.elements.get(name) ?? []);
  const inside = heads.length && !sheet.passes.get(id).includes(second); // within a bar: before its first new note
  const x = inside ? Math.min(...heads.map((e) => e.getBBox().x)) - 120 : left;
  const bars = [...sheet.passes.keys()];
  const around = bars.slice(bars.indexOf(id), bars.indexOf(id) + 3).map(boxOf).filter((one) => one.x >= left);
  const top = Math.min(...around.map((one) => one.y)); // the words go above the notes of the next bars, too
  const size = Math.max(330, 13 / measure.getScreenCTM().a); // thirteen pixels at least, in any score
  const turned = x + 8 * size > measure.ownerSVGElement.viewBox.baseVal.width; // no room to the right
  const name = svgElement("text", { class: "join-name", x: x + (turned ? -90 : 90), y: top - 60 });
  name.style.fontSize = `${size}px`;
  name.style.textAnchor = turned ? "end" : "start";
  name.textContent = "new from here";
  measure.parentNode.append(svgElement("path", { class: "join-line", d: `M${x} ${top - 330}V${y + height}` }), name);
}

// Drawing what sounds now

function draw() {
  if (!data.plays) return;
  const take = takes[chosen];
  const second = Math.min(audio.currentTime, take.seconds);
  const where = `bar ${take.bars[last(take.bars, second + 0.01)][1]} of ${take.barCount}`;
  time.value = second;
  clock.textContent = `${minutes(second)} / ${minutes(take.seconds)}`;
  if (bar.textContent !== where || audio.paused) { // once a bar is often enough for who has the timeline read out
    bar.textContent = where;
    time.setAttribute("aria-valuetext", `${where}, ${minutes(second)} of ${minutes(take.seconds)}`);
  }
  const head = figures[chosen].querySelector(".head");
  if (head) {
    head.style.left = `${100 * between(take.clock, second, 0, 1)}%`;
    keepInSight(rolls, head, false);
  }
  if (sheet) mark(second);
}

function light(ids, on) {
  for (const id of ids ? ids.split(" ") : []) {
    sheet.elements.get(id)?.classList.toggle("sounding", on);
    if (on) sheet.lit.add(id);
    else sheet.lit.delete(id);
  }
}

function mark(second) {
  const now = last(sheet.cues, second + 0.01);
  if (now === sheet.at || !sheet.cues.length) return;
  if (now < sheet.at) {
    light([...sheet.lit].join(" "), false);
    sheet.at = -1;
  }
  while (sheet.at < now) {
    const [, on, off] = sheet.cues[++sheet.at];
    light(off, false);
    light(on, true);
  }
  const id = sheet.cues[now][3];
  const measure = sheet.elements.get(id);
  if (id === sheet.bar || !measure) return;
  sheet.bar = id;
  const frame = boxOf(id);
  for (const name of ["x", "y", "width", "height"]) sheet.mark.setAttribute(name, frame[name]);
  measure.prepend(sheet.mark);
  if (follow.checked) keepInSight(box, sheet.mark, true);
}

function keepInSight(frame, element, isScore) { // scrolls the frame alone, never the page
  const [seen, place] = [frame.getBoundingClientRect(), element.getBoundingClientRect()];
  const tall = place.height > seen.height * 0.9; // a system of many staves: its top is enough
  const low = tall ? place.top > seen.top + seen.height * 0.4 : place.bottom > seen.bottom;
  const still = !isScore || matchMedia("(prefers-reduced-motion: reduce)").matches;
  const to = { behavior: still ? "instant" : "smooth" };
  if (isScore && (place.top < seen.top || low)) to.top = frame.scrollTop + place.top - seen.top - 40;
  if (place.left < seen.left || place.right > seen.right) to.left = frame.scrollLeft + place.left - seen.left - 60;
  if ("top" in to || "left" in to) frame.scrollTo(to);
}

// What the reader does

function begin() {
  audio.play().catch(() => sayPlaying()); // another take was chosen before this one began, or the browser forbids it
}

function playFrom(second) {
  seek(second);
  if (audio.paused) begin();
}

function toggle() {
  if (audio.paused) begin();
  else audio.pause();
}

function sayPlaying() {
  play.textContent = audio.paused ? "Play" : "Pause";
  playButtons.forEach((button, i) => {
    button.textContent = !audio.paused && i === chosen ? "Pause" : "Play";
    button.setAttribute("aria-label", `${button.textContent} ${takes[i].name}`);
  });
  draw();
}

function frames() {
  draw();
  if (!audio.paused) requestAnimationFrame(frames);
}

function toBar(step) { // the next bar's start, or this one's (just after its start, the one before)
  const { bars } = takes[chosen];
  const here = last(bars, audio.currentTime + 0.01);
  const to = step < 0 && audio.currentTime - bars[here][0] > 0.5 ? here : here + step;
  seek(bars[Math.min(Math.max(to, 0), bars.length - 1)][0]);
}

function seekInScore({ clientX: x, clientY: y }) {
  if (!sheet) return;
  const hits = [...box.querySelectorAll(".bar")].map((e) => [e.id, e.getBoundingClientRect()])
    .filter(([, r]) => r.left <= x && x <= r.right && r.top <= y && y <= r.bottom);
  if (!hits.length) return;
  const [id] = nearest(hits, ([, r]) => Math.abs(r.top + r.bottom - 2 * y)); // high and low notes let bars overlap
  seek(nearest(sheet.passes.get(id), (second) => Math.abs(second - audio.currentTime)));
}

async function download(key) {
  const [kind, number, place] = key.split("-");
  const take = takes[number];
  const { name, type } = kind === "audio" ? { name: take.mp3, type: "audio/mpeg" } : take.files[place];
  const content = kind === "audio" ? bytes(key) : await inflate(key).arrayBuffer();
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([content], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

if (data.plays) {
  play.addEventListener("click", toggle);
  start.addEventListener("click", () => playFrom(0));
  join.addEventListener("click", () => playFrom(takes[chosen].seam));
  before.addEventListener("click", () => {
    const { bars, seam } = takes[chosen];
    playFrom(bars[Math.max(last(bars, seam + 0.01) - 2, 0)][0]);
  });
  time.addEventListener("input", () => seek(Number(time.value)));
  time.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
    if (!step || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    toBar(step);
  });
  document.addEventListener("keydown", (event) => {
    const own = "button, a, summary, select, textarea, input:not([type=range])"; // these have a use for it themselves
    if (event.key !== " " || event.target.closest(own)) return;
    event.preventDefault();
    if (!event.repeat) toggle();
  });
  ["play", "pause", "ended"].forEach((name) => audio.addEventListener(name, sayPlaying));
  audio.addEventListener("play", frames);
  audio.addEventListener("seeked", draw);
  box.addEventListener("click", seekInScore);
  playButtons.forEach((button, i) => button.addEventListener("click", () => {
    if (i === chosen) return toggle();
    choose(i, samePlace(i), true);
    said.textContent = `${takes[i].name} chosen`;
  }));
}
all(".download").forEach((button) => button.addEventListener("click", () => download(button.dataset.file)));
for (const [button, by] of [[smaller, 0.8], [larger, 1.25]]) {
  button.addEventListener("click", () => {
    const zoom = by * Number(box.style.getPropertyValue("--zoom") || 1);
    box.style.setProperty("--zoom", Math.min(Math.max(zoom, 0.5), 4));
  });
}

// Opening

const NUMBER_WIDTH = 44; // pixels that the number of a bar has for itself at least

function numberBars(strip, take) { // every fourth bar, or eighth, sixteenth ... where there is less room
  strip.querySelectorAll(".number").forEach((e) => e.remove());
  const width = strip.clientWidth;
  let [step, free] = [4, 0];
  while ((step * width) / take.bars.length < NUMBER_WIDTH) step *= 2;
  for (const [second, number] of take.bars) {
    const x = between(take.clock, second, 0, 1) * width;
    if (number % step || x < free || x + NUMBER_WIDTH > width) continue;
    const made = document.createElement("span");
    made.className = "number";
    made.textContent = free ? number : `bar ${number}`;
    made.style.left = `${(100 * x) / width}%`;
    strip.append(made);
    free = x + NUMBER_WIDTH;
  }
}

figures.forEach(async (figure, i) => {
  const take = takes[i];
  const strip = figure.querySelector(".strip");
  // A bar has eight pixels at least: long pieces scroll in their own box, and all takes keep one scale.
  strip.style.width = `max(${100 * take.width}%, ${8 * take.bars.length}px)`;
  strip.append(drawing(await inflate(`roll-${i}`).text()));
  const tag = (kind, text, share) => {
    const made = document.createElement("span");
    made.className = kind;
    made.textContent = text;
    made.style.left = `${100 * share}%`;
    strip.append(made);
  };
  if (take.seamAt > 0.06) tag("tag given", "given", take.seamAt);
  if (take.seamAt !== null) tag("tag new", "new", take.seamAt);
  new ResizeObserver(() => numberBars(strip, take)).observe(strip);
  if (!data.plays) return;
  tag("head", "", 0);
  strip.addEventListener("click", (event) => {
    const { left, width } = strip.getBoundingClientRect();
    choose(i, between(take.clock, (event.clientX - left) / width, 1, 0), !audio.paused);
  });
  draw();
});
choose(0, 0, false);
if (data.plays) sayPlaying();
