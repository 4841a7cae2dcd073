"""The consensus core: a pure PBFT state machine, inputs in and effects out."""
