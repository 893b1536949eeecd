"""What can go wrong; `service/api/errors.py` maps it to HTTP.

`ArtifactError`, `DeviceError` and `ExportFailedError` stop a start. `OutOfMemoryError` has a batch tried again in
halves; `DeviceLostError` takes its device out of use, and ends the service for whoever started it to start another.
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
    """There is no such model: none that is served under the name, or no such folder."""


class NotReadyError(BerthError):
    """The service is starting up or shutting down."""


class OverloadedError(BerthError):
    """The queue is full; `retry_after` is the time in seconds after which there should be room."""

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class RateLimitError(OverloadedError):
    """The request's key has used up its tokens; `retry_after` is the time in seconds until there are enough again."""


class DeadlineError(BerthError):
    """The request's deadline passed before its vectors were ready."""


class EncoderError(BerthError):
    """The encoder failed on one text, alone in its batch, or gave something that is not a number."""


class OutOfMemoryError(EncoderError):
    """The device has no memory for a batch; a smaller one may fit."""


class DeviceLostError(EncoderError):
    """The device has failed, and nothing will run on it again in this process."""


class ArtifactError(BerthError):
    """A folder that cannot be served: files missing, altered, or written by another version."""


class DeviceError(BerthError):
    """A device that is not there, or that the installed packages cannot use; the text names the cure."""


class ExportFailedError(BerthError):
    """A checkpoint could not be exported; `status` is the exit status of the process that tried."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status
