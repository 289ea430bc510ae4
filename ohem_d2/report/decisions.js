"use strict";
// Decisions on suspected label errors: which suspects they are of, and how they are kept, in the
// browser and in a file. docs/report.md tells what a decision holds.

const KEY = `ohem-d2 decisions: ${data.dataset} in ${data.folder}`;
const VERDICTS = {accept: "accepted", reject: "rejected", ignore: "to ignore"};
const SAME = 0.5;  // IoU from which on suspects without a label are of one thing
let suspects = null, suspectsIn;  // all of them, and those of each file, once they are shown
const fileIn = x => images.get(x.image_id).file_name;  // with its folder, as decisions name it
const decisionsIn = new Map();  // of files, also those of suspects that this report does not list
const decisionOf = new Map();  // of suspects
const steps = [];  // to be undone: {removed, added, suspect}

function groupBy(all, keyOf) {
  const groups = new Map();
  for (const x of all) {
    const key = keyOf(x);
    if (!groups.has(key)) groups.set(key, []);
    groups.get(key).push(x);
  }
  return groups;
}

function readSuspects() {
  if (suspects) return;
  suspects = list.of;
  suspectsIn = groupBy(suspects, fileIn);
  recall();
}

// What is suspected, and what is decided

function labelOf(x) {
  if (x.label_index === null) return null;
  return {index: x.label_index, id: x.label_id, category: names.get(x.category_id), bbox: x.label_bbox};
}

// What the report proposes in place of the label. null: nothing.
function suspectedOf(x) {
  if (x.predicted_bbox === null) return null;
  // Of the wrong class, what is seen in the box of the label.
  const bbox = x.error_type === "wrong class" && x.label_bbox ? x.label_bbox : x.predicted_bbox;
  return {category: names.get(x.predicted_category_id), bbox};
}

function proposalOf(x) {
  return decisionOf.has(x) ? decisionOf.get(x).proposal : suspectedOf(x);
}

function iou([x, y, w, h], [x2, y2, w2, h2]) {
  const shared = Math.max(0, Math.min(x + w, x2 + w2) - Math.max(x, x2)) * Math.max(0, Math.min(y + h, y2 + h2) - Math.max(y, y2));
  return shared ? shared / (w * h + w2 * h2 - shared) : 0;
}

// How much two of one image are of the same thing, each {label, suspected}. 0: they are not.
function likeness(a, b) {
  if (a.label === null && b.label === null) {
    const overlap = a.suspected.category === b.suspected.category ? iou(a.suspected.bbox, b.suspected.bbox) : 0;
    return overlap >= SAME ? overlap : 0;
  }
  if (a.label === null || b.label === null || a.label.category !== b.label.category) return 0;
  if (a.label.bbox.some((v, i) => Math.abs(v - b.label.bbox[i]) > 0.01)) return 0;
  return a.label.id === b.label.id && a.label.index === b.label.index ? 2 : 1;
}

const thingOf = x => ({label: labelOf(x), suspected: suspectedOf(x)});
const decided = d => ({label: d.label, suspected: d.suspected ?? d.proposal});

// Find the decisions on the suspects of an image, the most alike first. Two suspects may be of one
// label.
function match(file) {
  const pairs = [];
  for (const x of suspectsIn.get(file) ?? []) {
    decisionOf.delete(x);
    for (const d of decisionsIn.get(file) ?? []) {
      const value = likeness(thingOf(x), decided(d));
      if (value) pairs.push({value, x, d});
    }
  }
  const labels = new Map();
  for (const {x, d} of pairs.sort((a, b) => b.value - a.value)) {
    const isFree = !labels.has(d) || (x.label_index !== null && labels.get(d) === x.label_index);
    if (decisionOf.has(x) || !isFree) continue;
    labels.set(d, x.label_index);
    decisionOf.set(x, d);
  }
}

function replace(removed, added) {
  const gone = new Set(removed);
  const files = new Set([...removed, ...added].map(d => d.image));
  for (const file of files) decisionsIn.set(file, (decisionsIn.get(file) ?? []).filter(d => !gone.has(d)));
  for (const d of added) decisionsIn.get(d.image).push(d);
  for (const file of files) match(file);
  return files;
}

function take(step) {
  steps.push(step);
  refresh(replace(step.removed, step.added));
  keep();
}

function setDecision(x, decision, proposal = proposalOf(x)) {
  const before = decisionOf.get(x);
  const image = images.get(x.image_id);
  const after = {image: image.file_name, image_id: image.original_id, suspect: x.error_type, decision, ...thingOf(x), proposal};
  take({removed: before ? [before] : [], added: [after], suspect: x});
}

// Kept in the browser, and in a file

function asText(indent) {
  const all = [...decisionsIn.values()].flat();
  return JSON.stringify({info: {dataset: data.dataset, ohem_d2: data.ohem_d2}, decisions: all}, null, indent);
}

function isBox(b) {
  return Array.isArray(b) && b.length === 4 && b.every(Number.isFinite) && b[2] >= 0 && b[3] >= 0;
}

function isObject(x) {
  return x === null || (typeof x === "object" && typeof x.category === "string" && isBox(x.bbox));
}

function isDecision(d) {
  return typeof d?.image === "string" && Object.hasOwn(VERDICTS, d.decision) &&
    isObject(d.label) && isObject(d.proposal) && isObject(d.suspected ?? null) &&
    (d.label !== null || (d.suspected ?? d.proposal) !== null);
}

// Of the images of this report: corrected labels may lie beside links to the images of before.
const imageAt = new Map(data.images.flatMap(i => [[i.file_name, i], [i.links_to ?? i.file_name, i]]));

// Those of another data set, as the corrected one is, that are on images of this report.
const hereOf = decisions => decisions.filter(d => imageAt.has(d.image)).map(d => {
  const image = imageAt.get(d.image);
  return {...d, image: image.file_name, image_id: image.original_id};
});

// The decisions of a file, the data set that it is of, and how many are left aside. Throws an Error
// of one line if it is none, or of other images.
function parse(text) {
  let content;
  try {
    content = JSON.parse(text);
  } catch {
    throw new Error("it is no JSON, expected a file that this page saved");
  }
  const {info, decisions} = content ?? {};
  if (typeof info?.dataset !== "string" || !Array.isArray(decisions)) throw new Error("it has no decisions, expected a file that this page saved");
  const wrong = decisions.findIndex(d => !isDecision(d));
  if (wrong >= 0) throw new Error(`decisions[${wrong}] is none, expected image, decision, label and proposal`);
  const of = info.dataset, here = of === data.dataset ? decisions : hereOf(decisions);
  if (of !== data.dataset && !here.length) throw new Error(`it is of the data set ${of}, and of no image that this report lists, expected ${data.dataset}`);
  return {decisions: here, of, left: decisions.length - here.length};
}

let isKept = true;  // by the browser

function say(message, problem = "") {
  $("message").textContent = message;
  const notKept = isKept ? "" : "This browser does not keep decisions: save them before you leave the page.";
  $("problem").textContent = `${problem} ${notKept}`.trim();
}

function keep() {
  try {
    localStorage.setItem(KEY, asText());
    isKept = true;  // also where it was not before
  } catch {
    isKept = false;
  }
  say("");
}

function recall() {
  let text = null;
  try {
    text = localStorage.getItem(KEY);
  } catch {
    isKept = false;
  }
  say("");
  let kept = [];
  try {
    if (text !== null) kept = parse(text).decisions;
  } catch (error) {
    say("", `What the browser kept of this data set cannot be read: ${error.message}.`);
    return;
  }
  refresh(replace([...decisionsIn.values()].flat(), kept));
}

function load(name, text) {
  let loaded, of, left;
  try {
    ({decisions: loaded, of, left} = parse(text));
  } catch (error) {
    say("", `${name} is not loaded: ${error.message}.`);
    return;
  }
  const removed = [], added = [];
  for (const [file, inFile] of groupBy(loaded, d => d.image)) {
    const before = new Map((decisionsIn.get(file) ?? []).map(e => [JSON.stringify(e), e]));
    const loadedOf = new Map(inFile.map(d => [JSON.stringify(d), d]));
    const fresh = [...loadedOf].filter(([text]) => !before.has(text)).map(([, d]) => d);
    // Those of the file stand beside each other: they may be of two labels of one class and box.
    for (const [text, e] of before) {
      if (!loadedOf.has(text) && fresh.some(d => likeness(decided(e), decided(d)))) removed.push(e);
    }
    added.push(...fresh);
  }
  if (added.length) take({removed, added, suspect: current});
  show();
  const taken = of === data.dataset ? "" :
    ` Of the data set ${of}, ${loaded.length} on images that this report lists are taken, ${left} on others are not.`;
  say(`${loaded.length + left} decisions in ${name}: ${added.length} are new, in place of ${removed.length} others.${taken}`);
}

function save() {
  const url = URL.createObjectURL(new Blob([asText(1)], {type: "application/json"}));
  element("a", "", {href: url, download: "decisions.json"}).click();
  URL.revokeObjectURL(url);
}
