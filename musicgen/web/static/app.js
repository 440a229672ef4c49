// The local page: give a score, ask for its rest, watch, listen. It talks to this server alone and remembers nothing.

const $ = (id) => document.getElementById(id);
const ask = $("ask");
const FIELDS = ["checkpoint", "bars", "takes", "temperature", "seed"];
const STAGES = [["reading", "Reading"], ["composing", "Composing"], ["playing and engraving", "Playing and engraving"]];

let start = { suffixes: [], most_bytes: 0, checkpoints: [], pieces: [] };
let score = null; // what the server understood of the score that was given
let reading = null; // AbortController of the score that is being read
let job = null; // { id, events, title } of the job that is awaited

// Small things

function element(name, text, attributes = {}) {
  const made = document.createElement(name);
  made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

const kind = () => ask.elements.kind.value; // "finish" or "sample"
const several = (count, one) => `${count} ${one}${count === 1 ? "" : "s"}`;
const suits = $("checkpoint").options[0]; // the choice to let the server choose

function say(text, seen = false) { // read out; `seen`: shown too, where nothing else on the page says it
  $("status").classList.toggle("unseen", !seen);
  $("status").textContent = text;
}

function show(part) {
  part.hidden = false;
  part.focus({ preventScroll: true });
  part.scrollIntoView({ behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
}

function mistake(field, text) { // "" takes it away
  const place = $(`${field}-mistake`) ?? $("ask-mistake");
  place.textContent = text;
  if (field !== "ask") $(field)?.setAttribute("aria-invalid", Boolean(text));
}

async function request(path, options = {}) { // the answer as JSON; what goes wrong is thrown as { sentence, field }
  let answer;
  try {
    answer = await fetch(path, { method: "POST", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw { sentence: "The server does not answer. Has it stopped? Start it again with: musicgen serve" };
  }
  const told = await answer.json().catch(() => ({ sentence: `The server answered with ${answer.status}.` }));
  if (!answer.ok) throw told;
  return told;
}

// The score

function mistakeOf(file) { // what can be told without sending it
  const suffix = file.name.includes(".") ? file.name.slice(file.name.lastIndexOf(".")).toLowerCase() : "";
  const most = start.most_bytes / 2 ** 20;
  if (!start.suffixes.includes(suffix)) {
    return `${file.name} is not a score that can be read here. These are: ${start.suffixes.join(", ")}.`;
  }
  if (file.size > start.most_bytes) return `${file.name} is larger than ${most} MB, which is the most.`;
  if (!file.size) return `${file.name} is empty.`;
  return "";
}

async function give(title, path, options, button = null) {
  reading?.abort();
  const mine = reading = new AbortController();
  for (const other of $("pieces").querySelectorAll("button")) other.setAttribute("aria-pressed", other === button);
  mistake("file", "");
  score = null;
  $("read-title").textContent = `Reading ${title} …`;
  $("facts").replaceChildren();
  $("parts").hidden = true;
  refresh();
  say(`Reading ${title}`);
  try {
    const told = await request(path, { ...options, signal: mine.signal });
    if (mine !== reading) return; // another one was given meanwhile
    score = told;
    understood();
  } catch (error) {
    if (mine !== reading) return;
    say("");
    button?.setAttribute("aria-pressed", "false");
    mistake("file", error.sentence ?? String(error));
  }
  reading = null;
  refresh();
}

function giveFile(file) {
  const wrong = mistakeOf(file);
  if (wrong) return mistake("file", wrong);
  return give(file.name, "/api/scores", { body: file, headers: { "X-File-Name": encodeURIComponent(file.name) } });
}

function understood() {
  $("read-title").textContent = score.title || score.name;
  $("facts").replaceChildren(...score.words.flatMap(([name, text]) => [element("dt", name), element("dd", text)]));
  const rows = score.parts.map((part) => {
    const row = element("tr", "");
    const plays = part.lowest === "-" ? (part.notes ? several(part.notes, "note") : "nothing yet") : `${part.lowest} to ${part.highest}`;
    const last = part.sounding.length ? `sounds ${part.sounding.join(" ")}` : part.plays_lately ? "rests" : "silent lately";
    row.append(element("th", part.name, { scope: "row" }), ...[part.instrument, plays, last].map((text) => element("td", text)));
    return row;
  });
  $("parts").tBodies[0].replaceChildren(...rows);
  $("parts").hidden = false;
  show($("read"));
  say(`Read: ${score.title || score.name}. ${score.words.map(([name, text]) => `${name}: ${text}`).join(". ")}`);
}

// What to ask for

function refresh() { // what the form shows, by what is chosen and given
  const finishing = kind() === "finish";
  $("give").hidden = !finishing;
  $("read").hidden = !finishing || !(score || reading);
  $("settings").hidden = finishing && !score;
  ask.inert = Boolean(job);
  $("settings-title").textContent = finishing ? "What comes next" : "What to write";
  $("bars-label").textContent = finishing ? "Bars to add" : "Bars of each";
  $("takes-label").textContent = finishing ? "Takes" : "Pieces";
  $("takes-hint").textContent = finishing ? "all are kept, best first" : "drawn side by side";
  $("go").textContent = finishing ? "Finish it" : "Write";
  suits.text = `the one that suits${score?.suits ? `: ${score.suits}` : ""}`;
}

function chooseKind() {
  if (kind() === "finish") $("checkpoint").prepend(suits);
  else suits.remove(); // nothing is there yet that it could suit
  const names = start.checkpoints.map(({ name }) => name);
  $("checkpoint").value = kind() === "finish" ? "" : names.includes("orchestra") ? "orchestra" : names[0] ?? "";
  for (const field of [...FIELDS, "ask"]) mistake(field, "");
  say("");
  refresh();
}

function asked() { // the form's values; null where one is wrong, and then it says which
  const found = {};
  let first = null;
  for (const name of FIELDS) {
    const field = $(name);
    let wrong = "";
    if (field.validity.badInput) wrong = "This is not a number.";
    else if (field.validity.valueMissing) wrong = "A number is needed here.";
    else if (field.validity.rangeUnderflow || field.validity.rangeOverflow) wrong = `Between ${field.min} and ${field.max}, please.`;
    else if (field.validity.stepMismatch && name !== "temperature") wrong = "A whole number, please.";
    mistake(name, wrong);
    if (wrong) first ??= field;
    found[name] = field.value === "" ? null : name === "checkpoint" ? field.value : Number(field.value);
  }
  first?.focus();
  return first ? null : found;
}

async function submit(event) {
  event?.preventDefault();
  mistake("ask", "");
  const values = asked();
  if (!values || job) return;
  if (kind() === "finish") values.score = score.score;
  $("result").hidden = true;
  const title = kind() === "finish" ? `Finishing ${score.title || score.name}` : `Writing ${several(values.takes, "new piece")}`;
  try {
    const told = await request(`/api/${kind()}`, { body: JSON.stringify(values), headers: { "Content-Type": "application/json" } });
    follow(told.job, title);
  } catch (error) {
    mistake(error.field ?? "ask", error.sentence ?? String(error));
    ($(error.field) ?? $("go")).focus();
  }
}

// The job

function follow(id, title) {
  const events = new EventSource(`/api/jobs/${id}/events`);
  job = { id, events, title };
  $("work-title").textContent = title;
  $("cancel").disabled = false;
  progress({ state: "waiting", before: 0 });
  refresh();
  show($("work"));
  say(title);
  events.onmessage = (event) => {
    const told = JSON.parse(event.data);
    if (["done", "failed", "cancelled"].includes(told.state)) over(told);
    else progress(told);
  };
  events.onerror = () => { // a moment's break mends itself; a stopped server does not
    if (events.readyState === EventSource.CLOSED) over({ state: "failed", sentence: "The server does not answer. Has it stopped?" });
    else $("so-far").textContent = "The server does not answer; asking again …";
  };
}

function progress({ state, stage, count, total, before }) {
  const at = STAGES.findIndex(([name]) => name === stage);
  $("stages").replaceChildren(...STAGES.map(([, name], i) => {
    const item = element("li", name, i < at ? { class: "past" } : i === at ? { "aria-current": "step" } : {});
    if (i < at) item.append(element("span", ", done", { class: "unseen" }));
    return item;
  }));
  let words = "Getting ready …";
  if (state === "waiting" && before) words = `Waiting for ${several(before, "other job")} …`;
  else if (stage === "composing") words = total ? `${count} of ${several(total, "bar")}` : several(count, "bar");
  else if (stage === "playing and engraving") words = total > 1 ? `${Math.min(count + 1, total)} of ${total}` : "A moment …";
  else if (state === "running") words = "The model reads what there is …";
  $("so-far").textContent = words;
  if (total && (stage === "composing" || total > 1)) {
    $("progress").max = total;
    $("progress").value = count;
  } else $("progress").removeAttribute("value");
  if (at >= 0 && job && job.at !== at) say(STAGES[at][1]); // stages are read out, bars are not
  if (job) job.at = at;
}

function over(told) {
  const { id, events } = job;
  events.close();
  job = null;
  $("work").hidden = true;
  refresh();
  if (told.state === "done") return result(id, told);
  say(told.state === "cancelled" ? "Cancelled." : "", true);
  if (told.state === "failed") mistake("ask", told.sentence || "It failed.");
  $("go").focus();
}

function result(id, { result: made, sentence }) { // the frame has the title; here is what it took, and the files
  const link = (name, text) => element("a", text, { href: `/api/jobs/${id}/files/${encodeURIComponent(name)}`, download: name });
  const kinds = { mid: "MIDI", midi: "MIDI", musicxml: "MusicXML", xml: "MusicXML", mxl: "MusicXML (.mxl)", abc: "ABC" };
  const items = made.takes.map(({ title, files }) => {
    const item = element("li", `${title}: `);
    files.forEach((name, i) => item.append(i ? ", " : "", link(name, kinds[name.split(".").at(-1)] ?? name)));
    return item;
  });
  for (const [name, text] of [[made.page, "All of it in one page, to keep"], [made.report, "Report"]]) {
    if (!name) continue;
    items.push(element("li", ""));
    items.at(-1).append(link(name, text));
  }
  $("result-title").textContent = `${several(made.takes.length, made.report ? "take" : "piece")}, ready to hear`;
  $("files").replaceChildren(...items);
  $("frame").hidden = !made.page;
  if (made.page) $("frame").src = `/api/jobs/${id}/page`;
  mistake("ask", made.page ? sentence : `It could not be played and engraved: ${sentence}`);
  $("result").hidden = false;
  $("result-title").focus({ preventScroll: true });
  $("result").scrollIntoView(); // at once: a long way that is glided over stops where the frame comes to have its page
  say($("result-title").textContent);
}

function cancel() {
  $("cancel").disabled = true;
  $("so-far").textContent = "Cancelling …";
  request(`/api/jobs/${job.id}/cancel`).catch(() => {}); // the events say how it ended
}

// Opening

$("file").addEventListener("change", () => {
  const [file] = $("file").files;
  if (file) giveFile(file);
  $("file").value = ""; // the same file may be given again
});
let inside = 0; // dragenter and dragleave come for every element on the way
const drop = $("drop");
for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    if (![...event.dataTransfer.types].includes("Files")) return;
    event.preventDefault(); // a file that misses the field must not replace the page
    inside = name === "dragenter" ? inside + 1 : name === "dragleave" ? inside - 1 : name === "drop" ? 0 : inside;
    drop.classList.toggle("over", inside > 0);
    const [file] = event.dataTransfer.files;
    if (name !== "drop" || job) return;
    ask.elements.kind.value = "finish";
    chooseKind();
    if (file) giveFile(file);
  });
}
for (const radio of ask.elements.kind) radio.addEventListener("change", chooseKind);
ask.addEventListener("submit", submit);
$("cancel").addEventListener("click", cancel);
$("again").addEventListener("click", () => {
  $("seed").value = Number($("seed").value) + 1;
  submit();
});
$("other").addEventListener("click", () => {
  $("result").hidden = true;
  $("frame").removeAttribute("src");
  scrollTo(0, 0);
  (kind() === "finish" ? $("file") : $("bars")).focus();
});
addEventListener("pagehide", () => job && navigator.sendBeacon(`/api/jobs/${job.id}/cancel`));

request("/api/start", { method: "GET" }).then((told) => {
  start = told;
  $("file").accept = start.suffixes.join(",");
  $("file-hint").textContent = `MIDI, MusicXML (.mxl too), ABC or kern, up to ${start.most_bytes / 2 ** 20} MB. It stays on this computer.`;
  for (const { name, about } of start.checkpoints) $("checkpoint").append(element("option", `${name} (${about})`, { value: name }));
  $("pieces").replaceChildren(...start.pieces.map(({ key, title, about }) => {
    const button = element("button", "", { type: "button", "aria-pressed": "false" });
    button.append(element("strong", title), element("span", about));
    button.addEventListener("click", () => give(title, `/api/pieces/${key}`, {}, button));
    const item = element("li", "");
    item.append(button);
    return item;
  }));
  $("pieces-title").hidden = !start.pieces.length;
  if (start.kept) $("kept").textContent = `Nothing is sent anywhere. Results are kept in ${start.kept}.`;
  refresh();
}).catch((error) => mistake("file", error.sentence ?? String(error)));
