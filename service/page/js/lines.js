// Lines of a text field.

/**
 * Give the lines that have something in them.
 * @param {string} text
 * @param {number} most
 */
export function linesOf(text, most) {
  const all = text
    .split("\n")
    .map((line) => line.trim())
    .filter(Boolean);
  return { lines: all.slice(0, most), dropped: Math.max(0, all.length - most) };
}

/**
 * Give the block, counted from 0, that each line stands in; an empty line ends one.
 * @param {string} text
 * @returns {number[]}
 */
export function blocksOf(text) {
  const blocks = text.split(/\n[^\S\n]*(?:\n[^\S\n]*)+/).map((block) => linesOf(block, Infinity).lines.length);
  return blocks.filter(Boolean).flatMap((count, block) => Array(count).fill(block));
}

/**
 * Say that lines were left out.
 * @param {number} most
 * @param {number} dropped
 */
export function droppedNote(most, dropped) {
  return dropped ? `The first ${most} lines are shown; ${dropped} more are left out.` : "";
}
