// Model cards as elements: the Markdown that contracts/card.py writes, and no more of it. Text only ever becomes text.

const INLINE = /\\(.)|`([^`]*)`|\*\*(.+?)\*\*/g;
const HEADING_OFFSET = 2; // The page has headings of its own above.

function make(tag, children) {
  const element = document.createElement(tag);
  element.append(...children);
  return element;
}

function inline(text) {
  const pieces = [];
  let end = 0;
  for (const match of text.matchAll(INLINE)) {
    const [whole, escaped, code, strong] = match;
    pieces.push(text.slice(end, match.index));
    if (strong) pieces.push(make("strong", [strong]));
    else pieces.push(code === undefined ? escaped : make("code", [code]));
    end = match.index + whole.length;
  }
  return [...pieces, text.slice(end)];
}

function table(lines) {
  const [header, , ...rows] = lines.map((line) => line.slice(2, -2).split(" | "));
  const row = (cells, tag) => make("tr", cells.map((cell) => make(tag, inline(cell))));
  const head = make("thead", [row(header, "th")]);
  const body = make("tbody", rows.map((cells) => row(cells, "td")));
  const frame = make("div", [make("table", [head, body])]);
  frame.className = "table";
  return frame;
}

function block(text) {
  const lines = text.split("\n");
  const heading = text.match(/^(#+) (.*)$/);
  if (heading) return make(`h${heading[1].length + HEADING_OFFSET}`, inline(heading[2]));
  if (text.startsWith("- ")) return make("ul", lines.map((line) => make("li", inline(line.slice(2)))));
  if (text.startsWith("| ")) return table(lines);
  if (text.startsWith("> ")) return make("blockquote", inline(text.slice(2)));
  return make("p", inline(text));
}

export function elements(markdown) {
  return markdown.trim().split("\n\n").map(block);
}
