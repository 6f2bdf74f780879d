// Points at the place of a chart that is nearest to the pointer or finger, and tells what each line is there. Without it the
// points have titles of their own.
for (const chart of document.querySelectorAll("svg.chart")) {
  const marks = [...chart.querySelectorAll(".mark")].map((circle) => {
    const title = circle.querySelector("title");
    const text = title.textContent;
    title.remove();
    return { circle, text, x: Number(circle.getAttribute("cx")), y: Number(circle.getAttribute("cy")), look: circle.classList[1] };
  });
  let tip = null;
  const hide = () => {
    for (const { circle } of marks) circle.classList.remove("on");
    if (tip) tip.remove();
    tip = null;
  };
  chart.addEventListener("pointerleave", hide);
  chart.addEventListener("pointermove", (event) => {
    hide();
    const box = chart.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * chart.viewBox.baseVal.width;
    // Of each line the nearest point.
    const nearest = new Map();
    for (const mark of marks) {
      const line = mark.text.slice(0, mark.text.lastIndexOf(": "));
      const before = nearest.get(line);
      if (!before || Math.abs(mark.x - x) < Math.abs(before.x - x)) nearest.set(line, mark);
    }
    if (nearest.size === 0) return;
    tip = document.createElement("div");
    tip.className = "tip";
    for (const mark of [...nearest.values()].sort((a, b) => a.y - b.y)) {
      mark.circle.classList.add("on");
      const row = document.createElement("div");
      const dot = document.createElement("i");
      dot.className = mark.look;
      row.append(dot, mark.text);
      tip.append(row);
    }
    document.body.append(tip);
    const left = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8);
    const top = event.clientY + 16 + tip.offsetHeight > innerHeight ? event.clientY - tip.offsetHeight - 12 : event.clientY + 16;
    tip.style.left = `${Math.max(8, left)}px`;
    tip.style.top = `${Math.max(8, top)}px`;
  });
}
