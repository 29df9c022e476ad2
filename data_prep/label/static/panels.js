// The lists beside the picture: videos and what is left to do, parts and their steps, labels.

import { by, clock, fitRows, make, setText } from "./page.js";
import { refusal, stateAt, unmet } from "./model.js";

const SIGNS = { unlabelled: "○", begun: "◐", done: "●" };
const STATES = { 1: ["✓", "on"], "-1": ["✗", "wrong"], 0: ["·", "off"] };
const NAMED = 2; // parts that have to come first; the tooltip has all
const KINDS = { install: "Install", wrong: "Wrong", remove: "Remove" };

export function drawVideos({ videos, left, errors }, open) {
  const makeRow = () => {
    const row = make("li");
    const button = make("button");
    button.append(make("span", "sign"), make("span", "name"), make("span", "note"));
    row.append(button);
    return row;
  };
  fitRows(by("videos"), videos.length, makeRow).forEach((row, i) => {
    const { name, status, indexed, uncertainty, warnings } = videos[i];
    const button = row.firstElementChild;
    const [sign, text, note] = button.children;
    const notes = [];
    if (!indexed) notes.push("reading");
    if (uncertainty !== null) notes.push(`uncertain ${Math.round(100 * uncertainty)} %`);
    if (warnings.length) notes.push(`⚠ ${warnings.length}`);
    button.dataset.video = name;
    button.title = [status, ...warnings].join("\n");
    button.setAttribute("aria-label", [name, status, ...notes, ...warnings].join(", "));
    if (name === open) button.setAttribute("aria-current", "true");
    else button.removeAttribute("aria-current");
    setText(sign, SIGNS[status]);
    setText(text, name);
    setText(note, notes.join(" · "));
  });
  setText(by("left"), `${left.labelled} of ${left.suggested} videos that our measurements suggest`);
  by("left").classList.toggle("is-reached", left.labelled >= left.suggested);
  const asked = left.wrong_suggested;
  setText(by("errors"), errors.join("\n"));
  setText(by("left-wrong"), `Installed incorrectly, of ${asked} times each`);
  const parts = Object.entries(left.wrong);
  fitRows(by("wrong-list"), parts.length, () => make("li")).forEach((row, i) => {
    setText(row, `${parts[i][0]}: ${parts[i][1]}`);
    row.classList.toggle("is-reached", parts[i][1] >= asked);
  });
}

/** Makes a row for each part, with a button for each of its steps. */
export function makeChecklist({ procedure }) {
  by("checklist").replaceChildren(...procedure.components.map((part, k) => {
    const row = make("li");
    const steps = procedure.steps.filter((step) => step.component === k);
    row.append(make("kbd", "", steps[0].key ?? ""), make("span", "sign"));
    const text = make("span", "name", part);
    text.append(make("small"));
    row.append(text, ...steps.map((step) => {
      const button = make("button", step.kind, KINDS[step.kind]);
      Object.assign(button.dataset, { step: step.name, id: step.id });
      return button;
    }));
    return row;
  }));
}

export function drawChecklist(video, frame, steps, pending) {
  const state = stateAt(video, steps, frame);
  by("checklist").dataset.pending = pending ?? "";
  [...by("checklist").children].forEach((row, k) => {
    const { value, since } = state[k];
    const [sign, word] = STATES[value];
    row.dataset.state = word;
    setText(row.children[1], sign);
    let note = since === null ? "" : `since ${clock(since / video.fps)}`;
    if (value < 0) note = `wrong ${note}`;
    for (const button of row.querySelectorAll("button")) {
      const step = steps[button.dataset.id];
      const why = refusal(video, steps, frame, step);
      const first = why ? [] : unmet(video, state, steps, step);
      const reason = why || (first.length ? `first: ${first.map((one) => one.name).join(", ")}` : "");
      if (step.kind === "install" && first.length) {
        const more = first.length > NAMED ? ` and ${first.length - NAMED} more` : "";
        note = `first: ${first.slice(0, NAMED).map((one) => one.part).join(", ")}${more}`;
      }
      button.setAttribute("aria-disabled", Boolean(why));
      button.classList.toggle("early", first.length > 0);
      button.title = reason || step.name;
      button.setAttribute("aria-label", reason ? `${step.name} (${reason})` : step.name);
    }
    setText(row.querySelector("small"), note);
  });
}

/** How sure a proposal is; without a confidence, the model says of itself that it is not. */
export function sureness({ confidence, uncertain }) {
  if (confidence === null) return "not sure";
  return `${Math.round(100 * confidence)} %${uncertain ? ", uncertain" : ""}`;
}

export function drawRows(rows, frame, fps) {
  const makeRow = () => {
    const row = make("li");
    const button = make("button");
    button.append(make("span", "time"), make("span", "name"), make("span", "note"));
    row.append(button, make("p", "bad"));
    return row;
  };
  const list = by("rows");
  let here = null;
  fitRows(list, rows.length, makeRow).forEach((element, i) => {
    const row = rows[i];
    const [button, error] = element.children;
    const [time, text, note] = button.children;
    element.className = row.kind + (row.uncertain ? " uncertain" : "");
    button.dataset.at = row.frame;
    setText(time, clock(row.frame / fps));
    setText(text, row.text);
    setText(note, row.kind === "proposal" ? sureness(row) : "");
    setText(error, (row.notes ?? []).join("\n"));
    element.classList.toggle("here", row.frame === frame);
    if (row.frame === frame) here ??= element;
  });
  by("no-rows").hidden = rows.length > 0;
  here?.scrollIntoView({ block: "nearest" });
}
