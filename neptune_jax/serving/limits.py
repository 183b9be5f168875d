"""What one client, and all clients together, may take of the server."""

import dataclasses

from starlette.exceptions import HTTPException

BODIES_IN_MEMORY = 16  # bodies of the largest size, together, before they are decoded


@dataclasses.dataclass(frozen=True)
class Limits:
    """The limits of a server."""

    body_bytes: int = 16 * 2**20  # of a request
    body_seconds: float = 20.0  # from the first byte of a request to its last
    answer_seconds: float = 10.0  # from there to the answer; for 504
    pixels: int = 50_000_000  # of an image; checked before it is decoded
    waiting: int = 256  # images in the queue of a model; for 503
    connections: int = 512  # open at once; for 503
    lines: int = 1024  # images in one request of /predict/batch


class Memory:
    """Counts the bytes of bodies that are in memory."""

    def __init__(self, limits: Limits) -> None:
        self.left = BODIES_IN_MEMORY * limits.body_bytes

    def take(self, count: int) -> None:
        """Takes some bytes of what is left. Raises HTTPException (503) if too little is."""
        if count > self.left:
            raise busy('too many images are being sent at once')
        self.left -= count

    def give_back(self, count: int) -> None:
        """Gives bytes back."""
        self.left += count


def busy(reason: str) -> HTTPException:
    """Returns the answer to a request that may succeed when it is repeated a little later."""
    return HTTPException(503, f'{reason}; try again', headers={'Retry-After': '1'})
