"""Reports: tables and figures from a run's own artifacts, one HTML file, a viewer of traces."""
