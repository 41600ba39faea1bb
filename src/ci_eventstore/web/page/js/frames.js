/**
 * What is drawn however often something happens: once a frame, and not at all while nobody looks.
 */

/**
 * Return a function that has something done with the next frame, once, however often it is called until then.
 *
 * @param {() => void} act
 * @returns {{(): void, cancel: () => void}}
 */
export function perFrame(act) {
  let frame = 0;
  const schedule = () => {
    frame ||= requestAnimationFrame(() => {
      frame = 0;
      act();
    });
  };
  const cancel = () => {
    cancelAnimationFrame(frame);
    frame = 0;
  };
  return Object.assign(schedule, { cancel });
}
