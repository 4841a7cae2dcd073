"""A network in one thread, from one seed: consensus cores, executors, disks, links and faults, checked as it runs."""
