"""Records on disk, and what keeps them whole: journal, parts, manifests, checksums, lock."""
