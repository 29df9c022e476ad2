// The picture at a frame: of the server, which is exact, or of the browser's player while it plays.

import { address, by } from "./page.js";
import { frameAt } from "./model.js";

const KEPT = 48; // decoded pictures
const AHEAD = 6; // in the direction of the last step
const GRAIN = 320; // widths that are asked for are multiples of so many pixels

export class Picture {
  /**
   * @param onFrame called with each frame that is shown while the video plays
   * @param onError called with the reason when a picture cannot be had
   */
  constructor(onFrame, onError) {
    Object.assign(this, { onFrame, onError });
    this.canvas = by("picture");
    this.player = by("player");
    this.kept = new Map(); // by frame a promise of its picture, the oldest first
    this.video = null;
    this.playing = false;
    this.speed = 1;
    this.jump = new AbortController(); // ends all fetches
    this.player.addEventListener("error", () => {
      if (!this.player.getAttribute("src")) return;
      this.native = false;
      if (this.playing) this._playPictures();
    });
    this.player.addEventListener("ended", () => this.stop(this.video.frames - 1));
  }

  open(video, playable) {
    this.stop();
    this.jump.abort();
    this._forget(0);
    this.video = video;
    this.wanted = this.shown = null;
    delete this.canvas.dataset.shown;
    // What the server knows is a guess by the codec; the browser has the last word.
    this.native = playable && "requestVideoFrameCallback" in HTMLVideoElement.prototype;
    if (this.native) this.player.src = `/media/${encodeURIComponent(video.name)}`;
    else this.player.removeAttribute("src");
    this.player.load();
  }

  /** Shows a frame; of several in a row the last one counts. */
  show(frame) {
    const step = frame - (this.wanted ?? frame);
    const steps = Math.abs(step) <= AHEAD; // and does not jump: the next frames will be wanted too
    this.direction = steps ? Math.sign(step) : 0;
    if (!steps) this.jump.abort(); // what was fetched ahead only keeps it waiting
    if (this.jump.signal.aborted) this.jump = new AbortController();
    this.wanted = frame;
    this.showing ??= this._show();
    return this.showing;
  }

  async _show() {
    await null; // so that `showing` is set
    while (this.wanted !== null && this.shown !== this.wanted) {
      const { video, wanted: frame } = this;
      try {
        const bitmap = await this._fetch(frame);
        if (video !== this.video) continue;
        this._draw(bitmap, frame);
      } catch (error) {
        const isOver = video !== this.video || frame !== this.wanted;
        if (isOver || error.name === "AbortError") continue;
        this.onError(`frame ${frame}: ${error.message}`);
        break;
      }
      for (let i = 1; this.direction && i <= AHEAD; i++) {
        const next = frame + i * this.direction;
        if (next >= 0 && next < video.frames) this._fetch(next).catch(() => {});
      }
    }
    this.showing = null;
  }

  _draw(bitmap, frame) {
    const { canvas } = this;
    if (canvas.width !== bitmap.width || canvas.height !== bitmap.height) {
      [canvas.width, canvas.height] = [bitmap.width, bitmap.height];
    }
    canvas.getContext("2d").drawImage(bitmap, 0, 0);
    canvas.dataset.shown = this.shown = frame;
    if (!this.playing) this.player.classList.remove("is-shown");
  }

  _fetch(frame) {
    const seen = window.devicePixelRatio * this.canvas.parentElement.clientWidth;
    const width = GRAIN * Math.max(1, Math.ceil(seen / GRAIN));
    let found = this.kept.get(frame);
    if (!found) {
      const path = `${address(this.video.name)}/frames/${frame}.jpg?width=${width}`;
      found = fetch(path, { signal: this.jump.signal }).then(async (response) => {
        if (response.ok) return createImageBitmap(await response.blob());
        throw new Error((await response.text()).slice(0, 200) || response.status);
      });
      found.catch(() => this.kept.delete(frame));
    }
    this.kept.delete(frame);
    this.kept.set(frame, found);
    this._forget(KEPT);
    return found;
  }

  /** Lets go of all pictures but those that were wanted last; a browser is slow to see that itself. */
  _forget(but) {
    for (const [frame, found] of this.kept) {
      if (this.kept.size <= but) return;
      this.kept.delete(frame);
      found.then((bitmap) => bitmap.close(), () => {});
    }
  }

  async play(frame) {
    this.playing = true;
    this.at = frame;
    if (!this.native) return this._playPictures(frame);
    const { player, video } = this;
    try {
      player.currentTime = video.times[frame] + 0.0005; // inside the picture, not at its edge
      const step = (_, { mediaTime }) => {
        if (!this.playing || this.video !== video) return;
        player.classList.add("is-shown");
        this.at = frameAt(video.times, mediaTime);
        this.onFrame(this.at);
        player.requestVideoFrameCallback(step);
      };
      player.requestVideoFrameCallback(step);
      player.playbackRate = this.speed;
      await player.play();
    } catch (error) {
      if (error.name !== "AbortError" && this.playing) { // it cannot decode this file
        this.native = false;
        this._playPictures(frame);
      }
    }
  }

  async _playPictures(frame = this.at) {
    const { video } = this;
    const start = performance.now();
    const isOn = () => this.playing && this.video === video;
    while (isOn()) {
      const passed = Math.floor(((performance.now() - start) / 1000) * this.speed * video.fps);
      const next = Math.min(frame + passed, video.frames - 1);
      await this.show(next);
      if (!isOn()) return;
      this.at = next;
      this.onFrame(next);
      if (next === video.frames - 1) return this.stop(next);
      await new Promise(requestAnimationFrame);
    }
  }

  /** Stops at the frame that was seen last, and shows it exactly. */
  stop(frame = null) {
    if (!this.playing) return;
    this.playing = false;
    this.player.pause();
    this.shown = null; // what the player shows may be a picture further
    this.onFrame(frame ?? this.at);
    this.show(frame ?? this.at);
  }
}
