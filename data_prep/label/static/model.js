// Labels and boxes as values: what they say at a frame, and what is wrong about them.

const NEAR_S = 2;
const VALUE = { install: 1, wrong: -1, remove: 0 };
const IS = { 1: "installed", "-1": "installed incorrectly", 0: "off" };

export const inOrder = (rows) =>
  [...rows].sort((a, b) => a.frame - b.frame || (a.step_id ?? 0) - (b.step_id ?? 0));

export const same = (a, b) => a.frame === b.frame && a.step_id === b.step_id;
const written = (rows) => JSON.stringify(inOrder(rows).map((row) => Object.entries(row).sort()));
export const equal = (a, b) => (Array.isArray(a) ? written(a) === written(b) : a === b);

/** The parts at a frame: [{value: 1 | 0 | -1, since: frame of the label | null}]. */
export function stateAt(video, steps, frame) {
  const state = video.initial_state.map((value) => ({ value, since: null }));
  for (const label of video.labels) {
    if (label.frame > frame) break;
    const step = steps[label.step_id];
    state[step.component] = { value: VALUE[step.kind], since: label.frame };
  }
  return state;
}


/** Why a step cannot be labelled at a frame, or "". */
export function refusal(video, steps, frame, step) {
  if (video.labels.some((label) => label.frame === frame && label.step_id === step.id)) {
    return `${step.name} is labelled at this frame already`;
  }
  const before = stateAt(video, steps, frame - 1)[step.component];
  if (before.value !== VALUE[step.kind]) return "";
  const since = before.since === null ? "from the start" : `since frame ${before.since}`;
  return `${step.part} is ${IS[before.value]} already, ${since}`;
}

/** The steps that have to come before a step, and have not at that frame. */
export function unmet(video, state, steps, step) {
  return (video.before[step.id] ?? [])
    .map((id) => steps[id])
    .filter((first) => state[first.component].value !== VALUE[first.kind]);
}

/** Whether a proposal was rejected, or its step is labelled nearby, be it at a corrected frame. */
export const isAnswered = (video, proposal) =>
  video.answered.some((row) => same(row, proposal))
  || video.labels.some(({ frame, step_id }) => step_id === proposal.step_id
    && Math.abs(frame - proposal.frame) <= NEAR_S * video.fps);

/** What stands in the list: labels with what is wrong about them, open proposals, other warnings. */
export function rowsOf(video, steps) {
  const rows = video.labels.map((label) => {
    return { ...label, kind: "label", text: steps[label.step_id].name, notes: [] };
  });
  for (const proposal of video.proposals) {
    if (isAnswered(video, proposal)) continue;
    rows.push({ ...proposal, kind: "proposal", text: steps[proposal.step_id].name, look: true });
  }
  const others = [];
  for (const { frame, text } of video.warnings) {
    const here = rows.filter((row) => row.kind === "label" && row.frame === frame);
    const about = here.find((row) => text.includes(row.text)) ?? here[0];
    if (about) about.look = about.notes.push(text) > 0;
    else others.push({ frame: frame ?? 0, kind: "warning", text, look: frame !== null });
  }
  return [...rows, ...others].sort((a, b) => a.frame - b.frame);
}

/** Whether two drawn boxes in a row carry over to the frames between them. */
export const carries = ({ carried }, a, b) => Boolean(a?.w && b?.w) && b.frame - a.frame <= carried;

/** The box of a frame: {x, y, w, h, drawn}, carried between drawn ones; null where there is none. */
export function boxAt(video, frame) {
  const { boxes } = video;
  const after = boxes.findIndex((box) => box.frame >= frame);
  if (after < 0) return null;
  const b = boxes[after];
  if (b.frame === frame) return { ...b, drawn: true };
  const a = boxes[after - 1];
  if (!carries(video, a, b)) return null;
  const share = (frame - a.frame) / (b.frame - a.frame);
  const between = Object.fromEntries(["x", "y", "w", "h"].map((k) => [k, a[k] + share * (b[k] - a[k])]));
  return { ...between, frame, drawn: false };
}

/** The boxes with one more, or with the one of `frame` taken away if `box` is null. */
export function withBox(boxes, frame, box) {
  const others = boxes.filter((one) => one.frame !== frame);
  return inOrder(box ? [...others, { frame, ...box }] : others);
}

/** The last frame whose picture is shown at a time of the file. */
export function frameAt(times, time) {
  let [low, high] = [0, times.length - 1];
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    if (times[middle] <= time + 0.001) low = middle;
    else high = middle - 1;
  }
  return low;
}
