// Building blocks of the page. Text is only ever set as text.

export const $ = id => document.getElementById(id);

// text sets an element's text when it has changed, so that selections and
// screen readers are left alone otherwise.
export function text(element, value) {
  value = String(value);
  if (element.textContent !== value) element.textContent = value;
  return element;
}

// make builds an element: its class, attributes and children.
export function make(tag, className = "", attributes = {}, ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

export function svg(tag, attributes = {}) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

// keyed makes the children of a parent those of the items, in their order.
// Elements stay what they are for as long as their item does: the focus, and
// whoever is about to click, is not disturbed.
export function keyed(parent, items, keyOf, create, update) {
  const known = parent.children_ ??= new Map();
  const wanted = new Set();
  let place = parent.firstElementChild;
  for (const item of items) {
    const key = keyOf(item);
    wanted.add(key);
    let element = known.get(key);
    if (!element) {
      element = create(item);
      known.set(key, element);
    }
    if (element === place) place = place.nextElementSibling;
    else parent.insertBefore(element, place);
    update?.(element, item);
  }
  for (const [key, element] of known) {
    if (!wanted.has(key)) {
      known.delete(key);
      element.remove();
    }
  }
}
