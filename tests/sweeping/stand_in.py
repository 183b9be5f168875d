"""Takes the place of a training in the tests of the loop: a program that starts in no time.

    python stand_in.py WORKDIR BEHAVIOUR...

It keeps to the format of a run directory. The behaviours are those of its starts; the last one is
that of all further starts. Each start adds a line to `starts`.
"""

import fcntl
import json
import os
import signal
import sys
import time
from pathlib import Path


def write(status, **more):
    (workdir / '.summary').write_text(json.dumps({'status': status} | more))
    (workdir / '.summary').rename(workdir / 'summary.json')


def end_in_good_order(number, frame):
    write('preempted')
    sys.exit(75)


workdir, behaviours = Path(sys.argv[1]), sys.argv[2:]
lock = (workdir / '.lock').open('a')
fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # a second training of it would fail here
signal.signal(signal.SIGTERM, end_in_good_order)
starts = workdir / 'starts'
number = len(starts.read_text().splitlines()) if starts.exists() else 0
cores = sorted(os.sched_getaffinity(0))
with starts.open('a') as file:
    gpus = os.environ.get('CUDA_VISIBLE_DEVICES', '')
    file.write(json.dumps({'pid': os.getpid(), 'cores': cores, 'gpus': gpus}) + '\n')
config = {'train': {'batch_size': 10, 'epochs': 100.0, 'steps': None}}
(workdir / 'config.json').write_text(json.dumps(config))
(workdir / 'environment.json').write_text(json.dumps({'data': {'sizes': {'train': 10}}}))
write('running')
behaviour, _, value = behaviours[min(number, len(behaviours) - 1)].partition(':')
if behaviour == 'crash':
    print('ValueError: of the tests', flush=True)
    sys.exit(1)
elif behaviour == 'mistake':
    print('error: the loss is nan', flush=True)
    write('failed', error='the loss is nan')
    sys.exit(2)
elif behaviour == 'checkpoint':  # then it is killed
    (workdir / f'checkpoints/{number + 1}').mkdir(parents=True)
    os.kill(os.getpid(), signal.SIGKILL)
elif behaviour == 'killed':
    os.kill(os.getpid(), signal.SIGKILL)
elif behaviour == 'hang':
    time.sleep(60)
elif behaviour in ('learn', 'slow'):  # for as long as it is let
    for epoch in range(1, 101):
        with (workdir / 'metrics.jsonl').open('a') as file:
            row = {'step': epoch, 'val/loss': 1.0, 'val/accuracy': float(value)}
            file.write(json.dumps(row) + '\n')
        time.sleep(0.3 if behaviour == 'slow' else 0.001)
time.sleep(0.05)
accuracy = float(value or 0.5)
write('finished', val={'accuracy': accuracy}, best={'step': 1}, test={'accuracy': accuracy})
