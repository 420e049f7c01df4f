"""Names of the files of an artefact that one stage writes and another one reads."""

STUDENT_WEIGHTS = "student.safetensors"  # of an evaluation
STORED_LABELS = "labels.safetensors"  # of the labels of instances, one each
ANALYSIS_VALUES = "values.parquet"  # of an analysis: tidy rows
ANALYSIS_ARRAYS = "arrays.safetensors"  # of an analysis: what its figure needs besides the rows
