"""The one exception that is meant for the person who runs the pipeline."""


class UserError(Exception):
    """Bad usage, configuration or input.

    Its text is one or two lines that name the file, row or key and the cure. The command line prints it without a
    traceback and ends with status 2.
    """


def user_error(failure: BaseException) -> UserError | None:
    """The UserError in a chain of causes, which TFX and Beam put other exceptions around; None if there is none."""
    cause: BaseException | None = failure
    while cause:
        if isinstance(cause, UserError):
            return cause
        cause = cause.__cause__ or cause.__context__
    return None
