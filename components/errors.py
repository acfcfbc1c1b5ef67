"""The one exception that is meant for the person who runs the pipeline."""


class UserError(Exception):
    """Bad usage, configuration or input.

    Its text is one or two lines that name the file, row or key and the cure. The command line prints it without a
    traceback and ends with status 2.
    """
