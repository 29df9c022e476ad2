// The labelling page: what is open, what keys and clicks do, and when it is drawn.

import { Boxes } from "./boxes.js";
import { open as openDocument } from "./document.js";
import { inOrder, isAnswered, refusal, rowsOf, same, stateAt, unmet } from "./model.js";
import { ask, by, choose, clamp, clock, say, setText } from "./page.js";
import * as panels from "./panels.js";
import { Picture } from "./picture.js";
import { Timeline } from "./timeline.js";
import { follow, plan } from "./training.js";

const PENDING = { wrong: "Installed incorrectly", remove: "Removed" };
const PROJECT_MS = 1500; // between two looks at the list of videos
const LATER_MS = 300; // an address may be set some hundred times a minute, no more

const app = {
  project: null,
  steps: [], // by id
  video: null, // a Document
  frame: 0,
  pending: null, // wrong or remove: the next step key is of that kind
  drag: null, // a label on its way: {row, frame}
  connected: true,
  draw,
};
const field = document.querySelector("input[name=frame]");
const boxes = new Boxes(app);
const timeline = new Timeline(go, dragLabel, draw);
const picture = new Picture(
  (frame) => {
    app.frame = frame;
    draw();
  },
  (reason) => say(reason, { alert: true }),
);

// --- Drawing --------------------------------------------------------------------------------------

let planned = 0;

function draw() {
  planned ||= requestAnimationFrame(() => {
    planned = 0;
    if (app.project) panels.drawVideos(app.project, app.video?.name);
    if (app.video) drawVideo();
  });
  if (app.video) drawSaved();
}

/** At once, as checks and people go by it. */
function drawSaved() {
  const { video, frame, connected } = app;
  const chip = by("saved");
  chip.dataset.saved = video.saved;
  const text = video.error ? `Not saved: ${video.error}` : "Saving…";
  setText(chip, video.saved ? (connected ? "Saved" : "Saved · no connection") : text);
  setText(document.querySelector("[data-frame]"), frame);
}

/** The video, with a label that is being dragged where it is now. */
function seen() {
  const { video, drag } = app;
  if (!drag) return video;
  const { step_id } = drag.row;
  const moved = { frame: drag.frame, step_id };
  const others = video.labels.filter((row) => !same(row, drag.row) && !same(row, moved));
  return { ...video, labels: inOrder([...others, moved]) };
}

function drawVideo() {
  const { video, frame, steps } = app;
  const shown = seen();
  const rows = rowsOf(shown, steps);
  panels.drawChecklist(shown, frame, steps, app.pending);
  panels.drawRows(rows, frame, video.fps);
  timeline.draw(rows, frame, steps);
  boxes.draw();
  setText(by("clock"), clock(frame / video.fps));
  if (document.activeElement !== field) field.value = frame;
  setText(by("play"), picture.playing ? "Pause" : "Play");
  by("undo").disabled = !video.past.length;
  by("redo").disabled = !video.future.length;
  by("done").setAttribute("aria-pressed", video.done);
  planAddress();
}

let addressAt = 0;

function planAddress() {
  addressAt ||= setTimeout(() => {
    addressAt = 0;
    if (!app.video) return;
    const query = new URLSearchParams({ video: app.video.name, frame: app.frame });
    history.replaceState(null, "", `/?${query}`);
  }, LATER_MS);
}

// --- Opening --------------------------------------------------------------------------------------

let opening = 0;

async function open(name, frame = 0) {
  const turn = ++opening;
  if (app.video && !app.video.saved) await app.video.saving; // which may ask about a conflict
  if (turn !== opening) return;
  const entry = app.project.videos.find((video) => video.name === name);
  picture.stop();
  Object.assign(app, { video: null, frame: 0, pending: null, drag: null });
  document.body.classList.remove("is-open");
  document.title = `${name} · Label`;
  setText(by("recording"), name);
  setText(by("note"), "Opening…");
  app.waits = null;
  if (!entry) return setText(by("note"), `There is no video ${name}: choose one of the list`);
  if (entry.frames === null) {
    app.waits = { name, frame };
    return setText(by("note"), entry.warnings.join("\n") || "Reading the video");
  }
  try {
    const video = await openDocument(name, onChange);
    if (turn !== opening) return;
    app.video = video;
    video.carried = app.project.carried * video.fps;
    boxes.open(entry.width, entry.height);
    picture.open(video, entry.playable);
    timeline.open(video);
    setText(by("frames"), video.frames - 1);
    setText(by("note"), "");
    document.body.classList.add("is-open");
    by("stage").style.setProperty("--ratio", entry.width / entry.height);
    go(frame);
  } catch (error) {
    if (turn === opening) setText(by("note"), error.message);
  }
}

function onChange(video) {
  if (video === app.video) draw();
  if (video.saved) planProject();
}

let projectAt = 0;

function planProject() {
  projectAt ||= setTimeout(() => {
    projectAt = 0;
    loadProject().catch(() => {});
  }, PROJECT_MS);
}

async function loadProject() {
  app.project = await ask("/api/project");
  setText(by("proposed-by"), app.project.stream && `Proposed by ${app.project.stream}`);
  const { procedure } = app.project;
  const { components } = procedure;
  app.steps = [];
  for (const step of procedure.steps) app.steps[step.id] = { ...step, part: components[step.component] };
  setText(by("title"), procedure.name);
  if (by("train-dialog").open) plan();
  if (app.waits) open(app.waits.name, app.waits.frame);
  if (app.project.videos.some((video) => !video.indexed)) planProject();
  draw();
}

function listen() {
  const events = new EventSource("/api/changes");
  events.onmessage = ({ data }) => {
    const { video, revision } = JSON.parse(data);
    if (app.video && video === app.video.name) app.video.refresh(revision);
    planProject();
    follow();
  };
  events.onopen = () => {
    if (!app.connected) app.video?.refresh();
    app.connected = true;
    draw();
  };
  events.onerror = () => {
    app.connected = false;
    draw();
    if (events.readyState === EventSource.CLOSED) setTimeout(listen, 1000);
  };
}

// --- What is done ---------------------------------------------------------------------------------

function go(frame) {
  if (!app.video) return;
  picture.stop();
  boxes.corner = null;
  app.frame = clamp(Math.round(Number(frame)) || 0, 0, app.video.frames - 1);
  picture.show(app.frame);
  draw();
}

const at = (frame) => `frame ${frame}, ${clock(frame / app.video.fps)}`;

function label(step) {
  const { video, frame, steps } = app;
  app.pending = null;
  draw();
  const why = refusal(video, steps, frame, step);
  if (why) return say(`Not labelled: ${why}`);
  const first = unmet(video, stateAt(video, steps, frame), steps, step);
  const isOther = (row) => row.frame !== frame || steps[row.step_id].component !== step.component;
  const labels = inOrder([...video.labels.filter(isOther), { frame, step_id: step.id }]);
  video.change({ labels });
  const what = `${step.name} at ${at(frame)}`;
  if (!first.length) return say(what);
  const names = first.map((one) => one.name).join(", ");
  say(`${what}: ${names} should come first`, { alert: true });
}

const labelById = (id) => app.video && label(app.steps[id]);

function labelByKey(key) {
  const kind = app.pending ?? "install";
  const step = app.steps.find((one) => one.key === key && one.kind === kind);
  if (step) label(step);
  else say(`No part has the key ${key}`);
}

function remove() {
  const { video, frame, steps } = app;
  const last = video.labels.filter((row) => row.frame === frame).at(-1);
  if (!last) return say(`No label at ${at(frame)}; ↑ and ↓ go to labels`);
  video.change({ labels: video.labels.filter((row) => row !== last) });
  say(`Removed the label ${steps[last.step_id].name}`);
}

function answer(accept) {
  const { video, frame, steps } = app;
  const proposal = video.proposals.find((one) => one.frame === frame && !isAnswered(video, one));
  if (!proposal) return say(`No proposal at ${at(frame)}; Shift+J goes to the next thing to look at`);
  if (accept) return label(steps[proposal.step_id]);
  video.change({ answered: [...video.answered, { frame, step_id: proposal.step_id }] });
  say(`Rejected: ${steps[proposal.step_id].name}`);
}

/** To the next (1) or last (-1) frame with a row, or with one to look at. */
function goToRow(way, look) {
  const rows = rowsOf(app.video, app.steps).filter((row) => row.look || !look);
  const frames = rows.map((row) => row.frame).filter((frame) => way * (frame - app.frame) > 0);
  if (frames.length) return go(way > 0 ? Math.min(...frames) : Math.max(...frames));
  say(look ? "Nothing more to look at in this direction" : "No more labels in this direction");
}

function openNext(way) {
  const names = app.project.videos.map((video) => video.name);
  const next = names[names.indexOf(app.video?.name) + way];
  if (next) open(next);
  else say("No more videos in this direction");
}

function dragLabel(row, frame, isEnd) {
  app.drag = { row, frame };
  app.frame = frame;
  picture.show(frame);
  if (isEnd) {
    const { labels } = seen();
    app.drag = null;
    if (frame !== row.frame) app.video.change({ labels });
  }
  draw();
}

function play() {
  if (picture.playing) picture.stop();
  else picture.play(app.frame < app.video.frames - 1 ? app.frame : 0);
  draw();
}

by("speed").addEventListener("change", ({ target }) => {
  const { playing } = picture;
  picture.stop();
  picture.speed = Number(target.value);
  target.blur(); // keys are the page's again
  if (playing) play();
});

function undo(isUndo) {
  const done = isUndo ? app.video.undo() : app.video.redo();
  say(done ? (isUndo ? "Undone" : "Redone") : `Nothing to ${isUndo ? "undo" : "redo"}`);
}

function wait(kind) {
  app.pending = kind;
  say(`${PENDING[kind]}: press the key of the part (Esc: none)`);
  draw();
}

function toggleBoxes() {
  boxes.toggle();
  say(boxes.on ? "Boxes: click two corners; Shift+E: no whole object here; Shift+X: no box" : "");
  draw();
}

const toggleDone = () => app.video.change({ done: !app.video.done });

function showTraining() {
  by("train-dialog").showModal();
  plan();
  follow();
}

// --- Keys and clicks ------------------------------------------------------------------------------

const second = () => Math.max(1, Math.round(app.video.fps));
const KEYS = {
  " ": play,
  ArrowLeft: () => go(app.frame - 1),
  ArrowRight: () => go(app.frame + 1),
  ArrowUp: () => goToRow(-1),
  ArrowDown: () => goToRow(1),
  Home: () => go(0),
  End: () => go(app.video.frames - 1),
  Backspace: remove,
  Enter: () => answer(true),
  Delete: () => answer(false),
  "+": () => timeline.zoom(2, app.frame),
  "-": () => timeline.zoom(0.5, app.frame),
  Escape: () => {
    app.pending = boxes.corner = null;
    say("");
    draw();
  },
};
const SHIFTED = {
  ArrowLeft: () => go(app.frame - second()),
  ArrowRight: () => go(app.frame + second()),
  W: () => wait("wrong"),
  R: () => wait("remove"),
  J: () => goToRow(1, true),
  K: () => goToRow(-1, true),
  B: toggleBoxes,
  E: () => boxes.on && boxes.empty(),
  X: () => boxes.on && boxes.remove(),
  D: toggleDone,
  G: () => field.select(),
};
const ALWAYS = { N: () => openNext(1), P: () => openNext(-1), T: showTraining }; // without a video too

function actionOf(event) {
  const { key, code, shiftKey, ctrlKey, metaKey, altKey } = event;
  const letter = key.length === 1 ? key.toUpperCase() : key;
  if (ctrlKey || metaKey) {
    if (!app.video) return null;
    if (letter === "Y" || (letter === "Z" && shiftKey)) return () => undo(false);
    return letter === "Z" ? () => undo(true) : null;
  }
  if (altKey) return null;
  if (key === "?") return () => choose(by("help-dialog"));
  if (shiftKey && letter in ALWAYS) return ALWAYS[letter];
  if (!app.video) return null;
  if (key in KEYS && !(shiftKey && key in SHIFTED)) return KEYS[key];
  if (shiftKey && letter in SHIFTED) return SHIFTED[letter];
  // Digits by their place, as some keyboards have them on Shift; letters whatever Caps Lock says.
  const digit = /^(?:Digit|Numpad)([1-9])$/.exec(code)?.[1];
  if (digit || (!shiftKey && /^[A-Z1-9]$/.test(letter))) {
    return event.repeat ? () => {} : () => labelByKey(digit ?? letter.toLowerCase());
  }
  return null;
}

document.addEventListener("keydown", (event) => {
  const { target, key } = event;
  if (document.querySelector("dialog[open]") || event.isComposing) return;
  if (target.matches("input, select")) {
    if (key === "Escape") target.blur();
    if (key === "Enter") {
      if (target === field) go(field.value);
      target.blur();
    }
    return;
  }
  // A button that was reached by Tab does what it says.
  if (target.matches("button, summary") && (key === " " || key === "Enter")) return;
  const action = actionOf(event);
  if (!action) return;
  event.preventDefault();
  action();
});

document.addEventListener("click", (event) => {
  const button = event.target.closest("button, summary");
  if (!button) return;
  if (event.detail && !button.closest("dialog")) button.blur(); // keys are the page's again
  const { id, at: frame, video } = button.dataset;
  if (id !== undefined) labelById(id);
  else if (frame !== undefined) go(frame);
  else if (video !== undefined) open(video);
});

const withVideo = (action) => () => app.video && action();
by("play").addEventListener("click", withVideo(play));
by("undo").addEventListener("click", withVideo(() => undo(true)));
by("redo").addEventListener("click", withVideo(() => undo(false)));
by("done").addEventListener("click", withVideo(toggleDone));
by("boxes").addEventListener("click", withVideo(toggleBoxes));
by("zoom-in").addEventListener("click", withVideo(KEYS["+"]));
by("zoom-out").addEventListener("click", withVideo(KEYS["-"]));
by("train").addEventListener("click", showTraining);
by("help").addEventListener("click", () => choose(by("help-dialog")));
window.addEventListener("beforeunload", (event) => {
  if (app.video && !app.video.saved) event.preventDefault();
});

// --- Start ----------------------------------------------------------------------------------------

try {
  await loadProject();
  panels.makeChecklist(app.project);
  const query = new URLSearchParams(location.search);
  const first = app.project.videos
    .find((video) => video.status !== "done") ?? app.project.videos[0];
  const name = query.get("video") ?? first?.name;
  if (name) open(name, query.get("frame") ?? 0);
  else setText(by("note"), "There are no videos");
  listen();
  follow();
} catch (error) {
  setText(by("note"), error.message);
}
