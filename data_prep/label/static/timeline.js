// The timeline: ticks of labels that can be dragged, proposals, boxes, the cursor, zoom.

import { by, clamp, clock, fitRows, make } from "./page.js";
import { carries } from "./model.js";
import { sureness } from "./panels.js";

const LEAST = 20; // frames that are seen at once, at the highest zoom
const WIDTH = 22; // pixels of a tick
const LANES = 2; // for ticks that lie on each other
const MARKS = 8; // times written below, at most
const STEPS = [0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600];

export class Timeline {
  /**
   * @param jump called with the frame that was clicked
   * @param move called with a label's row, its new frame, and whether it was let go
   * @param redraw called when other frames or more of them are to be seen
   */
  constructor(jump, move, redraw) {
    Object.assign(this, { jump, move, redraw });
    this.element = by("timeline");
    [this.first, this.span] = [0, 1];
    this.element.addEventListener("pointerdown", (event) => this._press(event));
    this.element.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoom(event.deltaY < 0 ? 1.25 : 0.8, this._frameAt(event));
    }, { passive: false });
    new ResizeObserver(() => this.redraw()).observe(this.element);
  }

  open(video) {
    this.video = video;
    [this.first, this.span] = [0, Math.max(1, video.frames)];
  }

  /** Shows so many times fewer frames, around `at`. */
  zoom(factor, at) {
    const { frames } = this.video;
    const span = clamp(this.span / factor, Math.min(LEAST, frames), frames);
    this.first = clamp(at - ((at - this.first) * span) / this.span, 0, frames - span);
    this.span = span;
    this.redraw();
  }

  _x(frame) {
    return ((frame + 0.5 - this.first) / this.span) * this.element.clientWidth;
  }

  _frameAt(event) {
    const box = this.element.getBoundingClientRect();
    const share = (event.clientX - box.left) / box.width;
    return clamp(Math.floor(this.first + share * this.span), 0, this.video.frames - 1);
  }

  _press(event) {
    if (!this.video || event.button) return;
    event.preventDefault();
    const row = this.rows[event.target.closest(".tick")?.dataset.row];
    const label = row?.kind === "label" ? row : null;
    if (row) this.jump(row.frame);
    else this.jump(this._frameAt(event));
    const { element } = this;
    const start = event.clientX;
    let dragged = false;
    let frame = row?.frame;
    element.setPointerCapture(event.pointerId);
    const onMove = (moved) => {
      dragged ||= Math.abs(moved.clientX - start) > 3;
      if (!dragged || this._frameAt(moved) === frame) return;
      frame = this._frameAt(moved);
      if (label) this.move(label, frame, false);
      else if (!row) this.jump(frame);
    };
    const end = () => {
      element.removeEventListener("pointermove", onMove);
      if (label) this.move(label, dragged ? frame : label.frame, true);
    };
    element.addEventListener("pointermove", onMove);
    element.addEventListener("lostpointercapture", end, { once: true });
  }

  /** Draws the rows of a video, and the cursor, which stays in sight. */
  draw(rows, frame, steps) {
    const { element, video } = this;
    if (frame < this.first || frame >= this.first + this.span) {
      this.first = clamp(frame - this.span / 2, 0, video.frames - this.span);
    }
    this.rows = rows.filter((row) => row.kind !== "warning");
    const ends = Array(LANES).fill(-Infinity);
    const ticks = fitRows(by("ticks"), this.rows.length, () => make("div"));
    this.rows.forEach((row, i) => {
      const x = this._x(row.frame);
      const free = ends.findIndex((end) => x >= end);
      const lane = free < 0 ? ends.indexOf(Math.min(...ends)) : free;
      ends[lane] = x + WIDTH;
      const step = steps[row.step_id];
      const tick = ticks[i];
      const kind = row.kind === "label" ? step.kind : "proposal";
      tick.className = `tick ${kind}${row.notes?.length ? " bad" : ""}${row.frame === frame ? " here" : ""}`;
      tick.dataset.row = i;
      tick.dataset.lane = lane;
      tick.hidden = x < -WIDTH || x > element.clientWidth + WIDTH;
      tick.style.left = `${x}px`;
      tick.title = row.kind === "label" ? step.name : `${step.name}: proposed, ${sureness(row)}`;
      tick.textContent = { install: "", wrong: "✗", remove: "−" }[step.kind] + (step.key ?? "•");
    });
    by("cursor").style.left = `${this._x(frame)}px`;
    this._drawBoxes();
    this._drawMarks();
    element.setAttribute("aria-valuemax", video.frames - 1);
    element.setAttribute("aria-valuenow", frame);
    element.setAttribute("aria-valuetext", `frame ${frame}, ${clock(frame / video.fps)}`);
  }

  _drawBoxes() {
    const { boxes } = this.video;
    const spans = boxes.map((box, i) => {
      const end = carries(this.video, box, boxes[i + 1]) ? boxes[i + 1] : box;
      return [box.frame, end.frame, box.w ? "" : " empty"];
    });
    fitRows(by("box-track"), spans.length, () => make("div")).forEach((element, i) => {
      const [from, to, kind] = spans[i];
      element.className = `span${kind}`;
      element.style.left = `${this._x(from) - 2}px`;
      element.style.width = `${this._x(to) - this._x(from) + 4}px`;
    });
  }

  _drawMarks() {
    const { fps } = this.video;
    const seconds = this.span / fps;
    const step = STEPS.find((one) => seconds / one <= MARKS) ?? seconds;
    const from = Math.ceil(this.first / fps / step);
    const count = Math.max(0, Math.floor((this.first + this.span) / fps / step) - from + 1);
    fitRows(by("marks"), count, () => make("span")).forEach((mark, i) => {
      const time = (from + i) * step;
      mark.textContent = clock(time);
      mark.style.left = `${this._x(time * fps)}px`;
    });
  }
}
