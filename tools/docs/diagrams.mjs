// Parses the diagrams of the pages that are named, with mermaid's own parser.
import { readFileSync } from "node:fs";
import { JSDOM } from "jsdom";

globalThis.window = new JSDOM("").window;
globalThis.document = window.document;
const mermaid = (await import("mermaid")).default;

let parsed = 0;
for (const page of process.argv.slice(2)) {
  const text = readFileSync(page, "utf8");
  for (const found of text.matchAll(/^```mermaid\n(.*?)^```$/gms)) {
    try {
      await mermaid.parse(found[1]);
      parsed++;
    } catch (e) {
      console.error(`${page}:${text.slice(0, found.index).split("\n").length}: ${e.message}`);
      process.exitCode = 1;
    }
  }
}
console.log(`${parsed} diagrams`);
