"""What is measured on records: every metric is a ratio of two sums over cases, so that patients can be resampled."""
