// Reads lines as a list in JSON, and prints their plain texts as one.

import { readFileSync } from "node:fs";

import { parseLine } from "../../src/ci_eventstore/web/page/js/log/ansi.js";

const lines = JSON.parse(readFileSync(process.argv[2], "utf8"));
process.stdout.write(JSON.stringify(lines.map((line) => parseLine(line).text)));
