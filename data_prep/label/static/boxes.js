// Boxes: two clicks on a frame draw one, or a drag; its corners can be moved in the same way.

import { by, clamp, setText } from "./page.js";
import { boxAt, withBox } from "./model.js";

const SVG = "http://www.w3.org/2000/svg";
const CORNERS = [[0, 0], [1, 0], [1, 1], [0, 1]];
const FIELDS = ["x", "y", "w", "h"];
const LEAST = 2; // pixels of a side

function element(name, values) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(values)) made.setAttribute(key, value);
  return made;
}

export class Boxes {
  /** @param app the page: its `video`, `frame` and `draw` */
  constructor(app) {
    Object.assign(this, { app, on: false, corner: null }); // corner: of the box that is being drawn
    this.overlay = by("overlay");
    this.overlay.addEventListener("pointerdown", (event) => this._press(event));
    this.overlay.addEventListener("pointermove", (event) => this._move(event));
    this.overlay.addEventListener("pointerup", () => this.dragged && this._finish());
    for (const field of FIELDS) by(`box-${field}`).addEventListener("change", () => this._fill());
    by("box-empty").addEventListener("click", () => this.empty());
    by("box-remove").addEventListener("click", () => this.remove());
  }

  toggle() {
    this.on = !this.on;
    this.corner = null;
  }

  open(width, height) {
    Object.assign(this, { width, height, corner: null });
    this.overlay.setAttribute("viewBox", `0 0 ${width} ${height}`);
  }

  empty() {
    this._set({ x: 0, y: 0, w: 0, h: 0 });
  }

  remove() {
    const { video, frame } = this.app;
    if (video.boxes.some((one) => one.frame === frame)) this._set(null);
  }

  _set(box) {
    const { video, frame } = this.app;
    video.change({ boxes: withBox(video.boxes, frame, box) });
  }

  /** The box with two corners, inside the picture; null where it is too thin. */
  _between(a, b) {
    const [x, right] = [a[0], b[0]].map((v) => clamp(v, 0, this.width)).sort((p, q) => p - q);
    const [y, bottom] = [a[1], b[1]].map((v) => clamp(v, 0, this.height)).sort((p, q) => p - q);
    const box = { x, y, w: right - x, h: bottom - y };
    for (const field of FIELDS) box[field] = Math.round(10 * box[field]) / 10;
    return box.w < LEAST || box.h < LEAST ? null : box;
  }

  _fill() {
    const [x, y, w, h] = FIELDS.map((field) => by(`box-${field}`).valueAsNumber);
    const box = [x, y, w, h].every(Number.isFinite) && this._between([x, y], [x + w, y + h]);
    if (box) this._set(box);
  }

  _point(event) {
    const place = new DOMPoint(event.clientX, event.clientY);
    const { x, y } = place.matrixTransform(this.overlay.getScreenCTM().inverse());
    return [x, y];
  }

  _press(event) {
    if (!this.on || event.button) return;
    const handle = CORNERS[event.target.dataset.corner];
    this.overlay.setPointerCapture(event.pointerId);
    this.start = this.end = this._point(event);
    this.dragged = false;
    if (this.corner) return this._finish();
    const box = handle && this.shown();
    this.corner = handle
      ? [box.x + (1 - handle[0]) * box.w, box.y + (1 - handle[1]) * box.h]
      : this.start;
    this.app.draw();
  }

  _move(event) {
    if (!this.corner) return;
    this.end = this._point(event);
    const far = this.width / 100;
    this.dragged = event.buttons && Math.hypot(...this.end.map((v, i) => v - this.start[i])) > far;
    this.app.draw();
  }

  _finish() {
    const box = this._between(this.corner, this.end);
    this.corner = null;
    this.dragged = false;
    if (box) this._set(box);
    this.app.draw();
  }

  /** What is to be seen at the frame: being drawn, drawn, carried, or nothing. */
  shown() {
    if (this.corner) return this._between(this.corner, this.end);
    return boxAt(this.app.video, this.app.frame);
  }

  draw() {
    const { overlay, on } = this;
    by("boxes").setAttribute("aria-pressed", on);
    by("box-fields").hidden = !on;
    overlay.classList.toggle("is-on", on);
    const box = this.shown();
    const parts = [];
    if (box?.w) {
      const { x, y, w, h } = box;
      parts.push(element("rect", { x, y, width: w, height: h, class: box.drawn === false ? "carried" : "" }));
      const r = Math.max(this.width, this.height) / 90;
      CORNERS.slice(0, on ? 4 : 0).forEach(([i, j], corner) => {
        parts.push(element("circle", { cx: x + i * w, cy: y + j * h, r, "data-corner": corner }));
      });
    }
    overlay.replaceChildren(...parts);
    by("box-count").hidden = !on;
    if (!on) return;
    const drawn = this.app.video.boxes.filter((one) => one.w).length;
    const here = !box ? "none" : !box.w ? "none whole" : box.drawn === false ? "carried" : "drawn";
    setText(by("box-count"), `${here} here, ${drawn} drawn`);
    for (const field of FIELDS) {
      const input = by(`box-${field}`);
      if (document.activeElement !== input) input.value = box?.w ? box[field].toFixed(1) : "";
    }
  }
}
