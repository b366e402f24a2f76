"""The life of a strategy: load, init, main, onexit, close; and the exit code.

0: the script ended · 1: the script raised (shown as a traceback of the user's own lines) ·
2: the script could not be loaded · 130, 143, 129: stopped by SIGINT, SIGTERM, SIGHUP ·
141: the reader of the output has gone · any other code: the script called `sys.exit` with it.
"""

from __future__ import annotations

import ast
import contextlib
import inspect
import logging
import os
import sys
import threading
import tokenize
import traceback
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from types import CodeType, ModuleType
from typing import IO, Any

from trunkline.strategy.blame import report
from trunkline.strategy.exchange import Secrets
from trunkline.strategy.journal import Journal, Relay
from trunkline.strategy.namespace import Globals, PanicError
from trunkline.strategy.params import read_params
from trunkline.strategy.plain import Output, Plain, Screen
from trunkline.strategy.stop import PIPE, Stage, StopError, Stopper
from trunkline.strategy.storage import lock_folder, strategy_folder
from trunkline.strategy.text import clean

__all__ = ["run"]


def run(
    path: str,
    *,
    argv: Sequence[str] = (),
    console: bool | None = None,
    log_file: str | os.PathLike[str] | None = None,
    data: str | os.PathLike[str] | None = None,
    dial: Callable[..., Any] | None = None,
    name: str | None = None,
    settings: Sequence[str] = (),
    params: str | None = None,
) -> int:
    """Run the strategy in `path` and return the exit code.

    `argv`: the script's arguments.
    `console`: draw on a terminal; None: when stdout is a terminal.
    `log_file`: gets every row as a line of JSON.
    `data`: the folder for `_G` and `DBExec`.
    `dial`: takes the place of `trunkline.Dial`.
    `name`: tells this run from other runs of the same script.
    `settings` (NAME=VALUE) and the file `params`: globals of the script.

    Call `run` from the main thread, at most once per process. When a thread of the script that is
    no daemon refuses to end, `run` does not return: the process ends inside the call.
    """
    script = Path(path)
    with contextlib.ExitStack() as opened:
        try:
            code, calls_main = _load_script(script)
            secrets = Secrets()
            log = Path(log_file).absolute() if log_file else None
            folder = strategy_folder(script, data, name)
            lock = lock_folder(folder, script.name)
            if lock is not None:
                opened.enter_context(lock)
            strategy = _Strategy(
                script,
                secrets,
                console=console,
                log=log,
                folder=folder,
                dial=dial or _dial_lazily,
                name=name,
            )
            opened.callback(strategy.journal.close)
            strategy.params = read_params(params, settings, strategy.globals.names())
        except (OSError, SyntaxError, ValueError) as error:
            print(f"trunkline: {_reason_text(path, error)}", file=sys.stderr)
            return 2
        return strategy.run(code, list(argv), calls_main=calls_main)


_LATER = (
    "trunkline.proxy.connection",
    "trunkline.proxy.dial",
    "trunkline.dbapi",
    "rich.cells",
    "trunkline.strategy.httplinks",
    "Crypto.Hash.keccak",
    "encodings.idna",
)
"""Modules that this package imports only while a strategy runs.

See `_import_what_is_needed_later`.
"""


class _Strategy:
    """A single run of a script."""

    def __init__(
        self,
        script: Path,
        secrets: Secrets,
        *,
        console: bool | None,
        log: Path | None,
        folder: Path,
        dial: Callable[..., Any],
        name: str | None,
    ) -> None:
        self.script = script
        self.params: dict[str, Any] = {}
        self.code = 0
        # `ended`: onexit has been called. `closed`: `close` has begun. Both keep `finish` from
        # repeating a step.
        self.ended = False
        self.closed = False
        self.stdout = sys.stdout
        self.stderr = sys.stderr
        grace_s = _read_seconds("TRUNKLINE_STOP_GRACE_S", 15)
        self.stopper = Stopper(grace_s=grace_s, force=self.force, notice=self.notice)
        self.journal = Journal(self._show_row, self.stopper, log, name)
        self.relay = Relay(self.journal)
        self.screen = _make_screen(self.stdout, console, self._stop_unread, self.notice)
        shown = name or script.stem
        self.globals = Globals(
            self.journal, self.screen, self.stopper, folder, dial, secrets, shown
        )
        self.module = ModuleType("__main__")
        # The threads from before the script; every other thread belongs to the script.
        self.threads = set(threading.enumerate())

    def run(self, code: CodeType, argv: list[str], *, calls_main: bool) -> int:
        """Run the script to its end and return the exit code."""
        undo = self._enter_script(argv)
        try:
            self.stopper.install()
            try:
                self._run_guarded(lambda: self._live_through(code, calls_main))
                self.finish()
            except StopError:
                # The signal came between the script and `finish`, or just after onexit.
                self.finish()
            self.stopper.restore()
            # Looked for while `_thread_ended` is still the hook, which does not show a thread's
            # StopError.
            stuck = self._stuck_threads()
        finally:
            undo()
        if self.stopper.reason is not None:
            self.code = self.code or 128 + self.stopper.reason
        self._quiet_stdout()
        if stuck:
            os._exit(self.code)
        return self.code

    def finish(self) -> None:
        """Run onexit, then close the connections, then the screen. An interrupted `finish` may be
        called again.

        The connections of a strategy end with the strategy, or with the last process of
        multiprocessing that the strategy has left running.
        """
        self.stopper.begin_exit(_read_seconds("TRUNKLINE_ONEXIT_S", 300))
        onexit = vars(self.module).get("onexit")
        if callable(onexit) and not self.ended:
            self.ended = True
            self._run_guarded(lambda: _call_function("onexit", onexit))
        self.stopper.stage = Stage.DONE
        if not self.closed:
            self.closed = True
            self.close()

    def close(self) -> None:
        """Close every open resource. An error in a step is printed, and the next step follows.

        The connections of a strategy end with the strategy, or with the last process of
        multiprocessing that the strategy has left running.
        """
        # Not imported if the strategy has never dialled.
        core = sys.modules.get("trunkline.proxy.leaving")
        leave: Callable[[], object] = getattr(core, "leave", lambda: None)
        outside = (
            self.globals.database.close,
            leave,
            self.globals.http.close,
            self.globals.push.close,
        )
        for step in (*outside, self.journal.close, self.screen.close):
            try:
                step()
            except Exception:
                traceback.print_exc(file=self.stderr)

    def force(self) -> None:
        """End the process while the script is still on the stack: the script has swallowed the stop
        for too long.

        Called by the stopper in the main thread. Does not return.
        """
        self.notice(f"the script does not stop; ending it (it must let {StopError.__name__} pass)")
        self.finish()
        self.code = self.code or (1 if self.stopper.reason is None else 128 + self.stopper.reason)
        self._quiet_stdout()
        self.stderr.flush()
        os._exit(self.code)

    def notice(self, text: str) -> None:
        """Print a line of Trunkline's own to stderr."""
        self._print_error(f"trunkline: {text}\n")

    def _live_through(self, code: CodeType, calls_main: bool) -> None:
        """Execute the script, then call `init` and `main` unless the script calls `main` itself."""
        namespace = vars(self.module)
        namespace.update(self.params)
        exec(code, namespace)
        # The script's own value of such a name is only a default.
        namespace.update(self.params)
        if calls_main:
            return
        for name in ("init", "main"):
            function = namespace.get(name)
            if callable(function):
                _call_function(name, function)
            elif name == "main":
                raise _NoMain(f"{self.script.name} defines no main()")

    def _run_guarded(self, part: Callable[[], object]) -> None:
        """Run a part of the script and turn its end into an exit code.

        The first code that is not 0 stays.
        """
        code = 0
        try:
            part()
        except StopError as stop:
            if self.stopper.reason is None:
                self.journal.error(str(stop))
                code = 1
        except SystemExit as leave:
            code = self._exit_code(leave)
        except KeyboardInterrupt:
            code = 130
        except _NoMain as error:
            self.journal.error(str(error))
            code = 1
        except PanicError:
            code = 1
        except BaseException as error:
            self._report_crash(error)
            code = 1
        if self.stopper.reason is not None:
            code = 128 + self.stopper.reason
        self.code = self.code or code

    def _report_crash(self, error: BaseException) -> None:
        """Show and store the traceback of a crash."""
        text = report(error, self.script)
        self.journal.record("error", text)
        self._print_error(text)

    def _thread_ended(self, args: threading.ExceptHookArgs) -> None:
        """Show and store an exception of a script's thread, as a crash of the script.

        The script goes on.
        """
        if args.exc_value is None or isinstance(args.exc_value, (StopError, SystemExit)):
            return
        name = args.thread.name if args.thread is not None else "?"
        text = f"Exception in thread {name}:\n{report(args.exc_value, self.script)}"
        self.journal.record("error", text)
        self._print_error(text)

    def _exit_code(self, leave: SystemExit) -> int:
        """The exit code of `sys.exit`: a text is printed and means 1, as in Python."""
        if leave.code is None or isinstance(leave.code, int):
            return leave.code or 0
        self._print_error(f"{leave.code}\n")
        return 1

    def _print_error(self, text: str) -> None:
        """Print to stderr. An output that cannot be written is no reason to end the strategy."""
        try:
            # The text may quote a peer.
            sys.stderr.write(clean(text))
            sys.stderr.flush()
        except (OSError, ValueError, RuntimeError):
            pass

    def _show_row(self, row: Any) -> None:
        self.screen.row(row)

    def _stop_unread(self) -> None:
        self.stopper.request(PIPE)

    def _enter_script(self, argv: list[str]) -> Callable[[], None]:
        """Arrange the interpreter as if Python had been started with the script; returns the
        function that undoes this."""
        before = (
            sys.argv,
            sys.path,
            sys.modules["__main__"],
            sys.stdout,
            sys.stderr,
            threading.excepthook,
        )
        vars(self.module).update(
            self.globals.names(), __file__=str(self.script), __builtins__=__builtins__
        )
        sys.argv = [str(self.script), *argv]
        _import_what_is_needed_later()
        sys.path = [str(self.script.resolve().parent), *sys.path]
        sys.modules["__main__"] = self.module
        sys.stdout = Output(self.stdout, self.screen.out)
        if not isinstance(self.screen, Plain) and self.stderr.isatty():
            sys.stderr = Output(self.stderr, self.screen.out)
        threading.excepthook = self._thread_ended
        logger = logging.getLogger("trunkline")
        logger.addHandler(self.relay)

        def undo() -> None:
            (
                sys.argv,
                sys.path,
                sys.modules["__main__"],
                sys.stdout,
                sys.stderr,
                threading.excepthook,
            ) = before
            logger.removeHandler(self.relay)

        return undo

    def _stuck_threads(self) -> bool:
        """Whether a thread of the script would keep the process alive.

        Such threads get a second in total to end. On FMZ, these threads end with main.
        """
        mine = [t for t in threading.enumerate() if t not in self.threads and not t.daemon]
        for thread in mine:
            thread.join(1.0 / len(mine))
        return any(thread.is_alive() for thread in mine)

    def _quiet_stdout(self) -> None:
        """Flush stdout. After the reader has gone, discard the rest, so that the interpreter's end
        prints no error."""
        try:
            self.stdout.flush()
        # The reader has gone, or the disk is full.
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.stdout.fileno())
        except ValueError:
            pass


class _NoMain(Exception):
    """The script has nothing to run."""


def _call_function(name: str, function: Callable[[], object]) -> None:
    """Call a function of the script's life.

    A function that only makes a coroutine or a generator has done nothing, and would seem to end
    well. Such a function raises `_NoMain`.
    """
    made = function()
    if inspect.iscoroutine(made):
        made.close()
        raise _NoMain(
            f"{name}() is an async function, and nobody awaits it: use asyncio.run in a plain one"
        )
    if inspect.isgenerator(made) or inspect.isasyncgen(made):
        raise _NoMain(
            f"{name}() holds a yield, so that calling it runs nothing: take the yield out"
        )


def _load_script(script: Path) -> tuple[CodeType, bool]:
    """Compile the script; also says whether the script calls main() under `if __name__ ==
    "__main__"`."""
    with tokenize.open(script) as file:
        source = file.read()
    tree = ast.parse(source, str(script))
    return compile(tree, str(script), "exec"), any(_calls_main(node) for node in tree.body)


def _calls_main(node: ast.stmt) -> bool:
    """Whether a statement is `if __name__ == ...` with a call of main()."""
    if not isinstance(node, ast.If) or "__name__" not in ast.dump(node.test):
        return False
    calls = (part.func for part in ast.walk(node) if isinstance(part, ast.Call))
    return any(isinstance(called, ast.Name) and called.id == "main" for called in calls)


def _reason_text(path: str, error: Exception) -> str:
    """The reason why a script cannot be run, for people."""
    if isinstance(error, SyntaxError):
        return f"{path} cannot be read\n" + "".join(traceback.format_exception_only(error)).rstrip()
    if isinstance(error, OSError):
        return f"{error.filename or path}: {error.strerror or error}"
    return str(error)


def _make_screen(
    stream: IO[str],
    console: bool | None,
    broken: Callable[[], None],
    complain: Callable[[str], None],
) -> Screen:
    """The screen for `stream`; `broken` is called when the reader has gone, `complain` prints a
    trouble."""
    if console if console is not None else stream.isatty():
        from trunkline.strategy.live import LiveScreen

        return LiveScreen(stream)
    return Plain(stream, broken, complain)


def _import_what_is_needed_later() -> None:
    """Import the modules that this package would otherwise import while the strategy runs.

    The strategy's folder is then on the path: a `signal.py` or `queue.py` of the user's would be
    imported instead.
    """
    for name in _LATER:
        # A module of an extra may be missing.
        with contextlib.suppress(ImportError):
            import_module(name)


def _dial_lazily(*args: Any, **options: Any) -> Any:
    """`trunkline.Dial`, imported at the first call."""
    from trunkline.proxy.dial import Dial

    return Dial(*args, **options)


def _read_seconds(name: str, default: float) -> float:
    """A number of seconds from the environment; the default for a missing or malformed value."""
    try:
        return max(0.01, float(os.environ[name]))
    except (KeyError, ValueError):
        return default
