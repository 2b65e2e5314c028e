// Printed lines without columns are sentences, such as errors: they wrap. Tables and commands keep their lines.
for (const code of document.querySelectorAll(".language-text pre > code")) {
  if (!/\S {2,}\S|[│┃━]|^\$ /m.test(code.textContent)) {
    code.classList.add("printed-sentences");
  }
}
