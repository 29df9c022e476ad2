// What training will do, its two commands, and a button that starts them.

import { ask, by, make, setText, wait } from "./page.js";

const WORDS = { idle: "", running: "Runs", failed: "Has failed", done: "Is finished" };
let following = false;
let running = false;
let ready = false; // there is a plan

const wanted = () => Object.fromEntries(new FormData(by("train-fields")));

/** Shows what training will do. */
export async function plan() {
  let found = { shown: {}, commands: [], replaces: [] };
  let error = "";
  try {
    found = await ask("/api/train/plan", { method: "POST", body: JSON.stringify(wanted()) });
  } catch (refused) {
    error = refused.message;
  }
  setText(by("train-error"), error);
  const rows = Object.entries(found.shown).map(([name, text]) => {
    const row = make("div");
    row.append(make("dt", "", name), make("dd", "", text));
    return row;
  });
  by("train-plan").replaceChildren(...rows);
  by("commands").replaceChildren(...found.commands.map((command) => make("code", "", command)));
  const replaces = found.replaces.join("; ");
  by("train-replace").checked &&= replaces === by("train-replaces").textContent;
  setText(by("train-replaces"), replaces);
  by("train-agree").hidden = !replaces;
  ready = found.commands.length > 0;
  drawStart();
}

function drawStart() {
  const agreed = by("train-agree").hidden || by("train-replace").checked;
  by("train-start").disabled = running || !ready || !agreed;
}

function draw({ state, line, share }) {
  running = state === "running";
  setText(by("train-state"), WORDS[state]);
  if (running) setText(by("train-error"), "");
  setText(by("train-line"), line ?? "");
  drawStart();
  by("train-stop").hidden = !running;
  by("train-bar").hidden = state === "idle";
  if (share === null && running) by("train-bar").removeAttribute("value");
  else by("train-bar").value = share ?? (state === "done" ? 1 : 0);
  setText(by("train"), running ? `Training ${share === null ? "…" : `${Math.floor(100 * share)} %`}` : "Train…");
}

/** Shows how training goes on until it ends. */
export async function follow() {
  if (following) return;
  following = true;
  try {
    for (;;) {
      const found = await ask("/api/train");
      draw(found);
      if (found.state !== "running") return;
      await wait(1000);
    }
  } catch (error) {
    setText(by("train-error"), error.message);
  } finally {
    following = false;
  }
}

async function send(path, body) {
  try {
    await ask(path, { method: "POST", body: JSON.stringify(body) });
  } catch (error) {
    setText(by("train-error"), error.message);
    return;
  }
  follow();
}

by("train-fields").addEventListener("change", plan);
by("train-replace").addEventListener("change", drawStart);
by("train-start").addEventListener("click", () => {
  send("/api/train", { ...wanted(), replace: by("train-replace").checked });
});
by("train-stop").addEventListener("click", () => send("/api/train/stop"));
