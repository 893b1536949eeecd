// Which vectors are nearest to each by cosine, in all of their dimensions.

const COUNT = 3;

/**
 * Give the places of each vector's nearest others, nearest first.
 * @param {Float32Array[]} vectors
 * @returns {number[][]}
 */
export function nearest(vectors) {
  const lengths = vectors.map((vector) => Math.sqrt(dot(vector, vector)) || 1);
  return vectors.map((vector, i) => {
    const cosines = vectors.map((other, j) => (i === j ? -Infinity : dot(vector, other) / lengths[i] / lengths[j]));
    const order = cosines.map((_, j) => j).filter((j) => j !== i);
    return order.sort((a, b) => cosines[b] - cosines[a]).slice(0, COUNT);
  });
}

/**
 * @param {Float32Array} one
 * @param {Float32Array} other
 */
function dot(one, other) {
  let product = 0;
  for (let k = 0; k < one.length; k++) product += one[k] * other[k];
  return product;
}
