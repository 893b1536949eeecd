"""What can go wrong, in the order in which a text meets it; `api/errors.py` maps these to HTTP.

    bytes ─▶ schema ─▶ Embedder ─▶ Tokenizer ─▶ Scheduler ─▶ Encoder ─▶ pool ─▶ reply
      │        │          │            │            │            │
      │        │          │            │            │            └ EncoderError       the model failed on one text
      │        │          │            │            └ OverloadedError, TooLargeError  queue full, request beyond it
      │        │          │            │              RateLimitError                  the key has used up its tokens
      │        │          │            │              DeadlineError                   the answer would come too late
      │        │          │            └ InvalidInputError                            no tokens, too many, unknown ids
      │        │          └ NotReadyError, ModelNotFoundError                         starting, draining, another model
      │        └ MalformedError                                                       a field of the wrong type or range
      └ UnauthorizedError, TooLargeError                                              no key, more bytes than are read

`ArtifactError` and `DeviceError` stop a start: the folder to serve is not what its manifest says, or the device that it
is for cannot be used. `OutOfMemoryError` is the encoder's word to the runner, which tries the batch again in halves;
`DeviceLostError` ends the process, for whoever started it to start another.
"""


class BerthError(Exception):
    """The root of all failures that Berth itself reports; its text is written for the person who made the request."""


class InvalidInputError(BerthError):
    """A value the caller can correct; `param` names the field, as in `input[3]`."""

    def __init__(self, param: str, message: str) -> None:
        super().__init__(f"{param}: {message}" if param else message)
        self.param = param


class MalformedError(InvalidInputError):
    """A body that is no JSON, or not of the shape its route takes."""


class EmptyError(MalformedError):
    """A list with nothing in it."""


class UnauthorizedError(BerthError):
    """The request shows none of the keys that the service wants to see."""


class TooLargeError(BerthError):
    """More than the service would ever take at once; `param` names the field, or is empty for the body as a whole."""

    def __init__(self, param: str, message: str) -> None:
        super().__init__(message)
        self.param = param


class ModelNotFoundError(BerthError):
    """The request names a model that is not served here."""


class NotReadyError(BerthError):
    """The service is starting up or shutting down."""


class OverloadedError(BerthError):
    """The queue is full; `retry_after` is the time in seconds after which there should be room."""

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class RateLimitError(BerthError):
    """The request's key has used up its tokens; `retry_after` is the time in seconds until there are enough again."""

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class DeadlineError(BerthError):
    """The request's deadline passed before its vectors were ready."""


class EncoderError(BerthError):
    """The encoder failed on one unit, alone in its batch, or gave something that is not a number."""


class OutOfMemoryError(EncoderError):
    """The device has no memory for a batch; a smaller one may fit."""


class DeviceLostError(EncoderError):
    """The device has failed, and nothing will run on it again in this process."""


class ArtifactError(BerthError):
    """A folder that cannot be served: files missing, altered, or written by another version."""


class DeviceError(BerthError):
    """A device that is not there, or that the installed packages cannot use; the text names the cure."""
