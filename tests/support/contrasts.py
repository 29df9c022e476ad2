"""Contrasts of all texts of a page, in a browser."""

# Relative luminance and contrast as in WCAG 2; of every text that is seen, against the nearest
# background that is not see-through.
CONTRASTS = """() => {
  const rgba = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (text) => rgba(text).slice(0, 3).map((v) => v / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const found = [];
  for (const element of document.querySelectorAll("body *")) {
    const texts = [...element.childNodes].filter((node) => node.nodeType === 3);
    const text = texts.map((node) => node.data).join("").trim();
    if (!text || !element.checkVisibility()) continue;
    if (element.closest("svg, .hidden, script, figcaption")) continue;
    const look = (e) => getComputedStyle(e);
    let behind = element;
    while ((rgba(look(behind).backgroundColor)[3] ?? 1) < 0.5) behind = behind.parentElement;
    const [a, b] = [light(look(element).color), light(look(behind).backgroundColor)];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    found.push([text, contrast, parseFloat(look(element).fontSize)]);
  }
  return found;
}"""
