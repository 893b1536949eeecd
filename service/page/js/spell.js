// Figures as people read them.

/** @typedef {(value: number) => string} Spell */

/** @type {Spell} */
export function plain(value) {
  if (value >= 1e6) return `${digits(value / 1e6)} M`;
  if (value >= 1e4) return `${digits(value / 1e3)} k`;
  return value >= 100 || Number.isInteger(value) ? value.toFixed(0) : digits(value);
}

/** @type {Spell} */
export function seconds(value) {
  return value >= 1 ? `${digits(value)} s` : `${digits(value * 1e3)} ms`;
}

/** @type {Spell} */
export function percent(value) {
  return `${(100 * value).toFixed(0)} %`;
}

/** @type {Spell} */
export function bytes(value) {
  return value >= 1e9 ? `${digits(value / 1e9)} GB` : `${digits(value / 1e6)} MB`;
}

/** Three digits, or what is left of them. @type {Spell} */
function digits(value) {
  return value.toFixed(value >= 100 ? 0 : value >= 10 ? 1 : 2);
}

/** @type {Spell} */
export function duration(value) {
  const [days, hours, minutes] = [
    Math.floor(value / 86400),
    Math.floor(value / 3600) % 24,
    Math.floor(value / 60) % 60,
  ];
  if (days) return `${days} d ${hours} h`;
  if (hours) return `${hours} h ${minutes} min`;
  return minutes ? `${minutes} min` : `${Math.floor(value)} s`;
}
