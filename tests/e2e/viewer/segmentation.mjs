// A SEG as the viewer loads it: which labels lie in which voxels of which slice.
import { adaptersSEG } from '@cornerstonejs/adapters';

import { readBytes } from './dicom_file.mjs';

export async function readSegmentation(file, series) {
  const { Segmentation } = adaptersSEG.Cornerstone3D;
  const loaded = await Segmentation.createFromDICOMSegBuffer(series.imageIds, readBytes(file), {
    metadataProvider: series,
  });
  const segments = loaded.segMetadata.data
    .filter(Boolean)
    .map(({ SegmentNumber, SegmentLabel, RecommendedDisplayCIELabValue, rgba }) => ({
      number: SegmentNumber,
      label: SegmentLabel,
      color: RecommendedDisplayCIELabValue ?? rgba ?? null,
    }));
  return { segments, overlapping: loaded.overlappingSegments, slices: voxelsBySlice(loaded.labelMapImages) };
}

// Where segments overlap (a lesion in the liver) the adapters give several layers of label maps; a voxel is then in
// one layer for each of its segments.
function voxelsBySlice(layers) {
  const slices = {};
  for (const image of layers.flat()) {
    const instance = image.referencedImageId.split(':')[1];
    const labels = image.voxelManager.getScalarData();
    const segments = (slices[instance] ??= {});
    labels.forEach((label, index) => {
      if (label) (segments[label] ??= []).push(index);
    });
  }
  for (const segments of Object.values(slices)) {
    for (const label of Object.keys(segments)) segments[label] = runs(segments[label]);
  }
  return slices;
}

// Sorted voxel indices (row · columns + column) as [first, length] pairs: exact, and small enough for stdout.
function runs(indices) {
  const found = [];
  for (const index of indices) {
    const last = found.at(-1);
    if (last && index === last[0] + last[1]) last[1] += 1;
    else found.push([index, 1]);
  }
  return found;
}
