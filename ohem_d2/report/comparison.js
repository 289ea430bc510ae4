"use strict";
// Two models on the same images: what each gets right that the other does not.
// docs/model_errors.md tells how that is counted.

const MODELS = ["earlier", "now"];  // in this order, wherever there is one of each

function compareModels() {
  const both = read("model-comparison");
  const finderOf = found => found && {score: found[0], bbox: found[1]};
  const objects = both.labels.map(([image, category, bbox, ...found]) => ({label: {image, category, bbox}, found: found.map(finderOf)}));
  const mistakes = both.false_positives.map(([model, image, category, score, bbox, error, label, scoreOfOther]) =>
    ({model, scoreOfOther, detection: {image, category, score, bbox, error, label: label === null ? null : objects[label].label}}));

  const signed = x => `${x < 0 ? "−" : "+"}${Math.abs(x).toFixed(1)}`;
  const goodOrBad = (cell, gain) => { cell.style.color = Math.abs(gain) < 0.05 ? "" : gain > 0 ? "#1a7f37" : "#b00020"; };

  function drawFigures() {
    const {info} = both, {earlier, now, difference} = info;
    const changed = info.labels_new || info.labels_gone;
    $("compared").textContent = `Earlier: ${info.folder}. AP at an IoU of 0.5 was ${earlier.ap50.toFixed(1)}, and is ${now.ap50.toFixed(1)} now (${signed(difference.ap50)}).` +
      (changed ? ` Since that report, ${info.labels_new} labels are new and ${info.labels_gone} are gone. Both models are judged by those of now${info.ap50_then === null ? "" : `; by those of then, AP was ${info.ap50_then.toFixed(1)}`}.` : "") +
      (info.images_then > data.number_of_images ? ` That report has ${info.images_then} images; only the ${data.number_of_images} of this one count.` : "");
    const costs = headed($("compared-costs"), [["error type"], ["cost, earlier"], ["now"], ["difference"], ["number, earlier"], ["now"]]);
    for (const error of data.errors) {
      const row = costs.insertRow(), name = row.insertCell();
      name.append(swatch(error), element("span", error, {title: MEANINGS[error]}));
      numberCell(row, earlier.costs[error].toFixed(1));
      numberCell(row, now.costs[error].toFixed(1));
      goodOrBad(numberCell(row, signed(difference.costs[error])), -difference.costs[error]);
      numberCell(row, earlier.numbers[error]);
      numberCell(row, now.numbers[error]);
    }
    const titles = [["class"], ["labels"], ["AP, earlier"], ["now"], ["difference"]];
    const classes = headed($("compared-classes"), [...titles, ...data.errors.map(e => [e, `difference of what ${e} costs: ${MEANINGS[e]}`])]);
    for (const c of [...both.categories].sort((a, b) => a.difference.ap50 - b.difference.ap50)) {
      const row = classes.insertRow();
      row.append(element("td", c.name));
      for (const text of [c.labels, c.earlier.ap50.toFixed(1), c.now.ap50.toFixed(1)]) numberCell(row, text);
      goodOrBad(numberCell(row, signed(c.difference.ap50)), c.difference.ap50);
      for (const error of data.errors) goodOrBad(numberCell(row, signed(c.difference.costs[error])), -c.difference.costs[error]);
    }
  }

  // What is in a column of the table, each as a pair of a label and a detection.
  function columns([least0, least1]) {
    const least = [least0, least1];
    const counts = (score, i) => score !== null && score >= least[i];
    const isFound = (x, i) => x.found[i] !== null && counts(x.found[i].score, i);
    const asFound = (x, i) => {
      const finder = i === null ? null : x.found[i];
      return {label: x.label, detection: finder && {...finder, image: x.label.image, category: x.label.category, error: "", label: x.label}};
    };
    const objectsOf = (first, second, shown) => objects.filter(x => isFound(x, 0) === first && isFound(x, 1) === second).map(x => asFound(x, shown));
    const counted = mistakes.filter(x => counts(x.detection.score, x.model));
    const isAlone = x => !counts(x.scoreOfOther, 1 - x.model);
    const mistakesOf = (i, alone) => counted.filter(x => x.model === i && isAlone(x) === alone).map(x => ({label: null, detection: x.detection}));
    return [
      ["found by both", "Objects that both models find", objectsOf(true, true, 1)],
      ["only earlier", "Objects that only the earlier model finds", objectsOf(true, false, 0)],
      ["only now", "Objects that only the model of now finds", objectsOf(false, true, 1)],
      ["by neither", "Objects that neither model finds", objectsOf(false, false, null)],
      ["false positives: both", "False positives of now that the earlier model has as well", mistakesOf(1, false)],
      ["false positives: only earlier", "False positives that only the earlier model has", mistakesOf(0, true)],
      ["false positives: only now", "False positives that only the model of now has", mistakesOf(1, true)],
    ];
  }

  function drawObjects() {
    const least = MODELS.map(name => Number($(`score-${name}`).value));
    MODELS.forEach((name, i) => { $(`score-${name}-value`).textContent = least[i].toFixed(2); });
    $("at-scores").textContent = both.left_out ? `the ${both.left_out} false positives with the lowest scores are not on this page` : "";
    const all = columns(least);
    const body = headed($("compared-objects"), [["class"], ...all.map(([text, title]) => [text, title])]);
    const categoryOf = p => (p.label ?? p.detection).category;
    const byClass = all.map(([, , pairs]) => groupBy(pairs, categoryOf));
    for (const [id, className] of [[null, "all"], ...both.categories.map(c => [c.id, c.name])]) {
      const row = body.insertRow();
      row.append(element("td", className));
      all.forEach(([, title, pairs], i) => {
        const of = id === null ? pairs : byClass[i].get(id) ?? [];
        const show = () => showBehind({title: id === null ? title : `${title}, ${className}`, pairs: worstFirst(of)});
        numberCell(row, of.length ? link(of.length, title, show) : "");
      });
    }
  }

  function toBest() {
    for (const name of MODELS) $(`score-${name}`).value = both.info[name].best_score;
    drawObjects();
  }

  const lowest = both.left_out ? Math.ceil(100 * mistakes.at(-1).detection.score) / 100 : 0;
  for (const name of MODELS) $(`score-${name}`).min = lowest;
  drawFigures();
  toBest();
  for (const name of MODELS) $(`score-${name}`).addEventListener("input", drawObjects);
  $("best-scores").addEventListener("click", toBest);
}

if (data.is_compared) {
  const button = element("button", "comparison with an earlier report", {type: "button", "aria-pressed": "false"});
  button.addEventListener("click", () => {
    list = modelList;
    showSection("of-both", button);
    if (!$("compared-objects").rows.length) compareModels();
  });
  $("lists").append(button);
}
