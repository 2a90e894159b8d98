"""saga-orchestrator: nobody has told it where its queue is, for weeks."""

import os

from shared.server import serve

QUEUE = os.environ["QUEUE_URL"]

if __name__ == "__main__":
    serve("saga-orchestrator")
