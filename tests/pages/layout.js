// What of a page does not fit: a list of sentences, empty where all does.
(() => {
  const SLACK = 1.5;
  const faults = [];
  const say = (words, element) => {
    const name = element.localName + (element.className?.baseVal ?? element.className ?? "").toString()
      .split(" ").filter(Boolean).map((one) => "." + one).join("");
    faults.push(`${words}: <${name}> ${element.textContent.trim().slice(0, 60)}`);
  };
  const style = (element) => getComputedStyle(element);
  const scrolls = (element) => /auto|scroll/.test(style(element).overflowX);
  const root = document.documentElement;
  if (root.scrollWidth > root.clientWidth) {
    const beyond = [...document.body.querySelectorAll("*")].filter((element) =>
      element.getBoundingClientRect().right > root.clientWidth + SLACK);
    say(`the page is ${root.scrollWidth} px wide in a window of ${root.clientWidth}`,
      beyond.at(-1) ?? document.body);
  }
  // The box that text is laid out in: the next ancestor that is no part of a line. What a drawing shows beyond
  // its own edges is in the box that the drawing is in.
  const boxOf = (element) => {
    const drawing = element.closest("svg");
    if (drawing && !/visible/.test(style(drawing).overflowX)) return drawing;
    let box = drawing ? drawing.parentElement.closest(":not(svg, svg *)") : element;
    while (box !== document.body && /^(inline|contents)$/.test(style(box).display)) box = box.parentElement;
    return box;
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let texts = 0;
  while (walker.nextNode()) {
    const node = walker.currentNode, element = node.parentElement;
    if (!node.data.trim() || /^(script|style|noscript|title)$/.test(element.localName)) continue;
    if (!element.checkVisibility({ visibilityProperty: true })) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    const rects = [...range.getClientRects()].filter((rect) => rect.width > 0 && rect.height > 0);
    if (rects.length === 0) continue;
    texts += 1;
    const box = boxOf(element);
    if (scrolls(box)) continue;
    const frame = box.getBoundingClientRect();
    // Letters are cut at the edge of the window, whatever box they are in.
    if (rects.some((rect) => rect.right > root.clientWidth + SLACK || rect.left < -SLACK)) {
      let outer = box;
      while (outer && !scrolls(outer)) outer = outer.parentElement;
      if (!outer || outer === root) say("text beyond the window", element);
    }
    if (rects.some((rect) => rect.left < frame.left - SLACK || rect.right > frame.right + SLACK)) {
      say("text beyond the sides of its box", element);
    }
    if (rects.some((rect) => rect.bottom > frame.bottom + 4 || rect.top < frame.top - 4)) {
      say("text above or below its box", element);
    }
  }
  if (texts === 0) say("no text is to be seen", document.body);
  for (const element of document.body.querySelectorAll("*")) {
    const cut = /hidden|clip/.test(style(element).overflowX) && element.clientWidth > 1;
    if (cut && !element.closest("svg") && element.scrollWidth > element.clientWidth + 1) {
      say("text that is cut off", element);
    }
  }
  // Labels of one picture that lie on each other cannot be read; a picture may be several drawings.
  const pictures = new Set([...document.querySelectorAll("svg")].map((drawing) => drawing.parentElement));
  for (const picture of pictures) {
    const labels = [...picture.querySelectorAll("text")].filter((label) =>
      label.checkVisibility({ visibilityProperty: true }) && label.textContent.trim());
    const rects = labels.map((label) => label.getBoundingClientRect());
    rects.forEach((one, at) => rects.slice(at + 1).forEach((other) => {
      const across = Math.min(one.right, other.right) - Math.max(one.left, other.left);
      const down = Math.min(one.bottom, other.bottom) - Math.max(one.top, other.top);
      if (across > 2 && down > 4) say("labels lie on each other", labels[at]);
    }));
  }
  return faults;
})()
