// OHIF with SEG and SR hydrated, at the slices of some lesions: node screenshots.mjs STUDY_UID OUT_FOLDER 1,4
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';

import { chromium } from 'playwright-core';

const VIEWER = 'http://127.0.0.1:23000/viewer';
const CHROMIUM = [
  '--no-sandbox',
  '--use-angle=swiftshader',
  '--enable-unsafe-swiftshader',
  '--ignore-gpu-blocklist',
  '--disable-dev-shm-usage',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  // Nothing but loopback resolves.
  '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1',
];
const SETTLE = 6000; // software rendering: what is loaded is drawn some seconds later
const SOFT_TISSUE = '1'; // OHIF's key for its first window preset

const [study, out, lesions] = process.argv.slice(2);
fs.mkdirSync(out, { recursive: true });

const profile = fs.mkdtempSync(path.join(os.tmpdir(), 'ohif-'));
const context = await chromium.launchPersistentContext(profile, {
  executablePath: '/usr/bin/chromium',
  headless: true,
  viewport: { width: 1400, height: 840 },
  args: CHROMIUM,
});
const page = context.pages()[0] ?? (await context.newPage());
const complaints = new Set();
page.on('console', (message) => {
  if (['error', 'warning'].includes(message.type())) complaints.add(message.text().slice(0, 300));
});
page.on('pageerror', (error) => complaints.add(`page error: ${String(error).slice(0, 300)}`));

const button = (name) => page.locator(`[data-cy="${name}"]`).first();
const settle = (milliseconds = SETTLE) => page.waitForTimeout(milliseconds);

async function hydrate(description) {
  await page.locator('[data-cy^="study-browser-thumbnail"]', { hasText: description }).first().dblclick();
  await settle();
  await button('yes-hydrate-btn').click();
  await settle();
}

async function picture(name, panel) {
  await button(panel).click();
  await settle(1500);
  await page.screenshot({ path: path.join(out, `${name}.png`) });
}

await page.goto(`${VIEWER}?StudyInstanceUIDs=${study}`, { waitUntil: 'domcontentloaded' });
await page.waitForSelector('canvas', { timeout: 60000 });
await settle();
await page.getByText('Skip all').click({ timeout: 3000 }).catch(() => {}); // the tour, on a first visit

await hydrate('m3node segmentation');
await hydrate('m3node lesions');
for (const lesion of lesions.split(',')) {
  await button('trackedMeasurements-btn').click();
  await page.locator('[data-cy="data-row"]').nth(Number(lesion) - 1).click();
  await settle(2000);
  await page.mouse.move(700, 780); // over the viewport, where the key counts, and away from the anatomy
  await page.keyboard.press(SOFT_TISSUE);
  await settle(2500);
  await picture(`sr-${lesion}`, 'trackedMeasurements-btn');
  await picture(`seg-${lesion}`, 'panelSegmentation-btn');
}
console.log([...complaints]);
await context.close();
