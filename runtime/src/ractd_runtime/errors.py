"""The one exception that users see: bad input, said in one clear sentence."""


class RactdError(Exception):
    """Bad input or an unusable state: which file, field or option, what was found, what was expected, what to do.

    The command line prints the message and exits with 2; in Python it is raised as it is.
    """
