// The page for people in headless Chromium, seen and used as a person would.
//
//     node page.mjs '{"chromium": PATH, "shots": DIRECTORY, "admin": {STATE: URL}, "token", "hostile", "secrets"}'
//
// It prints what it checks as the other suites do, and `please stop STATE`, `please start STATE` or `please ask STATE
// PATH…`, `please spoil STATE`, `please mend STATE` (its configuration, and have it taken up) where it needs its parent, which answers with a line.

import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { chromium } from 'playwright-core';

const told = JSON.parse(process.argv[2]);
const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const PATIENCE = 15_000;
const phone = { viewport: { width: 360, height: 740 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true };
const looks = {
  light: { viewport: { width: 1280, height: 800 }, colorScheme: 'light' },
  dark: { viewport: { width: 1280, height: 800 }, colorScheme: 'dark' },
  narrow: { ...phone, colorScheme: 'light' },
  'narrow-dark': { ...phone, colorScheme: 'dark' },
};

let failed = 0;
function check(name, condition, found = '') {
  if (!condition) failed += 1;
  process.stdout.write(condition ? `ok      page, ${name}\n` : `FAILED  page, ${name}: ${String(found).replace(/\s+/g, ' ').slice(0, 900)}\n`);
}

const lines = createInterface({ input: process.stdin });
const please = (...words) => new Promise((done) => {
  lines.once('line', done);
  process.stdout.write(`please ${words.join(' ')}\n`);
});

/** A window that keeps what its pages complain of and ask for. */
async function open(browser, state, look, more = {}) {
  const context = await browser.newContext({ ...looks[look], reducedMotion: 'reduce', ...more });
  context.setDefaultTimeout(PATIENCE);
  await context.addInitScript(() => {
    document.addEventListener('securitypolicyviolation', (event) => console.error(`violation: ${event.violatedDirective} ${event.blockedURI}`));
  });
  const page = await context.newPage();
  const seen = { complaints: [], strangers: [], polls: 0 };
  page.on('console', (message) => {
    if (['error', 'warning'].includes(message.type()) && !/ERR_CONNECTION|ERR_EMPTY/.test(message.text())) seen.complaints.push(message.text());
  });
  page.on('pageerror', (error) => seen.complaints.push(error.message));
  page.on('request', (request) => {
    const url = request.url();
    if (url.endsWith('/status')) seen.polls += 1;
    if (!url.startsWith(`${told.admin[state]}/`) && !url.startsWith('data:image/svg+xml,')) seen.strangers.push(url);
  });
  return { context, page, seen, root: told.admin[state] };
}

async function live(page) {
  await page.waitForFunction(() => document.getElementById('live').textContent === 'live');
}

function judge(name, { complaints, strangers }) {
  check(`${name}, nothing breaks the page's own policy, and no error`, complaints.length === 0, complaints.join('; '));
  check(`${name}, nothing is asked of another server`, strangers.length === 0, strangers.join(' '));
}

const texts = (page) => page.locator('main').innerText();
// Times go on between two looks.
const still = (text) => text.replace(/\d[\d.,]* (ms|s|min|h|d)\b( \d+ (s|min|h)\b)?/g, '…').replace(/\d[\d.,]* (fetched|failed)/g, '… $1').replace(/\s+/g, ' ')
  .replaceAll('next try now', 'next try in …').replace(/ · [\d.,]+\/s/g, '').replace(/\s+/g, ' ');

/** Each state in each look: it fits, axe finds nothing, nothing leaves, nobody's secret is told. */
async function looked(browser, state, ...wanted) {
  for (const look of Object.keys(looks)) {
    const name = `${state}, ${look}`;
    const { context, page, seen, root } = await open(browser, state, look);
    const answer = await page.goto(`${root}/`);
    await live(page);
    await page.waitForTimeout(look === 'light' ? 4500 : 100);
    await page.screenshot({ path: join(told.shots, `${state}-${look}.png`), fullPage: true });
    const text = await texts(page);
    for (const part of wanted) check(`${name}, says “${part.slice(0, 40)}”`, text.includes(part), text);
    const width = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
    check(`${name}, fits`, width[0] <= width[1], width.join(' > '));
    const source = await answer.text();
    check(`${name}, holds no secret`, told.secrets.every((secret) => !source.includes(secret) && !text.includes(secret)));
    check(`${name}, no text became a script`, await page.evaluate(() => window.pwned === undefined && !document.querySelector('main script, main img')));
    judge(name, seen);
    await context.close();
    await axe(browser, state, look);
  }
  const { context, page, root } = await open(browser, state, 'light', { javaScriptEnabled: false });
  await page.goto(`${root}/`);
  const without = still(await texts(page));
  await page.screenshot({ path: join(told.shots, `${state}-without-script.png`), fullPage: true });
  await context.close();
  const second = await open(browser, state, 'light');
  await second.page.goto(`${root}/`);
  await live(second.page);
  const drawn = still(await texts(second.page));
  check(`${state}, the page says the same without its script`, without === drawn, `${without} ≠ ${drawn}`);
  await second.context.close();
}

async function axe(browser, state, look) {
  const { context, page, root } = await open(browser, state, look, { bypassCSP: true });
  await page.goto(`${root}/`);
  await live(page);
  await page.evaluate(AXE);
  const { violations } = await page.evaluate(() => axe.run(document, { resultTypes: ['violations'] }));
  const grave = violations.filter(({ impact }) => ['serious', 'critical'].includes(impact));
  check(`${state}, ${look}, axe finds nothing grave`, grave.length === 0,
    grave.map(({ id, nodes }) => `${id}: ${nodes.slice(0, 3).map(({ html, failureSummary }) => `${html} ${failureSummary}`).join(', ')}`).join('; '));
  if (violations.length > grave.length) process.stdout.write(`        axe, lesser: ${violations.map(({ id }) => id).join(' ')}\n`);
  await context.close();
}

/** No mouse: to the content, to the button, through it. */
async function keyboard(browser) {
  const { context, page, seen, root } = await open(browser, 'login', 'light');
  await page.goto(`${root}/`);
  await live(page);
  await page.keyboard.press('Tab');
  check('keyboard, the first thing reached skips to the content', await page.evaluate(() => document.activeElement.className === 'skip'));
  await page.keyboard.press('Enter');
  check('keyboard, and does', await page.evaluate(() => document.activeElement.id === 'main' || location.hash === '#main'));
  const at = () => page.evaluate(() => document.activeElement.getAttribute('href') ?? document.activeElement.localName);
  const reached = [];
  for (let tabs = 0; tabs < 20 && !(reached.at(-1) ?? '').startsWith('/connect/'); tabs += 1) {
    await page.keyboard.press('Tab');
    reached.push(await at());
  }
  check('keyboard, the Connect button is reached', reached.at(-1).startsWith('/connect/'), reached.join(' '));
  const outline = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
  check('keyboard, it shows that it is', outline !== 'none', outline);
  await page.screenshot({ path: join(told.shots, 'login-focus.png') });
  const before = seen.polls;
  await page.waitForFunction(() => true);
  while (seen.polls < before + 2) await page.waitForTimeout(100);
  check('keyboard, and stays so while the page draws anew', await at() === reached.at(-1), await at());
  await page.keyboard.press('Enter');
  await page.waitForURL((url) => url.pathname.startsWith('/connect/'));
  check('keyboard, it leads to the page that asks for the admin token', await page.locator('input[name=token]').count() === 1, page.url());
  await page.goBack();
  await live(page);
  await page.getByLabel('Another account of neon').fill('no such&name=<d>');
  await page.keyboard.press('Enter');
  await page.waitForURL((url) => url.pathname === '/connect/neon');
  seen.complaints = seen.complaints.filter((text) => !/status of 400/.test(text)); // no account is called so
  check('a name is asked for as it was typed', new URL(page.url()).searchParams.get('account') === 'no such&name=<d>', page.url());
  judge('keyboard', seen);
  await context.close();
}

/** Time runs, requests are counted, the instance goes and comes back, nobody looks. */
async function running(browser) {
  const { context, page, seen, root } = await open(browser, 'well', 'light');
  await page.goto(`${root}/`);
  await live(page);
  const bar = () => page.evaluate(() => [...document.querySelectorAll('.accounts .fill')].map((fill) => Number(fill.getAttribute('width')))[0]);
  const first = await bar();
  await page.waitForFunction((first) => Number(document.querySelector('.accounts .fill').getAttribute('width')) < first, first);
  check('the bar of a token runs', await bar() < first, `${first} → ${await bar()}`);

  const hide = (hidden) => page.evaluate((hidden) => {
    Object.defineProperty(document, 'hidden', { configurable: true, get: () => hidden });
    document.dispatchEvent(new Event('visibilitychange'));
  }, hidden);
  await hide(true);
  check('a page that nobody sees says that it is paused', await page.locator('#live').textContent() === 'paused');
  const asked = seen.polls;
  await page.waitForTimeout(4500);
  check('and asks nothing', seen.polls <= asked, `${asked} → ${seen.polls}`);
  await hide(false);
  await live(page);
  check('until it is seen again', seen.polls > asked);

  await please('stop', 'well');
  await page.waitForFunction(() => /^not reachable since \d/.test(document.getElementById('live').textContent));
  check('it tells when the instance is gone', (await page.title()).startsWith('not reachable'), await page.title());
  check('and tells it to who listens', (await page.locator('#news').textContent()).includes('not reachable'), await page.locator('#news').textContent());
  check('and that what is shown was so then', /how things stood then/.test(await texts(page)), await texts(page));
  await page.screenshot({ path: join(told.shots, 'gone.png'), fullPage: true });
  const held = await bar();
  await page.waitForTimeout(1500);
  check('time stands still then', await bar() === held, `${held} → ${await bar()}`);
  await please('start', 'well');
  await live(page);
  await page.waitForFunction(() => document.title.startsWith('ready'));
  check('it recovers when the instance is back', true);

  await please('spoil', 'well');
  await page.getByText('was refused, so the one before it is in force').waitFor();
  await please('mend', 'well');
  await page.getByText('reloaded once').waitFor();
  check('it tells of reloads, and of a refused one while it counts', await page.locator('.refused').count() === 0);
  judge('running', seen);
  await context.close();
}

/** Charts are drawn from what routes count. */
async function charts(browser) {
  const { context, page, seen, root } = await open(browser, 'well', 'light');
  await page.goto(`${root}/`);
  await live(page);
  for (let round = 0; round < 4; round += 1) {
    await please('ask', 'well', ...Array.from({ length: 5 + 10 * (round % 2) }, () => '/aura/x'), '/aura/missing', '/aura/broken');
    const before = seen.polls;
    while (seen.polls === before) await page.waitForTimeout(50);
  }
  await page.waitForFunction(() => document.querySelectorAll('.routes .chart .line').length >= 2);
  const row = await page.locator('tr[data-key="r:aura"]').innerText();
  check('charts, what was asked is counted', [/\d\/s/, /2xx.\d/, /4xx.\d/, /5xx.\d/, /p99.\d/].every((part) => part.test(row)), row);
  await page.screenshot({ path: join(told.shots, 'charts.png'), fullPage: true });
  judge('charts', seen);
  await context.close();
}

const browser = await chromium.launch({
  executablePath: told.chromium,
  args: ['--no-sandbox', '--disable-dev-shm-usage', '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1'],
});
const watchdog = setTimeout(() => { check('the browser ends in time', false, 'after 5 minutes'); process.exit(1); }, 300_000);
try {
  await looked(browser, 'well', 'Ready', 'does not expire', 'without a credential');
  await looked(browser, 'dead', 'Not ready', '<script>window.pwned=1</script>', 'dead');
  await looked(browser, 'login', 'Logins needed', 'nobody has logged in', 'Another account of');
  await looked(browser, 'many', 'service-29', 'team-39', 'maintenance until noon', '5 more');
  await keyboard(browser);
  await running(browser);
  await charts(browser);
} catch (error) {
  check('the browser gets to the end', false, error.stack);
} finally {
  clearTimeout(watchdog);
  await browser.close();
}
process.exit(failed ? 1 : 0);
