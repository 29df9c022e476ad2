// The labels and boxes of one video: changes, undoing them, and saving each at once.

import { address, ask, by, choose, Refused, setText, wait } from "./page.js";
import { equal } from "./model.js";

const KINDS = { labels: ["labels", "done", "answered"], boxes: ["boxes"] };
const KEPT_ALIVE = 60_000; // bytes that a browser sends on after its page is gone
let asked = Promise.resolve(); // one question at a time

/** What the server knows of a video, once it has built its index, which it does anew when it starts. */
async function fresh(name) {
  for (;;) {
    const found = await ask(address(name));
    if (found.frames !== null) return found;
    await wait(1000);
  }
}

export class Document {
  constructor(content, onChange) {
    Object.assign(this, content);
    this.revisions = { labels: content.revision, boxes: content.boxes_revision };
    this.onChange = onChange;
    [this.past, this.future] = [[], []];
    this.dirty = { labels: false, boxes: false };
    this.lost = { labels: [], boxes: [] }; // rows that were sent, and no answer came
    this.saving = null;
    this.looks = Promise.resolve(); // at the files, one after the other
    this.error = "";
    this.count = 0; // of saves, to know whether an answer is older than one
  }

  get saved() {
    return !this.saving && !this.dirty.labels && !this.dirty.boxes && !this.error;
  }

  _take() {
    const { labels, done, answered, boxes } = this;
    return { labels, done, answered, boxes };
  }

  /** Sets some of labels, done, answered and boxes to new values, and saves them. */
  change(values) {
    this.past.push(this._take());
    this.future = [];
    this._set(values);
  }

  undo() {
    return this._step(this.past, this.future);
  }

  redo() {
    return this._step(this.future, this.past);
  }

  _step(from, to) {
    if (!from.length) return false;
    to.push(this._take());
    this._set(from.pop());
    return true;
  }

  _set(values) {
    for (const [kind, fields] of Object.entries(KINDS)) {
      if (fields.some((field) => field in values && values[field] !== this[field])) {
        this.dirty[kind] = true;
      }
    }
    Object.assign(this, values);
    this.saving ??= this._save();
    this.onChange(this);
  }

  async _save() {
    await null; // so that `saving` is set
    while (this.dirty.labels || this.dirty.boxes) {
      const kind = this.dirty.labels ? "labels" : "boxes";
      this.dirty[kind] = false;
      const sent = this[kind];
      try {
        await this._put(kind);
        this.lost[kind] = [];
        this.error = "";
      } catch (error) {
        if (error.status === 409) {
          this.error = "";
          await this._ask(kind, error.answer, [sent, ...this.lost[kind]]);
          continue;
        }
        this.lost[kind].push(sent); // the server may have written it and then ended
        this.error = error instanceof Refused ? error.message : "no connection to the server";
        this.dirty[kind] = true;
        this.onChange(this);
        await wait(1000);
      }
    }
    this.saving = null;
    this.onChange(this);
  }

  async _put(kind) {
    const values = Object.fromEntries(KINDS[kind].map((field) => [field, this[field]]));
    const body = JSON.stringify({ revision: this.revisions[kind], ...values });
    const headers = { "Content-Type": "application/json" };
    const keepalive = body.length < KEPT_ALIVE;
    this.count += 1;
    const path = `${address(this.name)}/${kind}`;
    const answer = await ask(path, { method: "PUT", body, headers, keepalive });
    this.revisions[kind] = answer.revision;
    if (kind === "labels") this.warnings = answer.warnings;
  }

  /** Asks whose rows hold: the file's, which somebody else has changed, or those of the page. */
  async _ask(kind, found, ours) {
    const theirs = found[kind];
    this.lost[kind] = [];
    if (ours.some((rows) => equal(theirs, rows))) { // the answer was lost; or only `done` was changed
      this.revisions[kind] = found.revision;
      this.dirty[kind] ||= KINDS[kind].some((field) => !equal(this[field], found[field]));
      return;
    }
    const turn = asked.then(() => {
      setText(by("conflict-what"), `${kind === "labels" ? "The labels" : "The boxes"} of ${this.name}`);
      setText(by("conflict-theirs"), theirs.length);
      setText(by("conflict-mine"), this[kind].length);
      return choose(by("conflict"));
    });
    asked = turn;
    const mine = (await turn) === "mine";
    this.revisions[kind] = found.revision;
    this.dirty[kind] = mine;
    if (mine) return;
    this.past.push(this._take()); // Ctrl+Z brings back what the page had
    this.future = [];
    for (const field of KINDS[kind]) this[field] = found[field];
    this.onChange(this);
  }

  /** Looks at the files after somebody, perhaps this page, has changed them. */
  refresh(revision) {
    this.looks = this.looks.then(() => this._look(revision)).catch(() => {}); // the next one looks again
  }

  async _look(revision) {
    for (;;) {
      await this.saving;
      if (revision === this.revisions.labels) return; // of this page's own change
      const { count } = this;
      const found = await fresh(this.name);
      if (this.saving || count !== this.count) continue;
      const { proposals, warnings } = found;
      Object.assign(this, { proposals, warnings });
      for (const [kind, now] of [["labels", found.revision], ["boxes", found.boxes_revision]]) {
        if (now === this.revisions[kind]) continue;
        this.saving ??= this._ask(kind, { ...found, revision: now }, [this[kind]]).then(() => this._save());
        this.onChange(this); // it is not saved until somebody has chosen
        await this.saving;
      }
      this.onChange(this);
      return;
    }
  }
}

export async function open(name, onChange) {
  return new Document(await fresh(name), onChange);
}
