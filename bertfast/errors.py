"""The one exception for what a user can mend."""


class InputError(Exception):
    """Something given to bertfast cannot be used: a path, a file's content, a setting.

    The message is one line that names the thing and the way out. The command lines print it and exit with status 2;
    programming errors are never wrapped in it and keep their traceback.
    """
