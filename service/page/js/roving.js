// One tab stop for many elements, and arrow keys among them.

/**
 * @param {HTMLElement} container
 * @param {HTMLElement[]} items row by row
 * @param {number} columns
 */
export function rove(container, items, columns) {
  let current = 0;
  items.forEach((item, index) => (item.tabIndex = index === 0 ? 0 : -1));

  container.onkeydown = (event) => {
    const next = target(event, items.indexOf(/** @type {HTMLElement} */ (event.target)), items.length, columns);
    if (next === null || !items[next]) return;
    event.preventDefault();
    items[next].focus();
  };
  items.forEach((item, index) => {
    item.addEventListener("focus", () => {
      items[current].tabIndex = -1;
      item.tabIndex = 0;
      current = index;
    });
  });
}

/**
 * Say where a key leads from a place. In one column all arrows lead along it; in one row those to the sides.
 * @param {KeyboardEvent} event
 * @param {number} index
 * @param {number} count
 * @param {number} columns
 */
function target(event, index, count, columns) {
  if (index < 0 || event.altKey || event.metaKey) return null;
  const isLine = columns === 1 || columns === count;
  const [first, last] = isLine ? [0, count - 1] : [index - (index % columns), index - (index % columns) + columns - 1];
  switch (event.key) {
    case "ArrowLeft":
      return index > first ? index - 1 : null;
    case "ArrowRight":
      return index < last ? index + 1 : null;
    case "ArrowUp":
      return index - columns;
    case "ArrowDown":
      return index + columns;
    case "Home":
      return event.ctrlKey ? 0 : first;
    case "End":
      return event.ctrlKey ? count - 1 : last;
    default:
      return null;
  }
}
