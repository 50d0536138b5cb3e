"""A model of sagas under faults: a bank that knows what really happened, and schedules of what goes wrong when.

``shapes`` and ``scenarios`` say which sagas there are; ``process`` and ``storage`` have the places at which something
can go wrong; ``faults`` what that can be; ``world`` is one schedule; ``truth`` holds it against the invariants;
``explorer`` finds and runs the schedules; ``mutants`` are broken engines that it must find out.
"""
