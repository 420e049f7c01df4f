"""One module per stage: its part of an experiment as a planned artefact, with the code it runs."""
