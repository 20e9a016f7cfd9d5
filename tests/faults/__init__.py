"""What Leat must withstand: real processes, real faults, and a check of the invariants after each.

``harness`` starts processes of ours and hurts them, ``process`` is what runs inside, ``oracle`` says what must be true
of what was acknowledged, ``invariants`` looks whether it is, ``proxy`` stands between us and a dependency, ``sabotage``
takes a protection away, so that a check can show its teeth. ``campaign`` does the long runs and writes the report.
"""
