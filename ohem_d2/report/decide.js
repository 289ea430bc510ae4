"use strict";
// Suspects one by one: keys and buttons, and a view in which their boxes can be moved.

const REACH = 7;  // pixels of the screen from which an edge is held
let current = null;  // the suspect in view
let isWhole = false;  // whether all of the image is in view
let drag = null;  // {held, from, box, now}: which sides, from which pixel, the box before and now

// The list

function buttons(x) {
  return Object.keys(VERDICTS).map(verdict => {
    const button = element("button", verdict, {type: "button", "data-verdict": verdict, title: `key ${verdict[0]}`, "aria-pressed": "false"});
    button.addEventListener("click", event => { event.stopPropagation(); decide(x(), verdict); });
    return button;
  });
}

function makeDecidable(figure, caption, x) {
  const row = element("div", "", {class: "verdicts"});
  row.append(...buttons(() => x));
  caption.append(row);
  figure.addEventListener("click", () => view(x));
  mark(figure, x);
}

// Show the decision in a card, or in the view.
function mark(e, x) {
  const verdict = decisionOf.get(x)?.decision;
  if (verdict) e.dataset.verdict = verdict;
  else delete e.dataset.verdict;
  for (const b of e.querySelectorAll("button[data-verdict]")) b.setAttribute("aria-pressed", b.dataset.verdict === verdict);
}

function refresh(files) {
  for (const file of files) {
    for (const x of suspectsIn.get(file) ?? []) {
      const card = list?.is_of_labels && cardOf(x);
      if (card) mark(card, x);
    }
  }
  const numbers = new Map(Object.keys(VERDICTS).map(v => [v, 0]));
  for (const d of decisionOf.values()) numbers.set(d.decision, numbers.get(d.decision) + 1);
  const each = [...numbers].map(([v, number]) => `${number} ${VERDICTS[v]}`).join(", ");
  const listed = new Set(decisionOf.values());
  const others = [...decisionsIn.values()].flat().filter(d => !listed.has(d)).length;
  $("progress").textContent = `${decisionOf.size} decided (${each}), ${suspects.length - decisionOf.size} left` +
    (others ? `; ${others} more on what this report does not list` : "");
}

// Of undecided suspects only, one that is decided goes when another comes into view.
function drop(x) {
  takeOff(x);
  count();
}

function view(x = null) {
  const last = current;
  if (last && last !== x) {
    cardOf(last)?.removeAttribute("aria-current");
    if ($("undecided").checked && decisionOf.has(last) && found.includes(last)) drop(last);
  }
  current = x;
  drag = null;
  const card = x && broughtIn(x);
  if (card) {
    card.setAttribute("aria-current", "true");
    if (last && last !== x) card.scrollIntoView({block: "nearest"});
  }
  if (last !== x) setPicture();
  draw();
}

function decide(x, decision) {
  setDecision(x, decision);
  view(found[found.indexOf(x) + 1] ?? x);
}

// A box that is moved, or a class that is chosen, is accepted.
function edit(x, proposal) {
  setDecision(x, decisionOf.get(x)?.decision === "ignore" && proposal ? "ignore" : "accept", proposal);
  draw();
}

function undo() {
  const step = steps.pop();
  if (!step) return;
  refresh(replace(step.added, step.removed));
  keep();
  if ($("undecided").checked && !found.includes(step.suspect)) show();
  view(found.includes(step.suspect) ? step.suspect : current);
}

function move(by) {
  const next = found[found.indexOf(current) + by];
  if (next) view(next);
}

// The view: an SVG whose units are pixels of the image

function setBox(rect, [x, y, width, height]) {
  for (const [name, value] of Object.entries({x, y, width, height})) rect.setAttribute(name, value);
}

function setPicture() {
  if (!current) return;
  const image = images.get(current.image_id);
  $("picture").setAttribute("href", image.url);
  setBox($("picture"), [0, 0, image.width, image.height]);
}

// Where the image itself cannot be shown, its crop is.
function setCrop() {
  if (!current?.crop || $("picture").getAttribute("href") === current.crop) return;
  $("picture").setAttribute("href", current.crop);
  setBox($("picture"), current.crop_bbox);
}

// The box that is moved: that of the proposal, or of the label that would go.
function boxOf(x) {
  return drag?.now ?? (proposalOf(x) ?? labelOf(x)).bbox;
}

// A label that is to be ignored keeps its box.
const isFixed = x => x.label_index !== null && decisionOf.get(x)?.decision === "ignore";

function effectOf(x) {
  const label = labelOf(x), proposal = proposalOf(x), verdict = decisionOf.get(x)?.decision;
  if (verdict === "reject") return "Nothing changes.";
  if (verdict === "ignore") return label ? "The label becomes a region to ignore." : "A region to ignore is added.";
  let effect = "";
  if (!proposal) effect = "removes the label";
  else if (!label) effect = `adds a label: ${proposal.category}`;
  else {
    const isMoved = proposal.bbox.some((v, i) => v !== label.bbox[i]);
    const changes = [proposal.category !== label.category && `makes it ${proposal.category}`, isMoved && "moves its box"].filter(Boolean);
    effect = changes.join(" and ") || "leaves the label as it is";
  }
  return verdict ? `Accepted: ${effect}.` : `Accepting ${effect}.`;
}

function draw() {
  $("decide").hidden = !current;
  if (!current) return;
  const x = current, svg = $("view"), image = images.get(x.image_id);
  const label = labelOf(x), box = boxOf(x), proposal = proposalOf(x);
  const truth = label ? `labelled ${label.category}` : "no label";
  const seen = x.predicted_category_id === null ? "sees nothing" : `sees ${names.get(x.predicted_category_id)}`;
  $("suspicion").replaceChildren(swatch(x.error_type), element("b", x.error_type),
    `: ${truth}, the model ${seen} (${x.score.toFixed(2)}) `,
    element("span", `${found.indexOf(x) + 1} of ${found.length}, ${fileOf(x)}`, {class: "soft"}));
  const [left, top, width, height] = isWhole ? [0, 0, image.width, image.height] : partShown(x);
  svg.setAttribute("viewBox", `${left} ${top} ${width} ${height}`);
  const [labelHalo, boxHalo] = svg.querySelectorAll(".halo");
  const nearest = label ? label.bbox : x.true_bbox;
  for (const e of [labelHalo, $("label-box")]) {
    e.style.display = nearest ? "" : "none";
    if (nearest) setBox(e, nearest);
  }
  for (const e of [boxHalo, $("box")]) {
    e.style.display = proposal || drag?.now ? "" : "none";
    setBox(e, box);
  }
  $("box").style.stroke = data.colors[x.error_type];
  const size = 9 / (svg.getScreenCTM()?.a || 1);
  svg.querySelectorAll(".corner").forEach((corner, i) => {
    corner.style.display = isFixed(x) ? "none" : "";
    setBox(corner, [box[0] + (i % 2) * box[2] - size / 2, box[1] + (i >> 1) * box[3] - size / 2, size, size]);
  });
  mark($("decide"), x);
  $("effect").textContent = effectOf(x);
  const select = $("class-of-box");
  const classes = data.categories.map(c => c.name);
  if (proposal && !classes.includes(proposal.category)) classes.push(proposal.category);
  select.replaceChildren(...classes.map((name, i) => element("option", name, {value: i})));
  if (label) select.append(element("option", "none: the label goes", {value: -1}));
  select.value = proposal ? classes.indexOf(proposal.category) : -1;
  select.disabled = isFixed(x);
}

// From the screen to pixels of the image.
function pixelAt(event) {
  const {x, y} = new DOMPoint(event.clientX, event.clientY).matrixTransform($("view").getScreenCTM().inverse());
  return [x, y];
}

// Which sides of the box are held at a place: left, top, right and bottom; null: none.
function heldAt(event) {
  if (!current || isFixed(current)) return null;
  const reach = REACH / $("view").getScreenCTM().a;
  const [px, py] = pixelAt(event), [x, y, w, h] = boxOf(current);
  if (px < x - reach || px > x + w + reach || py < y - reach || py > y + h + reach) return null;
  const near = (a, b, size) => Math.abs(a - b) <= Math.min(reach, Math.max(size / 4, reach / 2));
  const sides = [near(px, x, w), near(py, y, h), near(px, x + w, w), near(py, y + h, h)];
  if (sides[0] && sides[2]) sides[0] = false;
  if (sides[1] && sides[3]) sides[1] = false;
  return sides.some(Boolean) ? sides : [true, true, true, true];
}

function cursorOf(held) {
  if (!held) return "";
  const [left, top, right, bottom] = held;
  if (left && right) return "move";
  if ((left || right) && (top || bottom)) return left === top ? "nwse-resize" : "nesw-resize";
  return left || right ? "ew-resize" : "ns-resize";
}

// One side of the image at a time: where a box begins and how long it is, after a drag by so much.
function dragged(start, length, by, holdsStart, holdsEnd, limit) {
  const end = start + length;
  if (holdsStart && holdsEnd) {
    const kept = Math.min(length, limit);  // of a label that is larger than its image
    return [Math.min(Math.max(start + by, 0), limit - kept), kept];
  }
  if (holdsStart) {
    const to = Math.min(Math.max(start + by, 0), end - Math.min(1, length));
    return [to, end - to];
  }
  if (holdsEnd) return [start, Math.max(Math.min(end + by, limit) - start, Math.min(1, length))];
  return [start, length];
}

function dragTo(event) {
  const image = images.get(current.image_id);
  const [px, py] = pixelAt(event), [left, top, right, bottom] = drag.held, [x, y, w, h] = drag.box;
  const [x2, w2] = dragged(x, w, px - drag.from[0], left, right, image.width);
  const [y2, h2] = dragged(y, h, py - drag.from[1], top, bottom, image.height);
  drag.now = [x2, y2, w2, h2].map(v => Math.round(100 * v) / 100);
}

$("view").addEventListener("pointerdown", event => {
  const held = event.button === 0 ? heldAt(event) : null;
  if (!held) return;
  event.preventDefault();
  $("view").setPointerCapture(event.pointerId);
  drag = {held, from: pixelAt(event), box: boxOf(current), now: null};
});
$("view").addEventListener("pointermove", event => {
  if (!drag) {
    $("view").style.cursor = cursorOf(heldAt(event));
    return;
  }
  dragTo(event);
  draw();
});
$("view").addEventListener("pointerup", () => {
  if (!drag) return;
  const {now} = drag;
  drag = null;
  if (now) edit(current, {category: (proposalOf(current) ?? labelOf(current)).category, bbox: now});
});
$("view").addEventListener("pointercancel", () => { drag = null; draw(); });
$("picture").addEventListener("error", setCrop);

$("class-of-box").addEventListener("change", event => {
  const chosen = event.target.selectedOptions[0];
  const bbox = (proposalOf(current) ?? labelOf(current)).bbox;
  event.target.blur();  // so that keys decide again
  edit(current, chosen.value === "-1" ? null : {category: chosen.textContent, bbox});
});

// Keys and buttons

function keyButton(name, key, action) {
  const e = element("button", name, {type: "button"});
  e.addEventListener("click", action);
  return withKey(e, key);
}

function withKey(button, key) {
  button.append(" ", element("kbd", key));
  return button;
}

const toggleWhole = () => { isWhole = !isWhole; draw(); };
$("verdicts").append(
  ...buttons(() => current).map(b => withKey(b, b.dataset.verdict[0])),
  keyButton("undo", "u", undo), keyButton("next", "j", () => move(1)), keyButton("previous", "k", () => move(-1)),
  keyButton("whole image", "z", toggleWhole));

const KEYS = new Map([
  ["j", () => move(1)], ["k", () => move(-1)], ["u", undo], ["z", toggleWhole],
  ...Object.keys(VERDICTS).map(verdict => [verdict[0], () => decide(current, verdict)]),
]);
const isTyping = e => e.matches("select, textarea, input:not([type=checkbox])") || e.isContentEditable;
document.addEventListener("keydown", event => {
  const action = KEYS.get(event.key.toLowerCase());
  if (!action || !list.is_of_labels || event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target)) return;
  if (!current && event.key.toLowerCase() !== "u") return;
  event.preventDefault();
  action();
});

$("save").addEventListener("click", save);
$("load").addEventListener("click", () => $("loaded-file").click());
$("loaded-file").addEventListener("change", async event => {
  const [file] = event.target.files;
  if (file) load(file.name, await file.text());
  event.target.value = "";  // so that the same file can be loaded again
});
// Another window of the same data has decided.
window.addEventListener("storage", event => {
  if (event.key !== KEY || !suspects) return;
  steps.length = 0;
  recall();
  if (list.is_of_labels) show();
});
window.addEventListener("beforeunload", event => { if (!isKept && decisionOf.size) event.preventDefault(); });
const onResize = new ResizeObserver(() => {
  document.body.style.setProperty("--bar", `${$("filters").offsetHeight}px`);
  draw();
});
onResize.observe($("filters"));
onResize.observe($("view"));
