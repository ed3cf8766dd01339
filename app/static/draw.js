// The drawing pad: a drag, or two taps, make a box; a drag paints. Pixels of the picture go to the
// page as [{box: [x0, y0, x1, y1]}, {stroke: [[x, y], ...], radius, erase}, {pick: number of what a
// detector found}]; what is drawn for good
// comes back from there. Marks made while one is on its way wait, so that none is lost.
const SLIP = 6;  // screen pixels a finger may move and still tap
const PATIENCE = 5000;
const SVG = 'http://www.w3.org/2000/svg';
let from = null, tapped = null, path = null, waiting = null, marks = [], tool = '';

const marksOn = () => element.querySelector('.w-marks');
const drawing = () => ['box', 'brush'].find((tool) => tool === marksOn()?.dataset.tool) || '';
const number = (name) => Number(marksOn().dataset[name]);
const place = (event) => {
  const frame = marksOn().getBoundingClientRect();
  const within = (value, length) => Math.min(Math.max(value, 0), 1) * length;
  return [
    within((event.clientX - frame.left) / frame.width, number('width')),
    within((event.clientY - frame.top) / frame.height, number('height')),
  ];
};
const far = (event) => Math.hypot(event.clientX - from.clientX, event.clientY - from.clientY) > SLIP;

const rubber = (kind, attributes) => {
  let shape = element.querySelector('.w-rubber');
  if (shape && shape.tagName !== kind) { shape.remove(); shape = null; }
  if (!shape) {
    shape = document.createElementNS(SVG, kind);
    shape.setAttribute('class', `w-rubber w-rubber-${drawing()}`);
    marksOn().append(shape);
  }
  for (const [name, value] of Object.entries(attributes)) shape.setAttribute(name, value);
};
const wipe = () => element.querySelector('.w-rubber')?.remove();
const cross = ([x, y]) => {
  const arm = number('width') / 40;
  rubber('path', {d: `M${x - arm} ${y}h${2 * arm}M${x} ${y - arm}v${2 * arm}`});
};
const frame = ([ax, ay], [bx, by]) => rubber('rect', {
  x: Math.min(ax, bx), y: Math.min(ay, by), width: Math.abs(ax - bx), height: Math.abs(ay - by),
});
const line = () => rubber('polyline', {
  points: [...path, path.at(-1)].map((point) => point.join(',')).join(' '),
  'stroke-width': 2 * number('radius'),
});

const send = () => {
  if (waiting || !marks.length) return;
  waiting = setTimeout(arrived, PATIENCE);
  trigger('select', {id: JSON.stringify(marks)});
  marks = [];
};
const arrived = () => {
  clearTimeout(waiting);
  waiting = null;
  if (tapped && drawing() === 'box') cross(tapped);
  send();
};
const mark = (made) => { marks.push(made); send(); };
const forget = () => { from = tapped = path = null; wipe(); };

element.addEventListener('pointerdown', (event) => {
  if (!drawing() || !event.isPrimary || event.button !== 0 || !event.target.closest('.w-pad')) return;
  event.preventDefault();
  element.setPointerCapture(event.pointerId);
  from = {clientX: event.clientX, clientY: event.clientY, at: place(event)};
  if (drawing() === 'brush') { path = [from.at]; line(); }
});
element.addEventListener('pointermove', (event) => {
  if (!drawing()) return;
  const here = place(event);
  if (path) {
    const [x, y] = path.at(-1);
    if (Math.hypot(here[0] - x, here[1] - y) < number('radius') / 4) return;
    if (path.length > 600) path = path.filter((_, i) => i % 2 === 0);
    path.push(here);
    line();
  } else if (from && far(event)) {
    frame(from.at, here);
  } else if (!from && tapped && event.pointerType === 'mouse') {
    frame(tapped, here);
  }
});
element.addEventListener('pointerup', (event) => {
  if (!from) return;
  const here = place(event);
  if (path) {
    mark({stroke: path, radius: number('radius'), erase: marksOn().dataset.erase === 'yes'});
    from = path = null;
  } else if (far(event)) {
    mark({box: [...from.at, ...here]});
    from = tapped = null;
  } else if (tapped && (tapped[0] !== here[0] && tapped[1] !== here[1])) {
    mark({box: [...tapped, ...here]});
    from = tapped = null;
  } else {
    tapped = here;
    from = null;
    cross(tapped);
  }
});
element.addEventListener('click', (event) => {
  const found = event.target.closest('[data-pick]');
  if (found) mark({pick: Number(found.dataset.pick)});
});
element.addEventListener('pointercancel', forget);
document.addEventListener('keydown', (event) => { if (event.key === 'Escape') forget(); });
watch('value', () => {
  // a corner that was tapped belongs to its picture and its tool
  if (tool !== drawing()) { tool = drawing(); forget(); }
  arrived();
});
watch('photo', forget);
