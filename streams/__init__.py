"""The pipeline as pure code. Read ``topology`` first: it is the pipeline, in order."""
