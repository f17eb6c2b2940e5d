// The CT's attributes in the modules that the adapters ask for (the image loader fills them in a viewer).
import fs from 'node:fs';
import { join } from 'node:path';

import { readDataset } from './dicom_file.mjs';

export function readSeries(folder) {
  const files = fs.readdirSync(folder).filter((name) => name.endsWith('.dcm')).sort();
  const slices = files.map((name) => readDataset(join(folder, name)));
  return slices.sort((a, b) => a.InstanceNumber - b.InstanceNumber);
}

export const imageIdOf = (slice) => `slice:${slice.SOPInstanceUID}`;

export class MetadataOfSeries {
  constructor(slices) {
    this.imageIds = slices.map(imageIdOf);
    this.slices = new Map(slices.map((slice) => [imageIdOf(slice), slice]));
    // An SR names an instance and a frame; single-frame images have frame 1, or none.
    this.imageIdByReference = Object.fromEntries(
      slices.flatMap((slice) => ['', ':1', ':undefined'].map((end) => [slice.SOPInstanceUID + end, imageIdOf(slice)])),
    );
  }

  get(type, imageId) {
    const slice = this.slices.get(imageId);
    return slice && MODULES[type]?.(slice);
  }
}

const MODULES = {
  instance: (slice) => slice,
  generalImageModule: (slice) => ({ sopInstanceUID: slice.SOPInstanceUID }),
  sopCommonModule: (slice) => ({ sopInstanceUID: slice.SOPInstanceUID, sopClassUID: slice.SOPClassUID }),
  generalSeriesModule: (slice) => ({ seriesInstanceUID: slice.SeriesInstanceUID, modality: slice.Modality }),
  imagePixelModule: (slice) => ({
    rows: slice.Rows,
    columns: slice.Columns,
    bitsAllocated: slice.BitsAllocated,
    bitsStored: slice.BitsStored,
    samplesPerPixel: slice.SamplesPerPixel,
    pixelRepresentation: slice.PixelRepresentation,
    photometricInterpretation: slice.PhotometricInterpretation,
  }),
  imagePlaneModule: (slice) => {
    const orientation = slice.ImageOrientationPatient.map(Number);
    const [rowSpacing, columnSpacing] = slice.PixelSpacing.map(Number);
    return {
      frameOfReferenceUID: slice.FrameOfReferenceUID,
      rows: slice.Rows,
      columns: slice.Columns,
      imageOrientationPatient: orientation,
      rowCosines: orientation.slice(0, 3),
      columnCosines: orientation.slice(3),
      imagePositionPatient: slice.ImagePositionPatient.map(Number),
      rowPixelSpacing: rowSpacing,
      columnPixelSpacing: columnSpacing,
      pixelSpacing: [rowSpacing, columnSpacing],
      sliceThickness: Number(slice.SliceThickness),
    };
  },
};
