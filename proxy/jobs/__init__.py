"""Requests for pictures as jobs: they can be asked about, left alone, and fetched afterwards.

==========  =======================================================================
`job`       one request, and how far it is
`jobs`      all of them, and the tasks of those whose clients need not stay
`answer`    an answer in a file: written as it comes, read as it grows
`shelf`     the files of answers and pictures, kept for an hour and within bounds
`links`     pictures in an answer become files that are served
`progress`  what a worker says of how far it is
==========  =======================================================================
"""

from proxy.jobs.answer import KeptAnswer
from proxy.jobs.job import Job, JobId, JobState
from proxy.jobs.jobs import Jobs
from proxy.jobs.links import linked
from proxy.jobs.progress import Progress
from proxy.jobs.shelf import Shelf

__all__ = ["Job", "JobId", "JobState", "Jobs", "KeptAnswer", "Progress", "Shelf", "linked"]
