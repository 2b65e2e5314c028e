// Printed sentences, such as errors, wrap if every printed table of their block fits. Other blocks, commands and
// the examples of the reference scroll.
const COLUMNS = /\S {2,}\S|[│┃━]/;
const longest = (lines) => Math.max(0, ...lines.map((line) => line.length));

function wrapSentences() {
  for (const code of document.querySelectorAll(".language-text:not(.doc *) pre > code")) {
    code.classList.remove("printed-sentences");
    const lines = code.textContent.split("\n");
    const shown = (longest(lines) * code.clientWidth) / code.scrollWidth - 3;
    const tables = longest(lines.filter((line) => COLUMNS.test(line)));
    const commands = lines.some((line) => line.startsWith("$ "));
    code.classList.toggle("printed-sentences", tables <= shown && !commands);
  }
}

wrapSentences();
addEventListener("resize", wrapSentences);
