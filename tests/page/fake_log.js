// Runs in the page: a view over a log of any length that no server has. Given `base`, where the page's files are.

async (base, total) => {
  // eslint-disable-next-line no-unsanitized/method -- the test names the page's own files
  const load = (name) => import(`${base}js/log/${name}.js`);
  const [{ LineStore }, { Outline }, { LogView }] = await Promise.all(["line_store", "outline", "log_view"].map(load));
  const special = new Map();
  const log = { total, isOpen: false, position: 1 };
  const textOf = (n) => {
    if (special.has(n)) return special.get(n);
    return n % 10 === 0 ? `${"word ".repeat(20 + (n % 90))}\u001b[31m${n}\u001b[0m` : `line ${n}`;
  };
  const fetchLines = async ({ from, count, signal }) => {
    await new Promise((resolve) => { setTimeout(resolve, 1); });
    signal.throwIfAborted();
    const lines = [];
    for (let n = from; n < from + count && n <= log.total; n += 1) {
      const text = textOf(n);
      const cut = text.length > 16384 ? { bytes: text.length } : {};
      lines.push({ n, t: new Date(1.8e12 + n).toISOString(), text: text.slice(0, 16384), ...cut });
    }
    return { first: from, lines, total: log.total, is_open: log.isOpen, position: log.position };
  };
  const host = document.createElement("div");
  host.style.height = "780px";
  document.body.replaceChildren(host);
  const store = new LineStore({ fetchLines });
  const outline = new Outline();
  const view = new LogView(host, { store, outline, options: { textHref: (n) => `#text-${n}` } });
  const heard = [];
  for (const name of ["followchange", "newlines", "linepick", "foldtoggle"]) {
    view.addEventListener(name, ({ detail }) => heard.push([name, detail]));
  }
  host.addEventListener("copied", ({ detail }) => heard.push(["copied", detail]));
  const write = (text) => {
    log.position += 1;
    const line = log.total + 1;
    log.total += text.split("\n").length - 1;
    special.set(line, text.slice(0, -1));
    store.append(text, null, line, log.position);
  };
  const box = host.querySelector(".log-scroller");
  const row = (n) => host.querySelector(`.log-row[data-line="${n}"]:not(.is-kept)`);
  const first = () => {
    const top = box.getBoundingClientRect().top;
    const rows = [...host.querySelectorAll(".log-row:not(.is-kept)")];
    const found = rows.find((one) => one.getBoundingClientRect().bottom > top + 0.5);
    return found ? Number(found.dataset.line) : 0;
  };
  const topOf = (n) => row(n)?.getBoundingClientRect().top ?? null;
  const textIn = (n) => row(n)?.querySelector(".log-content").textContent ?? null;
  const startOf = (n) => {
    const { x, y } = row(n).querySelector(".log-content").getBoundingClientRect();
    return [x, y];
  };
  window.fake = { startOf, store, outline, view, special, heard, write, box, row, first, topOf, textIn, textOf };
  store.setTotals({ lines: total, isOpen: false, position: 1 });
};
