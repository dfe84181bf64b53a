"""Goals that no count of filters expresses, reached by going along one ranking of them.

ranking.py       scores taken once, and the network cut anywhere along them
metric_drop.py   the smallest model within a drop of the metric
latency.py       a share of the latency, measured or from a table
curve.py         many sizes at once
"""
