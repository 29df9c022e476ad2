// Elements of the page, requests, and what is said to people. Everything is only ever set as text.

export const by = (id) => document.getElementById(id);

export function make(name, className, text) {
  const element = document.createElement(name);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

// Only what changes is set, so that screen readers hear of nothing else.
export function setText(element, text) {
  if (element.textContent !== String(text)) element.textContent = text;
}

export function fitRows(list, length, makeRow) {
  while (list.children.length > length) list.lastElementChild.remove();
  while (list.children.length < length) list.append(makeRow());
  return [...list.children];
}

export const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
export const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

export function clock(seconds) {
  const tenths = Math.floor(10 * seconds + 1e-6);
  const rest = String(Math.floor(tenths / 10) % 60).padStart(2, "0");
  return `${Math.floor(tenths / 600)}:${rest}.${tenths % 10}`;
}

// What was done, or why nothing was; an alert interrupts screen readers.
export function say(text, { alert = false } = {}) {
  setText(by("say"), alert ? "" : text);
  setText(by("alert"), alert ? text : "");
}

export class Refused extends Error {
  constructor(status, answer) {
    super(answer.error || `the server answers ${status}`);
    Object.assign(this, { status, answer });
  }
}

/** Returns the JSON of an answer; throws Refused for other ones than 2xx, TypeError without one. */
export async function ask(path, options = {}) {
  const response = await fetch(path, options);
  const text = await response.text();
  let answer = {};
  try {
    answer = JSON.parse(text || "{}");
  } catch {
    answer = { error: text.slice(0, 300) };
  }
  if (response.status === 401) {
    answer.error = "the server asks for its token: open the address that it printed last";
  }
  if (!response.ok) throw new Refused(response.status, answer);
  return answer;
}

export const address = (name) => `/api/videos/${encodeURIComponent(name)}`;

/** Shows a dialog; returns the value of the button that closes it, "" for Escape. */
export function choose(dialog) {
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue), { once: true });
  });
}
