"""Takes jobs out of queue/ one by one: the text of a job, in capital letters, is its result."""

import pathlib
import time

QUEUE = pathlib.Path("queue")

print("worker starts", flush=True)
while True:
    for job in sorted(QUEUE.glob("*.job")):
        text = job.read_text()
        job.unlink()
        result = job.with_suffix(".new")
        result.write_text(text.upper())
        result.rename(job.with_suffix(".done"))
        print(f"{job.stem} done", flush=True)
    time.sleep(0.05)
