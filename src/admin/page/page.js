// Asks /status again and again and draws what comes: the same tree as view.rs, as [tag, attributes, ...children]. Text
// goes into text nodes and attributes alone, so nothing that a status holds can become markup.

const POLL = 2000; // ms between two questions
const PATIENCE = 5000; // ms that an answer may take
const POINTS = 90; // of a chart
const AT_THE_TOP = 5; // reasons and logins above the fold
const ROWS = 200; // accounts that are drawn
const CLASSES = ['2xx', '3xx', '4xx', '5xx'];
const COLOURS = { good: '1f8a55', warning: 'b97a00', bad: 'c0392f' };

// What cannot be seen, and what turns the direction of what follows.
const UNSEEN = /[\0-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;

// ── words: as words.rs has them ──

const number = (count) => String(count).replace(/\B(?=(\d{3})+$)/g, ',');

function span(seconds) {
  const whole = Math.max(0, Math.floor(seconds)) || 0;
  const [d, h, m] = [Math.floor(whole / 86400), Math.floor(whole / 3600) % 24, Math.floor(whole / 60) % 60];
  if (d) return `${d} d ${h} h`;
  if (h) return `${h} h ${m} min`;
  return m ? `${m} min ${whole % 60} s` : `${whole} s`;
}

function short(seconds) {
  const ms = seconds * 1000;
  if (ms < 10) return `${ms.toFixed(1)} ms`;
  if (ms < 1000) return `${ms.toFixed(0)} ms`;
  return seconds < 60 ? `${seconds.toFixed(1)} s` : span(seconds);
}

const READINESS = {
  ready: ['good', 'Every required credential has a valid token.'],
  degraded: ['warning', 'Every required credential has a valid token, but something fails.'],
};
const readiness = (word) => READINESS[word] ?? ['bad', 'New requests should not come here.'];

const reloads = ({ taken_up: count }) => ['', ', reloaded once'][count] ?? `, reloaded ${number(count)} times`;
const RELOAD_REFUSED = 'The configuration that was to be taken up last was refused, so the one before it is in force. sidekey check says why.';

function state({ state: word, has_token: hasToken }) {
  if (word === 'ready') return ['good', 'ready'];
  if (word === 'login_required') return ['bad', 'login needed'];
  if (word === 'dead') return ['bad', 'dead'];
  if (word === 'failing') return [hasToken ? 'warning' : 'bad', 'failing'];
  return ['plain', word];
}

function rank(account) {
  const [tone] = state(account);
  if (account.login_required) return 0;
  return { bad: 1, warning: 2 }[tone] ?? 3;
}

function token({ has_token: hasToken, expires_in_seconds: left }) {
  if (!hasToken) return 'no token';
  return left === null ? 'does not expire' : `${span(left)} left`;
}

function nextTry({ next_try_seconds: seconds }) {
  if (seconds === null) return null;
  return seconds < 1 ? 'next try now' : `next try in ${span(seconds)}`;
}

const fetches = ({ fetches: came, failures, refusals }) => `${number(came)} fetched`
  + (failures ? `, ${number(failures)} failed` : '') + (refusals ? `, ${number(refusals)} refused upstream` : '');

function census(accounts) {
  const counts = new Map();
  for (const account of accounts) counts.set(state(account)[1], (counts.get(state(account)[1]) ?? 0) + 1);
  return [...counts].map(([word, count]) => `${number(count)} ${word}`).join(' · ');
}

const REFUSALS = {
  bad_request: 'a request that can be read in two ways, or not at all',
  forbidden_host: 'a Host that sidekey does not answer for',
  cross_site: 'a web page of another site',
  method_refused: 'a method that is not for the path',
  caller_unknown: 'nothing shown that tells who it is from',
  not_allowed: 'what the caller or the route may not do',
  no_route: 'nothing at that path',
  rate_limited: 'more than the pace of the route',
  overloaded: 'more at once than there is room for',
  too_large: 'a body beyond the limit',
  target_too_long: 'a URL beyond the limit',
  headers_too_large: 'headers beyond the limit',
};

function storeVerdict({ error, unsaved, writable }) {
  const grants = unsaved === 1 ? '1 grant is' : `${number(unsaved)} grants are`;
  if (error) return ['warning', `It fails: ${error}. ${grants} in memory alone.`];
  return writable ? ['good', 'It takes what it is given.'] : ['plain', 'Nothing was written yet.'];
}

function sandboxVerdict(sandbox) {
  if (!sandbox) return ['plain', 'Off.'];
  if (sandbox.landlock === null) return ['warning', 'Not confined: the kernel has no Landlock.'];
  return ['good', `On: Landlock, version ${sandbox.landlock}.`];
}

// ── the tree: as view.rs has it ──

const bdi = (text, name) => ['bdi', name ? { class: name } : {}, text];
const small = (...inner) => ['p', { class: 'small' }, ...inner];
const code = (text) => ['li', {}, ['code', {}, text]];
const head = (...names) => ['thead', {}, ['tr', {}, ...names.map((name) => ['th', { scope: 'col' }, name])]];
const cell = (label, ...inner) => ['td', { 'data-label': label }, ...inner];
const empty = (label, text = '–') => ['td', { class: 'empty', 'data-label': label }, ['p', {}, text]];
const named = (credential, account) => [bdi(credential, 'name'), ...(account === null || account === credential ? [] : [' ', bdi(account, 'account')])];
const section = (id, title, attributes, ...inner) => ['section', { id, 'aria-labelledby': `${id}-title`, ...attributes },
  ['h2', { id: `${id}-title` }, title], ...inner];
const card = (id, title, ...inner) => section(id, title, { class: 'card' }, ...inner);
const verdict = ([tone, text]) => ['p', { class: `verdict ${tone}` }, bdi(text)];
const pair = (name, value) => ['div', {}, ['dt', {}, name], ['dd', {}, value]];
const none = (text) => ['p', { class: 'none' }, text];
const drawing = (name, box, ...inner) => ['svg', { class: name, viewBox: box, preserveAspectRatio: 'none', 'aria-hidden': 'true' }, ...inner];

function connect(credential, account) {
  const query = account === null ? '' : `?account=${encodeURIComponent(account)}`;
  return ['a', { class: 'button', href: `/connect/${encodeURIComponent(credential)}${query}` }, 'Connect',
    ['span', { class: 'unseen' }, ' ', ...named(credential, account)]];
}

const accountsOf = (status) => status.accounts.toSorted((one, other) => rank(one) - rank(other));
const untouched = (status) => status.credentials
  .filter(({ name, login }) => login && !status.accounts.some(({ credential }) => credential === name));

function lead(status) {
  const [tone, meaning] = gone ? ['bad', `Since ${gone.toLocaleTimeString()}. This is how things stood then.`] : readiness(status.readiness);
  const list = (reasons) => ['ul', { class: 'reasons' }, ...reasons.map((reason) => ['li', {}, bdi(reason)])];
  const logins = [...accountsOf(status).filter((account) => account.login_required).map(({ credential, account }) => [credential, account]),
    ...untouched(status).filter((login) => login.account_header === null).map(({ name }) => [name, null])];
  const { reasons } = status;
  return ['section', { class: `lead ${tone}`, 'aria-labelledby': 'readiness' },
    ['div', { class: 'verdict' }, ['h1', { id: 'readiness' }, gone ? 'not reachable' : status.readiness], ['p', {}, meaning]],
    ['p', { class: 'facts' }, `${gone ? 'was ' : ''}up for ${span(status.uptime_seconds)} · configured by `, bdi(status.configuration), reloads(status.reloads)],
    status.reloads.last_was_refused && ['p', { class: 'refused' }, RELOAD_REFUSED],
    reasons.length && list(reasons.slice(0, AT_THE_TOP)),
    reasons.length > AT_THE_TOP && ['details', {}, ['summary', {}, `${reasons.length - AT_THE_TOP} more`], list(reasons.slice(AT_THE_TOP))],
    logins.length && ['h2', {}, 'Logins needed'],
    logins.length && ['ul', { class: 'logins' }, ...logins.slice(0, AT_THE_TOP)
      .map(([credential, account]) => ['li', {}, ['span', {}, ...named(credential, account)], connect(credential, account)])],
    logins.length > AT_THE_TOP && ['p', { class: 'more' }, ['a', { href: '#credentials' }, `and ${logins.length - AT_THE_TOP} more, below`]]];
}

function routes(status) {
  if (!status.routes.length) return section('routes', 'Routes', {}, none('There are none.'));
  return section('routes', 'Routes', {}, ['table', { class: 'routes' },
    head('Route', 'Reached at', 'Leads to', 'Requests', 'Latency', 'Answers'),
    ['tbody', {}, ...status.routes.map((route) => ['tr', { 'data-key': `r:${route.name}` },
      ['th', { scope: 'row' }, bdi(route.name, 'name'), ['span', { class: 'kind' }, route.provider]],
      cell('Reached at', ['ul', { class: 'addresses' }, ...route.urls.map(code)]),
      cell('Leads to', ['code', {}, route.upstream], ...leadsTo(route)),
      ...numbers(route)])]]);
}

function leadsTo({ credential, egress_proxy: proxy, upstream_connections: connections }) {
  return [small(...(credential === null ? ['without a credential'] : ['with ', bdi(credential)]), ...(proxy ? [' · through ', bdi(proxy)] : [])),
    connections && small(`${number(connections.active)} active, ${number(connections.idle)} idle connections`)];
}

function numbers({ name, requests }) {
  if (!requests) return [empty('Requests', 'not counted'), empty('Latency'), empty('Answers')];
  const { p50 = null, p99 = null } = requests.seconds;
  const points = history.get(name) ?? [];
  const now = points.at(-1)?.rate ?? null;
  const figure = (label, text, what) => cell(label, ['p', {}, text], chart(points, what));
  const counts = CLASSES.map((of) => [of, Object.entries(requests.codes).reduce((sum, [status, count]) => sum + (status[0] === of[0] ? count : 0), 0)]);
  const known = counts.reduce((sum, [, count]) => sum + count, 0);
  const seen = [...counts, ['other', Math.max(0, requests.total - known)]].filter(([, count]) => count);
  let at = 0;
  const share = ([of, count]) => {
    const width = (100 * count) / Math.max(requests.total, known, 1);
    at += width;
    return ['rect', { class: `c${of}`, x: (at - width).toFixed(2), width: width.toFixed(2), height: '4' }];
  };
  return [
    figure('Requests', number(requests.total) + (now === null ? '' : ` · ${now > 0 && now < 10 ? now.toFixed(1) : number(Math.round(now))}/s`), 'rate'),
    p50 === null || p99 === null ? empty('Latency') : figure('Latency', [`p50 ${short(p50)}`, `p99 ${short(p99)}`].map((part) => part.replaceAll(' ', '\u00a0')).join(' · '), 'mean'),
    seen.length
      ? cell('Answers', ['p', {}, seen.map(([of, count]) => `${of}\u00a0${number(count)}`).join(' · ')], drawing('answers', '0 0 100 4', ...seen.map(share)))
      : empty('Answers')];
}

function credentials(status) {
  const title = 'Credentials and accounts';
  const [accounts, missing] = [accountsOf(status), untouched(status)];
  if (!accounts.length && !missing.length) return section('credentials', title, {}, none('There are none.'));
  return section('credentials', title, {}, ['p', { class: 'census' }, census(accounts)],
    ['table', { class: 'accounts' }, head('Account', 'State', 'Token', 'What it last failed with', 'Fetches'), ['tbody', {},
      ...missing.map(({ name }) => ['tr', { 'data-key': `c:${name}` }, ['th', { scope: 'row' }, ...named(name, null)],
        cell('State', ['span', { class: 'state bad' }, 'nobody has logged in']), cell('Token', ['div', { class: 'token' }, ['p', {}, 'no token']]),
        cell('Login', connect(name, null)), empty('Fetches')]),
      ...accounts.slice(0, ROWS).map(accountRow)]],
    accounts.length > ROWS && ['p', { class: 'more' }, `and ${number(accounts.length - ROWS)} more, as data: `, ['a', { href: '/status' }, '/status']],
    ...status.credentials.filter((login) => login.login && login.account_header !== null).map(({ name }) => ['form',
      { class: 'another', method: 'get', action: `/connect/${encodeURIComponent(name)}` },
      ['label', {}, 'Another account of ', bdi(name, 'name'), ' ', ['input',
        { name: 'account', required: '', maxlength: '128', autocomplete: 'off', spellcheck: 'false' }]], ' ', ['button', { type: 'submit' }, 'Connect']]));
}

function left({ has_token: hasToken, expires_in_seconds: rest, age_seconds: age }) {
  return hasToken && rest !== null && age !== null && rest + age > 0 ? Math.min(1, Math.max(0, rest / (rest + age))) : null;
}

function accountRow(account) {
  const [tone, word] = state(account);
  const [share, next, { last_error: error, login_required: out }] = [left(account), nextTry(account), account];
  return ['tr', { 'data-key': `a:${account.credential}/${account.account}` }, ['th', { scope: 'row' }, ...named(account.credential, account.account)],
    cell('State', ['span', { class: `state ${tone}` }, word]),
    cell('Token', ['div', { class: 'token' }, share !== null && drawing(share < 0.1 ? 'bar low' : 'bar', '0 0 100 4',
      ['rect', { class: 'track', width: '100', height: '4' }], ['rect', { class: 'fill', width: (share * 100).toFixed(2), height: '4' }]), ['p', {}, token(account)]]),
    error === null && next === null && !out ? empty('Last error') : cell('Last error', error !== null && ['p', {}, bdi(error)],
      next !== null && small(next), out && connect(account.credential, account.account)),
    cell('Fetches', ['p', {}, fetches(account)])];
}

function cards(status) {
  const refusals = Object.entries(status.refusals).filter(([, count]) => count).sort(([, one], [, other]) => other - one);
  const { store, sandbox, listeners } = status;
  const lists = sandbox ? [['Not confined', sandbox.not_confined], ['Absent at the start', sandbox.absent],
    ['Connects to ports', sandbox.connects_to_ports], ['Reads', sandbox.reads], ['Writes', sandbox.writes]] : [];
  return ['div', { class: 'grid' },
    card('refusals', 'Refusals', refusals.length ? ['table', { class: 'counts' }, head('Reason', 'Since the start'), ['tbody', {},
      ...refusals.map(([reason, count]) => ['tr', { 'data-key': `x:${reason}` }, ['th', { scope: 'row' }, ['code', {}, reason],
        ['span', { class: 'small' }, REFUSALS[reason] ?? 'anything else']], ['td', {}, number(count)]])]] : none('None since the start.')),
    card('store', 'Store', ...(store ? [verdict(storeVerdict(store)), ['dl', {}, pair('In memory alone', number(store.unsaved)),
      pair('Presented, outcome unknown', number(store.uncertain)), pair('Brought back', number(store.recovered)),
      pair('Lost', number(store.lost)), pair('Restored to the store', number(store.restored))]] : [none('Not told.')])),
    card('sandbox', 'Sandbox', verdict(sandboxVerdict(sandbox)), sandbox && ['dl', { class: 'long' },
      ...lists.filter(([, items]) => items.length).map(([name, items]) => pair(name, items.join(', ')))]),
    card('listeners', 'Listeners', listeners.length ? ['ul', { class: 'addresses' }, ...listeners.map(code)] : none('There are none.'))];
}

// ── drawing ──

/** Makes the children of an element what the tree says, and touches nothing that is so already. */
function draw(parent, wanted) {
  const kept = new Map([...parent.children].filter((node) => node.dataset.key).map((node) => [node.dataset.key, node]));
  let at = parent.firstChild;
  for (let want of wanted) {
    if (want === false || want === null || want === undefined || want === 0 || want === '') continue;
    let node = at;
    if (typeof want === 'string') {
      want = want.replace(UNSEEN, '\ufffd');
      if (node?.nodeType !== Node.TEXT_NODE) node = parent.insertBefore(document.createTextNode(want), at);
      else if (node.data !== want) node.data = want;
    } else {
      const [tag, attributes, ...inner] = want;
      const key = attributes['data-key'];
      if (key !== undefined) node = kept.get(key);
      else if (node?.localName !== tag || node.dataset.key) node = null;
      node ??= tag === 'svg' || parent.namespaceURI.endsWith('svg') ? document.createElementNS('http://www.w3.org/2000/svg', tag) : document.createElement(tag);
      if (node !== at) parent.insertBefore(node, at);
      for (const { name } of [...node.attributes]) if (!(name in attributes) && name !== 'open') node.removeAttribute(name);
      for (const [name, value] of Object.entries(attributes)) if (node.getAttribute(name) !== value) node.setAttribute(name, value);
      draw(node, inner);
    }
    at = node.nextSibling;
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

/** What happened between two answers, as a line; a gap where nothing is known. */
function chart(points, what) {
  if (points.every((point) => point[what] === null)) return null;
  const most = Math.max(...points.map((point) => point[what] ?? 0));
  let line = '';
  let pen = false;
  points.forEach((point, place) => {
    const value = point[what];
    if (value !== null) line += `${pen ? 'L' : 'M'}${place + POINTS - points.length} ${(22 - (most ? (20 * value) / most : 0)).toFixed(1)}`;
    pen = value !== null;
  });
  return drawing('chart', `0 0 ${POINTS - 1} 24`, ['path', { class: 'ground', d: `M0 22.5H${POINTS - 1}` }], ['path', { class: 'line', d: line }]);
}

// ── what is known, and for how long ──

const history = new Map();
const $ = (id) => document.getElementById(id);
let [known, since, gone, asking, timer, told] = [null, 0, null, false, 0, null];

function remember(status) {
  const now = performance.now();
  // Counts that go down are those of another process.
  if (known && status.uptime_seconds < known.uptime_seconds) history.clear();
  for (const { name, requests } of status.routes) {
    if (!requests) continue;
    const { total, seconds: { count, sum } } = requests;
    const points = history.get(name) ?? [];
    const last = points.at(-1);
    const point = { at: now, total, count, sum, rate: null, mean: null };
    if (last && now - last.at < 3 * POLL && total >= last.total) {
      point.rate = (total - last.total) / ((now - last.at) / 1000);
      point.mean = count > last.count ? (sum - last.sum) / (count - last.count) : null;
    }
    history.set(name, [...points, point].slice(-POINTS));
  }
  [known, since, gone] = [status, now, null];
}

/** The status as it is by now: times have gone on since it came. */
function aged() {
  const passed = gone ? 0 : (performance.now() - since) / 1000;
  const less = (seconds) => (seconds === null ? null : Math.max(0, seconds - passed));
  return { ...known,
    uptime_seconds: known.uptime_seconds + passed,
    accounts: known.accounts.map((account) => ({ ...account,
      age_seconds: account.age_seconds === null ? null : account.age_seconds + passed,
      expires_in_seconds: less(account.expires_in_seconds),
      next_try_seconds: less(account.next_try_seconds) })) };
}

function show() {
  const live = $('live');
  if (known) {
    const focused = document.activeElement;
    const status = aged();
    draw($('main'), [lead(status), routes(status), credentials(status), cards(status)]);
    $('nav').querySelectorAll('span').forEach((count, place) => draw(count, [String([status.routes, status.accounts][place].length)]));
    // A row that moved took the focus along and lost it.
    if (focused !== document.activeElement && focused?.isConnected) focused.focus({ preventScroll: true });
  }
  const word = gone ? 'not reachable' : known?.readiness;
  const colour = gone ? '7a7f87' : COLOURS[readiness(word)[0]];
  if (document.hidden) live.textContent = 'paused';
  else if (gone) live.textContent = `not reachable since ${gone.toLocaleTimeString()}`;
  else if (known) live.textContent = 'live';
  live.className = gone ? 'live gone' : 'live on';
  document.body.classList.toggle('gone', Boolean(gone));
  if (!word) return;
  document.title = `${word} – sidekey`;
  const icon = $('icon').href.replace(/%23[0-9a-f]{6}/, `%23${colour}`);
  if (icon !== $('icon').href) $('icon').href = icon;
  // For who listens: only what changed, and only of the whole.
  if (told !== null && told !== word) $('news').textContent = `sidekey: ${word}`;
  told = word;
}

async function ask() {
  if (asking || document.hidden) return;
  asking = true;
  try {
    const answer = await fetch('/status', { cache: 'no-store', credentials: 'omit', redirect: 'error', signal: AbortSignal.timeout(PATIENCE) });
    const status = await answer.json();
    if (!answer.ok || typeof status.readiness !== 'string') throw new Error('not a status');
    // Another version draws another page.
    if (status.version !== document.body.dataset.version) location.reload();
    else remember(status);
  } catch {
    gone ??= new Date();
  }
  asking = false;
  show();
}

let polled = -POLL;
function tick() {
  clearTimeout(timer);
  if (document.hidden) return show();
  if (performance.now() - polled >= POLL - 50) {
    polled = performance.now();
    ask();
  } else show();
  timer = setTimeout(tick, 1000);
}
document.addEventListener('visibilitychange', () => {
  polled = -POLL;
  tick();
});
tick();
