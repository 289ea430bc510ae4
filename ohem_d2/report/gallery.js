"use strict";
// The cards of a list, of which only those near the view are in the page: chunks of them are filled
// when they come near and emptied when they are gone, and keep their height meanwhile.

const PAGE = 60;  // cards of a chunk. The numbers of columns that fit, 1 to 6, divide it
let chunks = [];  // the elements: the one at i has the cards of found[PAGE * i] and on, or none

const cardOf = x => $("gallery").querySelector(`figure[data-id="${x.id}"]`);
const isFilled = i => chunks[i].childElementCount > 0;

function fill(i) {
  if (isFilled(i)) return;
  chunks[i].append(...found.slice(PAGE * i, PAGE * (i + 1)).map(card));
  chunks[i].style.height = "";
  if (current && cardOf(current)) cardOf(current).setAttribute("aria-current", "true");
}

// Lay out all that is found.
function layOut() {
  nearView.disconnect();
  chunks = Array.from({length: Math.ceil(found.length / PAGE)}, (_, i) => element("div", "", {class: "chunk", "data-chunk": i}));
  if (chunks.length) chunks.at(-1).style.setProperty("--part", (found.length - PAGE * (chunks.length - 1)) / PAGE);
  $("gallery").replaceChildren(...chunks);
  if (chunks.length) fill(0);
  estimate();
  for (const chunk of chunks) nearView.observe(chunk);
}

// How high a chunk is that was never filled: as high as one that is.
function estimate() {
  const i = chunks.findIndex((_, i) => isFilled(i));
  if (i < 0) return;
  const part = Number(chunks[i].style.getPropertyValue("--part") || 1);
  $("gallery").style.setProperty("--chunk", `${chunks[i].offsetHeight / part}px`);
}

// The card of an example, wherever it is.
function broughtIn(x) {
  const at = found.indexOf(x);
  if (at >= 0) fill(Math.floor(at / PAGE));
  return cardOf(x);
}

// Take an example off the list; each chunk behind it that is filled gets the first card of the next.
function takeOff(x) {
  const at = found.indexOf(x);
  cardOf(x)?.remove();
  found.splice(at, 1);
  for (let i = Math.floor(at / PAGE); i < chunks.length; i++) {
    if (chunks[i].childElementCount === 0) continue;
    if (PAGE * i > at) chunks[i].firstElementChild.remove();
    const next = found[PAGE * (i + 1) - 1];
    if (next) chunks[i].append(card(next));
  }
  if (PAGE * (chunks.length - 1) >= found.length) {
    nearView.unobserve(chunks.at(-1));
    chunks.pop().remove();
  }
}

const nearView = new IntersectionObserver(entries => {
  for (const {isIntersecting, target, boundingClientRect} of entries) {
    const i = Number(target.dataset.chunk);
    if (isIntersecting) fill(i);
    else if (isFilled(i)) {
      target.style.height = `${boundingClientRect.height}px`;
      target.replaceChildren();
    }
  }
}, {rootMargin: "1200px"});

window.addEventListener("resize", () => {
  for (const chunk of chunks) chunk.style.height = "";
  estimate();
});
