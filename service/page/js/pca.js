// The two directions in which vectors differ most: principal component analysis (Pearson 1901).

const MOST_STEPS = 500;
/** Change of a direction's square, below which it is found. */
const STILL = 1e-14;

/**
 * @typedef {object} Plane
 * @property {[number, number][]} points each vector's place on the two axes
 * @property {[number, number]} shares of the vectors' variance on each axis
 */

/**
 * Project vectors [n, width] onto their two principal axes.
 *
 * It works on the products of the centred vectors with each other, [n, n], whose eigenvectors times the roots of their
 * eigenvalues are the projections; they are found by orthogonal iteration (Golub and Van Loan, 8.2.4). An axis points to
 * where its furthest point lies, so that the same vectors give the same picture.
 * @param {Float32Array[]} vectors
 * @returns {Plane}
 */
export function plane(vectors) {
  const products = productsOf(centred(vectors));
  const count = vectors.length;
  const total = sum(count, (i) => products[i * count + i]);
  let axes = [start(count, 1), start(count, 2)];
  let values = [0, 0];
  for (let step = 0; step < MOST_STEPS && total > 0; step++) {
    const moved = axes.map((axis) => times(products, axis));
    values = moved.map(norm);
    const next = orthonormal(moved, total);
    const change = Math.max(...next.map((axis, k) => sum(count, (i) => (axis[i] - axes[k][i]) ** 2)));
    axes = next;
    if (change < STILL) break;
  }
  const scales = axes.map((axis, k) => Math.sqrt(values[k]) * Math.sign(furthest(axis) || 1));
  return {
    points: vectors.map((_, i) => [axes[0][i] * scales[0], axes[1][i] * scales[1]]),
    shares: [values[0] / (total || 1), values[1] / (total || 1)],
  };
}

/** @param {Float32Array[]} vectors */
function centred(vectors) {
  const width = vectors[0].length;
  const mean = new Float64Array(width);
  for (const vector of vectors) for (let k = 0; k < width; k++) mean[k] += vector[k] / vectors.length;
  return vectors.map((vector) => Float64Array.from(vector, (value, k) => value - mean[k]));
}

/** @param {Float64Array[]} rows */
function productsOf(rows) {
  const count = rows.length;
  const products = new Float64Array(count * count);
  for (let i = 0; i < count; i++) {
    for (let j = 0; j <= i; j++) {
      let product = 0;
      for (let k = 0; k < rows[i].length; k++) product += rows[i][k] * rows[j][k];
      products[i * count + j] = products[j * count + i] = product;
    }
  }
  return products;
}

/**
 * Give a vector that is no axis by chance and always the same.
 * @param {number} count
 * @param {number} seed
 */
function start(count, seed) {
  const axis = Float64Array.from({ length: count }, (_, i) => Math.sin(seed * 12.9898 + i * 78.233));
  const length = norm(axis) || 1;
  return axis.map((value) => value / length);
}

/**
 * @param {Float64Array} matrix
 * @param {Float64Array} vector
 */
function times(matrix, vector) {
  const count = vector.length;
  return Float64Array.from({ length: count }, (_, i) => sum(count, (j) => matrix[i * count + j] * vector[j]));
}

/**
 * Scale to length 1 and take the first out of the second; where nothing is left, there is no second axis.
 * @param {Float64Array[]} pair
 * @param {number} total
 */
function orthonormal([first, second], total) {
  const one = unit(first, total);
  const overlap = sum(one.length, (i) => one[i] * second[i]);
  return [
    one,
    unit(
      second.map((value, i) => value - overlap * one[i]),
      total,
    ),
  ];
}

/**
 * @param {Float64Array} axis
 * @param {number} total
 */
function unit(axis, total) {
  const length = norm(axis);
  return axis.map((value) => (length > total * 1e-12 ? value / length : 0));
}

/** @param {Float64Array} axis */
function norm(axis) {
  return Math.sqrt(sum(axis.length, (i) => axis[i] ** 2));
}

/** @param {Float64Array} axis */
function furthest(axis) {
  return axis.reduce((best, value) => (Math.abs(value) > Math.abs(best) ? value : best), 0);
}

/**
 * @param {number} count
 * @param {(index: number) => number} term
 */
function sum(count, term) {
  let total = 0;
  for (let index = 0; index < count; index++) total += term(index);
  return total;
}
