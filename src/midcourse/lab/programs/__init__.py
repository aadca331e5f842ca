"""The lab's world of programs: functions of a few statements, some of which the base misreads."""
