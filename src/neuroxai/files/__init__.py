"""Writing of results: atomic files, file names, and result folders."""
