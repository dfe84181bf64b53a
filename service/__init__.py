"""The HTTP face of the library: uploads, jobs in child processes, downloads.

`graph_ops` does the work on models and never imports this package. Here stands what a network
service adds: limits before parsing, crash isolation, storage on disk, and one shape of error
(RFC 9457). `service.app.create_app` builds it; `python -m service` runs it.
"""
