"""DOCTOR: looks at all that a gateway needs, says what is wrong, and changes nothing.

Called by the command ``edwin doctor``.  A file for each thing that is looked at, made
of checks that yield a :class:`~edwin.doctor.finding.Finding` for what they saw.
"""

from edwin.doctor.finding import OK, PROBLEM, WARNING, Finding
from edwin.doctor.report import Report, examine

__all__ = ["OK", "PROBLEM", "WARNING", "Finding", "Report", "examine"]
