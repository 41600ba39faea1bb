/**
 * Return the first place of a list from which on a condition holds; the list's length if it never does.
 *
 * @template T
 * @param {readonly T[]} list
 * @param {(item: T) => boolean} isBeyond
 */
export function bisect(list, isBeyond) {
  let [low, high] = [0, list.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (isBeyond(list[middle])) high = middle;
    else low = middle + 1;
  }
  return low;
}
