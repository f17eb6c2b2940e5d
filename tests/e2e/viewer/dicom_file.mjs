// DICOM files as bytes and as data sets with keyword names.
import fs from 'node:fs';

import dcmjs from 'dcmjs';

const { DicomMessage, DicomMetaDictionary } = dcmjs.data;

export function readBytes(file) {
  const bytes = fs.readFileSync(file);
  return bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength);
}

export function readDataset(file) {
  const parsed = DicomMessage.readFile(readBytes(file));
  const dataset = DicomMetaDictionary.naturalizeDataset(parsed.dict);
  dataset._meta = DicomMetaDictionary.namifyDataset(parsed.meta);
  return dataset;
}
