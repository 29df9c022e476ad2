"use strict";
// The page at the work station. What it shows comes from the server and is only ever set as text.

const SIGNS = { done: "✓", seen: "", next: "▸", missing: "!", unsure: "?", wrong: "✗", open: "·" };
const WORDS = {
  done: "done", seen: "seen", next: "next", missing: "missing", unsure: "not sure", wrong: "wrong",
  open: "open",
};
const CLASSES = {
  done: "done", seen: "seen", next: "next-step", missing: "missing", unsure: "unsure-step",
  wrong: "wrong-step", open: "open",
};
const SOURCES = {
  live: ["good", "Camera live"], playing: ["good", "Video plays"], opening: ["waiting", "Opening…"],
  loading: ["waiting", "The model loads…"],
  lost: ["bad", "Camera lost"], ended: ["waiting", "Video finished"],
};
const ENDED = {
  complete: "finished", key: "ended", absent: "taken away", end: "ended", stopped: "stopped",
};
const DOUBTFUL = 0.9; // likelihood below which a step that is done is hinted at
const MAX_RECORDS = 50;
const SILENT_MS = 15000; // the server says something every 5 s
const OLD_VIEW_MS = 5000; // of a live camera
const LONGEST_PAUSE_MS = 5000;

const by = (id) => document.getElementById(id);
const make = (name, className, text) => {
  const element = document.createElement(name);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
};
// Only what changes is set, so that screen readers hear of nothing else.
const setText = (element, text) => {
  if (element.textContent !== text) element.textContent = text;
};

const state = {
  start: null, // of the server, another one after its restart
  lastId: "",
  connected: false,
  since: null, // when the connection was lost
  heard: 0,
  viewed: 0,
  source: null,
  next: null,
  checklist: [],
  asked: null, // the installation that a person may say is correct
  problem: null, // the step that has to be corrected or done first
  alert: null, // its text
  alerted: null, // the step that it names
};

// --- Checklist and parts --------------------------------------------------------------------------

function clock(seconds) {
  if (typeof seconds !== "number") return "";
  const whole = Math.max(0, Math.floor(seconds));
  const parts = [Math.floor(whole / 60) % 60, whole % 60].map((n) => String(n).padStart(2, "0"));
  return (whole >= 3600 ? [Math.floor(whole / 3600), ...parts] : parts).join(":");
}

function fitRows(list, length, makeRow) {
  while (list.children.length > length) list.lastElementChild.remove();
  while (list.children.length < length) list.append(makeRow());
  return [...list.children];
}

function makeStep() {
  const row = make("li");
  row.append(make("span", "sign"), make("span", "name"), make("span", "note"));
  row.firstElementChild.setAttribute("aria-hidden", "true");
  return row;
}

// One instruction at a time: what it says, and the step that it is about.
function instruction(rows, complete, view) {
  const find = (status) => rows.find((row) => row.status === status);
  const [wrong, missing, next, seen] = ["wrong", "missing", "next", "seen"].map(find);
  const isIncorrect = wrong && wrong.step_id % 3 === 1;
  const [unsure] = view.unsure || [];
  if (view.source === "ended") return ["Finished", "The recording has ended"];
  if (view.source === "loading") return ["Please wait", "The model loads"];
  if (view.waiting) return ["Finished", "Take it away"];
  if (complete) return ["Finished", "All steps done"];
  if (wrong) return [isIncorrect ? "Correct this first" : "Not expected: check", wrong.name, wrong];
  if (missing) return ["Missing: do this first", missing.name, missing];
  if (unsure) return ["Not sure", `Show the ${unsure.component} to the camera`, unsure];
  if (!next && seen) return ["Seen: show it to the camera", seen.name];
  return ["Next step", next ? next.name : "–", next];
}

// `known`: whether this is the model's product; else no step is called the next one.
function showChecklist(given, view, known) {
  const isWrong = (row) => row.status === "wrong";
  const rows = [...given.filter(isWrong), ...given.filter((row) => !isWrong(row))];
  const expected = rows.filter((row) => !isWrong(row));
  const done = expected.filter((row) => row.status === "done").length;
  const complete = expected.length > 0 && done === expected.length && rows.length === done;
  const [title, text, of] = instruction(rows, complete, view);
  const list = by("checklist");
  fitRows(list, rows.length, makeStep).forEach((row, i) => {
    const { name, status, time_s: time, likely } = rows[i];
    const shown = status in SIGNS && (known || status !== "next") ? status : "open";
    row.className = CLASSES[shown === "next" && rows[i] !== of ? "open" : shown];
    const [sign, text, note] = row.children;
    setText(sign, SIGNS[shown]);
    setText(text, name);
    const doubtful = shown === "done" && typeof likely === "number" && likely < DOUBTFUL;
    const word = doubtful ? `${Math.round(100 * likely)} % sure` : WORDS[shown];
    note.classList.toggle("amber", doubtful);
    setText(note, shown === "done" && typeof time === "number" && !doubtful ? clock(time) : word);
    row.setAttribute("aria-label", `${name}: ${doubtful ? "done, " : ""}${word}`);
    if (shown === "next" && rows[i] === of) row.setAttribute("aria-current", "step");
    else row.removeAttribute("aria-current");
  });
  const of_status = (status) => rows.filter((row) => row.status === status).length;
  setText(by("next"), text);
  by("next").hidden = !known;
  setText(by("next-title"), known ? title : "Steps");
  showAsk(known ? of : null, view.unsure || []);
  const isProblem = known && Boolean(of) && ["wrong", "missing"].includes(of.status);
  state.problem = isProblem ? of.step_id : null;
  showAlert(state.alert, state.alerted);
  const card = by("next").parentElement.parentElement;
  card.classList.toggle("is-complete", known && title === "Finished");
  card.classList.toggle("is-wrong", isProblem);
  card.classList.toggle("is-unsure", title === "Not sure");
  const counts = [`${done} of ${expected.length} done`];
  for (const status of ["missing", "seen", "unsure", "wrong"]) {
    if (of_status(status)) counts.push(`${of_status(status)} ${WORDS[status]}`);
  }
  setText(by("count"), rows.length ? counts.join(" · ") : "");
  const progress = by("progress");
  progress.setAttribute("aria-valuemax", expected.length || 1);
  progress.setAttribute("aria-valuenow", done);
  progress.firstElementChild.style.width = `${(100 * done) / (expected.length || 1)}%`;
  if (known && text !== state.next) {
    state.next = text;
    announce(`${title}: ${text}`);
    keepInSight();
  }
}

function keepInSight() {
  const box = by("checklist").parentElement;
  const row = box.querySelector("[aria-current]") || box.querySelector(".missing");
  if (!row || box.contains(document.activeElement)) return; // somebody reads it by keyboard
  box.scrollTop += row.getBoundingClientRect().top - box.getBoundingClientRect().top
    - (box.clientHeight - row.clientHeight) / 2;
}
new ResizeObserver(keepInSight).observe(by("checklist").parentElement);

function makeBelief() {
  const row = make("li");
  const meter = make("div", "meter");
  meter.setAttribute("role", "meter");
  meter.setAttribute("aria-valuemin", "0");
  meter.setAttribute("aria-valuemax", "100");
  meter.append(make("div", "right"), make("div", "wrong"));
  row.append(make("span", "name"), meter);
  return row;
}

// What is believed of a part that is not sure is left out: it would say another thing.
function showBeliefs(rows, unsure) {
  by("beliefs").parentElement.hidden = !rows.length; // of streams that say nothing of single parts
  fitRows(by("beliefs"), rows.length, makeBelief).forEach((row, i) => {
    const { component } = rows[i];
    const isUnsure = unsure.some((one) => one.component === component);
    const [right, wrong] = [rows[i].right, rows[i].wrong].map((p) =>
      Math.round(100 * Math.min(1, Math.max(0, Number(p) || 0))));
    const [name, meter] = row.children;
    const isWrong = wrong >= 50 && !isUnsure;
    row.className = isUnsure ? "is-unsure" : isWrong ? "is-wrong" : "";
    setText(name, isUnsure ? `? ${component}` : isWrong ? `✗ ${component}` : component);
    name.title = component;
    meter.setAttribute("aria-label", component);
    meter.setAttribute("aria-valuenow", isUnsure ? 0 : right);
    meter.setAttribute("aria-valuetext", isUnsure ? "not sure" : `correct ${right} %, incorrect ${wrong} %`);
    meter.children[0].style.width = `${isUnsure ? 0 : right}%`;
    meter.children[1].style.width = `${isUnsure ? 0 : wrong}%`;
  });
}

// Whether this is the model's product at all.
function showFits(view) {
  const text = view.fits === false ? `Is this the product? In the last minutes ${view.product}.` : "";
  by("fits").hidden = !text; // first: a screen reader reads only what changes while it is visible
  setText(by("fits-text"), text);
}

// A person may say that the part of the instruction is correct, or that one not sure is not.
function showAsk(of, unsure) {
  const isAsked = unsure.length > 0 && of === unsure[0];
  const isIncorrect = Boolean(of) && of.status === "wrong" && of.step_id % 3 === 1;
  const asked = isAsked ? of.step_id : isIncorrect ? of.step_id - 1 : null;
  if (state.asked !== asked) {
    setText(by("ask-error"), "");
    by("ask-right").disabled = by("ask-wrong").disabled = false;
  }
  state.asked = asked;
  by("ask").hidden = asked === null;
  by("ask-wrong").hidden = !isAsked;
  const picture = by("ask-picture");
  const source = isAsked && typeof of.like === "number" ? `snapshot?frame=${of.like}` : "";
  if (picture.getAttribute("src") !== source) {
    picture.hidden = true; // until it has arrived
    if (source) picture.src = source;
    else picture.removeAttribute("src");
  }
}

function showView(view) {
  state.viewed = Date.now();
  showFits(view);
  const known = view.fits !== false;
  // What a recording has come to stays in view: a unit that begins with its end is none.
  if (view.source !== "ended") state.checklist = view.checklist || [];
  showChecklist(state.checklist, view, known);
  showBeliefs(view.beliefs || [], view.unsure || []);
  state.source = view.source in SOURCES ? view.source : null;
  if (state.connected) setConnected(true);
  const [look, text] = state.source ? SOURCES[state.source] : ["waiting", "Opening…"];
  by("source").dataset.state = look;
  setText(by("source"), text);
  const unit = typeof view.unit === "number" ? `unit ${view.unit}` : "";
  setText(by("recording"), [view.recording, unit].filter(Boolean).join(" · "));
  const number = (value, digits, unit) =>
    typeof value === "number" ? `${value.toFixed(digits)}${unit}` : "–";
  setText(by("time"), clock(view.time_s) || "–");
  setText(by("latency"), number(view.latency_ms, 0, " ms"));
  setText(by("fps"), number(view.fps, 1, ""));
  setText(by("dropped"), number(view.dropped, 0, ""));
  showStale();
}

// --- Events and alerts ----------------------------------------------------------------------------

function announce(text) {
  setText(by("announcement"), text);
}

function timeOf(record) {
  const wall = record.wall_time;
  const date = new Date(typeof wall === "number" ? 1000 * wall : wall || NaN);
  return isNaN(date) ? clock(record.time_s) : date.toLocaleTimeString();
}

function showRecord(record) {
  if (record.type === "status") return;
  const isUnit = record.type === "unit";
  const flaws = isUnit ? flawsOf(record) : "";
  const isOver = record.alert === "withdrawn"; // an alert of before no longer holds
  const isAlert = (record.type === "alert" && !isOver) || flaws !== "";
  let text = record.message || record.step || record.type;
  if (isUnit) text = unitText(record) + (flaws && ` · ${flaws}`);
  else if (record.type === "seen") text += " (seen)";
  else if (record.type === "unsure") text += " (not sure)";
  else if (record.type === "gone") text = `${record.component} was taken off again`;
  else if (record.type === "confirmed") text += " (confirmed by a person)";
  const row = make("li", `${isAlert ? "is-alert" : ""}${isUnit ? " is-unit" : ""}`.trim());
  row.append(make("span", "", timeOf(record)), make("span", "what", `${isAlert ? "! " : ""}${text}`));
  if (["confirmed", "seen", "unsure", "gone"].includes(record.type)) row.append(make("span"));
  else if (record.calibrated === false) row.append(make("span", "muted", "not calibrated"));
  else if (typeof record.confidence === "number") {
    row.append(make("span", "muted", `${Math.round(100 * record.confidence)} %`));
  }
  const list = by("records");
  // A step that was seen is listed until it is reported.
  for (const other of [...list.children]) {
    if (["event", "confirmed"].includes(record.type) && other.dataset.seen === `${record.step_id}`) other.remove();
  }
  if (record.type === "seen") row.dataset.seen = record.step_id;
  if (list.firstElementChild && list.firstElementChild.className === "muted") list.replaceChildren();
  list.prepend(row);
  while (list.children.length > MAX_RECORDS) list.lastElementChild.remove();
  if (isUnit) showAlert(flaws ? `Unit ${record.unit}: ${flaws}` : null);
  else if (isAlert) showAlert(text, record.step_id);
  else if (isOver && state.alerted === record.step_id) showAlert(null);
  if (!isAlert && record.type !== "seen") announce(text);
}

const stepNames = (steps) => (steps || []).map((step) => step.step).join(", ");

function unitText(record) {
  const late = stepNames(record.late);
  return `Unit ${record.unit} ${ENDED[record.ended] || "ended"}: steps done: ${(record.done || []).length}`
    + ` in ${clock(record.duration_s)}${late && ` · late: ${late}`}`;
}

function flawsOf(record) {
  const named = (word, steps) => (steps && steps.length ? `${word}: ${stepNames(steps)}` : "");
  const { missing, unsure, wrong } = record;
  return [named("missing", missing), named("not sure", unsure), named("wrong", wrong)]
    .filter(Boolean).join(" · ");
}

// --- Today ----------------------------------------------------------------------------------------

function makeUnit(unit) {
  const details = make("details");
  const now = unit.type === "now";
  const flaws = now ? "" : flawsOf(unit);
  const rows = [...unit.steps, ...unit.alerts].sort((a, b) => a.time_s - b.time_s);
  // By the time of what came next, as the seconds of a file stand still while nothing runs.
  const near = rows[0] || unit;
  const start = new Date(Date.parse(near.wall_time) - 1000 * (near.time_s - unit.start_s));
  const started = typeof unit.start_s === "number" ? `${start.toLocaleTimeString()} · ` : "";
  const text = now ? `Now: unit ${unit.unit}` : unitText(unit);
  const summary = make("summary", flaws || unit.alerts.length ? "bad" : "", `${started}${text}`);
  const counts = [flaws, unit.alerts.length && `alerts: ${unit.alerts.length}`].filter(Boolean);
  if (counts.length) summary.textContent += ` · ${counts.join(" · ")}`;
  const list = make("ol");
  for (const row of rows) {
    const item = make("li", row.message ? "bad" : "");
    const picture = make("img");
    picture.loading = "lazy";
    picture.alt = "";
    picture.addEventListener("error", () => picture.remove()); // only the last ones are kept
    picture.src = `snapshot?frame=${encodeURIComponent(row.frame)}`;
    const what = `${row.message || row.step}${row.confirmed ? " (confirmed by a person)" : ""}`;
    item.append(make("span", "time", timeOf(row)), make("span", "", what), picture);
    list.append(item);
  }
  details.append(summary, rows.length ? list : make("p", "muted", "No step"));
  details.open = now;
  return details;
}

// Why there was no answer: with a recording its server ends too.
function failed() {
  return state.source === "ended"
    ? "The recording has ended, and recognition with it." : "The request failed; please try again.";
}

async function showToday() {
  let shown = [make("p", "bad", failed())];
  try {
    const { units } = await (await fetch("past")).json();
    shown = units.reverse().map(makeUnit);
    if (!shown.length) shown = [make("p", "muted", "No unit yet")];
  } catch { /* the page says that there is no connection */ }
  by("units").replaceChildren(...shown);
  if (!by("today").open) by("today").showModal();
}

// Not beside an instruction of the same step.
function showAlert(text, step = null) {
  state.alert = text;
  state.alerted = step;
  const isSaid = text === null || (typeof step === "number" && step === state.problem);
  by("alert").hidden = isSaid; // first: a screen reader reads only what changes while it is visible
  setText(by("alert-text"), text || "");
}

// --- Picture --------------------------------------------------------------------------------------

const SVG = "http://www.w3.org/2000/svg";

function draw(box, width, height) {
  const overlay = by("overlay");
  overlay.setAttribute("viewBox", `0 0 ${width} ${height}`);
  overlay.replaceChildren();
  setText(by("seen"), box ? `Seen: ${box.label}` : "");
  if (!box) return;
  const group = document.createElementNS(SVG, "g");
  if (box.error) group.setAttribute("class", "error");
  const add = (name, values) => {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(values)) element.setAttribute(key, value);
    group.append(element);
    return element;
  };
  const [x, y] = [box.x0 * width, box.y0 * height];
  add("rect", { x, y, width: Math.max(0, box.x1 * width - x), height: Math.max(0, box.y1 * height - y) });
  const size = height / 22;
  const top = y > 1.5 * size ? y - 1.4 * size : y;
  const label = add("rect", { class: "label", x, y: top, height: 1.4 * size, width: 0 });
  const text = add("text", { x: x + 0.4 * size, y: top + 1.05 * size, "font-size": size });
  text.textContent = box.label;
  overlay.append(group);
  label.setAttribute("width", text.getComputedTextLength() + 0.8 * size);
}

async function showPicture(response) {
  const picture = by("picture");
  const url = URL.createObjectURL(await response.blob());
  const old = picture.src;
  picture.src = url;
  try {
    await picture.decode();
    picture.hidden = false;
    draw(JSON.parse(response.headers.get("Box")), picture.naturalWidth, picture.naturalHeight);
  } finally {
    if (old) URL.revokeObjectURL(old);
  }
  showStale();
}

const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function followPictures() {
  let after = "";
  let pause = 250;
  for (;;) {
    if (document.hidden) {
      await new Promise((done) => document.addEventListener("visibilitychange", done, { once: true }));
      continue;
    }
    try {
      const response = await fetch(`picture?after=${encodeURIComponent(after)}`);
      if (response.status === 401) return location.reload(); // asks for the token
      if (response.status === 200) {
        await showPicture(response);
        after = response.headers.get("Picture");
      } else if (response.status !== 204) {
        throw new Error(response.statusText);
      }
      pause = 250;
    } catch {
      await wait(pause);
      pause = Math.min(2 * pause, LONGEST_PAUSE_MS);
    }
  }
}

// A picture that stands still must not be taken for what the camera sees.
function showStale() {
  let text = "";
  if (state.source === "ended") text = "The video is finished";
  else if (!state.connected && state.since) text = `No connection since ${state.since.toLocaleTimeString()}`;
  else if (state.source === "lost") text = "Camera lost";
  else if (["live", "playing"].includes(state.source) && Date.now() - state.viewed > OLD_VIEW_MS) text = "No news from recognition";
  else if (by("picture").hidden) text = "No picture yet";
  setText(by("stale"), text);
  by("stale").hidden = !text;
  document.querySelector(".camera").classList.toggle("is-stale", Boolean(text));
}

// --- Connection -----------------------------------------------------------------------------------

function setConnected(connected) {
  if (connected) state.since = null;
  else if (!state.since) state.since = new Date();
  state.connected = connected;
  // The server of a file ends with it: nothing is lost.
  const finished = !connected && state.source === "ended";
  const isReady = connected && state.source !== "loading";
  by("connection").dataset.state = isReady ? "good" : connected || finished ? "waiting" : "bad";
  setText(by("connection"), connected ? "Connected" : finished ? "Finished" : "No connection");
  by("reset").disabled = !connected;
  showStale();
}

let events = null;
let pause = 500;

function connect() {
  state.heard = Date.now();
  events = new EventSource(`events?after=${encodeURIComponent(state.lastId)}`);
  const on = (name, action) =>
    events.addEventListener(name, (event) => {
      state.heard = Date.now();
      if (event.lastEventId) state.lastId = event.lastEventId;
      action(JSON.parse(event.data));
    });
  on("hello", (hello) => {
    if (state.start && hello.start !== state.start) {
      // Another server: it has none of the earlier records and sends its own.
      by("records").replaceChildren(make("li", "muted", "Recognition was started again"));
      showAlert(null);
    }
    state.start = hello.start;
    setText(by("title"), hello.title);
    pause = 500;
    setConnected(true);
  });
  on("view", showView);
  on("record", showRecord);
  on("beat", () => {});
  events.onerror = () => {
    setConnected(false);
    if (events.readyState === EventSource.CLOSED) again(); // else it comes again by itself
  };
}

function again() {
  events.close();
  setTimeout(connect, pause);
  pause = Math.min(2 * pause, LONGEST_PAUSE_MS);
}

setInterval(() => {
  if (Date.now() - state.heard > SILENT_MS) { // a cable may be cut without a word
    setConnected(false);
    state.heard = Date.now();
    again();
  }
  showStale();
}, 1000);

// --- Buttons --------------------------------------------------------------------------------------

by("dismiss").addEventListener("click", () => {
  showAlert(null);
  by("reset").focus();
});
by("reset").addEventListener("click", () => {
  setText(by("confirm-error"), "");
  by("confirm").showModal();
});
by("ask-picture").addEventListener("load", () => { by("ask-picture").hidden = false; });
async function post(path) {
  const response = await fetch(path, { method: "POST" });
  if (!response.ok) throw new Error(response.statusText);
}
// A person says that the installation that is asked for is correct (3k), or that it is not (3k + 1).
async function settle(kind) {
  const buttons = [by("ask-right"), by("ask-wrong")];
  for (const button of buttons) button.disabled = true; // until the next question
  try {
    await post(`confirm?step=${state.asked + kind}`);
    announce("Confirmed");
  } catch {
    for (const button of buttons) button.disabled = false;
    setText(by("ask-error"), failed());
  }
}
by("ask-right").addEventListener("click", () => settle(0));
by("ask-wrong").addEventListener("click", () => settle(1));
by("show-today").addEventListener("click", showToday);
by("close-today").addEventListener("click", () => by("today").close());
by("cancel").addEventListener("click", () => by("confirm").close());
by("do-reset").addEventListener("click", async () => {
  try {
    await post("reset");
    by("confirm").close();
    showAlert(null);
    announce("A new unit begins");
  } catch {
    setText(by("confirm-error"), failed());
  }
});

connect();
followPictures();
