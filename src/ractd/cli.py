"""The command line: finds the command that was typed, runs it, and turns what goes wrong into a sentence and an exit code.

Only the named command's file is imported: help, the version and `ractd data` need no PyTorch.
"""

from __future__ import annotations

import errno
import importlib
import os
import shlex
import sys
from collections.abc import Sequence

import ractd
from ractd.commands import COMMANDS, Command, choose
from ractd.commands.consoles import err, say, spell_out_characters
from ractd.errors import RactdError
from ractd.stopping import Interrupted

GOES_ON = ("train", "compare", "sweep", "reproduce")
"""Commands that go on where they were stopped."""
COMPLETION = ("--tyro-print-completion", "--tyro-write-completion")
"""What asks for a shell's script that completes command lines."""
PIPE_CLOSED = 141
"""What a shell reports of a program that wrote to a pipe nobody reads, as into `head`."""
UNUSABLE_PATHS = {
    "ENOSPC": "could not be written, the disk is full; make room and run the same command again",
    "EDQUOT": "could not be written, your share of the disk is used up; make room and run the same command again",
    "EROFS": "could not be written, the disk is read-only; name a place on another",
    "EACCES": "this user may not read or write there; change its permissions, or name another place",
    "ENAMETOOLONG": "the name is too long for the file system; use a shorter one",
    "ENOTDIR": "a part of this path is a file and no folder; name another place",
    "EISDIR": "is a folder, expected a file; name another",
    "EEXIST": "is a file, expected a folder; name another",
    "ELOOP": "its links lead in a circle; name another place",
}
"""What the system says about a path that was given, wherever that comes up."""


def parse(words: Sequence[str]) -> Command:
    """Read a command line, the first word of which names the command.

    Raises:
        RactdError: For a command that there is not.
        SystemExit: After help, the version and a completion script, with 0, and for words that the command doesn't know, with 2.
    """
    if words and words[0] == "--version":
        print(f"ractd {ractd.__version__}")
        raise SystemExit(0)
    if words and words[0] in COMPLETION:
        importlib.import_module("ractd.commands.completion").write_script(words)
    about = "From a logged dataset to a policy that acts in one network evaluation."
    name, rest = choose(words, "ractd", about, COMMANDS, ("--help", "--version", *COMPLETION))
    command: Command = importlib.import_module(f"ractd.commands.{name}").parse(rest)
    return command


def main() -> None:
    """Run the command line: exit code 0, 2 for bad input, 130 after Ctrl-C."""
    words = sys.argv[1:]
    spell_out_characters()
    try:
        try:
            parse(words).run()
        finally:
            sys.stdout.flush()
    except RactdError as error:
        say(str(error), err, "[bold red]error:[/]")
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        how = (
            f"; go on from the last checkpoint with: ractd {shlex.join(words)}" if words and words[0] in GOES_ON else ""
        )
        say(f"stopped{how}", err)
        raise SystemExit(130) from None
    except BrokenPipeError:
        # Python writes what is left once more when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(PIPE_CLOSED) from None
    except OSError as error:
        why = UNUSABLE_PATHS.get(errno.errorcode.get(error.errno or 0, ""))
        if why is None:
            raise
        say(f"{error.filename or 'a file'}: {why}", err, "[bold red]error:[/]")
        raise SystemExit(2) from None
    except Interrupted:
        say(f"stopped and saved; go on with: ractd {shlex.join(words)}", err)
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
