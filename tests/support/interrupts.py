"""Exceptions of signal handlers at random moments of Trunkline's code, for programs of
`tests.support.programs`."""

from __future__ import annotations

__all__ = ["HARNESS"]

HARNESS = """
import random, time
_PACKAGE = os.path.dirname(trunkline.__file__)

class Interrupt(BaseException):
    pass

class Interrupts:
    '''Raises in the code of Trunkline alone: what a program has been given is the program's to keep.'''

    def __init__(self, seed, error=Interrupt):
        self.random, self.error, self.raised, self.late = random.Random(seed), error, 0, 0.0
        signal.signal(signal.SIGALRM, self._handle)

    def _handle(self, number, frame):
        while frame is not None:
            if frame.f_code.co_filename.startswith(_PACKAGE):
                self.raised += 1
                raise self.error
            frame = frame.f_back

    def call(self, work, longest_s, *args):
        '''What it returned, in a list; an empty one when it was interrupted.'''
        seconds = longest_s * 10 ** -self.random.uniform(0, 4)
        signal.setitimer(signal.ITIMER_REAL, max(1e-6, seconds))
        try:
            return [work(*args)]
        except self.error:
            return []
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
"""
