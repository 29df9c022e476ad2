// The two commands that train, and a button that starts them.

import { ask, by, make, setText, wait } from "./page.js";

const WORDS = { idle: "", running: "Runs", failed: "Has failed", done: "Is finished" };
let following = false;

export function drawCommands(commands) {
  by("commands").replaceChildren(...commands.map((command) => make("code", "", command)));
}

function draw({ state, line, share }) {
  const running = state === "running";
  setText(by("train-state"), WORDS[state]);
  if (running) setText(by("train-error"), "");
  setText(by("train-line"), line ?? "");
  by("train-start").disabled = running;
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

async function send(path) {
  try {
    await ask(path, { method: "POST" });
  } catch (error) {
    setText(by("train-error"), error.message);
    return;
  }
  follow();
}

by("train-start").addEventListener("click", () => send("/api/train"));
by("train-stop").addEventListener("click", () => send("/api/train/stop"));
