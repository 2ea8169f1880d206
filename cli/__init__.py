"""The edge: argv, files, signals, terminals and process entry points."""
