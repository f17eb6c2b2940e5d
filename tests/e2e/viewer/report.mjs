// An SR as the viewer hydrates it: which measurements appear, on which slice, with which points.
import { adaptersSR } from '@cornerstonejs/adapters';

import { readDataset } from './dicom_file.mjs';

export function readReport(file, series) {
  const { MeasurementReport } = adaptersSR.Cornerstone3D;
  const byTool = MeasurementReport.generateToolState(readDataset(file), series.imageIdByReference, series);
  return Object.entries(byTool).flatMap(([tool, measurements]) =>
    measurements.map((measurement) => ({
      tool,
      label: measurement.annotation?.data?.label ?? null,
      finding: measurement.finding?.CodeMeaning ?? null,
      tracking_uid: measurement.TrackingUniqueIdentifier,
      referenced_instance: measurement.sopInstanceUid,
      points_mm: pointsOf(measurement.annotation.data),
    })),
  );
}

// Free-hand contours keep their line apart from their handles.
function pointsOf(data) {
  const points = data.contour?.polyline?.length ? data.contour.polyline : data.handles.points;
  return points.map((point) => Array.from(point));
}
