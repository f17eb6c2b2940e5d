// What a viewer makes of m3node's objects: node BUNDLE CT_FOLDER SEG_FILE [SR_FILE…], one JSON object on stdout.
//
// The adapters are the ones that OHIF ships; they get the CT's attributes from a metadata provider, as in the viewer.
import { basename } from 'node:path';

import { metaData } from '@cornerstonejs/core';

import { MetadataOfSeries, readSeries } from './ct_metadata.mjs';
import { readReport } from './report.mjs';
import { readSegmentation } from './segmentation.mjs';

const [folder, segmentation, ...reports] = process.argv.slice(2);
// The adapters tell the console what they do; only our answer belongs on stdout, their complaints in it.
let warnings = [];
console.log = console.info = console.debug = () => {};
console.warn = console.error = (...parts) => warnings.push(parts.map(String).join(' ').slice(0, 300));

async function withWarnings(read) {
  warnings = [];
  return { ...(await read()), warnings };
}

const series = new MetadataOfSeries(readSeries(folder));
metaData.addProvider((type, imageId) => series.get(type, imageId), 1000);

const answer = { segmentation: await withWarnings(() => readSegmentation(segmentation, series)), reports: {} };
for (const file of reports) {
  answer.reports[basename(file)] = await withWarnings(() => ({ measurements: readReport(file, series) }));
}
// The adapters leave timers behind, so the end is ours to make, once a pipe has taken all of the answer.
process.stdout.write(`${JSON.stringify(answer)}\n`, () => process.exit(0));
