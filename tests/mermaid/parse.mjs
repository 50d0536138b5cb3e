// Reads JSON lists of diagrams, one list a line, and answers each with a line: a JSON list of
// {"type", "texts"} for a diagram that Mermaid draws, {"error"} for one that it refuses.
// "texts" are the texts a reader sees in the drawing.
import { createInterface } from "node:readline";
import { JSDOM } from "jsdom";

// Mermaid lays diagrams out in a page and measures the texts; jsdom has a page but measures nothing.
function measure() {
  const width = 8 * (this.textContent ?? "").length;
  return { x: 0, y: 0, left: 0, top: 0, right: width, bottom: 16, width, height: 16 };
}

const { window } = new JSDOM("", { pretendToBeVisual: true });
window.Element.prototype.getBoundingClientRect = measure;
window.SVGElement.prototype.getBBox = measure;
window.SVGElement.prototype.getComputedTextLength = function () {
  return measure.call(this).width;
};
globalThis.window = window;
globalThis.document = window.document;
globalThis.CSSStyleSheet = class {
  cssRules = [];
  insertRule() {}
  replaceSync() {}
};

const { default: mermaid } = await import("mermaid");
// Wide lifelines: a text is in one piece, and not wrapped and hyphenated.
mermaid.initialize({ startOnLoad: false, suppressErrorRendering: true, sequence: { width: 2000 } });

let drawn = 0;

async function draw(diagram) {
  try {
    const { diagramType: type } = await mermaid.parse(diagram);
    const { svg } = await mermaid.render(`diagram-${drawn++}`, diagram);
    return { type, texts: textsIn(svg) };
  } catch (error) {
    return { error: String(error?.message ?? error) };
  }
}

function textsIn(svg) {
  const holder = window.document.createElement("div");
  holder.innerHTML = svg;
  return [...holder.querySelectorAll("text, .nodeLabel, .edgeLabel p")].map((element) => element.textContent);
}

for await (const line of createInterface({ input: process.stdin })) {
  const answers = [];
  for (const diagram of JSON.parse(line)) {
    answers.push(await draw(diagram));
  }
  process.stdout.write(JSON.stringify(answers) + "\n");
}
