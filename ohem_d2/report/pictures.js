"use strict";
// Pictures that are parts of an image with boxes on it, whose units are the pixels of the image.

const MARGIN = 0.6;  // around what a picture shows, of its longer side
const STAY = 150;  // milliseconds in view before an image is read
const waiting = new WeakMap();  // the timers of pictures

function windowOf(image, boxes) {
  const left = Math.min(...boxes.map(b => b[0])), top = Math.min(...boxes.map(b => b[1]));
  const right = Math.max(...boxes.map(b => b[0] + b[2])), bottom = Math.max(...boxes.map(b => b[1] + b[3]));
  const margin = MARGIN * Math.max(right - left, bottom - top, 8);
  const [x, y] = [Math.max(0, left - margin), Math.max(0, top - margin)];
  return [x, y, Math.max(1, Math.min(image.width, right + margin) - x), Math.max(1, Math.min(image.height, bottom + margin) - y)];
}

const svgElement = (tag, attributes) => {
  const e = document.createElementNS($("view").namespaceURI, tag);
  for (const [key, value] of Object.entries(attributes)) e.setAttribute(key, value);
  return e;
};

// Images are read once they come into view, and not while one scrolls past: they may be large.
const inView = new IntersectionObserver(entries => {
  for (const {isIntersecting, target} of entries) {
    clearTimeout(waiting.get(target));
    if (isIntersecting) waiting.set(target, setTimeout(readImage, STAY, target));
  }
}, {rootMargin: "400px"});

function readImage(svg) {
  const image = svg.querySelector("image");
  image.setAttribute("href", image.dataset.url);
  inView.unobserve(svg);
}

function partOf(image, viewBox) {
  const svg = svgElement("svg", {class: "picture", viewBox: viewBox.join(" ")});
  svg.append(svgElement("image", {preserveAspectRatio: "none", width: image.width, height: image.height, "data-url": image.url}));
  inView.observe(svg);
  return svg;
}

function drawBox(svg, [x, y, width, height], kind, color) {
  svg.append(
    svgElement("rect", {class: "halo", x, y, width, height}),
    svgElement("rect", {class: kind, x, y, width, height, style: `stroke: ${color}`}));
}

// What is shown of an example: the part of the image that its crop has, or would have.
function partShown(x) {
  return x.crop_bbox ?? windowOf(images.get(x.image_id), [x.true_bbox, x.bbox, x.predicted_bbox].filter(Boolean));
}

// An example, as its crop would be.
function drawExample(x) {
  const svg = partOf(images.get(x.image_id), partShown(x));
  if (x.predicted_bbox) drawBox(svg, x.predicted_bbox, "thin", data.colors[x.error_type]);
  drawBox(svg, x.bbox, "detection", data.colors[x.error_type]);
  if (x.true_bbox) drawBox(svg, x.true_bbox, "truth", "#fff");
  return svg;
}
