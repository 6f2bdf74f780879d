// The console's script. Every page is whole without it; with it figures move while somebody looks, charts are drawn, and records are
// shown as they come. Nothing is asked for while the page is hidden, or was not touched for a quarter of an hour. Text that others have
// written is only ever set as text.
'use strict';
(() => {
  const SVG = 'http://www.w3.org/2000/svg';
  const calm = matchMedia('(prefers-reduced-motion: reduce)').matches;
  const PERIOD = calm ? 10 : 2;
  const IDLE = 15 * 60 * 1000;
  const POINTS = 150;
  const POINTS_FIRST = 30;
  const ROWS = 300;

  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const one = (selector, within = document) => within.querySelector(selector);
  const make = (name, attributes = {}, ...children) => {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) if (value !== undefined) made.setAttribute(key, value);
    made.append(...children);
    return made;
  };
  const draw = (name, attributes) => {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  };

  // --- Figures as people read them ---
  const bytes = (value) => {
    const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
    let unit = 0;
    while (value >= 1024 && unit + 1 < units.length) { value /= 1024; unit += 1; }
    return `${value < 10 && unit > 0 ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
  };
  const count = (value) => (value < 10 && value % 1 ? value.toFixed(1) : Math.round(value).toLocaleString('en'));
  const units = {
    bytes: (value) => `${bytes(value)}/s`,
    rate: (value) => `${count(value)}/s`,
    seconds: (value) => (value < 0.001 ? `${Math.round(value * 1e6)} µs` : value < 1 ? `${(value * 1e3).toFixed(1)} ms` : `${value.toFixed(1)} s`),
    share: (value) => `${Math.round(value * 100)} %`,
    count,
  };

  // --- When to ask ---
  let touched = Date.now();
  for (const kind of ['pointerdown', 'pointermove', 'keydown', 'scroll']) {
    addEventListener(kind, () => { touched = Date.now(); }, { passive: true });
  }
  const isLookedAt = () => document.visibilityState === 'visible' && Date.now() - touched < IDLE;
  const pulse = one('#pulse');
  const say = (text, kind) => {
    if (!pulse || pulse.textContent === text) return;
    pulse.textContent = text;
    pulse.dataset.kind = kind;
  };
  const turns = [];
  const every = (seconds, action, now = false) => {
    const turn = { busy: false, due: now ? 0 : Date.now() + seconds * 1000, seconds, action };
    turns.push(turn);
  };
  const tick = async (turn) => {
    turn.busy = true;
    try {
      await turn.action();
      say('live', 'well');
    } catch (error) {
      say(error.message || 'no answer, trying again', 'bad');
    }
    turn.busy = false;
    turn.due = Date.now() + turn.seconds * 1000;
  };
  const begin = () => {
    if (turns.length === 0) return;
    const look = () => {
      if (!isLookedAt()) { say('paused', 'note'); return; }
      for (const turn of turns) if (!turn.busy && Date.now() >= turn.due) tick(turn);
    };
    setInterval(look, 500);
    document.addEventListener('visibilitychange', () => { touched = Date.now(); look(); });
    look();
  };
  const ask = async (address) => {
    const answer = await fetch(address, { headers: { accept: 'application/json, text/html' } });
    if (!answer.ok) throw new Error(`no answer (${answer.status}), trying again`);
    return answer;
  };

  // --- Parts of a page that are asked for again ---
  const refresh = () => {
    const parts = all('[data-refresh]');
    if (parts.length === 0) return;
    every(Math.min(...parts.map((part) => Number(part.dataset.refresh))), async () => {
      const text = await (await ask(location.href)).text();
      const page = new DOMParser().parseFromString(text, 'text/html');
      for (const part of all('[data-refresh]')) {
        const fresh = page.getElementById(part.id);
        const selection = getSelection();
        const isUsed = part.contains(document.activeElement) || (!selection.isCollapsed && selection.containsNode(part, true));
        if (!fresh || isUsed || fresh.isEqualNode(part)) continue;
        const scrolled = all('.scroll', part).map((box) => box.scrollLeft);
        part.replaceChildren(...fresh.childNodes);
        all('.scroll', part).forEach((box, at) => { box.scrollLeft = scrolled[at] || 0; });
        showRates();
      }
    });
  };

  // --- Charts ---
  // A chart of lines over the time that somebody has looked. Keys and pointer move a cursor over it, whose values are read out.
  const chart = (title, unit, names) => {
    const show = units[unit];
    const samples = [];
    const values = names.map((name) => make('output', {}, '—'));
    const legend = make('ul', { class: 'legend' }, ...names.map((name, at) => make('li', { class: `c${at % 4}` }, make('span', {}, name), ' ', values[at])));
    const top = make('span', { class: 'top' });
    const when = make('span', { class: 'when' });
    const svg = draw('svg', { viewBox: `0 0 ${POINTS} 100`, preserveAspectRatio: 'none', 'aria-hidden': 'true' });
    const grid = draw('path', { class: 'grid', d: '' });
    const cursor = draw('path', { class: 'cursor', d: '' });
    const lines = names.map((name, at) => draw('path', { class: `line c${at % 4}`, d: '' }));
    svg.append(grid, ...lines, cursor);
    const plot = make('div', { class: 'plot' }, svg, top, when);
    const figure = make('figure', { tabindex: '0', role: 'group', 'aria-label': `${title}, over time; arrow keys move through it` }, make('figcaption', {}, title), legend, plot);
    let at = null;
    const width = () => Math.min(POINTS, Math.max(POINTS_FIRST, samples.length));
    const paint = () => {
      const highest = Math.max(...samples.flatMap((sample) => sample.values.filter((value) => value !== null)), 0);
      const scale = highest > 0 ? highest * 1.1 : 1;
      top.textContent = highest > 0 ? show(scale) : '';
      // A chart that has just begun is not mostly empty.
      const from = width() - samples.length;
      svg.setAttribute('viewBox', `0 0 ${width()} 100`);
      grid.setAttribute('d', [0, 50, 100].map((y) => `M0 ${y}H${width()}`).join(''));
      lines.forEach((line, which) => {
        let path = '';
        let pen = 'M';
        samples.forEach((sample, index) => {
          const value = sample.values[which];
          if (value === null || value === undefined) { pen = 'M'; return; }
          path += `${pen}${from + index + 0.5} ${(100 - (value / scale) * 100).toFixed(2)}`;
          pen = 'L';
        });
        // One point alone is a line of no length, whose round ends are seen.
        line.setAttribute('d', path.includes('L') ? path : path && `${path}h0`);
      });
      const index = at === null ? samples.length - 1 : Math.max(0, Math.min(samples.length - 1, at - from));
      const sample = samples[index];
      values.forEach((output, which) => {
        const value = sample ? sample.values[which] : null;
        output.textContent = value === null || value === undefined ? '—' : show(value);
      });
      cursor.setAttribute('d', at === null || !sample ? '' : `M${from + index + 0.5} 0V100`);
      when.textContent = at === null || !sample ? '' : new Date(sample.time).toLocaleTimeString();
    };
    const point = (x) => { at = x; paint(); };
    plot.addEventListener('pointermove', (event) => {
      const box = plot.getBoundingClientRect();
      point(Math.floor(((event.clientX - box.left) / box.width) * width()));
    });
    plot.addEventListener('pointerleave', () => point(null));
    figure.addEventListener('keydown', (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (event.key === 'Escape') point(null);
      if (!step) return;
      event.preventDefault();
      point(Math.max(width() - samples.length, Math.min(width() - 1, (at === null ? width() - 1 : at) + step)));
    });
    figure.addEventListener('blur', () => point(null));
    const add = (added) => {
      samples.push({ time: Date.now(), values: added });
      if (samples.length > POINTS) samples.shift();
      paint();
    };
    paint();
    return { figure, add };
  };

  // The time below which a share of what came between two looks lies, of counts that only grow.
  const quantile = (now, before, share) => {
    if (!now) return null;
    const old = new Map((before || []).map(([le, n]) => [le, n]));
    const grown = now.map(([le, n]) => [le, n - (old.get(le) || 0)]);
    const total = grown.length ? grown[grown.length - 1][1] : 0;
    if (total <= 0) return null;
    let [low, below] = [0, 0];
    for (const [le, n] of grown) {
      if (n >= total * share) return le === null ? low : low + (le - low) * ((total * share - below) / Math.max(n - below, 1e-9));
      [low, below] = [le, n];
    }
    return low;
  };

  const perSecond = (look, name) => {
    const grown = (look.now.sums[name] || 0) - (look.before.sums[name] || 0);
    return grown < 0 ? null : grown / look.seconds;
  };
  const stage = (look, name, share) => quantile(look.now.stages[name], look.before.stages[name], share);
  const times = (look, name) => {
    const last = (figures) => { const found = figures.stages[name]; return found && found.length ? found[found.length - 1][1] : 0; };
    return Math.max(0, last(look.now) - last(look.before)) / look.seconds;
  };
  const KINDS = {
    throughput: ['Throughput', 'bytes', ['taken in', 'sent to consumers'], (look) => [perSecond(look, 'headwater_received_bytes_total'), perSecond(look, 'headwater_fetch_bytes_total')]],
    requests: ['Requests', 'rate', ['requests', 'errors'], (look) => [perSecond(look, 'headwater_requests_total') + perSecond(look, 'headwater_kafka_requests_total'), perSecond(look, 'headwater_errors_total')]],
    acknowledge: ['From append to durable (acknowledge)', 'seconds', ['half within', '99 % within'], (look) => [stage(look, 'acknowledge', 0.5), stage(look, 'acknowledge', 0.99)]],
    flush: ['A flush (flush)', 'seconds', ['half within', '99 % within'], (look) => [stage(look, 'flush', 0.5), stage(look, 'flush', 0.99)]],
    flushes: ['Flushes', 'rate', ['flushes', 'writes of the journal'], (look) => [times(look, 'flush'), perSecond(look, 'headwater_journal_frames_total')]],
    disk: ['Segments', 'bytes', ['written', 'made durable'], (look) => [perSecond(look, 'headwater_disk_bytes_total{write}'), perSecond(look, 'headwater_disk_bytes_total{flush}')]],
    receive: ['Taking in and sending (receive, send)', 'seconds', ['receive, 99 % within', 'send, 99 % within'], (look) => [stage(look, 'receive', 0.99), stage(look, 'send', 0.99)]],
    busy: ['Cores', 'share', ['busiest', 'idlest'], (look) => {
      const cores = Object.entries(look.now.busy).map(([core, value]) => Math.min(1, Math.max(0, value - (look.before.busy[core] || 0)) / look.seconds));
      return cores.length ? [Math.max(...cores), Math.min(...cores)] : [null, null];
    }],
    groups: ['Groups of this broker, behind by', 'count', ['offsets'], (look) => [look.now.sums.headwater_group_lag || 0]],
    replicas: ['Replicas', 'count', ['catching up'], (look) => [look.now.sums.headwater_replicas_catching_up || 0]],
  };

  // --- What the broker counts ---
  const topics = () => [...new Set(all('[data-topic]').map((part) => part.dataset.topic))].slice(0, 100);
  const rates = new Map();
  const showRates = () => {
    for (const cell of all('[data-rate]')) {
      const rate = rates.get(cell.dataset.topic);
      if (rate) cell.textContent = units.bytes(rate[cell.dataset.rate === 'in' ? 0 : 1]);
    }
  };
  const watchFigures = () => {
    const drawn = [];
    for (const frame of all('[data-charts]')) {
      const kind = frame.dataset.charts;
      if (kind === 'lag') continue;
      if (kind === 'topic') {
        const made = chart('Bytes of this topic', 'bytes', ['appended', 'fetched']);
        frame.append(made.figure);
        drawn.push([made, () => rates.get(frame.dataset.topic) || [null, null]]);
        continue;
      }
      const kinds = kind === 'all' ? Object.keys(KINDS) : ['throughput', 'requests', 'acknowledge'];
      for (const name of kinds) {
        const [title, unit, names, values] = KINDS[name];
        const made = chart(title, unit, names);
        frame.append(made.figure);
        drawn.push([made, values]);
      }
    }
    if (drawn.length === 0 && all('[data-rate]').length === 0) return;
    let before = null;
    let at = 0;
    every(PERIOD, async () => {
      const query = topics().map((topic) => `topic=${encodeURIComponent(topic)}`).join('&');
      const now = await (await ask(`/console/figures?${query}`)).json();
      const moment = Date.now();
      // After a pause there is nothing to compare with that would be of now.
      if (before && moment - at < PERIOD * 4000) {
        const look = { now, before, seconds: Math.max(0.1, (moment - at) / 1000) };
        for (const [topic, values] of Object.entries(now.topics)) {
          const old = before.topics[topic];
          if (old) rates.set(topic, [0, 1].map((which) => Math.max(0, values[which] - old[which]) / look.seconds));
        }
        for (const [made, values] of drawn) made.add(values(look));
        showRates();
      }
      [before, at] = [now, moment];
    }, true);
  };
  const watchLag = () => {
    for (const frame of all('[data-charts="lag"]')) {
      let made = null;
      let names = [];
      frame.append(make('p', { class: 'hint' }, 'A moment.'));
      every(calm ? 10 : 3, async () => {
        const { lag } = await (await ask(frame.dataset.source)).json();
        const found = Object.keys(lag).slice(0, 4);
        if (!made || found.some((name) => !names.includes(name))) {
          names = found;
          made = chart('Behind by, each topic', 'count', names);
          frame.replaceChildren(made.figure);
        }
        made.add(names.map((name) => (name in lag ? lag[name] : null)));
      }, true);
    }
  };

  // --- Records as they come ---
  const piece = (found) => {
    if (found === null) return [make('em', { class: 'null' }, 'null')];
    const parts = [make('pre', { class: found.kind, dir: 'auto', tabindex: '0' }, found.text)];
    if (found.cut) parts.push(make('small', { class: 'cut' }, `the first part of ${bytes(found.len)}`));
    return parts;
  };
  const row = (topic, record) => {
    const path = `/console/topics/${encodeURIComponent(topic)}/record?partition=${record.partition}&offset=${record.offset}`;
    const where = make('div', { class: 'where' }, make('a', { href: path }, `${record.partition} : ${record.offset.toLocaleString('en')}`), ' ', make('time', {}, record.time));
    const what = make('div', { class: 'what' }, make('div', { class: 'key' }, make('span', { class: 'label' }, 'key'), ' ', ...piece(record.key)), ...piece(record.value));
    if (record.headers.length) {
      const headers = record.headers.map(([name, value]) => make('div', {}, make('dt', {}, make('bdi', {}, name)), make('dd', {}, ...piece(value))));
      what.append(make('dl', { class: 'headers' }, ...headers));
    }
    return make('li', {}, where, what);
  };
  const watchRecords = () => {
    const list = one('[data-tail]');
    if (!list) return;
    const state = one('[data-tail-state]');
    const button = one('[data-tail-stop]');
    let source = null;
    let left = 0;
    const stop = (why) => {
      if (source) source.close();
      source = null;
      state.textContent = why;
      button.textContent = 'Go on';
    };
    const start = () => {
      source = new EventSource(list.dataset.tail);
      button.hidden = false;
      button.textContent = 'Stop';
      state.textContent = 'Waiting for the broker.';
      source.addEventListener('begin', () => { state.textContent = 'Waiting for records. The newest will be on top.'; });
      source.addEventListener('records', (event) => {
        const found = JSON.parse(event.data);
        left += found.left;
        for (const record of found.records) list.prepend(row(list.dataset.topic, record));
        while (list.childElementCount > ROWS) list.lastElementChild.remove();
        state.textContent = left ? `The newest are on top; ${count(left)} came too fast to be shown.` : 'The newest are on top.';
      });
      source.addEventListener('end', (event) => stop(JSON.parse(event.data).why));
      source.addEventListener('error', () => {
        if (source && source.readyState === EventSource.CLOSED) stop('The broker has ended this, or has as many watchers as it may.');
        else if (source) state.textContent = 'The connection is gone; trying again.';
      });
    };
    button.addEventListener('click', () => (source ? stop('Stopped.') : start()));
    document.addEventListener('visibilitychange', () => { if (source && document.hidden) stop('Stopped, as nobody looked.'); });
    start();
  };

  // --- Forms ---
  const showFields = () => {
    for (const select of all('[data-from]')) {
      const change = () => {
        for (const label of all('[data-for]', select.form)) label.hidden = label.dataset.for !== select.value;
      };
      select.addEventListener('change', change);
      change();
    }
  };
  addEventListener('keydown', (event) => {
    const isTyping = event.target.closest && event.target.closest('input, select, textarea');
    const field = one('[data-find]');
    if (event.key !== '/' || isTyping || event.ctrlKey || event.metaKey || event.altKey || !field) return;
    event.preventDefault();
    field.focus();
  });

  showFields();
  refresh();
  watchFigures();
  watchLag();
  watchRecords();
  begin();
})();
