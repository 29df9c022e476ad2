"""Recognition of files: results, reports, videos."""
