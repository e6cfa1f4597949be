// Shows traces, step by step. A step is what one event of a trace tells. A lane is a trace; there are
// one or two. A moment is where all lanes are when each that can has made one more step.
const data = JSON.parse(document.querySelector("#data").textContent);
const LONG = 250; // microseconds of sleep that are drawn to scale
const MANY = 12, MOST = 24; // connections: more than that come by how busy they are; are not shown
const SHAPES = { // of what takes time: how far down, how high, and a sign where it is too short to be seen
  sleep: [0.4, 0.2], turn: [0.4, 0.2], message: [0.75, 0.25], recv: [0.4, 0.6, "▽"], send: [0, 0.6, "△"] };
const BARS = { line: "incomplete line", lines: "lines waiting", unsent: "replies unsent",
  arrived: "kernel, unread", undelivered: "kernel, unsent" };
const find = (selector, within = document) => within.querySelector(selector);
const copy = (id) => find(id).content.firstElementChild.cloneNode(true);
const make = (tag, textContent = "", className = "") =>
  Object.assign(document.createElement(tag), { textContent, className });

const duration = (us) =>
  us < 1e3 ? `${us.toFixed(us < 10 ? 1 : 0)} µs` : us < 1e6 ? `${(us / 1e3).toFixed(1)} ms`
    : `${(us / 1e6).toFixed(us < 1e7 ? 2 : us < 1e8 ? 1 : 0)} s`;

// The index of the last of `things`, which are in order, whose `value` is not above `limit`; or -1.
function upTo(things, limit, value = (thing) => thing) {
  let low = -1, high = things.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (value(things[middle]) <= limit) low = middle; else high = middle - 1;
  }
  return low;
}

// A lane's steps, and everybody's figures after any of them.
class History {
  constructor({ steps, tracks, verbs, texts, places }) {
    let end = 0, turn = 0, part = "";
    this.past = new Map(tracks.map((who) => [who, []])); // who -> [[step, figures after it], …]
    this.limits = {}; // of the buffers that are known
    this.steps = steps.map(([since, lasted, who, verb, text, place, now], at) => {
      end += since;
      const step = { end, start: end - (lasted ?? 0), lasted, who: tracks[who], verb: verbs[verb],
        text: texts[text], place: places[place], now: now || {} };
      Object.assign(this.limits, step.now.limits);
      step.idle = step.verb === "sleep" || step.verb === "act"; // no work: it is drawn shorter
      step.turn = turn += step.verb === "sleep";
      step.part = part = step.now.part ?? part;
      const past = this.past.get(step.who), said = step.verb === "message" || step.verb === "reply";
      past.push([at, { ...past.at(-1)?.[1], ...step.now, ...(said && { last: step.text }) }]);
      return step;
    });
  }

  figures(who, at, past = this.past.get(who) ?? []) { return past[upTo(past, at, ([step]) => step)]?.[1] ?? {}; }
  label(who) { return [who, this.figures(who, Infinity).name].filter(Boolean).join(" "); } // as in the end
}

// The strip of time. Work is drawn to scale, and a long sleep shorter.
class Strip {
  constructor(canvas, history, go) {
    Object.assign(this, { canvas, history, left: 0, gaps: [] }); // gaps: where nobody did anything for long
    let over = history.steps[0].start;
    this.bends = [{ time: over, at: 0 }]; // where the scale changes
    const bend = (time, length) => this.bends.push({ time, at: this.bends.at(-1).at + length });
    for (const { idle, start, end } of history.steps) {
      const [from, to] = idle ? [start, end] : [over, start], lasted = to - from;
      if (lasted > (idle ? LONG : 100 * LONG)) { // nothing for so long is a sleep that nobody told of
        bend(from, from - this.bends.at(-1).time);
        bend(to, LONG * (1 + Math.log10(lasted / LONG)));
        if (!idle) this.gaps.push({ verb: "sleep", start: from, end: to, lasted, idle: true });
      }
      over = Math.max(over, end);
    }
    this.whole = this.place(over) || 1;
    for (const step of [...history.steps, ...this.gaps]) step.span = [this.place(step.start), this.place(step.end)];
    this.shown = Math.min(this.whole, Math.max(400, (12 * this.whole) / history.steps.at(-1).turn));
    canvas.addEventListener("click", (event) => go(this.stepAt(event)));
  }

  place(time) { // microseconds of drawing from the start
    const i = Math.max(0, upTo(this.bends, time, (bend) => bend.time));
    const here = this.bends[i], next = this.bends[i + 1] ?? { time: here.time + 1, at: here.at + 1 };
    return here.at + ((time - here.time) * (next.at - here.at)) / (next.time - here.time || 1);
  }

  x(place) { return 100 + ((place - this.left) * (this.width - 104)) / this.shown; }

  stepAt({ offsetX, offsetY }) { // the nearest in that row
    const { past, steps } = this.history, who = this.rows[Math.floor((offsetY - 16) / this.row)];
    const away = ([at]) => Math.abs(this.x(steps[at].span[1]) - offsetX);
    return (past.get(who) ?? past.get("loop")).reduce((one, two) => (away(one) < away(two) ? one : two))[0];
  }

  draw(at, rows, colours) {
    const { canvas, history: { steps } } = this, pen = canvas.getContext("2d"), ratio = devicePixelRatio;
    Object.assign(this, { rows, row: Math.max(9, Math.min(18, 110 / rows.length)), width: canvas.clientWidth });
    const { width } = this, height = this.row * rows.length + 34;
    canvas.style.height = `${height + 2}px`; // and the border
    Object.assign(canvas, { width: width * ratio, height: height * ratio });
    Object.assign(pen, { font: `${Math.min(12, this.row)}px system-ui`, textBaseline: "middle" }).scale(ratio, ratio);
    const [, end] = steps[at].span, now = end - this.left;
    if (now < 0.03 * this.shown || now > 0.97 * this.shown) this.left += now - 0.2 * this.shown;
    this.left = Math.max(0, Math.min(this.left, this.whole - this.shown));
    for (const gap of this.gaps) this.shape(pen, gap, 16, colours);
    let label = 0, i = Math.max(0, upTo(steps, this.left - 0.05 * this.shown, (step) => step.span[1]));
    for (; i < steps.length && this.x(steps[i].span[0]) < width; i += 1) {
      const row = rows.indexOf(steps[i].who), x = this.x(steps[i].span[1]);
      if (row >= 0) this.shape(pen, steps[i], 16 + this.row * row, colours);
      if (steps[i].verb !== "sleep" || x < label || x > width - 50) continue;
      pen.fillStyle = colours.ink;
      pen.fillText(`turn ${steps[i].turn}`, x, 8);
      label = x + 60; // the next label is not before here
    }
    pen.fillStyle = colours.mark;
    pen.fillRect(this.x(end) - 1, 0, 2, height - 18);
    pen.fillText("▼", this.x(end) - 5, 5);
    pen.clearRect(0, 0, 96, height);
    pen.fillStyle = colours.ink;
    rows.forEach((who, row) => pen.fillText(this.history.label(who), 6, 16 + this.row * (row + 0.5), 88));
    const unit = 10 ** Math.floor(Math.log10(this.shown / 3)), long = (unit * (width - 104)) / this.shown;
    pen.fillRect(100, height - 12, long, 5);
    pen.fillText(`${duration(unit)} of work`, 106 + long, height - 9);
  }

  shape(pen, { verb, span: [start, end], lasted, idle }, y, colours) {
    const x = this.x(start), wide = Math.max(1, this.x(end) - x), high = this.row - 2;
    const [top, share, sign] = (Object.hasOwn(SHAPES, verb) && SHAPES[verb]) || [0.2, 0.6];
    pen.fillStyle = colours[verb] ?? colours.other;
    if (lasted === null) pen.fillText(verb === "close" ? "✕" : "◆", x - 4, y + high / 2);
    else if (!idle || lasted < LONG) pen.fillRect(x, y + top * high, wide, share * high);
    else for (let slash = x; slash < x + wide - 2; slash += 5) pen.fillRect(slash, y, 2, high);
    if (sign && wide < 9) pen.fillText(sign, x - 4, y + (top + share / 2) * high);
    if (!idle || wide < 50) return;
    pen.clearRect(x + wide / 2 - 20, y, 40, high);
    pen.fillStyle = colours.ink;
    pen.fillText(duration(lasted), x + wide / 2 - 18, y + high / 2, 36);
  }
}

class Lane {
  constructor(lane, page) {
    Object.assign(this, lane, { page, history: new History(lane), root: copy("#lane") });
    find("h2", this.root).textContent = find("h2", this.root).title = lane.title + (lane.says && `: ${lane.says}`);
    find("main").append(this.root);
    const go = (step) => page.go(page.moments.findIndex((all) => all[page.lanes.indexOf(this)] >= step));
    this.strip = new Strip(find("canvas", this.root), this.history, go);
    const { past } = this.history, busy = (who) => past.get(who).length;
    this.everybody = [...past.keys()].filter((who) => who[0] === "#");
    if (this.everybody.length > MANY) this.everybody.sort((one, two) => busy(two) - busy(one));
    this.choose("");
  }

  choose(text) { // makes cards for whoever is followed, and for those whose name has `text` in it
    const followed = find("#follow").value, named = (who) => this.history.label(who).includes(text);
    const shown = this.everybody.filter((who) => who === followed || named(who)), more = shown.length - MOST;
    this.cards = shown.filter((who, i) => i < MOST || who === followed).map((who) => new Card(who, this));
    const rest = make("p", more > 0 ? `and ${more} more, which did less: / finds them` : "");
    find(".cards", this.root).replaceChildren(...this.cards.map((card) => card.root), rest);
  }

  show(at, since, colours) {
    const { history, root } = this, { who, verb, text, place } = history.steps[at];
    find(".wrong", root).textContent = at >= (this.wrong ?? Infinity) ? `⚠ ${this.because}` : "";
    find(".caption", root).textContent = [history.label(who), verb, text].filter(Boolean).join(" · ");
    const { cards } = this, acts = ({ who: whose }) => whose === who;
    if (who[0] === "#" && cards.length > MOST - 1 && !cards.some(acts)) cards.at(-1).who = who; // as not all are shown
    this.showTurn(at, history.figures("loop", at));
    for (const card of cards) card.show(at, since, history.steps[at]);
    cards.find(acts)?.root.scrollIntoView({ block: "nearest" });
    this.showSource(place);
    const others = [...history.past.keys()].filter((name) => name[0] !== "#" && name !== "loop");
    const rows = cards.map((card) => card.who), last = rows.indexOf(who) < MANY ? rows[MANY - 1] : who;
    this.strip.draw(at, ["loop", ...others, ...rows.slice(0, MANY - 1), ...(last ? [last] : [])], colours);
  }

  // The loop and the log: what this turn has done so far, part by part and line by line.
  showTurn(at, { part, slept, most, woken = [], queue = [] }) {
    const { steps } = this.history, { turn } = steps[at], done = { ready: [], timers: [], deferred: [] };
    const log = find(".log", this.root), rows = [], label = (who) => this.history.label(who);
    for (let i = upTo(steps, turn - 1, (step) => step.turn) + 1; i <= at; i += 1) {
      const { who, verb, text, lasted, part: within } = steps[i];
      if (who !== "loop" && done[within]?.includes(who) === false) done[within].push(who);
      if (i < at - 60) continue;
      rows.push(make("li", "", i === at ? "now" : ""));
      const took = lasted === null ? "" : ` (${duration(lasted)})`;
      rows.at(-1).append(make("b", label(who)), make("span", verb), make("span", text + took));
    }
    const ready = part === "ready" || steps[at].verb === "sleep"; // whoever is not called back yet, waits
    this.waiting = woken.map((one) => one.split(" ")[0]).filter((who) => ready && !done.ready.includes(who));
    log.replaceChildren(...rows);
    log.scrollTop = 1e6;
    const list = (names) => names.map(label).join(", ") || "nobody";
    const asleep = slept === undefined ? "" : most === 0 ? "only looks" : `slept ${duration(slept)}`;
    const says = { sleeping: `${asleep}\nready: ${list(woken)}`, ready: `called back: ${list(done.ready)}`,
      timers: `due: ${list(done.timers)}`, deferred: `ran: ${list(done.deferred)}\nqueue: ${list(queue)}` };
    for (const box of this.root.querySelectorAll(".loop li")) {
      box.classList.toggle("now", box.dataset.part === part);
      box.lastElementChild.textContent = says[box.dataset.part];
    }
  }

  showSource(place) {
    const [, path, line, name] = /^(.*?):(\d+) (.*)$/.exec(place) ?? ["", "", 0, ""];
    const [first, text] = data.sources[`${path} ${name}`] ?? [0, ""], indent = text.search(/\S|$/);
    const link = find("a", this.root), code = find("pre", this.root);
    Object.assign(link, { textContent: place && `${name}, ${path}:${line}`, href: `${data.source}${path}#L${line}` });
    const lines = text ? text.split("\n") : [], mark = (i) => (first + i === Number(line) ? "now" : "");
    code.replaceChildren(...lines.map((row, i) => make("span", row.slice(indent) || " ", mark(i))));
    code.scrollTop = 15 * (line - first) - code.clientHeight / 2;
  }
}

class Card {
  constructor(who, lane) {
    Object.assign(this, { who, lane, root: copy("#card"), parts: {}, bars: {} });
    for (const part of this.root.querySelectorAll("[data-figure]")) this.parts[part.dataset.figure] = part;
    for (const name of Object.keys(lane.history.limits)) {
      [this.bars[name], this.parts[name]] = [make("dd"), make("dd")];
      find("dl", this.root).append(make("dt", BARS[name]), this.bars[name], this.parts[name]);
    }
    this.root.onclick = () => lane.page.follow(this.who);
    this.root.onkeydown = ({ key }) => { if (key === "Enter") lane.page.follow(this.who); };
  }

  show(at, since, { who, end }) {
    const { root, lane: { history } } = this, all = history.figures(this.who, at);
    const now = this.says(at, end), then = this.says(since, end);
    root.classList.toggle("now", who === this.who);
    root.classList.toggle("waits", this.lane.waiting.includes(this.who));
    root.classList.toggle("absent", all.closed || !all.in);
    root.classList.toggle("followed", find("#follow").value === this.who);
    for (const [name, part] of Object.entries(this.parts)) {
      part.textContent = now[name];
      part.classList.toggle("new", now[name] !== then[name]);
    }
    for (const [name, bar] of Object.entries(this.bars)) {
      const share = Math.min(1, all[name] / all.limits?.[name]) || 0;
      bar.style.setProperty("--share", `${100 * share}%`);
      bar.classList.toggle("full", share === 1);
    }
  }

  says(at, time) { // part by part what the card has to say
    const { history } = this.lane, all = history.figures(this.who, at), size = {};
    const { limits = {}, timers = {}, in: incoming, out, holds, interest = "", why: [reading, writing] = [] } = all;
    for (const name of Object.keys(this.bars)) {
      size[name] = [all[name] ?? 0, limits[name] ?? 0].map((octets) => octets.toLocaleString("en")).join(" / ");
    }
    const light = (name) => (interest.includes(name) ? "● " : "○ ") + name;
    const left = Object.entries(timers).map(([name, due]) => `${name} ${duration(Math.max(0, due - time))}`);
    const state = all.closed ? "closed" : all.in ? all.state : "not here yet";
    return { who: history.label(this.who), state, in: incoming, out, holds: holds && `held: ${holds}`,
      reads: light("read"), reading, writes: light("write"), writing, timers: left.join("; ") || "none",
      last: all.last ?? "none yet", ...size };
  }
}

// The moments: which step each lane is at. They are together wherever the scenario acts; in between,
// each makes a step a moment, and the one that has fewer waits.
function together(histories) {
  const starts = histories.map(({ steps }) =>
    [0, ...[...steps.keys()].filter((i) => i > 0 && steps[i].verb === "act"), steps.length]);
  const moments = [];
  for (let act = 0; act < Math.max(...starts.map((all) => all.length)) - 1; act += 1) {
    const parts = starts.map((all) => [all[act] ?? all.at(-1), all[act + 1] ?? all.at(-1)]);
    for (let i = 0; i < Math.max(...parts.map(([from, to]) => to - from)); i += 1) {
      moments.push(parts.map(([from, to]) => Math.max(0, Math.min(from + i, to - 1))));
    }
  }
  return moments;
}

class Page {
  constructor() {
    document.title = find("h1").textContent = data.title;
    find("#note").textContent = data.note;
    find("main").classList.toggle("two", data.lanes.length > 1);
    this.lanes = data.lanes.map((lane) => new Lane(lane, this));
    this.moments = together(this.lanes.map((lane) => lane.history));
    this.steps = this.moments.map((all, m) => // those that the moment adds
      all.flatMap((i, lane) => (this.moments[m - 1]?.[lane] === i ? [] : [this.lanes[lane].history.steps[i]])));
    this.turns = [0, ...this.steps.keys()].filter((m, i) => !i || this.steps[m].some(({ verb }) => verb === "sleep"));
    this.wrong = this.moments.findIndex((all) => this.lanes.some((lane, i) => all[i] >= (lane.wrong ?? Infinity)));
    const names = this.lanes.flatMap((lane) => lane.everybody.map((who) => [who, lane.history.label(who)]));
    find("#follow").append(...[...new Map(names)].map(([who, label]) => new Option(label, who)));
    this.listen();
    this.goToAddress();
  }

  go(moment, before = moment - 1) { // what has changed since `before` is marked
    const { turns, moments } = this, within = (m) => Math.max(0, Math.min(moments.length - 1, m));
    const at = within(moment), turn = upTo(turns, at), since = at - turns[turn], colours = this.colours();
    [this.at, this.before] = [at, within(Math.min(before, at - 1))];
    this.lanes.forEach((lane, i) => lane.show(moments[at][i], moments[this.before][i], colours));
    find("#where").textContent = `turn ${turn}/${turns.length - 1} · step ${at + 1}/${moments.length}`;
    clearTimeout(this.soon); // browsers allow only so many changes of an address
    const address = `#turn=${turn}${since ? `.${since}` : ""}`, { hash } = location; // unless it changes meanwhile:
    this.soon = setTimeout(() => location.hash === hash && history.replaceState(null, "", address), 150);
  }

  goToAddress() { // `#turn=120` is where that turn begins, `#turn=120.7` seven steps later
    const [, turn, since = 0] = /^#turn=(\d+)(?:\.(\d+))?$/.exec(location.hash) ?? [];
    this.go(turn === undefined ? (this.at ?? 0) : (this.turns[turn] ?? Infinity) + Number(since));
  }

  goToNext(direction) { // to the next thing that concerns whoever is followed, or with -1 the last
    const who = find("#follow").value, concerns = (steps) => !who || steps.some((step) => step.who === who);
    let next = this.at;
    do next += direction; while (this.steps[next] && !concerns(this.steps[next]));
    if (this.steps[next]) this.go(next); else this.play(false);
  }

  follow(who) { // or nobody any more
    find("#follow").value = find("#follow").value === who ? "" : who;
    this.go(this.at, this.before);
  }

  choose() {
    for (const lane of this.lanes) lane.choose(find("#filter").value);
    this.go(this.at, this.before);
  }

  play(on) {
    clearInterval(this.playing);
    this.playing = on && setInterval(() => this.goToNext(1), 1000 / find("#speed").value);
    find("[name=' ']").textContent = on ? "❚❚ stop" : "▶ play";
  }

  colours() { // the canvas has those of the legend, and so the style sheet's
    const parts = [...document.querySelectorAll("[data-verb], .caption")];
    const all = parts.map((part) => [part.dataset.verb ?? "mark", getComputedStyle(part).borderLeftColor]);
    return { ...Object.fromEntries(all), ink: getComputedStyle(document.body).color };
  }

  listen() {
    const zoom = (factor) => {
      for (const { strip } of this.lanes) strip.shown = Math.min(strip.whole, Math.max(50, factor * strip.shown));
      this.go(this.at, this.before);
    };
    const keys = { // key: what it does, and the button that does it, too
      Home: [() => this.go(0), "|◀", "to the start: Home"],
      ArrowUp: [() => this.go(this.turns.findLast((m) => m < this.at) ?? 0), "↑ turn", "a turn back: ↑"],
      ArrowLeft: [() => this.go(this.at - 1), "← step", "a step back: ←"],
      " ": [() => this.play(!this.playing), "▶ play", "play or stop: space"],
      ArrowRight: [() => this.go(this.at + 1), "step →", "a step on: →"],
      ArrowDown: [() => this.go(this.turns.find((m) => m > this.at) ?? Infinity, this.at), "turn ↓", "a turn on: ↓"],
      End: [() => this.go(Infinity), "▶|", "to the end: End"],
      w: [() => this.go(Math.max(this.wrong, 0)), this.wrong < 0 ? "" : "⚠ wrong", "to where it goes wrong: w"],
      "?": [() => find("dialog").showModal(), "?", "what this page shows: ?"],
      p: [() => this.goToNext(-1)], n: [() => this.goToNext(1)], "/": [() => find("#filter").focus()],
      "+": [() => zoom(0.5)], "-": [() => zoom(2)],
    };
    for (const [name, [onclick, text, title]] of Object.entries(keys)) {
      if (text) find("nav").append(Object.assign(make("button", text), { onclick, title, name }));
    }
    document.addEventListener("keydown", (event) => {
      const { key, target, ctrlKey, metaKey, altKey } = event, [act] = keys[key] ?? [];
      if (key === "Escape" || (key === "Enter" && target.matches("input"))) target.blur();
      const typing = target.matches(key === " " ? "button, input, select" : "input, select");
      if (!act || typing || ctrlKey || metaKey || altKey) return;
      event.preventDefault();
      act();
    });
    find("#speed").onchange = () => this.play(Boolean(this.playing));
    find("#follow").onchange = find("#filter").oninput = () => this.choose();
    window.addEventListener("hashchange", () => this.goToAddress());
    window.onresize = matchMedia("print").onchange = () => this.go(this.at, this.before); // paper is light
  }
}

const page = new Page();
