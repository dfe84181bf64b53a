"""One job's scoring, shared out among workers.

`mailbox` is how a child and its worker talk, `desk` the side of the worker that has the job, `help`
that of one with nothing else to do; `claims` says in the database who scores what, `files` keeps
what came of it.
"""
