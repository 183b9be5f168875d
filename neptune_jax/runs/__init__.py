"""The run directory, a public format: how a run is written and how anyone reads it.

config.json        the resolved config
environment.json   versions, devices, git commit, command line, data
metrics.jsonl      one JSON object a line: `step`, `time` and values by key ('train/loss')
summary.json       status, progress and results; replaced atomically
checkpoints/       Orbax: the latest checkpoints and the best one, with checksums
artifacts/         tables, figures and the predictions on the test split
report.html        all of it as a page; drawn when the run has finished (report.every_run)
sync/              what each tracker has received; see tracking/replay.py
evaluations/       results of `evaluate`, a folder each
calibration.json   the temperature that `evaluate --temperature=fit --save` has fitted
import.json        the origin of an imported run; see tracking/offline
damaged/           checkpoints that failed their checksums, if there were any
profile/           a profiler trace, if one was asked for
.lock              held by the process that writes
trial.json         of a run that belongs to a sweep: its number, the fields that the sweep has set
trial.log          what such a run has printed

Keys are `split/name`. The steps of a key strictly increase. NaN and infinities are kept as the
strings "NaN", "Infinity" and "-Infinity". Process 0 alone writes.
"""
