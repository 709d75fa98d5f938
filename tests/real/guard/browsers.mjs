// Web pages that try to call sidekey, in headless Chromium.
//
//     node browsers.mjs '{"chromium": PATH, "ways": […], "redirector": URL, "cases": [{"name", "page", "to"}…]}'
//
// For each case and way it prints what the page saw: `outcome {"page", "way", "outcome"}`.

import { chromium } from 'playwright-core';

const told = JSON.parse(process.argv[2]);
// It is for sidekey to refuse what these would stop, or ask about, before it leaves.
const asking = ['LocalNetworkAccessChecks', 'LocalNetworkAccessChecksWebSockets', 'LocalNetworkAccessChecksWebTransport',
  'BlockInsecurePrivateNetworkRequests', 'PrivateNetworkAccessRespectPreflightResults', 'HttpsUpgrades',
  'HttpsFirstBalancedModeAutoEnable'];
const browser = await chromium.launch({
  executablePath: told.chromium,
  args: ['--no-sandbox', '--disable-dev-shm-usage', `--disable-features=${asking.join(',')}`,
    '--host-resolver-rules=MAP *.test 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1'],
});
const watchdog = setTimeout(() => { process.stdout.write('FAILED  web pages: the browser ends in time: it does not\n'); process.exit(1); }, 500_000);
try {
  // Each case in a profile of its own, side by side: most of it is waiting.
  await Promise.all(told.cases.map(async ({ name, page: origin, to }) => {
    const context = await browser.newContext();
    for (const way of told.ways) {
      const page = await context.newPage();
      await page.goto(`${origin}/`);
      await page.evaluate((redirector) => { window.redirector = redirector; }, told.redirector);
      const outcome = await page.evaluate(([way, to, name]) => go(way, to, name), [way, to, name]);
      process.stdout.write(`outcome ${JSON.stringify({ page: name, way, outcome })}\n`);
      // What opened elsewhere has to arrive first.
      for (const other of context.pages()) {
        if (other !== page) await other.waitForLoadState('load', { timeout: 5000 }).catch(() => {});
        await other.close();
      }
    }
    await context.close();
  }));
} finally {
  clearTimeout(watchdog);
  await browser.close();
}
