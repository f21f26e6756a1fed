// Shows what is below the pointer, and a part of the time larger. The page says all of it without this.
(() => {
  "use strict";
  const SVG = document.querySelector("svg").namespaceURI;
  const WIDE = 1000;
  const LABELS = [0, 0.25, 0.5, 0.75, 1];
  const LEAST = 0.002;
  let view = [0, 1];

  const make = (name, attributes) => {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    return element;
  };
  const percent = (part) => `${part * 100}%`;
  const shown = (part) => (part - view[0]) / (view[1] - view[0]);
  const number = (text) => Number(text).toLocaleString("en");

  const read = (text) => {
    let known = "0";
    return text.split(";").filter(Boolean).map((point) => {
      const [part, time, last, least, most, limit, dropped] = point.split("|");
      known = limit || known;
      return { part: Number(part), time, last, least, most, limit: known, dropped };
    });
  };

  const words = (at) => {
    const said = [at.time];
    if (at.last === "") said.push("entries not readable");
    else {
      const of = Number(at.limit) > 0
        ? ` of ${number(at.limit)} (${(at.last * 100 / at.limit).toFixed(1)}%)` : "";
      said.push(`${number(at.last)}${of} entries`);
      if (at.least !== at.most) said.push(`${number(at.least)} to ${number(at.most)} meanwhile`);
    }
    if (at.dropped) said.push(at.dropped);
    return said.join(" · ");
  };

  const charts = [...document.querySelectorAll("[data-points]")].map((plot, at) => {
    const first = at === 0;
    const points = read(plot.dataset.points);
    const areas = [...plot.querySelectorAll("svg.area")];
    const times = plot.querySelector("svg.x");
    const labels = LABELS.map((part) => {
      const anchor = part === 0 ? "start" : part === 1 ? "end" : "middle";
      const label = make("text", { x: percent(part), y: 14, "text-anchor": anchor, visibility: "hidden" });
      times.append(label);
      return label;
    });
    const hairs = areas.map((area) => {
      const hair = make("line", { class: "hair", y1: 0, y2: "100%", visibility: "hidden" });
      area.append(hair);
      return hair;
    });
    const readout = document.createElement("p");
    readout.className = "readout";
    const text = document.createElement("span");
    if (first) text.textContent = "Point at a picture for its figures; drag over a time to enlarge it.";
    const all = document.createElement("button");
    all.type = "button";
    all.textContent = "show all of the time";
    all.hidden = true;
    all.addEventListener("click", () => zoom([0, 1]));
    readout.append(text, all);
    plot.after(readout);
    return { plot, points, areas, labels, hairs, text, all };
  });

  const nearest = (points, part) => {
    let [low, high] = [0, points.length - 1];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (points[middle].part < part) low = middle + 1;
      else high = middle;
    }
    const before = points[low - 1];
    return before && part - before.part < points[low].part - part ? before : points[low];
  };

  const place = (element) => {
    const part = Number(element.dataset.x);
    const from = shown(part);
    if (element.dataset.w !== undefined) {
      const to = Math.min(1, shown(part + Number(element.dataset.w)));
      const begin = Math.max(0, from);
      element.setAttribute("visibility", to > begin ? "visible" : "hidden");
      element.setAttribute("x", percent(begin));
      element.setAttribute("width", percent(Math.max(0, to - begin)));
      return;
    }
    const is = { line: ["x1", "x2"], circle: ["cx"], text: ["x"] }[element.localName] || [];
    for (const name of is) element.setAttribute(name, percent(from));
    const isTick = element.classList.contains("tick") && (view[0] > 0 || view[1] < 1);
    element.setAttribute("visibility", from < 0 || from > 1 || isTick ? "hidden" : "visible");
  };

  function zoom(to) {
    view = to;
    const isAll = view[0] === 0 && view[1] === 1;
    for (const { plot, points, labels, all, hairs } of charts) {
      for (const svg of plot.querySelectorAll("svg.stretched")) {
        const high = svg.getAttribute("height");
        svg.setAttribute("viewBox", `${view[0] * WIDE} 0 ${(view[1] - view[0]) * WIDE} ${high}`);
      }
      plot.querySelectorAll("[data-x]").forEach(place);
      labels.forEach((label, at) => {
        const found = points.length > 0 && nearest(points, view[0] + LABELS[at] * (view[1] - view[0]));
        label.textContent = found ? found.time : "";
        label.setAttribute("visibility", isAll ? "hidden" : "visible");
      });
      hairs.forEach((hair) => hair.setAttribute("visibility", "hidden"));
      all.hidden = isAll;
    }
  }

  for (const chart of charts) {
    for (const area of chart.areas) {
      area.classList.add("live");
      let chosen = null;
      const part = (event) => {
        const box = area.getBoundingClientRect();
        return Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
      };
      area.addEventListener("pointermove", (event) => {
        const at = part(event);
        if (chosen) {
          chosen.rect.setAttribute("x", percent(Math.min(chosen.from, at)));
          chosen.rect.setAttribute("width", percent(Math.abs(at - chosen.from)));
        }
        if (chart.points.length === 0) return;
        const found = nearest(chart.points, view[0] + at * (view[1] - view[0]));
        for (const hair of chart.hairs) {
          hair.setAttribute("x1", percent(shown(found.part)));
          hair.setAttribute("x2", percent(shown(found.part)));
          hair.setAttribute("visibility", "visible");
        }
        chart.text.textContent = words(found);
      });
      area.addEventListener("pointerdown", (event) => {
        if (event.pointerType !== "mouse" || event.button !== 0) return;
        event.preventDefault();
        area.setPointerCapture(event.pointerId);
        const rect = make("rect", { class: "chosen", y: 0, height: "100%", width: 0 });
        area.append(rect);
        chosen = { from: part(event), rect };
      });
      const end = (event) => {
        if (!chosen) return;
        const [from, to] = [chosen.from, part(event)].sort((a, b) => a - b);
        chosen.rect.remove();
        chosen = null;
        const wide = view[1] - view[0];
        if (event.type === "pointerup" && to - from > 0.01 && (to - from) * wide > LEAST) {
          zoom([view[0] + from * wide, view[0] + to * wide]);
        }
      };
      area.addEventListener("pointerup", end);
      area.addEventListener("pointercancel", end);
      area.addEventListener("dblclick", () => zoom([0, 1]));
    }
  }
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") zoom([0, 1]);
  });
})();
