"""Recognition of files: jobs, results, videos."""
