// A login in headless Chromium, seen and done as a person would.
//
//     node browser.mjs '{"admin": URL, "token": …, "chromium": PATH, "shots": DIRECTORY, "other_site": URL}'
//
// It prints what it checks as the other suites do. Every step leaves a screenshot.

import { join } from 'node:path';
import { chromium } from 'playwright-core';

const told = JSON.parse(process.argv[2]);
const STEP = 15_000;

const looks = {
  'desktop, light': { viewport: { width: 1280, height: 800 }, colorScheme: 'light' },
  'desktop, dark': { viewport: { width: 1280, height: 800 }, colorScheme: 'dark' },
  'phone, light': { viewport: { width: 360, height: 640 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true,
    colorScheme: 'light' },
  'phone, dark': { viewport: { width: 360, height: 640 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true,
    colorScheme: 'dark' },
};

let failed = 0;

function check(name, condition, found = '') {
  if (!condition) failed += 1;
  const text = String(found).replace(/\s+/g, ' ').replace(/(code|state|ticket)=[^&\s]+/g, '$1=…').slice(0, 600);
  process.stdout.write(condition ? `ok      ${name}\n` : `FAILED  ${name}: ${text}\n`);
}

const read = (page) => page.locator('body').innerText();

/** One look, one person, one account. */
class Visit {
  constructor(browser, look, name = look) {
    this.browser = browser;
    this.look = look;
    this.name = name;
    this.account = name.replace(/\W+/g, '-');
    this.shots = 0;
    this.complaints = [];
    this.strangers = [];
  }

  async open() {
    this.context = await this.browser.newContext(looks[this.look]);
    this.context.setDefaultTimeout(STEP);
    this.page = await this.context.newPage();
    const ours = (url) => url.startsWith(told.admin);
    // The authorization server's pages are not ours to judge.
    this.page.on('console', (message) => {
      if (ours(this.page.url()) && /Content Security Policy|Refused to/.test(message.text())) {
        this.complaints.push(message.text());
      }
    });
    this.page.on('request', (request) => {
      if (request.resourceType() !== 'document' && ours(this.page.url()) && !ours(request.url())) {
        this.strangers.push(request.url());
      }
    });
    return this;
  }

  check(name, condition, found) { check(`browser, ${this.name}: ${name}`, condition, found); }

  async shoot(step) {
    this.shots += 1;
    const file = `${this.account}-${this.shots}-${step}.png`;
    await this.page.screenshot({ path: join(told.shots, file), fullPage: true });
  }

  /** A page of sidekey's own: there is what there should be, it fits, it is as light or dark as asked for. */
  async ours(step, ...texts) {
    await this.shoot(step);
    const text = await read(this.page);
    for (const wanted of texts) this.check(`${step}: says “${wanted}”`, text.toLowerCase().includes(wanted.toLowerCase()), text);
    const found = await this.page.evaluate(() => {
      const luminance = (colour) => {
        const [red, green, blue] = colour.match(/[\d.]+/g).slice(0, 3).map((channel) => {
          const part = Number(channel) / 255;
          return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
        });
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
      };
      const transparent = (colour) => /^rgba\(.*, 0\)$/.test(colour);
      const dark = matchMedia('(prefers-color-scheme: dark)').matches;
      // What lies beneath an element: the first background that is not see-through. A page without one of its own has
      // the browser's canvas, which follows color-scheme.
      const beneath = (element) => {
        for (let at = element; at; at = at.parentElement) {
          const colour = getComputedStyle(at).backgroundColor;
          if (!transparent(colour)) return luminance(colour);
        }
        const canvas = getComputedStyle(document.documentElement).colorScheme;
        return dark && canvas.includes('dark') ? luminance('rgb(18, 18, 18)') : 1;
      };
      const faint = [];
      for (const element of document.querySelectorAll('body *')) {
        const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
        if (own && element.checkVisibility()) {
          const [light, deep] = [luminance(getComputedStyle(element).color), beneath(element)].sort((a, b) => b - a);
          const contrast = (light + 0.05) / (deep + 0.05);
          if (contrast < 4.5) faint.push(`${element.tagName} ${contrast.toFixed(1)}: ${element.textContent.trim()}`);
        }
      }
      return {
        background: beneath(document.body),
        width: document.documentElement.scrollWidth,
        inner: window.innerWidth,
        text: Math.min(...[...document.querySelectorAll('p, label, li, input, button')]
          .map((element) => parseFloat(getComputedStyle(element).fontSize))),
        faint,
        lang: document.documentElement.lang,
        title: document.title,
        unlabelled: [...document.querySelectorAll('input:not([type=hidden])')]
          .filter((input) => !input.labels?.length && !input.ariaLabel).length,
      };
    });
    const dark = this.look.endsWith('dark');
    this.check(`${step}: is ${dark ? 'dark' : 'light'}`, dark ? found.background < 0.2 : found.background > 0.7, found.background);
    this.check(`${step}: can be read`, found.faint.length === 0, found.faint.join('; '));
    this.check(`${step}: fits`, found.width <= found.inner, `${found.width} > ${found.inner}`);
    this.check(`${step}: is not small`, found.text >= 13, found.text);
    this.check(`${step}: has a language, a title, labels`, found.lang && found.title && found.unlabelled === 0,
      JSON.stringify(found));
  }

  /** From the address to the page that says that it worked. */
  async logIn({ wrong = false, keyboard = false } = {}) {
    const { page } = this;
    const url = `${told.admin}/connect/neon?account=${this.account}`;
    await page.goto(url);
    await this.ours('connect', 'neon', this.account, 'sidekey login');
    if (wrong) {
      await this.connect('guess', keyboard);
      await page.waitForLoadState();
      await this.ours('wrong-token', 'token');
      this.check('a wrong token goes nowhere', page.url().startsWith(told.admin), page.url());
      await page.goto(url);
    }
    await this.connect(told.token, keyboard);
    await page.locator('input[name=login]').waitFor();
    await this.shoot('sign-in');
    this.check('the server\'s own page asks who it is', (await read(page)).includes('Sign-in'), await read(page));
    await page.locator('input[name=login]').fill(this.account);
    await page.locator('input[name=password]').fill('any');
    await page.locator('input[name=password]').press('Enter');
    await page.getByRole('button', { name: 'Continue' }).waitFor();
    await this.shoot('consent');
    this.check('and for consent', (await read(page)).includes('offline access'), await read(page));
    await page.getByRole('button', { name: 'Continue' }).click();
    await page.waitForURL((to) => to.href.startsWith(told.redirect));
    await page.waitForLoadState();
    await this.ours('worked', 'It worked', 'neon', this.account, 'offline_access');
  }

  async connect(token, keyboard) {
    const { page } = this;
    if (!keyboard) {
      await page.locator('input[name=token]').fill(token);
      await page.getByRole('button', { name: /connect|log in/i }).click();
      return;
    }
    for (let tabs = 0; tabs < 10 && !await page.evaluate(() => document.activeElement?.name === 'token'); tabs += 1) {
      await page.keyboard.press('Tab');
    }
    this.check('the keyboard reaches the field', await page.evaluate(() => document.activeElement?.name === 'token'));
    await page.keyboard.type(token);
    await page.keyboard.press('Enter');
  }

  async end() {
    this.check('no page breaks its own policy', this.complaints.length === 0, this.complaints.join('; '));
    this.check('no page of ours asks another server for anything', this.strangers.length === 0, this.strangers.join(' '));
    await this.context.close();
  }
}

/** Going back, reloading, cancelling; and what another site may not do. */
async function mischief(browser) {
  const visit = await new Visit(browser, 'desktop, light', 'mischief').open();
  const { page } = visit;
  await visit.logIn();
  const again = await page.reload();
  await visit.ours('reloaded');
  visit.check('a reloaded callback is refused', again.status() === 400, again.status());

  await page.goto(`${told.admin}/connect/neon?account=cancelled`);
  await visit.connect(told.token);
  // The server knows this browser by now, and asks for consent at once.
  await page.getByText('[ Cancel ]').click();
  await page.waitForURL((to) => to.href.startsWith(told.redirect));
  await visit.ours('cancelled', 'access was not granted');

  await page.goto(`${told.other_site}${encodeURIComponent(`${told.admin}/connect/neon?account=forged`)}`);
  const [answer] = await Promise.all([
    page.waitForResponse((response) => response.request().method() === 'POST'),
    page.getByRole('button', { name: 'Win' }).click(),
  ]);
  await visit.shoot('other-site');
  visit.check('a form of another site is refused', answer.status() === 403, answer.status());

  const cookies = await visit.context.cookies(told.redirect);
  const left = cookies.filter((cookie) => cookie.name.startsWith('sidekey-login'));
  visit.check('cookies of logins are out of reach of scripts and of other sites',
    left.every((cookie) => cookie.httpOnly && cookie.sameSite === 'Lax'), JSON.stringify(left.map(({ name }) => name)));
  await visit.end();
}

const browser = await chromium.launch({
  executablePath: told.chromium,
  // Nothing but this machine: the server's pages would like a font from elsewhere.
  args: ['--no-sandbox', '--disable-dev-shm-usage', '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1'],
});
const watchdog = setTimeout(() => { check('the browser ends in time', false, 'after 4 minutes'); process.exit(1); }, 240_000);
try {
  for (const look of Object.keys(looks)) {
    const visit = await new Visit(browser, look).open();
    await visit.logIn({ wrong: true, keyboard: look === 'desktop, light' });
    await visit.end();
  }
  await mischief(browser);
} catch (error) {
  check('the browser gets to the end', false, error.message);
} finally {
  clearTimeout(watchdog);
  await browser.close();
}
process.exit(failed ? 1 : 0);
