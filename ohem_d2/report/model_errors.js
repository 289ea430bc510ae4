"use strict";
// The errors of the model's detections: what they cost, which classes are confused, and the images
// with most of them. docs/model_errors.md tells how they are counted.

const MEANINGS = {
  Cls: "the class is wrong, the box is right",
  Loc: "the class is right, the box is badly placed",
  Both: "class and box are wrong",
  Dupe: "another detection has found the object",
  Bkg: "no label is there",
  Miss: "nothing finds the object",
};
const BACKGROUND = -1;
const MOST_CLASSES = 40, MOST_IMAGES = 1000;  // that are shown at a time
let model, labels, detections;  // which are read when they are asked for
const isRight = d => d.error === "";
let order = "errors";  // of the images
let behind = null, behindShown = 0;  // {title, pairs}: what the pictures are of

function readModel() {
  if (model) return;
  model = read("model-errors");
  labels = model.labels.map(([image, category, bbox, isMissed]) => ({image, category, bbox, isMissed}));
  detections = model.detections.map(([image, category, score, bbox, error, label, others]) =>
    ({image, category, score, bbox, error, label: label === null ? null : labels[label], others: others.map(i => labels[i])}));
}

// Counting

// How many detections count from a score on; they come by falling score.
function numberFrom(score) {
  let low = 0, high = detections.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (detections[middle].score >= score) low = middle + 1;
    else high = middle;
  }
  return low;
}

// The score with the best balance of precision and recall (F1).
function bestScore() {
  let right = 0, best = {f1: 0, score: 0.5};
  detections.forEach((d, i) => {
    right += isRight(d);
    const f1 = 2 * right / (i + 1 + labels.length);
    if (f1 > best.f1) best = {f1, score: d.score};
  });
  return Math.floor(100 * best.score) / 100;
}

// Who is whom: pairs of a label and a detection, either of which may be null. Those of the right
// class go first; then each detection takes a label of another class that it covers, if one is free.
function pairsFrom(score) {
  const counted = detections.slice(0, numberFrom(score));
  const detectionOf = new Map();
  for (const d of counted) if (isRight(d)) detectionOf.set(d.label, d);
  const pairs = counted.filter(isRight).map(d => ({label: d.label, detection: d}));
  for (const d of counted) {
    if (isRight(d)) continue;
    const label = d.others.find(x => !detectionOf.has(x)) ?? null;
    if (label) detectionOf.set(label, d);
    pairs.push({label, detection: d});
  }
  for (const label of labels) if (!detectionOf.has(label)) pairs.push({label, detection: null});
  return pairs;
}

// The label that a detection is about: that of its pair, or that which it would find without its error.
const labelNear = ({label, detection}) => label ?? detection.label;
const labelled = pair => pair.label?.category ?? BACKGROUND;
const predicted = pair => pair.detection?.category ?? BACKGROUND;
const imageOf = pair => (pair.label ?? pair.detection).image;
const areaOf = pair => pair.label.bbox[2] * pair.label.bbox[3];
const className = id => id === BACKGROUND ? "background" : names.get(id);

// The surest detections first, and of missed labels the largest.
function worstFirst(pairs) {
  return [...pairs].sort((a, b) => a.detection && b.detection ? b.detection.score - a.detection.score :
    a.detection ? -1 : b.detection ? 1 : areaOf(b) - areaOf(a));
}

function link(text, title, action) {
  const e = element("button", text, {type: "button", class: "link", title});
  e.addEventListener("click", action);
  return e;
}

// Of the titles, those of numbers are at the right.
function headed(table, titles, ofText = 1) {
  table.replaceChildren();
  const row = table.createTHead().insertRow();
  titles.forEach(([text, title], i) =>
    row.append(element("th", text, {title: title ?? "", scope: "col", class: i < ofText ? "" : "number"})));
  return table.createTBody();
}

function numberCell(row, text) {
  const cell = row.insertCell();
  cell.className = "number";
  cell.append(text);
  return cell;
}

// What errors cost

function ofType(error, category = null) {
  const pairs = error === "Miss" ?
    labels.filter(x => x.isMissed).map(label => ({label, detection: null})) :
    detections.filter(d => d.error === error).map(detection => ({label: error === "Cls" ? detection.label : null, detection}));
  return category === null ? pairs : pairs.filter(p => (p.detection ?? p.label).category === category);
}

function showType(error, category = null) {
  const of = category === null ? "" : `, ${names.get(category)}`;
  showBehind({title: `${error}${of}: ${MEANINGS[error]}`, pairs: worstFirst(ofType(error, category))});
}

function drawCosts() {
  $("ap50").textContent = `AP at an IoU of 0.5 is ${model.ap50.toFixed(1)}. It would rise by so much if all errors of a type were repaired, and no others:`;
  const body = headed($("costs"), [["error type"], ["cost"], [""], ["number"], [""]]);
  const most = Math.max(...Object.values(model.costs), 1e-9);
  for (const error of data.errors) {
    const row = body.insertRow(), cost = model.costs[error];
    const name = row.insertCell();
    name.append(swatch(error), link(error, "show them", () => showType(error)));
    numberCell(row, cost.toFixed(1));
    const bar = element("div", "", {class: "bar"});
    bar.append(element("span", "", {style: `width: ${100 * cost / most}%; background: ${data.colors[error]}`}));
    row.insertCell().append(bar);
    numberCell(row, model.numbers[error]);
    row.append(element("td", MEANINGS[error], {class: "soft"}));
  }
  const byClass = headed($("costs-by-class"), [["class"], ["AP"], ["labels"], ...data.errors.map(e => [e, MEANINGS[e]])]);
  const highest = Math.max(...model.categories.flatMap(c => Object.values(c.costs)), 1e-9);
  for (const c of [...model.categories].sort((a, b) => a.ap50 - b.ap50)) {
    const row = byClass.insertRow();
    row.append(element("td", c.name));
    numberCell(row, c.ap50.toFixed(1));
    numberCell(row, c.labels);
    for (const error of data.errors) {
      const number = c.numbers[error];
      const cell = numberCell(row, number ? link(c.costs[error].toFixed(1), `${number} of ${error}`, () => showType(error, c.id)) : "");
      cell.style.background = shade("210, 80, 0", c.costs[error] / highest);
    }
  }
}

const shade = (color, share) => share > 0 ? `rgba(${color}, ${(0.06 + 0.5 * share).toFixed(3)})` : "";

// The confusion matrix

function classesShown(pairs) {
  if (model.categories.length <= MOST_CLASSES) return model.categories.map(c => c.id);
  const errors = new Map(model.categories.map(c => [c.id, 0]));
  for (const p of pairs) {
    if (labelled(p) === predicted(p)) continue;
    for (const id of [labelled(p), predicted(p)]) if (errors.has(id)) errors.set(id, errors.get(id) + 1);
  }
  return [...errors.keys()].sort((a, b) => errors.get(b) - errors.get(a)).slice(0, MOST_CLASSES);
}

function drawMatrix(pairs) {
  const shown = classesShown(pairs), all = [...shown, BACKGROUND];
  $("matrix-title").textContent = "Confusion matrix" +
    (shown.length < model.categories.length ? ` of the ${shown.length} classes with the most errors` : "");
  const cells = new Map(), ofRow = new Map();
  for (const p of pairs) {
    const key = `${labelled(p)} ${predicted(p)}`;
    if (!cells.has(key)) cells.set(key, []);
    cells.get(key).push(p);
    ofRow.set(labelled(p), (ofRow.get(labelled(p)) ?? 0) + 1);
  }
  const columns = all.map(id => [id === BACKGROUND ? "not found" : className(id), `predicted: ${className(id)}`]);
  const body = headed($("matrix"), [["labelled / predicted"], ...columns, ["of them right"]]);
  for (const row of all) {
    const e = body.insertRow();
    e.append(element("th", row === BACKGROUND ? "no label" : className(row), {scope: "row", title: `labelled: ${className(row)}`}));
    for (const column of all) {
      const of = cells.get(`${row} ${column}`) ?? [];
      const title = `${of.length} labelled ${className(row)}, predicted ${className(column)}`;
      const cell = numberCell(e, of.length ? link(of.length, title, () => showCell(row, column, of)) : "");
      cell.style.background = shade(row === column ? "0, 158, 115" : "210, 80, 0", of.length / ofRow.get(row));
    }
    const right = (cells.get(`${row} ${row}`) ?? []).length;
    numberCell(e, row === BACKGROUND || !ofRow.has(row) ? "" : `${Math.round(100 * right / ofRow.get(row))} %`);
  }
}

function showCell(row, column, pairs) {
  const title = row === BACKGROUND ? `No label, predicted ${className(column)}` :
    column === BACKGROUND ? `Labelled ${className(row)}, not found` :
    `Labelled ${className(row)}, predicted ${className(column)}`;
  showBehind({title, pairs: worstFirst(pairs)});
}

// Images

function byImage(pairs) {
  const counts = new Map();
  for (const p of pairs) {
    const image = imageOf(p);
    if (!counts.has(image)) counts.set(image, {image, right: 0, confused: 0, unlabelled: 0, missed: 0, pairs: []});
    const of = counts.get(image);
    of.pairs.push(p);
    if (!p.detection) of.missed += 1;
    else if (!p.label) of.unlabelled += 1;
    else if (isRight(p.detection)) of.right += 1;
    else of.confused += 1;
  }
  const all = [...counts.values()];
  for (const x of all) {
    x.errors = x.confused + x.unlabelled + x.missed;
    x.share = x.right / (x.right + x.errors);
  }
  const ofShare = (a, b) => a.share - b.share || b.errors - a.errors;
  const ofErrors = (a, b) => b.errors - a.errors || a.share - b.share;
  return all.sort(order === "errors" ? ofErrors : ofShare);
}

function drawImages(pairs) {
  const all = byImage(pairs);
  const body = headed($("worst-images"), [["image"], ["errors"], ["right"], ["wrong class"], ["no label"], ["not found"]]);
  for (const x of all.slice(0, MOST_IMAGES)) {
    const row = body.insertRow(), name = fileOf({image_id: x.image});
    row.insertCell().append(link(name, "show the image and its errors", () => {
      const errors = x.pairs.filter(p => !p.detection || !p.label || !isRight(p.detection));
      showBehind({title: `Errors in ${name}`, image: x.image, all: x.pairs, pairs: worstFirst(errors)});
    }));
    for (const number of [x.errors, x.right, x.confused, x.unlabelled, x.missed]) numberCell(row, number || "");
  }
  $("images-title").textContent = all.length > MOST_IMAGES ? `The ${MOST_IMAGES} worst images of ${all.length}` : "Images, the worst first";
}

// Pictures

function picture(imageId, pairs, isWhole) {
  const image = images.get(imageId);
  const boxes = pairs.flatMap(p => [labelNear(p)?.bbox, p.detection?.bbox]).filter(Boolean);
  const around = windowOf(image, boxes), whole = [0, 0, image.width, image.height];
  const svg = partOf(image, isWhole ? whole : around);
  for (const pair of pairs) {
    const label = labelNear(pair), {detection} = pair;
    if (label) drawBox(svg, label.bbox, "label", detection ? "#fff" : data.colors.Miss);
    if (detection) drawBox(svg, detection.bbox, "detection", data.colors[kindOf(pair)]);
  }
  if (!isWhole) {
    svg.addEventListener("click", () => svg.setAttribute("viewBox", (svg.classList.toggle("whole") ? whole : around).join(" ")));
  }
  return svg;
}

function kindOf({label, detection}) {
  if (!detection) return "Miss";
  if (isRight(detection)) return "";
  return detection.error;
}

function pairCard(pair) {
  const {detection} = pair, kind = kindOf(pair), label = labelNear(pair);
  const figure = element("figure", "");
  figure.append(picture(imageOf(pair), [pair], false));
  const caption = element("figcaption", ""), title = element("b", "");
  title.append(swatch(kind), detection ? `${className(detection.category)} ${detection.score.toFixed(2)}` : "not found");
  const truth = !label ? "no label" : pair.label ? `labelled ${className(label.category)}` : `label near it: ${className(label.category)}`;
  const overlap = label && detection ? `, IoU ${iou(label.bbox, detection.bbox).toFixed(2)}` : "";
  caption.append(title, element("div", `${truth}${overlap}`));
  if (kind && detection) caption.append(element("div", `${kind}: ${MEANINGS[kind]}`));
  caption.append(element("div", fileOf({image_id: imageOf(pair)}), {class: "soft"}));
  figure.append(caption);
  return figure;
}

function showBehind(chosen) {
  behind = chosen;
  behindShown = 0;
  $("behind-title").textContent = behind ? `${behind.title} (${behind.pairs.length})` : "";
  $("behind").replaceChildren();
  if (!behind) return;
  if (behind.image !== undefined) {
    const figure = element("figure", "", {class: "whole-image"});
    figure.append(picture(behind.image, behind.all, true));
    $("behind").append(figure);
  }
  moreBehind();
  $("behind-title").scrollIntoView({block: "start"});
}

function moreBehind() {
  const next = behind.pairs.slice(behindShown, behindShown + PAGE);
  behindShown += next.length;
  $("behind").append(...next.map(pairCard));
  atEnd.unobserve($("behind-end"));
  atEnd.observe($("behind-end"));
}

const atEnd = new IntersectionObserver(entries => {
  if (behind && behindShown < behind.pairs.length && entries.some(e => e.isIntersecting)) moreBehind();
}, {rootMargin: "800px"});

// The list of its own, beside those of examples

function drawModel() {
  const score = Number($("score").value), pairs = pairsFrom(score);
  const right = pairs.filter(p => p.detection && isRight(p.detection)).length, found = numberFrom(score);
  const percent = (part, of) => of ? `${(100 * part / of).toFixed(1)} %` : "none";
  $("score-value").textContent = score.toFixed(2);
  $("at-score").textContent = `${found} detections: ${percent(right, found)} of them are right, and ${percent(right, labels.length)} of ${labels.length} labels are found` +
    (model.left_out ? `; the ${model.left_out} with the lowest scores are not on this page` : "");
  drawMatrix(pairs);
  drawImages(pairs);
}

// In place of the lists of examples.
function showSection(name, button) {
  document.body.classList.remove("deciding", "of-model", "of-both");
  document.body.classList.add(name);
  for (const b of $("lists").children) b.setAttribute("aria-pressed", b === button);
  showBehind(null);
}

const modelList = {is_of_labels: false, of: [], error_types: []};
const modelButton = element("button", "errors of detections", {type: "button", "aria-pressed": "false"});
modelButton.addEventListener("click", () => {
  list = modelList;
  showSection("of-model", modelButton);
  readModel();
  if ($("matrix").rows.length) return;
  const lowest = model.left_out ? detections.at(-1).score : 0;
  $("score").min = Math.ceil(100 * lowest) / 100;
  $("score").value = bestScore();
  drawCosts();
  drawModel();
});
$("lists").append(modelButton);
$("score").addEventListener("input", drawModel);
$("best-score").addEventListener("click", () => { $("score").value = bestScore(); drawModel(); });
$("image-order").addEventListener("change", event => { order = event.target.value; drawModel(); });
