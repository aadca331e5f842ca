"""The stages of the method: plain functions from records to records.

No stage opens a file, reads a flag or holds state; `midcourse.run` reads, resumes and writes.
"""
