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
 * Say where a key leads from a place.
 * @param {KeyboardEvent} event
 * @param {number} index
 * @param {number} count
 * @param {number} columns
 */
function target(event, index, count, columns) {
  if (index < 0 || event.altKey || event.metaKey) return null;
  const start = index - (index % columns);
  switch (event.key) {
    case "ArrowLeft":
      return columns === count || index > start ? index - 1 : null;
    case "ArrowRight":
      return columns === count || index < start + columns - 1 ? index + 1 : null;
    case "ArrowUp":
      return index - columns;
    case "ArrowDown":
      return index + columns;
    case "Home":
      return event.ctrlKey ? 0 : start;
    case "End":
      return event.ctrlKey ? count - 1 : Math.min(start + columns, count) - 1;
    default:
      return null;
  }
}
